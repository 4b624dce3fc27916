#define _GNU_SOURCE /* qsort_r */
#include "ldap/snapshot_rows.h"

#include <stdlib.h>
#include <string.h>

struct snapshot_rows
snapshot_rows_of(size_t width)
{
    return (struct snapshot_rows){.width = width};
}

void
snapshot_rows_clear(struct snapshot_rows *r)
{
    free(r->octets);
    *r = snapshot_rows_of(r->width);
}

static bool
reserve(struct snapshot_rows *r, size_t n)
{
    size_t capacity = r->capacity ? r->capacity : 64;
    uint8_t *octets;

    if (r->is_full)
        return false;
    if (n > SNAPSHOT_ROWS_MAX || r->n > SNAPSHOT_ROWS_MAX - n) {
        r->is_full = true;
        return false;
    }
    if (r->n + n <= r->capacity)
        return true;
    while (capacity < r->n + n)
        capacity *= 2;
    octets = realloc(r->octets, capacity * r->width);
    if (!octets) {
        r->is_full = true;
        return false;
    }
    r->octets = octets;
    r->capacity = capacity;
    return true;
}

void
snapshot_rows_add_many(struct snapshot_rows *r, const void *rows, size_t n)
{
    if (n == 0 || !reserve(r, n))
        return;
    memcpy(r->octets + r->n * r->width, rows, n * r->width);
    r->n += n;
}

void
snapshot_rows_add(struct snapshot_rows *r, const void *row)
{
    snapshot_rows_add_many(r, row, 1);
}

void *
snapshot_rows_at(const struct snapshot_rows *r, size_t i)
{
    return r->octets + i * r->width;
}

static int
compare(const void *a, const void *b, void *width)
{
    return memcmp(a, b, *(const size_t *)width);
}

void
snapshot_rows_sort(struct snapshot_rows *r)
{
    size_t kept = 0;

    if (r->n == 0)
        return;
    qsort_r(r->octets, r->n, r->width, compare, &r->width);
    for (size_t i = 1; i < r->n; i++) {
        if (memcmp(snapshot_rows_at(r, kept), snapshot_rows_at(r, i), r->width) == 0)
            continue;
        kept++;
        if (kept != i)
            memcpy(snapshot_rows_at(r, kept), snapshot_rows_at(r, i), r->width);
    }
    r->n = kept + 1;
}

/* Row I of R becomes row *KEPT. */
static void
keep(struct snapshot_rows *r, size_t *kept, size_t i)
{
    if (*kept != i)
        memcpy(snapshot_rows_at(r, *kept), snapshot_rows_at(r, i), r->width);
    (*kept)++;
}

void
snapshot_rows_differ(struct snapshot_rows *old, struct snapshot_rows *new)
{
    size_t i = 0, k = 0, kept_old = 0, kept_new = 0;

    while (i < old->n && k < new->n) {
        int order = memcmp(snapshot_rows_at(old, i), snapshot_rows_at(new, k), old->width);

        if (order < 0) {
            keep(old, &kept_old, i++);
        } else if (order > 0) {
            keep(new, &kept_new, k++);
        } else {
            i++;
            k++;
        }
    }
    while (i < old->n)
        keep(old, &kept_old, i++);
    while (k < new->n)
        keep(new, &kept_new, k++);
    old->n = kept_old;
    new->n = kept_new;
}

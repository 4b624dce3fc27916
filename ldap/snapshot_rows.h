#ifndef LDAP_SNAPSHOT_ROWS_H
#define LDAP_SNAPSHOT_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rows of one size, one behind the other. Pure. */

/* More nobody has: beyond it is a server that does not come to an end. */
#define SNAPSHOT_ROWS_MAX ((size_t)1 << 23)

struct snapshot_rows {
    uint8_t *octets;
    size_t n, width, capacity;
    bool is_full; /* there was no room for more: something is missing */
};

struct snapshot_rows snapshot_rows_of(size_t width);
void snapshot_rows_clear(struct snapshot_rows *r);
void snapshot_rows_add(struct snapshot_rows *r, const void *row);
/* N of them, adjacent. */
void snapshot_rows_add_many(struct snapshot_rows *r, const void *rows, size_t n);
void *snapshot_rows_at(const struct snapshot_rows *r, size_t i);
/* By their octets; those that occur again go. */
void snapshot_rows_sort(struct snapshot_rows *r);
/* Of two sorted ones: what only OLD has stays in OLD, what only NEW has in NEW. */
void snapshot_rows_differ(struct snapshot_rows *old, struct snapshot_rows *new);

#endif

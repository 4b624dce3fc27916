#include "ldap/sync_duplicates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ldap/dir_filter.h"

#define MOST 100

/* An object that is looked for, and the address that it should have. */
struct hunt {
    struct hash128 address;
    struct dir_duplicate *out;
    bool has_address;
    char *dn;
};

static void
take_values(struct sync_look *k, struct hunt *h, struct berval *const *values)
{
    for (size_t i = 0; values[i]; i++) {
        char address[DIR_ADDRESS_MAX + 1];
        size_t n = sync_address(k->plan, span_of(values[i]->bv_val, values[i]->bv_len), address);
        struct hash128 hash = snapshot_hash(k->snapshot, span_of(address, n));

        if (n > 0 && memcmp(&hash, &h->address, sizeof hash) == 0)
            h->has_address =
                span_copy(h->out->address, sizeof h->out->address, span_of(address, n));
    }
}

static int
take_object(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct hunt *h = arg;
    char *dn = ldap_get_dn(k->link->ld, entry);

    for (size_t i = 0; i < k->plan->n_addresses; i++) {
        struct berval **values = ldap_get_values_len(k->link->ld, entry, k->plan->addresses[i]);

        if (values)
            take_values(k, h, values);
        ldap_value_free_len(values);
    }
    if (dn && h->has_address)
        snprintf(h->dn, sizeof h->out->dns[0], "%s", dn);
    ldap_memfree(dn);
    return 0;
}

static void
write_filter(const struct sync_look *k, const struct snapshot_id *id, char *out, size_t capacity)
{
    size_t n = (size_t)snprintf(out, capacity, "(%s=", k->is_ad ? "objectGUID" : "entryUUID");

    for (size_t i = 0; i < sizeof id->octets; i++) {
        bool has_dash = !k->is_ad && (i == 4 || i == 6 || i == 8 || i == 10);

        n += (size_t)snprintf(out + n, capacity - n, "%s%02x",
                              k->is_ad   ? "\\"
                              : has_dash ? "-"
                                         : "",
                              id->octets[i]);
    }
    snprintf(out + n, capacity - n, ")");
}

static int
look_up(struct sync_look *k, const struct snapshot_duplicate *d, struct dir_duplicate *out)
{
    for (size_t i = 0; i < 2; i++) {
        struct hunt h = {.address = d->address, .out = out, .dn = out->dns[i]};
        char filter[128];
        const struct sync_search s = {.base = k->plan->base,
                                      .scope = LDAP_SCOPE_SUBTREE,
                                      .filter = filter,
                                      .attributes = k->plan->attributes};

        write_filter(k, &d->objects[i], filter, sizeof filter);
        if (sync_search(k, &s, take_object, &h) < 0)
            return -1;
    }
    return 0;
}

struct dir_report *
sync_duplicates(struct sync_look *k)
{
    struct snapshot_duplicate *list = NULL;
    struct dir_report *report;
    size_t n = 0;
    int rc = snapshot_duplicates(k->part, MOST, &list, &n, &k->e);

    report = calloc(1, sizeof *report + n * sizeof report->list[0]);
    for (size_t i = 0; report && i < n && rc == 0; i++) {
        struct dir_duplicate *d = &report->list[report->n];

        rc = look_up(k, &list[i], d);
        /* One that was mended since the last look is none. */
        if (d->dns[0][0] != '\0' && d->dns[1][0] != '\0')
            report->n++;
        else
            *d = (struct dir_duplicate){.address = ""};
    }
    if (report && rc < 0)
        span_copy(report->error, sizeof report->error, span_str(k->e.text));
    free(list);
    return report;
}

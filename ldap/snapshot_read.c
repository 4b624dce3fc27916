#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ldap/dir_filter.h"
#include "ldap/snapshot_private.h"

/* A transaction and its cursors, which are kept from one question to the next: to begin anew costs
 * more than the question. */
struct snapshot_reader {
    struct snapshot *snapshot;
    MDB_txn *txn;
    MDB_cursor *addresses, *tombstones;
    bool is_begun;
};

/* Begin to read, under the map's lock; read_end gives both back. */
static int
read_begin(struct snapshot *s, MDB_txn **txn)
{
    int rc;

    pthread_rwlock_rdlock(&s->map);
    rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, txn);
    if (rc != 0)
        pthread_rwlock_unlock(&s->map);
    return rc;
}

static void
read_end(struct snapshot *s, MDB_txn *txn)
{
    mdb_txn_abort(txn);
    pthread_rwlock_unlock(&s->map);
}

int
snapshot_read_all(MDB_txn *txn, const struct snapshot_part *p, enum snapshot_table table,
                  struct snapshot_rows *r)
{
    MDB_val key = snapshot_number(p), rows;
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, p->snapshot->tables[table], &c);

    if (rc != 0)
        return rc;
    /* A single row is not told by GET_MULTIPLE, and was told by SET_KEY. */
    rc = mdb_cursor_get(c, &key, &rows, MDB_SET_KEY);
    if (rc == 0)
        rc = mdb_cursor_get(c, &key, &rows, MDB_GET_MULTIPLE);
    while (rc == 0) {
        if (rows.mv_size % r->width != 0)
            rc = MDB_CORRUPTED;
        else
            snapshot_rows_add_many(r, rows.mv_data, rows.mv_size / r->width);
        if (rc == 0)
            rc = mdb_cursor_get(c, &key, &rows, MDB_NEXT_MULTIPLE);
    }
    mdb_cursor_close(c);
    if (r->is_full)
        return ENOMEM;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int
snapshot_seek(MDB_cursor *c, const struct snapshot_part *p, const void *prefix, size_t n,
              size_t width, MDB_val *row)
{
    uint8_t padded[sizeof(struct address_row)] = {0}; /* the widest */
    MDB_val key = snapshot_number(p);

    memcpy(padded, prefix, n);
    *row = (MDB_val){width, padded};
    return mdb_cursor_get(c, &key, row, MDB_GET_BOTH_RANGE);
}

/* Questions. */

struct snapshot_reader *
snapshot_reader_new(struct snapshot *s)
{
    struct snapshot_reader *r = calloc(1, sizeof *r);

    if (r)
        r->snapshot = s;
    return r;
}

static void
close_cursors(struct snapshot_reader *r)
{
    if (r->addresses)
        mdb_cursor_close(r->addresses);
    if (r->tombstones)
        mdb_cursor_close(r->tombstones);
    if (r->txn)
        mdb_txn_abort(r->txn);
    r->addresses = r->tombstones = NULL;
    r->txn = NULL;
}

void
snapshot_reader_free(struct snapshot_reader **reader)
{
    struct snapshot_reader *r = *reader;

    if (!r)
        return;
    close_cursors(r);
    free(r);
    *reader = NULL;
}

static int
open_cursors(struct snapshot_reader *r)
{
    struct snapshot *s = r->snapshot;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &r->txn);

    if (rc == 0)
        rc = mdb_cursor_open(r->txn, s->tables[SNAPSHOT_ADDRESSES], &r->addresses);
    if (rc == 0)
        rc = mdb_cursor_open(r->txn, s->tables[SNAPSHOT_TOMBSTONES], &r->tombstones);
    if (rc != 0)
        close_cursors(r);
    return rc;
}

static void
complain(struct snapshot *s, int rc)
{
    if (!atomic_exchange(&s->is_unreadable, true))
        log_event(LOG_LEVEL_ERROR, "directory", "state", "degraded", "file", s->path, "error",
                  mdb_strerror(rc), NULL);
}

/* After true, reader_end. */
static bool
reader_begin(struct snapshot_reader *r)
{
    int rc;

    pthread_rwlock_rdlock(&r->snapshot->map);
    if (!r->txn) {
        rc = open_cursors(r);
    } else {
        rc = mdb_txn_renew(r->txn);
        if (rc == 0)
            rc = mdb_cursor_renew(r->txn, r->addresses);
        if (rc == 0)
            rc = mdb_cursor_renew(r->txn, r->tombstones);
    }
    if (rc == 0)
        return true;
    close_cursors(r);
    pthread_rwlock_unlock(&r->snapshot->map);
    complain(r->snapshot, rc);
    return false;
}

static void
reader_end(struct snapshot_reader *r)
{
    mdb_txn_reset(r->txn);
    pthread_rwlock_unlock(&r->snapshot->map);
}

static bool
is_in(const uint8_t *sorted, size_t n, uint64_t hash)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint64_t at;

        memcpy(&at, sorted + middle * sizeof at, sizeof at);
        if (at == hash)
            return true;
        if (at < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* May SENDER not write to the object?  Rules that are not to be read refuse nobody: Exchange has
 * the last word. */
static bool
is_restricted(struct snapshot_reader *r, const struct snapshot_part *p,
              const struct address_row *row, struct span sender)
{
    uint64_t hash = snapshot_hash(r->snapshot, sender).lo;
    struct rules_key id = {.number = p->number};
    MDB_val key = {sizeof id, &id}, value;
    struct rules_head head;
    const uint8_t *allow, *deny;

    memcpy(id.object, row->object, sizeof id.object);
    if (mdb_get(r->txn, r->snapshot->tables[SNAPSHOT_RULES], &key, &value) != 0 ||
        value.mv_size < sizeof head)
        return false;
    memcpy(&head, value.mv_data, sizeof head);
    if (value.mv_size != sizeof head + ((size_t)head.n_allow + head.n_deny) * sizeof hash)
        return false;
    allow = (const uint8_t *)value.mv_data + sizeof head;
    deny = allow + head.n_allow * sizeof hash;
    if (sender.n == 0)
        return head.has_allow;
    if (head.has_allow && !head.is_allow_open && !is_in(allow, head.n_allow, hash))
        return true;
    return is_in(deny, head.n_deny, hash);
}

/* The address of the key as it is stored. */
static struct span
stored_form(struct span address, char x500[DIR_ADDRESS_MAX + 6])
{
    size_t n = dir_filter_imcea(address, x500 + 5, DIR_ADDRESS_MAX + 1);

    if (n == 0)
        return address;
    memcpy(x500, "x500:", 5);
    for (size_t i = 5; i < n + 5; i++)
        x500[i] = ascii_lower(x500[i]);
    return span_of(x500, n + 5);
}

static enum snapshot_found
find(struct snapshot_reader *r, const struct snapshot_part *p, const struct hash128 *hash,
     const struct span *sender, struct dir_verdict *v)
{
    MDB_val value, key, next;
    struct address_row row;
    int rc = snapshot_seek(r->addresses, p, hash, sizeof *hash, sizeof row, &value);

    if (rc != 0 && rc != MDB_NOTFOUND) {
        complain(r->snapshot, rc);
        return SNAPSHOT_UNKNOWN;
    }
    if (rc != 0 || memcmp(value.mv_data, hash, sizeof *hash) != 0)
        return SNAPSHOT_LACKS;
    *v = (struct dir_verdict){.status = DIR_FOUND};
    memcpy(&row, value.mv_data, sizeof row);
    /* Two objects have this address.  Exchange will not deliver (5.1.4), but it is no stranger's.
     */
    if (mdb_cursor_get(r->addresses, &key, &next, MDB_NEXT_DUP) == 0 &&
        memcmp(next.mv_data, hash, sizeof *hash) == 0)
        return SNAPSHOT_HAS;
    v->is_restricted = row.limits & SNAPSHOT_REQUIRE_AUTH;
    v->has_rules = row.limits & SNAPSHOT_HAS_RULES;
    v->max_size = (uint64_t)(row.limits & SNAPSHOT_KIB_MAX) * 1024;
    if (sender && v->has_rules && !v->is_restricted)
        v->is_restricted = is_restricted(r, p, &row, *sender);
    return SNAPSHOT_HAS;
}

enum snapshot_found
snapshot_find(struct snapshot_reader *r, struct snapshot_part *p, struct span key,
              struct dir_verdict *v)
{
    const char *end = memchr(key.p, '\0', key.n);
    struct span address = span_of(key.p, end ? (size_t)(end - key.p) : key.n), sender = {0};
    char x500[DIR_ADDRESS_MAX + 6];
    enum snapshot_found found;
    struct hash128 hash;

    if (!atomic_load(&p->is_there))
        return SNAPSHOT_UNKNOWN;
    if (end)
        sender = span_of(end + 1, key.n - address.n - 1);
    hash = snapshot_hash(r->snapshot, stored_form(address, x500));
    if (!reader_begin(r))
        return SNAPSHOT_UNKNOWN;
    found = find(r, p, &hash, end ? &sender : NULL, v);
    reader_end(r);
    return found;
}

bool
snapshot_was_known(struct snapshot_reader *r, struct snapshot_part *p, struct span address,
                   int64_t since_s)
{
    struct hash128 hash = snapshot_hash(r->snapshot, address);
    struct tombstone_row row = {.time_s = 0};
    bool is_there;
    MDB_val value;

    if (!reader_begin(r))
        return false;
    is_there = snapshot_seek(r->tombstones, p, &hash, sizeof hash, sizeof row, &value) == 0;
    if (is_there)
        memcpy(&row, value.mv_data, sizeof row);
    reader_end(r);
    return is_there && memcmp(row.address, &hash, sizeof hash) == 0 && row.time_s >= since_s;
}

/* Lists. */

static int
read_table(struct snapshot_part *p, enum snapshot_table table, struct snapshot_rows *r,
           struct err *e)
{
    MDB_txn *txn;
    int rc = read_begin(p->snapshot, &txn);

    if (rc == 0) {
        rc = snapshot_read_all(txn, p, table, r);
        read_end(p->snapshot, txn);
    }
    return rc == 0 ? 0 : snapshot_fail(p->snapshot, rc, "cannot read", e);
}

int
snapshot_objects(struct snapshot_part *p, struct snapshot_id **ids, size_t *n, struct err *e)
{
    struct snapshot_rows rows = snapshot_rows_of(sizeof(struct object_row));
    struct snapshot_id *list;

    if (read_table(p, SNAPSHOT_OBJECTS, &rows, e) < 0) {
        snapshot_rows_clear(&rows);
        return -1;
    }
    *n = 0;
    list = calloc(rows.n + 1, sizeof *list);
    for (size_t i = 0; list && i < rows.n; i++) {
        const struct object_row *row = snapshot_rows_at(&rows, i);

        if (*n == 0 || memcmp(list[*n - 1].octets, row->object, sizeof row->object) != 0)
            memcpy(list[(*n)++].octets, row->object, sizeof row->object);
    }
    snapshot_rows_clear(&rows);
    *ids = list;
    return list ? 0 : err_set(e, ERR_SYSTEM, "out of memory");
}

/* The whole id of the object that ROW has the beginning of. */
static bool
find_object(MDB_cursor *c, const struct snapshot_part *p, const struct address_row *row,
            struct snapshot_id *id)
{
    MDB_val value;

    if (snapshot_seek(c, p, row->object, sizeof row->object, sizeof(struct object_row), &value) !=
            0 ||
        memcmp(value.mv_data, row->object, sizeof row->object) != 0)
        return false;
    memcpy(id, value.mv_data, sizeof *id);
    return true;
}

static int
read_duplicates(MDB_txn *txn, const struct snapshot_part *p, const struct snapshot_rows *rows,
                size_t most, struct snapshot_duplicate *list, size_t *n)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, p->snapshot->tables[SNAPSHOT_OBJECTS], &c);

    if (rc != 0)
        return rc;
    for (size_t i = 1; i < rows->n && *n < most; i++) {
        const struct address_row *a = snapshot_rows_at(rows, i - 1), *b = snapshot_rows_at(rows, i);
        struct snapshot_duplicate *d = &list[*n];

        if (memcmp(a->address, b->address, sizeof a->address) != 0 ||
            a->limits & SNAPSHOT_IS_X500 ||
            (*n > 0 && memcmp(&list[*n - 1].address, a->address, sizeof a->address) == 0))
            continue;
        memcpy(&d->address, a->address, sizeof a->address);
        if (find_object(c, p, a, &d->objects[0]) && find_object(c, p, b, &d->objects[1]))
            (*n)++;
    }
    mdb_cursor_close(c);
    return 0;
}

int
snapshot_duplicates(struct snapshot_part *p, size_t most, struct snapshot_duplicate **list,
                    size_t *n, struct err *e)
{
    struct snapshot_rows rows = snapshot_rows_of(sizeof(struct address_row));
    MDB_txn *txn;
    int rc = read_begin(p->snapshot, &txn);

    *n = 0;
    *list = NULL;
    if (rc == 0) {
        rc = snapshot_read_all(txn, p, SNAPSHOT_ADDRESSES, &rows);
        *list = rc == 0 ? calloc(most + 1, sizeof **list) : NULL;
        if (rc == 0)
            rc = *list ? read_duplicates(txn, p, &rows, most, *list, n) : ENOMEM;
        read_end(p->snapshot, txn);
    }
    snapshot_rows_clear(&rows);
    if (rc == 0)
        return 0;
    free(*list);
    *list = NULL;
    return snapshot_fail(p->snapshot, rc, "cannot read", e);
}

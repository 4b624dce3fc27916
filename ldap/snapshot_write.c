#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ldap/snapshot_private.h"

/* One look on its way into the file. */
struct writing {
    struct snapshot_part *part;
    MDB_txn *txn;
    const struct snapshot_look *look;
    struct snapshot_record record;   /* as it will be */
    struct snapshot_rows old, fresh; /* of a table: what goes, what comes */
    struct snapshot_result result;
};

static MDB_dbi
table_of(const struct writing *w, enum snapshot_table table)
{
    return w->part->snapshot->tables[table];
}

/* What the look has seen. */

static struct snapshot_rows
fresh_addresses(const struct snapshot_look *look)
{
    struct snapshot_rows rows = snapshot_rows_of(sizeof(struct address_row));

    for (size_t i = 0; i < look->n_rows; i++) {
        struct address_row row = {.limits = look->rows[i].limits};

        memcpy(row.address, &look->rows[i].address, sizeof row.address);
        memcpy(row.object, &look->rows[i].object, sizeof row.object);
        snapshot_rows_add(&rows, &row);
    }
    snapshot_rows_sort(&rows);
    return rows;
}

static struct snapshot_rows
fresh_objects(const struct snapshot_look *look)
{
    struct snapshot_rows rows = snapshot_rows_of(sizeof(struct object_row));

    for (size_t i = 0; i < look->n_rows; i++) {
        struct object_row row;

        memcpy(row.object, &look->rows[i].object, sizeof row.object);
        memcpy(row.address, &look->rows[i].address, sizeof row.address);
        snapshot_rows_add(&rows, &row);
    }
    snapshot_rows_sort(&rows);
    return rows;
}

/* One of these two. */
typedef struct snapshot_rows seen_fn(const struct snapshot_look *look);

/* Tables of rows. */

static int
put_rows(struct writing *w, enum snapshot_table table, const struct snapshot_rows *r,
         unsigned flags)
{
    MDB_val key = snapshot_number(w->part);
    int rc = 0;

    for (size_t i = 0; i < r->n && rc == 0; i++) {
        MDB_val row = {r->width, snapshot_rows_at(r, i)};

        rc = mdb_put(w->txn, table_of(w, table), &key, &row, flags);
    }
    return rc;
}

/* All that SEEN says, in order: that leaves full pages behind. */
static int
rewrite(struct writing *w, enum snapshot_table table, seen_fn *seen)
{
    struct snapshot_rows rows = seen(w->look);
    int rc = rows.is_full ? ENOMEM : snapshot_drop(w->txn, w->part, table);

    if (rc == 0)
        rc = put_rows(w, table, &rows, MDB_APPENDDUP);
    snapshot_rows_clear(&rows);
    return rc;
}

static int
change_rows(struct writing *w, enum snapshot_table table, seen_fn *seen)
{
    MDB_val key = snapshot_number(w->part);
    int rc = 0;

    if (w->look->is_full && w->old.n + w->fresh.n > w->look->n_rows / 2)
        return rewrite(w, table, seen);
    for (size_t i = 0; i < w->old.n && rc == 0; i++) {
        MDB_val row = {w->old.width, snapshot_rows_at(&w->old, i)};

        rc = mdb_del(w->txn, table_of(w, table), &key, &row);
    }
    return rc == 0 ? put_rows(w, table, &w->fresh, 0) : rc;
}

/* Row I of R has another address than the one before it. */
static bool
is_first(const struct snapshot_rows *r, size_t i)
{
    const struct address_row *row = snapshot_rows_at(r, i), *before = row - 1;

    return i == 0 || memcmp(row->address, before->address, sizeof row->address) != 0;
}

static bool
has_address(MDB_cursor *c, const struct snapshot_part *p, size_t width, const uint8_t address[16])
{
    MDB_val value;

    return snapshot_seek(c, p, address, 16, width, &value) == 0 &&
           memcmp(value.mv_data, address, 16) == 0;
}

static int
dig_up(struct writing *w, MDB_cursor *tombstones, const uint8_t address[16])
{
    return has_address(tombstones, w->part, sizeof(struct tombstone_row), address)
               ? mdb_cursor_del(tombstones, 0)
               : 0;
}

static int
bury(struct writing *w, MDB_cursor *tombstones, const uint8_t address[16])
{
    struct tombstone_row row = {.time_s = (uint32_t)w->look->mark.look_s};
    MDB_val key = snapshot_number(w->part), value = {sizeof row, &row};
    int rc = dig_up(w, tombstones, address);

    memcpy(row.address, address, sizeof row.address);
    return rc == 0 ? mdb_cursor_put(tombstones, &key, &value, 0) : rc;
}

/* Addresses among the rows that come, and were not there. */
static int
count_learned(struct writing *w, MDB_cursor *addresses, MDB_cursor *tombstones, bool is_empty)
{
    int rc = 0;

    for (size_t i = 0; i < w->fresh.n && rc == 0; i++) {
        const struct address_row *row = snapshot_rows_at(&w->fresh, i);

        if (row->limits & SNAPSHOT_IS_X500 || !is_first(&w->fresh, i) ||
            (!is_empty && has_address(addresses, w->part, sizeof *row, row->address)))
            continue;
        w->result.learned++;
        rc = dig_up(w, tombstones, row->address);
    }
    return rc;
}

/* Addresses among the rows that went, and are no longer there. */
static int
count_lost(struct writing *w, MDB_cursor *addresses, MDB_cursor *tombstones)
{
    int rc = 0;

    for (size_t i = 0; i < w->old.n && rc == 0; i++) {
        const struct address_row *row = snapshot_rows_at(&w->old, i);

        if (row->limits & SNAPSHOT_IS_X500 || !is_first(&w->old, i) ||
            has_address(addresses, w->part, sizeof *row, row->address))
            continue;
        w->result.lost++;
        rc = bury(w, tombstones, row->address);
    }
    return rc;
}

static int
change_addresses(struct writing *w)
{
    bool is_empty = w->record.address_rows == 0;
    MDB_cursor *addresses, *tombstones;
    int rc;

    snapshot_rows_differ(&w->old, &w->fresh);
    rc = mdb_cursor_open(w->txn, table_of(w, SNAPSHOT_ADDRESSES), &addresses);
    if (rc != 0)
        return rc;
    rc = mdb_cursor_open(w->txn, table_of(w, SNAPSHOT_TOMBSTONES), &tombstones);
    if (rc == 0) {
        rc = count_learned(w, addresses, tombstones, is_empty);
        if (rc == 0)
            rc = change_rows(w, SNAPSHOT_ADDRESSES, fresh_addresses);
        if (rc == 0)
            rc = count_lost(w, addresses, tombstones);
        mdb_cursor_close(tombstones);
    }
    mdb_cursor_close(addresses);
    w->record.address_rows += w->fresh.n;
    w->record.address_rows -= w->old.n;
    w->record.mark.entries += w->result.learned;
    w->record.mark.entries -= w->result.lost;
    return rc;
}

static size_t
count_objects(const struct snapshot_rows *r)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n; i++) {
        const struct object_row *row = snapshot_rows_at(r, i), *before = row - 1;

        if (i == 0 || memcmp(row->object, before->object, sizeof row->object) != 0)
            n++;
    }
    return n;
}

static int
change_objects(struct writing *w)
{
    w->record.mark.objects += count_objects(&w->fresh);
    w->record.mark.objects -= count_objects(&w->old);
    snapshot_rows_differ(&w->old, &w->fresh);
    w->record.object_rows += w->fresh.n;
    w->record.object_rows -= w->old.n;
    return change_rows(w, SNAPSHOT_OBJECTS, fresh_objects);
}

/* What was there of the objects that changed. */

static int
old_objects(struct writing *w, struct snapshot_rows *out)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(w->txn, table_of(w, SNAPSHOT_OBJECTS), &c);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < w->look->n_changed; i++) {
        const struct snapshot_id *id = &w->look->changed[i];
        MDB_val row, key;

        for (rc = snapshot_seek(c, w->part, id, sizeof *id, out->width, &row);
             rc == 0 && memcmp(row.mv_data, id, sizeof *id) == 0;
             rc = mdb_cursor_get(c, &key, &row, MDB_NEXT_DUP))
            snapshot_rows_add(out, row.mv_data);
    }
    mdb_cursor_close(c);
    snapshot_rows_sort(out);
    return out->is_full ? ENOMEM : 0;
}

/* The address rows that belong to these object rows. */
static int
old_addresses(struct writing *w, const struct snapshot_rows *objects, struct snapshot_rows *out)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(w->txn, table_of(w, SNAPSHOT_ADDRESSES), &c);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < objects->n; i++) {
        const struct object_row *object = snapshot_rows_at(objects, i);
        const struct address_row *found;
        MDB_val row, key;

        for (rc = snapshot_seek(c, w->part, object->address, sizeof object->address, out->width,
                                &row);
             rc == 0 && memcmp(row.mv_data, object->address, sizeof object->address) == 0;
             rc = mdb_cursor_get(c, &key, &row, MDB_NEXT_DUP)) {
            found = row.mv_data;
            if (memcmp(found->object, object->object, sizeof found->object) == 0)
                snapshot_rows_add(out, found);
        }
    }
    mdb_cursor_close(c);
    snapshot_rows_sort(out);
    return out->is_full ? ENOMEM : 0;
}

static int
write_objects(struct writing *w, const struct snapshot_rows *old)
{
    int rc = 0;

    w->old = snapshot_rows_of(sizeof(struct object_row));
    w->fresh = fresh_objects(w->look);
    if (w->look->is_full)
        rc = snapshot_read_all(w->txn, w->part, SNAPSHOT_OBJECTS, &w->old);
    else
        snapshot_rows_add_many(&w->old, old->octets, old->n);
    if (rc == 0)
        rc = w->old.is_full || w->fresh.is_full ? ENOMEM : change_objects(w);
    snapshot_rows_clear(&w->old);
    snapshot_rows_clear(&w->fresh);
    return rc;
}

static int
write_addresses(struct writing *w, const struct snapshot_rows *objects)
{
    int rc;

    w->old = snapshot_rows_of(sizeof(struct address_row));
    w->fresh = fresh_addresses(w->look);
    rc = w->look->is_full ? snapshot_read_all(w->txn, w->part, SNAPSHOT_ADDRESSES, &w->old)
                          : old_addresses(w, objects, &w->old);
    if (rc == 0)
        rc = w->fresh.is_full ? ENOMEM : change_addresses(w);
    snapshot_rows_clear(&w->old);
    snapshot_rows_clear(&w->fresh);
    return rc;
}

/* Rules. */

static int
compare_hash(const void *a, const void *b)
{
    uint64_t x, y;

    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void
put_hashes(uint8_t *out, const uint64_t *hashes, size_t n)
{
    if (n == 0)
        return;
    memcpy(out, hashes, n * sizeof *hashes);
    qsort(out, n, sizeof *hashes, compare_hash);
}

static int
put_rules(struct writing *w, const struct snapshot_rules *r)
{
    struct rules_head head = {.n_allow = (uint32_t)r->n_allow,
                              .n_deny = (uint32_t)r->n_deny,
                              .has_allow = r->has_allow,
                              .is_allow_open = r->is_allow_open,
                              .is_deny_open = r->is_deny_open};
    struct rules_key id = {.number = w->part->number};
    MDB_val key = {sizeof id, &id},
            value = {sizeof head + (r->n_allow + r->n_deny) * sizeof(uint64_t), NULL};
    uint8_t *at;
    int rc;

    memcpy(id.object, &r->object, sizeof id.object);
    rc = mdb_put(w->txn, table_of(w, SNAPSHOT_RULES), &key, &value, MDB_RESERVE);
    if (rc != 0)
        return rc;
    at = value.mv_data;
    memcpy(at, &head, sizeof head);
    put_hashes(at + sizeof head, r->allow, r->n_allow);
    put_hashes(at + sizeof head + r->n_allow * sizeof(uint64_t), r->deny, r->n_deny);
    return 0;
}

static int
write_rules(struct writing *w)
{
    int rc = w->look->has_rules ? snapshot_drop_rules(w->txn, w->part) : 0;

    for (size_t i = 0; w->look->has_rules && i < w->look->n_rules && rc == 0; i++)
        rc = put_rules(w, &w->look->rules[i]);
    return rc;
}

/* The whole. */

static int
sweep_tombstones(struct writing *w)
{
    struct snapshot_rows rows = snapshot_rows_of(sizeof(struct tombstone_row));
    MDB_val key = snapshot_number(w->part);
    int rc = snapshot_read_all(w->txn, w->part, SNAPSHOT_TOMBSTONES, &rows);

    for (size_t i = 0; i < rows.n && rc == 0; i++) {
        const struct tombstone_row *row = snapshot_rows_at(&rows, i);
        MDB_val value = {rows.width, snapshot_rows_at(&rows, i)};

        if (row->time_s < w->look->buried_s)
            rc = mdb_del(w->txn, table_of(w, SNAPSHOT_TOMBSTONES), &key, &value);
    }
    snapshot_rows_clear(&rows);
    return rc;
}

static int
write_look(struct writing *w)
{
    struct snapshot_rows objects = snapshot_rows_of(sizeof(struct object_row));
    int rc = w->look->is_full ? 0 : old_objects(w, &objects);

    w->record = w->part->record;
    w->record.mark = w->look->mark;
    w->record.mark.entries = w->part->record.mark.entries;
    w->record.mark.objects = w->part->record.mark.objects;
    w->result = (struct snapshot_result){.lost = 0};
    if (rc == 0)
        rc = write_addresses(w, &objects);
    if (rc == 0)
        rc = write_objects(w, &objects);
    snapshot_rows_clear(&objects);
    if (rc == 0)
        rc = write_rules(w);
    if (rc == 0 && w->look->is_full)
        rc = sweep_tombstones(w);
    return rc == 0 ? snapshot_put_record(w->txn, w->part, &w->record) : rc;
}

static bool
loses_too_much(const struct writing *w)
{
    return w->look->max_loss < 100 &&
           w->result.lost * 100 > w->part->record.mark.entries * (uint64_t)w->look->max_loss;
}

static enum snapshot_take
try_take(struct writing *w, int *rc)
{
    *rc = mdb_txn_begin(w->part->snapshot->env, NULL, 0, &w->txn);
    if (*rc != 0)
        return SNAPSHOT_FAILED;
    *rc = write_look(w);
    if (*rc != 0 || loses_too_much(w)) {
        mdb_txn_abort(w->txn);
        return *rc != 0 ? SNAPSHOT_FAILED : SNAPSHOT_REFUSED;
    }
    *rc = mdb_txn_commit(w->txn);
    return *rc == 0 ? SNAPSHOT_TAKEN : SNAPSHOT_FAILED;
}

enum snapshot_take
snapshot_take(struct snapshot_part *p, unsigned epoch, const struct snapshot_look *look,
              struct snapshot_result *r, struct err *e)
{
    struct snapshot *s = p->snapshot;
    struct writing w = {.part = p, .look = look};
    enum snapshot_take taken = SNAPSHOT_FAILED;
    int rc = 0;

    pthread_mutex_lock(&s->writer);
    if (!snapshot_is_writer(p, epoch, e)) {
        pthread_mutex_unlock(&s->writer);
        return SNAPSHOT_FAILED;
    }
    do {
        taken = try_take(&w, &rc);
    } while (rc == MDB_MAP_FULL && (rc = snapshot_grow(s)) == 0);
    *r = w.result;
    if (taken == SNAPSHOT_TAKEN) {
        snapshot_set_record(p, &w.record);
        atomic_store(&p->look_ms, look->began_ms);
        atomic_store(&p->is_there, true);
    }
    pthread_mutex_unlock(&s->writer);
    if (taken == SNAPSHOT_FAILED)
        snapshot_fail(s, rc, "cannot write", e);
    return taken;
}

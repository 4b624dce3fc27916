#define _GNU_SOURCE

#include "policy/state.h"

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/store.h"
#include "policy/delivered.h"
#include "policy/state_row.h"

#define VERSION         1u
#define MAP_BYTES       ((size_t)64 << 20)
#define READERS_MAX     8u
#define BATCH           4096u /* entries copied before they are written */
#define BATCHES         8u    /* in one save */
#define FILE_NAME       "policy.mdb"
#define GARBAGE_AT_ONCE 1000u
#define REKEYED         (-1) /* no code of LMDB's, and no errno */

enum { DB_META, DB_LEDGER, DB_MARKS, DB_DELIVERIES, DB_COUNT };
static const char *const db_names[DB_COUNT] = {"meta", "ledger", "marks", "deliveries"};

struct state {
    char *path;
    MDB_env *env;
    MDB_dbi db[DB_COUNT];
    pthread_mutex_t lock; /* over KEY, and all through a rekeying */
    struct siphash_key key;
    bool has_key;            /* it is in use */
    struct siphash_key kept; /* the file's */
    struct siphash_key next; /* that of the save under way */
    int64_t wall_offset;     /* with which the file's moments are right */
    /* The key at which the search for garbage goes on. */
    uint8_t swept[DB_COUNT][sizeof(struct network)];
};

static int
fail(struct err *e, int rc, const char *what, const char *path)
{
    return err_set(e, ERR_STORAGE, "%s: %s: %s", path, what, mdb_strerror(rc));
}

/* Opening. */

static char version_name[] = "version", key_name[] = "key", saved_name[] = "saved";

static bool
is_same_key(const struct siphash_key *a, const struct siphash_key *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static int
put_key(const struct state *s, MDB_txn *txn, struct siphash_key key)
{
    MDB_val name = {sizeof key_name, key_name}, value = {sizeof key, &key};

    return mdb_put(txn, s->db[DB_META], &name, &value, 0);
}

/* The version, and the key of the hashes: without it nothing here can be read. */
static int
open_meta(struct state *s, MDB_txn *txn)
{
    MDB_val version_key = {sizeof version_name, version_name},
            key_key = {sizeof key_name, key_name};
    uint32_t version = VERSION;
    MDB_val value;
    int rc = mdb_get(txn, s->db[DB_META], &version_key, &value);

    if (rc == MDB_NOTFOUND) {
        if (!s->has_key)
            s->key = siphash_key_random();
        value = (MDB_val){sizeof version, &version};
        rc = mdb_put(txn, s->db[DB_META], &version_key, &value, 0);
        return rc != 0 ? rc : put_key(s, txn, s->key);
    }
    if (rc != 0)
        return rc;
    if (value.mv_size != sizeof version || memcmp(value.mv_data, &version, sizeof version) != 0)
        return MDB_VERSION_MISMATCH;
    rc = mdb_get(txn, s->db[DB_META], &key_key, &value);
    if (rc == MDB_NOTFOUND || (rc == 0 && value.mv_size != sizeof s->key))
        return MDB_CORRUPTED;
    if (rc == 0)
        memcpy(&s->key, value.mv_data, sizeof s->key);
    return rc;
}

static int
open_tables(void *owner, MDB_env *env)
{
    struct state *s = owner;
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);

    if (rc != 0)
        return rc;
    for (int i = 0; i < DB_COUNT && rc == 0; i++)
        rc = mdb_dbi_open(txn, db_names[i], MDB_CREATE, &s->db[i]);
    if (rc == 0)
        rc = open_meta(s, txn);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static const struct store_plan plan = {
    .event = "ledger",
    .damage = "damaged",
    .tables = DB_COUNT,
    .readers = READERS_MAX,
    .map_bytes = MAP_BYTES,
    .flags = MDB_NOMETASYNC,
    .open = open_tables,
};

struct state *
state_open(const char *dir, struct siphash_key *key, struct err *e)
{
    struct state *s = calloc(1, sizeof *s);

    if (s == NULL || asprintf(&s->path, "%s/" FILE_NAME, dir) < 0) {
        free(s);
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        err_errno(e, ERR_STORAGE, errno, "%s", dir);
        state_close(&s);
        return NULL;
    }
    if (store_open(s->path, &plan, s, &s->env, e) < 0) {
        state_close(&s);
        return NULL;
    }
    s->has_key = true;
    *key = s->kept = s->key;
    return s;
}

void
state_rekey_begin(struct state *s, const struct siphash_key *key)
{
    pthread_mutex_lock(&s->lock);
    s->key = *key;
}

void
state_rekey_end(struct state *s)
{
    pthread_mutex_unlock(&s->lock);
}

/* None is being changed at this moment. */
static struct siphash_key
key_in_use(struct state *s)
{
    struct siphash_key key;

    pthread_mutex_lock(&s->lock);
    key = s->key;
    pthread_mutex_unlock(&s->lock);
    return key;
}

void
state_close(struct state **s)
{
    if (*s == NULL)
        return;
    if ((*s)->env != NULL)
        mdb_env_close((*s)->env);
    pthread_mutex_destroy(&(*s)->lock);
    free((*s)->path);
    free(*s);
    *s = NULL;
}

/* Loading. */

/* Until the last save is over, no time has passed: if the clock says so, it is wrong now, or was
 * then, and what was to last for an hour would last for days. */
static int
find_offset(struct state *s, MDB_txn *txn, const struct state_view *v)
{
    MDB_val name = {sizeof saved_name, saved_name}, value;
    uint32_t saved_s;
    int64_t offset;
    int rc = mdb_get(txn, s->db[DB_META], &name, &value);

    s->wall_offset = v->wall_offset;
    if (rc == MDB_NOTFOUND) /* it is older than this */
        return 0;
    if (rc != 0 || value.mv_size != sizeof saved_s)
        return rc != 0 ? rc : MDB_CORRUPTED;
    memcpy(&saved_s, value.mv_data, sizeof saved_s);
    offset = (int64_t)saved_s - v->now.s;
    /* By a second moments may differ that are the same. */
    if (offset > v->wall_offset + 1)
        s->wall_offset = offset;
    return 0;
}

static struct memo_table *
facts_of(const struct state_view *v, int db)
{
    return db == DB_MARKS ? v->marks : v->deliveries;
}

static int
load_table(MDB_txn *txn, const struct state *s, int db, const struct state_view *v)
{
    struct memo_table *facts = facts_of(v, db);
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, s->db[db], &cursor);

    if (rc != 0)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        struct span k = span_of(key.mv_data, key.mv_size),
                    row = span_of(value.mv_data, value.mv_size);
        bool is_good =
            db == DB_LEDGER ? state_row_read(v, k, row) : state_fact_read(v, facts, k, row);
        if (!is_good) {
            mdb_cursor_close(cursor);
            return MDB_CORRUPTED;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void
visit_nothing(void *arg, struct ledger_entry *e)
{
    (void)arg;
    (void)e;
}

static void
mark_all_dirty(struct memo_table *t)
{
    struct memo *m;

    memo_lock(t);
    for (size_t i = 0; (m = memo_at(t, i)) != NULL; i++)
        if (m->until_s != 0 && m->until_s != MEMO_PINNED)
            (void)memo_learn(t, m->key, m->until_s, m->value);
    memo_unlock(t);
}

static void
mark_everything_dirty(const struct state_view *v)
{
    ledger_mark_all_dirty(v->ledger);
    mark_all_dirty(v->marks);
    mark_all_dirty(v->deliveries);
}

int
state_load(struct state *s, const struct state_view *v, struct err *e)
{
    struct state_view as_saved = *v;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc == 0) {
        rc = find_offset(s, txn, v);
        as_saved.wall_offset = s->wall_offset;
        for (int db = DB_LEDGER; db < DB_COUNT && rc == 0; db++)
            rc = load_table(txn, s, db, &as_saved);
        mdb_txn_abort(txn);
    }
    if (rc == 0) {
        while (ledger_walk_dirty(v->ledger, SIZE_MAX, visit_nothing, NULL) > 0)
            ;
        return 0;
    }
    if (!store_is_damage(rc))
        return fail(e, rc, "cannot read", s->path);
    if (store_begin_anew(s->path, &plan, s, rc, &s->env, e) < 0)
        return -1;
    /* What could be read goes into the new file. */
    mark_everything_dirty(v);
    return 0;
}

/* Saving. */

/* Rows copied out of the ledger, one behind the other: network, length, octets. */
struct batch {
    const struct state_view *v;
    uint8_t *octets;
    size_t n, capacity;
    bool is_failed;
};

static void
gather(void *arg, struct ledger_entry *e)
{
    struct batch *b = arg;
    uint32_t length;

    if (b->n + sizeof e->network + sizeof length + STATE_ROW_MAX > b->capacity) {
        size_t capacity = 2 * b->capacity + 64 * STATE_ROW_MAX;
        uint8_t *octets = realloc(b->octets, capacity);
        if (octets == NULL) {
            b->is_failed = true;
            return;
        }
        b->octets = octets;
        b->capacity = capacity;
    }
    memcpy(b->octets + b->n, &e->network, sizeof e->network);
    b->n += sizeof e->network;
    length = (uint32_t)state_row_write(b->v, e, b->octets + b->n + sizeof length);
    memcpy(b->octets + b->n, &length, sizeof length);
    b->n += sizeof length + length;
}

static int
put_or_delete(MDB_txn *txn, MDB_dbi db, MDB_val key, MDB_val value, bool is_deleted)
{
    int rc = is_deleted ? mdb_del(txn, db, &key, NULL) : mdb_put(txn, db, &key, &value, 0);

    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
put_rows(const struct state *s, MDB_txn *txn, const struct batch *b)
{
    int rc = b->is_failed ? ENOMEM : 0;

    for (size_t at = 0; at < b->n && rc == 0;) {
        MDB_val key = {sizeof(struct network), b->octets + at}, value;
        struct state_row row;
        uint32_t length;
        at += key.mv_size;
        memcpy(&length, b->octets + at, sizeof length);
        at += sizeof length;
        value = (MDB_val){length, b->octets + at};
        memcpy(&row, value.mv_data, sizeof row);
        at += length;
        rc = put_or_delete(txn, s->db[DB_LEDGER], key, value, state_row_is_empty(&row));
    }
    return rc;
}

/* Does memory not know the row under KEY: is it over, or was it pushed out? */
static bool
is_garbage(const struct state_view *v, int db, MDB_val key)
{
    struct memo_table *facts = facts_of(v, db);
    struct hash128 hash;
    bool is_known;

    if (db == DB_LEDGER) {
        struct network network;
        struct ledger_entry *e;
        memcpy(&network, key.mv_data, sizeof network);
        e = ledger_open(v->ledger, &network, false, v->now);
        if (e != NULL)
            ledger_close(v->ledger, e);
        return e == NULL;
    }
    memcpy(&hash, key.mv_data, sizeof hash);
    memo_lock(facts);
    is_known = memo_find(facts, hash, v->now.s) != NULL;
    memo_unlock(facts);
    return !is_known;
}

/* Garbage goes some at a time: at least twice as many rows are looked at as can have been added. */
static int
sweep(struct state *s, MDB_txn *txn, int db, const struct state_view *v, size_t written)
{
    const size_t size = db == DB_LEDGER ? sizeof(struct network) : sizeof(struct hash128);
    MDB_val key = {size, s->swept[db]}, value;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->db[db], &cursor);

    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    for (size_t i = 0; rc == 0 && i < GARBAGE_AT_ONCE + 2 * written; i++) {
        memcpy(s->swept[db], key.mv_data, size);
        if (is_garbage(v, db, key))
            rc = mdb_cursor_del(cursor, 0);
        if (rc == 0)
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND)
        memset(s->swept[db], 0, size);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Of deliveries only what is done: the rest is over in a moment. */
static bool
is_lasting(int db, const struct memo *m, uint32_t now_s)
{
    return m->until_s != MEMO_PINNED && m->until_s > now_s &&
           (db != DB_DELIVERIES || m->value == DELIVERY_DONE);
}

/* Counts in *WRITTEN. */
static int
put_facts(const struct state *s, MDB_txn *txn, int db, const struct state_view *v, size_t *written)
{
    struct memo_table *t = facts_of(v, db);
    struct memo *places;
    size_t i = 0, length;
    int rc = 0;

    memo_lock(t);
    if (!memo_is_dirty(t)) {
        memo_unlock(t);
        return 0;
    }
    memo_set_clean(t);
    memo_unlock(t);
    do {
        struct memo changed[MEMO_SLICE];
        size_t n = 0;
        memo_lock(t);
        places = memo_next_dirty(t, &i, &length);
        for (size_t k = 0; places != NULL && k < length; k++) {
            struct memo *m = &places[k];
            bool is_kept = is_lasting(db, m, v->now.s);
            if (!m->is_dirty)
                continue;
            changed[n] = *m;
            changed[n++].is_saved = is_kept;
            m->is_dirty = false;
            m->is_saved = is_kept;
            if (m->until_s <= v->now.s && m->unsent == MEMO_SENT)
                m->until_s = 0;
        }
        memo_unlock(t);
        for (size_t k = 0; k < n && rc == 0; k++) {
            struct state_fact fact = state_fact_of(v, &changed[k]);
            MDB_val key = {sizeof changed[k].key, &changed[k].key}, value = {sizeof fact, &fact};
            rc = put_or_delete(txn, s->db[db], key, value, !changed[k].is_saved);
        }
        *written += n;
    } while (places != NULL && rc == 0);
    return rc;
}

static int
grow_map(const struct state *s)
{
    MDB_envinfo info;
    MDB_stat pages;
    int rc = mdb_env_info(s->env, &info);

    if (rc == 0)
        rc = mdb_env_stat(s->env, &pages);
    if (rc == 0 && (info.me_last_pgno + 1) * pages.ms_psize > info.me_mapsize / 2)
        rc = mdb_env_set_mapsize(s->env, 2 * info.me_mapsize);
    return rc;
}

/* The clock was set: all the moments in the file are others now. */
static int
empty_tables(const struct state *s, MDB_txn *txn)
{
    int rc = 0;

    for (int db = DB_LEDGER; db < DB_COUNT && rc == 0; db++)
        rc = mdb_drop(txn, s->db[db], 0);
    return rc;
}

static int
put_meta(struct state *s, MDB_txn *txn, const struct state_view *v)
{
    uint32_t saved_s = (uint32_t)(v->now.s + v->wall_offset);
    MDB_val name = {sizeof saved_name, saved_name}, value = {sizeof saved_s, &saved_s};
    struct siphash_key key = key_in_use(s);
    int rc;

    if (!is_same_key(&key, &s->next))
        return REKEYED;
    rc = mdb_put(txn, s->db[DB_META], &name, &value, 0);
    if (rc == 0 && !is_same_key(&s->next, &s->kept))
        rc = put_key(s, txn, s->next);
    return rc;
}

static int
save(struct state *s, const struct state_view *v, struct batch *b, size_t n, bool is_last)
{
    MDB_txn *txn;
    size_t written[DB_COUNT] = {0};
    int rc = grow_map(s);

    if (rc == 0)
        rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    if (s->wall_offset != v->wall_offset)
        rc = empty_tables(s, txn);
    for (unsigned i = 1; rc == 0 && n > 0; i++) {
        rc = put_rows(s, txn, b);
        written[DB_LEDGER] += n;
        b->n = 0;
        n = i < BATCHES || is_last ? ledger_walk_dirty(v->ledger, BATCH, gather, b) : 0;
    }
    for (int db = DB_MARKS; db < DB_COUNT && rc == 0; db++)
        rc = put_facts(s, txn, db, v, &written[db]);
    for (int db = DB_LEDGER; db < DB_COUNT && rc == 0; db++)
        rc = sweep(s, txn, db, v, written[db]);
    if (rc == 0)
        rc = put_meta(s, txn, v);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    if (rc == 0) {
        s->kept = s->next;
        s->wall_offset = v->wall_offset;
    }
    return rc;
}

static bool
has_changed(struct memo_table *t)
{
    bool is_dirty;

    memo_lock(t);
    is_dirty = memo_is_dirty(t);
    memo_unlock(t);
    return is_dirty;
}

int
state_save(struct state *s, const struct state_view *v, bool is_last, struct err *e)
{
    struct batch b = {.v = v};
    size_t n;
    int rc = 0;

    s->next = key_in_use(s);
    if (s->wall_offset != v->wall_offset)
        mark_everything_dirty(v);
    n = ledger_walk_dirty(v->ledger, BATCH, gather, &b);
    if (n > 0 || s->wall_offset != v->wall_offset || !is_same_key(&s->next, &s->kept) ||
        has_changed(v->marks) || has_changed(v->deliveries))
        rc = save(s, v, &b, n, is_last);
    free(b.octets);
    if (rc == 0)
        return 0;
    mark_everything_dirty(v);
    /* Some of it is hashed with another key than the rest: all of it comes with the next call. */
    return rc == REKEYED ? 0 : fail(e, rc, "cannot write", s->path);
}

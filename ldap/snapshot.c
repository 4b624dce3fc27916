#define _GNU_SOURCE
#include "ldap/snapshot.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/store.h"
#include "ldap/snapshot_private.h"

#define MAP_BYTES   ((size_t)16 << 20)
#define READERS_MAX 512u
#define FILE_NAME   "recipients.mdb"
#define KEY_NAME    "recipients.key"

static const struct {
    const char *name;
    unsigned flags;
    size_t width; /* of its rows */
} tables[SNAPSHOT_TABLES] = {
    [SNAPSHOT_META] = {"meta", 0, 0},
    [SNAPSHOT_ADDRESSES] = {"addresses", MDB_DUPSORT | MDB_DUPFIXED, sizeof(struct address_row)},
    [SNAPSHOT_OBJECTS] = {"objects", MDB_DUPSORT | MDB_DUPFIXED, sizeof(struct object_row)},
    [SNAPSHOT_TOMBSTONES] = {"tombstones", MDB_DUPSORT | MDB_DUPFIXED,
                             sizeof(struct tombstone_row)},
    [SNAPSHOT_RULES] = {"rules", 0, 0},
};

/* Its value is the hash of its name: by it a key is known to be the right one. */
static char check_name[] = "\1check";

int
snapshot_fail(const struct snapshot *s, int rc, const char *what, struct err *e)
{
    return err_set(e, ERR_STORAGE, "%s: %s: %s", s->path, what, mdb_strerror(rc));
}

/* The key. */

static int
write_all(int fd, const void *data, size_t n)
{
    return write(fd, data, n) == (ssize_t)n && fsync(fd) == 0 ? 0 : -1;
}

/* A fresh key in PATH, whole or not at all. */
static int
make_key(struct snapshot *s, const char *path, struct err *e)
{
    char *fresh;
    int fd, rc = -1;

    if (asprintf(&fresh, "%s.new", path) < 0)
        return err_set(e, ERR_SYSTEM, "out of memory");
    s->key = siphash_key_random();
    (void)unlink(fresh);
    fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        rc = write_all(fd, &s->key, sizeof s->key);
    if (fd >= 0 && close(fd) < 0)
        rc = -1;
    if (rc == 0)
        rc = rename(fresh, path);
    if (rc < 0)
        err_errno(e, ERR_STORAGE, errno, "%s", path);
    free(fresh);
    return rc;
}

static int
load_key(struct snapshot *s, const char *dir, struct err *e)
{
    char *path;
    ssize_t n;
    int fd, rc = 0;

    if (asprintf(&path, "%s/" KEY_NAME, dir) < 0)
        return err_set(e, ERR_SYSTEM, "out of memory");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, &s->key, sizeof s->key);
    if (fd < 0 && errno != ENOENT)
        rc = err_errno(e, ERR_STORAGE, errno, "%s", path);
    else if (n != (ssize_t)sizeof s->key)
        rc = make_key(s, path, e);
    if (fd >= 0)
        close(fd);
    free(path);
    return rc;
}

/* Opening. */

static int
check_key(const struct snapshot *s, MDB_txn *txn)
{
    struct hash128 hash = snapshot_hash(s, span_of(check_name, sizeof check_name));
    MDB_val key = {sizeof check_name, check_name}, value;
    int rc = mdb_get(txn, s->tables[SNAPSHOT_META], &key, &value);

    if (rc == MDB_NOTFOUND) {
        value = (MDB_val){sizeof hash, &hash};
        return mdb_put(txn, s->tables[SNAPSHOT_META], &key, &value, 0);
    }
    if (rc == 0 && (value.mv_size != sizeof hash || memcmp(value.mv_data, &hash, sizeof hash) != 0))
        rc = MDB_CORRUPTED;
    return rc;
}

static void
part_free(struct snapshot_part *p)
{
    free(p->name);
    free(p);
}

static bool
is_time(int64_t s)
{
    return s >= 0 && s <= UINT32_MAX;
}

/* Of this version, and fit to be used as it is? */
static int
check_record(const struct snapshot_record *r)
{
    const struct snapshot_mark *m = &r->mark;

    if (r->version != SNAPSHOT_VERSION)
        return MDB_VERSION_MISMATCH;
    return is_time(m->full_s) && is_time(m->look_s) &&
                   memchr(m->controller, '\0', sizeof m->controller) &&
                   memchr(m->cookie, '\0', sizeof m->cookie)
               ? 0
               : MDB_CORRUPTED;
}

/* What was seen before this process began may be used at once. */
static void
recall_age(struct snapshot_part *p)
{
    int64_t age_s = clock_wall_s() - p->record.mark.look_s;

    atomic_init(&p->look_ms, clock_ms() - (age_s < 0 ? 0 : age_s) * 1000);
    atomic_init(&p->is_there, p->record.mark.full_s > 0);
}

/* The part from its record, into the list. */
static int
load_part(struct snapshot *s, const MDB_val *name, const MDB_val *record)
{
    struct snapshot_part *p;
    int rc;

    if (record->mv_size != sizeof p->record)
        return MDB_CORRUPTED;
    p = calloc(1, sizeof *p);
    if (!p)
        return ENOMEM;
    p->snapshot = s;
    p->name = span_dup(span_of(name->mv_data, name->mv_size - 1));
    memcpy(&p->record, record->mv_data, sizeof p->record);
    p->number = p->record.number;
    rc = p->name ? check_record(&p->record) : ENOMEM;
    if (rc != 0) {
        part_free(p);
        return rc;
    }
    recall_age(p);
    p->next = s->parts;
    s->parts = p;
    return 0;
}

static int
load_parts(struct snapshot *s, MDB_txn *txn)
{
    MDB_val name, record;
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, s->tables[SNAPSHOT_META], &c);

    if (rc != 0)
        return rc;
    while (rc == 0 && (rc = mdb_cursor_get(c, &name, &record, MDB_NEXT)) == 0) {
        if (name.mv_size == sizeof check_name &&
            memcmp(name.mv_data, check_name, sizeof check_name) == 0)
            continue;
        rc = load_part(s, &name, &record);
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
open_table(struct snapshot *s, MDB_txn *txn, size_t i)
{
    unsigned flags = 0;
    int rc = mdb_dbi_open(txn, tables[i].name, MDB_CREATE | tables[i].flags, &s->tables[i]);

    if (rc == 0)
        rc = mdb_dbi_flags(txn, s->tables[i], &flags);
    /* They come from the file, and say how its rows are ordered. */
    return rc == 0 && flags != tables[i].flags ? MDB_INCOMPATIBLE : rc;
}

static void
free_parts(struct snapshot *s)
{
    while (s->parts) {
        struct snapshot_part *p = s->parts;

        s->parts = p->next;
        part_free(p);
    }
}

static int
check_table(MDB_txn *txn, const struct snapshot_part *p, enum snapshot_table table, uint64_t n)
{
    struct snapshot_rows r = snapshot_rows_of(tables[table].width);
    int rc = snapshot_read_all(txn, p, table, &r);

    if (rc == 0 && r.n != n)
        rc = MDB_CORRUPTED;
    snapshot_rows_clear(&r);
    return rc;
}

/* They have the rows that their records tell of. */
static int
check_parts(struct snapshot *s, MDB_txn *txn)
{
    int rc = 0;

    for (const struct snapshot_part *p = s->parts; p && rc == 0; p = p->next) {
        rc = check_table(txn, p, SNAPSHOT_ADDRESSES, p->record.address_rows);
        if (rc == 0)
            rc = check_table(txn, p, SNAPSHOT_OBJECTS, p->record.object_rows);
    }
    return rc;
}

static int
open_tables(void *owner, MDB_env *env)
{
    struct snapshot *s = owner;
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < SNAPSHOT_TABLES && rc == 0; i++)
        rc = open_table(s, txn, i);
    if (rc == 0)
        rc = check_key(s, txn);
    if (rc == 0)
        rc = load_parts(s, txn);
    if (rc == 0)
        rc = check_parts(s, txn);
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    if (rc != 0)
        free_parts(s);
    return rc;
}

/* All that P has but its record. */
static int
empty(MDB_txn *txn, const struct snapshot_part *p)
{
    int rc = snapshot_drop(txn, p, SNAPSHOT_ADDRESSES);

    if (rc == 0)
        rc = snapshot_drop(txn, p, SNAPSHOT_OBJECTS);
    if (rc == 0)
        rc = snapshot_drop(txn, p, SNAPSHOT_TOMBSTONES);
    return rc == 0 ? snapshot_drop_rules(txn, p) : rc;
}

static const struct store_plan plan = {
    .event = "directory",
    .damage = "damaged, or its key is another",
    .tables = SNAPSHOT_TABLES,
    .readers = READERS_MAX,
    .map_bytes = MAP_BYTES,
    .open = open_tables,
};

struct snapshot *
snapshot_open(const char *dir, struct err *e)
{
    struct snapshot *s = calloc(1, sizeof *s);

    if (!s || asprintf(&s->path, "%s/" FILE_NAME, dir) < 0) {
        free(s);
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&s->writer, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_rwlock_init(&s->map, NULL);
    if (load_key(s, dir, e) < 0 || store_open(s->path, &plan, s, &s->env, e) < 0)
        snapshot_close(&s);
    return s;
}

void
snapshot_close(struct snapshot **snapshot)
{
    struct snapshot *s = *snapshot;

    if (!s)
        return;
    free_parts(s);
    if (s->env)
        mdb_env_close(s->env);
    pthread_rwlock_destroy(&s->map);
    pthread_mutex_destroy(&s->writer);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
    *snapshot = NULL;
}

struct hash128
snapshot_hash(const struct snapshot *s, struct span address)
{
    return siphash128(&s->key, address.p, address.n);
}

int
snapshot_grow(struct snapshot *s)
{
    MDB_envinfo info;
    int rc;

    pthread_rwlock_wrlock(&s->map);
    rc = mdb_env_info(s->env, &info);
    if (rc == 0)
        rc = mdb_env_set_mapsize(s->env, 2 * info.me_mapsize);
    pthread_rwlock_unlock(&s->map);
    return rc;
}

/* Parts. */

MDB_val
snapshot_number(const struct snapshot_part *p)
{
    return (MDB_val){sizeof p->number, (void *)(uintptr_t)&p->number};
}

int
snapshot_put_record(MDB_txn *txn, const struct snapshot_part *p,
                    const struct snapshot_record *record)
{
    /* With its NUL: an LMDB key is never empty, and a directory's name may be. */
    MDB_val key = {strlen(p->name) + 1, p->name};
    MDB_val value = {sizeof *record, (void *)(uintptr_t)record};

    return mdb_put(txn, p->snapshot->tables[SNAPSHOT_META], &key, &value, 0);
}

int
snapshot_drop(MDB_txn *txn, const struct snapshot_part *p, enum snapshot_table table)
{
    MDB_val key = snapshot_number(p);
    int rc = mdb_del(txn, p->snapshot->tables[table], &key, NULL);

    return rc == MDB_NOTFOUND ? 0 : rc;
}

int
snapshot_drop_rules(MDB_txn *txn, const struct snapshot_part *p)
{
    struct rules_key first = {.number = p->number};
    MDB_val key = {sizeof first, &first}, value;
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, p->snapshot->tables[SNAPSHOT_RULES], &c);

    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(c, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && key.mv_size == sizeof first &&
           memcmp(key.mv_data, &first.number, sizeof first.number) == 0) {
        rc = mdb_cursor_del(c, 0);
        if (rc == 0)
            rc = mdb_cursor_get(c, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static struct snapshot_part *
find_part(const struct snapshot *s, const char *name)
{
    struct snapshot_part *p = s->parts;

    while (p && strcmp(p->name, name) != 0)
        p = p->next;
    return p;
}

static struct snapshot_part *
new_part(struct snapshot *s, const char *name)
{
    struct snapshot_part *p = calloc(1, sizeof *p);

    if (!p)
        return NULL;
    p->snapshot = s;
    p->name = span_dup(span_str(name));
    if (!p->name) {
        free(p);
        return NULL;
    }
    p->record.version = SNAPSHOT_VERSION;
    for (const struct snapshot_part *other = s->parts; other; other = other->next)
        if (other->number >= p->number)
            p->number = other->number + 1;
    p->record.number = p->number;
    p->next = s->parts;
    s->parts = p;
    return p;
}

/* Empty P, and begin it anew under FINGERPRINT. */
static int
reset_part(struct snapshot_part *p, struct hash128 fingerprint)
{
    struct snapshot_record fresh = {
        .version = SNAPSHOT_VERSION, .number = p->number, .fingerprint = fingerprint};
    MDB_txn *txn;
    int rc;

    atomic_store(&p->is_there, false);
    rc = mdb_txn_begin(p->snapshot->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    rc = empty(txn, p);
    if (rc == 0)
        rc = snapshot_put_record(txn, p, &fresh);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    if (rc == 0)
        snapshot_set_record(p, &fresh);
    return rc;
}

struct snapshot_part *
snapshot_claim(struct snapshot *s, const char *name, unsigned *epoch)
{
    struct snapshot_part *p;

    pthread_mutex_lock(&s->lock);
    p = find_part(s, name);
    if (!p)
        p = new_part(s, name);
    if (p)
        *epoch = ++p->epoch;
    pthread_mutex_unlock(&s->lock);
    return p;
}

static bool
is_of(const struct snapshot_part *p, struct hash128 fingerprint)
{
    return memcmp(&p->record.fingerprint, &fingerprint, sizeof fingerprint) == 0;
}

bool
snapshot_is_of(struct snapshot_part *p, struct hash128 fingerprint)
{
    bool is;

    pthread_mutex_lock(&p->snapshot->lock);
    is = is_of(p, fingerprint);
    pthread_mutex_unlock(&p->snapshot->lock);
    return is;
}

bool
snapshot_is_writer(const struct snapshot_part *p, unsigned epoch, struct err *e)
{
    bool is_writer;

    pthread_mutex_lock(&p->snapshot->lock);
    is_writer = p->epoch == epoch;
    pthread_mutex_unlock(&p->snapshot->lock);
    if (!is_writer)
        err_set(e, ERR_STORAGE, "another one writes this directory now");
    return is_writer;
}

void
snapshot_set_record(struct snapshot_part *p, const struct snapshot_record *record)
{
    pthread_mutex_lock(&p->snapshot->lock);
    p->record = *record;
    pthread_mutex_unlock(&p->snapshot->lock);
}

int
snapshot_attach(struct snapshot_part *p, unsigned epoch, struct hash128 fingerprint, struct err *e)
{
    struct snapshot *s = p->snapshot;
    bool is_writer;
    int rc = 0;

    pthread_mutex_lock(&s->writer);
    is_writer = snapshot_is_writer(p, epoch, e);
    if (is_writer && !is_of(p, fingerprint)) {
        rc = reset_part(p, fingerprint);
        if (rc == MDB_MAP_FULL && (rc = snapshot_grow(s)) == 0)
            rc = reset_part(p, fingerprint);
    }
    pthread_mutex_unlock(&s->writer);
    if (rc != 0)
        return snapshot_fail(s, rc, "cannot write", e);
    return is_writer ? 0 : -1;
}

static bool
is_named(const struct snapshot_part *p, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(p->name, names[i]) == 0)
            return true;
    return false;
}

static int
forget_part(const struct snapshot_part *p)
{
    MDB_val key = {strlen(p->name) + 1, p->name};
    MDB_txn *txn;
    int rc = mdb_txn_begin(p->snapshot->env, NULL, 0, &txn);

    if (rc != 0)
        return rc;
    rc = empty(txn, p);
    if (rc == 0)
        rc = mdb_del(txn, p->snapshot->tables[SNAPSHOT_META], &key, NULL);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

int
snapshot_retain(struct snapshot *s, const char *const *names, size_t n, struct err *e)
{
    struct snapshot_part **at = &s->parts;
    int rc = 0;

    pthread_mutex_lock(&s->writer);
    pthread_mutex_lock(&s->lock);
    while (*at && rc == 0) {
        struct snapshot_part *p = *at;

        if (is_named(p, names, n)) {
            at = &p->next;
            continue;
        }
        assert(p->epoch == 0); /* nobody has it */
        rc = forget_part(p);
        if (rc == 0) {
            *at = p->next;
            part_free(p);
        }
    }
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_unlock(&s->writer);
    return rc == 0 ? 0 : snapshot_fail(s, rc, "cannot write", e);
}

void
snapshot_mark(struct snapshot_part *p, struct snapshot_mark *mark)
{
    pthread_mutex_lock(&p->snapshot->lock);
    *mark = p->record.mark;
    pthread_mutex_unlock(&p->snapshot->lock);
}

struct snapshot_age
snapshot_age(const struct snapshot_part *p)
{
    return (struct snapshot_age){.is_there = atomic_load(&p->is_there),
                                 .look_ms = atomic_load(&p->look_ms)};
}

#ifndef LDAP_SNAPSHOT_PRIVATE_H
#define LDAP_SNAPSHOT_PRIVATE_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "ldap/snapshot.h"
#include "ldap/snapshot_rows.h"

/* What the files of the snapshot share. */

enum snapshot_table {
    SNAPSHOT_META,       /* name -> struct snapshot_record */
    SNAPSHOT_ADDRESSES,  /* number -> struct address_row... */
    SNAPSHOT_OBJECTS,    /* number -> struct object_row... */
    SNAPSHOT_TOMBSTONES, /* number -> struct tombstone_row... */
    SNAPSHOT_RULES,      /* struct rules_key -> struct rules_head, hashes */
    SNAPSHOT_TABLES
};

/* Rows are their own keys: LMDB packs duplicates of one size without a word between them. */
struct address_row {
    uint8_t address[16];
    uint8_t object[8]; /* the first octets of its id */
    uint32_t limits;
};

struct object_row {
    uint8_t object[16];
    uint8_t address[8]; /* the first octets of its hash */
};

struct tombstone_row {
    uint8_t address[16];
    uint32_t time_s;
};

struct rules_key {
    uint32_t number;
    uint8_t object[8];
};

struct rules_head {
    uint32_t n_allow, n_deny;
    uint32_t has_allow, is_allow_open, is_deny_open;
};

#define SNAPSHOT_VERSION 1u

struct snapshot_record {
    uint32_t version, number;
    struct hash128 fingerprint;
    uint64_t address_rows, object_rows;
    struct snapshot_mark mark;
};

struct snapshot_part {
    struct snapshot_part *next;
    struct snapshot *snapshot;
    char *name;
    uint32_t number;               /* its record's, which never changes: readers have no lock */
    unsigned epoch;                /* with the lock */
    struct snapshot_record record; /* changed with both locks, read with either */
    _Atomic int64_t look_ms;
    atomic_bool is_there;
};

struct snapshot {
    char *path;
    struct siphash_key key;
    MDB_env *env;
    MDB_dbi tables[SNAPSHOT_TABLES];
    pthread_mutex_t writer; /* over a whole write */
    pthread_mutex_t lock;   /* over the parts, for a moment; after the writer's, if both */
    pthread_rwlock_t map;   /* held for reading while a transaction is open, for writing while the
                               map moves */
    struct snapshot_part *parts;
    atomic_bool is_unreadable; /* that was told */
};

/* Is EPOCH that of P's writer?  E is set if not. */
bool snapshot_is_writer(const struct snapshot_part *p, unsigned epoch, struct err *e);
/* The writer's lock is held. */
void snapshot_set_record(struct snapshot_part *p, const struct snapshot_record *record);
int snapshot_fail(const struct snapshot *s, int rc, const char *what, struct err *e);
/* Make room, after MDB_MAP_FULL.  The writer's lock is held. */
int snapshot_grow(struct snapshot *s);
MDB_val snapshot_number(const struct snapshot_part *p);
int snapshot_put_record(MDB_txn *txn, const struct snapshot_part *p,
                        const struct snapshot_record *record);
/* Every row of P in TABLE. */
int snapshot_drop(MDB_txn *txn, const struct snapshot_part *p, enum snapshot_table table);
int snapshot_drop_rules(MDB_txn *txn, const struct snapshot_part *p);
/* Rows of P in TABLE, all of them, into R. */
int snapshot_read_all(MDB_txn *txn, const struct snapshot_part *p, enum snapshot_table table,
                      struct snapshot_rows *r);
/* The first row of P, of WIDTH octets, that is not below the N octets of PREFIX; MDB_NOTFOUND if
 * there is none.  C is a cursor of the table. */
int snapshot_seek(MDB_cursor *c, const struct snapshot_part *p, const void *prefix, size_t n,
                  size_t width, MDB_val *row);

#endif

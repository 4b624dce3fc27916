#ifndef BASE_STORE_H
#define BASE_STORE_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* An LMDB file of ours: opened, and begun anew if it is damaged.  LMDB trusts its pages, and a
 * damaged one may be the end of whoever reads it, so a process of its own reads all of them first.
 * For use at start, while there are few threads; what is in the file is the owner's. */

/* Returns LMDB's code, or an errno. */
typedef int store_fn(void *owner, MDB_env *env);

struct store_plan {
    const char *event;  /* of the log, which tells of damage */
    const char *damage; /* what may have come over the file */
    unsigned tables, readers;
    size_t map_bytes; /* or as much as the file has */
    unsigned flags;   /* beside MDB_NOSUBDIR and MDB_NOTLS */
    store_fn *open;   /* open the tables, and read what is to be known at once; what it made of that
                         is gone if it fails */
    store_fn *try; /* after it: go over all there is, as later reads and writes will.  Only in the
                      process of its own */
};

bool store_is_damage(int rc);
/* *ENV of PATH (mode 0600), whose tables are open.  What is damaged, or a directory, is renamed to
 * PATH.damaged, told in the log, and begun anew; what may not be read stays as it is.  -1 with E
 * set, and *ENV NULL. */
int store_open(const char *path, const struct store_plan *plan, void *owner, MDB_env **env,
               struct err *e);
/* The same, of a file that was opened and turned out to be damaged since: RC says how.  Closes
 * *ENV. */
int store_begin_anew(const char *path, const struct store_plan *plan, void *owner, int rc,
                     MDB_env **env, struct err *e);
/* Read every octet of TABLE; for `try`. */
int store_touch(MDB_txn *txn, MDB_dbi table);

#endif

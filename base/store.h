#ifndef BASE_STORE_H
#define BASE_STORE_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* An LMDB file of ours: opened, and begun anew if it is damaged (base/store_check.h).  What the
 * file holds is the owner's business. */

/* Returns LMDB's code, or an errno. */
typedef int store_fn(void *owner, MDB_env *env);

struct store_plan {
    const char *event;  /* the log's, that tells of damage */
    const char *damage; /* what may be the cause, for the log */
    unsigned tables, readers;
    size_t map_bytes; /* or as much as the file has */
    unsigned flags;   /* beside MDB_NOSUBDIR and MDB_NOTLS */
    store_fn *open;   /* open the tables, and read what must be known at once; if it fails it has
                         undone what it did */
};

/* Does LMDB's code RC say that the file is damaged? */
bool store_is_damage(int rc);
/* Open PATH (made with mode 0600) and its tables into *ENV.  A damaged file, or a directory in its
 * place, is renamed to PATH.damaged, reported in the log, and begun anew; a file that may not be
 * read stays as it is.  -1 with E set, and *ENV NULL. */
int store_open(const char *path, const struct store_plan *plan, void *owner, MDB_env **env,
               struct err *e);
/* The same for a file that was open when it turned out to be damaged: RC says how.  Closes *ENV. */
int store_begin_anew(const char *path, const struct store_plan *plan, void *owner, int rc,
                     MDB_env **env, struct err *e);

#endif

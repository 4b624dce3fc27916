#define _GNU_SOURCE /* asprintf */
#include "base/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/store_check.h"

bool
store_is_damage(int rc)
{
    return rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH || rc == MDB_CORRUPTED ||
           rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC || rc == MDB_BAD_DBI ||
           rc == MDB_INCOMPATIBLE || rc == MDB_BAD_VALSIZE;
}

/* CHECK of what FD holds; a new file, which has nothing yet, is good. */
static int
check_file(int fd, int (*check)(struct span file))
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (st.st_size == 0)
        return 0;
    void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED)
        return errno;
    int rc = check(span_of(file, (size_t)st.st_size));
    munmap(file, (size_t)st.st_size);
    return rc;
}

/* Before LMDB reads it. */
static int
check_metas(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : errno;
    int rc = check_file(fd, store_check_metas);
    close(fd);
    return rc;
}

/* In a transaction, since another process may be writing. */
static int
check_pages(MDB_env *env)
{
    MDB_txn *txn;
    int fd, rc = mdb_env_get_fd(env, &fd);

    if (rc == 0)
        rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    rc = check_file(fd, store_check);
    mdb_txn_abort(txn);
    return rc;
}

static int
open_env(const char *path, const struct store_plan *plan, void *owner, MDB_env **env)
{
    int rc = check_metas(path);

    *env = NULL;
    if (rc == 0)
        rc = mdb_env_create(env);
    if (rc != 0)
        return rc;
    rc = mdb_env_set_maxdbs(*env, plan->tables);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(*env, plan->readers);
    if (rc == 0)
        rc = mdb_env_set_mapsize(*env, plan->map_bytes);
    if (rc == 0)
        rc = mdb_env_open(*env, path, MDB_NOSUBDIR | MDB_NOTLS | plan->flags, 0600);
    if (rc == 0)
        rc = check_pages(*env);
    if (rc == 0)
        rc = plan->open(owner, *env);
    if (rc != 0) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return rc;
}

static int
set_aside(const char *path, const struct store_plan *plan, int damage, struct err *e)
{
    char *kept;
    int rc;

    if (asprintf(&kept, "%s.damaged", path) < 0)
        return err_set(e, ERR_SYSTEM, "out of memory");
    rc = rename(path, kept) == 0 ? 0 : err_errno(e, ERR_STORAGE, errno, "%s", kept);
    free(kept);
    if (rc == 0) {
        struct log_line l;

        log_begin(&l, LOG_LEVEL_ERROR, plan->event);
        log_str(&l, "state", "degraded");
        log_str(&l, "file", path);
        log_fmt(&l, "error", "%s: %s", plan->damage, mdb_strerror(damage));
        log_str(&l, "action", "set aside, begun anew");
        log_end(&l);
    }
    return rc;
}

static int
fail(const char *path, int rc, struct err *e)
{
    return err_set(e, ERR_STORAGE, "%s: cannot open: %s", path, mdb_strerror(rc));
}

int
store_begin_anew(const char *path, const struct store_plan *plan, void *owner, int rc,
                 MDB_env **env, struct err *e)
{
    if (*env)
        mdb_env_close(*env);
    *env = NULL;
    if (set_aside(path, plan, rc, e) < 0)
        return -1;
    rc = open_env(path, plan, owner, env);
    return rc == 0 ? 0 : fail(path, rc, e);
}

int
store_open(const char *path, const struct store_plan *plan, void *owner, MDB_env **env,
           struct err *e)
{
    int rc = open_env(path, plan, owner, env);

    if (store_is_damage(rc) || rc == EISDIR)
        return store_begin_anew(path, plan, owner, rc, env, e);
    return rc == 0 ? 0 : fail(path, rc, e);
}

#define _GNU_SOURCE /* asprintf */
#include "base/store.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

#define TRY_MAX_S 60
/* The child's exit status for damage.  Any other says nothing: what watches over a process
 * (valgrind, a sanitizer) may set a status of its own. */
#define EXIT_DAMAGED 65

bool
store_is_damage(int rc)
{
    return rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH || rc == MDB_CORRUPTED ||
           rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC || rc == MDB_BAD_DBI ||
           rc == MDB_INCOMPATIBLE || rc == MDB_BAD_VALSIZE;
}

int
store_touch(MDB_txn *txn, MDB_dbi table)
{
    volatile uint8_t last = 0;
    MDB_val key, value;
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, table, &c);

    if (rc != 0)
        return rc;
    while ((rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)) == 0)
        for (size_t i = 0; i < value.mv_size; i++)
            last = ((const uint8_t *)value.mv_data)[i];
    (void)last;
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
open_env(const char *path, const struct store_plan *plan, void *owner, MDB_env **env)
{
    int rc = mdb_env_create(env);

    if (rc != 0) {
        *env = NULL;
        return rc;
    }
    rc = mdb_env_set_maxdbs(*env, plan->tables);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(*env, plan->readers);
    if (rc == 0)
        rc = mdb_env_set_mapsize(*env, plan->map_bytes);
    if (rc == 0)
        rc = mdb_env_open(*env, path, MDB_NOSUBDIR | MDB_NOTLS | plan->flags, 0600);
    if (rc == 0)
        rc = plan->open(owner, *env);
    if (rc != 0) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return rc;
}

static void
on_assertion(MDB_env *env, const char *text)
{
    (void)env;
    (void)text;
    _exit(EXIT_DAMAGED);
}

/* What the child does, that tries the file; does not return. */
static void
try_file(const char *path, const struct store_plan *plan, void *owner)
{
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
    static const struct rlimit none = {0, 0};
    MDB_env *env;
    int rc;

    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
        signal(deadly[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &none);
    alarm(TRY_MAX_S);
    rc = open_env(path, plan, owner, &env);
    if (rc == 0) {
        mdb_env_set_assert(env, on_assertion);
        rc = plan->try(owner, env);
        mdb_env_close(env);
    }
    _exit(store_is_damage(rc) ? EXIT_DAMAGED : EXIT_SUCCESS);
}

static bool
is_damaged(const char *path, const struct store_plan *plan, void *owner)
{
    int status = 0;
    pid_t child;

    if (access(path, F_OK) != 0)
        return false;
    child = fork();
    if (child == 0)
        try_file(path, plan, owner);
    if (child < 0)
        return false; /* nobody to ask */
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return !WIFEXITED(status) || WEXITSTATUS(status) == EXIT_DAMAGED;
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
    int rc;

    *env = NULL;
    rc = is_damaged(path, plan, owner) ? MDB_CORRUPTED : open_env(path, plan, owner, env);
    if (store_is_damage(rc) || rc == EISDIR)
        return store_begin_anew(path, plan, owner, rc, env, e);
    return rc == 0 ? 0 : fail(path, rc, e);
}

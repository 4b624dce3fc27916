#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/store.h"

/* What comes of a file, by what its owner finds in it. */

static char dir[] = "/tmp/postern-test-XXXXXX";
static char path[64], damaged[80];

struct owner {
    MDB_dbi table;
    int open_rc; /* what its first opening comes to */
};

static int
open_table(void *arg, MDB_env *env)
{
    struct owner *o = arg;
    int rc = o->open_rc;
    MDB_txn *txn;

    o->open_rc = 0;
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "table", MDB_CREATE, &o->table), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    return rc;
}

static const struct store_plan plan = {.event = "test",
                                       .damage = "damaged",
                                       .tables = 1,
                                       .readers = 4,
                                       .map_bytes = 16 << 20,
                                       .open = open_table};

static int
make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/file.mdb", dir);
    snprintf(damaged, sizeof damaged, "%s.damaged", path);
    return 0;
}

static int
remove_files(void **state)
{
    char lock[80];

    (void)state;
    snprintf(lock, sizeof lock, "%s-lock", path);
    (void)unlink(path);
    (void)unlink(damaged);
    (void)unlink(lock);
    return 0;
}

static int
remove_directory(void **state)
{
    (void)state;
    return rmdir(dir);
}

static void
put(struct owner *o, MDB_env *env, const char *name, size_t n)
{
    static char octets[1 << 20];
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, value = {n, octets};
    MDB_txn *txn;
    int rc;

    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    rc = n > 0 ? mdb_put(txn, o->table, &key, &value, 0) : mdb_del(txn, o->table, &key, NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static bool
has(struct owner *o, MDB_env *env, const char *name)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, value;
    MDB_txn *txn;
    int rc;

    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    rc = mdb_get(txn, o->table, &key, &value);
    mdb_txn_abort(txn);
    return rc == 0;
}

static void
what_comes_of_a_file(void **state)
{
    static const struct {
        struct owner later;
        int rc;
        bool is_kept;
    } cases[] = {
        {{.open_rc = 0}, 0, true},
        {{.open_rc = MDB_CORRUPTED}, 0, false},
        {{.open_rc = MDB_PAGE_NOTFOUND}, 0, false},
        {{.open_rc = ENOMEM}, -1, true}, /* that is no fault of the file's */
        {{.open_rc = EACCES}, -1, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct owner o = {.open_rc = 0};
        struct stat st;
        struct err e = {.kind = ERR_NONE};
        MDB_env *env;

        assert_int_equal(store_open(path, &plan, &o, &env, &e), 0);
        put(&o, env, "a", 100);
        mdb_env_close(env);
        o = cases[i].later;
        assert_int_equal(store_open(path, &plan, &o, &env, &e), cases[i].rc);
        assert_int_equal(stat(damaged, &st) != 0, cases[i].is_kept);
        assert_int_equal(env != NULL, cases[i].rc == 0);
        assert_int_equal(e.kind != ERR_NONE, cases[i].rc < 0);
        if (env)
            assert_int_equal(has(&o, env, "a"), cases[i].is_kept);
        mdb_env_close(env);
        remove_files(NULL);
    }
}

/* LMDB counts pages that nothing refers to any longer, and need not have them. */
static void
a_file_that_ends_before_its_last_page_is_good(void **state)
{
    struct owner o = {.open_rc = 0};
    struct stat st;
    struct err e;
    MDB_envinfo info;
    MDB_env *env;

    (void)state;
    assert_int_equal(store_open(path, &plan, &o, &env, &e), 0);
    put(&o, env, "a", 100);
    put(&o, env, "large", 1 << 20);
    put(&o, env, "large", 0);
    for (int i = 0; i < 8; i++)
        put(&o, env, "b", 10); /* over pages of the large one, away from the end */
    assert_int_equal(mdb_env_info(env, &info), 0);
    mdb_env_close(env);
    assert_int_equal(truncate(path, (off_t)info.me_last_pgno * 4096), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_size < (info.me_last_pgno + 1) * 4096);
    assert_int_equal(store_open(path, &plan, &o, &env, &e), 0);
    assert_int_not_equal(stat(damaged, &st), 0);
    assert_true(has(&o, env, "a"));
    assert_true(has(&o, env, "b"));
    mdb_env_close(env);
}

static void
found_damaged_later(void **state)
{
    struct owner o = {.open_rc = 0};
    struct stat st;
    struct err e;
    MDB_env *env;

    (void)state;
    assert_int_equal(store_open(path, &plan, &o, &env, &e), 0);
    put(&o, env, "a", 100);
    assert_int_equal(store_begin_anew(path, &plan, &o, MDB_CORRUPTED, &env, &e), 0);
    assert_int_equal(stat(damaged, &st), 0);
    assert_false(has(&o, env, "a"));
    mdb_env_close(env);
}

static void
no_place(void **state)
{
    struct owner o = {.open_rc = 0};
    struct err e = {.kind = ERR_NONE};
    MDB_env *env;

    (void)state;
    assert_int_equal(store_open("/nonexistent/file.mdb", &plan, &o, &env, &e), -1);
    assert_null(env);
    assert_int_equal(e.kind, ERR_STORAGE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_comes_of_a_file, remove_files),
        cmocka_unit_test_teardown(a_file_that_ends_before_its_last_page_is_good, remove_files),
        cmocka_unit_test_teardown(found_damaged_later, remove_files),
        cmocka_unit_test(no_place),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}

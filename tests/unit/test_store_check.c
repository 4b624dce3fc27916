#define _GNU_SOURCE /* memmem, mkdtemp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <lmdb.h>

#include "base/store_check.h"

/* A file that LMDB wrote: rows of all kinds, trees of several levels, and pages that are free. */

#define PAGE  4096u
#define WORD  sizeof(size_t)
#define KEYS  3000u
#define FIRST 2u
/* So many pages has a large value. */
#define LARGE       20000u
#define LARGE_PAGES 5u

static char *file, *copy;      /* the second is to be damaged */
static size_t n_file, n_heads; /* pages in use that have a head */

static void
put(MDB_txn *txn, MDB_dbi table, unsigned key, const void *value, size_t n)
{
    uint64_t octets[3] = {key * 2654435761u, key, 0};
    MDB_val k = {20, octets}, v = {n, (void *)(uintptr_t)value};

    assert_int_equal(mdb_put(txn, table, &k, &v, 0), 0);
}

static void
change(MDB_env *env, unsigned round)
{
    static const char large[LARGE];
    MDB_dbi plain, fixed;
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "plain", MDB_CREATE, &plain), 0);
    assert_int_equal(mdb_dbi_open(txn, "fixed", MDB_CREATE | MDB_DUPSORT | MDB_DUPFIXED, &fixed),
                     0);
    for (unsigned i = round; i < KEYS; i += 2) {
        put(txn, plain, i, large, i % 50 == 0 ? sizeof large : i % 200);
        put(txn, fixed, i % 300, &(uint64_t[2]){i, round}, 16); /* a few each */
        put(txn, fixed, 1000, &(uint64_t[2]){i, round}, 16);    /* a tree */
        put(txn, fixed, 2000 + i, &(uint64_t[2]){i, round}, 16);
    }
    for (unsigned i = 0; round == 1 && i < KEYS; i += 3) {
        uint64_t octets[3] = {i * 2654435761u, i, 0};
        MDB_val k = {20, octets};

        assert_int_equal(mdb_del(txn, plain, &k, NULL), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
}

/* The pages that are neither metas nor free, nor the second or a later one of a large value. */
static size_t
count_heads(MDB_env *env)
{
    const MDB_dbi free_pages = 0;
    MDB_val key, list;
    MDB_envinfo info;
    MDB_stat plain;
    MDB_cursor *c;
    MDB_dbi table;
    MDB_txn *txn;
    size_t n, n_free = 0;

    assert_int_equal(mdb_env_info(env, &info), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_cursor_open(txn, free_pages, &c), 0);
    while (mdb_cursor_get(c, &key, &list, MDB_NEXT) == 0) {
        memcpy(&n, list.mv_data, sizeof n);
        n_free += n;
    }
    mdb_cursor_close(c);
    assert_int_equal(mdb_dbi_open(txn, "plain", 0, &table), 0);
    assert_int_equal(mdb_stat(txn, table, &plain), 0);
    mdb_txn_abort(txn);
    assert_true(n_free > 0 && plain.ms_overflow_pages > 0);
    n = plain.ms_overflow_pages / LARGE_PAGES * (LARGE_PAGES - 1);
    return info.me_last_pgno + 1 - FIRST - n_free - n;
}

static int
make_file(void **state)
{
    char dir[] = "/tmp/postern-test-XXXXXX", path[64];
    MDB_env *env;
    FILE *f;

    (void)state;
    if (!mkdtemp(dir) || mdb_env_create(&env) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/file.mdb", dir);
    mdb_env_set_maxdbs(env, 2);
    mdb_env_set_mapsize(env, 64 << 20);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600), 0);
    change(env, 0);
    change(env, 1);
    n_heads = count_heads(env);
    mdb_env_close(env);
    f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    n_file = (size_t)ftell(f);
    rewind(f);
    file = malloc(n_file);
    copy = malloc(n_file);
    if (!file || !copy || fread(file, 1, n_file, f) != n_file)
        return -1;
    memcpy(copy, file, n_file);
    fclose(f);
    unlink(path);
    return rmdir(dir);
}

static int
free_file(void **state)
{
    (void)state;
    free(file);
    free(copy);
    return 0;
}

static int
check(size_t n)
{
    return store_check(span_of(copy, n));
}

static void
test_good(void **state)
{
    (void)state;
    assert_int_equal(check(n_file), 0);
    assert_int_equal(store_check_metas(span_of(copy, n_file)), 0);
}

/* A meta: head, magic and version, address, size of the map; then the trees of free pages and of
 * names, each 8 octets of width, flags and depth, and 5 words; then the last page, the transaction.
 */
#define META      (WORD + 8)
#define FREE      (META + 8 + 2 * WORD)
#define NAMES     (FREE + 8 + 5 * WORD)
#define LAST      (NAMES + 8 + 5 * WORD)
#define META_SIZE (LAST + 2 * WORD)

/* It ends too soon, by a piece, a page or nearly all. */
static void
test_cut(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_file - PAGE; n += n < 2 * PAGE ? 64 : PAGE) {
        assert_int_equal(store_check_metas(span_of(copy, n)),
                         n < PAGE + META_SIZE ? MDB_CORRUPTED : 0);
        assert_int_equal(check(n), MDB_CORRUPTED);
    }
}

/* What is changed in a page: it is noticed in each that is in use, and in no other. */
static const struct {
    const char *what;
    size_t at, n;
    uint8_t octets[4];
} heads[] = {
    {"number", 3, 1, {0x7f}},
    {"flags: none", WORD + 2, 1, {0}},
    {"flags: a meta", WORD + 2, 1, {8}},
    {"flags: another bit", WORD + 3, 1, {0x80}},
    {"lower: odd, or many pages", WORD + 4, 2, {0xff, 0xff}},
    {"upper, or many pages", WORD + 6, 2, {0xff, 0xff}},
};

static void
test_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        size_t noticed = 0;

        for (size_t page = FIRST; page < n_file / PAGE; page++) {
            char *head = copy + page * PAGE;

            memcpy(head + heads[i].at, heads[i].octets, heads[i].n);
            noticed += check(n_file) != 0;
            memcpy(head, file + page * PAGE, PAGE);
        }
        if (noticed != n_heads)
            fail_msg("%s: %zu of %zu", heads[i].what, noticed, n_heads);
    }
}

/* The same in both metas. */
static const struct {
    const char *what;
    size_t at;
    uint8_t octet;
} metas[] = {
    {"head", WORD + 2, 2},
    {"magic", META, 0},
    {"version", META + 4, 2},
    {"no map", META + 8 + WORD + 3, 0},
    {"a large map", META + 8 + WORD + 6, 1},
    {"size of a page", FREE + 1, 0x11},
    {"a smaller page", FREE + 1, 8},
    {"free pages: flags", FREE + 4, MDB_DUPSORT},
    {"free pages: depth", FREE + 6, 9},
    {"free pages: leaves", FREE + 8 + WORD, 99},
    {"free pages: root", FREE + 8 + 4 * WORD, 1},
    {"names: flags", NAMES + 4, MDB_DUPSORT},
    {"names: no depth", NAMES + 6, 0},
    {"names: branches", NAMES + 8, 99},
    {"names: large values", NAMES + 8 + 2 * WORD, 99},
    {"names: entries", NAMES + 8 + 3 * WORD, 99},
    {"names: root", NAMES + 8 + 4 * WORD + 7, 1},
    {"last page", LAST + 1, 0},
    {"transaction", LAST + WORD, 0x30},
};

static void
test_metas(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof metas / sizeof metas[0]; i++) {
        for (size_t page = 0; page < FIRST; page++)
            copy[page * PAGE + metas[i].at] = (char)metas[i].octet;
        if (check(n_file) != MDB_CORRUPTED)
            fail_msg("%s", metas[i].what);
        memcpy(copy, file, FIRST * PAGE);
    }
    assert_int_equal(check(n_file), 0);
}

/* LMDB would not find again what is out of order, and write it a second time. */
static void
test_order(void **state)
{
    size_t noticed = 0;

    (void)state;
    for (char *name = copy; (name = memmem(name, n_file - (size_t)(name - copy), "fixed", 5));) {
        *name = 'z'; /* behind "plain" */
        noticed += check(n_file) == MDB_CORRUPTED;
        *name++ = 'f';
    }
    assert_int_equal(noticed, 1); /* the others are in pages that are free */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),  cmocka_unit_test(test_cut),   cmocka_unit_test(test_heads),
        cmocka_unit_test(test_metas), cmocka_unit_test(test_order),
    };

    return cmocka_run_group_tests(tests, make_file, free_file);
}

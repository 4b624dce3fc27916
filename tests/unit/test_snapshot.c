#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "ldap/snapshot.h"

static const struct hash128 FINGERPRINT = {1, 2};

struct fixture {
    char dir[64], file[96];
    struct snapshot *s;
    struct snapshot_part *p;
    unsigned epoch;
    struct snapshot_reader *r;
};

static struct snapshot_part *
attach(struct fixture *f, const char *name, struct hash128 fingerprint)
{
    struct snapshot_part *p = snapshot_claim(f->s, name, &f->epoch);
    struct err e;

    assert_non_null(p);
    assert_int_equal(snapshot_attach(p, f->epoch, fingerprint, &e), 0);
    assert_true(snapshot_is_of(p, fingerprint));
    return p;
}

static void
start(struct fixture *f)
{
    struct err e;

    f->s = snapshot_open(f->dir, &e);
    assert_non_null(f->s);
    f->p = attach(f, "", FINGERPRINT);
    assert_non_null(f->p);
    f->r = snapshot_reader_new(f->s);
}

static void
stop(struct fixture *f)
{
    snapshot_reader_free(&f->r);
    snapshot_close(&f->s);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    snprintf(f->dir, sizeof f->dir, "/tmp/test-snapshot-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->file, sizeof f->file, "%s/recipients.mdb", f->dir);
    start(f);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    static const char *const names[] = {"recipients.mdb", "recipients.mdb-lock", "recipients.key",
                                        "recipients.mdb.damaged"};
    struct fixture *f = *state;
    char path[128];

    stop(f);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static struct snapshot_id
id_of(unsigned n)
{
    struct snapshot_id id;

    memset(&id, 0, sizeof id);
    memcpy(id.octets, &n, sizeof n);
    return id;
}

/* "1:anna@x 1:a@x 2:ben@x!" : object, address, and ! for a restriction of the row's. */
static size_t
rows_of(struct fixture *f, const char *text, struct snapshot_row rows[64])
{
    struct span rest = span_str(text), item;
    size_t n = 0;

    while (rest.n > 0 && span_next(&rest, ' ', &item)) {
        struct span object;
        uint64_t number;
        uint32_t limits = 0;

        assert_true(span_next(&item, ':', &object));
        assert_true(span_u64(object, 1000, &number));
        if (item.p[item.n - 1] == '!') {
            limits = SNAPSHOT_REQUIRE_AUTH;
            item.n--;
        }
        if (span_starts_nocase(item, "x500"))
            limits |= SNAPSHOT_IS_X500;
        rows[n++] = (struct snapshot_row){
            .address = snapshot_hash(f->s, item), .object = id_of((unsigned)number), limits};
    }
    return n;
}

static enum snapshot_take
take(struct fixture *f, bool is_full, const char *text, const char *changed, int max_loss,
     int64_t at_s)
{
    struct snapshot_row rows[64];
    struct snapshot_id ids[64];
    struct span rest = span_str(changed), item;
    struct snapshot_look look = {.is_full = is_full,
                                 .rows = rows,
                                 .changed = ids,
                                 .max_loss = max_loss,
                                 .began_ms = clock_ms(),
                                 .mark = {.full_s = at_s, .look_s = at_s}};
    struct snapshot_result r;
    enum snapshot_take taken;
    struct err e = {.kind = ERR_NONE};

    look.n_rows = rows_of(f, text, rows);
    while (rest.n > 0 && span_next(&rest, ' ', &item)) {
        uint64_t number;

        assert_true(span_u64(item, 1000, &number));
        ids[look.n_changed++] = id_of((unsigned)number);
    }
    taken = snapshot_take(f->p, f->epoch, &look, &r, &e);
    if (taken == SNAPSHOT_FAILED)
        print_message("%s\n", e.text);
    return taken;
}

#define TAKE(f, is_full, text, changed)                                                            \
    assert_int_equal(take(f, is_full, text, changed, 100, 1000), SNAPSHOT_TAKEN)

/* Which of the addresses are there: "anna@x ben@x"; one that is restricted with a "!". */
static void
assert_there(struct fixture *f, const char *expected)
{
    static const char *const all[] = {"a@x", "anna@x", "b@x", "ben@x", "carl@x"};
    char found[128] = "";
    size_t n = 0;

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct dir_verdict v;

        if (snapshot_find(f->r, f->p, span_str(all[i]), &v) != SNAPSHOT_HAS)
            continue;
        assert_int_equal(v.status, DIR_FOUND);
        n += (size_t)snprintf(found + n, sizeof found - n, "%s%s%s", n > 0 ? " " : "", all[i],
                              v.is_restricted ? "!" : "");
    }
    assert_string_equal(found, expected);
}

static struct snapshot_mark
mark_of(struct fixture *f)
{
    struct snapshot_mark mark;

    snapshot_mark(f->p, &mark);
    return mark;
}

static void
test_nothing_is_known_before_the_first_look(void **state)
{
    struct fixture *f = *state;
    struct dir_verdict v;

    assert_int_equal(snapshot_find(f->r, f->p, span_str("a@x"), &v), SNAPSHOT_UNKNOWN);
    assert_false(snapshot_age(f->p).is_there);
    TAKE(f, true, "", "");
    assert_int_equal(snapshot_find(f->r, f->p, span_str("a@x"), &v), SNAPSHOT_LACKS);
    assert_true(snapshot_age(f->p).is_there);
}

static void
test_looks(void **state)
{
    static const struct {
        bool is_full;
        const char *rows, *changed, *there;
        unsigned entries, objects;
    } steps[] = {
        {true, "1:a@x", "", "a@x", 1, 1},
        {true, "1:a@x 1:anna@x 2:ben@x", "", "a@x anna@x ben@x", 3, 2},
        {true, "1:a@x 1:anna@x 2:ben@x", "", "a@x anna@x ben@x", 3, 2}, /* nothing new */
        {false, "3:carl@x", "3", "a@x anna@x ben@x carl@x", 4, 3},      /* one more */
        {false, "1:anna@x", "1", "anna@x ben@x carl@x", 3, 3},          /* an alias is gone */
        {false, "", "2", "anna@x carl@x", 2, 2},                        /* an object is gone */
        {false, "", "9", "anna@x carl@x", 2, 2},                        /* and one never seen */
        {false, "1:anna@x!", "1", "anna@x! carl@x", 2, 2},              /* other limits */
        {false, "4:anna@x", "4", "anna@x carl@x", 2, 3},                /* two have it: no limits */
        {false, "", "1", "anna@x carl@x", 2, 2},                        /* one of the two is left */
        {false, "1:a@x 4:b@x", "1 4", "a@x b@x carl@x", 3, 3},          /* several at once */
        {true, "5:a@x 5:a@x 5:b@x", "", "a@x b@x", 2, 1},               /* twice on one */
        {true, "5:a@x 5:x500:/o=x", "", "a@x", 1, 1},                   /* is not counted */
        {true, "", "", "", 0, 0},
        {true, "1:a@x!", "", "a@x!", 1, 1},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        TAKE(f, steps[i].is_full, steps[i].rows, steps[i].changed);
        assert_there(f, steps[i].there);
        assert_int_equal(mark_of(f).entries, steps[i].entries);
        assert_int_equal(mark_of(f).objects, steps[i].objects);
    }
}

static void
test_what_was_seen_outlives_the_process(void **state)
{
    struct fixture *f = *state;
    const int64_t now_s = clock_wall_s();

    assert_int_equal(take(f, true, "1:a@x 2:ben@x!", "", 100, now_s - 60), SNAPSHOT_TAKEN);
    stop(f);
    start(f);
    assert_there(f, "a@x ben@x!");
    assert_true(clock_ms() - snapshot_age(f->p).look_ms >= 60000);
    assert_true(clock_ms() - snapshot_age(f->p).look_ms < 90000);
    TAKE(f, false, "", "1");
    assert_there(f, "ben@x!");
}

static void
test_too_much_loss_is_refused(void **state)
{
    struct fixture *f = *state;

    TAKE(f, true, "1:a@x 1:anna@x 2:b@x 3:ben@x 4:carl@x", "");
    assert_int_equal(take(f, true, "1:a@x 1:anna@x 2:b@x 3:ben@x", "", 19, 2000), SNAPSHOT_REFUSED);
    assert_there(f, "a@x anna@x b@x ben@x carl@x");
    assert_int_equal(mark_of(f).look_s, 1000);
    assert_int_equal(take(f, true, "1:a@x 1:anna@x 2:b@x 3:ben@x", "", 20, 2000), SNAPSHOT_TAKEN);
    assert_there(f, "a@x anna@x b@x ben@x");
    assert_int_equal(mark_of(f).look_s, 2000);
    /* An address that goes from one object to another is not lost. */
    assert_int_equal(take(f, true, "8:a@x 8:anna@x 8:b@x 9:ben@x", "", 0, 3000), SNAPSHOT_TAKEN);
    assert_int_equal(take(f, true, "", "", 99, 3000), SNAPSHOT_REFUSED);
    assert_int_equal(take(f, true, "", "", 100, 3000), SNAPSHOT_TAKEN);
    assert_there(f, "");
}

static bool
was_known(struct fixture *f, const char *address, int64_t since_s)
{
    return snapshot_was_known(f->r, f->p, span_str(address), since_s);
}

static void
test_tombstones(void **state)
{
    struct fixture *f = *state;
    struct snapshot_look look = {.is_full = true,
                                 .max_loss = 100,
                                 .buried_s = 2001,
                                 .mark = {.full_s = 3000, .look_s = 3000}};
    struct snapshot_result r;
    struct err e;

    TAKE(f, true, "1:a@x 2:b@x 3:carl@x", "");
    assert_false(was_known(f, "a@x", 0));
    assert_int_equal(take(f, false, "", "1", 100, 2000), SNAPSHOT_TAKEN);
    assert_true(was_known(f, "a@x", 2000));
    assert_false(was_known(f, "a@x", 2001));
    assert_false(was_known(f, "b@x", 0));
    assert_false(was_known(f, "nobody@x", 0));
    assert_int_equal(take(f, true, "3:carl@x", "", 100, 2500), SNAPSHOT_TAKEN);
    assert_true(was_known(f, "a@x", 2000));
    assert_true(was_known(f, "b@x", 2500));
    /* It came back, and went again. */
    assert_int_equal(take(f, false, "1:b@x", "1", 100, 2600), SNAPSHOT_TAKEN);
    assert_false(was_known(f, "b@x", 0));
    assert_int_equal(take(f, false, "", "1", 100, 2700), SNAPSHOT_TAKEN);
    assert_true(was_known(f, "b@x", 2700));
    assert_int_equal(snapshot_take(f->p, f->epoch, &look, &r, &e), SNAPSHOT_TAKEN);
    assert_int_equal(r.lost, 1);
    assert_false(was_known(f, "a@x", 0)); /* too old by now */
    assert_true(was_known(f, "b@x", 0));
    assert_true(was_known(f, "carl@x", 0));
}

static void
test_rules(void **state)
{
    enum { ALLOW_ONLY = 1, DENY_ONLY, BOTH, OPEN_ALLOW, NOBODY };
    struct fixture *f = *state;
    uint64_t anna = snapshot_hash(f->s, span_str("anna@y")).lo;
    uint64_t ben = snapshot_hash(f->s, span_str("ben@y")).lo;
    uint64_t both[] = {anna > ben ? anna : ben, anna > ben ? ben : anna};
    const struct snapshot_rules rules[] = {
        {.object = id_of(ALLOW_ONLY), .has_allow = true, .allow = both, .n_allow = 2},
        {.object = id_of(DENY_ONLY), .deny = &ben, .n_deny = 1},
        {.object = id_of(BOTH),
         .has_allow = true,
         .allow = both,
         .n_allow = 2,
         .deny = &ben,
         .n_deny = 1},
        {.object = id_of(OPEN_ALLOW), .has_allow = true, .is_allow_open = true},
        {.object = id_of(NOBODY), .has_allow = true},
    };
    static const struct {
        const char *key;
        size_t n;
        bool is_restricted;
    } cases[] = {
        {"1@x", 3, false},         {"1@x\0anna@y", 10, false}, {"1@x\0ben@y", 9, false},
        {"1@x\0carl@y", 10, true}, {"1@x\0", 4, true},         {"2@x\0anna@y", 10, false},
        {"2@x\0ben@y", 9, true},   {"2@x\0", 4, false},        {"3@x\0anna@y", 10, false},
        {"3@x\0ben@y", 9, true},   {"3@x\0carl@y", 10, true},  {"4@x\0carl@y", 10, false},
        {"4@x\0", 4, true},        {"5@x\0anna@y", 10, true},
    };
    struct snapshot_row rows[5];
    struct snapshot_look look = {.is_full = true,
                                 .rows = rows,
                                 .n_rows = 5,
                                 .max_loss = 100,
                                 .has_rules = true,
                                 .rules = rules,
                                 .n_rules = 5,
                                 .mark = {.full_s = 1}};
    struct snapshot_result r;
    struct dir_verdict v;
    struct err e;

    for (unsigned i = 0; i < 5; i++) {
        char address[8];

        snprintf(address, sizeof address, "%u@x", i + 1);
        rows[i] = (struct snapshot_row){.address = snapshot_hash(f->s, span_str(address)),
                                        .object = id_of(i + 1),
                                        .limits = SNAPSHOT_HAS_RULES | (i + 1)};
    }
    assert_int_equal(snapshot_take(f->p, f->epoch, &look, &r, &e), SNAPSHOT_TAKEN);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(snapshot_find(f->r, f->p, span_of(cases[i].key, cases[i].n), &v),
                         SNAPSHOT_HAS);
        assert_true(v.has_rules);
        assert_int_equal(v.is_restricted, cases[i].is_restricted);
        assert_int_equal(v.max_size, (cases[i].key[0] - '0') * 1024);
    }
    /* Rules that are gone refuse nobody. */
    look.n_rules = 0;
    assert_int_equal(snapshot_take(f->p, f->epoch, &look, &r, &e), SNAPSHOT_TAKEN);
    assert_int_equal(snapshot_find(f->r, f->p, span_of("1@x\0carl@y", 10), &v), SNAPSHOT_HAS);
    assert_false(v.is_restricted);
}

struct writer {
    struct fixture *f;
    bool has_failed;
    atomic_bool is_done;
};

static void *
write_on(void *arg)
{
    struct writer *w = arg;

    for (int i = 0; i < 100 && !w->has_failed; i++)
        w->has_failed = take(w->f, true, i % 2 ? "1:anna@x 2:ben@x" : "1:anna@x 3:carl@x", "", 100,
                             1000) != SNAPSHOT_TAKEN;
    atomic_store(&w->is_done, true);
    return NULL;
}

/* Readers have no part in the writer's lock. */
static void
test_readers_beside_a_writer(void **state)
{
    struct fixture *f = *state;
    struct writer w = {.f = f};
    struct dir_verdict v;
    pthread_t thread;

    TAKE(f, true, "1:anna@x", "");
    assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
    while (!atomic_load(&w.is_done))
        assert_int_equal(snapshot_find(f->r, f->p, span_str("anna@x"), &v), SNAPSHOT_HAS);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(w.has_failed);
}

static void
test_imcea(void **state)
{
    struct fixture *f = *state;
    struct dir_verdict v;

    TAKE(f, true, "1:x500:/o=a/cn=b", "");
    assert_int_equal(snapshot_find(f->r, f->p, span_str("imceaex-_o=a_cn=b@x"), &v), SNAPSHOT_HAS);
    assert_int_equal(snapshot_find(f->r, f->p, span_str("imceaex-_o=a_cn=c@x"), &v),
                     SNAPSHOT_LACKS);
}

static void
test_duplicates_and_objects(void **state)
{
    static const int expected[] = {1, 2, 3, 7, 8, 9};
    struct fixture *f = *state;
    struct snapshot_duplicate *list;
    struct snapshot_id *ids;
    struct hash128 hash = snapshot_hash(f->s, span_str("a@x"));
    struct err e;
    size_t n;

    TAKE(f, true, "7:a@x 1:a@x 2:b@x 3:a@x 3:carl@x 8:x500:/o=x 9:x500:/o=x", "");
    assert_int_equal(snapshot_duplicates(f->p, 10, &list, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(&list[0].address, &hash, sizeof hash);
    assert_int_equal(list[0].objects[0].octets[0], 1);
    assert_int_equal(list[0].objects[1].octets[0], 3);
    free(list);
    assert_int_equal(snapshot_objects(f->p, &ids, &n, &e), 0);
    assert_int_equal(n, 6);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i].octets[0], expected[i]);
    free(ids);
}

static void
test_parts_are_apart(void **state)
{
    static const char *const names[] = {""};
    struct fixture *f = *state;
    struct snapshot_part *first = f->p, *other;
    struct dir_verdict v;
    unsigned epoch = f->epoch;
    struct err e;

    TAKE(f, true, "1:a@x", "");
    other = attach(f, "other", FINGERPRINT);
    assert_non_null(other);
    f->p = other;
    TAKE(f, true, "1:b@x", "");
    assert_there(f, "b@x");
    TAKE(f, true, "", "");
    assert_there(f, "");
    f->p = first;
    f->epoch = epoch;
    assert_there(f, "a@x");
    /* One that nobody names any longer goes with the next start. */
    stop(f);
    f->s = snapshot_open(f->dir, &e);
    assert_int_equal(snapshot_retain(f->s, names, 1, &e), 0);
    f->r = snapshot_reader_new(f->s);
    f->p = attach(f, "other", FINGERPRINT);
    assert_int_equal(snapshot_find(f->r, f->p, span_str("b@x"), &v), SNAPSHOT_UNKNOWN);
    f->p = attach(f, "", FINGERPRINT);
    assert_there(f, "a@x");
}

static void
test_other_settings_begin_anew(void **state)
{
    struct fixture *f = *state;
    struct dir_verdict v;
    unsigned before = f->epoch;
    struct err e;

    TAKE(f, true, "1:a@x", "");
    f->p = attach(f, "", FINGERPRINT);
    assert_there(f, "a@x");
    assert_int_not_equal(before, f->epoch);
    f->epoch = before; /* the former writer is still at it */
    assert_int_equal(take(f, true, "1:b@x", "", 100, 1000), SNAPSHOT_FAILED);
    assert_there(f, "a@x");
    assert_int_equal(snapshot_attach(f->p, before, (struct hash128){3, 4}, &e), -1);
    assert_there(f, "a@x");
    f->p = attach(f, "", (struct hash128){3, 4});
    assert_int_equal(snapshot_find(f->r, f->p, span_str("a@x"), &v), SNAPSHOT_UNKNOWN);
    TAKE(f, true, "1:b@x", "");
    assert_there(f, "b@x");
}

static void
test_files_are_for_nobody_else(void **state)
{
    static const char *const names[] = {"recipients.mdb", "recipients.key"};
    struct fixture *f = *state;

    for (size_t i = 0; i < 2; i++) {
        char path[128];
        struct stat status;

        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
    }
}

/* No octet of an address, and no other one's key reads it. */
static void
test_the_file_lists_nobody(void **state)
{
    struct fixture *f = *state;
    static char octets[1 << 20];
    char path[128];
    FILE *in;
    size_t n;

    TAKE(f, true, "1:anna@x", "");
    in = fopen(f->file, "rb");
    n = fread(octets, 1, sizeof octets, in);
    fclose(in);
    assert_true(n > 4096);
    assert_null(memmem(octets, n, "anna", 4));
    assert_null(memmem(octets, n, "@x", 3));
    stop(f);
    snprintf(path, sizeof path, "%s/recipients.key", f->dir);
    unlink(path);
    start(f);
    assert_false(snapshot_age(f->p).is_there);
}

static void
overwrite(struct fixture *f, long from, long n, int octet)
{
    FILE *file = fopen(f->file, "r+b");

    assert_non_null(file);
    fseek(file, from, SEEK_SET);
    while (n-- > 0)
        fputc(octet, file);
    fclose(file);
}

static void
fill(struct fixture *f)
{
    static struct snapshot_row rows[20000];
    struct snapshot_look look = {
        .is_full = true, .rows = rows, .n_rows = 20000, .max_loss = 100, .mark = {.full_s = 1}};
    struct snapshot_result r;
    struct err e;

    for (unsigned i = 0; i < 20000; i++) {
        char address[32];

        snprintf(address, sizeof address, "%u@x", i);
        rows[i] = (struct snapshot_row){.address = snapshot_hash(f->s, span_str(address)),
                                        .object = id_of(i)};
    }
    assert_int_equal(snapshot_take(f->p, f->epoch, &look, &r, &e), SNAPSHOT_TAKEN);
    assert_int_equal(r.learned, 20000);
}

static void
test_damage_is_set_aside(void **state)
{
    enum { TRUNCATE = -1 };
    static const struct {
        long from, n;
        int octet;
    } cases[] = {
        {0, 8192, 'x'},           {0, 20 * 4096, 0},         {8192, 1 << 20, 0},
        {100 * 4096, 8192, 0xff}, {TRUNCATE, 100 * 4096, 0}, {TRUNCATE, 10000, 0},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[128];

        fill(f);
        stop(f);
        if (cases[i].from == TRUNCATE)
            assert_int_equal(truncate(f->file, cases[i].n), 0);
        else
            overwrite(f, cases[i].from, cases[i].n, cases[i].octet);
        start(f);
        assert_false(snapshot_age(f->p).is_there);
        snprintf(path, sizeof path, "%s.damaged", f->file);
        assert_int_equal(unlink(path), 0);
        TAKE(f, true, "1:a@x", "");
        assert_there(f, "a@x");
    }
}

/* The map is grown under a reader, several times over. */
static void
test_room_is_made(void **state)
{
    enum { N = 220000 };
    struct fixture *f = *state;
    struct snapshot_row *rows = calloc(N, sizeof *rows);
    struct snapshot_look look = {
        .is_full = true, .rows = rows, .n_rows = N, .max_loss = 100, .mark = {.full_s = 1}};
    struct snapshot_result r;
    struct dir_verdict v;
    struct err e;
    struct stat status;

    TAKE(f, true, "1:a@x", "");
    assert_there(f, "a@x");
    for (unsigned i = 0; i < N; i++) {
        char address[32];

        snprintf(address, sizeof address, "%u@x", i);
        rows[i] = (struct snapshot_row){.address = snapshot_hash(f->s, span_str(address)),
                                        .object = id_of(i)};
    }
    /* Twice the same from nothing, so that the pages of the first are free but not yet so to use:
     * more than the map has at first. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(snapshot_take(f->p, f->epoch, &look, &r, &e), SNAPSHOT_TAKEN);
        assert_int_equal(snapshot_find(f->r, f->p, span_str("219999@x"), &v), SNAPSHOT_HAS);
        assert_int_equal(snapshot_find(f->r, f->p, span_str("220000@x"), &v), SNAPSHOT_LACKS);
        if (i == 0) {
            assert_int_equal(stat(f->file, &status), 0);
            assert_true(status.st_size / N < 64);
        }
        if (i == 0)
            TAKE(f, true, "", "");
    }
    assert_int_equal(stat(f->file, &status), 0);
    assert_true(status.st_size > 16 << 20);
    free(rows);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_known_before_the_first_look, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_looks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_seen_outlives_the_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_much_loss_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tombstones, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readers_beside_a_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_imcea, setup, teardown),
        cmocka_unit_test_setup_teardown(test_duplicates_and_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parts_are_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_settings_begin_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files_are_for_nobody_else, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_file_lists_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_set_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room_is_made, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* micro WHAT ARGUMENT...: what a part of Postern costs by itself, as one line of JSON on stdout.
 *
 *   snapshot DIR N        a snapshot of N addresses: octets each on disk, look-ups
 *   cache N               N answers in the directory's cache: look-ups
 *   ledger N              N client networks with an unknown recipient each, then N others
 *   live CONF N AT_ONCE   N unknown addresses asked of CONF's directory, so many at a time
 *   look CONF             CONF's directory, a snapshot, until its first look is taken
 *   log SOCKET N          N lines to a syslog socket, which this makes */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "conf/faults.h"
#include "conf/settings.h"
#include "ldap/dir_cache.h"
#include "ldap/directory.h"
#include "ldap/snapshot.h"
#include "policy/ledger.h"

#define PROBES  1000000u
#define LIMIT_S 300 /* then it has failed */

static _Noreturn void
die(const char *what)
{
    fprintf(stderr, "micro: %s: %s\n", what, strerror(errno));
    exit(2);
}

static _Noreturn void
die_of(const struct err *e)
{
    fprintf(stderr, "micro: %s\n", e->text);
    exit(2);
}

/* User and system time of this process. */
static double
cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double
resident_mib(void)
{
    char line[256];
    double pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *second = strchr(line, ' ');
        pages = second != NULL ? strtod(second, NULL) : 0;
    }
    if (f != NULL)
        fclose(f);
    return pages * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

static struct span
address(char text[64], const char *name, unsigned i)
{
    int n = snprintf(text, 64, "%s%u@example.test", name, i);

    return span_of(text, (size_t)n);
}

/* Numbers below N, each as likely, in an order that no cache foresees. */
static unsigned
next_random(uint64_t *state, unsigned n)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((*state >> 32) * n >> 32);
}

/* --- snapshot --- */

static void
fill(struct snapshot *s, struct snapshot_part *part, unsigned epoch, unsigned n)
{
    struct snapshot_row *rows = calloc(n, sizeof *rows);
    struct snapshot_result result;
    struct err e = {.kind = ERR_NONE};
    char text[64];

    if (rows == NULL)
        die("memory");
    for (unsigned i = 0; i < n; i++) {
        rows[i].address = snapshot_hash(s, address(text, "user", i));
        memcpy(rows[i].object.octets, &i, sizeof i);
    }
    struct snapshot_look look = {.is_full = true,
                                 .rows = rows,
                                 .n_rows = n,
                                 .began_ms = clock_ms(),
                                 .mark = {.full_s = clock_wall_s(), .look_s = clock_wall_s()},
                                 .max_loss = 100};
    if (snapshot_take(part, epoch, &look, &result, &e) != SNAPSHOT_TAKEN)
        die_of(&e);
    free(rows);
}

/* Nanoseconds a look-up of one of N names. */
static double
find_ns(struct snapshot_reader *r, struct snapshot_part *part, const char *name, unsigned n,
        enum snapshot_found expected)
{
    uint64_t state = 1;
    char text[64];
    struct dir_verdict v;
    double made, start = cpu_s();

    for (unsigned i = 0; i < PROBES; i++)
        (void)address(text, name, next_random(&state, n));
    made = cpu_s() - start;
    state = 1;
    start = cpu_s();
    for (unsigned i = 0; i < PROBES; i++) {
        if (snapshot_find(r, part, address(text, name, next_random(&state, n)), &v) != expected)
            die("a look-up went wrong");
    }
    return (cpu_s() - start - made) * 1e9 / PROBES;
}

static void
snapshot(const char *dir, unsigned n)
{
    struct err e = {.kind = ERR_NONE};
    struct snapshot *s = snapshot_open(dir, &e);
    unsigned epoch;
    char path[4096];
    struct stat status;

    if (s == NULL)
        die_of(&e);
    struct snapshot_part *part = snapshot_claim(s, "", &epoch);
    if (part == NULL || snapshot_attach(part, epoch, (struct hash128){.lo = 1, .hi = 2}, &e) != 0)
        die_of(&e);
    double start = cpu_s();
    fill(s, part, epoch, n);
    double take_s = cpu_s() - start;
    struct snapshot_reader *r = snapshot_reader_new(s);
    if (r == NULL)
        die("memory");
    double known_ns = find_ns(r, part, "user", n, SNAPSHOT_HAS);
    double unknown_ns = find_ns(r, part, "nobody", n, SNAPSHOT_LACKS);
    snprintf(path, sizeof path, "%s/recipients.mdb", dir);
    if (stat(path, &status) != 0)
        die(path);
    printf("{\"known_ns\": %.0f, \"unknown_ns\": %.0f, \"octets\": %.1f, \"take_s\": %.2f}\n",
           known_ns, unknown_ns, (double)status.st_blocks * 512 / n, take_s);
    snapshot_reader_free(&r);
    snapshot_close(&s);
}

/* --- cache --- */

static void
cache(unsigned n)
{
    const struct dir_cache_limits limits = {
        .entries = 2 * (size_t)n, .positive_ms = 3600000, .negative_ms = 300000};
    struct dir_cache *c = dir_cache_new(&limits);
    struct dir_verdict v = {.status = DIR_FOUND};
    int64_t now_ms = clock_ms(), age_ms;
    uint64_t state = 1;
    char text[64];

    if (c == NULL)
        die("memory");
    for (unsigned i = 0; i < n; i++)
        dir_cache_put(c, address(text, "user", i), now_ms, &v);
    double start = cpu_s();
    for (unsigned i = 0; i < PROBES; i++)
        (void)address(text, "user", next_random(&state, n));
    double made = cpu_s() - start;
    start = cpu_s();
    for (unsigned i = 0; i < PROBES; i++) {
        if (dir_cache_get(c, address(text, "user", next_random(&state, n)), now_ms, &v, &age_ms) !=
            DIR_CACHE_FRESH)
            die("a look-up went wrong");
    }
    printf("{\"known_ns\": %.0f}\n", (cpu_s() - start - made) * 1e9 / PROBES);
    dir_cache_unref(&c);
}

/* --- ledger --- */

/* Count one unknown recipient for each of N networks from number FIRST on. */
static double
count_ns(struct ledger *l, unsigned first, unsigned n)
{
    const struct ledger_now now = {.s = 1000, .window_s = 3600};
    double start = cpu_s();

    for (unsigned i = first; i < first + n; i++) {
        struct network network = {.base = {.family = 4}, .prefix = 32};
        /* Mixed, so that neighbours in number are none in the table. */
        uint32_t octets = i * 2654435761u;
        memcpy(network.base.octets, &octets, sizeof octets);
        struct ledger_entry *e = ledger_open(l, &network, true, now);
        ledger_note(l, e, &e->unknown[0], i, now);
        ledger_close(l, e);
    }
    return (cpu_s() - start) * 1e9 / n;
}

static void
ledger(unsigned n)
{
    struct siphash_key key = siphash_key_random();
    double before = resident_mib();
    struct ledger *l = ledger_new(&key, LEDGER_CAPACITY);

    if (l == NULL)
        die("memory");
    double fresh_ns = count_ns(l, 0, n), mib = resident_mib() - before;
    double again_ns = count_ns(l, 0, n);
    double other_ns = count_ns(l, n, n), other_mib = resident_mib() - before;
    printf("{\"new_ns\": %.0f, \"again_ns\": %.0f, \"full_ns\": %.0f, \"octets\": %.0f, "
           "\"mib\": %.0f, \"full_mib\": %.0f}\n",
           fresh_ns, again_ns, other_ns, mib * (1 << 20) / n, mib, other_mib);
    ledger_free(&l);
}

/* --- a directory's servers --- */

static struct settings *
load(const char *path)
{
    struct faults *f = faults_new();
    struct settings *st = f != NULL ? settings_load(path, f) : NULL;

    if (st == NULL) {
        faults_print(f, path, stderr);
        exit(2);
    }
    faults_free(&f);
    return st;
}

struct asking {
    struct directory_client *client;
    const struct settings_domain *domain;
    unsigned asked, answered, n, absent;
    int64_t *took_ns;
};

struct question {
    struct asking *asking;
    int64_t began_ns;
};

static void ask(struct asking *a, struct question *q);

static void
answered(struct question *q, const struct dir_answer *answer)
{
    struct asking *a = q->asking;

    a->took_ns[a->answered++] = clock_ns() - q->began_ns;
    a->absent += answer->status == DIR_ABSENT;
}

static void
on_answer(void *arg, const struct dir_answer *answer)
{
    struct question *q = arg;

    answered(q, answer);
    ask(q->asking, q);
}

static void
ask(struct asking *a, struct question *q)
{
    struct dir_answer answer;
    uint64_t ticket;
    char text[64];

    while (a->asked < a->n) {
        q->began_ns = clock_ns();
        if (directory_ask(a->client, a->domain, address(text, "nobody", a->asked++),
                          span_str("sender@example.org"), 0, clock_ms(), &answer, on_answer, q,
                          &ticket) == DIR_PENDING)
            return;
        answered(q, &answer);
    }
}

static int
compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void
run_dispatch(struct asking *a)
{
    int64_t end_ms = clock_ms() + LIMIT_S * 1000;

    while (a->answered < a->n) {
        struct pollfd p = {.fd = directory_client_fd(a->client), .events = POLLIN};
        if (clock_ms() > end_ms)
            die("not done in time");
        (void)poll(&p, 1, 100);
        directory_client_dispatch(a->client, clock_ms());
    }
}

static struct directories *
open_directories(struct settings *st)
{
    struct err e = {.kind = ERR_NONE};
    struct directories *d = directories_new(st, &e);

    if (d == NULL)
        die_of(&e);
    return d;
}

static void
live(const char *conf, unsigned n, unsigned at_once)
{
    struct settings *st = load(conf);
    struct directories *d = open_directories(st);
    struct asking a = {.client = directory_client_new(d), .domain = &st->domains[0], .n = 1};
    struct question *questions = calloc(at_once, sizeof *questions);

    a.took_ns = calloc(n + 1, sizeof *a.took_ns);
    if (a.client == NULL || questions == NULL || a.took_ns == NULL)
        die("memory");
    for (unsigned i = 0; i < at_once; i++)
        questions[i].asking = &a;
    /* The connections are made with the first question. */
    ask(&a, &questions[0]);
    run_dispatch(&a);
    a.n += n;
    int64_t start_ns = clock_ns();
    double start = cpu_s();
    for (unsigned i = 0; i < at_once; i++)
        ask(&a, &questions[i]);
    run_dispatch(&a);
    double took_s = (double)(clock_ns() - start_ns) / 1e9, cpu = cpu_s() - start;
    int64_t *took_ns = a.took_ns + 1; /* but that one */
    size_t middle = n / 2, high = (size_t)n * 99 / 100;
    qsort(took_ns, n, sizeof *took_ns, compare);
    printf("{\"absent\": %u, \"per_s\": %.0f, \"cpu_us\": %.2f, \"p50_us\": %.0f, \"p99_us\": "
           "%.0f}\n",
           a.absent - 1, n / took_s, cpu * 1e6 / n, (double)took_ns[middle] / 1e3,
           (double)took_ns[high] / 1e3);
    directory_client_free(&a.client);
    directories_free(&d);
    settings_unref(st);
    free(questions);
    free(a.took_ns);
}

static void
look(const char *conf)
{
    struct settings *st = load(conf);
    int64_t start_ns = clock_ns();
    struct directories *d = open_directories(st);
    struct dir_view view;

    while (directories_view(d, 0, &view) && view.snapshot_full_age_s < 0) {
        if (clock_ns() - start_ns > (int64_t)LIMIT_S * 1000000000)
            die("not done in time");
        (void)poll(NULL, 0, 10);
    }
    printf("{\"entries\": %llu, \"seconds\": %.2f, \"cpu_s\": %.2f}\n",
           (unsigned long long)view.entries, (double)(clock_ns() - start_ns) / 1e9, cpu_s());
    directories_free(&d);
    settings_unref(st);
}

/* --- log --- */

struct reader {
    int fd;
    unsigned n;
    _Atomic unsigned read;
    int64_t end_ns;
};

static void *
read_lines(void *arg)
{
    struct reader *r = arg;
    char line[8192];

    while (r->read < r->n && recv(r->fd, line, sizeof line, 0) > 0)
        r->read++;
    r->end_ns = clock_ns();
    return NULL;
}

static void
log_lines(const char *path, unsigned n)
{
    char target[256];
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct reader r = {.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), .n = n};
    struct log_options options = {.target = target,
                                  .facility = LOG_MAIL,
                                  .level = LOG_LEVEL_INFO,
                                  .tag = "postern",
                                  .hostname = "mx.example.test"};
    struct err e = {.kind = ERR_NONE};
    pthread_t thread;

    snprintf(target, sizeof target, "unix:%s", path);
    if (r.fd < 0 || !span_copy(sa.sun_path, sizeof sa.sun_path, span_str(path)) ||
        bind(r.fd, (const struct sockaddr *)&sa, sizeof sa) != 0 ||
        pthread_create(&thread, NULL, read_lines, &r) != 0)
        die(path);
    if (log_open(&options, &e) != 0)
        die_of(&e);
    int64_t start_ns = clock_ns();
    for (unsigned i = 0; i < n; i++) {
        log_event(LOG_LEVEL_INFO, "rcpt", "session", "0123456789ABCD", "client", "192.0.2.7",
                  "helo", "mail.example.org", "from", "sender@example.org", "to",
                  "nobody@example.com", "verdict", "reject", "status", "5.1.1", "reason", "unknown",
                  "source", "ldap", "delay", "0.000", NULL);
        /* The queue holds some ten thousand. */
        while (i + 1 - r.read > 5000)
            (void)poll(NULL, 0, 1);
    }
    log_close();
    shutdown(r.fd, SHUT_RD);
    pthread_join(thread, NULL);
    double took_s = (double)(r.end_ns - start_ns) / 1e9;
    printf("{\"per_s\": %.0f, \"dropped\": %llu}\n", n / took_s, (unsigned long long)log_dropped());
    close(r.fd);
}

static unsigned
number(const char *text)
{
    uint64_t value;

    if (!span_u64(span_str(text), 100000000, &value))
        die(text);
    return (unsigned)value;
}

int
main(int argc, char **argv)
{
    struct span what = span_str(argc > 1 ? argv[1] : "");

    log_set_level(LOG_LEVEL_WARNING);
    if (span_is(what, "snapshot") && argc == 4)
        snapshot(argv[2], number(argv[3]));
    else if (span_is(what, "cache") && argc == 3)
        cache(number(argv[2]));
    else if (span_is(what, "ledger") && argc == 3)
        ledger(number(argv[2]));
    else if (span_is(what, "live") && argc == 5)
        live(argv[2], number(argv[3]), number(argv[4]));
    else if (span_is(what, "look") && argc == 3)
        look(argv[2]);
    else if (span_is(what, "log") && argc == 4)
        log_lines(argv[2], number(argv[3]));
    else {
        fputs("usage: micro snapshot|cache|ledger|live|look|log ARGUMENT...\n", stderr);
        return 2;
    }
    return 0;
}

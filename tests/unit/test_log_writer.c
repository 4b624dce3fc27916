#define _GNU_SOURCE

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/log_target.h"

#define LENGTH(a)   (sizeof(a) / sizeof((a)[0]))
#define PATIENCE_MS 60000 /* for what must come; no test is the faster for it */
#define DATE        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{6}[+-][0-9]{2}:[0-9]{2}"

static void
assert_matches(const char *text, const char *pattern)
{
    regex_t r;

    assert_int_equal(regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&r, text, 0, NULL, 0) != 0)
        fail_msg("%s does not match %s", text, pattern);
    regfree(&r);
}

static void
open_log(const char *target)
{
    struct log_options options = {target, LOG_MAIL, LOG_LEVEL_INFO, "postern", "mx.example.com"};
    struct err e = {0};

    if (log_open(&options, &e) != 0)
        fail_msg("%s: %s", target, e.text);
}

static int
reopen_log(const char *target, enum log_level level)
{
    struct log_options options = {target, LOG_LOCAL3, level, "other", "mx.example.com"};
    struct err e = {0};

    return log_reopen(&options, &e);
}

static void
log_number(unsigned number)
{
    struct log_line l;

    log_begin(&l, LOG_LEVEL_INFO, "n");
    log_int(&l, "i", number);
    log_end(&l);
}

/* --- stderr --- */

struct capture {
    int saved, fd;
};

static struct capture
capture_stderr(int fd)
{
    struct capture c = {dup(STDERR_FILENO), fd};

    assert_true(c.saved >= 0 && fd >= 0);
    dup2(fd, STDERR_FILENO);
    return c;
}

static void
release_stderr(struct capture *c)
{
    dup2(c->saved, STDERR_FILENO);
    close(c->saved);
    close(c->fd);
}

static FILE *
file_to_read(int fd)
{
    FILE *f = fdopen(dup(fd), "r");

    assert_non_null(f);
    rewind(f);
    return f;
}

static void
test_without_writer(void **state)
{
    struct capture c = capture_stderr(memfd_create("log", 0));
    char line[256];
    FILE *f;

    (void)state;
    log_event(LOG_LEVEL_ERROR, "config", "state", "rejected", "error", "no such file", NULL);
    log_event(LOG_LEVEL_DEBUG, "unwanted", NULL);
    f = file_to_read(c.fd);
    release_stderr(&c);
    assert_non_null(fgets(line, sizeof line, f));
    assert_matches(line, "^" DATE " event=config state=rejected error=\"no such file\"\n$");
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
}

struct writer {
    pthread_t thread;
    unsigned number, lines;
};

static void *
log_many(void *argument)
{
    struct writer *w = argument;

    for (unsigned i = 0; i < w->lines; i++) {
        struct log_line l;

        log_begin(&l, LOG_LEVEL_INFO, "n");
        log_int(&l, "by", w->number);
        log_int(&l, "i", i);
        log_end(&l);
    }
    return NULL;
}

/* All threads' lines are there, whole, and each thread's in order. */
static void
test_threads(void **state)
{
    struct capture c = capture_stderr(memfd_create("log", 0));
    struct writer writers[4];
    unsigned next[4] = {0};
    char line[256];
    FILE *f;

    (void)state;
    open_log("stderr");
    for (unsigned i = 0; i < 4; i++) {
        writers[i] = (struct writer){.number = i, .lines = 2000};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, log_many, &writers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(writers[i].thread, NULL);
    log_close();
    f = file_to_read(c.fd);
    release_stderr(&c);
    while (fgets(line, sizeof line, f)) {
        const char *text = strchr(line, ' ');
        unsigned by, i;
        char end;

        assert_non_null(text);
        assert_int_equal(sscanf(text, " event=n by=%u i=%u%c", &by, &i, &end), 3);
        assert_true(by < 4 && end == '\n');
        assert_int_equal(i, next[by]++);
    }
    fclose(f);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(next[i], 2000);
    assert_int_equal(log_dropped(), 0);
}

/* Lines until the queue is full; returns how many. */
static unsigned
log_until_dropped(void)
{
    uint64_t before = log_dropped();
    unsigned n = 0;

    while (log_dropped() < before + 100)
        log_number(n++);
    return n;
}

/* What comes out of a pipe for LOGGED lines, kept or dropped. */
struct reader {
    pthread_t thread;
    FILE *in;
    unsigned logged, lines, dropped, strange;
    sem_t done; /* all are there, or said to be dropped */
};

static void *
read_pipe(void *argument)
{
    struct reader *r = argument;
    unsigned i, told, last = 0;
    char line[256];

    while (fgets(line, sizeof line, r->in)) {
        const char *text = strchr(line, ' ');

        if (text && sscanf(text, " event=log dropped=%u", &told) == 1) {
            r->dropped += told;
        } else if (text && sscanf(text, " event=n i=%u", &i) == 1 && (r->lines == 0 || i > last)) {
            last = i;
            r->lines++;
        } else {
            r->strange++;
        }
        if (r->lines + r->dropped == r->logged)
            sem_post(&r->done);
    }
    return NULL;
}

/* A full pipe loses lines, but counts them and says so, and what was kept comes in order. */
static void
test_full_pipe(void **state)
{
    int fds[2];
    struct capture c;
    struct reader r = {0};

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(sem_init(&r.done, 0, 0), 0);
    r.in = fdopen(fds[0], "r");
    c = capture_stderr(fds[1]);
    open_log("stderr");
    r.logged = log_until_dropped();
    assert_int_equal(pthread_create(&r.thread, NULL, read_pipe, &r), 0);
    while (sem_wait(&r.done) != 0)
        ;
    log_close();
    release_stderr(&c);
    pthread_join(r.thread, NULL);
    fclose(r.in);
    sem_destroy(&r.done);
    assert_int_equal(r.strange, 0);
    assert_int_equal(r.lines + r.dropped, r.logged);
    assert_int_equal(r.dropped, log_dropped());
    assert_true(r.dropped >= 100);
}

/* A disk that is full in the middle of a line: once there is room again, the rest follows. */
static void
test_no_room(void **state)
{
    struct capture c = capture_stderr(memfd_create("log", 0));
    struct rlimit before, little;
    unsigned n = 0, i;
    struct stat st;
    char line[256];
    FILE *f;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = before;
    little.rlim_cur = 1000;
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    open_log("stderr");
    for (i = 0; i < 100; i++)
        log_number(i);
    do {
        sched_yield();
        assert_int_equal(fstat(c.fd, &st), 0);
    } while (st.st_size < 1000);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    log_close();
    f = file_to_read(c.fd);
    release_stderr(&c);
    while (fgets(line, sizeof line, f)) {
        assert_matches(line, "^" DATE " event=n i=[0-9]+\n$");
        assert_int_equal(sscanf(strchr(line, ' '), " event=n i=%u", &i), 1);
        assert_int_equal(i, n++);
    }
    fclose(f);
    assert_int_equal(n, 100);
}

/* Nobody will ever read: log_close comes back, and what is logged then hangs nobody. */
static void
test_nobody_reads(void **state)
{
    int fds[2], status;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    child = fork();
    if (child == 0) {
        uint64_t before;

        dup2(fds[1], STDERR_FILENO);
        open_log("stderr");
        log_until_dropped();
        log_close();
        before = log_dropped();
        log_until_dropped();
        _exit(log_dropped() == before + 100 ? 7 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    close(fds[0]);
    close(fds[1]);
}

/* --- sockets --- */

struct peer {
    char directory[64], path[80], target[120];
    int fd;
};

static void
peer_path(struct peer *p)
{
    snprintf(p->directory, sizeof p->directory, "/tmp/postern-log-XXXXXX");
    assert_non_null(mkdtemp(p->directory));
    snprintf(p->path, sizeof p->path, "%s/log", p->directory);
    snprintf(p->target, sizeof p->target, "unix:%s", p->path);
}

static void
peer_unix(struct peer *p, int type)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    p->fd = socket(AF_UNIX, type, 0);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", p->path);
    assert_int_equal(bind(p->fd, (struct sockaddr *)&un, sizeof un), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(p->fd, 5), 0);
}

static void
peer_remove(struct peer *p)
{
    close(p->fd);
    unlink(p->path);
    rmdir(p->directory);
}

/* PORT 0: any.  Returns the port. */
static uint16_t
peer_inet(struct peer *p, int type, uint16_t port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t n = sizeof sin;

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->fd = socket(AF_INET, type, 0);
    setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    assert_int_equal(bind(p->fd, (struct sockaddr *)&sin, sizeof sin), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(p->fd, 5), 0);
    assert_int_equal(getsockname(p->fd, (struct sockaddr *)&sin, &n), 0);
    snprintf(p->target, sizeof p->target, "%s:127.0.0.1:%u", type == SOCK_STREAM ? "tcp" : "udp",
             (unsigned)ntohs(sin.sin_port));
    return ntohs(sin.sin_port);
}

static void
wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

static void
receive_datagram(int fd, char *out, size_t capacity)
{
    ssize_t n;

    wait_readable(fd);
    n = recv(fd, out, capacity - 1, 0);
    assert_true(n > 0);
    out[n] = '\0';
}

static FILE *
accept_stream(int fd)
{
    FILE *f;

    wait_readable(fd);
    f = fdopen(accept(fd, NULL, NULL), "r");
    assert_non_null(f);
    return f;
}

/* One frame of RFC 6587 3.4.1. */
static void
receive_frame(FILE *f, char *out, size_t capacity)
{
    size_t n;

    assert_int_equal(fscanf(f, "%zu", &n), 1);
    assert_int_equal(getc(f), ' ');
    assert_true(n > 0 && n < capacity);
    assert_int_equal(fread(out, 1, n, f), n);
    out[n] = '\0';
}

#define HEADER "^<22>1 " DATE " mx\\.example\\.com postern [0-9]+ - - "

static void
test_datagrams(void **state)
{
    struct peer unix_peer, udp_peer;
    struct peer *peers[] = {&unix_peer, &udp_peer};
    char text[8192];

    (void)state;
    peer_path(&unix_peer);
    peer_unix(&unix_peer, SOCK_DGRAM);
    peer_inet(&udp_peer, SOCK_DGRAM, 0);
    for (size_t i = 0; i < LENGTH(peers); i++) {
        char value[LOG_LINE_MAX];
        struct log_line l;

        open_log(peers[i]->target);
        memset(value, 'x', sizeof value);
        log_begin(&l, LOG_LEVEL_INFO, "n");
        while (!l.full || l.n < sizeof l.text - 10)
            log_span(&l, "k", span_of(value, l.full ? sizeof l.text - 5 - l.n : 1000));
        log_end(&l);
        log_event(LOG_LEVEL_INFO, "rcpt", "helo", "a b", NULL);
        receive_datagram(peers[i]->fd, text, sizeof text);
        assert_true(strlen(text) > l.n);
        assert_memory_equal(text + strlen(text) - l.n, l.text, l.n);
        receive_datagram(peers[i]->fd, text, sizeof text);
        assert_matches(text, HEADER "event=rcpt helo=\"a b\"$");
        log_close();
    }
    peer_remove(&unix_peer);
    close(udp_peer.fd);
}

static void
test_severities(void **state)
{
    static const int severity[] = {LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG};
    struct peer p;
    char text[8192], start[16];

    (void)state;
    peer_path(&p);
    peer_unix(&p, SOCK_DGRAM);
    open_log(p.target);
    log_set_level(LOG_LEVEL_DEBUG);
    for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
        log_event((enum log_level)level, "e", NULL);
        receive_datagram(p.fd, text, sizeof text);
        snprintf(start, sizeof start, "<%d>1 ", LOG_MAIL | severity[level]);
        assert_memory_equal(text, start, strlen(start));
    }
    log_close();
    peer_remove(&p);
    log_set_level(LOG_LEVEL_INFO);
}

static void
test_unix_stream(void **state)
{
    struct peer p;
    char line[512];
    FILE *f;

    (void)state;
    peer_path(&p);
    peer_unix(&p, SOCK_STREAM);
    open_log(p.target);
    log_number(1);
    log_number(2);
    f = accept_stream(p.fd);
    assert_non_null(fgets(line, sizeof line, f));
    assert_matches(line, HEADER "event=n i=1\n$");
    assert_non_null(fgets(line, sizeof line, f));
    assert_matches(line, HEADER "event=n i=2\n$");
    log_close();
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
    peer_remove(&p);
}

/* The daemon goes and comes: what is logged meanwhile waits for it. */
static void
test_tcp_again(void **state)
{
    struct peer p;
    uint16_t port = peer_inet(&p, SOCK_STREAM, 0);
    char text[512];
    FILE *f;

    (void)state;
    open_log(p.target);
    log_number(1);
    log_number(2);
    f = accept_stream(p.fd);
    receive_frame(f, text, sizeof text);
    assert_matches(text, HEADER "event=n i=1$");
    receive_frame(f, text, sizeof text);
    assert_matches(text, HEADER "event=n i=2$");

    /* The connection ends; a line after that finds another. */
    fclose(f);
    log_number(3);
    f = accept_stream(p.fd);
    receive_frame(f, text, sizeof text);
    assert_matches(text, HEADER "event=n i=3$");

    /* The daemon is away, listener and all. */
    close(p.fd);
    fclose(f);
    log_number(4);
    log_number(5);
    peer_inet(&p, SOCK_STREAM, port);
    f = accept_stream(p.fd);
    receive_frame(f, text, sizeof text);
    assert_matches(text, HEADER "event=n i=4$");
    receive_frame(f, text, sizeof text);
    assert_matches(text, HEADER "event=n i=5$");
    log_close();
    fclose(f);
    close(p.fd);
}

static void
expect_numbers(int fd, const char *tag, unsigned from, unsigned to)
{
    char text[512], pattern[128];

    for (unsigned i = from; i < to; i++) {
        receive_datagram(fd, text, sizeof text);
        snprintf(pattern, sizeof pattern, " mx\\.example\\.com %s [0-9]+ - - event=n i=%u$", tag,
                 i);
        assert_matches(text, pattern);
    }
}

static void
assert_nothing(int fd)
{
    char octet;

    assert_int_equal(recv(fd, &octet, 1, MSG_DONTWAIT), -1);
}

static void
test_reopen(void **state)
{
    struct peer a, b;

    (void)state;
    peer_inet(&a, SOCK_DGRAM, 0);
    peer_inet(&b, SOCK_DGRAM, 0);
    assert_int_equal(reopen_log(a.target, LOG_LEVEL_INFO), -1); /* there is no writer */
    open_log(a.target);
    for (unsigned i = 0; i < 50; i++)
        log_number(i);
    assert_int_equal(reopen_log("unix:", LOG_LEVEL_ERROR), -1);
    assert_int_equal(log_get_level(), LOG_LEVEL_INFO);
    assert_int_equal(reopen_log(b.target, LOG_LEVEL_NOTICE), 0);
    assert_int_equal(log_get_level(), LOG_LEVEL_NOTICE);
    log_number(0); /* not wanted any more */
    log_set_level(LOG_LEVEL_INFO);
    for (unsigned i = 50; i < 100; i++)
        log_number(i);
    log_close();
    expect_numbers(a.fd, "postern", 0, 50);
    expect_numbers(b.fd, "other", 50, 100);
    assert_nothing(a.fd);
    assert_nothing(b.fd);
    close(a.fd);
    close(b.fd);
}

/* What stderr still keeps is written there, and no line from behind the change. */
static void
test_reopen_from_stderr(void **state)
{
    struct capture c = capture_stderr(memfd_create("log", 0));
    struct peer b;
    char line[256];
    unsigned n = 0;

    (void)state;
    peer_inet(&b, SOCK_DGRAM, 0);
    open_log("stderr");
    for (unsigned i = 0; i < 50; i++)
        log_number(i);
    assert_int_equal(reopen_log(b.target, LOG_LEVEL_INFO), 0);
    for (unsigned i = 50; i < 100; i++)
        log_number(i);
    log_close();
    FILE *f = file_to_read(c.fd);
    release_stderr(&c);
    while (fgets(line, sizeof line, f) != NULL)
        n++;
    fclose(f);
    assert_int_equal(n, 50);
    expect_numbers(b.fd, "other", 50, 100);
    close(b.fd);
}

/* A target that never answers is left for the new one, and its lines go there too. */
static void
test_reopen_from_dead(void **state)
{
    struct peer dead, b;

    (void)state;
    peer_path(&dead); /* nobody listens there */
    peer_inet(&b, SOCK_DGRAM, 0);
    open_log(dead.target);
    for (unsigned i = 0; i < 50; i++)
        log_number(i);
    assert_int_equal(reopen_log(b.target, LOG_LEVEL_INFO), 0);
    expect_numbers(b.fd, "other", 0, 50);
    log_close();
    close(b.fd);
    rmdir(dead.directory);
}

static void
test_close_while_away(void **state)
{
    struct peer dead;
    struct err e = {0};
    struct log_options options = {"stderr", LOG_MAIL, LOG_LEVEL_INFO, "postern", "mx"};

    (void)state;
    peer_path(&dead);
    open_log(dead.target);
    assert_int_equal(log_open(&options, &e), -1); /* one writer at a time */
    log_number(1);
    log_close();
    rmdir(dead.directory);
    while (log_open(&options, &e) != 0) /* until the old writer's thread has ended */
        sched_yield();
    log_close();
    log_close();
}

static void
test_targets(void **state)
{
    static const struct {
        const char *text;
        bool ok;
    } cases[] = {
        {"syslog", true},
        {"stderr", true},
        {"unix:/dev/log", true},
        {"udp:localhost:514", true},
        {"tcp:192.0.2.1:1", true},
        {"tcp:[2001:db8::1]:65535", true},
        {"", false},
        {NULL, false},
        {"stdout", false},
        {"Syslog", false},
        {"syslog:", false},
        {"stderr:x", false},
        {"unix", false},
        {"unix:", false},
        {"udp", false},
        {"udp:", false},
        {"udp:host", false},
        {"udp::514", false},
        {"tcp:host:0", false},
        {"tcp:host:65536", false},
        {"tcp:host:", false},
        {"tcp:host:smtp", false},
        {"tcp:::1:514", false},
        {"tcp:[::1]", false},
        {"tcp:[]:514", false},
        {"tls:host:514", false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct log_options options = {.target = cases[i].text};
        struct err e = {0};
        struct log_target *t = log_target_new(&options, &e);

        if ((t != NULL) != cases[i].ok)
            fail_msg("%s", cases[i].text);
        assert_int_equal(e.kind, cases[i].ok ? ERR_NONE : ERR_CONFIG);
        log_target_free(&t);
        assert_null(t);
    }
}

/* What is no field of RFC 5424 is made one. */
static void
test_odd_tag(void **state)
{
    struct peer p;
    struct log_options options = {NULL, LOG_MAIL, LOG_LEVEL_INFO, "my tag\n", ""};
    struct err e;
    char text[512];

    (void)state;
    peer_inet(&p, SOCK_DGRAM, 0);
    options.target = p.target;
    assert_int_equal(log_open(&options, &e), 0);
    log_number(1);
    receive_datagram(p.fd, text, sizeof text);
    assert_matches(text, "^<22>1 " DATE " - my_tag_ [0-9]+ - - event=n i=1$");
    log_close();
    close(p.fd);
}

/* --- syslog, against a daemon of our own in a /dev of our own --- */

enum { CHILD_OK = 7, CHILD_SKIP = 8 };

static bool
own_dev(void)
{
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("log", "/dev", "tmpfs", 0, NULL) == 0;
}

static int
dev_log(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    return bind(fd, (struct sockaddr *)&un, sizeof un) == 0 ? fd : -1;
}

/* Does what comes from FD within PATIENCE_MS match? */
static bool
comes(int fd, const char *pattern)
{
    char text[8192];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    regex_t r;
    ssize_t n;

    if (poll(&p, 1, PATIENCE_MS) != 1 || (n = read(fd, text, sizeof text - 1)) <= 0)
        return false;
    text[n] = '\0';
    if (regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        return false;
    bool is_match = regexec(&r, text, 0, NULL, 0) == 0;
    regfree(&r);
    return is_match;
}

#define LOCAL_DATE "[A-Z][a-z]{2} [ 123][0-9] [0-9:]{8}"

static int
syslog_child(void)
{
    if (!own_dev())
        return CHILD_SKIP;
    int fd = dev_log();
    open_log("syslog");
    log_event(LOG_LEVEL_WARNING, "rcpt", "helo", "100%s", NULL);
    if (!comes(fd, "^<20>" LOCAL_DATE " postern\\[[0-9]+\\]: event=rcpt helo=100%s$"))
        return 1;
    /* The daemon stops reading: the writer waits, and nobody with it. */
    log_until_dropped();
    log_close();
    return CHILD_OK;
}

/* Nobody is there at first: stderr hears of it, once, and no line is lost. */
static int
syslog_away_child(void)
{
    int tube[2], fd;

    if (!own_dev())
        return CHILD_SKIP;
    if (pipe(tube) != 0 || dup2(tube[1], STDERR_FILENO) < 0)
        return 1;
    open_log("syslog");
    log_event(LOG_LEVEL_INFO, "start", NULL);
    log_event(LOG_LEVEL_INFO, "stop", NULL);
    if (!comes(tube[0], "^" DATE " event=log state=down target=syslog "
                        "error=\"/dev/log: No such file or directory\" dropped=0\n$"))
        return 2;
    fd = dev_log();
    if (!comes(fd, "event=start$") || !comes(fd, "event=stop$"))
        return 3;
    if (!comes(tube[0], "^" DATE " event=log state=up target=syslog dropped=0\n$"))
        return 4;
    log_close();
    return CHILD_OK;
}

static void
run_child(int (*child)(void))
{
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_SKIP)
        skip(); /* no right to mount */
    assert_int_equal(WEXITSTATUS(status), CHILD_OK);
}

static void
test_syslog(void **state)
{
    (void)state;
    run_child(syslog_child);
}

static void
test_syslog_away(void **state)
{
    (void)state;
    run_child(syslog_away_child);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_writer),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_datagrams),
        cmocka_unit_test(test_severities),
        cmocka_unit_test(test_unix_stream),
        cmocka_unit_test(test_tcp_again),
        cmocka_unit_test(test_reopen),
        cmocka_unit_test(test_reopen_from_stderr),
        cmocka_unit_test(test_reopen_from_dead),
        cmocka_unit_test(test_close_while_away),
        cmocka_unit_test(test_odd_tag),
        cmocka_unit_test(test_syslog),
        cmocka_unit_test(test_syslog_away),
        cmocka_unit_test(test_nobody_reads),
        cmocka_unit_test(test_full_pipe),
        cmocka_unit_test(test_no_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

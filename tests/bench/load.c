/* load OPTIONS: an SMTP client, or very many, on 127.0.0.1.  Every reply is checked, and the
 * content of each message is one the sink knows.  The result is one line of JSON on stdout; the
 * exit status is 1 if anything was not as expected.  The options are in `options` below. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/wire.h"

/* name, default, what */
#define OPTIONS                                                                                    \
    OPTION(port, 0, "of the server")                                                               \
    OPTION(connections, 1, "at once")                                                              \
    OPTION(sources, 16, "addresses the connections come from, in turns: 127.0.1.1 and so on")      \
    OPTION(transactions, 1, "in all")                                                              \
    OPTION(per_connection, 1, "transactions over each connection")                                 \
    OPTION(size, 4096, "octets of a body, a multiple of 4096")                                     \
    OPTION(recipients, 1, "of a transaction")                                                      \
    OPTION(unknown, 0, "ones among them, the last; all: nothing is sent")                          \
    OPTION(known, 1000, "addresses there are: user0@ and so on")                                   \
    OPTION(pipelining, 0, "1: a transaction's commands in one write")                              \
    OPTION(starttls, 0, "1: first of all")                                                         \
    OPTION(resume, 0, "1: TLS sessions")                                                           \
    OPTION(rate, 0, "transactions begun in a second, however the server does; 0: as they end")     \
    OPTION(slow, 0, "clients beside, which send an octet of content each tenth of a second")       \
    OPTION(hold, 0, "1: connections are opened, greeted, and held until stdin ends")               \
    OPTION(close_ok, 0, "1: the server may close after a refusal")                                 \
    OPTION(first_id, 0, "of the messages, and of the unknown names")                               \
    OPTION(limit, 60, "seconds, then it fails")

static struct {
#define OPTION(name, value, text) unsigned long name;
    OPTIONS
#undef OPTION
} o = {
#define OPTION(name, value, text) .name = value,
    OPTIONS
#undef OPTION
};

enum state {
    STATE_GREETING,
    STATE_EHLO,
    STATE_STARTTLS,
    STATE_HANDSHAKE,
    STATE_EHLO_AGAIN,
    STATE_TRANSACTION,
    STATE_QUIT,
    STATE_END,
    STATE_HELD
};

struct client {
    struct wire wire;
    enum state state;
    bool is_slow, was_refused;
    unsigned long done; /* transactions of this connection */
    unsigned long id;   /* of the one at hand */
    unsigned sent, got; /* its commands and their replies */
    int64_t began_ns;
    char in[4096];
    size_t n;
};

static SSL_CTX *tls;
/* Each is used once, as RFC 8446 C.4 wants it, and each connection brings another. */
static SSL_SESSION *sessions[1024];
static size_t n_sessions;
static int epoll;
static const char *body;
static size_t body_n;
static unsigned long begun, finished, refused, errors, held, slow_ready, live, handshakes, resumed;
static int64_t *latency_ns;
static struct client **slow;

static int64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void
fail(struct client *c, const char *what, const char *said)
{
    if (errors++ < 5)
        fprintf(stderr, "load: %s in state %u, command %u: %s\n", what, (unsigned)c->state, c->got,
                said);
    c->wire.is_broken = true;
}

static void
say(struct client *c, const char *text)
{
    wire_put(&c->wire, text, strlen(text));
}

/* --- a transaction: MAIL, RCPT..., then DATA and the content, or RSET --- */

static unsigned
command_data(void)
{
    return (unsigned)o.recipients + 1;
}

static bool
has_content(const struct client *c)
{
    return c->is_slow || o.unknown < o.recipients;
}

static bool
is_unknown(const struct client *c, unsigned recipient)
{
    return !c->is_slow && recipient > o.recipients - o.unknown;
}

static unsigned
command_count(const struct client *c)
{
    return command_data() + (has_content(c) ? 2 : 1);
}

static void
send_command(struct client *c, unsigned i)
{
    char line[256];
    int n;

    if (i == 0) {
        n = snprintf(line, sizeof(line), "MAIL FROM:<sender%lu@example.org>\r\n", c->id % 1000);
    } else if (i <= o.recipients && is_unknown(c, i)) {
        n = snprintf(line, sizeof(line), "RCPT TO:<nobody%lu@example.test>\r\n",
                     c->id * o.recipients + i);
    } else if (i <= o.recipients) {
        n = snprintf(line, sizeof(line), "RCPT TO:<user%lu@example.test>\r\n",
                     (c->id * o.recipients + i) % o.known);
    } else if (i == command_data()) {
        n = snprintf(line, sizeof(line), has_content(c) ? "DATA\r\n" : "RSET\r\n");
    } else {
        n = snprintf(line, sizeof(line),
                     "From: <sender@example.org>\r\nTo: <user@example.test>\r\n"
                     "Subject: bench\r\nX-Bench: %lu %lu\r\n\r\n",
                     c->id, o.size);
        if (c->is_slow)
            n = snprintf(line, sizeof(line), "X-Slow: ");
        else
            wire_put_tail(&c->wire, body, body_n);
    }
    wire_put(&c->wire, line, (size_t)n);
}

static const char *
expected(const struct client *c, unsigned i)
{
    if (i >= 1 && i <= o.recipients && is_unknown(c, i))
        return "550 5.1.1";
    return i == command_data() && has_content(c) ? "354 " : "250 ";
}

static void
send_ready(struct client *c)
{
    unsigned count = command_count(c);

    while (c->sent < count) {
        /* The content waits for its 354; without pipelining every command waits for the reply to
         * the last. */
        if (c->sent > c->got && (o.pipelining == 0 || c->sent > command_data()))
            return;
        send_command(c, c->sent++);
    }
}

static void
begin_transaction(struct client *c, int64_t began_ns)
{
    c->state = STATE_TRANSACTION;
    c->sent = c->got = 0;
    c->id = c->is_slow ? 0 : o.first_id + begun++;
    c->began_ns = began_ns;
    send_ready(c);
}

static void
end_transaction(struct client *c)
{
    latency_ns[finished++] = now_ns() - c->began_ns;
    c->done++;
    if (c->done < o.per_connection && begun < o.transactions) {
        begin_transaction(c, now_ns());
        return;
    }
    c->state = STATE_QUIT;
    say(c, "QUIT\r\n");
}

static void
on_transaction_reply(struct client *c, const char *line)
{
    const char *want = expected(c, c->got);

    if (strncmp(line, want, strlen(want)) != 0) {
        fail(c, want, line);
        return;
    }
    if (want[0] == '5') {
        refused++;
        c->was_refused = true;
    }
    c->got++;
    /* The last refusal needs no RSET when QUIT follows. */
    if (!has_content(c) && c->got == command_data() && o.pipelining == 0 &&
        c->done + 1 >= o.per_connection)
        c->got++;
    if (c->got == command_count(c)) {
        end_transaction(c);
        return;
    }
    send_ready(c);
    if (c->is_slow && c->sent == command_count(c))
        slow_ready++;
}

/* --- a connection --- */

static void
start_tls(struct client *c)
{
    SSL *ssl = SSL_new(tls);

    if (ssl == NULL)
        die("out of memory");
    if (o.resume != 0 && n_sessions > 0) {
        SSL_set_session(ssl, sessions[--n_sessions]);
        SSL_SESSION_free(sessions[n_sessions]);
    }
    SSL_set_connect_state(ssl);
    wire_start_tls(&c->wire, ssl);
    c->state = STATE_HANDSHAKE;
}

static void
greeted(struct client *c)
{
    if (o.hold != 0) {
        c->state = STATE_HELD;
        held++;
        return;
    }
    begin_transaction(c, c->began_ns);
}

static void
on_reply(struct client *c, const char *line)
{
    static const char *const codes[] = {
        [STATE_GREETING] = "220 ", [STATE_EHLO] = "250 ",       [STATE_STARTTLS] = "220 ",
        [STATE_HANDSHAKE] = "-",   [STATE_EHLO_AGAIN] = "250 ", [STATE_TRANSACTION] = "",
        [STATE_QUIT] = "221 ",     [STATE_END] = "-",           [STATE_HELD] = "-"};

    if (strncmp(line, codes[c->state], strlen(codes[c->state])) != 0) {
        fail(c, codes[c->state], line);
        return;
    }
    switch (c->state) {
    case STATE_GREETING:
        c->state = STATE_EHLO;
        say(c, "EHLO load.example.org\r\n");
        break;
    case STATE_EHLO:
        if (o.starttls == 0) {
            greeted(c);
            break;
        }
        c->state = STATE_STARTTLS;
        say(c, "STARTTLS\r\n");
        break;
    case STATE_STARTTLS:
        start_tls(c);
        break;
    case STATE_EHLO_AGAIN:
        greeted(c);
        break;
    case STATE_TRANSACTION:
        on_transaction_reply(c, line);
        break;
    case STATE_QUIT:
        c->state = STATE_END;
        break;
    case STATE_HANDSHAKE:
    case STATE_END:
    case STATE_HELD:
        break;
    }
}

/* Every whole reply in the input; of a reply of several lines the last counts. */
static void
take_replies(struct client *c)
{
    char *at = c->in, *end = c->in + c->n, *lf;

    while (!c->wire.is_broken && !c->wire.is_shaking &&
           (lf = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        *lf = '\0';
        if (lf - at < 5 || at[3] != '-')
            on_reply(c, at);
        at = lf + 1;
    }
    c->n = (size_t)(end - at);
    memmove(c->in, at, c->n);
    if (c->n == sizeof(c->in))
        fail(c, "reply", "too long");
}

static void
on_secured(struct client *c)
{
    handshakes++;
    resumed += (unsigned long)SSL_session_reused(c->wire.ssl);
    c->state = STATE_EHLO_AGAIN;
    say(c, "EHLO load.example.org\r\n");
}

static void
serve(struct client *c)
{
    ssize_t n = 1;

    while (!c->wire.is_broken) {
        if (c->wire.is_shaking) {
            if (!wire_shake(&c->wire))
                break;
            on_secured(c);
        }
        wire_flush(&c->wire);
        while (!c->wire.is_broken && !c->wire.is_shaking &&
               (n = wire_read(&c->wire, c->in + c->n, sizeof(c->in) - c->n)) > 0) {
            c->n += (size_t)n;
            take_replies(c);
            wire_flush(&c->wire);
        }
        if (!c->wire.is_shaking)
            break;
    }
    if (n >= 0 && !c->wire.is_broken)
        return;
    bool may_end = c->state == STATE_END || (o.close_ok != 0 && c->was_refused);
    if (!may_end && !c->wire.is_broken)
        fail(c, "reply", "connection closed");
    else if (!may_end && errors == 0)
        fail(c, "connection", "lost");
    wire_close(&c->wire);
    free(c);
    live--;
}

/* A socket bound to the next of our addresses. */
static int
open_socket(void)
{
    static unsigned long at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_addr.s_addr =
                                 htonl(INADDR_LOOPBACK + 256 + (uint32_t)(at++ % o.sources))};

    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) != 0 ||
        bind(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
        die("socket");
    return fd;
}

static struct client *
open_connection(bool is_slow)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)o.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct client *c = calloc(1, sizeof(*c));
    int fd = open_socket();

    if (c == NULL)
        die("out of memory");
    c->is_slow = is_slow;
    c->began_ns = now_ns();
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0 && errno != EINPROGRESS)
        die("connect");
    wire_open(&c->wire, epoll, fd, c);
    live++;
    return c;
}

static int
on_session(SSL *ssl, SSL_SESSION *fresh)
{
    (void)ssl;
    if (n_sessions == sizeof(sessions) / sizeof(sessions[0]))
        return 0;
    sessions[n_sessions++] = fresh;
    return 1;
}

/* --- the whole --- */

static void
turn(int timeout_ms)
{
    static int64_t end_ns;
    struct epoll_event events[256];

    if (end_ns == 0)
        end_ns = now_ns() + (int64_t)o.limit * 1000000000;
    if (now_ns() > end_ns) {
        fprintf(stderr, "load: not done in %lu s: %lu begun, %lu finished, %lu connections\n",
                o.limit, begun, finished, live);
        exit(1);
    }
    int n = epoll_wait(epoll, events, 256, timeout_ms);
    for (int i = 0; i < n; i++)
        serve(events[i].data.ptr);
}

static void
dribble(void)
{
    static int64_t next_ns;
    static unsigned long at;

    if (o.slow == 0 || now_ns() < next_ns)
        return;
    next_ns = now_ns() + 100000000 / (int64_t)o.slow;
    struct client *c = slow[at++ % o.slow];
    say(c, "s");
    wire_flush(&c->wire);
}

/* A connection waits to be opened until there is one fewer, or, with a rate, until its time. */
static void
run(void)
{
    int64_t start_ns = now_ns();
    unsigned long opened = 0, wanted = (o.transactions + o.per_connection - 1) / o.per_connection;

    while (finished < o.transactions || live > o.slow) {
        if (errors > 0 && live == o.slow)
            return;
        while (errors == 0 && opened < wanted && live - o.slow < o.connections) {
            if (o.rate != 0 && now_ns() < start_ns + (int64_t)opened * 1000000000 / (int64_t)o.rate)
                break;
            open_connection(false);
            opened++;
        }
        turn(o.rate != 0 || o.slow != 0 ? 1 : 1000);
        dribble();
    }
}

static int
compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static double
percentile_ms(unsigned percent)
{
    if (finished == 0)
        return 0;
    size_t at = (size_t)(finished - 1) * percent / 100;
    return (double)latency_ns[at] / 1e6;
}

static void
hold(void)
{
    for (unsigned long i = 0; i < o.connections; i++) {
        open_connection(false);
        if (i % 64 == 63)
            turn(1);
    }
    while (held < o.connections && errors == 0)
        turn(100);
    printf("{\"held\": %lu}\n", held);
    fflush(stdout);
    char c;
    while (errors == 0 && read(STDIN_FILENO, &c, 1) > 0)
        ;
}

static void
parse(int argc, char **argv)
{
    static const struct option options[] = {
#define OPTION(name, value, text) {#name, required_argument, NULL, 0},
        OPTIONS
#undef OPTION
        {NULL, 0, NULL, 0}};
    unsigned long *values[] = {
#define OPTION(name, value, text) &o.name,
        OPTIONS
#undef OPTION
    };
    int index;

    while (getopt_long(argc, argv, "", options, &index) == 0)
        *values[index] = strtoul(optarg, NULL, 10);
    if (optind != argc || o.port == 0 || o.unknown > o.recipients || o.per_connection == 0 ||
        o.known == 0 || o.sources == 0 || o.size == 0 || o.size % BODY_BLOCK != 0) {
        fputs("usage: load OPTIONS, each --NAME NUMBER:\n"
#define OPTION(name, value, text) "  " #name " (" #value "): " text "\n"
              OPTIONS
#undef OPTION
              ,
              stderr);
        exit(2);
    }
}

static void
make_body(void)
{
    size_t block_n;
    const char *block = body_stuffed(&block_n);
    size_t blocks = o.size / BODY_BLOCK;
    char *text = malloc(blocks * block_n + 3);

    if (text == NULL)
        die("out of memory");
    for (size_t i = 0; i < blocks; i++)
        memcpy(text + i * block_n, block, block_n);
    memcpy(text + blocks * block_n, ".\r\n", 3);
    body = text;
    body_n = blocks * block_n + 3;
}

int
main(int argc, char **argv)
{
    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_make();
    make_body();
    latency_ns = calloc(o.transactions, sizeof(*latency_ns));
    slow = calloc(o.slow + 1, sizeof(struct client *));
    tls = SSL_CTX_new(TLS_client_method());
    if (latency_ns == NULL || slow == NULL || tls == NULL)
        die("out of memory");
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(tls, on_session);
    if (o.hold != 0) {
        hold();
        return errors > 0;
    }
    for (unsigned long i = 0; i < o.slow; i++)
        slow[i] = open_connection(true);
    while (slow_ready < o.slow && errors == 0)
        turn(100);
    int64_t start_ns = now_ns();
    run();
    double seconds = (double)(now_ns() - start_ns) / 1e9;
    qsort(latency_ns, finished, sizeof(*latency_ns), compare);
    printf("{\"transactions\": %lu, \"refused\": %lu, \"errors\": %lu, \"seconds\": %.3f, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"handshakes\": %lu, \"resumed\": %lu}\n",
           finished, refused, errors, seconds, percentile_ms(50), percentile_ms(99), handshakes,
           resumed);
    return errors > 0 || finished != o.transactions;
}

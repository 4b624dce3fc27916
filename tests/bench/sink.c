/* sink SMTP-PORT AUTH-PORT COUNTERS [CERTIFICATE KEY [no-tickets]]: the mail server behind what is
 * measured, on 127.0.0.1.
 *
 * Takes every message whose content is what the load generator made of it, octet for octet, and
 * says 554 to any other.  Refuses recipients whose name begins with "nobody", for those in front
 * that check nothing.  On AUTH-PORT it answers nginx's question about them by HTTP.  COUNTERS is a
 * file of six 64-bit numbers, kept up to date: connections, messages, their octets, refused
 * recipients, bad messages, messages seen twice. */
#define _GNU_SOURCE /* accept4, memmem */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/wire.h"

#define MAX_IDS (1u << 27)

struct counters {
    uint64_t connections, messages, octets, refused, bad, twice;
};

enum input { INPUT_COMMAND, INPUT_DATA, INPUT_BDAT, INPUT_HTTP };
enum part { PART_HEADER, PART_BODY, PART_END };

struct client {
    struct wire wire;
    bool is_listener, is_closing, is_last, has_id, is_bad;
    enum input input;
    enum part part;
    char line[2048];
    size_t n;
    uint64_t id, size, at, chunk_left;
    unsigned recipients;
};

static struct counters *counters;
static unsigned char *seen;
static SSL_CTX *tls;
static int epoll, smtp_port;
static char scratch[65536];
static size_t stuffed_n;

static void
say(struct client *c, const char *text)
{
    wire_put(&c->wire, text, strlen(text));
}

static bool
starts(const char *line, const char *word)
{
    return strncasecmp(line, word, strlen(word)) == 0;
}

static void
begin_content(struct client *c)
{
    c->part = PART_HEADER;
    c->has_id = c->is_bad = false;
    c->id = c->size = c->at = 0;
}

static void
end_message(struct client *c)
{
    c->input = INPUT_COMMAND;
    c->recipients = 0;
    if (c->is_bad || !c->has_id || c->id >= MAX_IDS || c->part != PART_END) {
        counters->bad++;
        say(c, "554 5.6.0 Not what was sent\r\n");
        return;
    }
    unsigned char bit = (unsigned char)(1u << c->id % 8);
    if ((seen[c->id / 8] & bit) != 0)
        counters->twice++;
    seen[c->id / 8] |= bit;
    counters->messages++;
    counters->octets += c->size;
    say(c, "250 2.6.0 <1@sink> Queued mail for delivery\r\n");
}

static void
ehlo(struct client *c)
{
    say(c, "250-sink.example.test\r\n250-SIZE 37748736\r\n250-PIPELINING\r\n250-DSN\r\n"
           "250-ENHANCEDSTATUSCODES\r\n");
    if (tls != NULL && c->wire.ssl == NULL)
        say(c, "250-STARTTLS\r\n");
    say(c, "250-8BITMIME\r\n250 CHUNKING\r\n");
}

static void
command(struct client *c, char *line)
{
    char *rest;

    if (starts(line, "EHLO ")) {
        ehlo(c);
    } else if (starts(line, "HELO ")) {
        say(c, "250 sink.example.test\r\n");
    } else if (starts(line, "MAIL FROM:")) {
        c->recipients = 0;
        begin_content(c);
        say(c, "250 2.1.0 Sender OK\r\n");
    } else if (starts(line, "RCPT TO:<nobody")) {
        counters->refused++;
        say(c, "550 5.1.1 User unknown\r\n");
    } else if (starts(line, "RCPT TO:")) {
        c->recipients++;
        say(c, "250 2.1.5 Recipient OK\r\n");
    } else if (starts(line, "DATA")) {
        say(c, c->recipients > 0 ? "354 Start mail input; end with <CRLF>.<CRLF>\r\n"
                                 : "503 5.5.1 Need RCPT\r\n");
        if (c->recipients > 0)
            c->input = INPUT_DATA;
    } else if (starts(line, "BDAT ")) {
        c->chunk_left = strtoull(line + 5, &rest, 10);
        c->is_last = strcasecmp(rest, " LAST") == 0;
        c->input = INPUT_BDAT;
    } else if (starts(line, "RSET") || starts(line, "NOOP")) {
        say(c, "250 2.0.0 OK\r\n");
    } else if (starts(line, "QUIT")) {
        say(c, "221 2.0.0 Service closing transmission channel\r\n");
        c->is_closing = true;
    } else if (starts(line, "STARTTLS") && tls != NULL && c->wire.ssl == NULL) {
        say(c, "220 2.0.0 SMTP server ready\r\n");
        wire_flush(&c->wire);
        SSL *ssl = SSL_new(tls);
        if (ssl == NULL)
            die("out of memory");
        SSL_set_accept_state(ssl);
        wire_start_tls(&c->wire, ssl);
    } else {
        say(c, "500 5.3.3 Unrecognized command\r\n");
    }
}

static void
header_line(struct client *c, char *line)
{
    if (line[0] == '\0') {
        c->part = c->size > 0 ? PART_BODY : PART_END;
    } else if (starts(line, "X-Bench: ")) {
        char *end;
        c->id = strtoull(line + 9, &end, 10);
        c->size = strtoull(end, NULL, 10);
        c->has_id = true;
    }
}

/* nginx asks: one answer a connection. */
static void
http(struct client *c)
{
    char answer[256];
    bool is_unknown = memmem(c->line, c->n, "TO:<nobody", 10) != NULL;
    int written =
        is_unknown
            ? snprintf(answer, sizeof(answer),
                       "HTTP/1.0 200 OK\r\nAuth-Status: User unknown\r\nAuth-Error-Code: 550 "
                       "5.1.1\r\n\r\n")
            : snprintf(answer, sizeof(answer),
                       "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: "
                       "127.0.0.1\r\nAuth-Port: %d\r\n\r\n",
                       smtp_port);
    wire_put(&c->wire, answer, (size_t)written);
    c->is_closing = true;
}

/* Take octets up to the end of a line into c->line; true when it is there, without CRLF.  *USED
 * counts. */
static bool
take_line(struct client *c, const char *p, size_t n, size_t *used)
{
    const char *lf = memchr(p, '\n', n);
    size_t take = lf != NULL ? (size_t)(lf - p) + 1 : n;

    if (c->n + take >= sizeof(c->line)) {
        c->wire.is_broken = true;
        counters->bad++;
        *used = n;
        return false;
    }
    memcpy(c->line + c->n, p, take);
    c->n += take;
    *used = take;
    if (lf == NULL)
        return false;
    while (c->n > 0 && (c->line[c->n - 1] == '\n' || c->line[c->n - 1] == '\r'))
        c->n--;
    c->line[c->n] = '\0';
    c->n = 0;
    return true;
}

/* Compare with what the body has to be; returns how many octets of it these are. */
static size_t
take_body(struct client *c, const char *p, size_t n)
{
    bool is_data = c->input == INPUT_DATA;
    const char *block = is_data ? body_stuffed(&stuffed_n) : body_plain();
    size_t block_n = is_data ? stuffed_n : BODY_BLOCK;
    uint64_t left = c->size / BODY_BLOCK * block_n - c->at;
    size_t total = 0;

    if (n > left)
        n = (size_t)left;
    while (total < n) {
        size_t offset = (size_t)(c->at % block_n), piece = block_n - offset;
        if (piece > n - total)
            piece = n - total;
        if (memcmp(block + offset, p + total, piece) != 0)
            c->is_bad = true;
        c->at += piece;
        total += piece;
    }
    if (n == left)
        c->part = PART_END;
    return total;
}

static size_t
content(struct client *c, const char *p, size_t n)
{
    size_t used = 0;

    if (c->input == INPUT_BDAT && n > c->chunk_left)
        n = (size_t)c->chunk_left;
    switch (c->part) {
    case PART_HEADER:
        if (take_line(c, p, n, &used))
            header_line(c, c->line);
        break;
    case PART_BODY:
        used = take_body(c, p, n);
        break;
    case PART_END:
        if (c->input == INPUT_BDAT) {
            c->is_bad = true;
            used = n;
        } else if (take_line(c, p, n, &used)) {
            if (strcmp(c->line, ".") == 0)
                end_message(c);
            else
                c->is_bad = true;
        }
        break;
    }
    if (c->input == INPUT_BDAT) {
        c->chunk_left -= used;
        if (c->chunk_left == 0 && c->is_last) {
            end_message(c);
        } else if (c->chunk_left == 0) {
            c->input = INPUT_COMMAND;
            say(c, "250 2.0.0 OK\r\n");
        }
    }
    return used;
}

static void
consume(struct client *c, const char *p, size_t n)
{
    while (n > 0 && !c->wire.is_broken) {
        size_t used = 0;
        if (c->input == INPUT_HTTP) {
            used = n < sizeof(c->line) - c->n ? n : sizeof(c->line) - c->n;
            memcpy(c->line + c->n, p, used);
            c->n += used;
            if (memmem(c->line, c->n, "\r\n\r\n", 4) != NULL || used < n) {
                http(c);
                return;
            }
        } else if (c->input == INPUT_COMMAND) {
            if (take_line(c, p, n, &used))
                command(c, c->line);
        } else {
            used = content(c, p, n);
        }
        p += used;
        n -= used;
    }
}

static void
serve(struct client *c)
{
    ssize_t n = 1;

    if (c->wire.is_shaking && !wire_shake(&c->wire)) {
        if (c->wire.is_broken)
            goto gone;
        return;
    }
    wire_flush(&c->wire);
    while (!c->wire.is_shaking && (n = wire_read(&c->wire, scratch, sizeof(scratch))) > 0) {
        consume(c, scratch, (size_t)n);
        wire_flush(&c->wire);
        if (c->is_closing)
            break;
    }
    if (n >= 0 && !c->is_closing && !c->wire.is_broken)
        return;
gone:
    wire_close(&c->wire);
    free(c);
}

static void
accept_all(struct client *listener)
{
    int fd, one = 1;

    while ((fd = accept4(listener->wire.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *c = calloc(1, sizeof(*c));
        if (c == NULL)
            die("out of memory");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        wire_open(&c->wire, epoll, fd, c);
        c->input = listener->input;
        if (c->input == INPUT_COMMAND) {
            counters->connections++;
            say(c, "220 sink.example.test Microsoft ESMTP MAIL Service ready\r\n");
            wire_flush(&c->wire);
        }
    }
}

static void
listen_on(int port, enum input input)
{
    struct client *c = calloc(1, sizeof(*c));
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

    if (c == NULL || fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(fd, 4096) != 0)
        die("listen");
    c->is_listener = true;
    c->input = input;
    wire_open(&c->wire, epoll, fd, c);
}

static void
map_counters(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, sizeof(*counters)) != 0)
        die(path);
    counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counters == MAP_FAILED)
        die("mmap");
    close(fd);
}

int
main(int argc, char **argv)
{
    struct epoll_event events[256];

    if (argc != 4 && argc != 6 && argc != 7) {
        fputs("usage: sink SMTP-PORT AUTH-PORT COUNTERS [CERTIFICATE KEY [no-tickets]]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_make();
    map_counters(argv[3]);
    seen = calloc(MAX_IDS / 8, 1);
    if (seen == NULL)
        die("out of memory");
    if (argc >= 6) {
        tls = SSL_CTX_new(TLS_server_method());
        if (tls == NULL || SSL_CTX_use_certificate_chain_file(tls, argv[4]) != 1 ||
            SSL_CTX_use_PrivateKey_file(tls, argv[5], SSL_FILETYPE_PEM) != 1)
            die(argv[4]);
        if (argc == 7) {
            SSL_CTX_set_options(tls, SSL_OP_NO_TICKET);
            SSL_CTX_set_num_tickets(tls, 0);
            SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
        }
    }
    smtp_port = (int)strtol(argv[1], NULL, 10);
    listen_on(smtp_port, INPUT_COMMAND);
    listen_on((int)strtol(argv[2], NULL, 10), INPUT_HTTP);
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (c->is_listener)
                accept_all(c);
            else
                serve(c);
        }
    }
}

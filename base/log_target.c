#define _GNU_SOURCE

#include "base/log_target.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <paths.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* A daemon that takes nothing for so long has failed: the connection is made anew. */
#define STALL_S  10
#define STALL_MS (STALL_S * 1000)
/* RFC 5424 6: the lengths of HOSTNAME and APP-NAME. */
#define HOSTNAME_MAX 255
#define TAG_MAX      48
/* A line on stderr, with its time and its end. */
#define STDERR_LINE (CLOCK_TEXT + 1 + LOG_LINE_MAX)
#define KEEP_MAX    32768

enum kind { TARGET_SYSLOG, TARGET_STDERR, TARGET_UNIX, TARGET_UDP, TARGET_TCP };

struct log_target {
    enum kind kind;
    int facility;
    char tag[TAG_MAX + 1];
    char hostname[HOSTNAME_MAX + 1];
    struct sockaddr_un path; /* of TARGET_SYSLOG and TARGET_UNIX */
    char host[256];          /* of TARGET_UDP and TARGET_TCP */
    char port[8];
    int fd;         /* the socket; -1: closed */
    bool is_stream; /* FD is one */
    char name[256]; /* as the options have it */
    char error[384];
    size_t keep_max; /* of octets in one write to stderr */
    size_t kept_n;
    char kept[KEEP_MAX]; /* lines for stderr, to be written at once */
};

static const int severities[] = {
    [LOG_LEVEL_ERROR] = LOG_ERR, [LOG_LEVEL_WARNING] = LOG_WARNING, [LOG_LEVEL_NOTICE] = LOG_NOTICE,
    [LOG_LEVEL_INFO] = LOG_INFO, [LOG_LEVEL_DEBUG] = LOG_DEBUG,
};

/* A field of RFC 5424's header: printable ASCII, or '-' if there is nothing. */
static void
copy_field(char *out, size_t max, const char *text)
{
    size_t n = 0;

    for (; text && text[n] && n < max; n++)
        out[n] = text[n] > ' ' && text[n] < 0x7f ? text[n] : '_';
    if (n == 0)
        out[n++] = '-';
    out[n] = '\0';
}

/* "HOST:PORT"; an IPv6 address stands in brackets. */
static bool
parse_host_port(struct log_target *t, struct span text)
{
    const char *colon = text.n > 0 ? memrchr(text.p, ':', text.n) : NULL;
    struct span host, port;
    uint64_t number;

    if (!colon)
        return false;
    host = span_of(text.p, (size_t)(colon - text.p));
    port = span_of(colon + 1, text.n - host.n - 1);
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = span_of(host.p + 1, host.n - 2);
    else if (host.n > 0 && memchr(host.p, ':', host.n))
        return false;
    return host.n > 0 && span_u64(port, 65535, &number) && number > 0 &&
           span_copy(t->host, sizeof t->host, host) && span_copy(t->port, sizeof t->port, port);
}

static bool
parse_target(struct log_target *t, const char *text)
{
    static const char *const names[] = {
        [TARGET_SYSLOG] = "syslog", [TARGET_STDERR] = "stderr", [TARGET_UNIX] = "unix",
        [TARGET_UDP] = "udp",       [TARGET_TCP] = "tcp",
    };
    struct span rest = span_str(text), name;
    size_t i = 0;

    span_next(&rest, ':', &name);
    while (i < sizeof names / sizeof names[0] && !span_is(name, names[i]))
        i++;
    if (i == sizeof names / sizeof names[0])
        return false;
    t->kind = (enum kind)i;
    switch (t->kind) {
    case TARGET_STDERR:
        return !rest.p;
    case TARGET_SYSLOG:
        t->path = (struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = _PATH_LOG};
        return !rest.p;
    case TARGET_UNIX:
        t->path.sun_family = AF_UNIX;
        return rest.n > 0 && span_copy(t->path.sun_path, sizeof t->path.sun_path, rest);
    case TARGET_UDP:
    case TARGET_TCP:
        return parse_host_port(t, rest);
    }
    return false;
}

/* Others may write to the same pipe, and a line is whole there if it is written by no more than
 * PIPE_BUF at once. */
static size_t
most_at_once(int fd)
{
    struct stat st;

    return fstat(fd, &st) != 0 || S_ISFIFO(st.st_mode) ? PIPE_BUF : KEEP_MAX;
}

struct log_target *
log_target_new(const struct log_options *options, struct err *e)
{
    struct log_target *t = calloc(1, sizeof *t);

    if (!t) {
        err_errno(e, ERR_SYSTEM, ENOMEM, "log");
        return NULL;
    }
    t->fd = -1;
    t->keep_max = most_at_once(STDERR_FILENO);
    t->facility = options->facility;
    copy_field(t->tag, TAG_MAX, options->tag);
    copy_field(t->hostname, HOSTNAME_MAX, options->hostname);
    snprintf(t->name, sizeof t->name, "%s", options->target ? options->target : "");
    if (!parse_target(t, options->target)) {
        err_set(e, ERR_CONFIG,
                "%s: no log target; it is syslog, stderr, unix:PATH, udp:HOST:PORT or "
                "tcp:HOST:PORT",
                options->target ? options->target : "");
        free(t);
        return NULL;
    }
    return t;
}

static void
target_close(struct log_target *t)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}

void
log_target_free(struct log_target **t)
{
    if (!*t)
        return;
    (void)log_target_flush(*t);
    target_close(*t);
    free(*t);
    *t = NULL;
}

/* A connected socket, blocking for STALL_S at most; -1 with errno set. */
static int
connect_socket(int family, int type, const struct sockaddr *sa, socklen_t n)
{
    struct timeval stall = {.tv_sec = STALL_S};
    int fd = socket(family, type | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    /* On Linux this bounds connect too. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &stall, sizeof stall);
    if (type == SOCK_STREAM && family != AF_UNIX) {
        /* A peer that vanished is noticed while lines can still be kept for it. */
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &(unsigned){STALL_MS},
                         sizeof(unsigned));
    }
    if (connect(fd, sa, n) != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static void
open_unix(struct log_target *t)
{
    const struct sockaddr *sa = (const struct sockaddr *)&t->path;

    t->is_stream = false;
    t->fd = connect_socket(AF_UNIX, SOCK_DGRAM, sa, sizeof t->path);
    if (t->fd < 0 && errno == EPROTOTYPE) { /* the daemon's socket is of the other kind */
        t->is_stream = true;
        t->fd = connect_socket(AF_UNIX, SOCK_STREAM, sa, sizeof t->path);
    }
}

/* The name service keeps errno to itself: WHY is its word, or NULL. */
static void
open_inet(struct log_target *t, const char **why)
{
    struct addrinfo hints = {.ai_socktype = t->kind == TARGET_TCP ? SOCK_STREAM : SOCK_DGRAM,
                             .ai_flags = AI_NUMERICSERV};
    struct addrinfo *all;

    t->is_stream = t->kind == TARGET_TCP;
    int rc = getaddrinfo(t->host, t->port, &hints, &all);
    if (rc != 0) {
        *why = gai_strerror(rc);
        return;
    }
    for (const struct addrinfo *a = all; a && t->fd < 0; a = a->ai_next)
        t->fd = connect_socket(a->ai_family, a->ai_socktype, a->ai_addr, a->ai_addrlen);
    freeaddrinfo(all);
}

/* Whether the peer of a stream has closed its end: a line written now would be lost without an
 * error.  Sets errno then. */
static bool
peer_has_left(int fd)
{
    char octet[64];
    ssize_t n;

    while ((n = recv(fd, octet, sizeof octet, MSG_DONTWAIT)) > 0)
        ; /* a log daemon has nothing to say */
    if (n == 0)
        errno = ECONNRESET;
    return n == 0 || (errno != EAGAIN && errno != EINTR);
}

/* How much was written; less than N when it failed. */
static size_t
write_stderr(const char *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t written = write(STDERR_FILENO, p + done, n - done);

        if (written > 0)
            done += (size_t)written;
        else if (errno == EAGAIN) /* whoever shares the descriptor made it so */
            (void)poll(&(struct pollfd){.fd = STDERR_FILENO, .events = POLLOUT}, 1, -1);
        else if (errno != EINTR)
            break;
    }
    return done;
}

static size_t
format_stderr(const struct log_record *r, char line[STDERR_LINE])
{
    size_t n;

    clock_rfc3339(line, r->wall_us);
    n = strlen(line);
    line[n++] = ' ';
    memcpy(line + n, r->text.p, r->text.n);
    n += r->text.n;
    line[n++] = '\n';
    return n;
}

bool
log_target_stderr(const struct log_record *r)
{
    char line[STDERR_LINE];

    return write_stderr(line, format_stderr(r, line)) > 0;
}

bool
log_target_keeps(const struct log_target *t)
{
    return t->kept_n > 0;
}

bool
log_target_flush(struct log_target *t)
{
    size_t done = write_stderr(t->kept, t->kept_n);

    /* What has begun is not written twice, and goes on where it stopped. */
    t->kept_n -= done;
    memmove(t->kept, t->kept + done, t->kept_n);
    return t->kept_n == 0;
}

static bool
keep(struct log_target *t, const struct log_record *r)
{
    char line[STDERR_LINE];
    size_t n = format_stderr(r, line);

    if (t->kept_n > 0 && t->kept_n + n > t->keep_max && !log_target_flush(t))
        return false;
    memcpy(t->kept + t->kept_n, line, n);
    t->kept_n += n;
    return true;
}

static bool
send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent < 0 && errno != EINTR)
            return false;
        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        }
    }
    return true;
}

/* The form of syslog(3), which itself reports no errors. */
static int
format_local(const struct log_target *t, const struct log_record *r, char *out, size_t n)
{
    time_t when = (time_t)(r->wall_us / 1000000);
    struct tm local = {.tm_mday = 1};
    char date[32];

    localtime_r(&when, &local);
    strftime(date, sizeof date, "%b %e %T", &local);
    return snprintf(out, n, "<%d>%s %s[%ld]: %.*s", t->facility | severities[r->level], date,
                    t->tag, (long)getpid(), (int)r->text.n, r->text.p);
}

/* RFC 5424 6. */
static int
format_5424(const struct log_target *t, const struct log_record *r, char *out, size_t n)
{
    char date[CLOCK_TEXT];

    clock_rfc3339(date, r->wall_us);
    return snprintf(out, n, "<%d>1 %s %s %s %ld - - %.*s", t->facility | severities[r->level], date,
                    t->hostname, t->tag, (long)getpid(), (int)r->text.n, r->text.p);
}

/* A datagram is the message alone; a local stream ends it with a line end; on TCP its length goes
 * before it (RFC 6587 3.4.1). */
static bool
write_socket(struct log_target *t, const struct log_record *r, const char **why)
{
    char message[LOG_LINE_MAX + 512], framed[sizeof message + 16];
    int head, n;

    if (t->fd < 0) {
        if (t->kind == TARGET_UDP || t->kind == TARGET_TCP)
            open_inet(t, why);
        else
            open_unix(t);
    }
    if (t->fd < 0 || (t->is_stream && peer_has_left(t->fd)))
        return false;
    if (t->kind == TARGET_SYSLOG)
        n = format_local(t, r, message, sizeof message);
    else
        n = format_5424(t, r, message, sizeof message);
    if (t->kind == TARGET_TCP)
        head = snprintf(framed, sizeof framed, "%d %s", n, message);
    else
        head = snprintf(framed, sizeof framed, "%s%s", message, t->is_stream ? "\n" : "");
    return send_all(t->fd, framed, (size_t)head);
}

bool
log_target_write(struct log_target *t, const struct log_record *r)
{
    const char *why = NULL;
    bool ok = t->kind == TARGET_STDERR ? keep(t, r) : write_socket(t, r, &why);

    if (!ok) {
        snprintf(t->error, sizeof t->error, "%s%s%s", t->kind == TARGET_SYSLOG ? _PATH_LOG : "",
                 t->kind == TARGET_SYSLOG ? ": " : "", why ? why : strerror(errno));
        target_close(t);
    }
    return ok;
}

const char *
log_target_name(const struct log_target *t)
{
    return t->name;
}

const char *
log_target_error(const struct log_target *t)
{
    return t->error;
}

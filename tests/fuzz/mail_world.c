#define _GNU_SOURCE /* accept4 */
#include "tests/fuzz/mail_world.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/host.h"
#include "proxy/session/clients.h"
#include "proxy/session/session.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

#define CONNECTIONS_MAX 16
#define HEARD_MAX       (1u << 20)
/* Rounds without a word from anybody before all is quiet. */
#define QUIET_ROUNDS 3
#define PEOPLE       "anna@example.test\nben@example.test\ncarl@example.test\n@any.example.test\n"

struct world_connection {
    int fd; /* -1: free */
    void *state;
};

static struct {
    const struct world_downstream *downstream;
    struct server server;
    struct settings *settings[WORLD_KINDS];
    struct worker *worker;
    struct host *host;
    int listener;
    struct world_connection connections[CONNECTIONS_MAX];
    int log;    /* where its lines come */
    int client; /* -1: none */
    SSL_CTX *tls;
    SSL *ssl; /* NULL: in the clear */
    bool is_open;
    char *heard;
    size_t heard_n;
} world = {.listener = -1, .client = -1};

/* A socket of TYPE on a port of the system's choice. */
static int
open_on_loopback(int type, uint16_t *port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(sa);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    require(fd >= 0 && bind(fd, (struct sockaddr *)&sa, n) == 0 &&
            getsockname(fd, (struct sockaddr *)&sa, &n) == 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

/* A file of its own, open for writing; PATH is a template of mkstemp's. */
static FILE *
make_file(char *path)
{
    int fd = mkstemp(path);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    require(f != NULL);
    return f;
}

/* A key and a certificate that it signed itself. */
static void
write_certificate(FILE *f)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();

    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600L * 24 * 30);
    require(key != NULL && X509_set_pubkey(certificate, key) == 1 &&
            X509_sign(certificate, key, EVP_sha256()) > 0 &&
            PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1 &&
            PEM_write_X509(f, certificate) == 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

#define STRICT                                                                                     \
    "[harvest]\nstage = data\ntarpit = 0s\nallow = 192.0.2.1\nthreshold = 10000\n"                 \
    "threshold_wide = 0\naction = reject\n"                                                        \
    "[blocked]\nsenders = bad@example.org, @bad.example.org\nrecipients = carl@example.test\n"     \
    "[remote_domain default]\nndr = no\nread_receipts = no\nauto_replies = no\n"                   \
    "[remote_domain *.example.org]\ndelivery_reports = no\n"

static const struct {
    const char *server, *spool, *tls, *rest;
} kinds[WORLD_KINDS] = {
    [WORLD_PLAIN] = {"", "memory = 1M\n", "", "[harvest]\nenabled = no\n"},
    [WORLD_STRICT] = {"bare_lf = reject\nmax_hops = 2\npostmaster = ben@example.test\n",
                      "memory = 1M\n", "", STRICT},
    [WORLD_MONITOR] = {"monitor = yes\n", "memory = 1M\n", "", STRICT},
    [WORLD_SEALED] = {"", "memory = 0\n", "mode = required\n", "[harvest]\nenabled = no\n"},
};

static struct settings *
load_settings(enum world_kind kind, const char *people, const char *certificate, uint16_t port)
{
    char path[] = "/tmp/postern-fuzz-XXXXXX";
    struct faults *faults = faults_new();
    FILE *f = make_file(path);

    fprintf(f,
            "[server]\nhostname = mx.example.test\nlisten = 127.0.0.1:1\nworkers = 1\n"
            "state_dir =\nduplicate_window = 0s\nmax_errors = 1000\nmax_recipients = 5\n"
            "max_message_size = 100000\nproxy_protocol = 127.0.0.5\nxclient = 127.0.0.6\n%s"
            "[spool]\ndir = /tmp\n%s[tls]\ncertificate = %s\nkey = %s\n%s"
            "[http]\nlisten =\n[control]\nsocket =\n"
            "[domain example.test]\ndownstream = exchange\n"
            "[domain any.example.test]\ndownstream = exchange\nrecipients = any\n"
            "[domain ask.example.test]\ndownstream = exchange\nrecipients = downstream\n"
            "[downstream exchange]\nhosts = 127.0.0.1:%u\ntls = opportunistic\nxclient = yes\n"
            "connect_timeout = 5s\n[directory]\ntype = file\nfile = %s\ncache_positive = 0s\n"
            "cache_negative = 0s\n%s",
            kinds[kind].server, kinds[kind].spool, certificate, certificate, kinds[kind].tls,
            (unsigned)port, people, kinds[kind].rest);
    require(faults != NULL && fclose(f) == 0);
    struct settings *st = settings_load(path, faults);
    if (st == NULL)
        faults_print(faults, path, stderr);
    require(st != NULL);
    faults_free(&faults);
    unlink(path);
    return st;
}

static void
open_log(void)
{
    struct err e = {.kind = ERR_NONE};
    uint16_t port;
    char target[32];

    world.log = open_on_loopback(SOCK_DGRAM, &port);
    snprintf(target, sizeof(target), "udp:127.0.0.1:%u", (unsigned)port);
    struct log_options options = {.target = target,
                                  .level = LOG_LEVEL_DEBUG,
                                  .tag = "postern",
                                  .hostname = "mx.example.test"};
    require(log_open(&options, &e) == 0);
}

static void
make_world(void)
{
    struct server *srv = &world.server;
    struct err e = {.kind = ERR_NONE};
    char people[] = "/tmp/postern-fuzz-XXXXXX", certificate[] = "/tmp/postern-fuzz-XXXXXX";
    struct tls_contexts *tls = NULL;
    uint16_t port;

    open_log();
    world.listener = open_on_loopback(SOCK_STREAM, &port);
    require(listen(world.listener, CONNECTIONS_MAX) == 0);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        world.connections[i].fd = -1;
    world.heard = malloc(HEARD_MAX + 1);
    world.tls = SSL_CTX_new(TLS_client_method());
    FILE *f = make_file(people);
    require(fputs(PEOPLE, f) >= 0 && fclose(f) == 0);
    f = make_file(certificate);
    write_certificate(f);
    require(fclose(f) == 0);
    for (unsigned i = 0; i < WORLD_KINDS; i++)
        world.settings[i] = load_settings((enum world_kind)i, people, certificate, port);
    struct settings *st = world.settings[WORLD_PLAIN];
    srv->n_workers = 1;
    srv->metrics = metrics_new();
    srv->hosts = hosts_new();
    srv->clients = clients_new();
    require(world.heard != NULL && world.tls != NULL && srv->metrics != NULL &&
            srv->hosts != NULL && srv->clients != NULL && hosts_update(srv->hosts, st) == 0);
    srv->spool = spool_new(st, &e);
    srv->policy = policy_new(st, clock_ms(), clock_wall_s(), &e);
    srv->directories = directories_new(st, &e);
    srv->resolver = resolver_new(event_base_new(), st, &e);
    require(srv->spool != NULL && srv->policy != NULL && srv->directories != NULL &&
            srv->resolver != NULL && tls_contexts_new(st, &tls, &e) == 0 && tls != NULL);
    world.worker = worker_new(srv, 0, st, tls, NULL, 0, &e);
    require(world.worker != NULL);
    world.host = route_host(hosts_route(srv->hosts, "exchange"), 0);
    unlink(people);
    unlink(certificate);
}

void
world_open(enum world_kind kind, const struct world_downstream *downstream, uint32_t capabilities)
{
    struct smtp_capabilities caps = {.bits = capabilities};

    if (world.listener < 0)
        make_world();
    world.downstream = downstream;
    world.worker->settings = world.settings[kind]; /* both references stay to the end */
    host_set_capabilities(world.host, &caps);
    host_set_state(world.host, HOST_UP, NULL);
}

void
world_connect(uint8_t last)
{
    int fds[2];
    struct session_peer peer = {.port = 4096, .listener = "127.0.0.1:25"};

    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    peer.address = (struct netaddr){.family = 4, .octets = {127, 0, 0, last}};
    world.client = fds[0];
    world.is_open = true;
    world.heard_n = 0;
    world.heard[0] = '\0';
    atomic_fetch_add(&world.server.connections, 1);
    require(session_start(world.worker, fds[1], &peer));
}

/* What has come for the client: its length, 0 at the end, -1 when there is nothing yet. */
static ssize_t
receive(char *out, size_t n)
{
    if (world.ssl == NULL) {
        ssize_t got = recv(world.client, out, n, 0);
        return got < 0 && errno != EAGAIN && errno != EINTR ? 0 : got;
    }
    int got = SSL_read(world.ssl, out, (int)n);
    if (got > 0)
        return got;
    return SSL_get_error(world.ssl, got) == SSL_ERROR_WANT_READ ? -1 : 0;
}

static void
hear_client(void)
{
    while (world.is_open) {
        ssize_t n = receive(world.heard + world.heard_n, HEARD_MAX - world.heard_n);
        if (n < 0)
            break;
        require(world.heard_n < HEARD_MAX);
        if (n == 0)
            world.is_open = false;
        else
            world.heard_n += (size_t)n;
    }
    world.heard[world.heard_n] = '\0';
}

static bool
take_connection(void)
{
    int fd = accept4(world.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int one = 1;

    if (fd < 0)
        return false;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct world_connection *c = &world.connections[i];
        if (c->fd < 0) {
            c->fd = fd;
            world.downstream->connected(c);
            return true;
        }
    }
    close(fd);
    return true;
}

static void
hear_downstream(struct world_connection *c)
{
    uint8_t buffer[65536];
    ssize_t n = recv(c->fd, buffer, sizeof(buffer), 0);

    if (n > 0)
        world.downstream->heard(c, buffer, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        world_hang_up(c);
}

/* Hear everybody who has said something; false: nobody has.  One call for all, since calls into the
 * system are what a run costs. */
static bool
hear_all(void)
{
    struct pollfd fds[CONNECTIONS_MAX + 2] = {
        {.fd = world.is_open ? world.client : -1, .events = POLLIN},
        {.fd = world.listener, .events = POLLIN}};

    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        fds[i + 2] = (struct pollfd){.fd = world.connections[i].fd, .events = POLLIN};
    if (poll(fds, CONNECTIONS_MAX + 2, 0) <= 0)
        return false;
    if (fds[0].revents != 0)
        hear_client();
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        if (fds[i + 2].revents != 0 && world.connections[i].fd == fds[i + 2].fd)
            hear_downstream(&world.connections[i]);
    while (fds[1].revents != 0 && take_connection())
        continue;
    return true;
}

void
world_settle(void)
{
    for (unsigned quiet = 0; quiet < QUIET_ROUNDS; quiet++) {
        event_base_loop(world.worker->loop.base, EVLOOP_NONBLOCK);
        if (hear_all())
            quiet = 0;
    }
}

bool
world_start_tls(void)
{
    int done = 0;

    world.ssl = SSL_new(world.tls);
    require(world.ssl != NULL && SSL_set_fd(world.ssl, world.client) == 1);
    for (unsigned turns = 0; turns < 100 && done != 1; turns++) {
        done = SSL_connect(world.ssl);
        if (done != 1 && SSL_get_error(world.ssl, done) != SSL_ERROR_WANT_READ)
            return false;
        event_base_loop(world.worker->loop.base, EVLOOP_NONBLOCK);
    }
    return done == 1;
}

bool
world_is_tls(void)
{
    return world.ssl != NULL;
}

/* How much of it was taken: 0 for the moment, -1 when the session has ended; what it said is still
 * to be read. */
static ssize_t
transmit(const uint8_t *p, size_t n)
{
    if (world.ssl == NULL) {
        ssize_t done = send(world.client, p, n, MSG_NOSIGNAL);
        return done < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : done;
    }
    int done = SSL_write(world.ssl, p, (int)n);
    if (done > 0)
        return done;
    int why = SSL_get_error(world.ssl, done);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

void
world_send(const uint8_t *p, size_t n)
{
    while (n > 0 && world.is_open) {
        ssize_t done = transmit(p, n);
        if (done < 0)
            return;
        p += done;
        n -= (size_t)done;
        world_settle();
    }
}

const char *
world_heard(void)
{
    return world.heard;
}

bool
world_is_open(void)
{
    return world.is_open;
}

static const char *
skip_value(const char *p)
{
    if (*p != '"') {
        while (*p != '\0' && strchr(" \"\\=", *p) == NULL)
            p++;
        return p;
    }
    for (p++; *p != '"'; p++)
        if (*p == '\0' || (*p == '\\' && (p[1] != 'x' || !isxdigit((unsigned char)p[2]) ||
                                          !isxdigit((unsigned char)p[3]))))
            return NULL;
    return p + 1;
}

/* `event=NAME key=value ...` and nothing else. */
static bool
is_event(const char *p)
{
    for (const char *c = p; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == '\x7f')
            return false;
    if (strncmp(p, "event=", 6) != 0)
        return false;
    for (;;) {
        size_t key = strspn(p, "abcdefghijklmnopqrstuvwxyz_");
        if (key == 0 || p[key] != '=' || (p = skip_value(p + key + 1)) == NULL)
            return false;
        if (*p == '\0')
            return true;
        if (*p++ != ' ')
            return false;
    }
}

static void
check_log(void)
{
    char line[LOG_LINE_MAX + 512];
    ssize_t n;

    while ((n = recv(world.log, line, sizeof(line) - 1, 0)) > 0) {
        line[n] = '\0';
        const char *event = strstr(line, " - - "); /* the end of RFC 5424's header */
        if (event == NULL || strlen(line) != (size_t)n || !is_event(event + 5)) {
            fprintf(stderr, "not a line of the log: %s\n", line);
            abort();
        }
    }
}

void
world_disconnect(void)
{
    SSL_free(world.ssl);
    world.ssl = NULL;
    close(world.client);
    world.client = -1;
    world.is_open = false;
    /* The spool's thread may keep one for a moment, and then the downstream. */
    for (int i = 0; i < 100 && !TAILQ_EMPTY(&world.worker->sessions); i++) {
        event_base_loop(world.worker->loop.base, i < 50 ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
        hear_all();
    }
    world_settle();
    require(TAILQ_EMPTY(&world.worker->sessions) && TAILQ_EMPTY(&world.worker->dead));
    require(atomic_load(&world.server.connections) == 0);
    check_log();
}

void
world_say(struct world_connection *c, const uint8_t *p, size_t n)
{
    if (c->fd >= 0)
        (void)send(c->fd, p, n, MSG_NOSIGNAL);
}

void
world_hang_up(struct world_connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    free(c->state);
    c->state = NULL;
}

void *
world_state(struct world_connection *c, size_t n)
{
    if (c->state == NULL)
        c->state = calloc(1, n);
    require(c->state != NULL);
    return c->state;
}

void
world_hang_up_all(void)
{
    while (take_connection())
        continue;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        world_hang_up(&world.connections[i]);
}

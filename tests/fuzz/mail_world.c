#define _GNU_SOURCE /* accept4 */
#include "tests/fuzz/mail_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/host.h"
#include "proxy/session/clients.h"
#include "proxy/session/session.h"
#include "proxy/worker.h"

#define CONNECTIONS_MAX 16
#define HEARD_MAX       (1u << 20)
/* Rounds without a word from anybody before all is quiet. */
#define QUIET_ROUNDS 3

struct world_connection {
    int fd; /* -1: free */
    void *state;
};

static struct {
    const struct world_downstream *downstream;
    struct server server;
    struct settings *settings;
    struct worker *worker;
    struct host *host;
    int listener;
    struct world_connection connections[CONNECTIONS_MAX];
    int client; /* -1: none */
    bool is_open;
    char *heard;
    size_t heard_n;
} world = {.listener = -1, .client = -1};

static uint16_t
listen_on_loopback(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(sa);

    world.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    require(world.listener >= 0 && bind(world.listener, (struct sockaddr *)&sa, n) == 0 &&
            listen(world.listener, CONNECTIONS_MAX) == 0 &&
            getsockname(world.listener, (struct sockaddr *)&sa, &n) == 0);
    return ntohs(sa.sin_port);
}

static struct settings *
load_settings(uint16_t port)
{
    char path[] = "/tmp/postern-fuzz-XXXXXX", people[] = "/tmp/postern-fuzz-XXXXXX";
    int fd = mkstemp(path), people_fd = mkstemp(people);
    struct faults *faults = faults_new();

    require(fd >= 0 && people_fd >= 0 && faults != NULL);
    require(dprintf(people_fd, "anna@example.test\nben@example.test\n@any.example.test\n") > 0);
    require(dprintf(fd,
                    "[server]\nhostname = mx.example.test\nlisten = 127.0.0.1:1\nworkers = 1\n"
                    "state_dir =\nduplicate_window = 0s\nmax_errors = 1000\nmax_recipients = 5\n"
                    "max_message_size = 100000\nproxy_protocol = 127.0.0.5\nxclient = 127.0.0.6\n"
                    "[spool]\nmemory = 1M\ndir = /tmp\n[http]\nlisten =\n[control]\nsocket =\n"
                    "[log]\nlevel = error\n[harvest]\nenabled = no\n"
                    "[domain example.test]\ndownstream = exchange\n"
                    "[domain any.example.test]\ndownstream = exchange\nrecipients = any\n"
                    "[downstream exchange]\nhosts = 127.0.0.1:%u\ntls = off\n"
                    "connect_timeout = 5s\n"
                    "[directory]\ntype = file\nfile = %s\n",
                    (unsigned)port, people) > 0);
    close(fd);
    close(people_fd);
    struct settings *st = settings_load(path, faults);
    if (st == NULL)
        faults_print(faults, path, stderr);
    require(st != NULL);
    faults_free(&faults);
    unlink(path);
    return st;
}

static void
make_world(void)
{
    struct server *srv = &world.server;
    struct err e = {.kind = ERR_NONE};
    uint16_t port = listen_on_loopback();

    log_set_level(LOG_LEVEL_ERROR);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        world.connections[i].fd = -1;
    world.heard = malloc(HEARD_MAX + 1);
    world.settings = load_settings(port);
    srv->n_workers = 1;
    srv->metrics = metrics_new();
    srv->hosts = hosts_new();
    srv->clients = clients_new();
    require(world.heard != NULL && srv->metrics != NULL && srv->hosts != NULL &&
            srv->clients != NULL && hosts_update(srv->hosts, world.settings) == 0);
    srv->spool = spool_new(world.settings, &e);
    srv->policy = policy_new(world.settings, clock_ms(), clock_wall_s(), &e);
    srv->directories = directories_new(world.settings, &e);
    srv->resolver = resolver_new(event_base_new(), world.settings, &e);
    require(srv->spool != NULL && srv->policy != NULL && srv->directories != NULL &&
            srv->resolver != NULL);
    world.worker = worker_new(srv, 0, world.settings, NULL, NULL, 0, &e);
    require(world.worker != NULL);
    world.host = route_host(hosts_route(srv->hosts, "exchange"), 0);
}

void
world_open(const struct world_downstream *downstream, uint32_t capabilities)
{
    struct smtp_capabilities caps = {.bits = capabilities};

    if (world.listener < 0)
        make_world();
    world.downstream = downstream;
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
    atomic_fetch_add(&world.server.connections, 1);
    require(session_start(world.worker, fds[1], &peer));
}

static bool
hear_client(void)
{
    bool has_heard = false;

    while (world.is_open) {
        ssize_t n = recv(world.client, world.heard + world.heard_n, HEARD_MAX - world.heard_n, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        require(world.heard_n < HEARD_MAX);
        if (n <= 0)
            world.is_open = false;
        else
            world.heard_n += (size_t)n;
        has_heard = true;
    }
    world.heard[world.heard_n] = '\0';
    return has_heard;
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

static bool
hear_downstream(void)
{
    uint8_t buffer[65536];
    bool has_heard = false;

    while (take_connection())
        has_heard = true;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct world_connection *c = &world.connections[i];
        if (c->fd < 0)
            continue;
        ssize_t n = recv(c->fd, buffer, sizeof(buffer), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        has_heard = true;
        if (n <= 0)
            world_hang_up(c);
        else
            world.downstream->heard(c, buffer, (size_t)n);
    }
    return has_heard;
}

void
world_settle(void)
{
    for (unsigned quiet = 0; quiet < QUIET_ROUNDS; quiet++) {
        event_base_loop(world.worker->loop.base, EVLOOP_NONBLOCK);
        bool one = hear_client();
        if (hear_downstream() || one)
            quiet = 0;
    }
}

void
world_send(const uint8_t *p, size_t n)
{
    while (n > 0 && world.is_open) {
        ssize_t done = send(world.client, p, n, MSG_NOSIGNAL);
        if (done > 0) {
            p += done;
            n -= (size_t)done;
        } else if (errno != EAGAIN && errno != EINTR) {
            return; /* the session has ended; what it said is still to be read */
        }
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

void
world_disconnect(void)
{
    close(world.client);
    world.client = -1;
    world.is_open = false;
    for (int i = 0; i < 100 && !TAILQ_EMPTY(&world.worker->sessions); i++)
        event_base_loop(world.worker->loop.base, EVLOOP_NONBLOCK);
    world_settle();
    require(TAILQ_EMPTY(&world.worker->sessions) && TAILQ_EMPTY(&world.worker->dead));
    require(atomic_load(&world.server.connections) == 0);
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

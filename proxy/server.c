#define _GNU_SOURCE /* initgroups, setresuid */
#include "proxy/server.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/resolver.h"
#include "proxy/ops/control.h"
#include "proxy/ops/http.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/health.h"
#include "proxy/relay/host.h"
#include "proxy/relay/host_memory.h"
#include "proxy/relay/spool.h"
#include "proxy/sandbox.h"
#include "proxy/saver.h"
#include "proxy/session/clients.h"
#include "proxy/tls.h"
#include "proxy/tls_check.h"
#include "proxy/worker.h"

/* So long are the first probes waited for, so that the first clients hear what the downstream can.
 */
#define FIRST_LOOK_MS    1500
#define BACKLOG          1024
#define DESCRIPTORS_KEPT 4096u
/* So many handshakes are worth a look through the heap, which takes a millisecond or so. */
#define TRIM_HANDSHAKES 100u

static const int signal_numbers[] = {SIGTERM, SIGINT, SIGHUP};

struct server_shared {
    pthread_mutex_t lock; /* over the two that a reload swaps */
    struct settings *settings;
    struct tls_contexts *tls;

    /* the housekeeper's own */
    struct stream_loop loop;
    struct event *signals[4];
    struct event *tick, *gate, *done_event;
    int done_fd; /* workers that have ended */
    unsigned done;
    bool is_open;             /* connections are taken */
    unsigned shaken, trimmed; /* server.shaken at the last tick, and when the heap was trimmed */
    struct health *health;
    struct control *control;
    struct http *http;
    struct saver *saver;
};

struct settings *
server_settings(struct server *srv)
{
    pthread_mutex_lock(&srv->shared->lock);
    struct settings *st = settings_ref(srv->shared->settings);
    pthread_mutex_unlock(&srv->shared->lock);
    return st;
}

static void
swap(struct server *srv, struct settings *st, struct tls_contexts *tls)
{
    struct server_shared *sh = srv->shared;

    pthread_mutex_lock(&sh->lock);
    struct settings *old_settings = sh->settings;
    struct tls_contexts *old_tls = sh->tls;
    sh->settings = st;
    sh->tls = tls;
    pthread_mutex_unlock(&sh->lock);
    settings_unref(old_settings);
    tls_contexts_unref(old_tls);
}

/* --- the log --- */

static struct log_options
log_options(const struct settings *st)
{
    return (struct log_options){.target = st->log.target,
                                .facility = settings_facility(st->log.facility),
                                .level = (enum log_level)st->log.level,
                                .tag = st->log.tag,
                                .hostname = st->server.hostname};
}

/* A warning has an event of its own: `config` says what came of a load, and nothing else. */
static void
log_faults(const struct faults *f, const char *path)
{
    const char *text;
    size_t i = 0;
    unsigned line;
    bool is_warning;

    while ((text = faults_next(f, &i, &line, &is_warning)) != NULL) {
        struct log_line l;
        if (is_warning) {
            log_begin(&l, LOG_LEVEL_WARNING, "warning");
        } else {
            log_begin(&l, LOG_LEVEL_ERROR, "config");
            log_str(&l, "state", "rejected");
        }
        log_str(&l, "file", path);
        if (line != 0)
            log_int(&l, "line", line);
        log_str(&l, "error", text);
        log_end(&l);
    }
}

/* --- reload --- */

/* The directories come last: their files may have changed, so they might find no way back. */
static int
apply_parts(struct server *srv, struct settings *st, struct err *e)
{
    if (hosts_update(srv->hosts, st) != 0)
        return err_set(e, ERR_SYSTEM, "out of memory");
    if (http_prepare(srv->shared->http, st, e) != 0 ||
        health_prepare(srv->shared->health, st, e) != 0 ||
        resolver_reload(srv->resolver, st, e) != 0 ||
        directories_reload(srv->directories, st, e) != 0)
        return -1;
    return 0;
}

/* To what is in force, of what may have taken other settings. */
static void
go_back(struct server *srv)
{
    struct settings *old = server_settings(srv);
    struct err e = {.kind = ERR_NONE};

    (void)hosts_update(srv->hosts, old); /* they are all still there: it takes no memory */
    if (resolver_reload(srv->resolver, old, &e) != 0)
        log_event(LOG_LEVEL_WARNING, "warning", "error", e.text, NULL);
    settings_unref(old);
}

static int
reload_parts(struct server *srv, struct settings *st, struct tls_contexts **tls, struct err *e)
{
    if (!sandbox_may_write(st->spool.dir))
        return err_set(e, ERR_SYSTEM, "spool: dir = %s: needs a restart", st->spool.dir);
    if (tls_contexts_new(st, tls, e) != 0)
        return -1;
    bool is_taken = apply_parts(srv, st, e) == 0;
    if (!is_taken)
        go_back(srv);
    http_settle(srv->shared->http, is_taken);
    health_settle(srv->shared->health, is_taken);
    return is_taken ? 0 : -1;
}

/* Put ST, which was read without fault, in force. */
static int
put_in_force(struct server *srv, struct settings *st, struct err *e)
{
    struct tls_contexts *tls = NULL;
    struct settings *old = server_settings(srv);
    char fixed[256];

    bool has_fixed = settings_keep_fixed(st, old, fixed, sizeof(fixed));
    settings_unref(old);
    if (reload_parts(srv, st, &tls, e) != 0) {
        tls_contexts_unref(tls);
        return -1;
    }
    struct log_options options = log_options(st);
    log_reopen(&options, NULL);
    spool_update(srv->spool, st);
    policy_reload(srv->policy, st, clock_ms());
    for (unsigned i = 0; i < srv->n_workers; i++)
        worker_reload(srv->workers[i], st, tls);
    swap(srv, settings_ref(st), tls);
    struct log_line l;
    log_begin(&l, has_fixed ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE, "config");
    log_str(&l, "state", "loaded");
    log_str(&l, "file", srv->settings_path);
    if (has_fixed)
        log_fmt(&l, "error", "stays as it was until a restart: %s", fixed);
    log_end(&l);
    return 0;
}

/* Not from a pipe: whoever waits for its other end serves nobody meanwhile. */
static struct settings *
read_settings(struct server *srv, struct faults *f)
{
    struct stat s;

    if (stat(srv->settings_path, &s) == 0 && !S_ISREG(s.st_mode)) {
        faults_add(f, 0, false, "is not a regular file");
        return NULL;
    }
    struct settings *old = server_settings(srv);
    struct settings *st = settings_load_again(srv->settings_path, old, f);
    settings_unref(old);
    return st;
}

int
server_reload(struct server *srv, struct err *e)
{
    struct faults *f = faults_new();
    char first[256];

    if (f == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    struct settings *st = read_settings(srv, f);
    if (st != NULL)
        tls_check(st, f);
    bool is_faulty = st == NULL || faults_errors(f) > 0;
    int result = is_faulty ? -1 : put_in_force(srv, st, e);
    if (is_faulty) {
        faults_first(f, srv->settings_path, first, sizeof(first));
        err_set(e, ERR_CONFIG, "%s", first);
    } else if (result != 0) {
        log_event(LOG_LEVEL_ERROR, "config", "state", "rejected", "file", srv->settings_path,
                  "error", e->text, NULL);
    }
    /* Behind the outcome: who waits for `loaded` finds all of it in force. */
    log_faults(f, srv->settings_path);
    faults_free(&f);
    settings_unref(st);
    return result;
}

/* --- drain --- */

void
server_drain(struct server *srv)
{
    if (atomic_exchange(&srv->is_draining, true))
        return;
    for (unsigned i = 0; i < srv->n_workers; i++)
        worker_drain(srv->workers[i]);
}

void
server_worker_done(struct server *srv)
{
    uint64_t one = 1;

    while (write(srv->shared->done_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
}

static void
on_done(evutil_socket_t fd, short what, void *arg)
{
    struct server *srv = arg;
    uint64_t n = 0;

    (void)what;
    if (read(fd, &n, sizeof(n)) != sizeof(n))
        return;
    srv->shared->done += (unsigned)n;
    if (srv->shared->done >= srv->n_workers)
        event_base_loopbreak(srv->shared->loop.base);
}

/* --- the housekeeper --- */

static void
on_signal(evutil_socket_t number, short what, void *arg)
{
    struct server *srv = arg;
    struct err e = {.kind = ERR_NONE};

    (void)what;
    if (number == SIGHUP) {
        server_reload(srv, &e); /* says itself what came of it */
        return;
    }
    if (!atomic_load(&srv->is_draining)) {
        server_drain(srv);
        return;
    }
    /* Asked twice: at once. */
    for (unsigned i = 0; i < srv->n_workers; i++)
        worker_stop(srv->workers[i]);
}

/* A handshake takes some 60 KiB for its milliseconds; many at once leave holes in the heap that the
 * sessions after them do not fill.  Give those back when the burst is over; under a steady load
 * that is every few seconds. */
static void
trim_heap(struct server *srv)
{
    struct server_shared *sh = srv->shared;
    unsigned shaken = atomic_load(&srv->shaken), lately = shaken - sh->shaken;

    sh->shaken = shaken;
    if (shaken - sh->trimmed < TRIM_HANDSHAKES || lately > (shaken - sh->trimmed) / 4)
        return;
    sh->trimmed = shaken;
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct server *srv = arg;
    struct settings *st = server_settings(srv);

    (void)fd;
    (void)what;
    policy_tick(srv->policy, st, clock_ms(), clock_wall_s());
    directories_tick(srv->directories);
    trim_heap(srv);
    settings_unref(st);
}

/* Begin to take connections once the hosts were looked at, or have had their time. */
static void
on_gate(evutil_socket_t fd, short what, void *arg)
{
    struct server *srv = arg;
    struct timeval tv = {.tv_usec = 10000};

    (void)fd;
    (void)what;
    if (!health_has_looked(srv->shared->health) && clock_ms() - srv->started_ms < FIRST_LOOK_MS) {
        event_add(srv->shared->gate, &tv);
        return;
    }
    for (unsigned i = 0; i < srv->n_workers; i++)
        worker_accept(srv->workers[i]);
    log_event(LOG_LEVEL_NOTICE, "config", "state", "loaded", "file", srv->settings_path, NULL);
    log_event(LOG_LEVEL_NOTICE, "start", "version", POSTERN_VERSION, NULL);
}

static bool
make_events(struct server *srv)
{
    struct server_shared *sh = srv->shared;
    struct timeval second = {.tv_sec = 1}, now = {.tv_usec = 1000};

    for (size_t i = 0; i < sizeof(signal_numbers) / sizeof(signal_numbers[0]); i++) {
        sh->signals[i] = evsignal_new(sh->loop.base, signal_numbers[i], on_signal, srv);
        if (sh->signals[i] == NULL || event_add(sh->signals[i], NULL) != 0)
            return false;
    }
    sh->tick = event_new(sh->loop.base, -1, EV_PERSIST, on_tick, srv);
    sh->gate = evtimer_new(sh->loop.base, on_gate, srv);
    sh->done_event = event_new(sh->loop.base, sh->done_fd, EV_READ | EV_PERSIST, on_done, srv);
    return sh->tick != NULL && sh->gate != NULL && sh->done_event != NULL &&
           event_add(sh->tick, &second) == 0 && event_add(sh->gate, &now) == 0 &&
           event_add(sh->done_event, NULL) == 0;
}

/* --- beginning --- */

/* One socket of an address, to listen on later; every worker has its own (SO_REUSEPORT). */
static int
bind_to(const struct listen_entry *entry, int *fd, struct err *e)
{
    struct sockaddr_storage sa;
    socklen_t n = netaddr_to_sockaddr(&entry->address, entry->port, &sa);
    char text[NETADDR_TEXT];
    int one = 1;

    netaddr_format(&entry->address, text);
    *fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return err_errno(e, ERR_SYSTEM, errno, "listen = %s:%u", text, (unsigned)entry->port);
    setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(*fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    if (sa.ss_family == AF_INET6)
        setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(*fd, (struct sockaddr *)&sa, n) != 0) {
        err_errno(e, ERR_SYSTEM, errno, "listen = %s:%u", text, (unsigned)entry->port);
        close(*fd);
        return -1;
    }
    return 0;
}

/* SO_REUSEPORT would let a second postern share the port unnoticed: look whether it is taken first.
 */
static int
check_free(const struct listen_entry *entry, struct err *e)
{
    struct sockaddr_storage sa;
    socklen_t n = netaddr_to_sockaddr(&entry->address, entry->port, &sa);
    char text[NETADDR_TEXT];
    int one = 1;
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return 0; /* told by bind_to, or skipped */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (sa.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    int result = bind(fd, (struct sockaddr *)&sa, n);
    if (result != 0) {
        netaddr_format(&entry->address, text);
        err_errno(e, ERR_SYSTEM, errno, "listen = %s:%u", text, (unsigned)entry->port);
    }
    close(fd);
    return result;
}

struct sockets {
    struct listen_socket *v; /* n_listen for each worker */
    size_t n_listen;
};

static bool
is_without_ipv6(const struct listen_entry *entry)
{
    if (entry->address.family != 6)
        return false;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EAFNOSUPPORT;
}

static int
open_sockets(struct server *srv, const struct settings *st, struct sockets *out, struct err *e)
{
    size_t n = st->server.listen.n;

    out->v = calloc(n * srv->n_workers + 1, sizeof(*out->v));
    out->n_listen = 0;
    if (out->v == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    struct listen_entry *usable = calloc(n + 1, sizeof(*usable));
    if (usable == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        if (is_without_ipv6(&st->server.listen.v[i]))
            log_event(LOG_LEVEL_WARNING, "warning", "error",
                      "this machine has no IPv6: an address in listen is skipped", NULL);
        else
            usable[out->n_listen++] = st->server.listen.v[i];
    }
    int result = 0;
    for (size_t i = 0; i < out->n_listen && result == 0; i++)
        result = check_free(&usable[i], e);
    for (size_t k = 0; k < out->n_listen * srv->n_workers && result == 0; k++) {
        out->v[k].entry = usable[k % out->n_listen];
        result = bind_to(&out->v[k].entry, &out->v[k].fd, e);
    }
    free(usable);
    return result;
}

/* Only when all else stands: who finds the port open finds the control socket and the metrics, and
 * may send signals. */
static int
listen_all(const struct server *srv, const struct sockets *sockets, struct err *e)
{
    for (size_t k = 0; k < sockets->n_listen * srv->n_workers; k++)
        if (listen(sockets->v[k].fd, BACKLOG) != 0)
            return err_errno(e, ERR_SYSTEM, errno, "listen");
    return 0;
}

/* Make PATH, if only its last part is missing, for USER. */
static int
make_directory(const char *path, const struct passwd *user, mode_t mode, struct err *e)
{
    if (mkdir(path, mode) != 0)
        return errno == EEXIST ? 0 : err_errno(e, ERR_SYSTEM, errno, "%s", path);
    if (user != NULL && chown(path, user->pw_uid, user->pw_gid) != 0)
        return err_errno(e, ERR_SYSTEM, errno, "%s", path);
    return 0;
}

static int
make_directories(const struct settings *st, const struct passwd *user, struct err *e)
{
    if (st->server.state_dir != NULL && make_directory(st->server.state_dir, user, 0700, e) != 0)
        return -1;
    if (st->control.socket == NULL)
        return 0;
    char *parent = span_dup(span_str(st->control.socket));
    char *slash = parent != NULL ? strrchr(parent, '/') : NULL;
    int result = 0;
    if (slash != NULL && slash != parent) {
        *slash = '\0';
        result = make_directory(parent, user, 0755, e);
    }
    free(parent);
    return result;
}

static int
become(const struct passwd *user, struct err *e)
{
    if (user != NULL && geteuid() == 0 &&
        (initgroups(user->pw_name, user->pw_gid) != 0 ||
         setresgid(user->pw_gid, user->pw_gid, user->pw_gid) != 0 ||
         setresuid(user->pw_uid, user->pw_uid, user->pw_uid) != 0))
        return err_errno(e, ERR_SYSTEM, errno, "user = %s", user->pw_name);
    return 0;
}

/* All the descriptors there are.  A quarter, of many DESCRIPTORS_KEPT, is no session's: it is for
 * the connections to the downstream, the spool's files, the directory.  The kernel gives the lowest
 * number that is free.
 */
static int
raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return INT_MAX;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    rlim_t kept = limit.rlim_cur / 4 < DESCRIPTORS_KEPT ? limit.rlim_cur / 4 : DESCRIPTORS_KEPT;
    return limit.rlim_cur > INT_MAX ? INT_MAX : (int)(limit.rlim_cur - kept);
}

static unsigned
count_workers(const struct settings *st)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (st->server.workers > 0)
        return (unsigned)st->server.workers;
    return cores < 1 ? 1 : cores > 63 ? 63 : (unsigned)cores;
}

static int
make_loop(struct server *srv, struct err *e)
{
    struct server_shared *sh = srv->shared;

    sh->done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    sh->loop.scratch = malloc(STREAM_SCRATCH);
    sh->loop.base = event_base_new();
    if (sh->done_fd < 0 || sh->loop.scratch == NULL || sh->loop.base == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    return 0;
}

/* What is bound while we may still be root, other than the listeners: `user` need not be able to.
 */
static int
make_doors(struct server *srv, const struct settings *st, const struct passwd *user, struct err *e)
{
    struct server_shared *sh = srv->shared;

    if ((sh->http = http_new(srv, sh->loop.base, e)) == NULL)
        return -1;
    if (st->control.socket != NULL &&
        (sh->control = control_new(srv, sh->loop.base, user, e)) == NULL)
        return -1;
    return 0;
}

static int
make_parts(struct server *srv, struct settings *st, struct err *e)
{
    if (tls_contexts_new(st, &srv->shared->tls, e) != 0)
        return -1;
    srv->metrics = metrics_new();
    srv->hosts = hosts_new();
    srv->clients = clients_new();
    if (srv->metrics == NULL || srv->hosts == NULL || srv->clients == NULL ||
        hosts_update(srv->hosts, st) != 0)
        return err_set(e, ERR_SYSTEM, "out of memory");
    if (st->server.state_dir != NULL)
        host_memory_load(srv->hosts, st->server.state_dir);
    if ((srv->spool = spool_new(st, e)) == NULL ||
        (srv->policy = policy_new(st, clock_ms(), clock_wall_s(), e)) == NULL ||
        (srv->directories = directories_new(st, e)) == NULL ||
        (srv->resolver = resolver_new(srv->shared->loop.base, st, e)) == NULL ||
        (srv->shared->health = health_new(&srv->shared->loop, srv->hosts, st, e)) == NULL)
        return -1;
    policy_attach(srv->policy, st, srv->shared->loop.base);
    return srv->shared->control == NULL ? 0 : control_start(srv->shared->control, e);
}

static int
make_workers(struct server *srv, struct settings *st, const struct sockets *sockets, struct err *e)
{
    srv->workers = calloc(srv->n_workers, sizeof(struct worker *));
    if (srv->workers == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    for (unsigned i = 0; i < srv->n_workers; i++) {
        srv->workers[i] = worker_new(srv, i, st, srv->shared->tls,
                                     sockets->v + i * sockets->n_listen, sockets->n_listen, e);
        if (srv->workers[i] == NULL)
            return -1;
    }
    int result = 0;
    for (unsigned i = 0; i < srv->n_workers && result == 0; i++)
        result = worker_start(srv->workers[i], e);
    for (unsigned i = 0; i < srv->n_workers && result != 0; i++)
        worker_stop(srv->workers[i]);
    return result;
}

static void
free_event(struct event *e)
{
    if (e != NULL)
        event_free(e);
}

/* Also of what was not begun to its end. */
static void
tear_down(struct server *srv)
{
    struct server_shared *sh = srv->shared;

    for (unsigned i = 0; srv->workers != NULL && i < srv->n_workers; i++)
        worker_join(&srv->workers[i]);
    free(srv->workers);
    saver_free(&sh->saver);
    control_free(&sh->control);
    http_free(&sh->http);
    health_free(&sh->health);
    directories_free(&srv->directories);
    resolver_free(&srv->resolver);
    policy_free(&srv->policy, sh->settings, clock_ms(), clock_wall_s());
    spool_free(&srv->spool);
    hosts_free(&srv->hosts);
    clients_free(&srv->clients);
    metrics_free(&srv->metrics);
    for (size_t i = 0; i < sizeof(sh->signals) / sizeof(sh->signals[0]); i++)
        free_event(sh->signals[i]);
    free_event(sh->tick);
    free_event(sh->gate);
    free_event(sh->done_event);
    if (sh->loop.base != NULL)
        event_base_free(sh->loop.base);
    free(sh->loop.scratch);
    if (sh->done_fd >= 0)
        close(sh->done_fd);
    tls_contexts_unref(sh->tls);
    settings_unref(sh->settings);
    pthread_mutex_destroy(&sh->lock);
    free(sh);
    free(srv);
}

static struct server *
server_new(const char *settings_path, struct settings *st)
{
    struct server *srv = calloc(1, sizeof(*srv));

    if (srv == NULL || (srv->shared = calloc(1, sizeof(*srv->shared))) == NULL) {
        free(srv);
        return NULL;
    }
    srv->settings_path = settings_path;
    srv->started_ms = clock_ms();
    srv->started_wall_s = clock_wall_s();
    srv->session_base = (uint64_t)srv->started_wall_s;
    srv->n_workers = count_workers(st);
    pthread_mutex_init(&srv->shared->lock, NULL);
    srv->shared->settings = st;
    srv->shared->done_fd = -1;
    return srv;
}

/* Hold back (SIG_BLOCK) or let through (SIG_UNBLOCK) the signals that have a meaning, here and in
 * the threads to come. */
static void
mask_signals(int how)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(signal_numbers) / sizeof(signal_numbers[0]); i++)
        sigaddset(&set, signal_numbers[i]);
    pthread_sigmask(how, &set, NULL);
}

/* Up to the threads that serve. */
static int
begin(struct server *srv, const struct faults *warnings, struct sockets *sockets, struct err *e)
{
    struct settings *st = srv->shared->settings;
    const struct passwd *user = st->server.user != NULL ? getpwnam(st->server.user) : NULL;
    struct log_options options = log_options(st);

    srv->last_descriptor = raise_descriptors();
    signal(SIGPIPE, SIG_IGN);
    if (make_loop(srv, e) != 0 || open_sockets(srv, st, sockets, e) != 0 ||
        make_directories(st, user, e) != 0 || make_doors(srv, st, user, e) != 0 ||
        become(user, e) != 0 || log_open(&options, e) != 0)
        return -1;
    log_faults(warnings, srv->settings_path);
    sandbox_enter(st);
    if (make_parts(srv, st, e) != 0)
        return -1;
    if (!make_events(srv))
        return err_set(e, ERR_SYSTEM, "out of memory");
    if ((srv->shared->saver = saver_new(srv, e)) == NULL)
        return -1;
    return listen_all(srv, sockets, e) != 0 ? -1 : make_workers(srv, st, sockets, e);
}

int
server_run(const char *settings_path, struct settings *st, const struct faults *warnings,
           struct err *e)
{
    struct server *srv = server_new(settings_path, st);
    struct sockets sockets = {.v = NULL};

    if (srv == NULL) {
        settings_unref(st);
        return err_set(e, ERR_SYSTEM, "out of memory");
    }
    mask_signals(SIG_BLOCK);
    int result = begin(srv, warnings, &sockets, e);
    free(sockets.v);
    if (result == 0) {
        mask_signals(SIG_UNBLOCK);
        event_base_dispatch(srv->shared->loop.base);
        saver_free(&srv->shared->saver);
        log_event(LOG_LEVEL_NOTICE, "stop", "version", POSTERN_VERSION, NULL);
    }
    tear_down(srv);
    log_close();
    return result;
}

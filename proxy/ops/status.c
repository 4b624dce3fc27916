#include "proxy/ops/status.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/resolver.h"
#include "proxy/server.h"

/* Where hosts_each puts what it tells. */
struct host_taker {
    struct status *s;
    size_t room;
    bool is_failed;
};

static void
take_host(void *arg, const struct host_view *view)
{
    struct host_taker *t = arg;
    if (t->s->n_hosts == t->room) {
        size_t room = t->room ? 2 * t->room : 8;
        struct host_view *hosts = realloc(t->s->hosts, room * sizeof *hosts);
        if (!hosts) {
            t->is_failed = true;
            return;
        }
        t->s->hosts = hosts;
        t->room = room;
    }
    t->s->hosts[t->s->n_hosts++] = *view;
}

static int
take_hosts(struct server *srv, struct status *s)
{
    struct host_taker t = {.s = s};
    hosts_each(srv->hosts, take_host, &t);
    return t.is_failed ? -1 : 0;
}

static int
take_directories(struct server *srv, struct status *s)
{
    struct dir_view view;
    size_t room = 0;
    while (directories_view(srv->directories, s->n_directories, &view)) {
        if (s->n_directories == room) {
            room = room ? 2 * room : 4;
            struct dir_view *directories = realloc(s->directories, room * sizeof *directories);
            if (!directories)
                return -1;
            s->directories = directories;
        }
        s->directories[s->n_directories++] = view;
    }
    s->is_directory_ready = directories_ready(srv->directories);
    return 0;
}

static int
take_zones(struct server *srv, struct status *s)
{
    const char *name, *fault;
    for (size_t i = 0; (name = resolver_zone(srv->resolver, i, &fault)) != NULL; i++) {
        if (fault == NULL)
            continue;
        struct status_zone *zones = realloc(s->zones, (s->n_zones + 1) * sizeof *zones);
        if (zones == NULL)
            return -1;
        s->zones = zones;
        zones[s->n_zones].fault = fault;
        span_copy(zones[s->n_zones].name, sizeof zones->name, span_str(name));
        s->n_zones++;
    }
    return 0;
}

int
status_take(struct server *srv, struct status *s)
{
    *s = (struct status){.now_wall_s = clock_wall_s()};
    int64_t now_ms = clock_ms();
    s->uptime_s = (now_ms - srv->started_ms) / 1000;
    s->workers = srv->n_workers;
    s->connections = atomic_load(&srv->connections);
    s->tarpitted = atomic_load(&srv->tarpitted);
    s->is_draining = atomic_load(&srv->is_draining);
    s->log_dropped = log_dropped();
    metrics_read(srv->metrics, &s->counts);
    struct settings *st = server_settings(srv);
    span_copy(s->hostname, sizeof s->hostname, span_str(st->server.hostname));
    s->max_connections = (unsigned)st->server.max_connections;
    s->is_monitor = st->server.monitor;
    s->is_ledger_shared = st->harvest.ledger == SETTINGS_LEDGER_REDIS;
    s->is_ledger_up = policy_ledger_up(srv->policy, s->ledger_error, sizeof s->ledger_error);
    settings_unref(st);
    s->policy = policy_counts(srv->policy);
    if (take_hosts(srv, s) == -1 || take_directories(srv, s) == -1 || take_zones(srv, s) == -1) {
        status_clear(s);
        return -1;
    }
    return 0;
}

int
status_take_clients(struct server *srv, struct status *s)
{
    if (status_take(srv, s) == -1)
        return -1;
    int64_t now_ms = clock_ms();
    struct settings *st = server_settings(srv);
    s->n_suspects = policy_top(srv->policy, st, s->suspects, STATUS_SUSPECTS, now_ms);
    settings_unref(st);
    if (policy_blocks(srv->policy, now_ms, &s->blocks, &s->n_blocks) == 0)
        return 0;
    status_clear(s);
    return -1;
}

void
status_clear(struct status *s)
{
    free(s->blocks);
    free(s->hosts);
    free(s->directories);
    free(s->zones);
    *s = (struct status){0};
}

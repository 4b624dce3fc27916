#ifndef PROXY_OPS_STATUS_H
#define PROXY_OPS_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "ldap/directory.h"
#include "policy/policy.h"
#include "proxy/ops/history.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/host.h"

/* The state of the whole process at one moment, gathered from its owners: what /metrics, /readyz,
 * /api/status, the status page and posternctl show.  They are pure functions of it. */

struct server;

#define STATUS_SUSPECTS 20

struct status_zone {
    char name[256];
    const char *fault; /* for ever */
};

struct status {
    char hostname[256];
    int64_t now_wall_s;
    int64_t uptime_s;
    unsigned workers;
    unsigned connections, max_connections;
    unsigned tarpitted;
    bool is_draining;
    bool is_monitor;
    struct metrics_counts counts;

    /* by status_take_clients alone */
    struct policy_block *blocks; /* the one that ends first first */
    size_t n_blocks;
    struct policy_suspect suspects[STATUS_SUSPECTS]; /* worst first */
    size_t n_suspects;

    struct policy_counts policy;

    struct host_view *hosts;
    size_t n_hosts;

    struct dir_view *directories;
    size_t n_directories;
    bool is_directory_ready; /* it can answer: live, from the cache or by snapshot */

    bool is_ledger_shared; /* ledger = redis */
    bool is_ledger_up;
    char ledger_error[256]; /* whole, as long as an err's text may be */

    struct status_zone *zones; /* of [dnsbl], that are not asked */
    size_t n_zones;

    uint64_t log_dropped;
};

/* -1 when memory is out (then nothing is to be freed).  Housekeeper's loop. */
int status_take(struct server *srv, struct status *out);
/* The same with the clients that stand out, for whom the whole ledger is looked through: half a
 * second when it is full, so not for what is asked all the time. */
int status_take_clients(struct server *srv, struct status *out);
void status_clear(struct status *s);

/* Some downstream has a host up, and the directory can answer. */
bool status_is_ready(const struct status *s);

/* What is not as it should be.  The texts are S's. */
struct status_problem {
    const char *part;   /* "downstream", "directory", "ledger", "dnsbl", "server" */
    const char *name;   /* the section's, "default" where it has none; the zone's; or "" */
    const char *server; /* which of its hosts; "" if it is no host's fault */
    const char *state;  /* "down", "untried", "degraded" */
    const char *error;  /* "" if it is not known */
};
/* At most MAX into OUT; returns how many. */
size_t status_problems(const struct status *s, struct status_problem *out, size_t max);
#define STATUS_PROBLEMS 64

/* "up", "down", "untried". */
const char *status_host_state(enum host_state state);

#endif

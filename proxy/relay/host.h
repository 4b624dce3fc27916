#ifndef PROXY_RELAY_HOST_H
#define PROXY_RELAY_HOST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "conf/settings.h"
#include "proxy/smtp/capability.h"

/* What all loops know together of the downstream hosts: addresses, health, capabilities, and how
 * many connections are open to each, by whom.  Everything here may be called from any thread; the
 * locks are held for a few memory accesses. */

struct hosts; /* all downstreams */
struct route; /* one [downstream NAME] with its hosts */
struct host;  /* one host of it */

#define HOST_ADDRESSES 8

enum host_state {
    HOST_UNTRIED,
    HOST_UP,
    HOST_DEGRADED, /* it answers, but its TLS is not as configured: tried when no other is left */
    HOST_DOWN
};

struct host_addresses {
    unsigned n;
    struct netaddr v[HOST_ADDRESSES];
    uint16_t port;
};

struct hosts *hosts_new(void);
void hosts_free(struct hosts **h);
/* Make the routes of ST known.  Those that exist already (same name, same hosts) keep their state,
 * and so does each host of one whose list has changed; routes that are gone stay until hosts_free,
 * since connections may still count on them.  -1: out of memory. */
int hosts_update(struct hosts *h, const struct settings *st);
/* The route of a downstream section; NULL if unknown. */
struct route *hosts_route(struct hosts *h, const char *downstream);
/* Does some host of some route answer (or was none of it tried yet)? */
bool hosts_any_up(struct hosts *h);
/* What every downstream offers, for our own EHLO reply: the intersection over all routes of what is
 * known of each. */
void hosts_capabilities(struct hosts *h, struct smtp_capabilities *caps);

/* Does every host of R that was ever reached offer DSN?  And true once, for the log line that says
 * it does not. */
bool route_has_dsn(const struct route *r);
bool route_tell_no_dsn(struct route *r);
size_t route_hosts(const struct route *r);
struct host *route_host(const struct route *r, size_t i);
const char *route_name(const struct route *r);
bool route_is_up(const struct route *r);

const char *host_name(const struct host *h);  /* as written in the configuration, without port */
const char *host_label(const struct host *h); /* NAME:PORT */
int host_weight(const struct host *h);
enum host_state host_state(const struct host *h);
/* Returns true if this changed the state. ERROR (may be NULL) is kept for display. */
bool host_set_state(struct host *h, enum host_state state, const char *error);
/* The `downstream` line about a host whose state has changed. ERROR: why it is down. */
void host_log(const struct host *h, const char *downstream, const char *error);
void host_set_capabilities(struct host *h, const struct smtp_capabilities *caps);
/* False: its name has not been resolved yet. */
bool host_addresses(struct host *h, struct host_addresses *out);
bool host_is_literal(const struct host *h); /* an address: there is no name to resolve */
/* What its name resolves to now. */
void host_set_addresses(struct host *h, const struct host_addresses *fresh);

/* --- the limit of connections to a host, over all loops --- */

enum host_slot { HOST_SLOT_TAKEN, HOST_SLOT_FULL, HOST_SLOT_CLIENT_FULL };

/* Take the right to one more connection, for a client's transaction.  MAX, and the client's share
 * of it (a quarter, at least 1), are counted over all loops.  CLIENT NULL: a probe. */
enum host_slot host_slot_take(struct host *h, int max, const struct network *client);
/* A kept, idle connection begins to serve CLIENT. False, and nothing changed, if it has its share.
 */
bool host_slot_busy(struct host *h, int max, const struct network *client);
/* A busy connection became idle. */
void host_slot_idle(struct host *h, const struct network *client);
/* An idle connection was closed (a busy one becomes idle first). Tell the others by route_wake. */
void host_slot_give(struct host *h);
int host_connections(struct host *h); /* of all loops, probes included */
/* Less than 0 when MAX was lowered. */
int host_slots_left(struct host *h, int max);

/* Loops that wait for a connection of a route hear of a free slot, and loops that keep idle ones
 * hear that somebody waits, through what they register here.  POST is called on the telling thread.
 */
#define HOST_LOOPS_MAX 64
typedef void route_post_fn(void *arg, struct route *r);
void hosts_set_post(struct hosts *h, unsigned loop, route_post_fn *post, void *arg);
/* A request of LOOP begins to wait, or waits no more.  All loops hear of each that begins while
 * connections are idle, for one of them keeps those. */
void route_wait(struct route *r, unsigned loop, bool waits);
/* How many requests wait, of all loops. */
unsigned route_waiting(const struct route *r);
/* SINCE_MS (clock_ms): since then LOOP's next request has waited for any host to have room; 0: none
 * waits for that.  Those who stood back hear of a change. */
void route_set_full(struct route *r, unsigned loop, int64_t since_ms);
/* Does a request of another loop wait for that much longer than one of LOOP since SINCE_MS?  Then
 * what becomes free is for the other.  By so much that connections do not change loops for
 * little: each change costs a handshake. */
bool route_is_due_elsewhere(struct route *r, unsigned loop, int64_t since_ms);
/* A slot became free, or part of a client's share: tell the loops that wait. */
void route_wake(struct route *r);

/* A host offered CAPS when it was last seen, before this process: as if it had been reached, until
 * it is. */
void hosts_recall(struct hosts *h, struct span downstream, struct span label,
                  const struct smtp_capabilities *caps);
/* Did some host's capabilities change since the last call?  And as if one had. */
bool hosts_changed(struct hosts *h);
void hosts_set_changed(struct hosts *h);

/* For display: one call for each host. */
struct host_view {
    const char *downstream, *host; /* host: NAME:PORT */
    enum host_state state;
    int active, idle; /* connections */
    struct smtp_capabilities caps;
    bool was_reached;
    char error[160];
};
typedef void hosts_each_fn(void *arg, const struct host_view *view);
void hosts_each(struct hosts *h, hosts_each_fn *fn, void *arg);

#endif

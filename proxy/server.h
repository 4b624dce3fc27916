#ifndef PROXY_SERVER_H
#define PROXY_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/siphash.h"
#include "conf/settings.h"
#include "ldap/directory.h"
#include "policy/policy.h"

/* Everything of the process that more than one loop uses.  What is a pointer here is safe to use
 * from any thread by its own rules; the settings are immutable and swapped whole. */

struct metrics;
struct hosts;
struct spool;
struct resolver;
struct worker;
struct clients;
struct event_base;

struct server {
    const char *settings_path;
    struct directories *directories;
    struct policy *policy;
    struct resolver *resolver;
    struct metrics *metrics;
    struct hosts *hosts; /* downstream hosts: counts, state, capabilities (relay/host.h) */
    struct spool *spool;
    struct worker **workers;
    unsigned n_workers;
    struct clients *clients; /* sessions of each client network */
    int64_t started_ms;      /* clock_ms */
    int64_t started_wall_s;  /* clock_wall_s */
    uint64_t session_base;   /* makes session ids differ between runs */
    _Atomic uint64_t next_session;
    _Atomic unsigned connections; /* sessions that are open, over all workers */
    _Atomic unsigned tarpitted;   /* sessions whose reply is delayed, over all workers */
    _Atomic unsigned handshakes;  /* sessions in a TLS handshake, over all workers */
    _Atomic unsigned shaken;      /* those that were in one, since the start; it may wrap */
    int last_descriptor;          /* of sessions; those above are kept for what serves them */
    _Atomic bool is_draining;

    /* The rest of it, for server.c alone. */
    struct server_shared *shared;
};

/* The settings in force, with a reference taken: settings_unref when done. Any thread. */
struct settings *server_settings(struct server *srv);

/* Read the configuration anew and put it in force, as SIGHUP does.  Logs the outcome.  -1 with E
 * set, and everything stays as it was, on any fault.  Housekeeper's loop only. */
int server_reload(struct server *srv, struct err *e);
/* Begin to drain, as SIGTERM does. Any thread; twice is fine. */
void server_drain(struct server *srv);

/* A worker's thread has ended: the last one ends the process. */
void server_worker_done(struct server *srv);

/* The daemon, from binding the ports to the end.  ST (a reference that is taken over) was read from
 * SETTINGS_PATH, WARNINGS are what it left to say.  0 after a drain; -1 with E set when it could
 * not begin. */
int server_run(const char *settings_path, struct settings *st, const struct faults *warnings,
               struct err *e);

#endif

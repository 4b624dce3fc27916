#ifndef LDAP_DIRECTORY_H
#define LDAP_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "conf/settings.h"
#include "ldap/dir_address.h"

/* The recipient directory: the facade of ldap/, and the only header of it that others include.
 * It answers at once from a file, the cache or a snapshot, else asks the servers in threads of its
 * own.  It knows nothing of SMTP and nothing of libevent. */

enum dir_status {
    DIR_UNAVAILABLE, /* nobody could be asked and nothing is known: never "no" */
    DIR_ABSENT,      /* certainly not there */
    DIR_FOUND,
    DIR_PENDING /* the answer comes through the client's dispatch */
};

enum dir_source {
    DIR_SOURCE_NONE,
    DIR_SOURCE_CACHE,
    DIR_SOURCE_SNAPSHOT,
    DIR_SOURCE_LDAP,
    DIR_SOURCE_FILE
};

/* "cache", "snapshot", "ldap", "file"; "" for none. */
const char *dir_source_text(enum dir_source source);

/* What only the server's answer shows; for an administrator's eyes. */
struct dir_detail {
    char directory[64];                /* the section's name */
    char server[SETTINGS_URI_MAX + 1]; /* URI */
    char dn[512];
    char error[256]; /* why it could not be asked; empty: none */
    char text[4096]; /* "attribute: value" a line, cut between lines */
};

/* A value.  FOUND without a source: nobody could be asked, and `on_failure = accept` says yes. */
struct dir_answer {
    enum dir_status status;
    enum dir_source source;
    bool is_restricted; /* found, but this sender (or any stranger) may not write to it */
    bool was_known;     /* absent, but it left the directory lately (a tombstone): no harvest */
    uint64_t max_size;  /* octets a message to it may have; 0: no limit */
    int64_t age_ms;     /* of a cached or stored answer; else 0 */
    const struct dir_detail *detail; /* DIR_ASK_DETAIL: until DONE returns; may be NULL even so */
};

#define DIR_ASK_LIVE   1u /* past cache and snapshot; the answer refreshes them */
#define DIR_ASK_DETAIL 2u /* with DIR_ASK_LIVE: the answer has its detail */

/* All [directory ...] sections of a configuration, with their threads.  Shared by all loops. */
struct directories;

#define DIRECTORY_FILE_EMPTY "no address in it: every recipient is unknown"
/* Can PATH serve as a file directory?  -1 with E set ("PATH:LINE: ...") if not, else how many
 * addresses it has: 2^31 - 1 at most. */
int directory_file_check(const char *path, struct err *e);

/* Starts threads; waits for no server. NULL with E set if a file cannot be read or memory is out.
 * Keeps a reference to ST. */
struct directories *directories_new(struct settings *st, struct err *e);
/* Take a new configuration: files are read again, unchanged servers keep their connections and
 * caches (and a server whose bind was refused is tried again).  -1 with E set, and all stays as it
 * was, if a file cannot be read. */
int directories_reload(struct directories *d, struct settings *st, struct err *e);
/* Call each second, from the thread that reloads: frees what a reload took away, once nobody has it
 * and its threads have ended.  Does not wait. */
void directories_tick(struct directories *d);
/* After every client is gone. Joins the threads (a server that takes no connection delays this by
 * its timeout at most). */
void directories_free(struct directories **d);
/* False if some directory can answer neither live, nor from cache, nor by snapshot (for /readyz).
 */
bool directories_ready(struct directories *d);
/* Drop what the caches know of ADDRESS (canonical); true if they knew something. */
bool directories_forget(struct directories *d, struct span address);

/* What the downstream DS, asked in place of a directory (recipients = downstream), said of ADDRESS
 * (canonical): kept and recalled as a directory's answers are, with the defaults of [directory],
 * but not for a downstream of another name or with other hosts.  UNAVAILABLE: nothing is known;
 * TAKE_STALE admits a positive answer that is past its time, for when nobody can be asked.  Any
 * thread. */
void directories_remember(struct directories *d, const struct settings_downstream *ds,
                          struct span address, bool is_found, int64_t now_ms);
enum dir_status directories_recall(struct directories *d, const struct settings_downstream *ds,
                                   struct span address, bool take_stale, int64_t now_ms);

/* A directory's state, a value. */

enum dir_server_state {
    DIR_SERVER_UNTRIED, /* a stand-by that nobody has asked yet */
    DIR_SERVER_UP,
    DIR_SERVER_DEGRADED, /* the last question to it stayed open */
    DIR_SERVER_DOWN
};
/* "untried", "up", "degraded", "down". */
const char *dir_server_state_text(enum dir_server_state state);

struct dir_server_view {
    char uri[SETTINGS_URI_MAX + 1];
    enum dir_server_state state;
    char error[160]; /* of DEGRADED and DOWN */
};

struct dir_view {
    char name[64];           /* "" for the section without a name */
    const char *type, *mode; /* as in the configuration */
    bool is_up;              /* some server of it answers, or it needs none */
    bool has_snapshot;
    uint64_t entries;            /* addresses of the file or the snapshot */
    int64_t snapshot_age_s;      /* of the last look; -1: none was taken */
    int64_t snapshot_full_age_s; /* of the last full look; the same */
    bool is_looking;
    char snapshot_error[160]; /* why the last look was not taken; empty: it was */
    uint64_t cached;          /* answers in the cache */
    uint64_t searches;        /* sent since the start */
    unsigned pending;         /* questions not answered yet */
    struct dir_server_view servers[SETTINGS_SERVERS_MAX];
    size_t n_servers;
};

/* The directory number I, from 0; false beyond the last.  Any thread. */
bool directories_view(struct directories *d, size_t i, struct dir_view *out);

/* One loop's end.  Used by one thread only. */
struct directory_client;
typedef void directory_done_fn(void *arg, const struct dir_answer *answer);

struct directory_client *directory_client_new(struct directories *d);
void directory_client_free(struct directory_client **c); /* pending questions are forgotten */
/* Readable when directory_client_dispatch has work. */
int directory_client_fd(const struct directory_client *c);
/* Deliver what has arrived, and DIR_UNAVAILABLE (or the stale answer) to questions past their
 * deadline. Call when the descriptor is readable and at the latest at directory_client_next_ms. */
void directory_client_dispatch(struct directory_client *c, int64_t now_ms);
/* The next deadline on clock_ms's scale; INT64_MAX: none. */
int64_t directory_client_next_ms(const struct directory_client *c);

/* Is ADDRESS (canonical: smtp_path_canonical) a recipient, and may SENDER (canonical, empty for <>)
 * write to it?  DOMAIN is the accepted domain's section, which names the directories.  Answers at
 * once in *ANSWER, or returns DIR_PENDING, sets *TICKET, and calls DONE(ARG, answer) exactly once
 * from directory_client_dispatch unless directory_cancel comes first.  DONE may ask anew. ADDRESS
 * and SENDER are copied. */
enum dir_status directory_ask(struct directory_client *c, const struct settings_domain *domain,
                              struct span address, struct span sender, unsigned flags,
                              int64_t now_ms, struct dir_answer *answer, directory_done_fn *done,
                              void *arg, uint64_t *ticket);

/* What a directory that is kept as a snapshot may be told to do. */
enum dir_order {
    DIR_ORDER_SYNC,        /* look now, at all of it */
    DIR_ORDER_SYNC_FORCED, /* and take it whatever it loses */
    DIR_ORDER_DUPLICATES   /* list addresses that two objects have: Exchange delivers to neither
                              (NDR 5.1.4) */
};

struct dir_duplicate {
    char address[DIR_ADDRESS_MAX + 1];
    char dns[2][512];
};

struct dir_report {
    char error[256];        /* why it could not be done to its end; empty: it was */
    uint64_t entries;       /* addresses in the snapshot */
    uint64_t learned, lost; /* addresses, by the look */
    size_t n;
    struct dir_duplicate list[];
};

/* Tell the directory NAME.  DONE(ARG, report) is called once from directory_client_dispatch, REPORT
 * (NULL: memory is out) for as long as it runs, unless directory_cancel comes first; there is no
 * deadline, and an order that was begun is not undone.  False: NAME is not kept as a snapshot. */
typedef void directory_order_fn(void *arg, const struct dir_report *report);
bool directory_order(struct directory_client *c, const char *name, enum dir_order order,
                     directory_order_fn *done, void *arg, uint64_t *ticket);

/* A ticket that was answered is fine. */
void directory_cancel(struct directory_client *c, uint64_t ticket);

#endif

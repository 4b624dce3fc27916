#ifndef LDAP_DIR_SECTION_H
#define LDAP_DIR_SECTION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "conf/settings.h"
#include "ldap/dir_cache.h"
#include "ldap/dir_file.h"
#include "ldap/dir_pool.h"
#include "ldap/directory.h"
#include "ldap/snapshot.h"
#include "ldap/sync.h"

/* One [directory] section at work, and the set of all that belong to one configuration.  Both are
 * shared between threads by reference: a reload makes a new set, in which what did not change is
 * the old set's. */

struct dir_section {
    atomic_uint references;
    struct settings *settings; /* a reference, which keeps CONF */
    const struct settings_directory *conf;
    struct dir_file *file;    /* type file, else NULL */
    struct dir_cache *cache;  /* type ldap and ad, else NULL */
    struct dir_pool *pool;    /* the same */
    struct sync *sync;        /* mode snapshot, once it was begun; else NULL */
    atomic_bool is_stopped;   /* nobody has it, and its threads were told to end */
    struct dir_section *next; /* of all that are not freed yet; the list is directories' */
};

struct dir_set {
    atomic_uint references;
    size_t n;
    struct dir_section *sections[];
};

/* What BEFORE (or NULL), the section of the same name, has cached it takes over, if CONF's answers
 * are the same: a reload in an outage must not forget what is known.  NULL with E set. */
struct dir_section *dir_section_new(struct settings *st, const struct settings_directory *conf,
                                    const struct dir_section *before, struct err *e);
/* Before it is the current one: its limits hold for the cache, and mode snapshot begins to keep it
 * in SNAPSHOT.  What fails is told in the log, and the directory is asked live. */
void dir_section_begin(struct dir_section *s, struct snapshot *snapshot);
/* What CONF's cache_ keys say. */
struct dir_cache_limits dir_section_limits(const struct settings_directory *conf);
bool dir_section_is_snapshot(const struct settings_directory *conf);
/* Another one becomes current: its part of the snapshot is kept no longer.  Its servers answer
 * whoever has a reference yet.  Does not wait. */
void dir_section_retire(struct dir_section *s);
/* Try again now what backs off. */
void dir_section_retry(struct dir_section *s);
/* Without a reference its threads end, when they have nothing to do.  It is for the keeper of the
 * list to free it then. */
void dir_section_unref(struct dir_section *s);
/* Nobody has it, and dir_section_free will not wait. */
bool dir_section_has_ended(struct dir_section *s);
void dir_section_free(struct dir_section **s);
/* A section with CONF would do nothing else than S (which is never so for a file: it may have
 * changed). */
bool dir_section_serves(const struct dir_section *s, const struct settings_directory *conf);

/* What is asked of a section, and how. */
struct dir_section_question {
    struct span key;
    unsigned flags;                 /* DIR_ASK_ */
    bool is_of_stored;              /* the servers are not asked */
    struct snapshot_reader *reader; /* NULL: there is no snapshot */
    struct dir_inbox *box;
    uint64_t id; /* these two come back in the reply */
    unsigned step;
};

struct dir_section_answer {
    struct dir_verdict verdict;
    enum dir_source source;
    int64_t age_ms;
    bool has_stale; /* PENDING: what to say if no reply comes */
    struct dir_verdict stale;
    enum dir_source stale_source;
};

/* Answers at once, or PENDING and a reply comes. UNAVAILABLE: nobody can be asked, nothing is
 * known. */
enum dir_status dir_section_ask(struct dir_section *s, const struct dir_section_question *q,
                                int64_t now_ms, struct dir_section_answer *a);
/* ADDRESS left its snapshot lately. */
bool dir_section_was_known(struct dir_section *s, struct snapshot_reader *reader,
                           struct span address);
/* It can answer live, from its file, its cache or its snapshot. */
bool dir_section_is_ready(struct dir_section *s);
void dir_section_view(struct dir_section *s, struct dir_view *out);

struct dir_section *dir_set_find(const struct dir_set *set, const char *name); /* NULL: none */
struct dir_set *dir_set_ref(struct dir_set *set);
void dir_set_unref(struct dir_set *set);

#endif

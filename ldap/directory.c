#define _POSIX_C_SOURCE 200809L
#include "ldap/directory.h"

#include <ldap.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/siphash.h"
#include "ldap/dir_file.h"
#include "ldap/directory_private.h"

/* A client's inbox; a reference. */
struct guest {
    struct guest *next;
    struct dir_inbox *box;
};

struct directories {
    pthread_mutex_t lock;
    struct dir_set *current;
    atomic_uint generation; /* of CURRENT: clients look here before they take the lock */
    struct guest *guests;
    struct dir_section *all;    /* also those that only pending questions still hold */
    struct dir_cache *verified; /* what downstreams said; NULL: memory was out */
    struct snapshot *snapshot;  /* from the first mode = snapshot on */
};

const char *
dir_source_text(enum dir_source source)
{
    switch (source) {
    case DIR_SOURCE_CACHE:
        return "cache";
    case DIR_SOURCE_SNAPSHOT:
        return "snapshot";
    case DIR_SOURCE_LDAP:
        return "ldap";
    case DIR_SOURCE_FILE:
        return "file";
    case DIR_SOURCE_NONE:
        break;
    }
    return "";
}

const char *
dir_server_state_text(enum dir_server_state state)
{
    switch (state) {
    case DIR_SERVER_UNTRIED:
        return "untried";
    case DIR_SERVER_UP:
        return "up";
    case DIR_SERVER_DEGRADED:
        return "degraded";
    case DIR_SERVER_DOWN:
        break;
    }
    return "down";
}

/* The section of OLD (or NULL) that does what CONF asks for; else a new one. */
static struct dir_section *
take_section(const struct dir_set *old, struct settings *st, const struct settings_directory *conf,
             struct err *e)
{
    struct dir_section *s = old ? dir_set_find(old, conf->name) : NULL;

    if (!s || !dir_section_serves(s, conf))
        return dir_section_new(st, conf, s, e);
    atomic_fetch_add(&s->references, 1);
    return s;
}

static bool
set_has(const struct dir_set *set, const struct dir_section *s)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->sections[i] == s)
            return true;
    return false;
}

static bool
is_current(const struct directories *d, const struct dir_section *s)
{
    return d->current && set_has(d->current, s);
}

/* Into the list of all what D did not have before. */
static void
keep_new(struct directories *d, const struct dir_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        struct dir_section *s = set->sections[i];

        if (is_current(d, s))
            continue;
        s->next = d->all;
        d->all = s;
    }
}

static struct dir_set *
make_set(struct directories *d, struct settings *st, struct err *e)
{
    struct dir_set *set = calloc(1, sizeof *set + st->n_directories * sizeof(struct dir_section *));

    if (!set) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    atomic_init(&set->references, 1);
    for (; set->n < st->n_directories; set->n++) {
        set->sections[set->n] = take_section(d->current, st, &st->directories[set->n], e);
        if (!set->sections[set->n])
            break;
    }
    keep_new(d, set);
    if (set->n == st->n_directories)
        return set;
    dir_set_unref(set); /* the threads of those that were begun may take a while to end */
    return NULL;
}

/* Free what nobody holds any longer; unless AT_END only what can be freed without waiting for a
 * thread. */
static void
reap(struct directories *d, bool at_end)
{
    struct dir_section **at = &d->all;

    while (*at) {
        struct dir_section *s = *at;

        if (at_end ? atomic_load(&s->is_stopped) : dir_section_has_ended(s)) {
            *at = s->next;
            dir_section_free(&s);
        } else {
            at = &s->next;
        }
    }
}

/* Tell the clients that there is another set: one that nobody asks anything would have the old one,
 * and thereby its connections, for ever. */
static void
wake_clients(struct directories *d)
{
    pthread_mutex_lock(&d->lock);
    for (struct guest *g = d->guests; g; g = g->next) {
        struct dir_reply *r = calloc(1, sizeof *r); /* to no question */

        if (r)
            mailbox_post(dir_inbox_mailbox(g->box), &r->item);
    }
    pthread_mutex_unlock(&d->lock);
}

/* Make SET the current one.  Who has the old one is answered by it to his end. */
static void
put_set(struct directories *d, struct dir_set *set)
{
    struct dir_set *old;

    for (struct dir_section *s = d->all; s; s = s->next)
        if (!set_has(set, s))
            dir_section_retire(s);
    for (size_t i = 0; i < set->n; i++) {
        if (is_current(d, set->sections[i]))
            dir_section_retry(set->sections[i]);
        else
            dir_section_begin(set->sections[i], d->snapshot);
    }
    pthread_mutex_lock(&d->lock);
    old = d->current;
    d->current = set;
    atomic_fetch_add(&d->generation, 1);
    pthread_mutex_unlock(&d->lock);
    if (old)
        dir_set_unref(old);
    wake_clients(d);
}

/* If a section of ST is to be kept: open what it is kept in.  What is of no section any longer goes
 * from there. */
static int
open_snapshot(struct directories *d, const struct settings *st, struct err *e)
{
    const char **names = calloc(st->n_directories + 1, sizeof *names);
    struct snapshot *s = NULL;
    size_t n = 0;
    int rc = 0;

    if (!names)
        return err_set(e, ERR_SYSTEM, "out of memory");
    for (size_t i = 0; i < st->n_directories; i++)
        if (dir_section_is_snapshot(&st->directories[i]))
            names[n++] = st->directories[i].name;
    /* Only a reload can ask for this: a state_dir that the file has now is not in force. */
    if (n > 0 && !st->server.state_dir) {
        rc = err_set(e, ERR_CONFIG, "mode = snapshot needs a state_dir, which needs a restart");
    } else if (n > 0 && !d->snapshot) {
        s = snapshot_open(st->server.state_dir, e);
        rc = s ? snapshot_retain(s, names, n, e) : -1;
        pthread_mutex_lock(&d->lock);
        d->snapshot = s;
        pthread_mutex_unlock(&d->lock);
    }
    free(names);
    return rc;
}

/* What a downstream says of recipients is cached as the answers of the [directory] without a name
 * are, or would be. */
static struct dir_cache_limits
verified_limits(const struct settings *st)
{
    struct settings_directory defaults = {.name = NULL};
    const struct settings_directory *conf = &defaults;

    settings_cache_defaults(&defaults);
    for (size_t i = 0; i < st->n_directories; i++)
        if (st->directories[i].name[0] == '\0')
            conf = &st->directories[i];
    return dir_section_limits(conf);
}

struct directories *
directories_new(struct settings *st, struct err *e)
{
    struct directories *d = calloc(1, sizeof *d);
    const int version = LDAP_VERSION3;
    const struct dir_cache_limits limits = verified_limits(st);
    struct dir_set *set;

    if (!d)
        abort(); /* at start, of a few octets */
    /* libldap makes itself ready at its first use, which two threads must not be at once. */
    ldap_set_option(NULL, LDAP_OPT_PROTOCOL_VERSION, &version);
    d->verified = dir_cache_new(&limits);
    pthread_mutex_init(&d->lock, NULL);
    atomic_init(&d->generation, 0);
    /* First, as it makes a process while there are few threads. */
    set = open_snapshot(d, st, e) == 0 ? make_set(d, st, e) : NULL;
    if (set)
        put_set(d, set);
    else
        directories_free(&d);
    return d;
}

int
directories_reload(struct directories *d, struct settings *st, struct err *e)
{
    struct dir_set *set = open_snapshot(d, st, e) == 0 ? make_set(d, st, e) : NULL;
    const struct dir_cache_limits limits = verified_limits(st);

    if (set) {
        put_set(d, set);
        if (d->verified)
            dir_cache_limit(d->verified, &limits);
    }
    reap(d, false);
    return set ? 0 : -1;
}

void
directories_tick(struct directories *d)
{
    reap(d, false);
}

void
directories_free(struct directories **directories)
{
    struct directories *d = *directories;

    if (!d)
        return;
    if (d->current)
        dir_set_unref(d->current);
    reap(d, true);
    snapshot_close(&d->snapshot);
    dir_cache_unref(&d->verified);
    pthread_mutex_destroy(&d->lock);
    free(d);
    *directories = NULL;
}

unsigned
directories_generation(struct directories *d)
{
    return atomic_load(&d->generation);
}

struct snapshot *
directories_snapshot(struct directories *d)
{
    struct snapshot *s;

    pthread_mutex_lock(&d->lock);
    s = d->snapshot;
    pthread_mutex_unlock(&d->lock);
    return s;
}

struct dir_set *
directories_current(struct directories *d)
{
    struct dir_set *set;

    pthread_mutex_lock(&d->lock);
    set = dir_set_ref(d->current);
    pthread_mutex_unlock(&d->lock);
    return set;
}

bool
directories_join(struct directories *d, struct dir_inbox *box)
{
    struct guest *g = malloc(sizeof *g);

    if (!g)
        return false;
    g->box = dir_inbox_ref(box);
    pthread_mutex_lock(&d->lock);
    g->next = d->guests;
    d->guests = g;
    pthread_mutex_unlock(&d->lock);
    return true;
}

void
directories_leave(struct directories *d, const struct dir_inbox *box)
{
    struct guest **at = &d->guests, *g;

    pthread_mutex_lock(&d->lock);
    while ((*at)->box != box)
        at = &(*at)->next;
    g = *at;
    *at = g->next;
    pthread_mutex_unlock(&d->lock);
    dir_inbox_close(&g->box);
    free(g);
}

bool
directories_ready(struct directories *d)
{
    struct dir_set *set = directories_current(d);
    bool is_ready = true;

    for (size_t i = 0; i < set->n; i++)
        is_ready = is_ready && dir_section_is_ready(set->sections[i]);
    dir_set_unref(set);
    return is_ready;
}

bool
directories_forget(struct directories *d, struct span address)
{
    struct dir_set *set = directories_current(d);
    bool was_there = d->verified && dir_cache_forget(d->verified, address);

    for (size_t i = 0; i < set->n; i++)
        if (set->sections[i]->cache && dir_cache_forget(set->sections[i]->cache, address))
            was_there = true;
    dir_set_unref(set);
    return was_there;
}

bool
directories_view(struct directories *d, size_t i, struct dir_view *out)
{
    struct dir_set *set = directories_current(d);
    bool is_there = i < set->n;

    if (is_there)
        dir_section_view(set->sections[i], out);
    dir_set_unref(set);
    return is_there;
}

/* ADDRESS, NUL, and a digest of who was asked. */
static struct span
verified_key(const struct settings_downstream *ds, struct span address, char out[DIR_KEY_MAX])
{
    struct siphash_key key = {.octets = {0}};
    uint64_t digest = siphash64(&key, ds->name, strlen(ds->name));
    size_t n = address.n < DIR_ADDRESS_MAX ? address.n : DIR_ADDRESS_MAX;

    for (size_t i = 0; i < ds->hosts.n; i++) {
        const struct host_entry *host = &ds->hosts.v[i];

        memcpy(key.octets, &digest, sizeof digest);
        digest = siphash64(&key, host->name, strlen(host->name)) + host->port;
    }
    memcpy(out, address.p, n);
    out[n] = '\0';
    memcpy(out + n + 1, &digest, sizeof digest);
    return span_of(out, n + 1 + sizeof digest);
}

void
directories_remember(struct directories *d, const struct settings_downstream *ds,
                     struct span address, bool is_found, int64_t now_ms)
{
    struct dir_verdict v = {.status = is_found ? DIR_FOUND : DIR_ABSENT};
    char key[DIR_KEY_MAX];

    if (d->verified)
        dir_cache_put(d->verified, verified_key(ds, address, key), now_ms, &v);
}

enum dir_status
directories_recall(struct directories *d, const struct settings_downstream *ds, struct span address,
                   bool take_stale, int64_t now_ms)
{
    struct dir_verdict v;
    char key[DIR_KEY_MAX];
    int64_t age_ms;
    enum dir_cache_age age =
        d->verified
            ? dir_cache_get(d->verified, verified_key(ds, address, key), now_ms, &v, &age_ms)
            : DIR_CACHE_NONE;

    if (age == DIR_CACHE_FRESH || (age == DIR_CACHE_STALE && take_stale))
        return v.status;
    return DIR_UNAVAILABLE;
}

int
directory_file_check(const char *path, struct err *e)
{
    struct dir_file *file = dir_file_load(path, e);
    size_t n;

    if (!file)
        return -1;
    n = dir_file_count(file);
    dir_file_free(&file);
    return n > INT_MAX ? INT_MAX : (int)n;
}

#include "ldap/dir_section.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

struct dir_cache_limits
dir_section_limits(const struct settings_directory *conf)
{
    return (struct dir_cache_limits){.entries = (size_t)conf->cache_size,
                                     .positive_ms = conf->cache_positive,
                                     .negative_ms = conf->cache_negative,
                                     .stale_ms = conf->cache_stale};
}

static struct dir_section *
section_start(struct dir_section *s, const struct dir_section *before, struct err *e)
{
    const struct settings_directory *conf = s->conf;
    const struct dir_cache_limits limits = dir_section_limits(conf);

    if (conf->type == SETTINGS_TYPE_FILE) {
        s->file = dir_file_load(conf->file ? conf->file : "", e);
        if (s->file && dir_file_count(s->file) == 0)
            log_event(LOG_LEVEL_WARNING, "warning", "file", conf->file, "error",
                      DIRECTORY_FILE_EMPTY, NULL);
        return s->file ? s : NULL;
    }
    s->cache = before && before->cache && settings_directory_agree(before->conf, conf)
                   ? dir_cache_ref(before->cache)
                   : dir_cache_new(&limits);
    if (!s->cache) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    s->pool = dir_pool_new(conf, s->cache, e);
    return s->pool ? s : NULL;
}

struct dir_section *
dir_section_new(struct settings *st, const struct settings_directory *conf,
                const struct dir_section *before, struct err *e)
{
    struct dir_section *s = calloc(1, sizeof *s);

    if (!s) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    atomic_init(&s->references, 1);
    atomic_init(&s->is_stopped, false);
    s->settings = settings_ref(st);
    s->conf = conf;
    if (!section_start(s, before, e)) {
        err_wrap(e, "directory%s%s", conf->name[0] ? " " : "", conf->name);
        dir_section_free(&s);
    }
    return s;
}

void
dir_section_unref(struct dir_section *s)
{
    if (atomic_fetch_sub(&s->references, 1) != 1)
        return;
    if (s->pool)
        dir_pool_stop(s->pool);
    atomic_store(&s->is_stopped, true); /* last: now it may be freed at any time */
}

void
dir_section_free(struct dir_section **section)
{
    struct dir_section *s = *section;

    if (!s)
        return;
    sync_free(&s->sync);
    dir_pool_free(&s->pool);
    dir_cache_unref(&s->cache);
    dir_file_free(&s->file);
    settings_unref(s->settings);
    free(s);
    *section = NULL;
}

bool
dir_section_is_snapshot(const struct settings_directory *conf)
{
    return conf->type != SETTINGS_TYPE_FILE && conf->mode == SETTINGS_MODE_SNAPSHOT;
}

void
dir_section_begin(struct dir_section *s, struct snapshot *snapshot)
{
    const struct dir_cache_limits limits = dir_section_limits(s->conf);
    struct err e;

    if (s->cache)
        dir_cache_limit(s->cache, &limits);
    if (!snapshot || !dir_section_is_snapshot(s->conf))
        return;
    s->sync = sync_new(s->conf, snapshot, &e);
    if (!s->sync)
        log_event(LOG_LEVEL_ERROR, "directory", "state", "degraded", "directory", s->conf->name,
                  "error", e.text, NULL);
}

void
dir_section_retire(struct dir_section *s)
{
    if (s->sync)
        sync_stop(s->sync);
}

bool
dir_section_has_ended(struct dir_section *s)
{
    return atomic_load(&s->is_stopped) && (!s->pool || dir_pool_has_ended(s->pool)) &&
           (!s->sync || sync_has_ended(s->sync));
}

void
dir_section_retry(struct dir_section *s)
{
    if (s->pool)
        dir_pool_retry(s->pool);
    if (s->sync)
        sync_retry(s->sync);
}

bool
dir_section_serves(const struct dir_section *s, const struct settings_directory *conf)
{
    return !s->file && settings_directory_equal(s->conf, conf);
}

/* What it keeps; NULL: nothing that may be read. */
static struct snapshot_part *
readable_part(const struct dir_section *s)
{
    return s->sync ? sync_part(s->sync) : NULL;
}

/* The cache, unless it is to be passed over: true if it says all. */
static bool
ask_cache(struct dir_section *s, const struct dir_section_question *q, int64_t now_ms,
          struct dir_section_answer *a)
{
    struct dir_verdict known;
    int64_t age_ms;

    if (q->flags & DIR_ASK_LIVE)
        return false;
    switch (dir_cache_get(s->cache, q->key, now_ms, &known, &age_ms)) {
    case DIR_CACHE_FRESH:
        a->verdict = known;
        a->source = DIR_SOURCE_CACHE;
        a->age_ms = age_ms;
        return true;
    case DIR_CACHE_STALE:
        a->has_stale = true;
        a->stale = known;
        a->stale_source = DIR_SOURCE_CACHE;
        a->age_ms = age_ms;
        return false;
    case DIR_CACHE_NONE:
        break;
    }
    return false;
}

/* The snapshot lacks the address.  True if that says all; else the servers are to be asked. */
static bool
ask_beyond_snapshot(const struct dir_section *s, int64_t age_ms, struct dir_section_answer *a)
{
    bool is_fresh = age_ms < s->conf->snapshot_fresh;

    if (is_fresh && !a->has_stale) {
        a->has_stale = true;
        a->stale = (struct dir_verdict){.status = DIR_ABSENT};
        a->stale_source = DIR_SOURCE_SNAPSHOT;
        a->age_ms = age_ms;
    }
    if (s->conf->snapshot_confirm || !is_fresh)
        return false;
    a->verdict = a->stale;
    a->source = a->stale_source;
    return true;
}

/* What is stored: the snapshot, and the cache, which has what was answered live.  The newer of the
 * two is right.  True if that says all. */
static bool
ask_stored(struct dir_section *s, const struct dir_section_question *q, int64_t now_ms,
           struct dir_section_answer *a)
{
    struct snapshot_part *part = readable_part(s);
    enum snapshot_found found = SNAPSHOT_UNKNOWN;
    struct dir_verdict stored;
    int64_t age_ms;
    bool is_cached;

    if (part && q->reader && !(q->flags & DIR_ASK_LIVE))
        found = snapshot_find(q->reader, part, q->key, &stored);
    is_cached = ask_cache(s, q, now_ms, a);
    if (found == SNAPSHOT_UNKNOWN)
        return is_cached;
    age_ms = now_ms - snapshot_age(part).look_ms;
    if ((is_cached || a->has_stale) && a->age_ms >= age_ms) {
        /* Older than the look. */
        is_cached = is_cached && found == SNAPSHOT_LACKS && a->verdict.status == DIR_ABSENT;
        a->has_stale = false;
    }
    if (is_cached)
        return true;
    if (found == SNAPSHOT_LACKS)
        return ask_beyond_snapshot(s, age_ms, a);
    a->verdict = stored;
    a->source = DIR_SOURCE_SNAPSHOT;
    a->age_ms = age_ms;
    return true;
}

enum dir_status
dir_section_ask(struct dir_section *s, const struct dir_section_question *q, int64_t now_ms,
                struct dir_section_answer *a)
{
    *a = (struct dir_section_answer){.verdict = {.status = DIR_UNAVAILABLE}};
    if (s->file) {
        a->verdict.status = dir_file_has(s->file, q->key) ? DIR_FOUND : DIR_ABSENT;
        a->source = DIR_SOURCE_FILE;
    } else if (!ask_stored(s, q, now_ms, a)) {
        a->verdict.status = DIR_UNAVAILABLE;
        if (!q->is_of_stored &&
            dir_pool_ask(s->pool, q->key, q->flags & DIR_ASK_DETAIL, q->box, q->id, q->step))
            return DIR_PENDING;
        if (a->has_stale) {
            a->verdict = a->stale;
            a->source = a->stale_source;
        }
    }
    return a->verdict.status;
}

bool
dir_section_was_known(struct dir_section *s, struct snapshot_reader *reader, struct span address)
{
    struct snapshot_part *part = readable_part(s);

    return part && reader &&
           snapshot_was_known(reader, part, address, clock_wall_s() - s->conf->tombstones / 1000);
}

bool
dir_section_is_ready(struct dir_section *s)
{
    struct snapshot_part *part = readable_part(s);

    return s->file || dir_pool_is_up(s->pool) || (part && snapshot_age(part).is_there) ||
           dir_cache_serves(s->cache, clock_ms());
}

static const char *
type_text(enum settings_type type)
{
    switch (type) {
    case SETTINGS_TYPE_FILE:
        return "file";
    case SETTINGS_TYPE_LDAP:
        return "ldap";
    case SETTINGS_TYPE_AD:
        return "ad";
    }
    return "";
}

void
dir_section_view(struct dir_section *s, struct dir_view *out)
{
    *out = (struct dir_view){
        .type = type_text(s->conf->type),
        .mode = s->conf->mode == SETTINGS_MODE_SNAPSHOT ? "snapshot" : "lookup",
        .snapshot_age_s = -1,
        .snapshot_full_age_s = -1,
    };
    span_copy(out->name, sizeof out->name, span_str(s->conf->name));
    if (s->file) {
        out->is_up = true;
        out->entries = dir_file_count(s->file);
    } else {
        dir_pool_view(s->pool, out);
        out->cached = dir_cache_count(s->cache);
        if (s->sync)
            sync_view(s->sync, out);
    }
}

struct dir_section *
dir_set_find(const struct dir_set *set, const char *name)
{
    for (size_t i = 0; i < set->n; i++)
        if (strcmp(set->sections[i]->conf->name, name) == 0)
            return set->sections[i];
    return NULL;
}

struct dir_set *
dir_set_ref(struct dir_set *set)
{
    atomic_fetch_add(&set->references, 1);
    return set;
}

void
dir_set_unref(struct dir_set *set)
{
    if (atomic_fetch_sub(&set->references, 1) != 1)
        return;
    for (size_t i = 0; i < set->n; i++)
        dir_section_unref(set->sections[i]);
    free(set);
}

#include "ldap/dir_section.h"

#include <stdlib.h>
#include <string.h>

static struct dir_section *
section_start(struct dir_section *s, struct err *e)
{
    const struct settings_directory *conf = s->conf;
    const struct dir_cache_limits limits = {
        .entries = (size_t)conf->cache_size,
        .positive_ms = conf->cache_positive,
        .negative_ms = conf->cache_negative,
        .stale_ms = conf->cache_stale,
    };

    if (conf->type == SETTINGS_TYPE_FILE) {
        s->file = dir_file_load(conf->file ? conf->file : "", e);
        return s->file ? s : NULL;
    }
    s->cache = dir_cache_new(&limits);
    if (!s->cache) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    s->pool = dir_pool_new(conf, s->cache, e);
    return s->pool ? s : NULL;
}

struct dir_section *
dir_section_new(struct settings *st, const struct settings_directory *conf, struct err *e)
{
    struct dir_section *s = calloc(1, sizeof *s);

    if (!s) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    atomic_init(&s->references, 1);
    s->settings = settings_ref(st);
    s->conf = conf;
    if (!section_start(s, e)) {
        err_wrap(e, "directory%s%s", conf->name[0] ? " " : "", conf->name);
        dir_section_free(&s);
    }
    return s;
}

void
dir_section_unref(struct dir_section *s)
{
    atomic_fetch_sub(&s->references, 1);
}

void
dir_section_free(struct dir_section **section)
{
    struct dir_section *s = *section;

    if (!s)
        return;
    dir_pool_free(&s->pool);
    dir_cache_free(&s->cache);
    dir_file_free(&s->file);
    settings_unref(s->settings);
    free(s);
    *section = NULL;
}

bool
dir_section_serves(const struct dir_section *s, const struct settings_directory *conf)
{
    return !s->file && settings_directory_equal(s->conf, conf);
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
        a->age_ms = age_ms;
        return false;
    case DIR_CACHE_NONE:
        break;
    }
    return false;
}

enum dir_status
dir_section_ask(struct dir_section *s, const struct dir_section_question *q, int64_t now_ms,
                struct dir_section_answer *a)
{
    *a = (struct dir_section_answer){.verdict = {.status = DIR_UNAVAILABLE}};
    if (s->file) {
        a->verdict.status = dir_file_has(s->file, q->key) ? DIR_FOUND : DIR_ABSENT;
        a->source = DIR_SOURCE_FILE;
    } else if (!ask_cache(s, q, now_ms, a)) {
        if (dir_pool_ask(s->pool, q->key, q->flags & DIR_ASK_DETAIL, q->box, q->id, q->step))
            return DIR_PENDING;
        if (a->has_stale) {
            a->verdict = a->stale;
            a->source = DIR_SOURCE_CACHE;
        }
    }
    return a->verdict.status;
}

bool
dir_section_is_ready(struct dir_section *s)
{
    return s->file || dir_pool_is_up(s->pool) ||
           (s->conf->cache_stale > 0 && dir_cache_count(s->cache) > 0);
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
    };
    span_copy(out->name, sizeof out->name, span_str(s->conf->name));
    if (s->file) {
        out->is_up = true;
        out->entries = dir_file_count(s->file);
    } else {
        dir_pool_view(s->pool, out);
        out->cached = dir_cache_count(s->cache);
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

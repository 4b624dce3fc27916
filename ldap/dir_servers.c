#define _POSIX_C_SOURCE 200809L /* strnlen */
#include "ldap/dir_servers.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/span.h"

#define TELL_AGAIN_MS 10000 /* another error of a server that is down */

struct server {
    bool is_known, is_up; /* is_known: its state has been logged */
    bool is_news;         /* its error has not */
    int64_t told_ms;
    char error[160];
};

struct dir_servers {
    const struct settings_directory *conf;
    char search_error[160]; /* why the last question stayed open; empty: it was answered */
    size_t search_uri;      /* the server that was asked */
    bool is_search_told;    /* it is in the log */
    int64_t search_told_ms; /* when that was the last time */
    bool is_doubtful;       /* no search was answered since connections are open again */
    int64_t probe_ms;       /* when to probe again, while there is an error */
    struct server v[];
};

struct dir_servers *
dir_servers_new(const struct settings_directory *conf)
{
    struct dir_servers *s = calloc(1, sizeof *s + conf->uri.n * sizeof s->v[0]);

    if (!s)
        return NULL;
    s->conf = conf;
    s->search_told_ms = clock_ms() - TELL_AGAIN_MS;
    return s;
}

void
dir_servers_free(struct dir_servers **s)
{
    free(*s);
    *s = NULL;
}

static void
tell(const struct dir_servers *s, size_t uri, const char *state, enum log_level level,
     const char *error)
{
    struct log_line l;

    log_begin(&l, level, "directory");
    log_str(&l, "state", state);
    if (s->conf->name[0])
        log_str(&l, "directory", s->conf->name);
    log_str(&l, "host", s->conf->uri.v[uri]);
    if (error)
        log_str(&l, "error", error);
    log_end(&l);
}

bool
dir_servers_note(struct dir_servers *s, size_t uri, const char *error)
{
    struct server *one = &s->v[uri];
    bool is_change = !one->is_known || one->is_up != !error;

    if (error && strcmp(one->error, error) != 0) {
        one->is_news = true;
        span_copy(one->error, sizeof one->error,
                  span_of(error, strnlen(error, sizeof one->error - 1)));
    }
    if (!error)
        one->error[0] = '\0';
    if (error && s->search_uri == uri) { /* there is worse to tell */
        s->search_error[0] = '\0';
        s->is_search_told = false;
    }
    if (is_change || (error && one->is_news && clock_ms() - one->told_ms >= TELL_AGAIN_MS)) {
        tell(s, uri, error ? "down" : "up", error ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE, error);
        one->told_ms = clock_ms();
        one->is_news = false;
    }
    one->is_known = true;
    one->is_up = !error;
    return is_change;
}

bool
dir_servers_is_up(const struct dir_servers *s, size_t uri)
{
    return s->v[uri].is_up;
}

bool
dir_servers_is_down(const struct dir_servers *s, size_t uri)
{
    return s->v[uri].is_known && !s->v[uri].is_up;
}

bool
dir_servers_are_all_down(const struct dir_servers *s)
{
    for (size_t i = 0; i < s->conf->uri.n; i++)
        if (!dir_servers_is_down(s, i))
            return false;
    return true;
}

void
dir_servers_searched(struct dir_servers *s, size_t uri, const char *error)
{
    if (error) {
        if (s->search_error[0] == '\0')
            s->probe_ms = 0;
        s->search_uri = uri;
        span_copy(s->search_error, sizeof s->search_error,
                  span_of(error, strnlen(error, sizeof s->search_error - 1)));
        /* One address may always fail among others that do not: not a line for each. */
        if (!s->is_search_told && clock_ms() - s->search_told_ms >= TELL_AGAIN_MS) {
            tell(s, uri, "degraded", LOG_LEVEL_WARNING, error);
            s->search_told_ms = clock_ms();
            s->is_search_told = true;
        }
        return;
    }
    if (s->is_search_told)
        tell(s, uri, "up", LOG_LEVEL_NOTICE, NULL);
    s->is_search_told = false;
    s->search_error[0] = '\0';
    s->is_doubtful = false;
}

void
dir_servers_doubt(struct dir_servers *s)
{
    s->is_doubtful = true;
}

bool
dir_servers_are_mute(const struct dir_servers *s)
{
    return s->is_doubtful && s->search_error[0] != '\0';
}

int64_t
dir_servers_probe_ms(const struct dir_servers *s)
{
    return s->search_error[0] != '\0' ? s->probe_ms : INT64_MAX;
}

void
dir_servers_set_probe(struct dir_servers *s, int64_t probe_ms)
{
    s->probe_ms = probe_ms;
}

void
dir_servers_explain(const struct dir_servers *s, const char *why, struct dir_detail *detail)
{
    span_copy(detail->directory, sizeof detail->directory, span_str(s->conf->name));
    for (size_t i = 0; i < s->conf->uri.n && detail->error[0] == '\0'; i++) {
        span_copy(detail->server, sizeof detail->server, span_str(s->conf->uri.v[i]));
        span_copy(detail->error, sizeof detail->error, span_str(s->v[i].error));
    }
    if (detail->error[0] == '\0')
        span_copy(detail->error, sizeof detail->error,
                  span_str(why ? why : "no answer within the timeout"));
}

static enum dir_server_state
state_of(const struct dir_servers *s, size_t uri)
{
    if (!s->v[uri].is_known)
        return DIR_SERVER_UNTRIED;
    if (!s->v[uri].is_up)
        return DIR_SERVER_DOWN;
    return s->search_error[0] != '\0' && s->search_uri == uri ? DIR_SERVER_DEGRADED : DIR_SERVER_UP;
}

void
dir_servers_view(const struct dir_servers *s, struct dir_view *out)
{
    for (size_t i = 0; i < s->conf->uri.n; i++) {
        struct dir_server_view *one = &out->servers[out->n_servers++];

        span_copy(one->uri, sizeof one->uri, span_str(s->conf->uri.v[i]));
        one->state = state_of(s, i);
        span_copy(one->error, sizeof one->error,
                  span_str(one->state == DIR_SERVER_DEGRADED ? s->search_error : s->v[i].error));
    }
}

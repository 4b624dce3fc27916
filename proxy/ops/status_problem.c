#include "proxy/ops/status.h"

bool
status_is_ready(const struct status *s)
{
    for (size_t i = 0; i < s->n_hosts; i++) {
        if (s->hosts[i].state == HOST_UP)
            return s->is_directory_ready;
    }
    return false;
}

const char *
status_host_state(enum host_state state)
{
    switch (state) {
    case HOST_UNTRIED:
        return "untried";
    case HOST_UP:
        return "up";
    case HOST_DEGRADED:
        return "degraded";
    case HOST_DOWN:
        break;
    }
    return "down";
}

/* That of the section without one, too. */
static const char *
directory_name(const struct dir_view *d)
{
    return d->name[0] != '\0' ? d->name : "default";
}

size_t
status_problems(const struct status *s, struct status_problem *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_hosts && n < max; i++) {
        const struct host_view *h = &s->hosts[i];
        if (h->state != HOST_UP)
            out[n++] = (struct status_problem){"downstream", h->downstream, h->host,
                                               status_host_state(h->state), h->error};
    }
    for (size_t i = 0; i < s->n_directories; i++) {
        const struct dir_view *d = &s->directories[i];
        for (size_t k = 0; k < d->n_servers && n < max; k++) {
            const struct dir_server_view *v = &d->servers[k];
            if (v->state == DIR_SERVER_DEGRADED || v->state == DIR_SERVER_DOWN)
                out[n++] = (struct status_problem){"directory", directory_name(d), v->uri,
                                                   dir_server_state_text(v->state), v->error};
        }
        if (d->snapshot_error[0] != '\0' && n < max)
            out[n++] = (struct status_problem){"directory", directory_name(d), "", "degraded",
                                               d->snapshot_error};
    }
    if (!s->is_directory_ready && n < max)
        out[n++] = (struct status_problem){"directory", "", "", "down", "it cannot answer"};
    if (!s->is_ledger_up && n < max)
        out[n++] = (struct status_problem){"ledger", "", "", "degraded",
                                           s->ledger_error[0] != '\0' ? s->ledger_error
                                                                      : "Redis does not answer"};
    for (size_t i = 0; i < s->n_zones && n < max; i++)
        out[n++] =
            (struct status_problem){"dnsbl", s->zones[i].name, "", "down", s->zones[i].fault};
    if (s->is_draining && n < max)
        out[n++] = (struct status_problem){"server", "", "", "degraded", "it is shutting down"};
    return n;
}

#include <string.h>

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

/* What is to be said of a part with UP of ALL servers up; NULL: nothing. */
static const char *
state_of(size_t up, size_t all)
{
    return up == all ? NULL : up ? "degraded" : "down";
}

/* The downstream of the hosts from I on, which stand together. */
static size_t
downstream_problem(const struct status *s, size_t i, struct status_problem *p)
{
    const char *name = s->hosts[i].downstream;
    size_t up = 0, all = 0;
    *p = (struct status_problem){.part = "downstream", .name = name, .error = ""};
    for (; i < s->n_hosts && strcmp(s->hosts[i].downstream, name) == 0; i++) {
        all++;
        up += s->hosts[i].state == HOST_UP;
        if (s->hosts[i].state != HOST_UP && !*p->error)
            p->error = s->hosts[i].error;
    }
    p->state = state_of(up, all);
    return i;
}

static void
directory_problem(const struct status_directory *d, struct status_problem *p)
{
    size_t up = 0;
    *p = (struct status_problem){.part = "directory", .name = d->name, .error = ""};
    for (size_t i = 0; i < d->n_servers; i++) {
        up += d->servers[i].is_up;
        if (!d->servers[i].is_up && !*p->error)
            p->error = d->servers[i].error;
    }
    p->state = state_of(up, d->n_servers);
}

size_t
status_problems(const struct status *s, struct status_problem *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_hosts && n < max;) {
        i = downstream_problem(s, i, &out[n]);
        n += out[n].state != NULL;
    }
    for (size_t i = 0; i < s->n_directories && n < max; i++) {
        directory_problem(&s->directories[i], &out[n]);
        n += out[n].state != NULL;
    }
    if (s->is_ledger_shared && !s->is_ledger_up && n < max)
        out[n++] = (struct status_problem){"ledger", "", "degraded", "Redis does not answer"};
    if (s->is_draining && n < max)
        out[n++] = (struct status_problem){"server", "", "degraded", "it is shutting down"};
    return n;
}

#include "proxy/session/edit.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/remote_domain.h"
#include "proxy/smtp/header.h"
#include "proxy/smtp/trace.h"

#define TRACE_MAX 2048
/* So often may a message have passed through us: a forward that leads back here once or twice is
 * odd, more is a loop. */
#define OWN_HOPS_MAX 3

_Static_assert(REMOTE_NOTIFY_NEVER == SMTP_NOTIFY_NEVER &&
                   REMOTE_NOTIFY_SUCCESS == SMTP_NOTIFY_SUCCESS &&
                   REMOTE_NOTIFY_FAILURE == SMTP_NOTIFY_FAILURE &&
                   REMOTE_NOTIFY_DELAY == SMTP_NOTIFY_DELAY,
               "the policy's bits of NOTIFY are the grammar's");

static bool
contains(struct span text, const char *word)
{
    size_t n = strlen(word);

    for (size_t i = 0; i + n <= text.n; i++)
        if (span_starts_nocase(span_of(text.p + i, text.n - i), word))
            return true;
    return false;
}

/* A Received field that we wrote ourselves: our name and our mark behind "by". */
static bool
is_own_hop(struct span value, const char *hostname)
{
    return contains(value, "(Postern)") && contains(value, hostname);
}

static bool
is_loop(struct span header, const struct settings *st)
{
    struct header_field field;
    int hops = 0, own = 0;

    while (header_next(&header, &field)) {
        if (!header_name_is(&field, "Received"))
            continue;
        hops++;
        if (is_own_hop(field.value, st->server.hostname))
            own++;
    }
    return hops > st->server.max_hops || own > OWN_HOPS_MAX;
}

static bool
is_internal_field(const struct header_field *field)
{
    return header_name_starts(field, "X-MS-Exchange-Organization-") ||
           header_name_starts(field, "X-MS-Exchange-Forest-");
}

static size_t
write_trace(const struct message *m, const struct edit *edit, char *out)
{
    char date[40];
    struct trace trace = {.helo = edit->helo,
                          .client = edit->client,
                          .hostname = edit->settings->server.hostname,
                          .is_esmtp = edit->is_esmtp,
                          .is_tls = edit->ssl != NULL,
                          .is_utf8 = m->is_smtputf8,
                          .id = edit->id,
                          .recipient = m->n_recipients == 1 ? m->recipients[0].address : NULL,
                          .date = date};

    clock_rfc5322(date, clock_wall_s());
    if (edit->ssl != NULL) {
        trace.tls_version = SSL_get_version(edit->ssl);
        trace.tls_cipher = SSL_get_cipher_name(edit->ssl);
    }
    return trace_received(out, TRACE_MAX, &trace);
}

static struct span
sender_domain(const struct message *m)
{
    const char *at = strrchr(m->sender_canonical, '@');

    return at != NULL ? span_str(at + 1) : span_of("", 0);
}

/* The rules ask for what only DSN can carry: said once for each downstream. */
static void
tell_no_dsn(struct route *route)
{
    if (route_tell_no_dsn(route))
        log_event(LOG_LEVEL_WARNING, "downstream", "downstream", route_name(route), "state",
                  "degraded", "error", "offers no DSN: [remote_domain] rules work by header alone",
                  NULL);
}

enum edit_verdict
edit_message(struct message *m, const struct edit *edit)
{
    const struct settings *st = edit->settings;
    struct remote_rules rules =
        remote_domain_rules(settings_remote_domain_for(st, sender_domain(m)), edit->is_proven);
    struct span rest = span_of(m->header, m->header_n);
    bool has_dsn = edit->route != NULL && route_has_dsn(edit->route);
    struct header_field field;

    if (is_loop(rest, st))
        return EDIT_LOOP;
    if (remote_domain_needs_dsn(&rules) && !has_dsn && edit->route != NULL)
        tell_no_dsn(edit->route);
    char *out = malloc(TRACE_MAX + REMOTE_HEADER_TEXT + m->header_n);
    if (out == NULL)
        return EDIT_FAILED;
    /* A first line that begins with a blank continues our last field.  The trace bears that, as it
     * does at any server; the list of what is suppressed would end in a word that nobody knows. */
    bool is_folded = rest.n > 0 && (rest.p[0] == ' ' || rest.p[0] == '\t');
    size_t n = is_folded ? remote_domain_header(&rules, has_dsn, out) : 0;
    n += write_trace(m, edit, out + n);
    if (!is_folded)
        n += remote_domain_header(&rules, has_dsn, out + n);
    while (header_next(&rest, &field)) {
        if ((st->server.header_firewall && is_internal_field(&field)) ||
            remote_domain_strips(&rules, field.name))
            continue;
        memcpy(out + n, field.whole.p, field.whole.n);
        n += field.whole.n;
    }
    /* What is left is the empty line, if the message has one. */
    if (rest.n > 0)
        memcpy(out + n, rest.p, rest.n);
    message_replace_header(m, out, n + rest.n);
    for (size_t i = 0; i < m->n_recipients; i++)
        m->recipients[i].notify = remote_domain_notify(&rules, m->recipients[i].notify);
    return EDIT_OK;
}

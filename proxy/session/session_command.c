#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/acl.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/host.h"
#include "proxy/session/session_private.h"

#define HANDSHAKE_MS 30000

/* What is offered to this client now.  What concerns the message goes by what every downstream can.
 */
static struct smtp_capabilities
capabilities_for(const struct session *s)
{
    static const uint32_t downstreams = SMTP_CAP_BIT(SIZE) | SMTP_CAP_BIT(8BITMIME) |
                                        SMTP_CAP_BIT(SMTPUTF8) | SMTP_CAP_BIT(DSN) |
                                        SMTP_CAP_BIT(CHUNKING) | SMTP_CAP_BIT(BINARYMIME);
    struct smtp_capabilities caps;

    hosts_capabilities(s->w->srv->hosts, &caps);
    caps.bits &= downstreams;
    caps.bits |=
        SMTP_CAP_BIT(PIPELINING) | SMTP_CAP_BIT(ENHANCEDSTATUSCODES) | SMTP_CAP_BIT(LIMITS);
    /* RFC 3030 4: BINARYMIME makes no sense without CHUNKING. */
    if ((caps.bits & SMTP_CAP_BIT(CHUNKING)) == 0)
        caps.bits &= ~SMTP_CAP_BIT(BINARYMIME);
    if (!s->is_tls && s->w->tls != NULL)
        caps.bits |= SMTP_CAP_BIT(STARTTLS);
    caps.xclient = 0;
    if (network_list_contains(&s->st->server.xclient, &s->peer)) {
        caps.bits |= SMTP_CAP_BIT(XCLIENT);
        caps.xclient = SMTP_XCLIENT_BIT(NAME) | SMTP_XCLIENT_BIT(ADDR) | SMTP_XCLIENT_BIT(PORT) |
                       SMTP_XCLIENT_BIT(PROTO) | SMTP_XCLIENT_BIT(HELO);
    }
    caps.size = session_size_limit(s);
    caps.recipients = (uint32_t)s->st->server.max_recipients;
    return caps;
}

uint64_t
session_size_limit(const struct session *s)
{
    uint64_t ours = s->st->server.max_message_size;
    struct smtp_capabilities caps;

    hosts_capabilities(s->w->srv->hosts, &caps);
    if (caps.size != 0 && (ours == 0 || caps.size < ours))
        return caps.size;
    return ours != 0 ? ours : UINT64_C(64) * 1024 * 1024;
}

/* Between transactions a session moves on to the settings in force. */
static void
refresh_settings(struct session *s)
{
    if (s->st == s->w->settings)
        return;
    settings_unref(s->st);
    s->st = settings_ref(s->w->settings);
}

static void
error(struct session *s, enum smtp_reply_id id)
{
    session_reply(s, id, NULL);
    session_count_error(s);
}

static void
on_helo(struct session *s, struct span argument, bool is_esmtp)
{
    if (!smtp_helo_valid(argument)) {
        error(s, SMTP_REPLY_HELO_ARGUMENT);
        return;
    }
    session_reset(s);
    free(s->helo);
    s->helo = span_dup(argument);
    s->is_esmtp = is_esmtp;
    s->offered = 0;
    refresh_settings(s);
    session_set_phase(s, SMTP_PHASE_READY);
    if (!is_esmtp) {
        session_reply(s, SMTP_REPLY_HELO_OK, s->st->server.hostname);
        return;
    }
    struct smtp_capabilities caps = capabilities_for(s);
    char text[SMTP_EHLO_MAX];
    s->offered = caps.bits;
    stream_write(s->stream, text, smtp_ehlo_format(text, s->st->server.hostname, &caps));
}

static void
on_starttls(struct session *s)
{
    if (s->is_tls) {
        error(s, SMTP_REPLY_SEQUENCE);
        return;
    }
    SSL *ssl = s->w->tls != NULL ? tls_accept(s->w->tls) : NULL;
    if (ssl != NULL && !session_enter_handshake(s)) {
        SSL_free(ssl);
        ssl = NULL;
    }
    if (ssl == NULL) {
        session_reply(
            s, s->w->tls != NULL ? SMTP_REPLY_TLS_UNAVAILABLE : SMTP_REPLY_NOT_IMPLEMENTED, NULL);
        session_count_error(s);
        return;
    }
    /* RFC 3207 4.2: all that was learnt in the clear is forgotten. */
    session_reset(s);
    free(s->helo);
    s->helo = NULL;
    s->is_esmtp = false;
    s->offered = 0;
    session_set_phase(s, SMTP_PHASE_GREETED);
    session_reply(s, SMTP_REPLY_STARTTLS_READY, NULL);
    session_set_wait(s, SESSION_WAIT_TLS, HANDSHAKE_MS);
    stream_start_tls(s->stream, ssl, true);
}

static enum smtp_reply_id
reply_of(enum smtp_syntax syntax)
{
    switch (syntax) {
    case SMTP_SYNTAX_OK:
        return SMTP_REPLY_OK;
    case SMTP_SYNTAX_ARGUMENT:
    case SMTP_SYNTAX_PARAMETER:
        return SMTP_REPLY_ARGUMENT;
    case SMTP_SYNTAX_ADDRESS:
        return SMTP_REPLY_BAD_SENDER;
    case SMTP_SYNTAX_UNKNOWN:
        return SMTP_REPLY_PARAMETER;
    case SMTP_SYNTAX_UTF8:
        return SMTP_REPLY_NEEDS_SMTPUTF8;
    }
    return SMTP_REPLY_ARGUMENT;
}

/* A refusal at MAIL is counted as if it were a recipient's, so that it is in the same sums. */
static void
count_refusal(struct session *s, enum policy_reason reason, enum smtp_reply_id reply)
{
    struct metrics *m = s->w->srv->metrics;

    metrics_recipient(
        m, smtp_reply_code(reply) / 100 == 5 ? METRICS_VERDICT_REJECT : METRICS_VERDICT_DEFER,
        reason);
    metrics_code(m, status_code_find(span_str(smtp_reply_enhanced(reply))));
}

/* MAIL is refused: the same event as a recipient's, without one. */
static void
tell_refusal(struct session *s, const struct smtp_path *path, enum policy_reason reason,
             enum smtp_reply_id reply)
{
    struct session_verdict v = {.from = span_of(path->text, path->n),
                                .verdict = smtp_reply_code(reply) / 100 == 5 ? "reject" : "defer",
                                .status = smtp_reply_enhanced(reply),
                                .source = "policy",
                                .reason = reason};

    session_log_verdict(s, &v);
    count_refusal(s, reason, reply);
}

static void
refuse_sender(struct session *s, const struct smtp_path *path, enum policy_reason reason,
              enum smtp_reply_id reply)
{
    tell_refusal(s, path, reason, reply);
    session_reply(s, reply, path->text);
}

/* The client's standing may have changed since the greeting.  False: it was answered. */
static bool
check_standing(struct session *s, const struct smtp_path *path)
{
    const char *hostname = s->st->server.hostname;

    switch (policy_session_check(s->w->srv->policy, s->st, &s->policy, clock_ms())) {
    case POLICY_STANDING_OK:
        return true;
    case POLICY_STANDING_LISTED:
        tell_refusal(s, path, POLICY_REASON_BLOCKED_CLIENT, SMTP_REPLY_CLIENT_BLOCKED);
        session_reply_close(s, SMTP_REPLY_CLIENT_BLOCKED, hostname, "blocked");
        return false;
    case POLICY_STANDING_BLOCKED:
        tell_refusal(s, path, POLICY_REASON_HARVEST, SMTP_REPLY_HARVEST_CLOSE);
        session_reply_close(s, SMTP_REPLY_HARVEST_CLOSE, hostname, "harvest-block");
        return false;
    }
    return true;
}

static bool
begin_transaction(struct session *s, const struct smtp_mail *mail, struct span canonical)
{
    struct message_place place = {.spool = s->w->srv->spool,
                                  .client = s->w->spool,
                                  .memory_share = s->st->spool.memory,
                                  .network = s->policy.client.network,
                                  .wants_digest = s->st->server.duplicate_window > 0};
    struct session_transaction *tx = calloc(1, sizeof(*tx));

    if (tx == NULL || (tx->message = message_new(&place, NULL, NULL)) == NULL ||
        !message_set_sender(tx->message, mail, canonical)) {
        if (tx != NULL)
            message_free(&tx->message);
        free(tx);
        return false;
    }
    tx->declared_size = mail->has_size ? mail->size : 0;
    tx->size_limit = session_size_limit(s);
    s->tx = tx;
    session_set_phase(s, SMTP_PHASE_MAIL);
    return true;
}

static void
on_mail(struct session *s, struct span argument)
{
    struct smtp_mail mail;
    char canonical[SMTP_ADDRESS_MAX + 1] = "";
    size_t at = 0, n = 0;

    refresh_settings(s);
    enum smtp_syntax syntax = smtp_mail_parse(argument, s->offered, &mail);
    if (!check_standing(s, &mail.path))
        return;
    if (syntax == SMTP_SYNTAX_OK && !mail.path.is_null &&
        (n = smtp_path_canonical(&mail.path, canonical, &at)) == 0)
        syntax = SMTP_SYNTAX_ADDRESS;
    if (syntax != SMTP_SYNTAX_OK) {
        error(s, reply_of(syntax));
        return;
    }
    if (mail.has_size && mail.size > session_size_limit(s)) {
        refuse_sender(s, &mail.path, POLICY_REASON_SIZE, SMTP_REPLY_MESSAGE_SIZE);
        return;
    }
    if (!hosts_any_up(s->w->srv->hosts)) {
        refuse_sender(s, &mail.path, POLICY_REASON_ROUTE, SMTP_REPLY_NO_ROUTE);
        return;
    }
    if (n > 0 && acl_sender_blocked(s->st, span_of(canonical, n))) {
        refuse_sender(s, &mail.path, POLICY_REASON_BLOCKED_SENDER, SMTP_REPLY_SENDER_BLOCKED);
        return;
    }
    if (!begin_transaction(s, &mail, span_of(canonical, n))) {
        session_reply(s, SMTP_REPLY_INTERNAL, NULL);
        return;
    }
    session_reply(s, SMTP_REPLY_SENDER_OK, NULL);
}

/* Postfix XCLIENT_README: the client is another one from now on, and the session starts over. */
static void
on_xclient(struct session *s, struct span argument)
{
    struct smtp_xclient_args args;
    struct netaddr address = *session_client(s);
    bool is_told = s->is_told;
    uint64_t port = s->port;

    if ((s->offered & SMTP_CAP_BIT(XCLIENT)) == 0 &&
        !network_list_contains(&s->st->server.xclient, &s->peer)) {
        error(s, SMTP_REPLY_XCLIENT_DENIED);
        return;
    }
    if (smtp_xclient_parse(argument, &args) != SMTP_SYNTAX_OK) {
        error(s, SMTP_REPLY_ARGUMENT);
        return;
    }
    const char *text = args.value[SMTP_XCLIENT_ADDR];
    if (text[0] != '\0') {
        struct span literal = span_str(text);
        if (span_starts_nocase(literal, "IPV6:"))
            literal = span_of(literal.p + 5, literal.n - 5);
        if (!netaddr_parse(literal, &address)) {
            error(s, SMTP_REPLY_ARGUMENT);
            return;
        }
        is_told = true;
    } else if ((args.given & SMTP_XCLIENT_BIT(ADDR)) != 0) {
        /* Nobody knows it: all the same it is not the client before this one. */
        address = s->peer;
        is_told = s->is_peer_told;
    }
    if (args.value[SMTP_XCLIENT_PORT][0] != '\0' &&
        !span_u64(span_str(args.value[SMTP_XCLIENT_PORT]), 65535, &port)) {
        error(s, SMTP_REPLY_ARGUMENT);
        return;
    }
    struct span protocol = span_str(args.value[SMTP_XCLIENT_PROTO]);
    if (protocol.n > 0 && !span_is_nocase(protocol, "SMTP") && !span_is_nocase(protocol, "ESMTP")) {
        error(s, SMTP_REPLY_ARGUMENT);
        return;
    }
    s->port = (uint16_t)port;
    s->is_told = is_told;
    policy_session_begin(&s->policy, s->st, &address, s->is_told);
    free(s->helo);
    s->helo = args.value[SMTP_XCLIENT_HELO][0] != '\0'
                  ? span_dup(span_str(args.value[SMTP_XCLIENT_HELO]))
                  : NULL;
    s->offered = 0;
    session_set_phase(s, SMTP_PHASE_GREETED);
    session_greet(s, false);
}

static void
dispatch(struct session *s, const struct smtp_command *c)
{
    switch (c->verb) {
    case SMTP_VERB_HELO:
        on_helo(s, c->argument, false);
        return;
    case SMTP_VERB_EHLO:
        on_helo(s, c->argument, true);
        return;
    case SMTP_VERB_MAIL:
        on_mail(s, c->argument);
        return;
    case SMTP_VERB_RCPT:
        session_rcpt(s, c->argument);
        return;
    case SMTP_VERB_DATA:
        session_data(s);
        return;
    case SMTP_VERB_RSET:
        session_reset(s);
        session_reply(s, SMTP_REPLY_OK, NULL);
        return;
    case SMTP_VERB_NOOP:
        session_reply(s, SMTP_REPLY_OK, NULL);
        return;
    case SMTP_VERB_VRFY:
        session_reply(s, SMTP_REPLY_VRFY, NULL);
        return;
    case SMTP_VERB_HELP:
        session_reply(s, SMTP_REPLY_HELP, NULL);
        return;
    case SMTP_VERB_EXPN:
        session_reply(s, SMTP_REPLY_NOT_IMPLEMENTED, NULL);
        return;
    case SMTP_VERB_QUIT:
        s->has_quit = true;
        session_reply_close(s, SMTP_REPLY_BYE, NULL, "quit");
        return;
    case SMTP_VERB_STARTTLS:
        on_starttls(s);
        return;
    case SMTP_VERB_XCLIENT:
        on_xclient(s, c->argument);
        return;
    case SMTP_VERB_BDAT:
    case SMTP_VERB_UNKNOWN:
    case SMTP_VERB_COUNT:
        error(s, SMTP_REPLY_SYNTAX);
        return;
    }
}

void
session_command(struct session *s, struct span line)
{
    struct smtp_command c = smtp_command_parse(line);

    /* What is sent by somebody who has our 250 acknowledges it; else they crossed on the way. */
    if (s->heard != NULL && !s->is_ahead && stream_is_acknowledged(s->stream))
        delivery_confirm(s->w, &s->heard);
    if (c.verb == SMTP_VERB_STARTTLS && (s->has_more || stream_has_input(s->stream))) {
        session_reply_close(s, SMTP_REPLY_SYNCHRONIZATION, NULL, "starttls-injection");
        return;
    }
    if (s->w->is_draining && s->tx == NULL && c.verb != SMTP_VERB_QUIT) {
        session_reply_close(s, SMTP_REPLY_SHUTDOWN, s->st->server.hostname, "shutdown");
        return;
    }
    if (s->tx == NULL && clock_ms() - s->started_ms > s->st->server.session_timeout) {
        session_reply_close(s, SMTP_REPLY_TIMEOUT, s->st->server.hostname, "session-timeout");
        return;
    }
    /* A chunk's octets follow its command whatever we think of it. */
    if (c.verb == SMTP_VERB_BDAT) {
        session_bdat(s, c.argument);
        return;
    }
    if (c.verb == SMTP_VERB_UNKNOWN) {
        error(s, SMTP_REPLY_SYNTAX);
        return;
    }
    if (s->st->tls.mode == SETTINGS_TLS_MODE_REQUIRED && !s->is_tls && s->w->tls != NULL &&
        c.verb != SMTP_VERB_EHLO && c.verb != SMTP_VERB_HELO && !smtp_verb_before_tls(c.verb)) {
        error(s, SMTP_REPLY_TLS_REQUIRED);
        return;
    }
    if (c.verb == SMTP_VERB_MAIL && s->tx != NULL && s->tx->is_futile)
        session_reset(s);
    if (!smtp_verb_legal(c.verb, s->phase)) {
        error(s, SMTP_REPLY_SEQUENCE);
        return;
    }
    if ((smtp_verb_needs_argument(c.verb) && c.argument.n == 0) ||
        (smtp_verb_takes_no_argument(c.verb) && c.argument.n > 0)) {
        error(s, SMTP_REPLY_ARGUMENT);
        return;
    }
    dispatch(s, &c);
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/remote_domain.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/host.h"
#include "proxy/session/delivery.h"
#include "proxy/session/edit.h"
#include "proxy/session/recipient.h"
#include "proxy/session/session_private.h"

static void end_chunk(struct session *s);
static void end_content(struct session *s);

/* --- before the content --- */

/* We refuse the transaction's message, whether its content is here or not. */
static void
tell_refusal(const struct session *s, const struct smtp_reply *reply)
{
    const struct session_transaction *tx = s->tx;
    struct message_log line = {.session = s->id,
                               .client = *session_client(s),
                               .host = "",
                               .status = reply->enhanced,
                               .reply = reply->text,
                               .delay_ms = tx->end_ms != 0 ? clock_ms() - tx->end_ms : 0};

    message_log(&line, tx->message);
    metrics_message(s->w->srv->metrics,
                    reply->code / 100 == 5 ? METRICS_STATUS_REFUSED : METRICS_STATUS_DEFERRED,
                    tx->message->content_size);
    metrics_code(s->w->srv->metrics, status_code_find(span_str(reply->enhanced)));
}

/* monitor = yes: R is taken, though for REASON it would not be.  Told once of each. */
static void
tell_would_reject(const struct session *s, struct message_recipient *r, enum policy_reason reason)
{
    struct session_verdict v = {.from = span_str(s->tx->message->sender),
                                .to = span_str(r->address),
                                .verdict = "would-reject",
                                .status = smtp_reply_enhanced(recipient_reply(reason)),
                                .source = "policy",
                                .reason = reason};

    if (r->is_would)
        return;
    r->is_would = true;
    session_log_verdict(s, &v);
    metrics_recipient(s->w->srv->metrics, METRICS_VERDICT_WOULD_REJECT, reason);
}

/* monitor = yes: the transaction would be refused, and with it recipients that were accepted. */
static void
tell_would_refuse(const struct session *s)
{
    struct message *m = s->tx->message;

    for (size_t i = 0; i < m->n_recipients; i++)
        tell_would_reject(s, &m->recipients[i], POLICY_REASON_HARVEST);
}

/* What DATA and BDAT have in common: NONE, or why the transaction goes no further.  *DELAY_MS is
 * the tarpit's. ADDRESS is the reply's argument. */
static enum smtp_reply_id
refusal(struct session *s, const char **address, uint32_t *delay_ms)
{
    const struct session_transaction *tx = s->tx;
    bool is_null = tx->message->sender[0] == '\0';
    bool is_monitor = s->st->server.monitor;
    bool is_shut_out = policy_session_state(&s->policy, is_null) == POLICY_ACTION_REJECT;

    *address = NULL;
    *delay_ms = 0;
    if (is_shut_out && !is_monitor)
        return SMTP_REPLY_HARVEST_DATA;
    if (tx->late_address != NULL && !is_monitor) {
        *address = tx->late_address;
        *delay_ms = tx->late_delay_ms;
        return recipient_data_reply(tx->late_reason);
    }
    if (is_shut_out || policy_transaction_refused(s->st, &s->policy, &tx->policy,
                                                  tx->message->n_recipients - tx->n_would)) {
        if (!is_monitor)
            return SMTP_REPLY_HARVEST_DATA;
        tell_would_refuse(s);
    }
    if (tx->message->n_recipients == 0)
        return s->phase == SMTP_PHASE_MAIL ? SMTP_REPLY_SEQUENCE : SMTP_REPLY_NO_RECIPIENTS;
    return SMTP_REPLY_NONE;
}

static void
refuse(struct session *s, enum smtp_reply_id id, const char *address, uint32_t delay_ms)
{
    char text[SMTP_REPLY_LINE];
    size_t n = smtp_reply_format(id, address, text);

    if (id == SMTP_REPLY_HARVEST_DATA || id == SMTP_REPLY_DATA_UNKNOWN ||
        id == SMTP_REPLY_DATA_RESTRICTED) {
        struct smtp_reply reply = smtp_reply_make(id, address);
        tell_refusal(s, &reply);
    }
    if (id != SMTP_REPLY_SEQUENCE)
        session_reset(s);
    session_reply_later(s, span_of(text, n), delay_ms, NULL);
}

/* A verdict of ours on the whole message, or on what is here of it. */
static void
refuse_message(struct session *s, enum smtp_reply_id id, const char *argument)
{
    struct smtp_reply reply = smtp_reply_make(id, argument);

    tell_refusal(s, &reply);
    session_reply_value(s, &reply);
    session_reset(s);
}

static void
on_spool(void *arg, bool is_ok, const char *data, size_t n)
{
    struct session *s = arg;

    (void)is_ok;
    (void)data;
    (void)n;
    if (s->wait != SESSION_WAIT_SPOOL || message_is_congested(s->tx->message))
        return;
    session_set_wait(s, SESSION_WAIT_NONE, 0);
    /* The disk made us wait at the very end of a chunk: no octet will come to end it. */
    if (s->input == SESSION_INPUT_BDAT && s->chunk_left == 0)
        end_chunk(s);
    if (s->wait == SESSION_WAIT_NONE)
        session_continue(s);
    else
        stream_flush(s->stream);
}

void
session_data(struct session *s)
{
    const char *address;
    uint32_t delay_ms;
    enum smtp_reply_id id = refusal(s, &address, &delay_ms);

    /* RFC 3030 3: binary content has no lines that a dot could end. */
    if (id == SMTP_REPLY_NONE && s->tx->message->body == SMTP_BODY_BINARYMIME)
        id = SMTP_REPLY_SEQUENCE;

    if (id == SMTP_REPLY_NO_RECIPIENTS) {
        s->tx->is_futile = true;
        session_reply(s, id, NULL);
        return;
    }
    if (id != SMTP_REPLY_NONE) {
        refuse(s, id, address, delay_ms);
        if (id == SMTP_REPLY_SEQUENCE)
            session_count_error(s);
        return;
    }
    message_set_ready(s->tx->message, on_spool, s);
    s->input = SESSION_INPUT_DATA;
    session_reply(s, SMTP_REPLY_START_DATA, NULL);
}

void
session_bdat(struct session *s, struct span argument)
{
    struct smtp_bdat bdat;
    const char *address;
    uint32_t delay_ms = 0;

    if (smtp_bdat_parse(argument, &bdat) != SMTP_SYNTAX_OK) {
        /* How many octets follow is not known: nothing after it can be read as commands. */
        session_reply_close(s, SMTP_REPLY_BDAT_ARGUMENT, NULL, "bdat");
        return;
    }
    s->chunk_left = bdat.size;
    s->is_last_chunk = bdat.is_last;
    s->chunk_refusal = SMTP_REPLY_NONE;
    s->chunk_delay_ms = 0;
    s->input = SESSION_INPUT_BDAT;
    if (s->st->tls.mode == SETTINGS_TLS_MODE_REQUIRED && !s->is_tls && s->w->tls != NULL) {
        s->chunk_refusal = SMTP_REPLY_TLS_REQUIRED;
    } else if ((s->offered & SMTP_CAP_BIT(CHUNKING)) == 0 ||
               !smtp_verb_legal(SMTP_VERB_BDAT, s->phase)) {
        s->chunk_refusal = SMTP_REPLY_SEQUENCE;
    } else if (s->phase != SMTP_PHASE_BDAT) {
        s->chunk_refusal = refusal(s, &address, &delay_ms);
        if (s->chunk_refusal != SMTP_REPLY_NONE && address != NULL)
            s->chunk_address = span_dup(span_str(address));
        s->chunk_delay_ms = delay_ms;
    }
    if (s->chunk_refusal == SMTP_REPLY_NONE) {
        message_set_ready(s->tx->message, on_spool, s);
        s->tx->message->is_bdat = true;
        session_set_phase(s, SMTP_PHASE_BDAT);
    }
    if (s->chunk_left == 0)
        end_chunk(s);
}

/* --- the content --- */

static void
keep(struct session *s, struct span piece)
{
    struct session_transaction *tx = s->tx;

    if (tx->is_failed || tx->is_too_large)
        return;
    if (tx->message->content_size + piece.n > tx->size_limit)
        tx->is_too_large = true;
    else if (!message_append(tx->message, piece))
        tx->is_failed = true;
    else if (message_is_congested(tx->message))
        session_set_wait(s, SESSION_WAIT_SPOOL, s->st->server.command_timeout);
}

static size_t
data_content(struct session *s, struct span in)
{
    size_t total = 0;

    while (s->wait == SESSION_WAIT_NONE) {
        struct data_piece piece = data_scan_next(&s->tx->scan, span_of(in.p + total, in.n - total));
        if (piece.is_bare && s->st->server.bare_lf == SETTINGS_BARE_LF_REJECT) {
            session_reply_close(s, SMTP_REPLY_BARE, NULL, "bare-newline");
            return total;
        }
        switch (piece.kind) {
        case DATA_PIECE_MORE:
            return total;
        case DATA_PIECE_KEEP:
            keep(s, span_of(in.p + total, piece.n));
            break;
        case DATA_PIECE_TEXT:
            keep(s, piece.text);
            break;
        case DATA_PIECE_DROP:
            break;
        case DATA_PIECE_END:
            s->input = SESSION_INPUT_COMMAND;
            end_content(s);
            return total + piece.n;
        }
        total += piece.n;
    }
    return total;
}

/* A chunk is complete. */
static void
end_chunk(struct session *s)
{
    char octets[32];
    enum smtp_reply_id id = s->chunk_refusal;

    s->input = SESSION_INPUT_COMMAND;
    if (id != SMTP_REPLY_NONE) {
        char *address = s->chunk_address;
        s->chunk_address = NULL;
        refuse(s, id, address, s->chunk_delay_ms);
        free(address);
        if (id == SMTP_REPLY_SEQUENCE || id == SMTP_REPLY_TLS_REQUIRED)
            session_count_error(s);
        return;
    }
    if (s->is_last_chunk) {
        end_content(s);
        return;
    }
    if (s->tx->is_failed || s->tx->is_too_large) {
        refuse_message(s, s->tx->is_failed ? SMTP_REPLY_NO_SPACE : SMTP_REPLY_MESSAGE_SIZE, NULL);
        return;
    }
    snprintf(octets, sizeof(octets), "%llu", (unsigned long long)s->tx->message->content_size);
    session_reply(s, SMTP_REPLY_CHUNK_OK, octets);
}

static size_t
chunk_content(struct session *s, struct span in)
{
    size_t n = in.n < s->chunk_left ? in.n : (size_t)s->chunk_left;

    if (s->chunk_refusal == SMTP_REPLY_NONE && n > 0)
        keep(s, span_of(in.p, n));
    s->chunk_left -= n;
    if (s->chunk_left == 0 && s->wait == SESSION_WAIT_NONE)
        end_chunk(s);
    return n;
}

size_t
session_content(struct session *s, struct span in)
{
    return s->input == SESSION_INPUT_DATA ? data_content(s, in) : chunk_content(s, in);
}

/* --- after the content --- */

/* Whose limit is the message over?  NULL: nobody's.  Under monitor that is told only. */
static const char *
too_large_for(const struct session *s)
{
    struct message *m = s->tx->message;

    for (size_t i = 0; i < m->n_recipients; i++) {
        struct message_recipient *r = &m->recipients[i];
        if (r->max_size == 0 || m->content_size <= r->max_size)
            continue;
        if (!s->st->server.monitor)
            return r->address;
        tell_would_reject(s, r, POLICY_REASON_SIZE);
    }
    return NULL;
}

/* Answer the client with what came of its message. */
void
session_delivered(struct session *s, const struct delivery_result *result)
{
    struct metrics *metrics = s->w->srv->metrics;

    s->delivery = NULL;
    metrics_delivery_ns(metrics, clock_ns() - s->tx->end_ns);
    if (result->is_delivered) {
        char id[48];
        snprintf(id, sizeof(id), "%s.%u", s->id, s->messages);
        session_reply(s, SMTP_REPLY_DELIVERED, id);
        metrics_message(metrics, METRICS_STATUS_DELIVERED, result->size);
        /* Commands that are here already were sent before the client could hear this; nor does one
         * that has ended its side ever say that it did. */
        delivery_heard_free(&s->heard);
        s->heard = result->heard;
        s->is_ahead = !stream_is_quiet(s->stream);
        if (s->is_ahead && stream_peer_has_ended(s->stream))
            delivery_heard_free(&s->heard);
    } else {
        bool is_permanent = result->reply.code / 100 == 5;
        session_reply_value(s, &result->reply);
        metrics_message(metrics, is_permanent ? METRICS_STATUS_REFUSED : METRICS_STATUS_DEFERRED,
                        result->size);
        metrics_code(metrics, status_code_find(span_str(result->reply.enhanced)));
    }
    session_reset(s);
    session_continue(s);
}

void
session_relay_drop(struct session *s, const char *why)
{
    if (s->wait == SESSION_WAIT_DNS && s->tx != NULL && s->tx->end_ms != 0) {
        /* It was read to its end, and waits for SPF. */
        struct smtp_reply reply = {.code = 451, .enhanced = "4.4.2"};
        span_copy(reply.text, sizeof(reply.text), span_str(why));
        tell_refusal(s, &reply);
    }
    delivery_abandon(&s->delivery, why);
}

void
session_late(struct session *s)
{
    if (s->delivery == NULL) {
        refuse_message(s, SMTP_REPLY_DEADLINE, NULL);
    } else {
        struct smtp_reply reply = smtp_reply_make(SMTP_REPLY_DEADLINE, NULL);
        session_reply_value(s, &reply);
        session_relay_drop(s, reply.text);
        session_reset(s);
    }
    session_continue(s);
}

/* What is left of reply_deadline. */
static int64_t
time_left(const struct session *s)
{
    int64_t left_ms = s->tx->end_ms + s->st->server.reply_deadline - clock_ms();

    return left_ms > 0 ? left_ms : 1;
}

/* The message is complete and clean. */
static void
hand_over(struct session *s, bool is_proven)
{
    struct session_transaction *tx = s->tx;
    char id[48];
    struct edit edit = {.settings = s->st,
                        .client = session_client(s),
                        .helo = s->helo,
                        .id = id,
                        .is_esmtp = s->is_esmtp,
                        .ssl = stream_ssl(s->stream),
                        .route = hosts_route(s->w->srv->hosts, tx->domain->downstream),
                        .is_proven = is_proven};

    snprintf(id, sizeof(id), "%s.%u", s->id, s->messages);
    switch (edit_message(tx->message, &edit)) {
    case EDIT_OK:
        break;
    case EDIT_LOOP:
        refuse_message(s, SMTP_REPLY_LOOP, NULL);
        return;
    case EDIT_FAILED:
        refuse_message(s, SMTP_REPLY_INTERNAL, NULL);
        return;
    }
    struct message *m = tx->message;
    tx->message = NULL;
    s->delivery = delivery_start(s, m, tx->domain->downstream);
    if (s->delivery == NULL) {
        tx->message = m;
        refuse_message(s, SMTP_REPLY_INTERNAL, NULL);
        return;
    }
    session_set_wait(s, SESSION_WAIT_RELAY, time_left(s));
}

static void
on_spf(void *arg, const struct resolver_answer *a)
{
    struct session *s = arg;

    s->dns_ticket = 0;
    hand_over(s, a->spf == SPF_PASS);
    if (s->wait == SESSION_WAIT_DNS)
        session_continue(s);
}

/* Is the sender who he says he is?  Asked only where NDRs depend on it. */
static void
prove(struct session *s)
{
    const char *sender = s->tx->message->sender_canonical;
    const char *at = strrchr(sender, '@');
    const struct settings_remote_domain *rd =
        settings_remote_domain_for(s->st, at != NULL ? span_str(at + 1) : span_of("", 0));

    if (remote_domain_wants_proof(rd))
        s->dns_ticket =
            resolver_ask_spf(s->w->resolver, s->st, session_client(s), span_str(s->helo),
                             span_str(sender), clock_ms(), on_spf, s);
    if (s->dns_ticket == 0) {
        hand_over(s, false);
        return;
    }
    session_set_wait(s, SESSION_WAIT_DNS, time_left(s));
    worker_plan(s->w);
}

static void
end_content(struct session *s)
{
    struct session_transaction *tx = s->tx;
    const char *address;

    tx->end_ms = clock_ms();
    tx->end_ns = clock_ns();
    s->messages++;
    if (tx->is_too_large)
        refuse_message(s, SMTP_REPLY_MESSAGE_SIZE, NULL);
    else if (tx->message->is_header_too_long)
        refuse_message(s, SMTP_REPLY_HEADER_SIZE, NULL);
    else if (tx->is_failed || !message_finish(tx->message))
        refuse_message(s, SMTP_REPLY_NO_SPACE, NULL);
    else if ((address = too_large_for(s)) != NULL)
        refuse_message(s, SMTP_REPLY_RECIPIENT_SIZE, address);
    else
        prove(s);
}

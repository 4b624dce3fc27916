#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/acl.h"
#include "policy/mark.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/host.h"
#include "proxy/session/recipient.h"
#include "proxy/session/session_private.h"

/* The net below those who keep the time of their answers themselves. */
#define ANSWER_MS 3600000

static void judge(struct session *s);

/* --- the log --- */

static const char *
source_text(const struct session_candidate *c)
{
    if (c->is_downstream_answer || c->is_verified)
        return "downstream";
    const char *text = dir_source_text(c->source);
    return *text != '\0' ? text : "policy";
}

/* What is the same in all lines of a transaction is formatted once. */
static void
log_begin_verdict(struct log_line *l, const struct session *s, struct span from)
{
    if (s->tx != NULL && s->tx->log_head != NULL) {
        log_begin_with(l, LOG_LEVEL_INFO, s->tx->log_head);
        return;
    }
    log_begin(l, LOG_LEVEL_INFO, "rcpt");
    log_str(l, "session", s->id);
    log_addr(l, "client", session_client(s));
    log_str(l, "helo", s->helo);
    log_path(l, "from", from);
    if (s->tx != NULL)
        s->tx->log_head = log_keep(l);
}

void
session_log_verdict(const struct session *s, const struct session_verdict *v)
{
    struct log_line l;

    if (!log_wants(LOG_LEVEL_INFO))
        return;
    log_begin_verdict(&l, s, v->from);
    if (v->to.p != NULL)
        log_path(&l, "to", v->to);
    log_str(&l, "verdict", v->verdict);
    log_str(&l, "status", v->status);
    log_str(&l, "reason", policy_reason_text(v->reason));
    log_str(&l, "source", v->source);
    log_seconds(&l, "delay", v->delay_ms);
    log_end(&l);
}

static void
log_candidate(const struct session *s, const struct session_candidate *c, const char *verdict,
              const char *status, uint32_t delay_ms)
{
    struct session_verdict v = {.from = span_str(s->tx->message->sender),
                                .to = span_of(c->rcpt.path.text, c->rcpt.path.n),
                                .verdict = verdict,
                                .status = status,
                                .source = source_text(c),
                                .reason = c->decision.reason,
                                .delay_ms = delay_ms};

    session_log_verdict(s, &v);
}

/* --- the end of a judgement --- */

/* Mostly a judgement ends where it began: the next one takes the same piece of memory. */
static struct session_candidate *
candidate_new(struct session *s)
{
    struct session_candidate *c = s->w->spare;

    s->w->spare = NULL;
    if (c == NULL && (c = malloc(sizeof(*c))) == NULL)
        return NULL;
    memset(c, 0, offsetof(struct session_candidate, rcpt));
    c->now_ms = clock_ms();
    s->tx->candidate = c;
    return c;
}

void
session_candidate_drop(struct session *s)
{
    if (s->ticket != 0)
        directory_cancel(s->w->directory, s->ticket);
    s->ticket = 0;
    relay_question_cancel(&s->question);
    if (s->tx == NULL || s->tx->candidate == NULL)
        return;
    free(s->w->spare);
    s->w->spare = s->tx->candidate;
    s->tx->candidate = NULL;
}

/* Say TEXT, a whole reply, to the candidate, and be done with it. */
static void
answer(struct session *s, struct span text, uint32_t delay_ms, const char *closes)
{
    session_candidate_drop(s);
    session_reply_later(s, text, delay_ms, closes);
}

static void
answer_ours(struct session *s, enum smtp_reply_id id)
{
    char text[SMTP_REPLY_LINE];

    answer(s, span_of(text, smtp_reply_format(id, NULL, text)), 0, NULL);
}

/* The same recipient twice is one delivery. */
static bool
is_there_already(const struct session_transaction *tx, const struct session_candidate *c)
{
    for (size_t i = 0; i < tx->message->n_recipients; i++)
        if (span_is(span_of(c->canonical, c->canonical_n), tx->message->recipients[i].canonical))
            return true;
    return false;
}

static bool
add_recipient(struct session *s, const struct session_candidate *c)
{
    struct session_transaction *tx = s->tx;

    if (is_there_already(tx, c))
        return true;
    bool is_directory = c->domain->recipients == SETTINGS_RECIPIENTS_DIRECTORY &&
                        c->input.recipient == DECIDE_RECIPIENT_FOUND &&
                        c->source != DIR_SOURCE_NONE;
    if (!message_add_recipient(tx->message, &c->rcpt, span_of(c->canonical, c->canonical_n),
                               c->input.max_size, is_directory))
        return false;
    struct message_recipient *r = &tx->message->recipients[tx->message->n_recipients - 1];
    r->was_marked = c->input.is_marked;
    r->is_would = c->decision.is_would;
    tx->n_would += c->decision.is_would;
    if (tx->domain == NULL)
        tx->domain = c->domain;
    mark_share_take(&tx->share, c->share_limit);
    return true;
}

/* stage = data: the recipient is taken for now, and the transaction will be refused. */
static void
note_late(struct session *s, const struct session_candidate *c, uint32_t delay_ms)
{
    struct session_transaction *tx = s->tx;

    if (c->decision.reason == POLICY_REASON_SIZE)
        return; /* the actual size is checked at its end */
    if (tx->late_address == NULL) {
        tx->late_reason = c->decision.reason;
        tx->late_address = span_dup(span_of(c->rcpt.path.text, c->rcpt.path.n));
    }
    if (delay_ms > tx->late_delay_ms)
        tx->late_delay_ms = delay_ms;
}

static void
accept_candidate(struct session *s, struct session_candidate *c)
{
    struct metrics *m = s->w->srv->metrics;
    bool is_would = c->decision.is_would;

    if (c->decision.is_late)
        note_late(s, c, c->decision.delay_ms);
    if (!add_recipient(s, c)) {
        answer_ours(s, SMTP_REPLY_INTERNAL);
        return;
    }
    s->rcpt_ok++;
    if (is_would) {
        log_candidate(s, c, "would-reject",
                      smtp_reply_enhanced(recipient_reply(c->decision.reason)), 0);
    } else {
        log_candidate(s, c, "accept", smtp_reply_enhanced(SMTP_REPLY_RECIPIENT_OK), 0);
    }
    metrics_recipient(m, is_would ? METRICS_VERDICT_WOULD_REJECT : METRICS_VERDICT_ACCEPT,
                      c->decision.reason);
    answer_ours(s, SMTP_REPLY_RECIPIENT_OK);
}

static void
refuse_candidate(struct session *s, struct session_candidate *c, uint32_t delay_ms)
{
    char text[4 * SMTP_REPLY_LINE];
    enum smtp_reply_id id = recipient_reply(c->decision.reason);
    const char *argument = c->asked, *enhanced, *closes = NULL;
    uint16_t code;
    size_t n;

    if (c->decision.verdict == DECIDE_CLOSE) {
        id = SMTP_REPLY_HARVEST_CLOSE;
        argument = s->st->server.hostname;
        closes = "harvest";
    }
    if (closes == NULL && (c->is_downstream_answer || c->is_refused_syntax)) {
        n = smtp_reply_write(&c->answer, text, sizeof(text));
        code = c->answer.code;
        enhanced = c->answer.enhanced;
    } else {
        n = smtp_reply_format(id, argument, text);
        code = smtp_reply_code(id);
        enhanced = smtp_reply_enhanced(id);
    }
    bool is_reject = code / 100 == 5;
    s->rcpt_bad++;
    log_candidate(s, c, is_reject ? "reject" : "defer", enhanced, delay_ms);
    metrics_recipient(s->w->srv->metrics,
                      is_reject ? METRICS_VERDICT_REJECT : METRICS_VERDICT_DEFER,
                      c->decision.reason);
    metrics_code(s->w->srv->metrics, status_code_find(span_str(enhanced)));
    answer(s, span_of(text, n), delay_ms, closes);
}

/* The directory says no: count it, and add what follows from that. */
static void
count_unknown(struct session *s, struct session_candidate *c)
{
    bool is_null = s->tx->message->sender[0] == '\0';
    struct policy_harvest h =
        policy_unknown(s->w->srv->policy, s->st, &s->policy, &s->tx->policy,
                       span_of(c->canonical, c->canonical_n), is_null, c->now_ms);

    c->decision = decide_harvest(&c->input, c->decision, &h);
}

static void
conclude(struct session *s, struct session_candidate *c)
{
    uint32_t delay_ms = 0;

    if (c->decision.is_counted)
        count_unknown(s, c);
    delay_ms = c->decision.delay_ms;
    if (c->decision.reason == POLICY_REASON_BLIND)
        delay_ms = policy_blind_ms(s->st, &s->policy);
    if (c->decision.verdict == DECIDE_ACCEPT)
        accept_candidate(s, c);
    else
        refuse_candidate(s, c, delay_ms);
}

/* --- questions --- */

/* Continue the judgement after an answer that came from the loop. */
static void
resume(struct session *s)
{
    judge(s);
    if (s->wait == SESSION_WAIT_DNS || s->wait == SESSION_WAIT_DIRECTORY ||
        s->wait == SESSION_WAIT_QUESTION) {
        if (s->tx != NULL && s->tx->candidate != NULL)
            return; /* another question is under way */
        session_continue(s);
        return;
    }
    stream_flush(s->stream);
}

static void
take_answer(struct session_candidate *c, const struct dir_answer *a)
{
    c->source = a->source;
    recipient_take(&c->input, a);
}

/* The clock, once an answer has come; how long it took. */
static int64_t
note_time(struct session_candidate *c)
{
    int64_t now_ns = clock_ns();

    c->now_ms = now_ns / 1000000;
    return now_ns - c->asked_ns;
}

static void
on_looked_up(const struct session *s, struct session_candidate *c, const struct dir_answer *a)
{
    metrics_lookup(s->w->srv->metrics, a->source, a->status, note_time(c));
    take_answer(c, a);
}

static void
on_directory(void *arg, const struct dir_answer *a)
{
    struct session *s = arg;
    struct session_candidate *c = s->tx->candidate;

    s->ticket = 0;
    on_looked_up(s, c, a);
    resume(s);
}

/* The downstream's answer is the reply. */
static void
on_question(void *arg, const struct smtp_reply *reply, enum relay_answer about)
{
    struct session *s = arg;
    struct session_candidate *c = s->tx->candidate;
    bool is_ok = reply->code / 100 == 2;

    s->question = NULL;
    (void)about;
    c->decision.verdict = is_ok ? DECIDE_ACCEPT : DECIDE_REFUSE;
    /* What monitor alone kept from being given is told all the same. */
    if (!is_ok || !c->decision.is_would) {
        c->is_downstream_answer = true;
        c->answer = *reply;
        c->decision.reason = is_ok ? POLICY_REASON_NONE : POLICY_REASON_DOWNSTREAM;
    }
    if (is_ok)
        marks_remove(policy_marks(s->w->srv->policy), span_of(c->canonical, c->canonical_n));
    conclude(s, c);
    if (s->wait == SESSION_WAIT_QUESTION)
        session_continue(s);
    else
        stream_flush(s->stream);
}

static bool
ask_downstream(struct session *s, struct session_candidate *c, const char *sender,
               relay_answer_fn *on_answer)
{
    struct pool *pool = worker_pool(s->w, c->domain->downstream);
    struct relay_client client = {.address = *session_client(s),
                                  .port = s->port,
                                  .network = s->policy.client.network,
                                  .helo = s->helo,
                                  .is_esmtp = s->is_esmtp,
                                  .session = s->id};

    /* With this sender it is his MAIL, as he gave it. */
    bool is_smtputf8 = *sender != '\0' ? s->tx->message->is_smtputf8 : c->rcpt.path.is_utf8;

    if (pool == NULL)
        return false;
    c->asked_ns = clock_ns();
    s->question = relay_ask(pool, sender, c->rcpt.path.text, is_smtputf8, &client, on_answer, s);
    if (s->question == NULL)
        return false;
    session_set_wait(s, SESSION_WAIT_QUESTION, ANSWER_MS);
    return true;
}

static enum dir_status
recall(const struct session *s, const struct session_candidate *c, bool take_stale)
{
    return directories_recall(s->w->srv->directories,
                              &s->st->downstreams[c->domain->downstream_index],
                              span_of(c->canonical, c->canonical_n), take_stale, c->now_ms);
}

/* recipients = downstream: its answer is taken in place of the directory's. */
static void
on_verified(void *arg, const struct smtp_reply *reply, enum relay_answer about)
{
    struct session *s = arg;
    struct session_candidate *c = s->tx->candidate;
    bool is_absent = about == RELAY_ANSWER_RECIPIENT && reply->code / 100 == 5 &&
                     strncmp(reply->enhanced, "5.1.", 4) == 0;
    bool has_failed = about == RELAY_ANSWER_NONE;
    struct dir_answer a = {.status = DIR_UNAVAILABLE};

    if (!has_failed && reply->code / 100 != 2 && !is_absent) {
        on_question(s, reply, about); /* any other reply is passed on */
        return;
    }
    s->question = NULL;
    int64_t took_ns = note_time(c);
    if (has_failed) {
        a.status = recall(s, c, true);
        a.source = a.status != DIR_UNAVAILABLE ? DIR_SOURCE_CACHE : DIR_SOURCE_NONE;
        take_answer(c, &a);
        metrics_lookup(s->w->srv->metrics, a.source, a.status, took_ns);
    } else {
        a.status = is_absent ? DIR_ABSENT : DIR_FOUND;
        c->input.recipient = is_absent ? DECIDE_RECIPIENT_ABSENT : DECIDE_RECIPIENT_FOUND;
        c->is_verified = true;
        directories_remember(s->w->srv->directories,
                             &s->st->downstreams[c->domain->downstream_index],
                             span_of(c->canonical, c->canonical_n), !is_absent, c->now_ms);
        metrics_lookup_downstream(s->w->srv->metrics, a.status, took_ns);
    }
    resume(s);
}

/* Fill in what decide asks for.  True: it is there now; false: the session waits. */
static bool
ask_directory(struct session *s, struct session_candidate *c)
{
    struct dir_answer a = {.status = DIR_UNAVAILABLE};

    if (c->domain->recipients == SETTINGS_RECIPIENTS_ANY) {
        c->input.recipient = DECIDE_RECIPIENT_FOUND;
        return true;
    }
    c->asked_ns = clock_ns();
    if (c->domain->recipients == SETTINGS_RECIPIENTS_DOWNSTREAM) {
        a.status = recall(s, c, false);
        if (a.status != DIR_UNAVAILABLE) {
            a.source = DIR_SOURCE_CACHE;
            on_looked_up(s, c, &a);
            return true;
        }
        if (ask_downstream(s, c, "", on_verified))
            return false;
        c->input.recipient = DECIDE_RECIPIENT_UNAVAILABLE;
        return true;
    }
    if (directory_ask(s->w->directory, c->domain, span_of(c->canonical, c->canonical_n),
                      span_str(s->tx->message->sender_canonical), 0, c->asked_ns / 1000000, &a,
                      on_directory, s, &s->ticket) == DIR_PENDING) {
        session_set_wait(s, SESSION_WAIT_DIRECTORY, ANSWER_MS);
        worker_plan(s->w);
        return false;
    }
    on_looked_up(s, c, &a);
    return true;
}

static void
on_listing(void *arg, const struct resolver_answer *a)
{
    struct session *s = arg;

    s->dns_ticket = 0;
    s->tx->listing = a->is_listed ? DECIDE_LISTING_LISTED : DECIDE_LISTING_CLEAR;
    s->tx->candidate->input.listing = s->tx->listing;
    resume(s);
}

/* As ask_directory. A client is asked about once in a transaction. */
static bool
ask_listing(struct session *s, struct session_candidate *c)
{
    bool is_null = s->tx->message->sender[0] == '\0';
    unsigned lists = s->st->dnsbl.any_sender.n > 0 ? DNSBL_ANY_SENDER : 0;

    if (is_null && s->st->dnsbl.null_sender.n > 0)
        lists |= DNSBL_NULL_SENDER;
    if (s->tx->listing == DECIDE_LISTING_UNASKED && lists != 0 && !s->policy.client.is_allowed)
        s->dns_ticket = resolver_ask_dnsbl(s->w->resolver, s->st, session_client(s), lists,
                                           clock_ms(), on_listing, s);
    if (s->dns_ticket != 0) {
        session_set_wait(s, SESSION_WAIT_DNS, ANSWER_MS);
        worker_plan(s->w);
        return false;
    }
    if (s->tx->listing == DECIDE_LISTING_UNASKED)
        s->tx->listing = DECIDE_LISTING_CLEAR; /* nobody to ask */
    c->input.listing = s->tx->listing;
    return true;
}

/* Judge the candidate as far as can be now. */
static void
judge(struct session *s)
{
    struct session_candidate *c = s->tx->candidate;

    for (;;) {
        c->decision = decide(&c->input);
        switch (c->decision.verdict) {
        case DECIDE_ACCEPT:
        case DECIDE_REFUSE:
        case DECIDE_CLOSE:
            conclude(s, c);
            return;
        case DECIDE_ASK_LISTING:
            if (!ask_listing(s, c))
                return;
            break;
        case DECIDE_ASK_DIRECTORY:
            if (!ask_directory(s, c))
                return;
            break;
        case DECIDE_ASK_DOWNSTREAM:
            if (ask_downstream(s, c, s->tx->message->sender, on_question))
                return;
            c->decision.verdict = DECIDE_REFUSE;
            c->decision.reason = POLICY_REASON_ROUTE;
            conclude(s, c);
            return;
        }
    }
}

/* --- the beginning of a judgement --- */

static void
fill_input(struct session *s, struct session_candidate *c)
{
    struct session_transaction *tx = s->tx;
    struct marks *marks = policy_marks(s->w->srv->policy);
    struct span sender = span_str(tx->message->sender_canonical);

    /* Where a postmaster's mail goes is not for the client to know. */
    memcpy(c->asked, c->rcpt.path.text, c->rcpt.path.n + 1u);
    c->domain = recipient_domain(s->st, &c->rcpt.path, c->canonical, &c->at, &c->input);
    c->canonical_n = strlen(c->canonical);
    struct span canonical = span_of(c->canonical, c->canonical_n);
    c->input.size = tx->declared_size;
    if (c->domain == NULL)
        return;
    const struct pool *pool = worker_pool(s->w, c->domain->downstream);
    c->input.is_route_up = pool != NULL && route_is_up(pool_route(pool));
    c->input.is_other_route =
        tx->domain != NULL && strcmp(tx->domain->downstream, c->domain->downstream) != 0;
    c->share_limit = marks_limit(marks, sender, canonical, c->now_ms);
    if (!is_there_already(tx, c)) {
        c->input.is_full = tx->message->n_recipients >= (size_t)s->st->server.max_recipients;
        if (!c->input.is_full && !mark_share_allows(&tx->share, c->share_limit))
            c->input.is_full = c->input.is_halved = true;
    }
    c->input.is_blocked = acl_recipient_blocked(s->st, canonical);
    c->input.is_trap = acl_is_trap(s->st, canonical);
    c->input.is_marked = marks_has(marks, canonical, c->now_ms);
}

static enum smtp_reply_id
syntax_reply(enum smtp_syntax syntax)
{
    switch (syntax) {
    case SMTP_SYNTAX_ARGUMENT:
    case SMTP_SYNTAX_PARAMETER:
        return SMTP_REPLY_ARGUMENT;
    case SMTP_SYNTAX_UNKNOWN:
        return SMTP_REPLY_PARAMETER;
    case SMTP_SYNTAX_UTF8:
        return SMTP_REPLY_NEEDS_SMTPUTF8;
    case SMTP_SYNTAX_OK:
    case SMTP_SYNTAX_ADDRESS:
        break;
    }
    return SMTP_REPLY_BAD_RECIPIENT;
}

/* What a malformed argument has for an address: without TO: and parameters, and without the angle
 * brackets that the log writes. */
static struct span
address_of(struct span argument)
{
    if (span_starts_nocase(argument, "TO:"))
        argument = span_trim(span_of(argument.p + 3, argument.n - 3));
    if (argument.n == 0 || argument.p[0] != '<')
        return argument;
    argument = span_of(argument.p + 1, argument.n - 1);
    for (size_t n = argument.n; n > 0; n--)
        if (argument.p[n - 1] == '>')
            return span_of(argument.p, n - 1);
    return argument;
}

static void
refuse_syntax(struct session *s, struct session_candidate *c, struct span argument,
              enum smtp_syntax syntax)
{
    struct span address = address_of(argument);
    size_t n = address.n < SMTP_ADDRESS_MAX ? address.n : SMTP_ADDRESS_MAX;

    if (n > 0)
        memcpy(c->rcpt.path.text, address.p, n);
    c->rcpt.path.text[n] = '\0';
    c->rcpt.path.n = (uint16_t)n;
    memcpy(c->asked, c->rcpt.path.text, n + 1);
    c->input.is_bad_syntax = true;
    c->decision = decide(&c->input);
    if (c->decision.reason == POLICY_REASON_SYNTAX) {
        c->is_refused_syntax = true;
        c->answer = smtp_reply_make(syntax_reply(syntax), NULL);
    }
    bool is_syntax = c->is_refused_syntax;
    refuse_candidate(
        s, c, c->decision.reason == POLICY_REASON_BLIND ? policy_blind_ms(s->st, &s->policy) : 0);
    if (is_syntax)
        session_count_error(s);
}

void
session_rcpt(struct session *s, struct span argument)
{
    struct session_candidate *c = candidate_new(s);

    if (c == NULL) {
        session_reply(s, SMTP_REPLY_INTERNAL, NULL);
        return;
    }
    session_set_phase(s, SMTP_PHASE_RCPT);
    policy_session_blind(s->w->srv->policy, s->st, &s->policy, c->now_ms);
    c->input.state = policy_session_state(&s->policy, s->tx->message->sender[0] == '\0');
    c->input.is_monitor = s->st->server.monitor;
    c->input.is_late = s->st->harvest.stage == SETTINGS_STAGE_DATA;
    enum smtp_syntax syntax =
        smtp_rcpt_parse(argument, s->offered, s->tx->message->is_smtputf8, &c->rcpt);
    if (syntax == SMTP_SYNTAX_OK) {
        span_copy(c->orcpt, sizeof(c->orcpt), c->rcpt.orcpt);
        c->rcpt.orcpt = span_str(c->orcpt);
        c->canonical_n = smtp_path_canonical(&c->rcpt.path, c->canonical, &c->at);
        if (c->canonical_n == 0)
            syntax = SMTP_SYNTAX_ADDRESS;
    }
    if (syntax != SMTP_SYNTAX_OK) {
        refuse_syntax(s, c, argument, syntax);
        return;
    }
    fill_input(s, c);
    judge(s);
}

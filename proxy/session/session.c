#include "proxy/session/session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/ops/metrics.h"
#include "proxy/session/clients.h"
#include "proxy/session/proxy_header.h"
#include "proxy/session/session_private.h"
#include "proxy/smtp/line.h"

#define PROXY_HEADER_MS 5000
/* A handshake holds far more memory than a session: at most this part of all connections, but so
 * many in any case. */
#define HANDSHAKES_PART 4u
#define HANDSHAKES_MIN  64u
/* So many commands of a client are taken in a turn of the loop: more than a hundred recipients
 * need, but not the ten thousand that one read may bring, while others wait. */
#define TURN_COMMANDS 128u
/* More of replies that the client does not read, and nothing more is read from it. */
#define OUTPUT_MAX 65536u
/* How long input is read away behind the last reply; the same when the whole process is to end. */
#define LINGER_MS       5000
#define LINGER_DRAIN_MS 1000

static size_t on_input(void *owner, struct span in);
static void on_drained(void *owner);
static void on_secured(void *owner);
static void on_ended(void *owner, enum stream_end end);

static const struct stream_events stream_callbacks = {
    .input = on_input, .drained = on_drained, .secured = on_secured, .ended = on_ended};

/* The waits that may follow each wait: anything else is a bug. */
static const unsigned legal_waits[] = {
#define W(x) (1u << SESSION_WAIT_##x)
    [SESSION_WAIT_NONE] = W(NONE) | W(TLS) | W(DNS) | W(DIRECTORY) | W(QUESTION) | W(DELAY) |
                          W(SPOOL) | W(RELAY) | W(OUTPUT) | W(CLOSE),
    [SESSION_WAIT_TLS] = W(NONE) | W(CLOSE),
    [SESSION_WAIT_DNS] = W(NONE) | W(DIRECTORY) | W(QUESTION) | W(DELAY) | W(RELAY) | W(CLOSE),
    [SESSION_WAIT_DIRECTORY] = W(NONE) | W(QUESTION) | W(DELAY) | W(CLOSE),
    [SESSION_WAIT_QUESTION] = W(NONE) | W(DIRECTORY) | W(QUESTION) | W(DELAY) | W(CLOSE),
    [SESSION_WAIT_DELAY] = W(NONE) | W(CLOSE),
    [SESSION_WAIT_SPOOL] = W(NONE) | W(CLOSE),
    [SESSION_WAIT_RELAY] = W(NONE) | W(CLOSE),
    [SESSION_WAIT_OUTPUT] = W(NONE) | W(CLOSE),
    [SESSION_WAIT_CLOSE] = W(CLOSE),
#undef W
};

const struct netaddr *
session_client(const struct session *s)
{
    return &s->policy.client.address;
}

/* --- time --- */

/* The timer is set anew only when it would fire too late: most deadlines are put off, not met. */
static void
set_deadline(struct session *s, int64_t now_ms, int64_t ms)
{
    s->deadline_ms = now_ms + ms;
    if (s->timer_ms <= s->deadline_ms)
        return;
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    s->timer_ms = s->deadline_ms;
    event_add(&s->timer, &tv);
}

static void
await_client(struct session *s)
{
    int64_t now_ms = clock_ms();
    int64_t left_ms = s->started_ms + s->st->server.session_timeout - now_ms;
    int64_t limit_ms = s->st->server.command_timeout;

    s->quiet_ms = now_ms;
    /* Once it is over, it is over: who sends on and on does not put it off. */
    set_deadline(s, now_ms, left_ms < limit_ms ? (left_ms > 0 ? left_ms : 0) : limit_ms);
}

void
session_set_wait(struct session *s, enum session_wait wait, int64_t ms)
{
    assert((legal_waits[s->wait] >> wait & 1) != 0);
    s->wait = wait;
    if (wait == SESSION_WAIT_NONE) {
        stream_resume(s->stream);
        await_client(s);
        return;
    }
    if (wait != SESSION_WAIT_CLOSE && wait != SESSION_WAIT_TLS)
        stream_pause(s->stream);
    set_deadline(s, clock_ms(), ms);
}

void
session_set_phase(struct session *s, enum smtp_phase phase)
{
    s->phase = phase;
}

/* --- replies --- */

void
session_reply(struct session *s, enum smtp_reply_id id, const char *argument)
{
    char line[SMTP_REPLY_LINE];

    stream_write(s->stream, line, smtp_reply_format(id, argument, line));
}

void
session_reply_value(struct session *s, const struct smtp_reply *reply)
{
    char text[4 * SMTP_REPLY_LINE];

    stream_write(s->stream, text, smtp_reply_write(reply, text, sizeof(text)));
}

void
session_reply_close(struct session *s, enum smtp_reply_id id, const char *argument,
                    const char *reason)
{
    session_reply(s, id, argument);
    session_close(s, reason);
}

void
session_reply_later(struct session *s, struct span text, uint32_t delay_ms, const char *closes)
{
    struct server *srv = s->w->srv;

    if (delay_ms > 0) {
        if (atomic_fetch_add(&srv->tarpitted, 1) < (unsigned)s->st->harvest.max_tarpitted)
            s->has_tarpit = true;
        else
            atomic_fetch_sub(&srv->tarpitted, 1);
        if (s->has_tarpit && (s->delayed = span_dup(text)) != NULL) {
            s->close_reason = closes;
            session_set_wait(s, SESSION_WAIT_DELAY, delay_ms);
            return;
        }
    }
    stream_write(s->stream, text.p, text.n);
    if (closes != NULL)
        session_close(s, closes);
}

static void
leave_tarpit(struct session *s)
{
    if (s->has_tarpit)
        atomic_fetch_sub(&s->w->srv->tarpitted, 1);
    s->has_tarpit = false;
    free(s->delayed);
    s->delayed = NULL;
}

void
session_count_error(struct session *s)
{
    if (++s->errors >= (unsigned)s->st->server.max_errors && s->wait != SESSION_WAIT_CLOSE)
        session_reply_close(s, SMTP_REPLY_TOO_MANY_ERRORS, s->st->server.hostname, "errors");
}

/* --- handshakes --- */

bool
session_enter_handshake(struct session *s)
{
    unsigned limit = (unsigned)s->st->server.max_connections / HANDSHAKES_PART;

    if (atomic_fetch_add(&s->w->srv->handshakes, 1) >=
        (limit > HANDSHAKES_MIN ? limit : HANDSHAKES_MIN)) {
        atomic_fetch_sub(&s->w->srv->handshakes, 1);
        return false;
    }
    s->is_shaking = true;
    return true;
}

static void
leave_handshake(struct session *s)
{
    if (s->is_shaking) {
        atomic_fetch_sub(&s->w->srv->handshakes, 1);
        atomic_fetch_add(&s->w->srv->shaken, 1);
    }
    s->is_shaking = false;
}

/* --- the transaction --- */

void
session_reset(struct session *s)
{
    struct session_transaction *tx = s->tx;

    if (tx == NULL)
        return;
    session_candidate_drop(s);
    if (s->dns_ticket != 0)
        resolver_cancel(s->w->resolver, s->dns_ticket);
    s->dns_ticket = 0;
    message_free(&tx->message);
    free(tx->late_address);
    free(tx->log_head);
    free(tx);
    s->tx = NULL;
    if (s->phase > SMTP_PHASE_READY)
        session_set_phase(s, SMTP_PHASE_READY);
}

/* --- the end --- */

static void
log_session_end(const struct session *s, const char *reason)
{
    struct log_line l;

    if (!log_wants(LOG_LEVEL_INFO))
        return;
    log_begin(&l, LOG_LEVEL_INFO, "close");
    log_str(&l, "session", s->id);
    log_addr(&l, "client", session_client(s));
    log_seconds(&l, "duration", clock_ms() - s->started_ms);
    log_int(&l, "commands", s->commands);
    log_int(&l, "rcpt_ok", s->rcpt_ok);
    log_int(&l, "rcpt_bad", s->rcpt_bad);
    log_int(&l, "messages", s->messages);
    log_str(&l, "reason", reason);
    log_end(&l);
}

static void
bury(struct session *s)
{
    if (s->is_dead)
        return;
    s->is_dead = true;
    event_del(&s->timer);
    worker_bury(s->w, s);
}

void
session_close(struct session *s, const char *reason)
{
    if (s->wait == SESSION_WAIT_CLOSE)
        return;
    session_relay_drop(s, reason);
    session_reset(s);
    leave_tarpit(s);
    leave_handshake(s);
    log_session_end(s, reason);
    session_set_wait(s, SESSION_WAIT_CLOSE, s->w->is_draining ? LINGER_DRAIN_MS : LINGER_MS);
    stream_shutdown(s->stream);
    stream_discard_input(s->stream);
}

void
session_abort(struct session *s)
{
    session_close(s, "shutdown");
    bury(s);
}

void
session_free(struct session *s)
{
    stream_free(&s->stream);
    if (s->is_counted)
        clients_leave(s->w->srv->clients, &s->counted);
    atomic_fetch_sub(&s->w->srv->connections, 1);
    settings_unref(s->st);
    delivery_heard_free(&s->heard);
    free(s->chunk_address);
    free(s->helo);
    free(s);
}

static void
log_tls(const struct session *s, const SSL *ssl, const char *error)
{
    char peer[NETADDR_TEXT];

    netaddr_format(session_client(s), peer);
    tls_log(LOG_LEVEL_INFO,
            &(struct tls_outcome){
                .session = s->id, .leg = "in", .peer = peer, .ssl = ssl, .error = error});
}

static void
on_ended(void *owner, enum stream_end end)
{
    static const char *const reasons[] = {[STREAM_END_EOF] = "client-closed",
                                          [STREAM_END_RESET] = "client-reset",
                                          [STREAM_END_TRUNCATED] = "tls-truncated",
                                          [STREAM_END_TLS] = "tls-failed"};
    struct session *s = owner;

    /* Its side is ended, but a whole message is here, whose reply it may still read.  One that is
     * gone altogether cannot be told from it; it will try again, and be answered from memory. */
    if (end == STREAM_END_EOF && s->tx != NULL && s->tx->end_ms != 0) {
        s->has_ended = true;
        return;
    }
    /* It said QUIT without waiting for our 250, but has read to the end: a peer that closes over
     * what it did not read resets. */
    if (end == STREAM_END_EOF && s->has_quit && stream_is_acknowledged(s->stream))
        delivery_confirm(s->w, &s->heard);
    if (end == STREAM_END_TLS && s->wait == SESSION_WAIT_TLS) {
        char error[160];
        tls_handshake_error(stream_ssl(s->stream), error, sizeof(error));
        log_tls(s, NULL, error);
    }
    session_close(s, reasons[end]);
    bury(s);
}

static void
on_drained(void *owner)
{
    struct session *s = owner;

    if (s->wait == SESSION_WAIT_OUTPUT)
        session_continue(s);
}

/* The reply that the tarpit held back. */
static void
end_delay(struct session *s)
{
    const char *closes = s->close_reason;

    stream_write(s->stream, s->delayed, strlen(s->delayed));
    leave_tarpit(s);
    s->close_reason = NULL;
    if (closes != NULL) {
        session_close(s, closes);
        stream_flush(s->stream);
        return;
    }
    session_continue(s);
}

static void
on_deadline(struct session *s)
{
    const char *hostname = s->st->server.hostname;

    switch (s->wait) {
    case SESSION_WAIT_CLOSE:
        bury(s);
        return;
    case SESSION_WAIT_DELAY:
        end_delay(s);
        return;
    case SESSION_WAIT_RELAY:
        session_late(s);
        return;
    case SESSION_WAIT_TLS:
        session_close(s, "tls-timeout");
        return;
    case SESSION_WAIT_NONE:
    case SESSION_WAIT_SPOOL:
    case SESSION_WAIT_OUTPUT:
        if (s->input == SESSION_INPUT_PROXY) {
            metrics_refused(s->w->srv->metrics, METRICS_REFUSAL_PROXY);
            session_close(s, "proxy-timeout");
            bury(s);
            return;
        }
        session_reply_close(s, SMTP_REPLY_TIMEOUT, hostname, "timeout");
        return;
    case SESSION_WAIT_DNS:
    case SESSION_WAIT_DIRECTORY:
    case SESSION_WAIT_QUESTION:
        if (s->tx->end_ms != 0)
            session_late(s);
        else /* those who answer keep the time; this is the net below them */
            session_reply_close(s, SMTP_REPLY_TIMEOUT, hostname, "timeout");
        return;
    }
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    int64_t now_ms = clock_ms();

    (void)fd;
    (void)what;
    s->timer_ms = INT64_MAX;
    if (now_ms < s->deadline_ms) {
        set_deadline(s, now_ms, s->deadline_ms - now_ms);
        return;
    }
    on_deadline(s);
}

/* --- input --- */

static size_t
take_line(struct session *s, struct span in)
{
    struct span line;
    size_t used = 0;

    switch (smtp_line_next(in, SMTP_COMMAND_MAX, &line, &used)) {
    case SMTP_LINE_MORE:
        return 0;
    case SMTP_LINE_OK:
        s->commands++;
        s->has_more = used < in.n;
        session_command(s, line);
        return used;
    case SMTP_LINE_TOO_LONG:
        s->input = SESSION_INPUT_SKIP;
        return 0;
    case SMTP_LINE_BARE:
        session_reply_close(s, SMTP_REPLY_BARE, NULL, "bare-newline");
        return 0;
    }
    return 0;
}

static size_t
skip_line(struct session *s, struct span in)
{
    size_t used = 0;

    if (smtp_line_skip(in, &used)) {
        s->input = SESSION_INPUT_COMMAND;
        s->commands++;
        session_reply(s, SMTP_REPLY_LINE_TOO_LONG, NULL);
        session_count_error(s);
    }
    return used;
}

static size_t
take_proxy_header(struct session *s, struct span in)
{
    struct proxy_header header;
    size_t used = 0;

    switch (proxy_header_parse(in, &header, &used)) {
    case PROXY_HEADER_MORE:
        return 0;
    case PROXY_HEADER_BAD:
        metrics_refused(s->w->srv->metrics, METRICS_REFUSAL_PROXY);
        session_close(s, "proxy-header");
        bury(s);
        return 0;
    case PROXY_HEADER_OK:
        s->input = SESSION_INPUT_COMMAND;
        if (header.is_told) {
            s->port = header.port;
            policy_session_begin(&s->policy, s->st, &header.client, true);
            s->is_told = s->is_peer_told = true;
            s->peer = header.client;
        }
        session_greet(s, used < in.n || stream_has_input(s->stream));
        return used;
    }
    return 0;
}

static size_t
on_input(void *owner, struct span in)
{
    struct session *s = owner;
    size_t total = 0;
    unsigned commands = 0;
    bool is_heard = false; /* a whole command, or content: the client's time begins anew */

    while (s->wait == SESSION_WAIT_NONE && total < in.n) {
        if (commands == TURN_COMMANDS) {
            stream_yield(s->stream);
            break;
        }
        struct span rest = span_of(in.p + total, in.n - total);
        enum session_input before = s->input;
        size_t used = 0;
        switch (s->input) {
        case SESSION_INPUT_PROXY:
            used = take_proxy_header(s, rest);
            break;
        case SESSION_INPUT_COMMAND:
            used = take_line(s, rest);
            is_heard |= used > 0;
            commands++;
            break;
        case SESSION_INPUT_SKIP:
            used = skip_line(s, rest);
            is_heard |= s->input != before;
            break;
        case SESSION_INPUT_DATA:
        case SESSION_INPUT_BDAT:
            used = session_content(s, rest);
            is_heard = true;
            break;
        }
        total += used;
        if (used == 0 && s->input == before)
            break;
        if (s->wait == SESSION_WAIT_NONE && stream_pending(s->stream) > OUTPUT_MAX) {
            stream_flush(s->stream);
            if (stream_pending(s->stream) > OUTPUT_MAX)
                session_set_wait(s, SESSION_WAIT_OUTPUT, s->st->server.command_timeout);
        }
    }
    if (is_heard && s->wait == SESSION_WAIT_NONE)
        await_client(s);
    if (s->is_ahead && total == in.n && !stream_has_input(s->stream))
        s->is_ahead = false;
    /* It ended its transaction by a command alone, and has nothing to come back for. */
    if (s->w->is_draining && s->tx == NULL && s->wait == SESSION_WAIT_NONE &&
        s->input == SESSION_INPUT_COMMAND)
        session_drain(s, false);
    return total;
}

void
session_continue(struct session *s)
{
    if (s->wait == SESSION_WAIT_CLOSE)
        return;
    if (s->has_ended) {
        session_close(s, "client-closed");
        if (stream_pending(s->stream) == 0)
            bury(s);
        return;
    }
    session_set_wait(s, SESSION_WAIT_NONE, 0);
    if (s->w->is_draining && s->tx == NULL) {
        session_drain(s, false);
        return;
    }
    stream_flush(s->stream);
    stream_pump(s->stream);
}

static void
on_secured(void *owner)
{
    struct session *s = owner;
    const SSL *ssl = stream_ssl(s->stream);

    s->is_tls = true;
    leave_handshake(s);
    metrics_tls(s->w->srv->metrics, METRICS_LEG_IN, SSL_version(ssl));
    log_tls(s, ssl, NULL);
    session_continue(s);
}

/* --- the beginning --- */

static void
log_connect(const struct session *s)
{
    struct log_line l;

    if (!log_wants(LOG_LEVEL_INFO))
        return;
    log_begin(&l, LOG_LEVEL_INFO, "connect");
    log_str(&l, "session", s->id);
    log_addr(&l, "client", session_client(s));
    log_int(&l, "port", s->port);
    log_str(&l, "listener", s->listener);
    log_end(&l);
}

/* Count the client's network, and no longer the one that the session was counted for.  False when
 * it has too many. */
static bool
count_client(struct session *s)
{
    struct clients *clients = s->w->srv->clients;
    /* A proxy that tells nobody's address (LOCAL, UNKNOWN) is not one client. */
    bool is_proxy =
        !s->is_told && network_list_contains(&s->st->server.proxy_protocol, session_client(s));

    if (s->is_counted)
        clients_leave(clients, &s->counted);
    s->is_counted = false;
    if (s->policy.client.is_allowed || is_proxy)
        return true;
    s->counted = s->policy.client.network;
    s->is_counted =
        clients_enter(clients, &s->counted, (unsigned)s->st->server.max_connections_per_client);
    return s->is_counted;
}

void
session_greet(struct session *s, bool is_early)
{
    const char *hostname = s->st->server.hostname;
    struct metrics *m = s->w->srv->metrics;
    bool is_first = !s->is_greeted;

    if (is_first)
        log_connect(s);
    s->is_greeted = true;
    if (!count_client(s)) {
        metrics_refused(m, METRICS_REFUSAL_CLIENT_LIMIT);
        session_reply_close(s, SMTP_REPLY_CLIENT_CONNECTIONS, hostname, "client-limit");
        /* Nothing bounds how many come: they get no more than half of the room to read that. */
        if (is_first &&
            atomic_load(&s->w->srv->connections) > (unsigned)s->st->server.max_connections / 2)
            bury(s);
        return;
    }
    if (is_early) {
        metrics_refused(m, METRICS_REFUSAL_EARLY);
        session_reply_close(s, SMTP_REPLY_SYNCHRONIZATION, NULL, "early-talker");
        return;
    }
    switch (policy_session_check(s->w->srv->policy, s->st, &s->policy, clock_ms())) {
    case POLICY_STANDING_LISTED:
        metrics_refused(m, METRICS_REFUSAL_BLOCKED);
        session_reply_close(s, SMTP_REPLY_CLIENT_BLOCKED, hostname, "blocked");
        return;
    case POLICY_STANDING_BLOCKED:
        metrics_refused(m, METRICS_REFUSAL_HARVEST);
        session_reply_close(s, SMTP_REPLY_HARVEST_CLOSE, hostname, "harvest-block");
        return;
    case POLICY_STANDING_OK:
        break;
    }
    session_reply(s, SMTP_REPLY_GREETING, hostname);
    await_client(s);
}

static void
make_id(struct session *s)
{
    struct server *srv = s->w->srv;
    uint64_t n = atomic_fetch_add_explicit(&srv->next_session, 1, memory_order_relaxed);

    snprintf(s->id, sizeof(s->id), "%08llX%06llX",
             (unsigned long long)(srv->session_base & 0xffffffff),
             (unsigned long long)(n & 0xffffffffff));
}

bool
session_start(struct worker *w, int fd, const struct session_peer *peer)
{
    struct session *s = calloc(1, sizeof(*s));

    if (s == NULL || (s->stream = stream_new(&w->loop, fd, &stream_callbacks, s)) == NULL) {
        free(s);
        close(fd);
        atomic_fetch_sub(&w->srv->connections, 1);
        return false;
    }
    s->w = w;
    s->st = settings_ref(w->settings);
    s->listener = peer->listener;
    s->port = peer->port;
    s->peer = peer->address;
    s->started_ms = clock_ms();
    s->timer_ms = INT64_MAX;
    s->input = SESSION_INPUT_COMMAND;
    evtimer_assign(&s->timer, w->loop.base, on_timer, s);
    make_id(s);
    policy_session_begin(&s->policy, s->st, &peer->address, false);
    TAILQ_INSERT_TAIL(&w->sessions, s, link);
    if (network_list_contains(&s->st->server.proxy_protocol, &peer->address)) {
        s->input = SESSION_INPUT_PROXY;
        set_deadline(s, s->started_ms, PROXY_HEADER_MS);
        return true;
    }
    session_greet(s, stream_has_input(s->stream));
    stream_flush(s->stream);
    return true;
}

void
session_drain(struct session *s, bool is_forced)
{
    if (s->wait == SESSION_WAIT_CLOSE) {
        if (!is_forced)
            session_set_wait(s, SESSION_WAIT_CLOSE, LINGER_DRAIN_MS);
        return;
    }
    /* A message whose end has reached the downstream is waited for, whatever the hour. */
    if (s->wait == SESSION_WAIT_RELAY && s->delivery != NULL && delivery_is_past_end(s->delivery))
        return;
    if (!is_forced && (s->tx != NULL || s->wait != SESSION_WAIT_NONE))
        return;
    if (s->wait != SESSION_WAIT_TLS && s->input != SESSION_INPUT_PROXY)
        session_reply(s, SMTP_REPLY_SHUTDOWN, s->st->server.hostname);
    session_close(s, "shutdown");
}

void
session_press(struct session *s, int64_t now_ms, int64_t limit_ms)
{
    if ((s->wait == SESSION_WAIT_NONE || s->wait == SESSION_WAIT_OUTPUT) &&
        s->input != SESSION_INPUT_PROXY && now_ms - s->quiet_ms > limit_ms)
        session_reply_close(s, SMTP_REPLY_TIMEOUT, s->st->server.hostname, "timeout");
}

void
session_link(struct session_list *list, struct session *s)
{
    TAILQ_INSERT_TAIL(list, s, link);
}

void
session_unlink(struct session_list *list, struct session *s)
{
    TAILQ_REMOVE(list, s, link);
}

struct session *
session_next(const struct session *s)
{
    return TAILQ_NEXT(s, link);
}

#include "proxy/relay/downstream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/content.h"
#include "proxy/relay/envelope.h"

enum state {
    STATE_CONNECTING,
    STATE_GREETING,
    STATE_EHLO,
    STATE_HELO, /* EHLO was refused */
    STATE_STARTTLS,
    STATE_HANDSHAKE,
    STATE_IDLE,
    STATE_XCLIENT, /* answered by a greeting; then EHLO again */
    STATE_XCLIENT_EHLO,
    STATE_ENVELOPE, /* MAIL and RCPT are out */
    STATE_DATA,     /* DATA is out */
    STATE_CONTENT,  /* being written */
    STATE_FINAL,    /* the end of data is written */
    STATE_RESET,    /* RSET is out */
    STATE_QUIT,
    STATE_CLOSED
};

struct downstream {
    const struct stream_loop *loop;
    struct downstream_target target;
    char session[24]; /* the target's */
    const struct downstream_events *events;
    void *owner;
    struct stream *stream;
    int fd; /* while connecting; then the stream's */
    struct event *connect_event;
    struct event *timer;
    enum state state;
    bool is_tls;
    bool has_opened;
    bool is_bound; /* by XCLIENT to a client, and no other can be told of */
    struct smtp_capabilities caps;
    struct smtp_reply_reader reader;
    int64_t opened_ms;
    int transactions;
    bool *is_gone; /* of an input call under way: set when D is freed inside it */

    /* the transaction */
    uint32_t needs; /* SMTP_CAP_BITs */
    struct message *message;
    struct content content;
    bool uses_bdat;
    size_t replies_wanted; /* of the envelope */
    size_t replies_seen;
    size_t recipients_sent;
    bool mail_refused;
    struct smtp_reply decisive;
    struct smtp_reply *refused;
    size_t n_refused;

    /* the question */
    char *ask_sender, *ask_recipient;
    bool ask_smtputf8;
    const SSL *ssl;   /* the stream's, from the beginning of the handshake */
    struct err error; /* why it failed; before that what is known of it */
};

static void on_connected(evutil_socket_t fd, short what, void *arg);
static void on_timer(evutil_socket_t fd, short what, void *arg);
static size_t on_input(void *owner, struct span in);
static void on_drained(void *owner);
static void on_secured(void *owner);
static void on_ended(void *owner, enum stream_end end);

static const struct stream_events stream_callbacks = {
    .input = on_input, .drained = on_drained, .secured = on_secured, .ended = on_ended};

const char *
downstream_fail_text(enum downstream_fail fail)
{
    static const char *const texts[] = {[DOWNSTREAM_OK] = "ok",
                                        [DOWNSTREAM_CONNECT] = "cannot connect",
                                        [DOWNSTREAM_TLS] = "TLS is not as configured",
                                        [DOWNSTREAM_TIMEOUT] = "no answer in time",
                                        [DOWNSTREAM_LOST] = "connection lost",
                                        [DOWNSTREAM_GARBLED] = "unexpected reply",
                                        [DOWNSTREAM_CLOSING] = "closing",
                                        [DOWNSTREAM_LACKS] = "not offered to this client",
                                        [DOWNSTREAM_CONTENT] = "the held message cannot be read"};

    return texts[fail];
}

static void
set_state(struct downstream *d, enum state state)
{
    const struct settings_downstream *ds = d->target.settings;
    int64_t ms = ds->reply_timeout;

    d->state = state;
    if (state == STATE_IDLE || state == STATE_CLOSED) {
        event_del(d->timer); /* the pool keeps the time of idle ones */
        return;
    }
    if (state == STATE_CONNECTING || state == STATE_HANDSHAKE)
        ms = ds->connect_timeout;
    else if (state == STATE_FINAL)
        ms = ds->data_timeout;
    else if (state == STATE_QUIT)
        ms = 1000;
    event_add(d->timer,
              &(struct timeval){.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)});
}

static bool
is_in_transaction(const struct downstream *d)
{
    return d->state >= STATE_XCLIENT && d->state <= STATE_FINAL;
}

static void
clear_transaction(struct downstream *d)
{
    d->message = NULL;
    content_end(&d->content);
    free(d->refused);
    d->refused = NULL;
    d->n_refused = 0;
    free(d->ask_sender);
    free(d->ask_recipient);
    d->ask_sender = d->ask_recipient = NULL;
}

/* Tell the owner how the transaction ended.  It may free D. */
static void
finish(struct downstream *d, const struct downstream_result *result)
{
    struct smtp_reply *refused = d->refused;

    d->refused = NULL;
    clear_transaction(d);
    d->events->finished(d->owner, result);
    free(refused);
}

/* The connection is of no more use. The owner may free D. */
static void
fail(struct downstream *d, enum downstream_fail why, const struct smtp_reply *reply)
{
    bool in_transaction = is_in_transaction(d);
    struct downstream_result result = {
        .fail = why, .is_past_end = d->state == STATE_FINAL, .is_envelope = d->state <= STATE_DATA};

    if (d->state == STATE_CLOSED)
        return;
    if (reply != NULL)
        result.reply = *reply;
    if (d->error.kind == ERR_NONE)
        err_set(&d->error, ERR_SYSTEM, "%s",
                reply != NULL && reply->text[0] != '\0' ? reply->text : downstream_fail_text(why));
    set_state(d, STATE_CLOSED);
    stream_free(&d->stream);
    if (in_transaction)
        finish(d, &result);
    else
        d->events->closed(d->owner, why, reply);
}

static void
set_connect_error(struct downstream *d, int errnum)
{
    err_errno(&d->error, ERR_SYSTEM, errnum, "%s", downstream_fail_text(DOWNSTREAM_CONNECT));
}

struct downstream *
downstream_open(const struct stream_loop *loop, const struct downstream_target *target,
                const struct downstream_events *events, void *owner)
{
    struct downstream *d = calloc(1, sizeof(*d));
    struct sockaddr_storage sa;
    int one = 1;

    if (d == NULL)
        return NULL;
    d->loop = loop;
    d->target = *target;
    span_copy(d->session, sizeof(d->session), span_str(target->session));
    d->target.session = d->session;
    d->events = events;
    d->owner = owner;
    d->fd = socket(target->address.family == 6 ? AF_INET6 : AF_INET,
                   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->fd < 0)
        goto failed;
    setsockopt(d->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    d->timer = evtimer_new(loop->base, on_timer, d);
    d->connect_event = event_new(loop->base, d->fd, EV_WRITE, on_connected, d);
    if (d->timer == NULL || d->connect_event == NULL)
        goto failed;
    socklen_t n = netaddr_to_sockaddr(&target->address, target->port, &sa);
    d->opened_ms = clock_ms();
    set_state(d, STATE_CONNECTING);
    if (connect(d->fd, (struct sockaddr *)&sa, n) != 0 && errno != EINPROGRESS) {
        set_connect_error(d, errno);
        /* Reported from the loop, like every other failure. */
        event_active(d->connect_event, EV_WRITE, 0);
        return d;
    }
    event_add(d->connect_event, NULL);
    return d;
failed:
    downstream_free(&d);
    return NULL;
}

void
downstream_free(struct downstream **dp)
{
    struct downstream *d = *dp;

    if (d == NULL)
        return;
    *dp = NULL;
    if (d->is_gone != NULL)
        *d->is_gone = true;
    stream_free(&d->stream);
    if (d->fd >= 0)
        close(d->fd);
    if (d->connect_event != NULL)
        event_free(d->connect_event);
    if (d->timer != NULL)
        event_free(d->timer);
    clear_transaction(d);
    free(d);
}

void
downstream_quit(struct downstream **dp)
{
    struct downstream *d = *dp;

    if (d != NULL && d->state == STATE_IDLE) {
        /* The host's 221 is not waited for: nothing depends on it. */
        stream_write(d->stream, "QUIT\r\n", 6);
        stream_shutdown(d->stream);
    }
    downstream_free(dp);
}

void
downstream_set_owner(struct downstream *d, const struct downstream_events *events, void *owner)
{
    d->events = events;
    d->owner = owner;
}

static void
on_connected(evutil_socket_t fd, short what, void *arg)
{
    struct downstream *d = arg;
    int error = 0;
    socklen_t n = sizeof(error);
    struct sockaddr_storage peer;
    socklen_t peer_n = sizeof(peer);

    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0 &&
        getpeername(fd, (struct sockaddr *)&peer, &peer_n) == 0)
        d->stream = stream_new(d->loop, d->fd, &stream_callbacks, d);
    if (d->stream == NULL) {
        if (error != 0)
            set_connect_error(d, error);
        fail(d, DOWNSTREAM_CONNECT, NULL);
        return;
    }
    d->fd = -1;
    set_state(d, STATE_GREETING);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct downstream *d = arg;

    (void)fd;
    (void)what;
    if (d->state == STATE_CONNECTING)
        set_connect_error(d, ETIMEDOUT);
    fail(d, d->state == STATE_CONNECTING ? DOWNSTREAM_CONNECT : DOWNSTREAM_TIMEOUT, NULL);
}

static void
put(struct downstream *d, struct span s)
{
    /* When memory is out the octets are missing and the reply never comes: the timer ends it. */
    (void)stream_write(d->stream, s.p, s.n);
}

static void
put_str(struct downstream *d, const char *s)
{
    put(d, span_str(s));
}

static void
say_ehlo(struct downstream *d, enum state state)
{
    put_str(d, state == STATE_HELO ? "HELO " : "EHLO ");
    put_str(d, d->target.hostname);
    put_str(d, "\r\n");
    set_state(d, state);
}

static bool
offers(const struct downstream *d, uint32_t bit)
{
    return (d->caps.bits & bit) != 0;
}

static size_t
recipients_of(const struct downstream *d)
{
    return d->message != NULL ? d->message->n_recipients : 1;
}

static void
put_next_rcpt(struct downstream *d)
{
    const struct message *m = d->message;
    char line[ENVELOPE_LINE];
    size_t n = m != NULL ? envelope_rcpt(&d->caps, &m->recipients[d->recipients_sent], line)
                         : envelope_ask_rcpt(d->ask_recipient, line);

    put(d, span_of(line, n));
    d->recipients_sent++;
}

/* MAIL and, where the host takes them at once, every RCPT. */
static void
put_envelope(struct downstream *d)
{
    char line[ENVELOPE_LINE];
    size_t n = d->message != NULL
                   ? envelope_mail(&d->caps, d->message, line)
                   : envelope_ask_mail(&d->caps, d->ask_sender, d->ask_smtputf8, line);

    put(d, span_of(line, n));
    d->replies_wanted = 1 + recipients_of(d);
    d->replies_seen = 0;
    d->recipients_sent = 0;
    while (offers(d, SMTP_CAP_BIT(PIPELINING)) && d->recipients_sent < recipients_of(d))
        put_next_rcpt(d);
    set_state(d, STATE_ENVELOPE);
}

static void
begin(struct downstream *d, uint32_t needs)
{
    d->transactions++;
    d->needs = needs;
    d->mail_refused = false;
    d->n_refused = 0;
    memset(&d->decisive, 0, sizeof(d->decisive));
}

/* The host starts over with a greeting. */
static void
put_xclient(struct downstream *d, const struct downstream_client *client)
{
    char line[ENVELOPE_LINE];

    put(d, span_of(line, envelope_xclient(&d->caps, client, line)));
    set_state(d, STATE_XCLIENT);
}

static void
put_transaction(struct downstream *d, const struct downstream_client *client)
{
    if (d->target.settings->xclient && offers(d, SMTP_CAP_BIT(XCLIENT)))
        put_xclient(d, client);
    else
        put_envelope(d);
    stream_flush(d->stream);
}

void
downstream_send(struct downstream *d, struct message *m, uint32_t needs,
                const struct downstream_client *client)
{
    begin(d, needs);
    d->message = m;
    put_transaction(d, client);
}

void
downstream_ask(struct downstream *d, const char *sender, const char *recipient, bool is_smtputf8,
               const struct downstream_client *client)
{
    begin(d, is_smtputf8 ? SMTP_CAP_BIT(SMTPUTF8) : 0);
    d->ask_sender = span_dup(span_str(sender));
    d->ask_recipient = span_dup(span_str(recipient));
    d->ask_smtputf8 = is_smtputf8;
    if (d->ask_sender == NULL || d->ask_recipient == NULL) {
        /* The question is never sent, so the timer answers it. */
        set_state(d, STATE_ENVELOPE);
        return;
    }
    put_transaction(d, client);
}

static void
go_on(struct downstream *d)
{
    switch (content_write(&d->content)) {
    case CONTENT_WRITTEN:
        set_state(d, STATE_FINAL);
        return;
    case CONTENT_BLOCKED:
    case CONTENT_WAIT:
        set_state(d, STATE_CONTENT);
        return;
    case CONTENT_FAILED:
        fail(d, DOWNSTREAM_CONTENT, NULL);
        return;
    }
}

void
downstream_block(struct downstream *d, bool is_ok, const char *data, size_t n)
{
    content_block(&d->content, is_ok, data, n);
    if (d->state == STATE_CONTENT && (data != NULL || !is_ok))
        go_on(d);
}

static void
begin_content(struct downstream *d)
{
    set_state(d, STATE_CONTENT);
    content_start(&d->content, d->stream, d->message, d->uses_bdat);
    go_on(d);
}

/* The envelope was accepted: send the content. */
static void
begin_data(struct downstream *d)
{
    d->uses_bdat = offers(d, SMTP_CAP_BIT(CHUNKING));
    if (d->uses_bdat) {
        begin_content(d);
        return;
    }
    put_str(d, "DATA\r\n");
    set_state(d, STATE_DATA);
}

/* The transaction is decided.  If the connection NEEDS_RESET, it becomes idle by the reply to RSET,
 * which the owner does not wait for. */
static void
conclude(struct downstream *d, const struct smtp_reply *decisive, bool needs_reset,
         bool is_envelope)
{
    struct downstream_result result = {.fail = DOWNSTREAM_OK,
                                       .is_envelope = is_envelope,
                                       .reply = *decisive,
                                       .n_refused = d->n_refused,
                                       .refused = d->refused};

    if (needs_reset) {
        put_str(d, "RSET\r\n");
        set_state(d, STATE_RESET);
        stream_flush(d->stream);
    } else {
        set_state(d, STATE_IDLE);
    }
    finish(d, &result);
}

/* The transaction is decided, and the connection cannot serve another. */
static void
conclude_closed(struct downstream *d, const struct smtp_reply *decisive)
{
    struct downstream_result result = {.fail = DOWNSTREAM_OK, .reply = *decisive};

    set_state(d, STATE_CLOSED);
    stream_free(&d->stream);
    finish(d, &result);
}

static void
note_refused(struct downstream *d, size_t recipient, const struct smtp_reply *reply)
{
    if (d->refused == NULL)
        d->refused = calloc(recipients_of(d), sizeof(*d->refused));
    if (d->refused != NULL)
        d->refused[recipient] = *reply;
    d->n_refused++;
    d->decisive = *reply;
}

static void
envelope_reply(struct downstream *d, const struct smtp_reply *reply)
{
    size_t index = d->replies_seen++;
    bool is_ok = reply->code >= 200 && reply->code < 300;

    if (index == 0 && !is_ok) {
        d->mail_refused = true;
        d->decisive = *reply;
    } else if (index > 0 && !d->mail_refused) {
        if (!is_ok)
            note_refused(d, index - 1, reply);
        else if (d->message == NULL)
            d->decisive = *reply;
    }
    if (!offers(d, SMTP_CAP_BIT(PIPELINING)) && !d->mail_refused &&
        d->recipients_sent < recipients_of(d)) {
        put_next_rcpt(d);
        set_state(d, STATE_ENVELOPE);
        return;
    }
    if (d->replies_seen <
        (d->mail_refused && !offers(d, SMTP_CAP_BIT(PIPELINING)) ? 1 : d->replies_wanted)) {
        set_state(d, STATE_ENVELOPE);
        return;
    }
    if (d->message == NULL || d->mail_refused || d->n_refused > 0) {
        struct smtp_reply decisive = d->decisive;
        conclude(d, &decisive, true, true);
    } else {
        begin_data(d);
    }
}

static void
become_ready(struct downstream *d)
{
    bool is_first = !d->has_opened;

    set_state(d, STATE_IDLE);
    d->has_opened = true;
    if (is_first)
        d->events->opened(d->owner);
    else
        d->events->idle(d->owner);
}

static void
log_tls(const struct downstream *d, const char *error)
{
    const struct tls_client *tls = d->target.tls;
    enum log_level level = error != NULL ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO;
    struct tls_outcome outcome = {.session = d->target.session,
                                  .leg = "out",
                                  .peer = d->target.label,
                                  .ssl = stream_ssl(d->stream),
                                  .is_verified =
                                      error == NULL && tls != NULL && tls_peer_verified(tls),
                                  .error = error};

    /* Probes come every few seconds; what they find is logged as the host's state. */
    if (strcmp(d->target.session, "-") == 0)
        level = LOG_LEVEL_DEBUG;
    tls_log(level, &outcome);
}

static bool
tls_is_optional(const struct downstream *d)
{
    return d->target.settings->tls == SETTINGS_TLS_OPPORTUNISTIC;
}

static void
fail_tls(struct downstream *d, const char *why, const struct smtp_reply *reply)
{
    log_tls(d, why);
    err_set(&d->error, ERR_TLS, "%s: %s", downstream_fail_text(DOWNSTREAM_TLS), why);
    fail(d, DOWNSTREAM_TLS, reply);
}

static void
ehlo_reply(struct downstream *d, const struct smtp_reply *reply)
{
    if (reply->code / 100 == 5 && d->state == STATE_EHLO) {
        say_ehlo(d, STATE_HELO);
        return;
    }
    if (reply->code / 100 != 2) {
        fail(d, DOWNSTREAM_CONNECT, reply);
        return;
    }
    memset(&d->caps, 0, sizeof(d->caps));
    if (d->state != STATE_HELO)
        smtp_capabilities_parse(smtp_reply_reader_text(&d->reader), &d->caps);
    if (d->state == STATE_XCLIENT_EHLO) {
        /* What it offers to this client may be less than what it was chosen for. */
        d->is_bound = !offers(d, SMTP_CAP_BIT(XCLIENT));
        if ((d->needs & ~d->caps.bits) != 0)
            fail(d, DOWNSTREAM_LACKS, NULL);
        else
            put_envelope(d);
        return;
    }
    if (d->target.tls != NULL && !d->is_tls) {
        if (offers(d, SMTP_CAP_BIT(STARTTLS))) {
            put_str(d, "STARTTLS\r\n");
            set_state(d, STATE_STARTTLS);
            return;
        }
        if (!tls_is_optional(d)) {
            fail_tls(d, "STARTTLS is not offered", reply);
            return;
        }
        log_tls(d, "STARTTLS is not offered");
    }
    become_ready(d);
}

static void
starttls_reply(struct downstream *d, const struct smtp_reply *reply, bool is_last_octet)
{
    if (reply->code / 100 != 2) {
        if (!tls_is_optional(d)) {
            fail_tls(d, "STARTTLS was refused", reply);
            return;
        }
        log_tls(d, "STARTTLS was refused");
        become_ready(d);
        return;
    }
    /* What follows the 220 in the clear need not come from the host that the handshake
     * authenticates (CVE-2011-0411). */
    if (!is_last_octet) {
        fail_tls(d, "data after the reply to STARTTLS", NULL);
        return;
    }
    SSL *ssl = tls_connect(d->target.tls, d->target.host);
    if (ssl == NULL) {
        fail(d, DOWNSTREAM_TLS, NULL);
        return;
    }
    d->ssl = ssl;
    set_state(d, STATE_HANDSHAKE);
    stream_start_tls(d->stream, ssl, false);
}

static void
on_secured(void *owner)
{
    struct downstream *d = owner;

    if (!tls_peer_accepted(d->target.tls, stream_ssl(d->stream))) {
        fail_tls(d, "the certificate is not the expected one", NULL);
        return;
    }
    d->is_tls = true;
    if (d->target.metrics != NULL)
        metrics_tls(d->target.metrics, METRICS_LEG_OUT, SSL_version(stream_ssl(d->stream)));
    log_tls(d, NULL);
    say_ehlo(d, STATE_EHLO);
}

static void
data_reply(struct downstream *d, const struct smtp_reply *reply)
{
    if (reply->code == 354)
        begin_content(d);
    else if (reply->code / 100 == 2)
        fail(d, DOWNSTREAM_GARBLED, reply);
    else
        conclude(d, reply, true, false);
}

/* A reply before the end of the content can only refuse it, and the connection is out of step. */
static void
content_reply(struct downstream *d, const struct smtp_reply *reply)
{
    if (reply->code >= 400)
        conclude_closed(d, reply);
    else
        fail(d, DOWNSTREAM_GARBLED, reply);
}

static void
final_reply(struct downstream *d, const struct smtp_reply *reply, bool is_last_octet)
{
    if (reply->code == 354)
        fail(d, DOWNSTREAM_GARBLED, reply);
    else if (reply->code == 421 || !is_last_octet)
        conclude_closed(d, reply);
    else /* RFC 3030 3: after a refused BDAT the transaction must be reset. */
        conclude(d, reply, reply->code / 100 != 2 && d->uses_bdat, false);
}

/* May input follow the current reply?  Yes, within a pipelined envelope.  After the final reply it
 * makes the connection useless, but the verdict holds. */
static bool
awaits_more(const struct downstream *d)
{
    if (d->state == STATE_ENVELOPE && offers(d, SMTP_CAP_BIT(PIPELINING)))
        return d->replies_seen + 1 < d->replies_wanted;
    return d->state == STATE_FINAL;
}

/* Is the current reply the last one before a handshake or the content?  Then not even unread input
 * may follow it: it would be taken for the answer to these. */
static bool
is_decisive(const struct downstream *d)
{
    return d->state == STATE_STARTTLS || d->state == STATE_DATA ||
           (d->state == STATE_ENVELOPE && !awaits_more(d));
}

/* Handle one complete reply.  IS_LAST_OCTET: no input follows it. */
static void
handle_reply(struct downstream *d, const struct smtp_reply *reply, bool is_last_octet)
{
    bool is_ok = reply->code / 100 == 2;

    if (reply->code == 421 && d->state != STATE_FINAL && d->state != STATE_QUIT) {
        fail(d, DOWNSTREAM_CLOSING, reply);
        return;
    }
    /* An unsolicited reply would be taken for the answer to the next command, and a 250 for a
     * delivery. */
    if (!is_last_octet && d->state != STATE_STARTTLS && !awaits_more(d)) {
        fail(d, DOWNSTREAM_GARBLED, NULL);
        return;
    }
    switch (d->state) {
    case STATE_GREETING:
        if (!is_ok)
            fail(d, DOWNSTREAM_CONNECT, reply);
        else
            say_ehlo(d, STATE_EHLO);
        return;
    case STATE_EHLO:
    case STATE_HELO:
    case STATE_XCLIENT_EHLO:
        ehlo_reply(d, reply);
        return;
    case STATE_STARTTLS:
        starttls_reply(d, reply, is_last_octet);
        return;
    case STATE_XCLIENT:
        if (!is_ok)
            conclude(d, reply, true, true);
        else
            say_ehlo(d, STATE_XCLIENT_EHLO);
        return;
    case STATE_ENVELOPE:
        envelope_reply(d, reply);
        return;
    case STATE_DATA:
        data_reply(d, reply);
        return;
    case STATE_CONTENT:
        content_reply(d, reply);
        return;
    case STATE_FINAL:
        final_reply(d, reply, is_last_octet);
        return;
    case STATE_RESET:
        if (is_ok)
            become_ready(d);
        else
            fail(d, DOWNSTREAM_GARBLED, reply);
        return;
    case STATE_IDLE:
        fail(d, DOWNSTREAM_GARBLED, reply);
        return;
    case STATE_CONNECTING:
    case STATE_HANDSHAKE:
    case STATE_QUIT:
    case STATE_CLOSED:
        return;
    }
}

static size_t
on_input(void *owner, struct span in)
{
    struct downstream *d = owner;
    size_t total = 0;
    bool is_gone = false;

    d->is_gone = &is_gone;
    while (in.n > 0 && d->state != STATE_CLOSED) {
        size_t used = 0;
        enum smtp_reply_status status = smtp_reply_read(&d->reader, in, &used);
        in.p += used;
        in.n -= used;
        total += used;
        if (status == SMTP_REPLY_MORE)
            break;
        if (status == SMTP_REPLY_BAD) {
            fail(d, DOWNSTREAM_GARBLED, NULL);
        } else {
            struct smtp_reply reply = d->reader.reply;
            bool is_last_octet = in.n == 0 && !(is_decisive(d) && stream_has_input(d->stream));
            handle_reply(d, &reply, is_last_octet);
        }
        if (is_gone)
            return total;
    }
    d->is_gone = NULL;
    return total;
}

static void
on_drained(void *owner)
{
    struct downstream *d = owner;

    if (d->state == STATE_CONTENT)
        go_on(d);
}

static void
on_ended(void *owner, enum stream_end end)
{
    struct downstream *d = owner;

    /* In TLS 1.3 a host that requires a client certificate reports so after the handshake. */
    if (d->state == STATE_HANDSHAKE || (end == STREAM_END_TLS && !d->has_opened)) {
        char text[160];
        tls_handshake_error(d->ssl, text, sizeof(text));
        fail_tls(d, text, NULL);
        return;
    }
    /* A device that cuts the connection at STARTTLS may let mail in the clear through. */
    if (d->state == STATE_STARTTLS && tls_is_optional(d)) {
        fail_tls(d, "connection lost at STARTTLS", NULL);
        return;
    }
    fail(d, d->state <= STATE_GREETING ? DOWNSTREAM_CONNECT : DOWNSTREAM_LOST, NULL);
}

bool
downstream_is_past_end(const struct downstream *d)
{
    return d->state == STATE_FINAL;
}

bool
downstream_is_usable(const struct downstream *d)
{
    return d->state == STATE_IDLE && stream_is_quiet(d->stream);
}

bool
downstream_is_bound(const struct downstream *d)
{
    return d->is_bound;
}

bool
downstream_is_closed(const struct downstream *d)
{
    return d->state == STATE_CLOSED;
}

const struct err *
downstream_error(const struct downstream *d)
{
    return &d->error;
}

const struct smtp_capabilities *
downstream_capabilities(const struct downstream *d)
{
    return &d->caps;
}

int64_t
downstream_opened_ms(const struct downstream *d)
{
    return d->opened_ms;
}

int
downstream_transactions(const struct downstream *d)
{
    return d->transactions;
}

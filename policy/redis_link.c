#define _DEFAULT_SOURCE /* explicit_bzero */

#include "policy/redis_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include "base/clock.h"
#include "base/netaddr.h"
#include "base/span.h"
#include "conf/value.h"
#include "policy/name_lookup.h"

#define TURN_MS       100
#define ANSWER_MS     500
#define CONNECT_MS    2000 /* with the look-up of the name */
#define RETRY_MS      1000
#define BUFFER_MAX    ((size_t)1 << 20) /* of an answer that is not whole yet */
#define SHA_LENGTH    40u
#define PASSWORD_MAX  512u
#define DEFAULT_PORT  6379
#define SCRIPT_FAILED "the script was not taken"

enum link_phase { LINK_DOWN, LINK_RESOLVING, LINK_CONNECTING, LINK_LOADING, LINK_UP };

struct call {
    struct redis_link *link;
    redis_link_reply_fn *reply;
    void *arg;
};

struct redis_link {
    struct event_base *base;
    struct event *turn;
    struct name_lookup *lookup;
    uint16_t port;
    unsigned attempts;             /* by name */
    char *address, *password_file; /* the latter NULL: none */
    const char *script;
    struct redis_link_events events;
    void *arg;

    enum link_phase phase;
    redisAsyncContext *ac;
    redisReplyObjectFunctions makers;
    size_t pending;
    int64_t deadline_ms; /* of the next answer, or of the connection; DOWN: the next attempt */
    char sha[SHA_LENGTH + 1];
    char why[160];
};

/* What hiredis is not careful about. */

/* A reply that nobody waits for would be a failed assertion there; an error may come unasked. */
static bool
is_unasked(const redisReadTask *task)
{
    const redisAsyncContext *ac = task->privdata;

    return task->parent == NULL && task->type != REDIS_REPLY_ERROR && ac->replies.head == NULL;
}

static const struct redis_link *
link_of(const redisReadTask *task)
{
    const redisAsyncContext *ac = task->privdata;

    return ac->data;
}

static void *
make_string(const redisReadTask *task, char *text, size_t n)
{
    return is_unasked(task) ? NULL : link_of(task)->makers.createString(task, text, n);
}

static void *
make_array(const redisReadTask *task, int n)
{
    if (is_unasked(task) || n > (int)REDIS_LINK_ELEMENTS_MAX)
        return NULL;
    return link_of(task)->makers.createArray(task, n);
}

static void *
make_integer(const redisReadTask *task, long long value)
{
    return is_unasked(task) ? NULL : link_of(task)->makers.createInteger(task, value);
}

static void *
make_nil(const redisReadTask *task)
{
    return is_unasked(task) ? NULL : link_of(task)->makers.createNil(task);
}

static redisReplyObjectFunctions careful = {.createString = make_string,
                                            .createArray = make_array,
                                            .createInteger = make_integer,
                                            .createNil = make_nil,
                                            .freeObject = freeReplyObject};

/* Once BUFFER_MAX of an unfinished answer is held nothing more is read, and the deadline ends it.
 */
static void
add_read_bounded(void *privdata)
{
    redisLibeventEvents *e = privdata;
    const redisReader *reader = e->context->c.reader;

    if (reader->len - reader->pos < BUFFER_MAX)
        redisLibeventAddRead(privdata);
}

/* The end of a connection. */

static void
release(redisAsyncContext *ac)
{
    if (ac == NULL)
        return;
    ac->onDisconnect = NULL;
    redisAsyncFree(ac); /* from one of its callbacks: when that is over */
}

static void
lose(struct redis_link *l, const char *why)
{
    redisAsyncContext *ac = l->ac;

    if (l->phase == LINK_DOWN)
        return;
    (void)snprintf(l->why, sizeof l->why, "%s", why);
    l->phase = LINK_DOWN;
    l->deadline_ms = clock_ms() + RETRY_MS;
    l->ac = NULL;
    name_lookup_cancel(&l->lookup);
    release(ac);
    l->events.down(l->arg, l->why);
}

void
redis_link_give_up(struct redis_link *l, const char *why)
{
    lose(l, why);
}

static void
on_disconnect(const redisAsyncContext *ac, int status)
{
    struct redis_link *l = ac->data;

    (void)status;
    if (l->ac != ac)
        return;
    /* hiredis frees it. */
    l->ac = NULL;
    lose(l, ac->c.err != 0 ? ac->c.errstr : "closed");
}

/* Its answers. */

static void
expect(struct redis_link *l)
{
    l->deadline_ms = l->pending > 0 ? clock_ms() + ANSWER_MS : INT64_MAX;
}

static void
on_reply(redisAsyncContext *ac, void *reply, void *privdata)
{
    struct call *call = privdata;
    struct call own = *call;
    const redisReply *r = reply;
    struct redis_link *l = own.link;

    (void)ac;
    free(call);
    l->pending--;
    if (l->phase != LINK_DOWN)
        expect(l);
    if (r != NULL && r->type == REDIS_REPLY_ERROR) {
        own.reply(own.arg, NULL);
        lose(l, r->str);
        return;
    }
    own.reply(own.arg, r);
}

static bool
send_words(struct redis_link *l, size_t n, const char **argv, redis_link_reply_fn *reply, void *arg)
{
    struct call *call = malloc(sizeof *call);

    if (call == NULL)
        return false;
    *call = (struct call){l, reply, arg};
    if (redisAsyncCommandArgv(l->ac, on_reply, call, (int)n, argv, NULL) != REDIS_OK) {
        free(call);
        return false;
    }
    l->pending++;
    if (l->pending == 1)
        expect(l);
    return true;
}

size_t
redis_link_room(const struct redis_link *l)
{
    return l->phase == LINK_UP && l->pending < REDIS_LINK_PENDING_MAX
               ? REDIS_LINK_PENDING_MAX - l->pending
               : 0;
}

bool
redis_link_call(struct redis_link *l, size_t keys, size_t n, const char *const *argv,
                redis_link_reply_fn *reply, void *arg)
{
    const char *words[REDIS_LINK_WORDS_MAX + 3];
    char count[24];

    if (redis_link_room(l) == 0 || n > REDIS_LINK_WORDS_MAX)
        return false;
    (void)snprintf(count, sizeof count, "%zu", keys);
    words[0] = "EVALSHA";
    words[1] = l->sha;
    words[2] = count;
    memcpy(&words[3], argv, n * sizeof *argv);
    return send_words(l, n + 3, words, reply, arg);
}

/* Beginning. */

static void
on_script(void *arg, const redisReply *reply)
{
    struct redis_link *l = arg;

    if (reply == NULL)
        return; /* the end is told elsewhere */
    if (reply->type != REDIS_REPLY_STRING || reply->len != SHA_LENGTH ||
        strspn(reply->str, "0123456789abcdef") != SHA_LENGTH) {
        lose(l, SCRIPT_FAILED);
        return;
    }
    (void)span_copy(l->sha, sizeof l->sha, span_of(reply->str, reply->len));
    l->phase = LINK_UP;
    l->events.up(l->arg);
}

static void
on_ignored(void *arg, const redisReply *reply)
{
    (void)arg;
    (void)reply;
}

/* False: there is none. */
static bool
read_password(const struct redis_link *l, char password[PASSWORD_MAX])
{
    FILE *in = fopen(l->password_file, "re");
    bool is_read = in != NULL && fgets(password, PASSWORD_MAX, in) != NULL;

    if (in != NULL)
        (void)fclose(in);
    if (is_read)
        password[strcspn(password, "\r\n")] = '\0';
    return is_read;
}

static bool
send_greeting(struct redis_link *l)
{
    const char *load[] = {"SCRIPT", "LOAD", l->script};
    char password[PASSWORD_MAX];
    const char *auth[] = {"AUTH", password};
    bool is_sent;

    if (l->password_file != NULL) {
        if (!read_password(l, password)) {
            lose(l, "cannot read redis_password_file");
            return false;
        }
        is_sent = send_words(l, 2, auth, on_ignored, l);
        explicit_bzero(password, sizeof password);
        if (!is_sent)
            return false;
    }
    return send_words(l, 3, load, on_script, l);
}

static void
on_connect(const redisAsyncContext *ac, int status)
{
    struct redis_link *l = ac->data;

    if (l->ac != ac)
        return;
    if (status != REDIS_OK) {
        l->ac = NULL; /* hiredis frees it */
        lose(l, ac->c.errstr);
        return;
    }
    l->phase = LINK_LOADING;
    l->deadline_ms = clock_ms() + ANSWER_MS;
}

static void
adopt(struct redis_link *l, redisAsyncContext *ac)
{
    if (ac == NULL) {
        lose(l, "out of memory");
        return;
    }
    l->ac = ac;
    if (ac->err != 0) {
        lose(l, ac->c.errstr);
        return;
    }
    l->phase = LINK_CONNECTING;
    ac->data = l;
    l->makers = *ac->c.reader->fn;
    ac->c.reader->fn = &careful;
    ac->c.reader->privdata = ac;
    (void)redisLibeventAttach(ac, l->base);
    ac->ev.addRead = add_read_bounded;
    (void)redisAsyncSetConnectCallback(ac, on_connect);
    (void)redisAsyncSetDisconnectCallback(ac, on_disconnect);
    if (!send_greeting(l))
        lose(l, "out of memory");
    else
        l->deadline_ms = clock_ms() + CONNECT_MS;
}

static void
on_resolved(void *arg, const struct netaddr *addresses, size_t n, const char *error)
{
    struct redis_link *l = arg;
    char host[NETADDR_TEXT];

    if (n == 0) {
        lose(l, error);
        return;
    }
    /* Where one does not answer, the next attempt takes the next. */
    netaddr_format(&addresses[l->attempts++ % n], host);
    name_lookup_cancel(&l->lookup);
    adopt(l, redisAsyncConnect(host, l->port));
}

static void
begin(struct redis_link *l)
{
    static const char unix_prefix[] = "unix:";
    const char *wrong;
    char host[256];
    struct netaddr numeric;

    l->phase = LINK_RESOLVING;
    l->deadline_ms = clock_ms() + CONNECT_MS;
    if (strncmp(l->address, unix_prefix, sizeof unix_prefix - 1) == 0) {
        adopt(l, redisAsyncConnectUnix(l->address + sizeof unix_prefix - 1));
        return;
    }
    wrong = value_host_port(span_str(l->address), DEFAULT_PORT, host, sizeof host, &l->port);
    if (wrong != NULL) {
        lose(l, wrong);
        return;
    }
    if (netaddr_parse(span_str(host), &numeric)) {
        adopt(l, redisAsyncConnect(host, l->port));
        return;
    }
    l->lookup = name_lookup_start(l->base, host, on_resolved, l);
    if (l->lookup == NULL)
        lose(l, "out of memory");
}

static void
on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct redis_link *l = arg;

    (void)fd;
    (void)what;
    if (clock_ms() < l->deadline_ms)
        return;
    if (l->phase == LINK_DOWN)
        begin(l);
    else
        lose(l, l->phase == LINK_RESOLVING || l->phase == LINK_CONNECTING ? "no connection in time"
                                                                          : "no answer in time");
}

struct redis_link *
redis_link_new(struct event_base *base, const char *address, const char *password_file,
               const char *script, const struct redis_link_events *events, void *arg)
{
    struct timeval turn = {.tv_usec = TURN_MS * 1000};
    struct redis_link *l = calloc(1, sizeof *l);

    if (l == NULL)
        return NULL;
    l->base = base;
    l->address = span_dup(span_str(address));
    l->password_file = password_file == NULL ? NULL : span_dup(span_str(password_file));
    l->script = script;
    l->events = *events;
    l->arg = arg;
    l->turn = event_new(base, -1, EV_PERSIST, on_turn, l);
    if (l->address == NULL || (password_file != NULL && l->password_file == NULL) ||
        l->turn == NULL || event_add(l->turn, &turn) != 0) {
        redis_link_free(&l);
        return NULL;
    }
    event_active(l->turn, EV_TIMEOUT, 0); /* not before the caller has what is returned */
    return l;
}

void
redis_link_free(struct redis_link **lp)
{
    struct redis_link *l = *lp;
    redisAsyncContext *ac;

    if (l == NULL)
        return;
    ac = l->ac;
    l->ac = NULL;
    l->phase = LINK_DOWN;
    release(ac);
    name_lookup_cancel(&l->lookup);
    if (l->turn != NULL)
        event_free(l->turn);
    free(l->address);
    free(l->password_file);
    free(l);
    *lp = NULL;
}

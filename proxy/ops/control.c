#include "proxy/ops/control.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "conf/value.h"
#include "policy/mark.h"
#include "proxy/ops/choice_words.h"
#include "proxy/ops/control_directory.h"
#include "proxy/ops/control_explain.h"
#include "proxy/ops/control_lookup.h"
#include "proxy/ops/control_socket.h"
#include "proxy/ops/json_text.h"
#include "proxy/ops/status_json.h"
#include "proxy/server.h"
#include "proxy/smtp/address.h"

/* Its end must be a number of 32 bits, in seconds, for the ledger and for what it is kept in. */
#define BLOCK_MAX_MS (INT64_C(10000) * 24 * 3600 * 1000)

struct control {
    struct server *srv;
    struct event_base *base;
    struct control_socket *socket; /* NULL: none is configured */
    struct lookups *lookups;
};

/* A request on its way to its command. */
struct request {
    struct control *control;
    struct control_call *call;
    const json_t *args;
};

/* Argument I; "" beyond the last. */
static const char *
arg(const struct request *r, size_t i)
{
    const char *text = json_string_value(json_array_get(r->args, i));
    return text ? text : "";
}

/* The state of the process into S, by TAKE; false, and the call answered, when memory is out. */
static bool
take_status(const struct request *r, struct status *s,
            int (*take)(struct server *srv, struct status *s))
{
    if (take(r->control->srv, s) == 0)
        return true;
    control_refuse(r->call, "out of memory");
    return false;
}

static void
do_status(const struct request *r)
{
    struct status s;
    if (!take_status(r, &s, status_take_clients))
        return;
    control_answer(r->call, status_json(&s));
    status_clear(&s);
}

static void
do_top(const struct request *r)
{
    do_status(r);
}

static void
do_lookup(const struct request *r)
{
    lookups_start(r->control->lookups, r->call, arg(r, 0), arg(r, 1));
}

static void
do_forget(const struct request *r)
{
    char address[SMTP_ADDRESS_MAX + 1];
    size_t at;
    if (!smtp_address_canonical(span_str(arg(r, 0)), address, &at)) {
        control_refuse(r->call, "no address: %s", arg(r, 0));
        return;
    }
    struct marks *marks = policy_marks(r->control->srv->policy);
    bool was_marked = marks_has(marks, span_str(address), clock_ms());
    marks_remove(marks, span_str(address));
    bool was_cached = directories_forget(r->control->srv->directories, span_str(address));
    control_answer(r->call, json_pack("{s:o, s:b, s:b}", "address", json_text_str(address),
                                      "was_cached", was_cached, "was_marked", was_marked));
}

static void
do_blocks(const struct request *r)
{
    struct status s;
    if (*arg(r, 0) && strcmp(arg(r, 0), "list") != 0)
        control_refuse(r->call, "blocks knows only `list`");
    else if (take_status(r, &s, status_take_clients)) {
        control_answer(r->call, json_pack("{s:o}", "blocks", status_json_blocks(&s, SIZE_MAX)));
        status_clear(&s);
    }
}

static bool
take_network(const struct request *r, struct network *n, char text[NETWORK_TEXT])
{
    if (!network_parse(span_str(arg(r, 0)), n)) {
        control_refuse(r->call,
                       "not a network: %s; write an address, or ADDRESS/BITS without host bits",
                       arg(r, 0));
        return false;
    }
    network_format(n, text);
    return true;
}

static void
do_block(const struct request *r)
{
    struct network n;
    char text[NETWORK_TEXT];
    int64_t ms = 0;
    if (!take_network(r, &n, text))
        return;
    const char *fault = *arg(r, 1) ? value_duration(arg(r, 1), &ms) : NULL;
    if (!fault && *arg(r, 1) && (ms <= 0 || ms > BLOCK_MAX_MS))
        fault = "it must be longer than 0, and at most 10000d";
    if (fault) {
        control_refuse(r->call, "DURATION: %s", fault);
        return;
    }
    struct settings *st = server_settings(r->control->srv);
    if (!ms)
        ms = st->harvest.block_time;
    json_int_t until_s = policy_block(r->control->srv->policy, st, &n, ms, clock_ms());
    settings_unref(st);
    control_answer(r->call, json_pack("{s:s, s:I, s:I}", "network", text, "until", until_s,
                                      "remaining_s", (json_int_t)(ms / 1000)));
}

static bool
is_in(const json_t *list, const char *text)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (strcmp(json_string_value(item), text) == 0)
            return true;
    }
    return false;
}

/* The wider networks whose blocks N is under all the same. */
static json_t *
wider_blocks(struct policy *p, const struct network *n)
{
    json_t *list = json_array();
    struct policy_block *blocks = NULL;
    size_t n_blocks = 0;
    if (policy_blocks(p, clock_ms(), &blocks, &n_blocks) != 0)
        return list;
    for (size_t i = 0; i < n_blocks; i++) {
        const struct policy_block *b = &blocks[i];
        char text[NETWORK_TEXT];
        network_format(&b->network, text);
        /* One may be blocked twice: also for bounces alone. */
        if (!b->is_monitor && network_contains(&b->network, &n->base) && !is_in(list, text))
            json_array_append_new(list, json_string(text));
    }
    free(blocks);
    return list;
}

static void
do_unblock(const struct request *r)
{
    struct network n;
    char text[NETWORK_TEXT];
    if (!take_network(r, &n, text))
        return;
    struct policy *policy = r->control->srv->policy;
    size_t ended = policy_unblock(policy, &n, clock_ms());
    control_answer(r->call,
                   json_pack("{s:s, s:I, s:o}", "network", text, "ended", (json_int_t)ended,
                             "still_blocked_by", wider_blocks(policy, &n)));
}

static void
do_explain(const struct request *r)
{
    json_t *answer = control_explain(arg(r, 0));
    if (json_is_false(json_object_get(answer, "ok"))) {
        control_refuse(r->call, "%s", json_string_value(json_object_get(answer, "error")));
        json_decref(answer);
        return;
    }
    control_answer(r->call, answer);
}

static json_t *
remote_domain(const struct settings_remote_domain *d, const char *name)
{
    static const char *const words[] = {[false] = "no", [true] = "yes"};
    return json_pack("{s:o, s:s, s:s, s:s, s:s}", "domain", json_text_str(name), "ndr",
                     choice_words_NDR[d->ndr], "delivery_reports", words[d->delivery_reports],
                     "read_receipts", words[d->read_receipts], "auto_replies",
                     words[d->auto_replies]);
}

static void
do_remote_domains(const struct request *r)
{
    struct settings *st = server_settings(r->control->srv);
    json_t *list = json_array();
    const struct settings_remote_domain *rest = settings_remote_domain_for(st, span_str(""));
    json_array_append_new(list, remote_domain(rest, "default"));
    for (size_t i = 0; i < st->n_remote_domains; i++) {
        if (&st->remote_domains[i] != rest)
            json_array_append_new(
                list, remote_domain(&st->remote_domains[i], st->remote_domains[i].name));
    }
    settings_unref(st);
    control_answer(r->call, json_pack("{s:o}", "remote_domains", list));
}

static void
show_directories(const struct request *r)
{
    struct status s;
    if (!take_status(r, &s, status_take))
        return;
    control_answer(r->call, json_pack("{s:b, s:o}", "ready", s.is_directory_ready, "directories",
                                      status_json_directories(&s)));
    status_clear(&s);
}

static void
do_directory(const struct request *r)
{
    const char *what = arg(r, 0);
    bool is_forced = strcmp(arg(r, 1), "--force") == 0;
    enum dir_order order;
    if (strcmp(what, "sync") == 0 && (is_forced || *arg(r, 1) == '\0')) {
        order = is_forced ? DIR_ORDER_SYNC_FORCED : DIR_ORDER_SYNC;
    } else if (*arg(r, 1) != '\0') {
        control_refuse(r->call, "directory %s does not know `%s`", what, arg(r, 1));
        return;
    } else if (strcmp(what, "duplicates") == 0) {
        order = DIR_ORDER_DUPLICATES;
    } else if (*what == '\0' || strcmp(what, "status") == 0) {
        show_directories(r);
        return;
    } else {
        control_refuse(r->call, "directory does not know `%s`", what);
        return;
    }
    control_directory_order(r->control->srv->directories, lookups_client(r->control->lookups),
                            r->call, order);
}

static void
do_downstreams(const struct request *r)
{
    struct status s;
    if (!take_status(r, &s, status_take))
        return;
    control_answer(r->call, json_pack("{s:o}", "downstreams", status_json_downstreams(&s)));
    status_clear(&s);
}

static void
do_reload(const struct request *r)
{
    struct err e;
    if (server_reload(r->control->srv, &e) == -1)
        control_refuse(r->call, "%s", e.text);
    else
        control_answer(r->call, json_pack("{s:s}", "state", "loaded"));
}

static void
do_drain(const struct request *r)
{
    control_answer(r->call, json_pack("{s:s}", "state", "draining"));
    server_drain(r->control->srv);
}

static void
do_log_level(const struct request *r)
{
    for (size_t i = 0; i < sizeof choice_words_LEVEL / sizeof choice_words_LEVEL[0]; i++) {
        if (strcmp(arg(r, 0), choice_words_LEVEL[i]) != 0)
            continue;
        log_set_level((enum log_level)i); /* conf/check.c asserts that they are the same */
        control_answer(r->call, json_pack("{s:s}", "level", choice_words_LEVEL[i]));
        return;
    }
    control_refuse(r->call,
                   "not a log level: %s; the levels are error, warning, notice, info, debug",
                   arg(r, 0));
}

static void (*const commands[CONTROL_COUNT])(const struct request *r) = {
#define CONTROL(id, name, arguments, least, most, choices, help) [CONTROL_##id] = do_##id,
#include "proxy/ops/control.def"
#undef CONTROL
};

static void
on_request(void *owner, struct control_call *call, const char *command, const json_t *args)
{
    enum control_id id = control_find(span_str(command));
    if (id == CONTROL_COUNT) {
        control_refuse(call, "no such command: %s", command);
        return;
    }
    const struct control_command *c = &control_commands[id];
    size_t n = json_array_size(args);
    if (n < c->least || n > c->most) {
        control_refuse(call, "usage: %s %s", c->name, c->arguments);
        return;
    }
    struct request r = {.control = owner, .call = call, .args = args};
    commands[id](&r);
}

struct control *
control_new(struct server *srv, struct event_base *base, const struct passwd *owner, struct err *e)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    c->srv = srv;
    c->base = base;
    struct settings *st = server_settings(srv);
    const char *path = st->control.socket;
    int rc = 0;
    if (path) {
        c->socket = control_socket_new(base, path, owner, on_request, c, e);
        rc = c->socket ? 0 : err_wrap(e, "control socket");
    }
    settings_unref(st);
    if (rc == -1)
        control_free(&c);
    return c;
}

int
control_start(struct control *c, struct err *e)
{
    c->lookups = lookups_new(c->srv, c->base);
    return c->lookups ? 0 : err_set(e, ERR_SYSTEM, "out of memory");
}

void
control_free(struct control **pc)
{
    struct control *c = *pc;
    if (!c)
        return;
    *pc = NULL;
    control_socket_free(&c->socket);
    lookups_free(&c->lookups);
    free(c);
}

#include "proxy/ops/status_json.h"

#include "proxy/ops/json_text.h"

/* Takes VALUE over, and drops OBJECT and returns NULL if either was out of memory: what is built
 * from pieces is whole or not there. */
static json_t *
with(json_t *object, const char *key, json_t *value)
{
    if (object && value && json_object_set_new(object, key, value) == 0)
        return object;
    if (!object)
        json_decref(value);
    json_decref(object);
    return NULL;
}

static json_t *
also(json_t *array, json_t *value)
{
    if (array && value && json_array_append_new(array, value) == 0)
        return array;
    if (!array)
        json_decref(value);
    json_decref(array);
    return NULL;
}

static json_t *
number(uint64_t n)
{
    return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

static json_t *
network(const struct network *n)
{
    char text[NETWORK_TEXT];
    network_format(n, text);
    return json_string(text);
}

/* Of a block; null: it has no end that is known. */
static json_t *
until(int64_t until_s)
{
    return until_s ? json_integer(until_s) : json_null();
}

json_t *
status_json_blocks(const struct status *s, size_t max)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_blocks && i < max; i++) {
        const struct policy_block *b = &s->blocks[i];
        int64_t left_s = b->until_s - s->now_wall_s;
        json_t *one = with(json_object(), "network", network(&b->network));
        one = with(one, "action", json_string(policy_action_text(b->action)));
        one = with(one, "by", json_string(policy_by_text(b->by)));
        one = with(one, "until", until(b->until_s));
        one = with(one, "remaining_s", json_integer(left_s > 0 ? left_s : 0));
        one = with(one, "repeats", json_integer(b->repeats));
        one = with(one, "null_sender", json_boolean(b->is_null));
        one = with(one, "monitor", json_boolean(b->is_monitor));
        list = also(list, one);
    }
    return list;
}

static json_t *
suspects(const struct status *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_suspects; i++) {
        const struct policy_suspect *u = &s->suspects[i];
        json_t *one = with(json_object(), "network", network(&u->network));
        one = with(one, "unknown", json_integer(u->count));
        one = with(one, "ratio", json_real(u->ratio));
        one = with(one, "action", json_string(policy_action_text(u->action)));
        one = with(one, "until", until(u->until_s));
        list = also(list, one);
    }
    return list;
}

static json_t *
capabilities(const struct smtp_capabilities *caps)
{
    json_t *list = json_array();
    for (enum smtp_cap c = 0; c < SMTP_CAP_COUNT; c++) {
        if (caps->bits & (1u << c))
            list = also(list, json_string(smtp_cap_keyword(c)));
    }
    return list;
}

json_t *
status_json_downstreams(const struct status *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_hosts; i++) {
        const struct host_view *h = &s->hosts[i];
        json_t *one = with(json_object(), "downstream", json_text_str(h->downstream));
        one = with(one, "host", json_text_str(h->host));
        one = with(one, "state", json_string(status_host_state(h->state)));
        one = with(one, "active", json_integer(h->active));
        one = with(one, "idle", json_integer(h->idle));
        one = with(one, "error", json_text_str(h->state == HOST_UP ? "" : h->error));
        one = with(one, "reached", json_boolean(h->was_reached));
        one = with(one, "capabilities", capabilities(&h->caps));
        one = with(one, "size", number(h->caps.size));
        list = also(list, one);
    }
    return list;
}

static json_t *
servers(const struct dir_view *d)
{
    json_t *list = json_array();
    for (size_t i = 0; i < d->n_servers; i++) {
        json_t *one = with(json_object(), "uri", json_text_str(d->servers[i].uri));
        one = with(one, "state", json_string(dir_server_state_text(d->servers[i].state)));
        one = with(one, "error", json_text_str(d->servers[i].error));
        list = also(list, one);
    }
    return list;
}

json_t *
status_json_directories(const struct status *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_directories; i++) {
        const struct dir_view *d = &s->directories[i];
        json_t *one = with(json_object(), "name", json_text_str(d->name));
        one = with(one, "type", json_string(d->type));
        one = with(one, "mode", json_string(d->mode));
        one = with(one, "entries", number(d->entries));
        one = with(one, "snapshot_age_s",
                   d->snapshot_age_s >= 0 ? json_integer(d->snapshot_age_s) : json_null());
        one =
            with(one, "snapshot_full_age_s",
                 d->snapshot_full_age_s >= 0 ? json_integer(d->snapshot_full_age_s) : json_null());
        one = with(one, "snapshot_error", json_text_str(d->snapshot_error));
        one = with(one, "looking", json_boolean(d->is_looking));
        one = with(one, "cached", number(d->cached));
        one = with(one, "searches", number(d->searches));
        one = with(one, "pending", json_integer(d->pending));
        one = with(one, "servers", servers(d));
        list = also(list, one);
    }
    return list;
}

static json_t *
problems(const struct status *s)
{
    struct status_problem p[STATUS_PROBLEMS];
    size_t n = status_problems(s, p, STATUS_PROBLEMS);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *one = with(json_object(), "part", json_string(p[i].part));
        one = with(one, "name", json_text_str(p[i].name));
        one = with(one, "server", json_text_str(p[i].server));
        one = with(one, "state", json_string(p[i].state));
        one = with(one, "error", json_text_str(p[i].error));
        list = also(list, one);
    }
    return list;
}

json_t *
status_json_ready(const struct status *s)
{
    json_t *o = with(json_object(), "ready", json_boolean(status_is_ready(s)));
    return with(o, "problems", problems(s));
}

static json_t *
connections(const struct status *s)
{
    const struct metrics_counts *c = &s->counts;
    json_t *refused = json_object();
    for (enum metrics_refusal r = 0; r < METRICS_REFUSAL_COUNT; r++)
        refused = with(refused, metrics_refusal_text(r), number(c->refused[r]));
    json_t *o = with(json_object(), "open", json_integer(s->connections));
    o = with(o, "max", json_integer(s->max_connections));
    o = with(o, "tarpitted", json_integer(s->tarpitted));
    o = with(o, "total", number(c->connections));
    return with(o, "refused", refused);
}

/* {"accept": {"total": N, "reasons": {"ok": N, ...}}, ...}; reasons that never came are left out.
 */
static json_t *
recipients(const struct metrics_counts *c)
{
    json_t *o = json_object();
    for (enum metrics_verdict v = 0; v < METRICS_VERDICT_COUNT; v++) {
        json_t *reasons = json_object();
        for (enum policy_reason r = 0; r < POLICY_REASON_COUNT; r++) {
            if (c->recipients[v][r])
                reasons = with(reasons, policy_reason_text(r), number(c->recipients[v][r]));
        }
        json_t *one = with(json_object(), "total", number(metrics_recipients_sum(c, v)));
        o = with(o, metrics_verdict_text(v), with(one, "reasons", reasons));
    }
    return o;
}

static json_t *
messages(const struct metrics_counts *c)
{
    json_t *o = json_object();
    for (enum metrics_status m = 0; m < METRICS_STATUS_COUNT; m++)
        o = with(o, metrics_status_text(m), number(c->messages[m]));
    return with(o, "bytes", number(c->message_bytes));
}

static json_t *
harvests(const struct policy_counts *c)
{
    json_t *o = json_object();
    for (enum policy_action a = POLICY_ACTION_NONE + 1; a <= POLICY_ACTION_BLIND; a++)
        o = with(o, policy_action_text(a), number(c->harvests[a]));
    return o;
}

/* The refusals that were given, by what explains them. */
static json_t *
codes(const struct metrics_counts *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < METRICS_CODES; i++) {
        if (!c->codes[i])
            continue;
        json_t *one = with(json_object(), "code", json_string(status_code_at(i)->code));
        one = with(one, "title", json_string(status_code_at(i)->title));
        list = also(list, with(one, "count", number(c->codes[i])));
    }
    return list;
}

static json_t *
ledger(const struct status *s)
{
    json_t *o = with(json_object(), "shared", json_boolean(s->is_ledger_shared));
    o = with(o, "up", json_boolean(s->is_ledger_up));
    return with(o, "clients", json_integer(s->policy.clients));
}

json_t *
status_json(const struct status *s)
{
    json_t *o = with(json_object(), "version", json_string(POSTERN_VERSION));
    o = with(o, "hostname", json_text_str(s->hostname));
    o = with(o, "time", json_integer(s->now_wall_s));
    o = with(o, "uptime_s", json_integer(s->uptime_s));
    o = with(o, "workers", json_integer(s->workers));
    o = with(o, "draining", json_boolean(s->is_draining));
    o = with(o, "monitor", json_boolean(s->is_monitor));
    o = with(o, "ready", json_boolean(status_is_ready(s)));
    o = with(o, "problems", problems(s));
    o = with(o, "connections", connections(s));
    o = with(o, "recipients", recipients(&s->counts));
    o = with(o, "messages", messages(&s->counts));
    o = with(o, "harvests", harvests(&s->policy));
    o = with(o, "codes", codes(&s->counts));
    o = with(o, "clients", suspects(s));
    o = with(o, "block_count", json_integer(s->policy.blocks));
    o = with(o, "blocks", status_json_blocks(s, STATUS_JSON_BLOCKS));
    o = with(o, "directories", status_json_directories(s));
    o = with(o, "downstreams", status_json_downstreams(s));
    o = with(o, "drift", number(s->counts.drift));
    o = with(o, "ledger", ledger(s));
    return with(o, "log_dropped", number(s->log_dropped));
}

static json_t *
plot(const struct history *h, unsigned minutes, unsigned slots)
{
    static const char *const names[] = {[HISTORY_ACCEPTED] = "accepted",
                                        [HISTORY_REFUSED] = "refused",
                                        [HISTORY_DEFERRED] = "deferred"};
    struct history_slot v[HISTORY_MINUTES];
    history_read(h, minutes, slots, v);
    json_t *o = with(json_object(), "slot_s", json_integer(60 * (json_int_t)minutes));
    for (size_t i = 0; i < HISTORY_SERIES; i++) {
        json_t *list = json_array();
        for (size_t k = 0; k < slots; k++)
            list = also(list, number(v[k].v[i]));
        o = with(o, names[i], list);
    }
    return o;
}

json_t *
status_json_history(const struct history *h)
{
    json_t *o = with(json_object(), "hour", plot(h, 1, 60));
    return with(o, "day", plot(h, 15, 96));
}

#include "proxy/ops/metrics_text.h"

#include <inttypes.h>
#include <string.h>

#include "base/utf8.h"

enum family {
#define METRICS_FAMILY(id, name, kind, help) FAMILY_##id,
#include "proxy/ops/metrics.def"
#undef METRICS_FAMILY
    FAMILY_COUNT
};

enum kind { COUNTER, GAUGE, HISTOGRAM };

static const struct {
    const char *name;
    enum kind kind;
    const char *help;
} families[] = {
#define METRICS_FAMILY(id, name, kind, help) {name, kind, help},
#include "proxy/ops/metrics.def"
#undef METRICS_FAMILY
};

static const bool is_monitored[] = {
#define POLICY_REASON(id, word, class, monitored) monitored,
#include "policy/reason.def"
#undef POLICY_REASON
};

/* Where the text goes, and the family that is being written. */
struct writer {
    struct evbuffer *out;
    enum family family;
};

/* The format is UTF-8: of one other octet, as in a directory's URI, all would be unreadable. */
static void
escape(struct evbuffer *out, const char *text)
{
    uint32_t code;
    size_t n;
    for (struct span s = span_str(text); s.n; s = span_of(s.p + n, s.n - n)) {
        n = utf8_next(s, &code);
        if (n == 0) {
            evbuffer_add_printf(out, "\\\\x%02x", (unsigned char)*s.p);
            n = 1;
        } else if (*s.p == '\n') {
            evbuffer_add(out, "\\n", 2);
        } else if (*s.p == '\\' || *s.p == '"') {
            evbuffer_add_printf(out, "\\%c", *s.p);
        } else {
            evbuffer_add(out, s.p, n);
        }
    }
}

/* The series' name and labels (key, value, ..., NULL), and the space before its value. */
static void
series(struct writer *w, const char *suffix, const char *const *labels)
{
    evbuffer_add_printf(w->out, "%s%s", families[w->family].name, suffix);
    for (size_t i = 0; labels && labels[i]; i += 2) {
        evbuffer_add_printf(w->out, "%c%s=\"", i ? ',' : '{', labels[i]);
        escape(w->out, labels[i + 1]);
        evbuffer_add(w->out, "\"", 1);
    }
    evbuffer_add_printf(w->out, "%s ", labels ? "}" : "");
}

#define LABELS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void
count(struct writer *w, const char *const *labels, uint64_t value)
{
    series(w, "", labels);
    evbuffer_add_printf(w->out, "%" PRIu64 "\n", value);
}

static void
histogram(struct writer *w, const struct metrics_histogram *h, const int64_t *limits_ns)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < METRICS_BUCKETS; i++) {
        char limit[32] = "+Inf";
        if (i < METRICS_BUCKETS - 1)
            evutil_snprintf(limit, sizeof limit, "%g", (double)limits_ns[i] / 1e9);
        sum += h->buckets[i];
        series(w, "_bucket", LABELS("le", limit));
        evbuffer_add_printf(w->out, "%" PRIu64 "\n", sum);
    }
    series(w, "_sum", NULL);
    evbuffer_add_printf(w->out, "%.9f\n", (double)h->sum_ns / 1e9);
    series(w, "_count", NULL);
    evbuffer_add_printf(w->out, "%" PRIu64 "\n", sum);
}

static void
refusals(struct writer *w, const struct metrics_counts *c)
{
    for (size_t i = 0; i < METRICS_REFUSAL_COUNT; i++)
        count(w, LABELS("reason", metrics_refusal_text((enum metrics_refusal)i)), c->refused[i]);
}

static void
tls_sessions(struct writer *w, const struct metrics_counts *c)
{
    for (size_t leg = 0; leg < METRICS_LEG_COUNT; leg++) {
        for (size_t v = 0; v < METRICS_TLS_COUNT; v++)
            count(w,
                  LABELS("leg", metrics_leg_text((enum metrics_leg)leg), "version",
                         metrics_tls_text((enum metrics_tls)v)),
                  c->tls[leg][v]);
    }
}

/* May the two go together?  Then the series is there from the start, as 0, so that its first
 * increase is seen as one. */
static bool
is_expected(enum metrics_verdict verdict, enum policy_reason reason)
{
    switch (verdict) {
    case METRICS_VERDICT_ACCEPT:
        return policy_reason_class(reason) == POLICY_CLASS_ACCEPT;
    case METRICS_VERDICT_REJECT:
        return policy_reason_class(reason) == POLICY_CLASS_REJECT;
    case METRICS_VERDICT_DEFER:
        /* Their reply may be a 4xx. */
        return policy_reason_class(reason) == POLICY_CLASS_DEFER ||
               reason == POLICY_REASON_HARVEST || reason == POLICY_REASON_DOWNSTREAM;
    case METRICS_VERDICT_WOULD_REJECT:
        return is_monitored[reason];
    case METRICS_VERDICT_COUNT:
        break;
    }
    return false;
}

static void
recipients(struct writer *w, const struct metrics_counts *c)
{
    for (enum metrics_verdict v = 0; v < METRICS_VERDICT_COUNT; v++) {
        for (enum policy_reason r = 0; r < POLICY_REASON_COUNT; r++) {
            if (c->recipients[v][r] || is_expected(v, r))
                count(w,
                      LABELS("verdict", metrics_verdict_text(v), "reason", policy_reason_text(r)),
                      c->recipients[v][r]);
        }
    }
}

static void
lookups(struct writer *w, const struct metrics_counts *c)
{
    for (enum metrics_source s = 0; s < METRICS_SOURCE_COUNT; s++) {
        for (enum metrics_result r = 0; r < METRICS_RESULT_COUNT; r++) {
            if (c->lookups[s][r] || (s == METRICS_SOURCE_NONE) == (r == METRICS_RESULT_UNAVAILABLE))
                count(w, LABELS("source", metrics_source_text(s), "result", metrics_result_text(r)),
                      c->lookups[s][r]);
        }
    }
}

static void
messages(struct writer *w, const struct metrics_counts *c)
{
    for (enum metrics_status s = 0; s < METRICS_STATUS_COUNT; s++)
        count(w, LABELS("status", metrics_status_text(s)), c->messages[s]);
}

static void
harvests(struct writer *w, const struct policy_counts *c)
{
    for (enum policy_action a = POLICY_ACTION_NONE + 1; a <= POLICY_ACTION_BLIND; a++)
        count(w, LABELS("action", policy_action_text(a)), c->harvests[a]);
}

static void
downstreams_up(struct writer *w, const struct status *s)
{
    for (size_t i = 0; i < s->n_hosts; i++)
        count(w, LABELS("downstream", s->hosts[i].downstream, "host", s->hosts[i].host),
              s->hosts[i].state == HOST_UP);
}

static void
downstream_connections(struct writer *w, const struct status *s)
{
    for (size_t i = 0; i < s->n_hosts; i++) {
        const struct host_view *h = &s->hosts[i];
        count(w, LABELS("downstream", h->downstream, "host", h->host, "state", "active"),
              (uint64_t)h->active);
        count(w, LABELS("downstream", h->downstream, "host", h->host, "state", "idle"),
              (uint64_t)h->idle);
    }
}

/* Two directories may ask the same server: that is one series, up if either finds it so.  Of a
 * stand-by that nobody has asked yet there is nothing to say. */
static void
directory_servers(struct writer *w, const struct status *s)
{
    for (size_t d = 0; d < s->n_directories; d++) {
        for (size_t i = 0; i < s->directories[d].n_servers; i++) {
            const char *uri = s->directories[d].servers[i].uri;
            bool is_up = false, is_tried = false, is_first = true;
            for (size_t e = 0; e < s->n_directories; e++) {
                for (size_t j = 0; j < s->directories[e].n_servers; j++) {
                    const struct dir_server_view *other = &s->directories[e].servers[j];
                    if (strcmp(other->uri, uri) != 0)
                        continue;
                    is_up = is_up || other->state == DIR_SERVER_UP;
                    is_tried = is_tried || other->state != DIR_SERVER_UNTRIED;
                    is_first = is_first && !(e < d || (e == d && j < i));
                }
            }
            if (is_first && is_tried)
                count(w, LABELS("server", uri), is_up);
        }
    }
}

static void
snapshots(struct writer *w, const struct status *s, bool wants_age)
{
    uint64_t entries = 0;
    int64_t age_s = -1;
    bool has_snapshot = false;
    for (size_t d = 0; d < s->n_directories; d++) {
        if (!s->directories[d].has_snapshot)
            continue;
        has_snapshot = true;
        entries += s->directories[d].entries;
        if (s->directories[d].snapshot_age_s > age_s)
            age_s = s->directories[d].snapshot_age_s;
    }
    if (!wants_age && has_snapshot)
        count(w, NULL, entries);
    if (wants_age && age_s >= 0)
        count(w, NULL, (uint64_t)age_s);
}

static void
one_family(struct writer *w, const struct status *s)
{
    const struct metrics_counts *c = &s->counts;
    switch (w->family) {
    case FAMILY_CONNECTIONS:
        count(w, NULL, s->connections);
        break;
    case FAMILY_CONNECTIONS_TOTAL:
        count(w, NULL, c->connections);
        break;
    case FAMILY_CONNECTIONS_REFUSED:
        refusals(w, c);
        break;
    case FAMILY_TLS_SESSIONS:
        tls_sessions(w, c);
        break;
    case FAMILY_RECIPIENTS:
        recipients(w, c);
        break;
    case FAMILY_MESSAGES:
        messages(w, c);
        break;
    case FAMILY_MESSAGE_BYTES:
        count(w, NULL, c->message_bytes);
        break;
    case FAMILY_HARVESTS:
        harvests(w, &s->policy);
        break;
    case FAMILY_BLOCKS:
        count(w, NULL, s->policy.blocks);
        break;
    case FAMILY_TARPITTED:
        count(w, NULL, s->tarpitted);
        break;
    case FAMILY_DIRECTORY_UP:
        directory_servers(w, s);
        break;
    case FAMILY_DIRECTORY_LOOKUPS:
        lookups(w, c);
        break;
    case FAMILY_DIRECTORY_SECONDS:
        histogram(w, &c->lookup, metrics_lookup_limits_ns);
        break;
    case FAMILY_SNAPSHOT_ENTRIES:
        snapshots(w, s, false);
        break;
    case FAMILY_SNAPSHOT_AGE:
        snapshots(w, s, true);
        break;
    case FAMILY_DOWNSTREAM_UP:
        downstreams_up(w, s);
        break;
    case FAMILY_DOWNSTREAM_CONNECTIONS:
        downstream_connections(w, s);
        break;
    case FAMILY_DELIVERY_SECONDS:
        histogram(w, &c->delivery, metrics_delivery_limits_ns);
        break;
    case FAMILY_DRIFT:
        count(w, NULL, c->drift);
        break;
    case FAMILY_LEDGER_UP:
        count(w, NULL, s->is_ledger_up);
        break;
    case FAMILY_LOG_DROPPED:
        count(w, NULL, s->log_dropped);
        break;
    case FAMILY_BUILD_INFO:
        count(w, LABELS("version", POSTERN_VERSION), 1);
        break;
    case FAMILY_COUNT:
        break;
    }
}

void
metrics_text(const struct status *s, struct evbuffer *out)
{
    static const char *const kinds[] = {
        [COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram"};
    struct writer w = {.out = out};
    for (w.family = 0; w.family < FAMILY_COUNT; w.family++) {
        const char *name = families[w.family].name;
        evbuffer_add_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, families[w.family].help,
                            name, kinds[families[w.family].kind]);
        one_family(&w, s);
    }
}

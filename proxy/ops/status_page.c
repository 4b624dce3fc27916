#include "proxy/ops/status_page.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "policy/status_code.h"
#include "proxy/ops/control_show.h"

#define CODES_SHOWN  12
#define BLOCKS_SHOWN 50

void
status_page_headers(char out[STATUS_PAGE_HEADERS])
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char text[2 * EVP_MAX_MD_SIZE];
    EVP_Digest(status_page_style, strlen(status_page_style), hash, &n, EVP_sha256(), NULL);
    EVP_EncodeBlock((unsigned char *)text, hash, (int)n);
    snprintf(out, STATUS_PAGE_HEADERS,
             "Content-Security-Policy: default-src 'none'; style-src 'sha256-%s'; img-src data:; "
             "base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
             "Referrer-Policy: no-referrer\r\n",
             text);
}

/* Markup as it is. */
static void
raw(struct evbuffer *out, const char *markup)
{
    evbuffer_add(out, markup, strlen(markup));
}

/* Text, which may be a stranger's. */
static void
text(struct evbuffer *out, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '<':
            raw(out, "&lt;");
            break;
        case '>':
            raw(out, "&gt;");
            break;
        case '&':
            raw(out, "&amp;");
            break;
        case '"':
            raw(out, "&quot;");
            break;
        default:
            evbuffer_add(out, s, 1);
        }
    }
}

/* 1234567 as 1,234,567. */
#define NUMBER_TEXT 32
static const char *
number(uint64_t n, char out[NUMBER_TEXT])
{
    char digits[NUMBER_TEXT];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
    size_t at = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

/* The start of a cell.  On a narrow screen a row is shown as a list, and LABEL stands before each
 * value in place of the column's heading. */
static void
begin_cell(struct evbuffer *out, const char *label, const char *class)
{
    evbuffer_add_printf(out, "<td%s data-l=\"%s\">", class, label);
}

static void
cell(struct evbuffer *out, const char *label, const char *s)
{
    begin_cell(out, label, "");
    text(out, s);
}

static void
name_cell(struct evbuffer *out, const char *label, const char *s)
{
    begin_cell(out, label, " class=name");
    text(out, s);
}

static void
number_cell(struct evbuffer *out, const char *label, uint64_t n)
{
    char digits[NUMBER_TEXT];
    begin_cell(out, label, " class=n");
    raw(out, number(n, digits));
}

/* A span of S seconds; less than none is an empty cell. */
static void
span_cell(struct evbuffer *out, const char *label, int64_t s)
{
    char span[CONTROL_SPAN_TEXT] = "";
    if (s >= 0)
        control_span_text(s, span);
    begin_cell(out, label, " class=n");
    raw(out, span);
}

static void
state_cell(struct evbuffer *out, bool is_good, const char *state, const char *error)
{
    begin_cell(out, "State", "");
    raw(out, is_good ? "<span class=good>" : "<span class=bad>");
    text(out, state);
    raw(out, "</span> <span class=soft>");
    text(out, error);
    raw(out, "</span>");
}

static void
tile(struct evbuffer *out, uint64_t n, const char *name)
{
    char digits[NUMBER_TEXT];
    evbuffer_add_printf(out, "<div><b>%s</b><span>%s</span></div>", number(n, digits), name);
}

static const char *const series_names[] = {[HISTORY_ACCEPTED] = "accepted",
                                           [HISTORY_REFUSED] = "refused",
                                           [HISTORY_DEFERRED] = "deferred"};

static struct history_slot
sum_of(const struct history_slot *v, size_t n)
{
    struct history_slot sum = {{0}};
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < HISTORY_SERIES; k++)
            sum.v[k] += v[i].v[k];
    }
    return sum;
}

static uint64_t
height_of(const struct history_slot *v)
{
    return v->v[HISTORY_ACCEPTED] + v->v[HISTORY_REFUSED] + v->v[HISTORY_DEFERRED];
}

/* The least of 1, 2, 5, 10, 20, ... that is not below N. */
static uint64_t
round_up(uint64_t n)
{
    static const uint64_t steps[] = {1, 2, 5};
    for (uint64_t unit = 1; unit < UINT64_MAX / 100; unit *= 10) {
        for (size_t i = 0; i < 3; i++) {
            if (steps[i] * unit >= n)
                return steps[i] * unit;
        }
    }
    return n;
}

#define PLOT_HEIGHT 100.0

/* One slot's bar: a rectangle for each series, one on the other. */
static void
bar(struct evbuffer *out, const struct history_slot *v, size_t at, uint64_t top)
{
    double y = PLOT_HEIGHT;
    for (size_t k = 0; k < HISTORY_SERIES; k++) {
        double height = PLOT_HEIGHT * (double)v->v[k] / (double)top;
        y -= height;
        if (v->v[k])
            evbuffer_add_printf(
                out, "<rect class=%s x=\"%zu.1\" y=\"%.2f\" width=\".8\" height=\"%.2f\"/>",
                series_names[k], at, y, height);
    }
}

static void
plot(struct evbuffer *out, const char *title, const char *from, const char *middle,
     const struct history_slot *v, size_t n)
{
    uint64_t top = 1;
    for (size_t i = 0; i < n; i++) {
        if (height_of(&v[i]) > top)
            top = height_of(&v[i]);
    }
    top = round_up(top);
    char digits[NUMBER_TEXT];
    struct history_slot sum = sum_of(v, n);
    evbuffer_add_printf(out,
                        "<section><h2>%s</h2><div class=axis><span>%s</span></div>"
                        "<svg viewBox=\"0 0 %zu 100\" preserveAspectRatio=none role=img "
                        "aria-label=\"Recipients accepted, refused and deferred\">"
                        "<path class=grid d=\"M0 .5H%zuM0 50H%zu\"/>",
                        title, number(top, digits), n, n, n);
    for (size_t i = 0; i < n; i++)
        bar(out, &v[i], i, top);
    evbuffer_add_printf(out,
                        "</svg><div class=axis><span>%s</span><span>%s</span><span>now</span>"
                        "</div><div class=legend>",
                        from, middle);
    for (size_t k = 0; k < HISTORY_SERIES; k++)
        evbuffer_add_printf(out, "<span><i class=%s></i>%s %s</span>", series_names[k],
                            number(sum.v[k], digits), series_names[k]);
    raw(out, "</div></section>");
}

static void
problems(const struct status *s, struct evbuffer *out)
{
    struct status_problem p[STATUS_PROBLEMS];
    size_t n = status_problems(s, p, STATUS_PROBLEMS);
    raw(out, n ? "<section class=alert><h2>What is not as it should be</h2><ul>" : "");
    for (size_t i = 0; i < n; i++) {
        raw(out, strcmp(p[i].state, "down") == 0 ? "<li><b class=bad>" : "<li><b class=warn>");
        text(out, p[i].state);
        raw(out, "</b><span>");
        text(out, p[i].part);
        const char *const words[] = {p[i].name, p[i].server};
        for (size_t k = 0; k < 2; k++) {
            raw(out, *words[k] ? " " : "");
            text(out, words[k]);
        }
        raw(out, " <span class=soft>");
        text(out, p[i].error);
        raw(out, "</span></span>");
    }
    raw(out, n ? "</ul></section>" : "");
}

static void
head(const struct status *s, struct evbuffer *out)
{
    char up[CONTROL_SPAN_TEXT];
    control_span_text(s->uptime_s, up);
    raw(out, "<!doctype html><html lang=en><head><meta charset=utf-8>"
             "<meta name=viewport content=\"width=device-width,initial-scale=1\">"
             "<meta http-equiv=refresh content=60><link rel=icon href=\"data:,\"><title>Postern: ");
    text(out, s->hostname);
    raw(out, "</title><style>");
    raw(out, status_page_style);
    raw(out, "</style></head><body><header><div class=title><h1>Postern on ");
    text(out, s->hostname);
    raw(out, status_is_ready(s) ? "</h1><span class=\"pill good\">Ready</span></div>"
                                : "</h1><span class=\"pill bad\">Not ready</span></div>");
    evbuffer_add_printf(out, "<p class=soft>Version %s, up %s, %u worker%s</p>", POSTERN_VERSION,
                        up, s->workers, s->workers == 1 ? "" : "s");
    if (s->is_monitor)
        raw(out, "<p class=warn>Monitor: verdicts on recipients are logged, not given.</p>");
    raw(out, "</header><main>");
    problems(s, out);
}

static void
tiles(const struct status *s, const struct history_slot *hour, struct evbuffer *out)
{
    raw(out, "<section class=tiles>");
    tile(out, s->connections, "sessions open");
    tile(out, hour->v[HISTORY_ACCEPTED], "recipients accepted, last hour");
    tile(out, hour->v[HISTORY_REFUSED], "refused, last hour");
    tile(out, hour->v[HISTORY_DEFERRED], "deferred, last hour");
    tile(out, s->counts.messages[METRICS_STATUS_DELIVERED], "messages delivered since the start");
    tile(out, s->policy.blocks, "blocks in force");
    tile(out, s->tarpitted, "sessions in the tarpit");
    tile(out, s->counts.drift, "drift: known here, unknown downstream");
    raw(out, "</section>");
}

static void
table_begin(struct evbuffer *out, const char *title, const char *none, bool is_empty,
            const char *columns)
{
    evbuffer_add_printf(out, "<section><h2>%s</h2>", title);
    if (is_empty)
        evbuffer_add_printf(out, "<p class=soft>%s</p>", none);
    else
        evbuffer_add_printf(out, "<div class=wide><table><thead><tr>%s</thead><tbody>", columns);
}

static void
table_end(struct evbuffer *out, bool is_empty)
{
    raw(out, is_empty ? "</section>" : "</tbody></table></div></section>");
}

static void
clients(const struct status *s, struct evbuffer *out)
{
    table_begin(out, "Who asks for unknown recipients",
                "Nobody has asked for unknown recipients lately.", !s->n_suspects,
                "<th>Network<th class=n>Unknown<th class=n>Ratio<th>Action<th class=n>For");
    for (size_t i = 0; i < s->n_suspects; i++) {
        const struct policy_suspect *u = &s->suspects[i];
        char network[NETWORK_TEXT];
        network_format(&u->network, network);
        raw(out, "<tr>");
        name_cell(out, "Network", network);
        number_cell(out, "Unknown", u->count);
        begin_cell(out, "Ratio", " class=n");
        evbuffer_add_printf(out, "%.0f %%", u->ratio * 100);
        cell(out, "Action", u->action == POLICY_ACTION_NONE ? "" : policy_action_text(u->action));
        span_cell(out, "For", u->until_s ? u->until_s - s->now_wall_s : -1);
    }
    table_end(out, !s->n_suspects);
}

static void
blocks(const struct status *s, struct evbuffer *out)
{
    table_begin(out, "Blocks", "No network is blocked.", !s->n_blocks,
                "<th>Network<th>Action<th>By<th class=n>Remaining<th class=n>Repeats<th>Note");
    for (size_t i = 0; i < s->n_blocks && i < BLOCKS_SHOWN; i++) {
        const struct policy_block *b = &s->blocks[i];
        char network[NETWORK_TEXT];
        network_format(&b->network, network);
        raw(out, "<tr>");
        name_cell(out, "Network", network);
        cell(out, "Action", policy_action_text(b->action));
        cell(out, "By", policy_by_text(b->by));
        span_cell(out, "Remaining", b->until_s - s->now_wall_s);
        number_cell(out, "Repeats", b->repeats);
        cell(out, "Note",
             b->is_monitor ? "not given: monitor"
             : b->is_null  ? "null sender only"
                           : "");
    }
    if (s->n_blocks > BLOCKS_SHOWN)
        evbuffer_add_printf(out, "<tr><td colspan=6 class=soft>and %zu more: posternctl blocks",
                            s->n_blocks - BLOCKS_SHOWN);
    table_end(out, !s->n_blocks);
}

static void
downstreams(const struct status *s, struct evbuffer *out)
{
    table_begin(out, "Downstream hosts", "No downstream is configured.", !s->n_hosts,
                "<th>Downstream<th>Host<th>State<th class=n>Active<th class=n>Idle");
    for (size_t i = 0; i < s->n_hosts; i++) {
        const struct host_view *h = &s->hosts[i];
        raw(out, "<tr>");
        cell(out, "Downstream", h->downstream);
        name_cell(out, "Host", h->host);
        state_cell(out, h->state == HOST_UP, status_host_state(h->state),
                   h->state == HOST_UP ? "" : h->error);
        number_cell(out, "Active", (uint64_t)h->active);
        number_cell(out, "Idle", (uint64_t)h->idle);
    }
    table_end(out, !s->n_hosts);
}

static void
directory_cells(const struct dir_view *d, struct evbuffer *out)
{
    raw(out, "<tr>");
    cell(out, "Name", *d->name ? d->name : "default");
    cell(out, "Type", d->type);
    cell(out, "Mode", d->mode);
    number_cell(out, "Entries", d->entries);
    span_cell(out, "Age", d->snapshot_age_s);
}

static void
directories(const struct status *s, struct evbuffer *out)
{
    table_begin(out, "Directory", "No directory is configured.", !s->n_directories,
                "<th>Name<th>Type<th>Mode<th class=n>Entries<th class=n>Age<th>Server<th>State");
    for (size_t i = 0; i < s->n_directories; i++) {
        const struct dir_view *d = &s->directories[i];
        for (size_t k = 0; k < d->n_servers; k++) {
            directory_cells(d, out);
            name_cell(out, "Server", d->servers[k].uri);
            state_cell(out,
                       d->servers[k].state == DIR_SERVER_UP ||
                           d->servers[k].state == DIR_SERVER_UNTRIED,
                       dir_server_state_text(d->servers[k].state), d->servers[k].error);
        }
        if (!d->n_servers) {
            directory_cells(d, out);
            name_cell(out, "Server", "");
            cell(out, "State", "");
        }
    }
    table_end(out, !s->n_directories);
}

/* The refusals given since the start, the most frequent first, each with what it means. */
static void
codes(const struct status *s, struct evbuffer *out)
{
    bool is_shown[METRICS_CODES] = {false};
    raw(out, "<section><h2>Refusals since the start, and what they mean</h2>");
    size_t n;
    for (n = 0; n < CODES_SHOWN; n++) {
        size_t most = METRICS_CODES;
        for (size_t i = 0; i < METRICS_CODES; i++) {
            if (!is_shown[i] && s->counts.codes[i] &&
                (most == METRICS_CODES || s->counts.codes[i] > s->counts.codes[most]))
                most = i;
        }
        if (most == METRICS_CODES)
            break;
        is_shown[most] = true;
        const struct status_code *c = status_code_at(most);
        char digits[NUMBER_TEXT];
        raw(out, "<details><summary>");
        text(out, c->code);
        raw(out, " ");
        text(out, c->title);
        evbuffer_add_printf(out, " <span class=soft>&times;&nbsp;%s</span></summary><p>",
                            number(s->counts.codes[most], digits));
        text(out, c->cause);
        raw(out, "<p class=soft>");
        text(out, c->remedy);
        raw(out, "</details>");
    }
    if (!n)
        raw(out, "<p class=soft>None.</p>");
    raw(out, "</section>");
}

void
status_page(const struct status *s, const struct history *h, struct evbuffer *out)
{
    struct history_slot hour[60], day[96];
    history_read(h, 1, 60, hour);
    history_read(h, 15, 96, day);
    struct history_slot hour_sum = sum_of(hour, 60);
    head(s, out);
    tiles(s, &hour_sum, out);
    raw(out, "<div class=plots>");
    plot(out, "Recipients a minute, last hour", "60 minutes ago", "30", hour, 60);
    plot(out, "Recipients each quarter of an hour, last day", "24 hours ago", "12", day, 96);
    raw(out, "</div>");
    clients(s, out);
    blocks(s, out);
    downstreams(s, out);
    directories(s, out);
    codes(s, out);
    raw(out, "</main><footer>This page reloads every minute. Its data: "
             "<a href=\"/api/status\">/api/status</a>, <a href=\"/metrics\">/metrics</a>"
             "</footer></body></html>\n");
}

#define _GNU_SOURCE

#include "proxy/ops/control_show.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/span.h"
#include "proxy/ops/text_table.h"

/* What is missing, as from a daemon of another version, shows as empty or 0. */

static const char *
text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static json_int_t
integer(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static bool
is_set(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

void
control_span_text(json_int_t s, char out[CONTROL_SPAN_TEXT])
{
    static const struct {
        json_int_t s;
        char unit;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    size_t i = 0;
    while (i < 3 && s < units[i].s)
        i++;
    int n = snprintf(out, CONTROL_SPAN_TEXT, "%" JSON_INTEGER_FORMAT "%c", s / units[i].s,
                     units[i].unit);
    s %= units[i].s;
    if (i < 3 && s >= units[i + 1].s)
        snprintf(out + n, CONTROL_SPAN_TEXT - (size_t)n, " %" JSON_INTEGER_FORMAT "%c",
                 s / units[i + 1].s, units[i + 1].unit);
}

/* Seconds in words, or a moment in local time; "-" if VALUE is no number. */

static void
seconds_text(const json_t *value, char out[CONTROL_SPAN_TEXT])
{
    snprintf(out, CONTROL_SPAN_TEXT, "-");
    if (json_is_integer(value))
        control_span_text(json_integer_value(value), out);
}

static void
moment_text(const json_t *value, char out[CONTROL_SPAN_TEXT])
{
    time_t when = (time_t)json_integer_value(value);
    struct tm tm;
    snprintf(out, CONTROL_SPAN_TEXT, "-");
    if (json_is_integer(value) && localtime_r(&when, &tm))
        strftime(out, CONTROL_SPAN_TEXT, "%Y-%m-%d %H:%M:%S", &tm);
}

static void
add_span(struct text_table *t, const json_t *value)
{
    char out[CONTROL_SPAN_TEXT];
    seconds_text(value, out);
    text_table_add(t, out);
}

static void
add_moment(struct text_table *t, const json_t *value)
{
    char out[CONTROL_SPAN_TEXT];
    moment_text(value, out);
    text_table_add(t, out);
}

#define NAME_COLUMNS 13 /* and a blank, also behind a longer name */
#define FOLD_COLUMNS 64

/* A name, and its value in lines folded at spaces. */
static void
line(FILE *out, const char *name, const char *value)
{
    if (!*value)
        return;
    char safe[2048];
    snprintf(safe, sizeof safe, "%s", value);
    text_safe(safe);
    const char *rest = safe;
    while (strlen(rest) > FOLD_COLUMNS) {
        const char *end = memrchr(rest, ' ', FOLD_COLUMNS);
        if (!end)
            break;
        fprintf(out, "%-*s %.*s\n", NAME_COLUMNS, name, (int)(end - rest), rest);
        rest = end + 1;
        name = "";
    }
    fprintf(out, "%-*s %s\n", NAME_COLUMNS, name, rest);
}

#define NEW_TABLE(...)                                                                             \
    text_table_new((const char *const[]){__VA_ARGS__},                                             \
                   sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void
show_problems(const json_t *answer, FILE *out)
{
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(answer, "problems"), i, p)
    {
        const char *name = text(p, "name"), *server = text(p, "server"), *error = text(p, "error");
        char what[512];
        snprintf(what, sizeof what, "%s%s%s%s%s is %s%s%s", text(p, "part"), *name ? " " : "", name,
                 *server ? " " : "", server, text(p, "state"), *error ? ": " : "", error);
        line(out, "problem", what);
    }
}

static void
size_text(json_int_t bytes, char out[CONTROL_SPAN_TEXT])
{
    static const char units[] = "BKMGT";
    double n = (double)bytes;
    size_t i = 0;
    for (; n >= 1024 && i < sizeof units - 2; i++)
        n /= 1024;
    snprintf(out, CONTROL_SPAN_TEXT, i ? "%.1f %ciB" : "%.0f %c", n, units[i]);
}

static void
show_blocks(const json_t *list, FILE *out)
{
    struct text_table *t =
        NEW_TABLE("NETWORK", "ACTION", "BY", "UNTIL", ">LEFT", ">REPEATS", "NOTE");
    size_t i;
    json_t *b;
    json_array_foreach(list, i, b)
    {
        text_table_add(t, text(b, "network"));
        text_table_add(t, text(b, "action"));
        text_table_add(t, text(b, "by"));
        add_moment(t, json_object_get(b, "until"));
        add_span(t, json_object_get(b, "remaining_s"));
        text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(b, "repeats"));
        text_table_add(t, is_set(b, "monitor")       ? "monitor: not given"
                          : is_set(b, "null_sender") ? "null sender only"
                                                     : "");
    }
    text_table_print(&t, json_array_size(list), "No network is blocked.", out);
}

static void
show_downstreams(const json_t *list, FILE *out)
{
    struct text_table *t =
        NEW_TABLE("DOWNSTREAM", "HOST", "STATE", ">ACTIVE", ">IDLE", "OFFERS, ERROR");
    size_t i, k;
    json_t *h, *word;
    json_array_foreach(list, i, h)
    {
        text_table_add(t, text(h, "downstream"));
        text_table_add(t, text(h, "host"));
        text_table_add(t, text(h, "state"));
        text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(h, "active"));
        text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(h, "idle"));
        char offers[512] = "";
        size_t n = 0;
        json_array_foreach(json_object_get(h, "capabilities"), k, word)
        {
            if (n < sizeof offers - 64)
                n += (size_t)snprintf(offers + n, sizeof offers - n, "%s%.32s", n ? " " : "",
                                      json_string_value(word));
        }
        text_table_add(t, *text(h, "error") ? text(h, "error") : offers);
    }
    text_table_print(&t, json_array_size(list), "No downstream is configured.", out);
}

static void
show_directories(const json_t *list, FILE *out)
{
    struct text_table *t =
        NEW_TABLE("DIRECTORY", "TYPE", "MODE", ">ENTRIES", ">AGE", "SERVER", "STATE", "ERROR");
    size_t i, k;
    json_t *d, *server;
    json_array_foreach(list, i, d)
    {
        const json_t *servers = json_object_get(d, "servers");
        size_t n = json_array_size(servers);
        for (k = 0; k < (n ? n : 1); k++) {
            server = json_array_get(servers, k);
            text_table_add(t, *text(d, "name") ? text(d, "name") : "default");
            text_table_add(t, text(d, "type"));
            text_table_add(t, text(d, "mode"));
            text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(d, "entries"));
            add_span(t, json_object_get(d, "snapshot_age_s"));
            text_table_add(t, text(server, "uri"));
            text_table_add(t, text(server, "state"));
            text_table_add(t, *text(server, "error") || k > 0 ? text(server, "error")
                                                              : text(d, "snapshot_error"));
        }
    }
    text_table_print(&t, SIZE_MAX, "No directory is configured.", out);
}

static void
show_looks(const json_t *list, FILE *out)
{
    struct text_table *t = NEW_TABLE("DIRECTORY", ">ENTRIES", ">LEARNED", ">LOST");
    size_t i;
    json_t *d;
    json_array_foreach(list, i, d)
    {
        text_table_add(t, *text(d, "name") ? text(d, "name") : "default");
        text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(d, "entries"));
        text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(d, "learned"));
        text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(d, "lost"));
    }
    text_table_print(&t, SIZE_MAX, "", out);
}

static void
show_duplicates(const json_t *list, FILE *out)
{
    struct text_table *t = NEW_TABLE("ADDRESS", "OBJECT");
    size_t i, k;
    json_t *d, *dn;
    json_array_foreach(list, i, d)
    {
        json_array_foreach(json_object_get(d, "objects"), k, dn)
        {
            text_table_add(t, k == 0 ? text(d, "address") : "");
            text_table_add(t, json_string_value(dn));
        }
    }
    text_table_print(&t, SIZE_MAX, "No address is on two objects.", out);
}

static void
show_remote_domains(const json_t *list, FILE *out)
{
    struct text_table *t =
        NEW_TABLE("DOMAIN", "NDR", "DELIVERY-REPORTS", "READ-RECEIPTS", "AUTO-REPLIES");
    static const char *const keys[] = {"domain", "ndr", "delivery_reports", "read_receipts",
                                       "auto_replies"};
    size_t i;
    json_t *d;
    json_array_foreach(list, i, d)
    {
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
            text_table_add(t, text(d, keys[k]));
    }
    text_table_print(&t, json_array_size(list), "There is no rule.", out);
}

static json_int_t
verdict(const json_t *answer, const char *name)
{
    return integer(json_object_get(json_object_get(answer, "recipients"), name), "total");
}

static json_int_t
sum(json_t *object)
{
    json_int_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) n += json_integer_value(value);
    return n;
}

static void
show_status(const json_t *a, FILE *out)
{
    const json_t *connections = json_object_get(a, "connections");
    const json_t *messages = json_object_get(a, "messages");
    char up[CONTROL_SPAN_TEXT], bytes[CONTROL_SPAN_TEXT], value[512];
    control_span_text(integer(a, "uptime_s"), up);
    size_text(integer(messages, "bytes"), bytes);
    snprintf(value, sizeof value, "%s on %s, up %s%s%s", text(a, "version"), text(a, "hostname"),
             up, is_set(a, "monitor") ? ", monitor: verdicts are logged, not given" : "",
             is_set(a, "draining") ? ", shutting down" : "");
    line(out, "postern", value);
    show_problems(a, out);
    fprintf(out,
            "connections   %" JSON_INTEGER_FORMAT " open of %" JSON_INTEGER_FORMAT
            ", %" JSON_INTEGER_FORMAT " in the tarpit; %" JSON_INTEGER_FORMAT
            " since the start, %" JSON_INTEGER_FORMAT " of them turned away\n",
            integer(connections, "open"), integer(connections, "max"),
            integer(connections, "tarpitted"), integer(connections, "total"),
            sum(json_object_get(connections, "refused")));
    fprintf(out,
            "recipients    %" JSON_INTEGER_FORMAT " accepted, %" JSON_INTEGER_FORMAT
            " refused, %" JSON_INTEGER_FORMAT " deferred, %" JSON_INTEGER_FORMAT
            " would have been refused\n",
            verdict(a, "accept"), verdict(a, "reject"), verdict(a, "defer"),
            verdict(a, "would-reject"));
    fprintf(out,
            "messages      %" JSON_INTEGER_FORMAT " delivered (%s), %" JSON_INTEGER_FORMAT
            " refused, %" JSON_INTEGER_FORMAT " deferred\n",
            integer(messages, "delivered"), bytes, integer(messages, "refused"),
            integer(messages, "deferred"));
    fprintf(out,
            "harvest       %" JSON_INTEGER_FORMAT " harvesters found, %" JSON_INTEGER_FORMAT
            " blocks in force\n",
            sum(json_object_get(a, "harvests")), integer(a, "block_count"));
    fprintf(out, "drift         %" JSON_INTEGER_FORMAT "\n\n", integer(a, "drift"));
    show_directories(json_object_get(a, "directories"), out);
    fputc('\n', out);
    show_downstreams(json_object_get(a, "downstreams"), out);
}

static void
show_clients(const json_t *list, size_t max, FILE *out)
{
    struct text_table *t = NEW_TABLE("NETWORK", ">UNKNOWN", ">RATIO", "ACTION", "UNTIL");
    size_t i;
    json_t *c;
    json_array_foreach(list, i, c)
    {
        text_table_add(t, text(c, "network"));
        text_table_addf(t, "%" JSON_INTEGER_FORMAT, integer(c, "unknown"));
        text_table_addf(t, "%.2f", json_real_value(json_object_get(c, "ratio")));
        text_table_add(t, strcmp(text(c, "action"), "none") == 0 ? "-" : text(c, "action"));
        add_moment(t, json_object_get(c, "until"));
    }
    text_table_print(&t, max, "Nobody asked for unknown recipients lately.", out);
}

void
control_show_top(const json_t *a, const json_t *before, int64_t elapsed_ms, unsigned rows,
                 FILE *out)
{
    const json_t *connections = json_object_get(a, "connections");
    char up[CONTROL_SPAN_TEXT], value[256];
    control_span_text(integer(a, "uptime_s"), up);
    snprintf(value, sizeof value, "%s on %s, up %s", text(a, "version"), text(a, "hostname"), up);
    line(out, "postern", value);
    fprintf(out,
            "sessions      %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
            ", %" JSON_INTEGER_FORMAT " in the tarpit, %" JSON_INTEGER_FORMAT " blocks\n",
            integer(connections, "open"), integer(connections, "max"),
            integer(connections, "tarpitted"), integer(a, "block_count"));
    double per = elapsed_ms > 0 ? 1000.0 / (double)elapsed_ms : 0;
    static const char *const names[][2] = {
        {"accept", " accepted, "}, {"reject", " refused, "}, {"defer", " deferred per second\n\n"}};
    fputs("recipients    ", out);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        fprintf(out, "%.1f%s",
                before ? (double)(verdict(a, names[i][0]) - verdict(before, names[i][0])) * per
                       : 0.0,
                names[i][1]);
    unsigned used = 5; /* with the headings */
    show_clients(json_object_get(a, "clients"), rows > used ? rows - used : 0, out);
}

static void
show_value(const char *name, const char *key, const json_t *value, FILE *out)
{
    char shown[CONTROL_SPAN_TEXT];
    if (json_is_string(value)) {
        line(out, name, json_string_value(value));
    } else if (json_is_boolean(value)) {
        line(out, name, json_is_true(value) ? "yes" : "no");
    } else if (strcmp(key, "until") == 0) {
        moment_text(value, shown);
        line(out, name, shown);
    } else if (span_ends_nocase(span_str(key), "_s")) {
        seconds_text(value, shown);
        line(out, name, shown);
    } else if (json_is_integer(value)) {
        snprintf(shown, sizeof shown, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        line(out, name, shown);
    }
}

/* The value of KEY: a list item by item, all else on a line; of an object only its name. */
static void
show_pair(const char *indent, const char *key, const json_t *value, FILE *out)
{
    size_t i;
    json_t *item;
    char name[64];
    snprintf(name, sizeof name, "%s%s", indent, key);
    text_safe(name);
    if (json_is_object(value))
        fprintf(out, "%s\n", name);
    else if (!json_is_array(value))
        show_value(name, key, value, out);
    json_array_foreach(value, i, item)
    {
        show_value(i ? "" : name, key, item, out);
    }
}

/* An answer of a few names and values, and of objects of such. */
static void
show_pairs(json_t *object, FILE *out)
{
    const char *key, *inner_key;
    json_t *value, *inner;
    json_object_foreach(object, key, value)
    {
        if (strcmp(key, "ok") != 0)
            show_pair("", key, value, out);
        json_object_foreach(value, inner_key, inner)
        {
            show_pair("  ", inner_key, inner, out);
        }
    }
}

void
control_show(enum control_id command, json_t *answer, FILE *out)
{
    switch (command) {
    case CONTROL_status:
        show_status(answer, out);
        return;
    case CONTROL_top:
        control_show_top(answer, NULL, 0, UINT32_MAX, out);
        return;
    case CONTROL_blocks:
        show_blocks(json_object_get(answer, "blocks"), out);
        return;
    case CONTROL_remote_domains:
        show_remote_domains(json_object_get(answer, "remote_domains"), out);
        return;
    case CONTROL_downstreams:
        show_downstreams(json_object_get(answer, "downstreams"), out);
        return;
    case CONTROL_directory:
        if (json_object_get(answer, "looks"))
            show_looks(json_object_get(answer, "looks"), out);
        else if (json_object_get(answer, "duplicates"))
            show_duplicates(json_object_get(answer, "duplicates"), out);
        else
            show_directories(json_object_get(answer, "directories"), out);
        return;
    case CONTROL_lookup:
    case CONTROL_forget:
    case CONTROL_block:
    case CONTROL_unblock:
    case CONTROL_explain:
    case CONTROL_reload:
    case CONTROL_drain:
    case CONTROL_log_level:
    case CONTROL_COUNT:
        break;
    }
    show_pairs(answer, out);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/ops/metrics_text.h"
#include "proxy/ops/status_json.h"
#include "proxy/ops/status_page.h"

/* A process in trouble, whose names are as hostile as names can be. */
#define HOSTILE "<b>&\"'\\\n"

struct fixture {
    struct status s;
    struct host_view hosts[3];
    struct dir_view directories[2];
    struct policy_block blocks[2];
};

static void
fill(struct fixture *f)
{
    *f = (struct fixture){.s = {.hostname = "mx.example.com", .now_wall_s = 1000000, .workers = 2}};
    f->hosts[0] = (struct host_view){
        .downstream = "exchange", .host = "ex1:25", .state = HOST_UP, .active = 2, .idle = 1};
    f->hosts[1] = (struct host_view){
        .downstream = "exchange", .host = HOSTILE, .error = "refused " HOSTILE, .state = HOST_DOWN};
    f->hosts[2] = (struct host_view){.downstream = "other", .host = "ex3:25"};
    f->directories[0] = (struct dir_view){.name = "",
                                          .type = "ad",
                                          .mode = "snapshot",
                                          .has_snapshot = true,
                                          .entries = 10,
                                          .snapshot_age_s = 60,
                                          .n_servers = 2};
    f->directories[1] = (struct dir_view){.name = "b",
                                          .type = "ldap",
                                          .mode = "snapshot",
                                          .has_snapshot = true,
                                          .entries = 5,
                                          .snapshot_age_s = 90,
                                          .n_servers = 2};
    static const char *const uris[] = {"ldaps://dc1", "ldaps://dc2", "ldaps://dc2",
                                       "ldapi://\xc3\xbc\xfc"};
    struct dir_server_view *servers[] = {
        &f->directories[0].servers[0], &f->directories[0].servers[1], &f->directories[1].servers[0],
        &f->directories[1].servers[1]};
    for (size_t i = 0; i < 4; i++)
        snprintf(servers[i]->uri, sizeof servers[i]->uri, "%s", uris[i]);
    servers[0]->state = DIR_SERVER_UP;
    servers[1]->state = DIR_SERVER_DOWN;
    /* The same server as [1], which the other directory finds down. */
    servers[2]->state = DIR_SERVER_UP;
    servers[3]->state = DIR_SERVER_UP;
    snprintf(servers[1]->error, sizeof servers[1]->error, "bind: \xff refused");
    for (size_t i = 0; i < 2; i++) {
        network_parse(span_str("192.0.2.0/24"), &f->blocks[i].network);
        f->blocks[i].action = POLICY_ACTION_BLOCK;
        f->blocks[i].until_s = 1000000 + 90;
    }
    f->s.hosts = f->hosts;
    f->s.n_hosts = 3;
    f->s.directories = f->directories;
    f->s.n_directories = 2;
    f->s.is_directory_ready = true;
    f->s.is_ledger_up = true;
    f->s.blocks = f->blocks;
    f->s.n_blocks = 2;
    f->s.suspects[0] =
        (struct policy_suspect){.network = f->blocks[0].network, .count = 12, .ratio = 0.75};
    f->s.n_suspects = 1;
    f->s.counts.recipients[METRICS_VERDICT_REJECT][POLICY_REASON_UNKNOWN] = 3;
    f->s.counts.recipients[METRICS_VERDICT_DEFER][POLICY_REASON_DOWNSTREAM] = 1;
    f->s.counts.codes[0] = 7;
    f->s.counts.delivery.buckets[0] = 2;
    f->s.counts.delivery.buckets[METRICS_BUCKETS - 1] = 1;
    f->s.counts.delivery.sum_ns = 1500000000;
}

static char *
text_of(struct evbuffer *b)
{
    size_t n = evbuffer_get_length(b);
    char *text = malloc(n + 1);
    evbuffer_remove(b, text, n);
    text[n] = '\0';
    evbuffer_free(b);
    return text;
}

static void
expect(const char *text, const char *wanted)
{
    if (!strstr(text, wanted))
        fail_msg("\"%s\" is not there", wanted);
}

static void
expect_not(const char *text, const char *unwanted)
{
    if (strstr(text, unwanted))
        fail_msg("\"%s\" is there", unwanted);
}

static void
metrics_have_their_format(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f);
    struct evbuffer *out = evbuffer_new();
    metrics_text(&f.s, out);
    char *text = text_of(out);
    expect(text, "\npostern_recipients_total{verdict=\"reject\",reason=\"unknown\"} 3\n");
    expect(text, "\npostern_recipients_total{verdict=\"accept\",reason=\"ok\"} 0\n");
    expect(text, "\npostern_recipients_total{verdict=\"defer\",reason=\"downstream\"} 1\n");
    expect(text, "\npostern_recipients_total{verdict=\"defer\",reason=\"harvest\"} 0\n");
    expect_not(text, "{verdict=\"defer\",reason=\"unknown\"}");
    expect(text, "\npostern_downstream_up{downstream=\"exchange\",host=\"ex1:25\"} 1\n");
    expect(text, "{downstream=\"exchange\",host=\"<b>&\\\"'\\\\\\n\"} 0\n");
    expect(text, "\npostern_downstream_connections{downstream=\"exchange\",host=\"ex1:25\","
                 "state=\"active\"} 2\n");
    expect(text, "\npostern_directory_up{server=\"ldaps://dc1\"} 1\n");
    expect(text, "\npostern_directory_up{server=\"ldaps://dc2\"} 1\n");
    const char *second = strstr(text, "\npostern_directory_up{server=\"ldaps://dc2\"}") + 1;
    expect_not(second, "\npostern_directory_up{server=\"ldaps://dc2\"}");
    expect(text, "\npostern_directory_up{server=\"ldapi://\xc3\xbc\\\\xfc\"} 1\n");
    expect(text, "\npostern_snapshot_entries 15\n");
    expect(text, "\npostern_snapshot_age_seconds 90\n");
    expect(text, "\npostern_delivery_seconds_bucket{le=\"0.005\"} 2\n");
    expect(text, "\npostern_delivery_seconds_bucket{le=\"540\"} 2\n");
    expect(text, "\npostern_delivery_seconds_bucket{le=\"+Inf\"} 3\n"
                 "postern_delivery_seconds_sum 1.500000000\n"
                 "postern_delivery_seconds_count 3\n");
    expect(text, "\npostern_build_info{version=\"" POSTERN_VERSION "\"} 1\n");
    free(text);
}

/* Every line is a comment or a series with a number; a series belongs to the family whose HELP and
 * TYPE stand above it, stands once, and a counter's name ends with _total. */
static void
metrics_are_well_formed(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f);
    f.hosts[1].host = "ex2:25";
    struct evbuffer *out = evbuffer_new();
    metrics_text(&f.s, out);
    char *text = text_of(out);
    struct span rest = span_str(text), line, before = {0};
    char family[128] = "", help[160], type[160];
    size_t families = 0, series = 0;
    while (span_next(&rest, '\n', &line)) {
        char l[512];
        if (!line.n)
            continue;
        assert_true(span_copy(l, sizeof l, line));
        if (strncmp(l, "# HELP ", 7) == 0) {
            snprintf(family, sizeof family, "%.*s", (int)strcspn(l + 7, " "), l + 7);
            snprintf(help, sizeof help, "# HELP %s ", family);
            assert_true(strlen(l) > strlen(help) + 10);
            families++;
        } else if (strncmp(l, "# TYPE ", 7) == 0) {
            snprintf(type, sizeof type, "# TYPE %s ", family);
            assert_int_equal(strncmp(l, type, strlen(type)), 0);
            const char *kind = l + strlen(type);
            assert_true(!strcmp(kind, "counter") || !strcmp(kind, "gauge") ||
                        !strcmp(kind, "histogram"));
            size_t n = strlen(family);
            bool is_total = n > 6 && !strcmp(family + n - 6, "_total");
            assert_int_equal(is_total, !strcmp(kind, "counter"));
        } else {
            assert_int_equal(strncmp(l, family, strlen(family)), 0);
            char *end, *value = strrchr(l, ' ') + 1;
            strtod(value, &end);
            assert_true(end != value && !*end);
            assert_false(before.p && span_equal(before, span_of(line.p, (size_t)(value - l))));
            before = span_of(line.p, (size_t)(value - l));
            series++;
        }
    }
    assert_int_equal(families, 22);
    assert_true(series > 100);
    free(text);
}

static void
readiness_names_what_is_down(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f);
    assert_true(status_is_ready(&f.s));
    json_t *json = status_json_ready(&f.s);
    char *text = json_dumps(json, JSON_COMPACT);
    assert_string_equal(
        text, "{\"ready\":true,\"problems\":["
              "{\"part\":\"downstream\",\"name\":\"exchange\",\"server\":\"<b>&\\\"'\\\\\\n\","
              "\"state\":\"down\",\"error\":\"refused <b>&\\\"'\\\\\\n\"},"
              "{\"part\":\"downstream\",\"name\":\"other\",\"server\":\"ex3:25\","
              "\"state\":\"untried\",\"error\":\"\"},"
              "{\"part\":\"directory\",\"name\":\"default\",\"server\":\"ldaps://dc2\","
              "\"state\":\"down\",\"error\":\"bind: \xef\xbf\xbd refused\"}]}");
    free(text);
    json_decref(json);
    f.hosts[0].state = HOST_DOWN;
    assert_false(status_is_ready(&f.s));
    f.hosts[0].state = HOST_UP;
    f.s.is_directory_ready = false;
    assert_false(status_is_ready(&f.s));
    f.s.is_ledger_shared = true;
    f.s.is_ledger_up = false;
    span_copy(f.s.ledger_error, sizeof f.s.ledger_error, span_str("Connection refused"));
    struct status_zone zone = {.name = "bl.test", .fault = "no answer"};
    f.s.zones = &zone;
    f.s.n_zones = 1;
    f.s.is_draining = true;
    struct status_problem p[STATUS_PROBLEMS];
    assert_int_equal(status_problems(&f.s, p, STATUS_PROBLEMS), 7);
    assert_string_equal(p[3].part, "directory");
    assert_string_equal(p[4].part, "ledger");
    assert_string_equal(p[4].error, "Connection refused");
    assert_string_equal(p[5].part, "dnsbl");
    assert_string_equal(p[5].name, "bl.test");
    assert_string_equal(p[5].error, "no answer");
    assert_string_equal(p[6].part, "server");
    for (size_t max = 0; max < 7; max++)
        assert_int_equal(status_problems(&f.s, p, max), max);
}

static void
json_has_the_keys_of_the_manual(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f);
    FILE *in = fopen(SOURCE_DIR "/docs/posternctl.8", "r");
    assert_non_null(in);
    static char manual[65536];
    manual[fread(manual, 1, sizeof manual - 1, in)] = '\0';
    fclose(in);
    json_t *json = status_json(&f.s), *value;
    const char *key;
    json_object_foreach(json, key, value)
    {
        char quoted[64];
        snprintf(quoted, sizeof quoted, ".Ql %s", key);
        expect(manual, quoted);
        json_t *one = json_is_array(value) ? json_array_get(value, 0) : NULL;
        const char *inner;
        json_t *unused;
        json_object_foreach(one, inner, unused)
        {
            snprintf(quoted, sizeof quoted, "%s", inner);
            expect(manual, quoted);
        }
    }
    assert_int_equal(json_array_size(json_object_get(json, "blocks")), 2);
    value = json_array_get(json_object_get(json, "blocks"), 0);
    assert_int_equal(json_integer_value(json_object_get(value, "remaining_s")), 90);
    json_decref(json);
    json = status_json_blocks(&f.s, 1);
    assert_int_equal(json_array_size(json), 1);
    json_decref(json);
}

static void
page_is_whole_and_safe(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f);
    struct history *h = history_new(0);
    history_sample(h, &f.s.counts, 1000);
    struct evbuffer *out = evbuffer_new();
    status_page(&f.s, h, out);
    history_free(&h);
    char *text = text_of(out);
    expect(text, "&lt;b&gt;&amp;&quot;");
    expect_not(text, "<b>&");
    expect_not(text, "<script");
    expect_not(text, "style=");
    expect_not(text, "onload");
    expect_not(text, "src=");
    expect(text, "3 refused</span>");
    expect(text, "1 deferred</span>");
    expect(text, "192.0.2.0/24");
    expect(text, "75 %");
    expect(text, "1m 30s");
    expect(text, status_code_at(0)->title);
    char headers[STATUS_PAGE_HEADERS];
    status_page_headers(headers);
    expect(headers, "Content-Security-Policy: default-src 'none'; style-src 'sha256-");
    expect(headers, "='; ");
    assert_string_equal(headers + strlen(headers) - 2, "\r\n");
    free(text);
}

static void
an_empty_process_shows_too(void **state)
{
    (void)state;
    struct status s = {0};
    struct history *h = history_new(0);
    struct evbuffer *out = evbuffer_new();
    status_page(&s, h, out);
    char *text = text_of(out);
    expect(text, "Not ready");
    expect(text, "No network is blocked.");
    free(text);
    json_t *json = status_json_history(h);
    assert_int_equal(json_array_size(json_object_get(json_object_get(json, "day"), "refused")), 96);
    json_decref(json);
    history_free(&h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_have_their_format),
        cmocka_unit_test(metrics_are_well_formed),
        cmocka_unit_test(readiness_names_what_is_down),
        cmocka_unit_test(json_has_the_keys_of_the_manual),
        cmocka_unit_test(page_is_whole_and_safe),
        cmocka_unit_test(an_empty_process_shows_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

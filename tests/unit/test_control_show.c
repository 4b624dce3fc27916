#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/ops/control_explain.h"
#include "proxy/ops/control_help.h"
#include "proxy/ops/control_show.h"
#include "proxy/ops/json_text.h"
#include "proxy/ops/text_table.h"

static const struct {
    enum control_id command;
    const char *answer;
    const char *shown;
} cases[] = {
    {CONTROL_unblock, "{\"ok\":true,\"network\":\"192.0.2.0/24\",\"ended\":3}",
     "network       192.0.2.0/24\n"
     "ended         3\n"},
    {CONTROL_block,
     "{\"ok\":true,\"network\":\"192.0.2.1\",\"until\":1800000000,\"remaining_s\":3600}",
     "network       192.0.2.1\n"
     "until         2027-01-15 08:00:00\n"
     "remaining_s   1h\n"},
    {CONTROL_lookup,
     "{\"ok\":true,\"address\":\"a@example.com\",\"marked\":false,\"max_size\":null,\"live\":"
     "{\"result\":\"found\",\"attributes\":[\"mail: a\"]}}",
     "address       a@example.com\n"
     "marked        no\n"
     "live\n"
     "  result      found\n"
     "  attributes  mail: a\n"},
    {CONTROL_blocks, "{\"ok\":true,\"blocks\":[]}", "No network is blocked.\n"},
    {CONTROL_remote_domains,
     "{\"remote_domains\":[{\"domain\":\"default\",\"ndr\":\"unproven\",\"delivery_reports\":"
     "\"yes\",\"read_receipts\":\"no\",\"auto_replies\":\"yes\"}]}",
     "DOMAIN   NDR       DELIVERY-REPORTS  READ-RECEIPTS  AUTO-REPLIES\n"
     "default  unproven  yes               no             yes\n"},
    {CONTROL_downstreams,
     "{\"downstreams\":[{\"downstream\":\"exchange\",\"host\":\"ex1:25\",\"state\":\"up\","
     "\"active\":12,\"idle\":3,\"error\":\"\",\"capabilities\":[\"PIPELINING\",\"DSN\"]}]}",
     "DOWNSTREAM  HOST    STATE  ACTIVE  IDLE  OFFERS, ERROR\n"
     "exchange    ex1:25  up         12     3  PIPELINING DSN\n"},
    {CONTROL_directory,
     "{\"directories\":[{\"name\":\"\",\"type\":\"ad\",\"mode\":\"snapshot\",\"entries\":100,"
     "\"snapshot_age_s\":90,\"snapshot_error\":\"a look would lose 9\","
     "\"servers\":[{\"uri\":\"ldaps://a\",\"state\":\"up\",\"error\":\"\"},"
     "{\"uri\":\"ldaps://b\",\"state\":\"down\",\"error\":\"no\"}]}]}",
     "DIRECTORY  TYPE  MODE      ENTRIES     AGE  SERVER     STATE  ERROR\n"
     "default    ad    snapshot      100  1m 30s  ldaps://a  up     a look would lose 9\n"
     "default    ad    snapshot      100  1m 30s  ldaps://b  down   no\n"},
    {CONTROL_directory,
     "{\"looks\":[{\"name\":\"\",\"entries\":100,\"learned\":7,\"lost\":12},"
     "{\"name\":\"other\",\"entries\":3,\"learned\":0,\"lost\":0}]}",
     "DIRECTORY  ENTRIES  LEARNED  LOST\n"
     "default        100        7    12\n"
     "other            3        0     0\n"},
    {CONTROL_directory, "{\"duplicates\":[]}", "No address is on two objects.\n"},
    {CONTROL_directory,
     "{\"duplicates\":[{\"address\":\"a@x.test\",\"objects\":[\"cn=a,dc=x\",\"cn=b,dc=x\"]},"
     "{\"address\":\"c@x.test\",\"objects\":[\"cn=c,dc=x\",\"cn=d,dc=x\"]}]}",
     "ADDRESS   OBJECT\n"
     "a@x.test  cn=a,dc=x\n"
     "          cn=b,dc=x\n"
     "c@x.test  cn=c,dc=x\n"
     "          cn=d,dc=x\n"},
    {CONTROL_status,
     "{\"problems\":[{\"part\":\"directory\",\"name\":\"\",\"server\":\"\",\"state\":\"down\","
     "\"error\":\"it cannot answer\"},{\"part\":\"directory\",\"name\":\"default\",\"server\":"
     "\"ldaps://a\",\"state\":\"down\",\"error\":\"\"}]}",
     "postern        on , up 0s\n"
     "problem       directory is down: it cannot answer\n"
     "problem       directory default ldaps://a is down\n"
     "connections   0 open of 0, 0 in the tarpit; 0 since the start, 0 of them turned away\n"
     "recipients    0 accepted, 0 refused, 0 deferred, 0 would have been refused\n"
     "messages      0 delivered (0 B), 0 refused, 0 deferred\n"
     "harvest       0 harvesters found, 0 blocks in force\n"
     "drift         0\n\n"
     "No directory is configured.\n\nNo downstream is configured.\n"},
    /* What commands terminals is shown as '?', and none of it is lost. */
    {CONTROL_forget, "{\"address\":\"\\u001b[2Jx\\u009b1m\\u007f\\u00e4\"}",
     "address       ?[2Jx??1m?\xc3\xa4\n"},
    {CONTROL_forget, "{\"a\\r\":{\"\\u001b\":1}}", "a?\n  ?           1\n"},
    /* A name that fills its column does not run into its value. */
    {CONTROL_unblock, "{\"ended\":0,\"still_blocked_by\":[\"192.0.2.0/24\"]}",
     "ended         0\nstill_blocked_by 192.0.2.0/24\n"},
    /* A long value is folded. */
    {CONTROL_reload,
     "{\"error\":\"0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 end\"}",
     "error         0123456789 0123456789 0123456789 0123456789 0123456789\n"
     "              0123456789 end\n"},
};

/* What control_show prints; the caller frees. */
static char *
shown(enum control_id command, json_t *answer)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    control_show(command, answer, out);
    fclose(out);
    return text;
}

static void
shows_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *answer = json_loads(cases[i].answer, 0, NULL);
        assert_non_null(answer);
        char *text = shown(cases[i].command, answer);
        assert_string_equal(text, cases[i].shown);
        free(text);
        json_decref(answer);
    }
}

/* An answer without what is looked for, as of another version, breaks nothing. */
static void
bears_what_is_missing(void **state)
{
    (void)state;
    static const char *const answers[] = {"{}",
                                          "{\"blocks\":[{}],\"downstreams\":[{}],"
                                          "\"directories\":[{}],\"remote_domains\":[{}],"
                                          "\"clients\":[{}],\"problems\":[{}]}",
                                          "{\"looks\":[{}]}", "{\"duplicates\":[{}]}"};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        json_t *answer = json_loads(answers[i], 0, NULL);
        for (enum control_id command = 0; command < CONTROL_COUNT; command++)
            free(shown(command, answer));
        json_decref(answer);
    }
}

static void
shows_rates(void **state)
{
    (void)state;
    json_t *before = json_loads("{\"recipients\":{\"accept\":{\"total\":10}}}", 0, NULL);
    json_t *now = json_loads("{\"recipients\":{\"accept\":{\"total\":25},\"reject\":{\"total\":1}},"
                             "\"clients\":[{\"network\":\"192.0.2.1\",\"unknown\":7,\"ratio\":0.5,"
                             "\"action\":\"none\",\"until\":null},{\"network\":\"192.0.2.2\"}]}",
                             0, NULL);
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    control_show_top(now, before, 2000, 6, out);
    fclose(out);
    assert_non_null(strstr(text, " 7.5 accepted, 0.5 refused, 0.0 deferred per second\n"));
    assert_non_null(strstr(text, "192.0.2.1        7   0.50  -"));
    assert_null(strstr(text, "192.0.2.2")); /* no row is left for it */
    free(text);
    json_decref(before);
    json_decref(now);
}

static void
tells_spans(void **state)
{
    (void)state;
    static const struct {
        json_int_t s;
        const char *text;
    } spans[] = {{0, "0s"},         {59, "59s"},      {60, "1m"},     {61, "1m 1s"},
                 {3599, "59m 59s"}, {3600, "1h"},     {3601, "1h"},   {3660, "1h 1m"},
                 {86400, "1d"},     {90000, "1d 1h"}, {864000, "10d"}};
    char text[CONTROL_SPAN_TEXT];
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        control_span_text(spans[i].s, text);
        assert_string_equal(text, spans[i].text);
    }
}

static void
explains(void **state)
{
    (void)state;
    json_t *answer = control_explain("550 5.1.1 <a@b>: User unknown");
    assert_true(json_is_true(json_object_get(answer, "ok")));
    assert_string_equal(json_string_value(json_object_get(answer, "code")), "5.1.1");
    assert_true(strlen(json_string_value(json_object_get(answer, "remedy"))) > 10);
    json_decref(answer);
    answer = control_explain("none");
    assert_true(json_is_false(json_object_get(answer, "ok")));
    json_decref(answer);
}

static void
makes_json_of_any_octets(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json;
    } texts[] = {
        {"", ""},
        {"a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xff", "\xef\xbf\xbd"},
        {"a\xc3", "a\xef\xbf\xbd"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"}, /* overlong */
        {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc3(", "\xef\xbf\xbd("},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        json_t *text = json_text_str(texts[i].text);
        assert_string_equal(json_string_value(text), texts[i].json);
        char *dumped = json_dumps(text, JSON_ENCODE_ANY);
        assert_non_null(dumped);
        free(dumped);
        json_decref(text);
    }
}

static char *
read_file(const char *path)
{
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    char *text = calloc(1, 65536);
    assert_true(fread(text, 1, 65535, in) > 0);
    fclose(in);
    return text;
}

static void
completion_is_of_the_table(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    control_completion(out);
    fclose(out);
    char *shipped = read_file(SOURCE_DIR "/docs/posternctl.bash");
    assert_string_equal(shipped, text);
    free(shipped);
    free(text);
}

/* The manual has an entry for each command, with its arguments in their order. */
static void
manual_is_of_the_table(void **state)
{
    (void)state;
    char *manual = read_file(SOURCE_DIR "/docs/posternctl.8");
    assert_non_null(strstr(manual, CONTROL_DEFAULT_SOCKET));
    for (size_t i = 0; i < CONTROL_COUNT; i++) {
        char item[64];
        snprintf(item, sizeof item, "\n.It Cm %s", control_commands[i].name);
        const char *at = strstr(manual, item);
        while (at && !strchr(" \n", at[strlen(item)]))
            at = strstr(at + 1, item);
        assert_non_null(at);
        assert_true(control_commands[i].least <= control_commands[i].most);
        assert_int_equal(control_find(span_str(control_commands[i].name)), i);
    }
    free(manual);
    assert_int_equal(control_find(span_str("")), CONTROL_COUNT);
    assert_int_equal(control_find(span_str("Status")), CONTROL_COUNT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_answers),
        cmocka_unit_test(bears_what_is_missing),
        cmocka_unit_test(shows_rates),
        cmocka_unit_test(tells_spans),
        cmocka_unit_test(explains),
        cmocka_unit_test(makes_json_of_any_octets),
        cmocka_unit_test(completion_is_of_the_table),
        cmocka_unit_test(manual_is_of_the_table),
    };
    setenv("TZ", "UTC", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#define _POSIX_C_SOURCE 200809L /* popen, getline */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "policy/spf.h"
#include "policy/spf_macro.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* A DNS of a few lines.  Type TIMEOUT: whatever else is asked of the name goes unanswered. */

struct line {
    char name[300];
    char type[10];
    struct span value;
};

struct dns {
    struct line lines[200];
    size_t n;
    unsigned asked;
};

static struct dns_answer answer;

/* By enum spf_result. */
static const char *const result_texts[] = {"none",     "neutral",   "pass",     "fail",
                                           "softfail", "temperror", "permerror"};

static void
dns_clear(struct dns *d)
{
    for (size_t i = 0; i < d->n; i++)
        free((char *)(uintptr_t)d->lines[i].value.p);
    memset(d, 0, sizeof *d);
}

static void
dns_add(struct dns *d, const char *name, const char *type, struct span value)
{
    struct line *l = &d->lines[d->n++];

    assert_true(d->n <= COUNT(d->lines));
    snprintf(l->name, sizeof l->name, "%s", name);
    snprintf(l->type, sizeof l->type, "%s", type);
    l->value = span_of(span_dup(value), value.n);
}

static void
dns_replace(struct dns *d, size_t i, const char *value)
{
    free((char *)(uintptr_t)d->lines[i].value.p);
    d->lines[i].value = span_of(span_dup(span_str(value)), strlen(value));
}

static struct span
without_dot(struct span s)
{
    return s.n > 0 && s.p[s.n - 1] == '.' ? span_of(s.p, s.n - 1) : s;
}

static const char *
type_text(enum dns_type type)
{
    switch (type) {
    case DNS_A:
        return "A";
    case DNS_AAAA:
        return "AAAA";
    case DNS_MX:
        return "MX";
    case DNS_PTR:
        return "PTR";
    case DNS_TXT:
        return "TXT";
    }
    fail_msg("type %d", (int)type);
    return NULL;
}

static void
add_answer(enum dns_type type, struct span value)
{
    struct dns_record *r = &answer.records[answer.n];

    memset(r, 0, sizeof *r);
    if (type == DNS_A || type == DNS_AAAA)
        assert_true(netaddr_parse(value, &r->address));
    else
        r->text = type == DNS_TXT ? value : without_dot(value);
    answer.n++;
    answer.status = DNS_OK;
}

static void
dns_look_up(struct dns *d, const struct dns_question *q)
{
    struct span name = span_str(q->name);

    d->asked++;
    assert_true(dns_name_valid(name));
    dns_answer_set(&answer, DNS_NONE);
    for (unsigned links = 0; links < 4; links++) {
        struct span alias = {NULL, 0};
        for (size_t i = 0; i < d->n; i++) {
            const struct line *l = &d->lines[i];
            if (!span_equal_nocase(span_str(l->name), name))
                continue;
            if (strcmp(l->type, type_text(q->type)) == 0)
                add_answer(q->type, l->value);
            else if (strcmp(l->type, "CNAME") == 0)
                alias = without_dot(l->value);
            else if (strcmp(l->type, "TIMEOUT") == 0 && answer.status == DNS_NONE)
                answer.status = DNS_TROUBLE;
        }
        if (alias.n == 0)
            return;
        name = alias;
    }
    dns_answer_set(&answer, DNS_TROUBLE);
}

static enum spf_result
check(struct dns *d, const char *client, const char *helo, const char *sender, bool *is_general)
{
    const struct dns_question *q;
    struct netaddr a;

    assert_true(netaddr_parse(span_str(client), &a));
    struct spf *s = spf_new(&a, span_str(helo), span_str(sender));
    assert_non_null(s);
    d->asked = 0;
    while ((q = spf_question(s)) != NULL) {
        dns_look_up(d, q);
        spf_answer(s, &answer);
        assert_true(d->asked <= 132);
    }
    enum spf_result result = spf_result(s);
    if (is_general != NULL)
        *is_general = spf_is_general(s);
    spf_free(&s);
    assert_null(s);
    return result;
}

/* What the tables below are asked against; %s is the record of `own.test`. */
static const char *const zone[][3] = {
    {"own.test", "A", "192.0.2.1"},
    {"own.test", "AAAA", "2001:db8::1"},
    {"own.test", "MX", "mx1.own.test"},
    {"own.test", "MX", "mx2.own.test."},
    {"mx1.own.test", "A", "192.0.2.11"},
    {"mx2.own.test", "A", "192.0.2.12"},
    {"mx2.own.test", "AAAA", "2001:db8::12"},
    {"other.test", "A", "198.51.100.1"},
    {"alias.own.test", "CNAME", "own.test"},
    {"nullmx.test", "MX", "."},
    {"slow.test", "TIMEOUT", ""},
    {"half.test", "MX", "slow.test"},
    {"four.test", "A", "192.0.2.1"},
    {"four.test", "MX", "four.test"},
    {"four.test", "MX", "other.test"},
    {"four.test", "MX", "odd_name:x/y.test"},
    {"odd_name:x/y.test", "A", "192.0.2.1"},
    /* policies to include */
    {"p.pass.test", "TXT", "v=spf1 +all"},
    {"p.fail.test", "TXT", "v=spf1 -all"},
    {"p.soft.test", "TXT", "v=spf1 ~all"},
    {"p.neutral.test", "TXT", "v=spf1"},
    {"p.none.test", "TXT", "v=spf2.0/pra -all"},
    {"p.twice.test", "TXT", "v=spf1 -all"},
    {"p.twice.test", "TXT", "v=spf1 +all"},
    {"p.faulty.test", "TXT", "v=spf1 all:"},
    {"p.own.test", "TXT", "v=spf1 a -all"},
    {"p.own.test", "A", "192.0.2.77"},
    {"p.void.test", "TXT", "v=spf1 a:x2.test -all"},
    {"p.local.test", "TXT", "v=spf1 exists:%{l}.test -all"},
    {"p.domain.test", "TXT", "v=spf1 exists:%{d}.%{o}.x.test -all"},
    {"p.domain.test.own.test.x.test", "A", "127.0.0.2"},
    /* macros */
    {"9.113.0.203.in-addr.x.test", "A", "127.0.0.2"},
    {"203.0.113.9.x.test", "A", "127.0.0.2"},
    {"113.9.y.test", "A", "127.0.0.2"},
    {"own.test.p.test", "A", "127.0.0.2"},
    {"jane.doe.l.test", "A", "127.0.0.2"},
    {"doe.jane.l.test", "A", "127.0.0.2"},
    {"jane.doe@own.test.s.test", "A", "127.0.0.2"},
    {"helo.host.test.h.test", "A", "127.0.0.2"},
    {"jane.doe%40own.test.s.test", "A", "127.0.0.2"},
    {"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.x.test", "A",
     "127.0.0.2"},
    {"100% a%20b.test", "A", "127.0.0.2"},
    {"mail.own.test.p.test", "A", "127.0.0.2"},
    {"unknown.p.test", "A", "127.0.0.2"},
    /* names of clients */
    {"9.113.0.203.in-addr.arpa", "PTR", "liar.test"},
    {"9.113.0.203.in-addr.arpa", "PTR", "slow.test"},
    {"9.113.0.203.in-addr.arpa", "PTR", "a.test"},
    {"9.113.0.203.in-addr.arpa", "PTR", "Mail.Own.test."},
    {"liar.test", "A", "192.0.2.200"},
    {"a.test", "A", "203.0.113.9"},
    {"mail.own.test", "A", "203.0.113.9"},
    {"8.113.0.203.in-addr.arpa", "PTR", "notown.test"},
    {"notown.test", "A", "203.0.113.8"},
    {"7.113.0.203.in-addr.arpa", "TIMEOUT", ""},
    {"1.2.0.192.in-addr.arpa", "PTR", "sub.own.test"},
    {"1.2.0.192.in-addr.arpa", "PTR", "own.test"},
    {"sub.own.test", "A", "192.0.2.1"},
};

static void
own_zone(struct dns *d, const char *record)
{
    dns_clear(d);
    for (size_t i = 0; i < COUNT(zone); i++)
        dns_add(d, zone[i][0], zone[i][1], span_str(zone[i][2]));
    dns_add(d, "own.test", "TXT", span_str(record));
}

#define V4 "203.0.113.9"
#define V6 "2001:db8::1"

static const struct {
    const char *record, *client;
    enum spf_result result;
} records[] = {
    /* results and qualifiers */
    {"v=spf1", V4, SPF_NEUTRAL},
    {"v=spf1   ", V4, SPF_NEUTRAL},
    {"v=spf1 all", V4, SPF_PASS},
    {"v=spf1 +ALL", V4, SPF_PASS},
    {"V=Spf1 -all", V4, SPF_FAIL},
    {"v=spf1 ~all", V4, SPF_SOFTFAIL},
    {"v=spf1  ?all", V4, SPF_NEUTRAL},
    {"v=spf1 -all +all", V4, SPF_FAIL},
    {"v=spf10 -all", V4, SPF_NONE},
    {"v=spf1-all", V4, SPF_NONE},
    {" v=spf1 -all", V4, SPF_NONE},
    {"", V4, SPF_NONE},
    /* faults, wherever they stand */
    {"v=spf1 +all -", V4, SPF_PERMERROR},
    {"v=spf1 +all ++all", V4, SPF_PERMERROR},
    {"v=spf1 +all nothing", V4, SPF_PERMERROR},
    {"v=spf1 +all all:x.test", V4, SPF_PERMERROR},
    {"v=spf1 +all all/8", V4, SPF_PERMERROR},
    {"v=spf1 +all\tall", V4, SPF_PERMERROR},
    {"v=spf1 +all all\n", V4, SPF_PERMERROR},
    {"v=spf1 +all \xc3\xa4", V4, SPF_PERMERROR},
    {"v=spf1 +all x=\x7f", V4, SPF_PERMERROR},
    {"v=spf1 +all 1x=y", V4, SPF_PERMERROR},
    {"v=spf1 +all x-_.1=y/z:%%", V4, SPF_PASS},
    {"v=spf1 +all x=%{c}", V4, SPF_PASS},
    {"v=spf1 +all x=%", V4, SPF_PERMERROR},
    {"v=spf1 +all redirect:x.test", V4, SPF_PERMERROR},
    {"v=spf1 +all include", V4, SPF_PERMERROR},
    {"v=spf1 +all include:", V4, SPF_PERMERROR},
    {"v=spf1 +all exists", V4, SPF_PERMERROR},
    {"v=spf1 +all exists:x.test/24", V4, SPF_PERMERROR},
    {"v=spf1 +all ptr/24", V4, SPF_PERMERROR},
    {"v=spf1 +all a:", V4, SPF_PERMERROR},
    {"v=spf1 +all a:test", V4, SPF_PERMERROR},
    {"v=spf1 +all a:test.", V4, SPF_PERMERROR},
    {"v=spf1 +all a:x.123", V4, SPF_PERMERROR},
    {"v=spf1 +all a:x.-y", V4, SPF_PERMERROR},
    {"v=spf1 +all a:x.y-", V4, SPF_PERMERROR},
    {"v=spf1 +all a:x.1y", V4, SPF_PASS},
    {"v=spf1 +all a:x.xn--1y.", V4, SPF_PASS},
    {"v=spf1 +all a/33", V4, SPF_PERMERROR},
    {"v=spf1 +all a/", V4, SPF_PERMERROR},
    {"v=spf1 +all a//", V4, SPF_PERMERROR},
    {"v=spf1 +all a/024", V4, SPF_PERMERROR},
    {"v=spf1 +all a//129", V4, SPF_PERMERROR},
    {"v=spf1 +all a/24/64", V4, SPF_PERMERROR},
    {"v=spf1 +all a//64/24", V4, SPF_PERMERROR},
    {"v=spf1 +all mx/0//0", V4, SPF_PASS},
    {"v=spf1 +all a/99999999999999999999", V4, SPF_PERMERROR},
    {"v=spf1 +all exp=", V4, SPF_PERMERROR},
    {"v=spf1 +all exp=x.test exp=x.test", V4, SPF_PERMERROR},
    {"v=spf1 +all exp=%{r}.test", V4, SPF_PERMERROR},
    {"v=spf1 +all redirect=x.test redirect=y.test", V4, SPF_PERMERROR},
    {"v=spf1 -all exp=x.test", V4, SPF_FAIL},
    /* ip4, ip6 */
    {"v=spf1 ip4:203.0.113.9", V4, SPF_PASS},
    {"v=spf1 ip4:203.0.113.8", V4, SPF_NEUTRAL},
    {"v=spf1 ip4:203.0.113.8/31", V4, SPF_PASS},
    {"v=spf1 IP4:0.0.0.0/0", V4, SPF_PASS},
    {"v=spf1 ip4:0.0.0.0/0", V6, SPF_NEUTRAL},
    {"v=spf1 ip4:203.0.113.9/33", V4, SPF_PERMERROR},
    {"v=spf1 ip4:203.0.113.9/", V4, SPF_PERMERROR},
    {"v=spf1 ip4:203.0.113.9//32", V4, SPF_PERMERROR},
    {"v=spf1 ip4:203.0.113", V4, SPF_PERMERROR},
    {"v=spf1 ip4:203.0.113.09", V4, SPF_PERMERROR},
    {"v=spf1 ip4:2001:db8::1", V4, SPF_PERMERROR},
    {"v=spf1 ip4:", V4, SPF_PERMERROR},
    {"v=spf1 ip4", V4, SPF_PERMERROR},
    {"v=spf1 ip6:2001:DB8::1", V6, SPF_PASS},
    {"v=spf1 ip6:2001:db8:8000::/32", V6, SPF_PASS},
    {"v=spf1 ip6:2001:db8:8000::/33", V6, SPF_NEUTRAL},
    {"v=spf1 ip6:::/0", V4, SPF_NEUTRAL},
    {"v=spf1 ip6:::ffff:203.0.113.9", V4, SPF_NEUTRAL},
    {"v=spf1 ip4:203.0.113.9", "::ffff:203.0.113.9", SPF_PASS},
    {"v=spf1 ip6:::/129", V6, SPF_PERMERROR},
    {"v=spf1 ip6:203.0.113.9", V6, SPF_PERMERROR},
    /* a */
    {"v=spf1 a", "192.0.2.1", SPF_PASS},
    {"v=spf1 a", V6, SPF_PASS},
    {"v=spf1 a", V4, SPF_NEUTRAL},
    {"v=spf1 a/24", "192.0.2.255", SPF_PASS},
    {"v=spf1 a/24", "2001:db8::2", SPF_NEUTRAL},
    {"v=spf1 a/24//64", "2001:db8::2", SPF_PASS},
    {"v=spf1 a//64", "192.0.2.2", SPF_NEUTRAL},
    {"v=spf1 a:other.test", "198.51.100.1", SPF_PASS},
    {"v=spf1 a:alias.own.test.", "192.0.2.1", SPF_PASS},
    {"v=spf1 a:other.test/0", V6, SPF_NEUTRAL},
    {"v=spf1 a:odd_name:x/y.test", "192.0.2.1", SPF_PASS},
    {"v=spf1 a:nowhere.test -all", V4, SPF_FAIL},
    {"v=spf1 a:x..test -all", V4, SPF_FAIL},
    {"v=spf1 a:slow.test -all", V4, SPF_TEMPERROR},
    /* mx */
    {"v=spf1 mx", "192.0.2.11", SPF_PASS},
    {"v=spf1 mx", "192.0.2.12", SPF_PASS},
    {"v=spf1 mx", "2001:db8::12", SPF_PASS},
    {"v=spf1 mx", "192.0.2.1", SPF_NEUTRAL},
    {"v=spf1 mx/28", "192.0.2.15", SPF_PASS},
    {"v=spf1 mx:other.test -all", "198.51.100.1", SPF_FAIL},
    {"v=spf1 mx:nullmx.test -all", V4, SPF_FAIL},
    {"v=spf1 mx:slow.test -all", V4, SPF_TEMPERROR},
    {"v=spf1 mx:half.test -all", V4, SPF_TEMPERROR},
    /* ptr */
    {"v=spf1 ptr -all", V4, SPF_PASS},
    {"v=spf1 ptr:TEST -all", V4, SPF_PERMERROR},
    {"v=spf1 ptr:a.test -all", V4, SPF_PASS},
    {"v=spf1 ptr:liar.test -all", V4, SPF_FAIL},
    {"v=spf1 ptr -all", "203.0.113.8", SPF_FAIL},
    {"v=spf1 ptr -all", "203.0.113.7", SPF_FAIL},
    {"v=spf1 ptr -all", "203.0.113.6", SPF_FAIL},
    /* exists */
    {"v=spf1 exists:own.test", V4, SPF_PASS},
    {"v=spf1 exists:own.test", V6, SPF_PASS},
    {"v=spf1 exists:nowhere.test -all", V4, SPF_FAIL},
    {"v=spf1 exists:slow.test -all", V4, SPF_TEMPERROR},
    /* include */
    {"v=spf1 include:p.pass.test -all", V4, SPF_PASS},
    {"v=spf1 ?include:p.pass.test -all", V4, SPF_NEUTRAL},
    {"v=spf1 include:p.fail.test ~all", V4, SPF_SOFTFAIL},
    {"v=spf1 include:p.soft.test -all", V4, SPF_FAIL},
    {"v=spf1 include:p.neutral.test -all", V4, SPF_FAIL},
    {"v=spf1 include:p.none.test -all", V4, SPF_PERMERROR},
    {"v=spf1 include:nowhere.test -all", V4, SPF_PERMERROR},
    {"v=spf1 include:p.twice.test -all", V4, SPF_PERMERROR},
    {"v=spf1 include:p.faulty.test -all", V4, SPF_PERMERROR},
    {"v=spf1 include:slow.test -all", V4, SPF_TEMPERROR},
    {"v=spf1 include:%{d2}x..y.test -all", V4, SPF_PERMERROR},
    {"v=spf1 include:%{d1} -all", V4, SPF_PERMERROR},
    {"v=spf1 include:p.own.test -all", "192.0.2.77", SPF_PASS},
    {"v=spf1 include:p.own.test -all", "192.0.2.1", SPF_FAIL},
    {"v=spf1 include:p.domain.test -all", V4, SPF_PASS},
    {"v=spf1 include:own.test -all", V4, SPF_PERMERROR},
    /* redirect */
    {"v=spf1 redirect=p.pass.test", V4, SPF_PASS},
    {"v=spf1 redirect=p.fail.test ip4:203.0.113.9", V4, SPF_PASS},
    {"v=spf1 redirect=p.fail.test", V4, SPF_FAIL},
    {"v=spf1 redirect=p.fail.test all", V4, SPF_PASS},
    {"v=spf1 redirect=p.own.test", "192.0.2.77", SPF_PASS},
    {"v=spf1 redirect=p.none.test", V4, SPF_PERMERROR},
    {"v=spf1 redirect=slow.test", V4, SPF_TEMPERROR},
    {"v=spf1 redirect=%{d1}", V4, SPF_PERMERROR},
    {"v=spf1 redirect=own.test", V4, SPF_PERMERROR},
    /* macros */
    {"v=spf1 exists:%{ir}.%{v}.x.test", V4, SPF_PASS},
    {"v=spf1 exists:%{ir}.%{v}.x.test", V6, SPF_PASS},
    {"v=spf1 exists:%{i}.x.test", V4, SPF_PASS},
    {"v=spf1 exists:%{i2}.y.test", V4, SPF_PASS},
    {"v=spf1 exists:%{i3}.y.test", V4, SPF_NEUTRAL},
    {"v=spf1 exists:%{i128}.x.test", V4, SPF_PASS},
    {"v=spf1 exists:%{l}.l.test", V4, SPF_PASS},
    {"v=spf1 exists:%{lr}.l.test", V4, SPF_PASS},
    {"v=spf1 exists:%{s}.s.test", V4, SPF_PASS},
    {"v=spf1 exists:%{S}.s.test", V4, SPF_PASS},
    {"v=spf1 exists:%{h}.h.test", V4, SPF_PASS},
    {"v=spf1 exists:%{o1r}.%{d2}", V4, SPF_NEUTRAL},
    {"v=spf1 exists:mail.%{d}", V4, SPF_PASS},
    {"v=spf1 exists:100%%%_a%-b.test", V4, SPF_PASS},
    {"v=spf1 exists:%{p}.p.test", V4, SPF_PASS},
    {"v=spf1 exists:%{p}.p.test", "192.0.2.1", SPF_PASS},
    {"v=spf1 exists:%{p}.p.test", "203.0.113.6", SPF_PASS},
    {"v=spf1 exists:%{p}.p.test", "203.0.113.8", SPF_NEUTRAL},
    {"v=spf1 exists:%{d0}.test", V4, SPF_PERMERROR},
    {"v=spf1 exists:%{d2x}.test", V4, SPF_PERMERROR},
    {"v=spf1 exists:%{d", V4, SPF_PERMERROR},
    {"v=spf1 exists:%{}.test", V4, SPF_PERMERROR},
    {"v=spf1 exists:%{x}.test", V4, SPF_PERMERROR},
    {"v=spf1 exists:%d.test", V4, SPF_PERMERROR},
    /* limits */
    {"v=spf1 a a a a a a a a a a -all", V4, SPF_FAIL},
    {"v=spf1 a a a a a a a a a a a -all", V4, SPF_PERMERROR},
    {"v=spf1 a a a a a a a a a mx -all", V4, SPF_FAIL},
    {"v=spf1 a a a a a a a a include:p.own.test -all", V4, SPF_FAIL},
    {"v=spf1 a a a a a a a a a include:p.own.test -all", V4, SPF_PERMERROR},
    {"v=spf1 a a a a a a a a a a redirect=p.pass.test", V4, SPF_PERMERROR},
    {"v=spf1 a:x1.test a:x2.test -all", V4, SPF_FAIL},
    {"v=spf1 a:x1.test a:x2.test exists:x3.test -all", V4, SPF_PERMERROR},
    {"v=spf1 mx:x1.test mx:x2.test a:x3.test -all", V4, SPF_PERMERROR},
    /* a mx is one term, however many of its hosts have no address of the client's family */
    {"v=spf1 a:four.test mx:four.test ip6:2001:db8::/32 -all", V6, SPF_PASS},
    {"v=spf1 mx:four.test mx:four.test -all", V6, SPF_FAIL},
    {"v=spf1 mx:four.test mx:four.test a:four.test -all", V6, SPF_PERMERROR},
    {"v=spf1 mx:four.test a:x1.test include:p.void.test -all", V6, SPF_PERMERROR},
};

static void
test_records(void **state)
{
    static struct dns d;
    (void)state;

    for (size_t i = 0; i < COUNT(records); i++) {
        own_zone(&d, records[i].record);
        enum spf_result result =
            check(&d, records[i].client, "helo.host.test", "jane.doe@own.test", NULL);
        if (result != records[i].result)
            fail_msg("\"%s\" for %s: %s, not %s", records[i].record, records[i].client,
                     result_texts[result], result_texts[records[i].result]);
    }
    dns_clear(&d);
}

static const struct {
    const char *helo, *sender;
    enum spf_result result;
} identities[] = {
    {"helo.test", "a@own.test", SPF_PASS},
    {"helo.test", "@own.test", SPF_PASS},
    {"helo.test", "own.test", SPF_PASS},
    {"helo.test", "\"a@b\"@own.test", SPF_PASS},
    {"own.test", "", SPF_PASS},
    {"own.test.", "", SPF_PASS},
    {"nowhere.test", "", SPF_NONE},
    {"localhost", "", SPF_NONE},
    {"[203.0.113.9]", "", SPF_NONE},
    {"", "", SPF_NONE},
    {"helo.test", "a@test", SPF_NONE},
    {"helo.test", "a@", SPF_NONE},
    {"helo.test", "a@x..test", SPF_NONE},
    {"helo.test", "a@x\\.test", SPF_NONE},
    {"helo.test", "a@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test",
     SPF_NONE},
    {"helo.test", "a@slow.test", SPF_TEMPERROR},
};

static void
test_identities(void **state)
{
    static struct dns d;
    (void)state;

    own_zone(&d, "v=spf1 +all");
    for (size_t i = 0; i < COUNT(identities); i++) {
        enum spf_result result = check(&d, V4, identities[i].helo, identities[i].sender, NULL);
        if (result != identities[i].result)
            fail_msg("%s <%s>: %s", identities[i].helo, identities[i].sender, result_texts[result]);
    }
    dns_clear(&d);
}

/* It is checked for its domain's record like any other; %{l} is the beginning of it. */
static void
test_long_local_parts(void **state)
{
    static struct dns d;
    char sender[600] = "";
    bool is_general;
    (void)state;

    for (size_t n = 319; n < 570; n += 50) {
        memset(sender, 'x', n);
        memcpy(sender + n, "@own.test", sizeof "@own.test");
        own_zone(&d, "v=spf1 +all");
        assert_int_equal(check(&d, V4, "h.test", sender, &is_general), SPF_PASS);
        assert_true(is_general);
        own_zone(&d, "v=spf1 exists:%{l}.test -all");
        assert_int_equal(check(&d, V4, "h.test", sender, &is_general), SPF_FAIL);
        assert_false(is_general);
    }
    dns_clear(&d);
}

static void
test_general(void **state)
{
    static struct dns d;
    bool is_general;
    (void)state;

    own_zone(&d, "v=spf1 exists:%{ir}.%{v}.%{o}.%{p} -all");
    assert_int_equal(check(&d, V4, "h.test", "a@own.test", &is_general), SPF_FAIL);
    assert_true(is_general);
    own_zone(&d, "v=spf1 +all exists:%{l}.test"); /* never reached */
    assert_int_equal(check(&d, V4, "h.test", "a@own.test", &is_general), SPF_PASS);
    assert_true(is_general);
    own_zone(&d, "v=spf1 include:p.local.test -all");
    assert_int_equal(check(&d, V4, "h.test", "other@own.test", &is_general), SPF_PASS);
    assert_false(is_general);
    assert_int_equal(check(&d, V4, "h.test", "x@own.test", &is_general), SPF_FAIL);
    assert_false(is_general);
    dns_clear(&d);
}

/* mx: the eleventh name is a permerror.  ptr: it is ignored. */
static void
test_name_limits(void **state)
{
    static struct dns d;
    char name[32];
    (void)state;

    for (int n = 10; n <= 11; n++) {
        own_zone(&d, "v=spf1 mx:many.test -all");
        for (int i = 0; i < n; i++) {
            snprintf(name, sizeof name, "h%d.own.test", i);
            dns_add(&d, "many.test", "MX", span_str(name));
            dns_add(&d, "5.113.0.203.in-addr.arpa", "PTR", span_str(name));
            dns_add(&d, name, "A", span_str(i == n - 1 ? "203.0.113.5" : "192.0.2.9"));
        }
        assert_int_equal(check(&d, "203.0.113.5", "h.test", "a@own.test", NULL),
                         n == 10 ? SPF_PASS : SPF_PERMERROR);
        dns_replace(&d, COUNT(zone), "v=spf1 ptr -all");
        assert_int_equal(check(&d, "203.0.113.5", "h.test", "a@own.test", NULL),
                         n == 10 ? SPF_PASS : SPF_FAIL);
    }
    dns_clear(&d);
}

/* The most that a check may ask, and an include in each of its includes. */
static void
test_most_work(void **state)
{
    static struct dns d;
    char name[32], record[64];
    (void)state;

    for (int depth = 9; depth <= 10; depth++) {
        own_zone(&d, "v=spf1 include:i0.test -all");
        for (int i = 0; i < depth; i++) {
            snprintf(name, sizeof name, "i%d.test", i);
            snprintf(record, sizeof record, "v=spf1 include:i%d.test -all", i + 1);
            dns_add(&d, name, "TXT", span_str(i == 9 ? "v=spf1 a +all" : record));
        }
        snprintf(name, sizeof name, "i%d.test", depth);
        dns_add(&d, name, "TXT", span_str("v=spf1 +all"));
        assert_int_equal(check(&d, V4, "h.test", "a@own.test", NULL),
                         depth == 9 ? SPF_PASS : SPF_PERMERROR);
    }
    own_zone(&d, "v=spf1 mx mx mx mx mx mx mx mx mx ptr:x.test -all");
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "h%d.test", i);
        dns_add(&d, "5.113.0.203.in-addr.arpa", "PTR", span_str(name));
        dns_add(&d, name, "A", span_str("192.0.2.9"));
        if (i >= 2)
            dns_add(&d, "own.test", "MX", span_str(name));
    }
    assert_int_equal(check(&d, "203.0.113.5", "h.test", "a@own.test", NULL), SPF_FAIL);
    assert_int_equal(d.asked, 1 + 9 * 11 + 11);
    dns_clear(&d);
}

static void
test_long_record(void **state)
{
    static struct dns d;
    static char record[SPF_RECORD_MAX + 2];
    (void)state;

    memset(record, ' ', sizeof record - 1);
    memcpy(record, "v=spf1", 6);
    memcpy(record + SPF_RECORD_MAX - 4, "+all", 4);
    own_zone(&d, record);
    assert_int_equal(check(&d, V4, "h.test", "a@own.test", NULL), SPF_PERMERROR);
    record[SPF_RECORD_MAX] = '\0';
    own_zone(&d, record);
    assert_int_equal(check(&d, V4, "h.test", "a@own.test", NULL), SPF_PASS);
    dns_clear(&d);
}

/* A name that grows too long loses labels on its left (7.3), however long it grew. */
static void
test_long_names(void **state)
{
    char text[1000] = "", out[DNS_NAME_TEXT], label[50] = "", local[301] = "";
    struct netaddr client;
    unsigned uses;
    (void)state;

    assert_true(netaddr_parse(span_str(V6), &client));
    memset(local, 'a', sizeof local - 1);
    memset(label, 'x', sizeof label - 1);
    struct spf_macro_values v = {.client = &client,
                                 .local = span_str("l"),
                                 .sender_domain = span_str("o.test"),
                                 .helo = span_str("h"),
                                 .domain = span_str("d.test"),
                                 .validated = span_str("unknown")};

    for (unsigned i = 0; i < 100; i++)
        memcpy(text + 4 * i, "%{i}", 4);
    memcpy(text + 400, ".test.", 7);
    assert_true(spf_macro_check(span_str(text), &uses));
    assert_true(spf_macro_expand(out, span_str(text), &v));
    assert_in_range(strlen(out), 250, DNS_NAME_MAX);
    assert_true(span_ends_nocase(span_str(out), ".0.12.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0."
                                                "0.0.0.0.0.0.0.0.0.1.test"));

    /* 256 octets; 254 without the first label, so the second goes too. */
    snprintf(text, sizeof text, "%%{l}.%s.%s.%s.%s.%s.test", label, label, label, label, label);
    assert_true(spf_macro_check(span_str(text), &uses));
    assert_int_equal(uses, SPF_MACRO_PERSONAL);
    assert_true(spf_macro_expand(out, span_str(text), &v));
    assert_int_equal(strlen(out), 204);

    v.local = span_str(local);
    assert_false(spf_macro_expand(out, span_str("%{l}"), &v));
    assert_true(spf_macro_expand(out, span_str("%{l}.test"), &v));
    assert_string_equal(out, "test");
}

static bool
contains_word(const char *words, const char *word)
{
    struct span rest = span_str(words), item;

    while (span_next(&rest, ' ', &item))
        if (span_is(item, word))
            return true;
    return false;
}

/* Undo \xNN in place; returns the new length. */
static size_t
unescape(char *s)
{
    size_t n = 0;

    for (; *s != '\0'; n++) {
        unsigned octet = (unsigned char)*s;
        if (*s == '\\') {
            assert_int_equal(sscanf(s, "\\x%2x", &octet), 1);
            memmove(s, s + 3, strlen(s + 3) + 1);
        }
        *s++ = (char)octet;
    }
    return n;
}

static const char *
suite_path(void)
{
    const char *path = getenv("POSTERN_SPF_SUITE");

    return path != NULL ? path : SOURCE_DIR "/../shared/data/rfc7208-tests.yml";
}

static bool
run_line(struct dns *d, char *line)
{
    char *fields[6] = {NULL}, *rest = line;
    size_t n = 0, sizes[6] = {0};

    line[strcspn(line, "\n")] = '\0';
    while (n < COUNT(fields) && rest != NULL) {
        char *tab = strchr(rest, '\t');
        if (tab != NULL)
            *tab = '\0';
        fields[n] = rest;
        rest = tab != NULL ? tab + 1 : NULL;
        sizes[n] = unescape(fields[n]);
        n++;
    }
    if (strcmp(fields[0], "zone") == 0)
        dns_clear(d);
    else if (n == 4)
        dns_add(d, fields[1], fields[2], span_of(fields[3], sizes[3]));
    if (n != 6)
        return false;
    const char *result = result_texts[check(d, fields[2], fields[3], fields[4], NULL)];
    if (!contains_word(fields[5], result))
        fail_msg("%s: %s, not %s", fields[1], result, fields[5]);
    return true;
}

static void
test_public_suite(void **state)
{
    static struct dns d;
    char command[1024], *line = NULL;
    size_t capacity = 0;
    unsigned cases = 0;
    (void)state;

    if (access(suite_path(), R_OK) != 0) {
        print_message("no %s: set POSTERN_SPF_SUITE to the public suite\n", suite_path());
        skip();
    }
    snprintf(command, sizeof command, "exec python3 '%s/tests/unit/spf_suite.py' '%s'", SOURCE_DIR,
             suite_path());
    FILE *in = popen(command, "r"); /* NOLINT(cert-env33-c): the paths are the developer's own */
    assert_non_null(in);
    while (getline(&line, &capacity, in) > 0)
        cases += run_line(&d, line);
    free(line);
    assert_int_equal(pclose(in), 0);
    assert_int_equal(cases, 203);
    dns_clear(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),          cmocka_unit_test(test_identities),
        cmocka_unit_test(test_general),          cmocka_unit_test(test_name_limits),
        cmocka_unit_test(test_most_work),        cmocka_unit_test(test_long_record),
        cmocka_unit_test(test_long_names),       cmocka_unit_test(test_public_suite),
        cmocka_unit_test(test_long_local_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

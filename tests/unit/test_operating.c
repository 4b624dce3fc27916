#define _POSIX_C_SOURCE 200809L /* getdelim */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* docs/operating.md says what to do about every metric, reply and reason that there is. */

static char *guide;

static int
read_guide(void **state)
{
    FILE *in = fopen(SOURCE_DIR "/docs/operating.md", "re");
    size_t n = 0;

    (void)state;
    ssize_t length = in != NULL ? getdelim(&guide, &n, '\0', in) : -1;
    if (in != NULL)
        fclose(in);
    return length > 0 ? 0 : -1;
}

static int
free_guide(void **state)
{
    (void)state;
    free(guide);
    return 0;
}

/* WORD as a code span of the guide, or at the beginning of one. */
static void
must_have(const char *word)
{
    size_t n = strlen(word);

    for (const char *p = guide; (p = strstr(p, word)) != NULL; p++)
        if (p > guide && p[-1] == '`' && strchr("`{ ", p[n]) != NULL)
            return;
    fail_msg("docs/operating.md says nothing of %s", word);
}

static void
test_metrics(void **state)
{
    (void)state;
#define METRICS_FAMILY(id, name, kind, help) must_have(name);
#include "proxy/ops/metrics.def"
#undef METRICS_FAMILY
}

static void
test_replies(void **state)
{
    static const struct {
        int code;
        const char *enhanced;
    } replies[] = {
#define SMTP_REPLY(id, code, enhanced, text) {code, enhanced},
#include "proxy/smtp/reply.def"
#undef SMTP_REPLY
    };
    char status[32];

    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        if (replies[i].enhanced[0] == '\0')
            continue;
        snprintf(status, sizeof(status), "%d %s", replies[i].code, replies[i].enhanced);
        must_have(status);
    }
}

static void
test_reasons(void **state)
{
    (void)state;
#define POLICY_REASON(id, word, class, monitored) must_have(word);
#include "policy/reason.def"
#undef POLICY_REASON
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics),
                                       cmocka_unit_test(test_replies),
                                       cmocka_unit_test(test_reasons)};

    return cmocka_run_group_tests(tests, read_guide, free_guide);
}

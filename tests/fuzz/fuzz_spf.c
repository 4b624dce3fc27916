#include <stdint.h>
#include <stdlib.h>

#include "policy/spf.h"

/* A whole check against a DNS that says what the input wants: the first line is CLIENT|HELO|SENDER,
 * each line behind it the answer to the next question: records with '|' between them, "!" for
 * trouble, nothing for none. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(int is_true)
{
    if (!is_true)
        abort();
}

static void
fill(struct dns_answer *a, const struct dns_question *q, struct span line)
{
    struct span record;

    dns_answer_set(a, span_is(line, "!") ? DNS_TROUBLE : DNS_NONE);
    while (line.n > 0 && a->status != DNS_TROUBLE && a->n < DNS_RECORDS_MAX &&
           span_next(&line, '|', &record)) {
        struct dns_record *r = &a->records[a->n];
        *r = (struct dns_record){.text = record};
        if ((q->type != DNS_A && q->type != DNS_AAAA) || netaddr_parse(record, &r->address))
            a->n++;
    }
    if (a->n > 0)
        a->status = DNS_OK;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dns_answer answer;
    struct span rest = span_of((const char *)data, size), line = {NULL, 0}, fields[3] = {{NULL, 0}};
    struct netaddr client = {.family = 4, .octets = {192, 0, 2, 1}};
    const struct dns_question *q;
    unsigned questions = 0;

    (void)span_next(&rest, '\n', &line);
    for (size_t i = 0; i < 3; i++)
        (void)span_next(&line, '|', &fields[i]);
    (void)netaddr_parse(fields[0], &client);
    struct spf *s = spf_new(&client, fields[1], fields[2]);
    require(s != NULL);
    while ((q = spf_question(s)) != NULL) {
        require(++questions <= 132);
        require(dns_name_valid(span_str(q->name)));
        line = (struct span){NULL, 0};
        (void)span_next(&rest, '\n', &line);
        fill(&answer, q, line);
        spf_answer(s, &answer);
    }
    require(spf_result(s) <= SPF_PERMERROR);
    spf_free(&s);
    return 0;
}

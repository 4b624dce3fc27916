#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "policy/dns_message.h"

/* The first octet says what is asked for `a.test`; the rest is the response. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum dns_type types[] = {DNS_A, DNS_AAAA, DNS_MX, DNS_PTR, DNS_TXT};
    static struct dns_answer answer;
    struct dns_question q = {.name = "a.test"};

    if (size == 0)
        return 0;
    q.type = types[data[0] % 5];
    dns_answer_read(&answer, &q, data + 1, size - 1);
    if ((answer.status == DNS_OK) != (answer.n > 0) || answer.n > DNS_RECORDS_MAX)
        abort();
    for (size_t i = 0; i < answer.n; i++) {
        struct span text = answer.records[i].text;
        if (text.n > 0 && (text.p < answer.text || text.p + text.n > answer.text + answer.text_n))
            abort();
        /* What can be read as a name can be asked for, but the root. */
        if ((q.type == DNS_MX || q.type == DNS_PTR) && text.n > 0 && !dns_name_valid(text))
            abort();
    }
    return 0;
}

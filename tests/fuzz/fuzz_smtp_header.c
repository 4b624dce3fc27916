#include <stdint.h>
#include <stdlib.h>

#include "proxy/smtp/header.h"
#include "tests/fuzz/require.h"
#include "tests/smtp_reference.h"

/* A message; the first octet says in steps of how many octets it comes. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t
scan(struct span in, size_t step, bool *found)
{
    struct header_end end = {0};
    size_t total = 0;

    for (size_t i = 0; i < in.n && !end.found; i += step) {
        size_t n = in.n - i < step ? in.n - i : step;
        size_t taken = header_end_scan(&end, span_of(in.p + i, n));

        require(taken <= n && (taken == n || end.found));
        total += taken;
    }
    *found = end.found;
    return total;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in = span_of((const char *)data + 1, size - 1), rest;
    struct header_field field;
    bool found, expected;
    size_t n;

    if (size == 0)
        return 0;
    n = scan(in, data[0] % 16 + 1u, &found);
    require(n == header_end_reference(in, &expected) && found == expected);

    rest = span_of(in.p, n);
    while (header_next(&rest, &field)) {
        const char *end = field.whole.p + field.whole.n;

        require(field.whole.n > 0 && rest.p == end);
        require(field.name.n == 0 || field.name.p == field.whole.p);
        require(field.name.n == 0 || field.value.p + field.value.n == end);
        for (size_t i = 0; i < field.name.n; i++)
            require(field.name.p[i] > ' ' && field.name.p[i] != ':' && field.name.p[i] < 0x7f);
        /* It ends a line, and is not continued. */
        require(rest.n == 0 || (end[-1] == '\n' || end[-1] == '\r'));
        require(rest.n == 0 || (rest.p[0] != ' ' && rest.p[0] != '\t'));
    }
    /* What is left is the empty line. */
    require(rest.p + rest.n == in.p + n && rest.n <= 2);
    require(rest.n == 0 || rest.p[0] == '\r' || rest.p[0] == '\n');
    return 0;
}

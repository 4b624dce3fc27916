#include "base/utf8.h"

#include <stdbool.h>

size_t
utf8_next(struct span in, uint32_t *code)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)in.p;
    size_t n;

    if (in.n == 0)
        return 0;
    *code = p[0];
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (in.n < n)
        return 0;
    *code &= 0x7fu >> n;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (p[i] & 0x3fu);
    }
    if (*code < smallest[n] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
        return 0;
    return n;
}

/* Characters that end a line or turn the direction of what stands behind them (UAX #9): a viewer of
 * a log would show one line as two, or its pairs in another order. */
static bool
is_layout(uint32_t code)
{
    return (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

size_t
utf8_printable(struct span in)
{
    uint32_t code;
    size_t n = utf8_next(in, &code);

    return n > 0 && code >= 0x20 && (code < 0x7f || code >= 0xa0) && !is_layout(code) ? n : 0;
}

size_t
utf8_fit(struct span s, size_t max)
{
    if (s.n <= max)
        return s.n;
    while (max > 0 && ((unsigned char)s.p[max] & 0xc0) == 0x80)
        max--;
    return max;
}

/* Every STEP-th letter from FIRST to LAST has its lower case ADD further on. */
struct letters {
    uint16_t first, last;
    int16_t add;
    uint16_t step;
};

static const struct letters capitals[] = {
    {0x0041, 0x005a, 32, 1}, {0x00c0, 0x00d6, 32, 1},   {0x00d8, 0x00de, 32, 1},
    {0x0100, 0x012e, 1, 2},  {0x0132, 0x0136, 1, 2},    {0x0139, 0x0147, 1, 2},
    {0x014a, 0x0176, 1, 2},  {0x0178, 0x0178, -121, 1}, {0x0179, 0x017d, 1, 2},
    {0x01a0, 0x01a4, 1, 2},  {0x01af, 0x01af, 1, 1},    {0x01cd, 0x01db, 1, 2},
    {0x01de, 0x01ee, 1, 2},  {0x01f8, 0x021e, 1, 2},    {0x0222, 0x0232, 1, 2},
    {0x0386, 0x0386, 38, 1}, {0x0388, 0x038a, 37, 1},   {0x038c, 0x038c, 64, 1},
    {0x038e, 0x038f, 63, 1}, {0x0391, 0x03a1, 32, 1},   {0x03a3, 0x03ab, 32, 1},
    {0x0400, 0x040f, 80, 1}, {0x0410, 0x042f, 32, 1},   {0x0460, 0x0480, 1, 2},
    {0x048a, 0x04be, 1, 2},  {0x04c0, 0x04c0, 15, 1},   {0x04c1, 0x04cd, 1, 2},
    {0x04d0, 0x052e, 1, 2},  {0x0531, 0x0556, 48, 1},   {0x1e00, 0x1e94, 1, 2},
    {0x1ea0, 0x1efe, 1, 2},
};

static uint32_t
lower(uint32_t code)
{
    for (size_t i = 0; i < sizeof capitals / sizeof capitals[0]; i++) {
        const struct letters *l = &capitals[i];
        if (code <= l->last)
            return code >= l->first && (code - l->first) % l->step == 0
                       ? (uint32_t)((int32_t)code + l->add)
                       : code;
    }
    return code;
}

void
utf8_lower(char *p, size_t n)
{
    for (size_t i = 0, used; i < n; i += used) {
        uint32_t code;

        if ((unsigned char)p[i] < 0x80) {
            p[i] = ascii_lower(p[i]);
            used = 1;
            continue;
        }
        used = utf8_next(span_of(p + i, n - i), &code);
        code = lower(code);
        if (used == 2) {
            p[i] = (char)(0xc0 | code >> 6);
            p[i + 1] = (char)(0x80 | (code & 0x3f));
        } else if (used == 3) {
            p[i] = (char)(0xe0 | code >> 12);
            p[i + 1] = (char)(0x80 | (code >> 6 & 0x3f));
            p[i + 2] = (char)(0x80 | (code & 0x3f));
        } else if (used == 0) {
            used = 1;
        }
    }
}

#include "proxy/smtp/line.h"

#include <string.h>

enum smtp_line_status
smtp_line_next(struct span in, size_t limit, struct span *line, size_t *used)
{
    size_t seen = in.n < limit ? in.n : limit, n;
    const char *lf = seen > 0 ? memchr(in.p, '\n', seen) : NULL;
    const char *cr;

    *used = 0;
    n = lf != NULL ? (size_t)(lf - in.p) : seen;
    if (n > 0 && memchr(in.p, '\0', n) != NULL)
        return SMTP_LINE_BARE;
    cr = n > 0 ? memchr(in.p, '\r', n) : NULL;
    if (cr != NULL && cr != in.p + n - 1)
        return SMTP_LINE_BARE;
    if (lf != NULL) {
        if (cr == NULL)
            return SMTP_LINE_BARE;
        *line = span_of(in.p, n - 1);
        *used = n + 1;
        return SMTP_LINE_OK;
    }
    return seen == limit ? SMTP_LINE_TOO_LONG : SMTP_LINE_MORE;
}

bool
smtp_line_skip(struct span in, size_t *used)
{
    size_t i = 0;
    const char *lf;

    while (i < in.n && (lf = memchr(in.p + i, '\n', in.n - i)) != NULL) {
        i = (size_t)(lf - in.p) + 1;
        if (i >= 2 && in.p[i - 2] == '\r') {
            *used = i;
            return true;
        }
    }
    *used = in.n > 0 && in.p[in.n - 1] == '\r' ? in.n - 1 : in.n;
    return false;
}

#include "proxy/ops/http_request.h"

#include <string.h>

/* Take a line off *REST, without its CRLF or LF (RFC 9112 2.2 lets a server take either); false if
 * its end is not there. */
static bool
next_line(struct span *rest, struct span *line)
{
    const char *end = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;
    if (!end)
        return false;
    size_t n = (size_t)(end - rest->p);
    *line = span_of(rest->p, n && end[-1] == '\r' ? n - 1 : n);
    *rest = span_of(end + 1, rest->n - n - 1);
    return true;
}

static bool
has_control(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return true;
    }
    return false;
}

/* The path and query of an absolute http:// URI (RFC 9112 3.2.2); without a path it is "/". */
static struct span
without_authority(struct span uri)
{
    for (size_t i = strlen("http://"); i < uri.n && uri.p[i] != '?'; i++) {
        if (uri.p[i] == '/')
            return span_of(uri.p + i, uri.n - i);
    }
    return span_str("/");
}

/* 0, or the status that refuses the line. */
static int
parse_first(struct span line, struct http_request *r, bool *needs_host)
{
    struct span method, target, version, more, rest = line;
    if (has_control(line) || !span_next(&rest, ' ', &method) || !span_next(&rest, ' ', &target) ||
        !span_next(&rest, ' ', &version) || span_next(&rest, ' ', &more) || !method.n)
        return 400;
    if (version.n != 8 || memcmp(version.p, "HTTP/", 5) != 0)
        return 400;
    if (memcmp(version.p, "HTTP/1.", 7) != 0)
        return 505;
    *needs_host = version.p[7] != '0';
    r->is_head = span_is(method, "HEAD");
    if (!r->is_head && !span_is(method, "GET"))
        return 405;
    if (span_starts_nocase(target, "http://"))
        target = without_authority(target);
    span_next(&target, '?', &r->path);
    return r->path.n && r->path.p[0] == '/' ? 0 : 400;
}

int
http_request_parse(struct span in, struct http_request *r)
{
    struct span rest = span_of(in.p, in.n > HTTP_HEAD_MAX ? HTTP_HEAD_MAX : in.n);
    int more = in.n >= HTTP_HEAD_MAX ? 431 : 0;
    struct span line;
    do {
        if (!next_line(&rest, &line))
            return more;
    } while (!line.n);
    bool needs_host = false;
    int status = parse_first(line, r, &needs_host);
    if (status)
        return status;
    unsigned hosts = 0;
    for (;;) {
        if (!next_line(&rest, &line))
            return more;
        if (!line.n)
            return hosts == 1 || (hosts == 0 && !needs_host) ? 200 : 400;
        struct span name, value = line;
        if (has_control(line) || line.p[0] == ' ' || line.p[0] == '\t' ||
            !memchr(line.p, ':', line.n) || !span_next(&value, ':', &name) || !name.n ||
            name.p[name.n - 1] == ' ' || name.p[name.n - 1] == '\t')
            return 400;
        hosts += span_is_nocase(name, "host");
    }
}

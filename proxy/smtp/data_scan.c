#include "proxy/smtp/data_scan.h"

#include <string.h>

enum state {
    LINE_START,
    IN_LINE,
    AFTER_CR,    /* in a line; a CR was dropped, and is to be made good */
    AFTER_DOT,   /* a '.' at the start of a line was dropped */
    AFTER_DOT_CR /* as AFTER_DOT, and a CR behind it */
};

/* Lines are looked for this far ahead at a time, so that a run of bare CRs before a distant LF, or
 * the other way round, is not searched again for each of them. */
#define WINDOW 512

static struct data_piece
piece(struct data_scan *scan, enum state next, enum data_piece_kind kind, size_t n)
{
    scan->state = (unsigned char)next;
    return (struct data_piece){.kind = kind, .n = n};
}

static struct data_piece
line_end(struct data_scan *scan, enum state next, size_t n)
{
    scan->state = (unsigned char)next;
    return (struct data_piece){
        .kind = DATA_PIECE_TEXT, .is_bare = next == IN_LINE, .n = n, .text = span_str("\r\n")};
}

/* A first octet that needs a piece of its own, where STATE is LINE_START or IN_LINE. */
static struct data_piece
special(struct data_scan *scan, struct span in)
{
    if (in.p[0] == '.')
        return piece(scan, AFTER_DOT, DATA_PIECE_DROP, 1);
    if (in.p[0] == '\r' && in.n == 1)
        return piece(scan, AFTER_CR, DATA_PIECE_DROP, 1);
    return line_end(scan, IN_LINE, 1);
}

/* The octets from the start of IN on that are content as they are; *STATE is what they lead to. */
static size_t
clean_run(struct span in, enum state *state)
{
    size_t i = 0;

    while (i < in.n && !(*state == LINE_START && in.p[i] == '.')) {
        size_t n = in.n - i < WINDOW ? in.n - i : WINDOW;
        const char *lf = memchr(in.p + i, '\n', n);
        const char *cr;

        if (lf != NULL)
            n = (size_t)(lf - in.p) - i;
        cr = n > 0 ? memchr(in.p + i, '\r', n) : NULL;
        if (cr != NULL)
            n = (size_t)(cr - in.p) - i;
        i += n;
        if (n > 0)
            *state = IN_LINE;
        if (cr != NULL && i + 1 < in.n && in.p[i + 1] == '\n') {
            i += 2;
            *state = LINE_START;
        } else if (cr != NULL || lf != NULL) {
            break;
        }
    }
    return i;
}

struct data_piece
data_scan_next(struct data_scan *scan, struct span in)
{
    enum state state = (enum state)scan->state;
    size_t n;

    if (in.n == 0)
        return piece(scan, state, DATA_PIECE_MORE, 0);
    switch (state) {
    case AFTER_CR:
        return in.p[0] == '\n' ? line_end(scan, LINE_START, 1) : line_end(scan, IN_LINE, 0);
    case AFTER_DOT_CR:
        return in.p[0] == '\n' ? piece(scan, LINE_START, DATA_PIECE_END, 1)
                               : line_end(scan, IN_LINE, 0);
    case AFTER_DOT:
        if (in.p[0] == '\r' && in.n == 1)
            return piece(scan, AFTER_DOT_CR, DATA_PIECE_DROP, 1);
        if (in.p[0] == '\r' && in.p[1] == '\n')
            return piece(scan, LINE_START, DATA_PIECE_END, 2);
        state = IN_LINE;
        break;
    case LINE_START:
    case IN_LINE:
        break;
    }
    n = clean_run(in, &state);
    scan->state = (unsigned char)state;
    return n > 0 ? piece(scan, state, DATA_PIECE_KEEP, n) : special(scan, in);
}

size_t
dot_stuff_next(struct dot_stuff *stuff, struct span in, bool *need_dot)
{
    size_t i = 0;

    *need_dot = false;
    while (i < in.n) {
        const char *lf;

        if (!stuff->in_line && in.p[i] == '.') {
            stuff->in_line = true; /* for the call that sends it */
            *need_dot = true;
            return i;
        }
        lf = memchr(in.p + i, '\n', in.n - i);
        stuff->in_line = lf == NULL;
        i = lf != NULL ? (size_t)(lf - in.p) + 1 : in.n;
    }
    return i;
}

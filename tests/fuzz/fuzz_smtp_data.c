#include <stdint.h>
#include <stdlib.h>

#include "tests/fuzz/require.h"
#include "tests/smtp_reference.h"

/* The content of a DATA in pieces: each piece's length stands in an octet before it.  The scan must
 * make of them what the reference makes of the whole; and the content, stuffed again, must be one
 * message with that content. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *
new_buffer(size_t n)
{
    char *p = malloc(n > 0 ? n : 1);

    require(p != NULL);
    return p;
}

/* Scan one piece, in memory of its own. */
static void
scan_piece(struct data_scan *scan, struct span in, struct data_result *r)
{
    char *copy = new_buffer(in.n);
    size_t i = 0;
    enum data_piece_kind kind = DATA_PIECE_KEEP;

    memcpy(copy, in.p, in.n);
    while (kind != DATA_PIECE_MORE && kind != DATA_PIECE_END) {
        struct data_piece piece = data_scan_next(scan, span_of(copy + i, in.n - i));

        kind = piece.kind;
        require(piece.n <= in.n - i && (piece.n > 0 || kind == DATA_PIECE_TEXT || i == in.n));
        require(kind != DATA_PIECE_MORE || i == in.n);
        if (kind == DATA_PIECE_KEEP)
            data_result_add(r, span_of(copy + i, piece.n));
        else if (kind == DATA_PIECE_TEXT)
            data_result_add(r, piece.text);
        r->bare += piece.is_bare;
        i += piece.n;
    }
    r->used += i;
    r->is_ended = kind == DATA_PIECE_END;
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    struct data_result pieces = {.content = new_buffer(2 * size)};
    struct data_result whole = {.content = new_buffer(2 * size)};
    struct data_result again = {.content = new_buffer(4 * size + 5)};
    char *in = new_buffer(size), *out = new_buffer(4 * size + 5);
    struct data_scan scan = {0};
    size_t n = 0;

    for (size_t i = 0; i < size && !pieces.is_ended;) {
        size_t length = (unsigned char)p[i++];

        if (length > size - i)
            length = size - i;
        scan_piece(&scan, span_of(p + i, length), &pieces);
        memcpy(in + n, p + i, length);
        n += length;
        i += length;
    }
    data_reference(span_of(in, n), &whole);
    require(data_result_equal(&pieces, &whole));

    n = data_stuff(span_of(whole.content, whole.n), size % 7 + 1, out);
    scan = (struct data_scan){0};
    scan_piece(&scan, span_of(out, n), &again);
    require(again.is_ended && again.used == n && again.bare == 0);
    require(again.n >= whole.n && again.n <= whole.n + 2);
    require(memcmp(again.content, whole.content, whole.n) == 0);
    free(pieces.content);
    free(whole.content);
    free(again.content);
    free(in);
    free(out);
    return 0;
}

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/ops/http_request.h"
#include "tests/fuzz/require.h"

/* A head that comes in pieces gets the answer of the whole: none before its time, and then one. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_request whole = {0};
    const char *text = (const char *)data;
    int status = http_request_parse(span_of(text, size), &whole);
    require(status == 0 || status == 200 || status == 400 || status == 405 || status == 431 ||
            status == 505);
    require(status != 0 || size < HTTP_HEAD_MAX);
    if (status == 200) {
        require(whole.path.n > 0 && whole.path.p[0] == '/');
        require(span_is(whole.path, "/") ||
                (whole.path.p >= text && whole.path.p + whole.path.n <= text + size));
        require(!memchr(whole.path.p, '?', whole.path.n));
    }
    for (size_t n = 0; n < size && size < 512; n++) {
        struct http_request part = {0};
        int early = http_request_parse(span_of(text, n), &part);
        if (early == 0)
            continue;
        require(early == status);
        require(status != 200 || span_equal(part.path, whole.path));
        break;
    }
    return 0;
}

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/session/proxy_header.h"
#include "tests/fuzz/require.h"

/* A PROXY header, whole and octet by octet: the same verdict, at the same octet, and never more
 * used than is there. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum proxy_header_status
parse_copy(const uint8_t *data, size_t n, struct proxy_header *header, size_t *used)
{
    char *copy = malloc(n > 0 ? n : 1); /* in memory of its own: what is read beyond it shows */

    require(copy != NULL);
    if (n > 0)
        memcpy(copy, data, n);
    enum proxy_header_status status = proxy_header_parse(span_of(copy, n), header, used);
    free(copy);
    return status;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header whole, grown;
    size_t used = 0, grown_used = 0;
    enum proxy_header_status status = parse_copy(data, size, &whole, &used);
    enum proxy_header_status piecewise = PROXY_HEADER_MORE;

    require(status != PROXY_HEADER_OK || (used > 0 && used <= size));
    if (status == PROXY_HEADER_OK && whole.is_told)
        require(whole.client.family == 4 || whole.client.family == 6);
    for (size_t n = 0; n <= size && piecewise == PROXY_HEADER_MORE; n++) {
        piecewise = parse_copy(data, n, &grown, &grown_used);
        require(piecewise != PROXY_HEADER_OK || grown_used == n);
    }
    require(piecewise == status);
    if (status == PROXY_HEADER_OK)
        require(grown_used == used && grown.is_told == whole.is_told && grown.port == whole.port &&
                netaddr_equal(&grown.client, &whole.client));
    return 0;
}

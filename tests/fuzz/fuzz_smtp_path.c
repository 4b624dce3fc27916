#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/smtp/address.h"
#include "tests/fuzz/require.h"

/* The first octet says what is allowed; the rest is a path. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Nothing in TEXT can end a path, a line, or a C string. */
static void
require_contained(const char *text, size_t n)
{
    bool is_quoted = false;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        require(c >= ' ' && c != 0x7f);
        if (is_quoted && c == '\\')
            i++;
        else if (c == '"')
            is_quoted = !is_quoted;
        else if (!is_quoted)
            require(c != ' ' && c != '<' && c != '>' && c != '\\' && c != '(' && c != ')');
    }
    require(!is_quoted && text[n] == '\0' && strlen(text) == n);
}

static void
check_canonical(const struct smtp_path *path)
{
    char canonical[SMTP_ADDRESS_MAX + 1], again[SMTP_ADDRESS_MAX + 1];
    size_t at, again_at, n = smtp_path_canonical(path, canonical, &at);

    require(n <= SMTP_ADDRESS_MAX && strlen(canonical) == n);
    if (n == 0) {
        require(path->is_null || path->is_utf8);
        return;
    }
    require_contained(canonical, n);
    require(path->is_postmaster ? at == n : canonical[at] == '@');
    for (size_t i = at; i < n; i++)
        require((unsigned char)canonical[i] < 0x80 && ascii_lower(canonical[i]) == canonical[i]);
    if (path->is_postmaster)
        return;
    require(smtp_address_canonical(span_of(canonical, n), again, &again_at) == n);
    require(strcmp(again, canonical) == 0 && again_at == at);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct smtp_path path, again;
    char text[SMTP_ADDRESS_MAX + 3];
    size_t used, n = 0;
    bool utf8;

    if (size == 0)
        return 0;
    utf8 = (data[0] & 4) != 0;
    if (!smtp_path_parse(span_of((const char *)data + 1, size - 1), (data[0] & 1) != 0,
                         (data[0] & 2) != 0, utf8, &path, &used))
        return 0;
    require(used >= 2 && used <= size - 1 && data[1] == '<' && data[used] == '>');
    require(path.n <= SMTP_ADDRESS_MAX && path.at <= path.n);
    require(utf8 || !path.is_utf8);
    require(path.is_null == (path.n == 0));
    require_contained(path.text, path.n);
    require(path.is_null || path.is_postmaster || (path.at > 0 && path.text[path.at] == '@'));
    check_canonical(&path);

    /* As it is sent on, it is the same path. */
    text[n++] = '<';
    memcpy(text + n, path.text, path.n);
    n += path.n;
    text[n++] = '>';
    require(smtp_path_parse(span_of(text, n), (data[0] & 1) != 0, path.is_postmaster, utf8, &again,
                            &used));
    require(used == n && again.n == path.n && again.at == path.at);
    require(strcmp(again.text, path.text) == 0);
    return 0;
}

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/smtp/capability.h"
#include "proxy/smtp/reply.h"
#include "tests/fuzz/require.h"

/* What a downstream sends; the first octet says in steps of how many octets it comes. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require_shown(const char *text)
{
    for (; *text != '\0'; text++)
        require(*text == '\n' || ((unsigned char)*text >= ' ' && *text != 0x7f));
}

/* What the client is told is a reply of the same code, and gives nothing away. */
static void
check_clean(struct smtp_reply r)
{
    char out[4 * SMTP_REPLY_TEXT * 5];
    struct smtp_reply_reader reader = {0};
    struct smtp_reply cleaned = r, again;
    size_t n, used;

    smtp_reply_clean(&cleaned);
    require(cleaned.text[0] != '\0' && strchr(cleaned.text, '@') == NULL);
    require(cleaned.code == r.code && strcmp(cleaned.enhanced, r.enhanced) == 0);
    require_shown(cleaned.text);
    again = cleaned;
    smtp_reply_clean(&again);
    require(strcmp(again.text, cleaned.text) == 0);

    n = smtp_reply_write(&cleaned, out, sizeof out);
    require(smtp_reply_read(&reader, span_of(out, n), &used) == SMTP_REPLY_DONE && used == n);
    require(reader.reply.code == r.code);
    n = smtp_reply_write(&cleaned, out, SMTP_REPLY_LINE);
    require(n > 0 && n <= SMTP_REPLY_LINE);
    require(smtp_reply_read(&reader, span_of(out, n), &used) == SMTP_REPLY_DONE && used == n);
    n = smtp_reply_format(SMTP_REPLY_USER_UNKNOWN, r.text, out);
    require(n < SMTP_REPLY_LINE && strlen(out) == n);
    require(strcspn(out, "\r\n") == n - 2);
}

static enum smtp_reply_status
read_steps(struct smtp_reply_reader *reader, struct span in, size_t step, size_t *used)
{
    enum smtp_reply_status status = SMTP_REPLY_MORE;
    size_t end = 0, n;

    *used = 0;
    while (status == SMTP_REPLY_MORE && end < in.n) {
        end = in.n - end < step ? in.n : end + step;
        status = smtp_reply_read(reader, span_of(in.p + *used, end - *used), &n);
        require(n <= end - *used);
        *used += n;
    }
    return status;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct smtp_reply_reader whole, stepped;
    struct smtp_capabilities caps;
    struct span in;
    enum smtp_reply_status status = SMTP_REPLY_DONE;

    if (size == 0)
        return 0;
    in = span_of((const char *)data + 1, size - 1);
    memset(&whole, 0, sizeof whole);
    memset(&stepped, 0, sizeof stepped);
    while (in.n > 0 && status == SMTP_REPLY_DONE) {
        size_t used, stepped_used;

        status = smtp_reply_read(&whole, in, &used);
        require(read_steps(&stepped, in, data[0] % 64 + 1u, &stepped_used) == status);
        if (status != SMTP_REPLY_DONE)
            break;
        require(used > 0 && used == stepped_used);
        require(whole.reply.code >= 200 && whole.reply.code <= 599);
        require(whole.reply.code == stepped.reply.code);
        require(strcmp(whole.reply.text, stepped.reply.text) == 0);
        require(strcmp(whole.reply.enhanced, stepped.reply.enhanced) == 0);
        require(span_equal(smtp_reply_reader_text(&whole), smtp_reply_reader_text(&stepped)));
        require(whole.reply.enhanced[0] == '\0' ||
                whole.reply.enhanced[0] == '0' + whole.reply.code / 100);
        require_shown(whole.reply.text);
        smtp_capabilities_parse(smtp_reply_reader_text(&whole), &caps);
        require(caps.bits >> SMTP_CAP_COUNT == 0 && caps.xclient >> SMTP_XCLIENT_COUNT == 0);
        check_clean(whole.reply);
        in = span_of(in.p + used, in.n - used);
    }
    return 0;
}

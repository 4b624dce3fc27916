#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/smtp/command.h"
#include "proxy/smtp/line.h"
#include "tests/fuzz/require.h"

/* What a client sends.  The first octet says in steps of how many octets it comes, the second what
 * we offered. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LIMIT 100

static void
require_inside(struct span part, struct span whole)
{
    require(part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n));
}

static void
run(struct span line)
{
    struct smtp_command command = smtp_command_parse(line);
    struct smtp_xclient_args args;
    struct smtp_bdat bdat;

    require(memchr(line.p, '\r', line.n) == NULL && memchr(line.p, '\n', line.n) == NULL);
    require(memchr(line.p, '\0', line.n) == NULL);
    require_inside(command.text, line);
    require_inside(command.argument, line);
    require(command.verb < SMTP_VERB_COUNT);
    (void)smtp_helo_valid(command.argument);
    if (smtp_bdat_parse(command.argument, &bdat) == SMTP_SYNTAX_OK)
        require(bdat.size <= INT64_MAX);
    if (smtp_xclient_parse(command.argument, &args) == SMTP_SYNTAX_OK)
        for (size_t i = 0; i < SMTP_XCLIENT_COUNT; i++)
            for (const char *c = args.value[i]; *c != '\0'; c++)
                require((unsigned char)*c >= ' ' && *c != 0x7f);
}

static void
run_mail_and_rcpt(struct span line, uint32_t offered)
{
    struct span argument = smtp_command_parse(line).argument;
    bool is_smtputf8 = (offered & SMTP_CAP_BIT(SMTPUTF8)) != 0;
    struct smtp_mail mail;
    struct smtp_rcpt rcpt;

    if (smtp_mail_parse(argument, offered, &mail) == SMTP_SYNTAX_OK) {
        require(!mail.path.is_utf8 || mail.is_smtputf8);
        require(!mail.is_smtputf8 || is_smtputf8);
        require(!mail.path.is_postmaster && mail.envid.n <= 100);
        require(!mail.has_size || (offered & SMTP_CAP_BIT(SIZE)) != 0);
        require_inside(mail.envid, argument);
        require(mail.envid.n == 0 || memchr(mail.envid.p, ' ', mail.envid.n) == NULL);
    }
    if (smtp_rcpt_parse(argument, offered, is_smtputf8, &rcpt) == SMTP_SYNTAX_OK) {
        require(!rcpt.path.is_null && (is_smtputf8 || !rcpt.path.is_utf8));
        require(rcpt.orcpt.n <= 500 && rcpt.notify < 16);
        require((rcpt.notify & SMTP_NOTIFY_NEVER) == 0 || rcpt.notify == SMTP_NOTIFY_NEVER);
        require_inside(rcpt.orcpt, argument);
        require(rcpt.orcpt.n == 0 || memchr(rcpt.orcpt.p, ' ', rcpt.orcpt.n) == NULL);
    }
}

/* Skip an over-long line as it comes; the octets used, with *FOUND. */
static size_t
skip(struct span in, size_t step, bool *found)
{
    size_t used = 0, end = 0, n;

    *found = false;
    while (!*found && end < in.n) {
        end = in.n - end < step ? in.n : end + step;
        *found = smtp_line_skip(span_of(in.p + used, end - used), &n);
        require(n <= end - used);
        used += n;
    }
    return used;
}

/* The next line as it comes, which must be what it is in the whole. */
static enum smtp_line_status
next(struct span in, size_t step, struct span *line, size_t *used)
{
    enum smtp_line_status whole = smtp_line_next(in, LIMIT, line, used), status = SMTP_LINE_MORE;
    struct span stepped = {0};
    size_t end = 0, n = 0;

    while (status == SMTP_LINE_MORE && end < in.n) {
        end = in.n - end < step ? in.n : end + step;
        status = smtp_line_next(span_of(in.p, end), LIMIT, &stepped, &n);
    }
    require(status == whole && n == *used);
    require(whole != SMTP_LINE_OK || (stepped.p == line->p && stepped.n == line->n));
    return whole;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in, line;
    enum smtp_line_status status = SMTP_LINE_OK;
    size_t step, used = 0, all;

    if (size < 2)
        return 0;
    step = data[0] % 32 + 1u;
    in = span_of((const char *)data + 2, size - 2);
    while (status == SMTP_LINE_OK || status == SMTP_LINE_TOO_LONG) {
        status = next(in, step, &line, &used);
        if (status == SMTP_LINE_OK) {
            run(line);
            run_mail_and_rcpt(line, data[1] * 8u);
        } else if (status == SMTP_LINE_TOO_LONG) {
            bool found, all_found = smtp_line_skip(in, &all);
            used = skip(in, step, &found);
            require(found == all_found && used == all);
            require(!found || (used >= 2 && memcmp(in.p + used - 2, "\r\n", 2) == 0));
            if (!found)
                break;
        }
        in = span_of(in.p + used, in.n - used);
    }
    return 0;
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/smtp/reply.h"

static const char *const texts[] = {
    [SMTP_REPLY_NONE] = "",
#define SMTP_REPLY(id, code, enhanced, text) [SMTP_REPLY_##id] = text,
#include "proxy/smtp/reply.def"
#undef SMTP_REPLY
};

/* Every reply is a legal line (RFC 5321 4.2, RFC 2034 4): three digits, a blank, an enhanced code
 * of the same class or none, a text without control characters, within the 512 octets of a reply.
 */
static void
test_table(void **state)
{
    (void)state;
    for (int i = SMTP_REPLY_NONE + 1; i < SMTP_REPLY_COUNT; i++) {
        enum smtp_reply_id id = (enum smtp_reply_id)i;
        uint16_t code = smtp_reply_code(id);
        const char *enhanced = smtp_reply_enhanced(id), *mark = strchr(texts[i], '%');
        char line[SMTP_REPLY_LINE];
        struct smtp_reply_reader reader = {0};
        struct smtp_reply made = smtp_reply_make(id, "a@b");
        size_t n = smtp_reply_format(id, "a@b", line), used;

        assert_in_range(code, 200, 599);
        if (mark != NULL) {
            assert_int_equal(mark[1], 's');
            assert_null(strchr(mark + 1, '%'));
        }
        /* it is read as what it was written from */
        assert_int_equal(smtp_reply_read(&reader, span_of(line, n), &used), SMTP_REPLY_DONE);
        assert_int_equal(used, n);
        assert_int_equal(reader.reply.code, code);
        assert_string_equal(reader.reply.enhanced, enhanced);
        assert_string_equal(reader.reply.text, made.text);
        assert_true(made.text[0] != '\0');
        assert_int_equal(made.code, code);
        assert_string_equal(made.enhanced, enhanced);
        assert_true(n <= 512);
        assert_string_equal(line + n - 2, "\r\n");
        /* an enhanced code has the code's class; only 3xx, the greeting and HELO have none */
        if (enhanced[0] == '\0')
            assert_true(code == 354 || id == SMTP_REPLY_GREETING || id == SMTP_REPLY_HELO_OK);
        else
            assert_int_equal(enhanced[0], '0' + code / 100);
    }
    assert_int_equal(smtp_reply_code(SMTP_REPLY_NONE), 0);
}

static void
test_format(void **state)
{
    static const struct {
        enum smtp_reply_id id;
        const char *argument, *line;
    } rows[] = {
        {SMTP_REPLY_GREETING, "mx1.example.com", "220 mx1.example.com ESMTP Postern\r\n"},
        {SMTP_REPLY_USER_UNKNOWN, "a@b",
         "550 5.1.1 <a@b>: Recipient address rejected: User unknown\r\n"},
        {SMTP_REPLY_RELAY_DENIED, "a@b", "550 5.7.1 <a@b>: Relay access denied\r\n"},
        {SMTP_REPLY_ACCESS_DENIED, "a@b",
         "550 5.7.1 <a@b>: Recipient address rejected: Access denied\r\n"},
        {SMTP_REPLY_DELIVERED, "0123456789abcdef.1", "250 2.6.0 Queued as 0123456789abcdef.1\r\n"},
        {SMTP_REPLY_START_DATA, NULL, "354 End data with <CR><LF>.<CR><LF>\r\n"},
        {SMTP_REPLY_BYE, "ignored", "221 2.0.0 Bye\r\n"},
        {SMTP_REPLY_USER_UNKNOWN, NULL,
         "550 5.1.1 <>: Recipient address rejected: User unknown\r\n"},
        {SMTP_REPLY_HELO_OK, "a\r\nb\tc\x7f\x80\xff\xc2\x85", "250 a??b?c?????\r\n"},
        {SMTP_REPLY_HELO_OK, "j\xc3\xb6rg%s", "250 j\xc3\xb6rg%s\r\n"},
    };
    char line[SMTP_REPLY_LINE];
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = smtp_reply_format(rows[i].id, rows[i].argument, line);
        assert_string_equal(line, rows[i].line);
        assert_int_equal(n, strlen(line));
    }
}

/* The argument gives way, between two characters; what stands around it stays. */
static void
test_format_cuts(void **state)
{
    static const char tail[] = ">: Relay access denied\r\n";
    char line[SMTP_REPLY_LINE], argument[3000];
    (void)state;

    for (size_t i = 0; i < sizeof argument - 2; i += 2)
        memcpy(argument + i, "\xc3\xb6", 3);
    for (unsigned shift = 0; shift < 2; shift++) {
        struct smtp_reply r;
        size_t n;

        argument[0] = 'a';
        n = smtp_reply_format(SMTP_REPLY_RELAY_DENIED, argument + 2 - shift, line);
        assert_in_range(n, sizeof line - 2, sizeof line - 1);
        assert_int_equal(n, strlen(line));
        assert_string_equal(line + n - strlen(tail), tail);
        assert_memory_equal(line + n - strlen(tail) - 2, "\xc3\xb6", 2);

        r = smtp_reply_make(SMTP_REPLY_RELAY_DENIED, argument + 2 - shift);
        n = strlen(r.text);
        assert_in_range(n, sizeof r.text - 2, sizeof r.text - 1);
        assert_memory_equal(r.text + n - strlen(tail) + 2, tail, strlen(tail) - 2);
        assert_memory_equal(r.text + n - strlen(tail), "\xc3\xb6", 2);
    }
    /* the longest address fits whole */
    memset(argument, 'a', 571);
    argument[571] = '\0';
    (void)smtp_reply_format(SMTP_REPLY_CLIENT_LISTED, argument, line);
    assert_non_null(strstr(line, argument));
}

static void
test_write(void **state)
{
    static const struct {
        struct smtp_reply r;
        const char *out;
    } rows[] = {
        {{250, "2.0.0", "Ok"}, "250 2.0.0 Ok\r\n"},
        {{250, "", "Ok"}, "250 Ok\r\n"},
        {{250, "", ""}, "250 \r\n"},
        {{250, "2.0.0", ""}, "250 2.0.0\r\n"},
        {{550, "5.7.1", "one\ntwo\nthree"},
         "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n"},
        {{250, "", "host\n\nSIZE"}, "250-host\r\n250-\r\n250 SIZE\r\n"},
    };
    struct smtp_reply many = {550, "5.7.1", ""};
    char out[SMTP_REPLY_LINE];
    size_t n;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        n = smtp_reply_write(&rows[i].r, out, sizeof out);
        assert_true(span_is(span_of(out, n), rows[i].out));
    }
    /* what does not fit is left out, line by line, and the reply still ends */
    for (size_t capacity = 0; capacity < 60; capacity++) {
        struct span written;
        struct smtp_reply_reader reader = {0};
        size_t used;

        n = smtp_reply_write(&rows[4].r, out, capacity);
        assert_true(n <= capacity);
        assert_int_equal(n, capacity < 15 ? 0 : capacity < 30 ? 15 : capacity < 47 ? 30 : 47);
        written = span_of(out, n);
        assert_int_equal(smtp_reply_read(&reader, written, &used),
                         n == 0 ? SMTP_REPLY_MORE : SMTP_REPLY_DONE);
        assert_int_equal(used, n);
    }
    memset(many.text, '\n', sizeof many.text - 1);
    n = smtp_reply_write(&many, out, sizeof out);
    assert_int_equal(n, sizeof out / 11 * 11);
    memset(many.text, 'x', sizeof many.text - 1);
    n = smtp_reply_write(&many, out, sizeof out);
    assert_int_equal(n, 4 + 6 + 511 + 2);
}

#define S(text) (text), sizeof(text) - 1

static const struct {
    const char *in;
    size_t n;
    enum smtp_reply_status status;
    size_t used; /* of DONE */
    uint16_t code;
    const char *enhanced, *text;
} readings[] = {
    {S("250 Ok\r\n"), SMTP_REPLY_DONE, 8, 250, "", "Ok"},
    {S("250 Ok\n"), SMTP_REPLY_DONE, 7, 250, "", "Ok"},
    {S("250\r\n"), SMTP_REPLY_DONE, 5, 250, "", ""},
    {S("250 \r\n"), SMTP_REPLY_DONE, 6, 250, "", ""},
    {S("250\n250 next\r\n"), SMTP_REPLY_DONE, 4, 250, "", ""},
    {S("550 5.1.1 User unknown\r\n"), SMTP_REPLY_DONE, 24, 550, "5.1.1", "User unknown"},
    {S("550 5.1.10 RESOLVER.ADR.RecipientNotFound; x\r\n"), SMTP_REPLY_DONE, 46, 550, "5.1.10",
     "RESOLVER.ADR.RecipientNotFound; x"},
    {S("550 5.999.999 x\r\n"), SMTP_REPLY_DONE, 17, 550, "5.999.999", "x"},
    {S("250 2.0.0\r\n"), SMTP_REPLY_DONE, 11, 250, "2.0.0", ""},
    {S("250-2.6.0 a\r\n250 2.6.0 b\r\n"), SMTP_REPLY_DONE, 26, 250, "2.6.0", "a\nb"},
    {S("250-a\r\n250-\r\n250-2.1.0 b\r\n250\r\n"), SMTP_REPLY_DONE, 31, 250, "2.1.0", "a\n\nb\n"},
    {S("250-a\r\n250 b\r\n250 c\r\n"), SMTP_REPLY_DONE, 14, 250, "", "a\nb"},
    /* no enhanced code: another class, too long, no end */
    {S("550 4.1.1 x\r\n"), SMTP_REPLY_DONE, 13, 550, "", "4.1.1 x"},
    {S("354 3.0.0 x\r\n"), SMTP_REPLY_DONE, 13, 354, "", "3.0.0 x"},
    {S("550 5.1.1x\r\n"), SMTP_REPLY_DONE, 12, 550, "", "5.1.1x"},
    {S("550 5.1\r\n"), SMTP_REPLY_DONE, 9, 550, "", "5.1"},
    {S("550 5.1.\r\n"), SMTP_REPLY_DONE, 10, 550, "", "5.1."},
    {S("550 5..1 x\r\n"), SMTP_REPLY_DONE, 12, 550, "", "5..1 x"},
    {S("550 5.1.1000 x\r\n"), SMTP_REPLY_DONE, 16, 550, "", "5.1.1000 x"},
    {S("550 5.1.1.1 x\r\n"), SMTP_REPLY_DONE, 15, 550, "", "5.1.1.1 x"},
    {S("550 55.1.1 x\r\n"), SMTP_REPLY_DONE, 14, 550, "", "55.1.1 x"},
    /* what is not printable */
    {S("250 a\tb\rc\x01\x7f\x80 \xc3\xb6\r\n"), SMTP_REPLY_DONE, 17, 250, "", "a?b?c??? \xc3\xb6"},
    /* more to come */
    {S(""), SMTP_REPLY_MORE, 0, 0, NULL, NULL},
    {S("250"), SMTP_REPLY_MORE, 0, 0, NULL, NULL},
    {S("250-a\r\n"), SMTP_REPLY_MORE, 0, 0, NULL, NULL},
    {S("250-a\r\n250 b\r"), SMTP_REPLY_MORE, 0, 0, NULL, NULL},
    /* not SMTP */
    {S("\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("25\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("2500 x\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("250x\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("250\tx\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S(" 250 x\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("199 x\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("600 x\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("2x0 x\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("250-a\r\n251 b\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("250-a\r\nb\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("250 a\0b\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
    {S("SSH-2.0-OpenSSH\r\n"), SMTP_REPLY_BAD, 0, 0, NULL, NULL},
};

/* Feed the octets before SPLIT, then the rest behind what was not used; or in steps of STEP. */
static enum smtp_reply_status
read_in_steps(struct smtp_reply_reader *reader, struct span in, size_t first, size_t step,
              size_t *used)
{
    size_t end = first < in.n ? first : in.n;

    *used = 0;
    for (;;) {
        size_t n = 99;
        enum smtp_reply_status status =
            smtp_reply_read(reader, span_of(in.p + *used, end - *used), &n);

        assert_true(n <= end - *used);
        *used += n;
        if (status != SMTP_REPLY_MORE || end == in.n)
            return status;
        end = in.n - end < step ? in.n : end + step;
    }
}

static void
test_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readings / sizeof readings[0]; i++)
        for (size_t split = 0; split <= readings[i].n; split++)
            for (size_t step = 1; step < 100; step += 98) {
                struct smtp_reply_reader reader = {0};
                size_t used;
                enum smtp_reply_status status = read_in_steps(
                    &reader, span_of(readings[i].in, readings[i].n), split, step, &used);

                if (status != readings[i].status)
                    fail_msg("reading %zu split at %zu: %d", i, split, status);
                if (status != SMTP_REPLY_DONE)
                    continue;
                assert_int_equal(used, readings[i].used);
                assert_int_equal(reader.reply.code, readings[i].code);
                assert_string_equal(reader.reply.enhanced, readings[i].enhanced);
                assert_string_equal(reader.reply.text, readings[i].text);
                assert_true(span_is(smtp_reply_reader_text(&reader), readings[i].text));
            }
}

/* One reader takes one reply after the other and mixes nothing. */
static void
test_read_next(void **state)
{
    static const char in[] = "250-2.1.0 a\r\n250 2.1.0 b\r\n550 c\r\n220 2.0.0\r\n";
    struct smtp_reply_reader reader = {0};
    size_t used, at = 0;
    (void)state;

    assert_int_equal(smtp_reply_read(&reader, span_str(in), &used), SMTP_REPLY_DONE);
    at += used;
    assert_int_equal(smtp_reply_read(&reader, span_str(in + at), &used), SMTP_REPLY_DONE);
    assert_int_equal(reader.reply.code, 550);
    assert_string_equal(reader.reply.enhanced, "");
    assert_string_equal(reader.reply.text, "c");
    at += used;
    assert_int_equal(smtp_reply_read(&reader, span_str(in + at), &used), SMTP_REPLY_DONE);
    assert_string_equal(reader.reply.enhanced, "2.0.0");
    assert_string_equal(reader.reply.text, "");
    assert_int_equal(at + used, sizeof in - 1);
    assert_int_equal(smtp_reply_read(&reader, span_of(NULL, 0), &used), SMTP_REPLY_MORE);
}

static void
test_read_limits(void **state)
{
    static char in[SMTP_REPLY_READ_LINES_MAX * 64 + SMTP_REPLY_READ_LINE_MAX];
    struct smtp_reply_reader reader = {0};
    size_t used, n = 0;
    struct span rest, line;
    unsigned lines = 0;
    (void)state;

    /* a line of 4096 octets, and one more */
    memset(in, 'x', sizeof in);
    memcpy(in, "250 ", 4);
    memcpy(in + SMTP_REPLY_READ_LINE_MAX - 2, "\r\n", 2);
    assert_int_equal(smtp_reply_read(&reader, span_of(in, SMTP_REPLY_READ_LINE_MAX - 1), &used),
                     SMTP_REPLY_MORE);
    assert_int_equal(smtp_reply_read(&reader, span_of(in, SMTP_REPLY_READ_LINE_MAX), &used),
                     SMTP_REPLY_DONE);
    assert_int_equal(strlen(reader.reply.text), SMTP_REPLY_TEXT - 1);
    assert_int_equal(smtp_reply_reader_text(&reader).n, SMTP_REPLY_READ_LINE_MAX - 6);
    memcpy(in + SMTP_REPLY_READ_LINE_MAX - 2, "xx\r\n", 4);
    assert_int_equal(smtp_reply_read(&reader, span_of(in, SMTP_REPLY_READ_LINE_MAX), &used),
                     SMTP_REPLY_BAD);

    /* 128 lines, and one more; what is kept of the text are whole lines */
    reader = (struct smtp_reply_reader){0};
    for (unsigned i = 0; i < SMTP_REPLY_READ_LINES_MAX; i++) {
        memset(in + n, 'y', 60);
        memcpy(in + n, "250-", 4);
        memcpy(in + n + 60, "\r\n", 2);
        n += 62;
    }
    in[n - 62 + 3] = ' ';
    assert_int_equal(smtp_reply_read(&reader, span_of(in, n), &used), SMTP_REPLY_DONE);
    assert_int_equal(used, n);
    rest = smtp_reply_reader_text(&reader);
    assert_in_range(rest.n, 2048, SMTP_REPLY_READ_TEXT);
    while (span_next(&rest, '\n', &line)) {
        assert_int_equal(line.n, 56);
        lines++;
    }
    assert_int_equal(lines, (SMTP_REPLY_READ_TEXT + 1) / 57);
    assert_int_equal(strlen(reader.reply.text), SMTP_REPLY_TEXT - 1);
    in[n - 62 + 3] = '-';
    memcpy(in + n, "250 z\r\n", 7);
    assert_int_equal(smtp_reply_read(&reader, span_of(in, n + 7), &used), SMTP_REPLY_BAD);

    /* a text is cut between two characters */
    reader = (struct smtp_reply_reader){0};
    memcpy(in, "250 x", 5);
    for (n = 5; n < 1000; n += 2)
        memcpy(in + n, "\xc3\xb6", 2);
    memcpy(in + n, "\r\n", 2);
    assert_int_equal(smtp_reply_read(&reader, span_of(in, n + 2), &used), SMTP_REPLY_DONE);
    assert_int_equal(strlen(reader.reply.text), 511);
    reader = (struct smtp_reply_reader){0};
    memcpy(in, "250 xy", 6);
    for (n = 6; n < 1000; n += 2)
        memcpy(in + n, "\xc3\xb6", 2);
    memcpy(in + n, "\r\n", 2);
    assert_int_equal(smtp_reply_read(&reader, span_of(in, n + 2), &used), SMTP_REPLY_DONE);
    assert_int_equal(strlen(reader.reply.text), 510);
}

static void
test_clean(void **state)
{
    static const struct {
        uint16_t code;
        const char *text, *clean;
    } rows[] = {
        /* what Exchange says: kept */
        {250, "Sender OK", "Sender OK"},
        {250, "Recipient OK", "Recipient OK"},
        {354, "Start mail input; end with <CRLF>.<CRLF>",
         "Start mail input; end with <CRLF>.<CRLF>"},
        {221, "Service closing transmission channel", "Service closing transmission channel"},
        {550, "User unknown", "User unknown"},
        {550, "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
         "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"},
        {550, "Recipient address rejected: Access denied",
         "Recipient address rejected: Access denied"},
        {550, "RESOLVER.RST.AuthRequired; authentication required",
         "RESOLVER.RST.AuthRequired; authentication required"},
        {550, "RESOLVER.RST.RecipSizeLimit; message too large for this recipient",
         "RESOLVER.RST.RecipSizeLimit; message too large for this recipient"},
        {530, "Client was not authenticated", "Client was not authenticated"},
        {500, "Unrecognized command", "Unrecognized command"},
        {501, "Invalid domain name", "Invalid domain name"},
        {421,
         "The maximum number of concurrent connections has exceeded a limit, closing transmission "
         "channel",
         "The maximum number of concurrent connections has exceeded a limit, closing transmission "
         "channel"},
        {421, "Service not active", "Service not active"},
        {452, "Insufficient system resources", "Insufficient system resources"},
        {451, "Temporary server error. Please try again later. PRX4",
         "Temporary server error. Please try again later. PRX4"},
        {550, "TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy",
         "TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy"},
        {554,
         "STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; "
         "Failed to process message due to a permanent exception",
         "STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; "
         "Failed to process message due to a permanent exception"},
        {554, "STOREDRV.Deliver: x", "STOREDRV.Deliver: x"},
        {452, "4.3.1 16.55847: version 15.1.2507", "4.3.1 16.55847: version 15.1.2507"},
        /* [name=...] */
        {250,
         "<abc@EX1.corp.example.com> [InternalId=123, Hostname=EX1.corp.example.com] Queued mail "
         "for delivery",
         "Queued mail for delivery"},
        {451,
         "Temporary server error. Please try again later. PRX2 [Hostname=EX1.corp.example.com]",
         "Temporary server error. Please try again later. PRX2"},
        {550, "a [LED=450 4.4.317 [Message=x] {FQDN=y}] b", "a b"},
        {550, "a [X-Y_1=] b", "a b"},
        {550, "a [x=not closed", "a"},
        {550, "a [x] [=y] [a b=c]", "a [x] [=y] [a b=c]"},
        /* host names */
        {220,
         "EX1.corp.example.com Microsoft ESMTP MAIL Service ready at Tue, 24 Nov 2026 16:24:50 "
         "+0000",
         "Microsoft ESMTP MAIL Service ready at Tue, 24 Nov 2026 16:24:50 +0000"},
        {550, "EX1.CORP.EXAMPLE.COM refused", "refused"},
        {550, "refused by EX01.Contoso.Local.", "refused by."},
        {550, "refused by host EX01.Contoso.Local, sorry", "refused by host, sorry"},
        {550, "host=ex1.corp.example.com; refused (ex2.example.com:25)", "host=; refused"},
        {550, "QUEUE.corp.example.com refused", "refused"},
        {550, "RESOLVER.ADR.Ambiguous:EX01.Contoso.Local; x", "RESOLVER.ADR.Ambiguous:; x"},
        {550, "Access denied [AM6EUR05FT054.eop-eur05.prod.protection.outlook.com]",
         "Access denied"},
        {550, "a_b.xn--p1ai -- refused", "-- refused"},
        {550, "e.g. this, i.e. 5.7.1 and 1.2", "e.g. this, i.e. 5.7.1 and 1.2"},
        {550, "see https://internal.example.com/why?x=(1) for more", "see (1) for more"},
        {550, "\xc3\xb6rtlich.example.com nein", "nein"},
        {550, "x[a=b].example.com refused ..example..com", "x. refused.."},
        {550, "1.RR\"\"\"\"\"\"2\"\".example refused", "refused"},
        /* addresses */
        {550, "<a.b@example.com>: no", "no"},
        {550, "<o'brien@example.com>: no", "no"},
        {550, "smtp:a@example.com no", "no"},
        {550, "[10.0.0.1] no", "no"},
        {550, "10.0.0.1: no", "no"},
        {550, "no from 10.0.0.1:25.", "no from."},
        {550, "no [IPv6:2001:db8::1], no ([2001:DB8::2])", "no, no"},
        {550, "peer=2001:db8::1; IP:10.1.2.3", "peer=; IP"},
        {550, "no 2001:db8::1.", "no."},
        {550, "at 16:24:50, line 7: dead beef", "at 16:24:50, line 7: dead beef"},
        /* lines, blanks */
        {550, "one  two\n[x=y]\nhost.example.com\n three ", "one two\nthree"},
        /* nothing is left */
        {250, "", "Ok"},
        {250, "[10.0.0.1]", "Ok"},
        {451, "host.example.com", "Temporary failure, try again later"},
        {550, "[x=y]\n<a@b.example>: 5", "Refused"},
        {550, "\n\n", "Refused"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct smtp_reply r = {.code = rows[i].code, .enhanced = "5.7.1"};

        assert_true(span_copy(r.text, sizeof r.text, span_str(rows[i].text)));
        smtp_reply_clean(&r);
        assert_string_equal(r.text, rows[i].clean);
        assert_int_equal(r.code, rows[i].code);
        assert_string_equal(r.enhanced, "5.7.1");
        smtp_reply_clean(&r);
        assert_string_equal(r.text, rows[i].clean);
    }
}

/* A text of every length up to the largest, of octets that grow nothing. */
static void
test_clean_lengths(void **state)
{
    static const char *const units[] = {"a",       "[", "]", "\n",  "a.bc ", "[x=", "@",
                                        "1.2.3.4", ":", " ", "a\n", "\"",    "()",  "RESOLVER.A:"};
    (void)state;

    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++)
        for (size_t length = 0; length < SMTP_REPLY_TEXT; length++) {
            struct smtp_reply r = {.code = 550};
            size_t n = strlen(units[u]);

            for (size_t i = 0; i < length; i++)
                r.text[i] = units[u][i % n];
            smtp_reply_clean(&r);
            assert_in_range(strlen(r.text), 1, length > 7 ? length : 7);
        }
}

/* What of a refusal reaches the client: never a 421, which would end its session, and never less
 * than 400. */
static void
test_passed_on(void **state)
{
    static const struct {
        struct smtp_reply said;
        uint16_t code;
        const char *enhanced, *text;
    } rows[] = {
        {{550, "5.1.1", "ex1.example.com: unknown"}, 550, "5.1.1", "unknown"},
        {{421, "4.3.2", "Service not active"}, 451, "4.3.2", "Service not active"},
        {{421, "", "bye"}, 451, "4.0.0", "bye"},
        {{550, "", "no"}, 550, "5.0.0", "no"},
        {{354, "", "go on"}, 451, "4.4.1", NULL},
        {{250, "2.1.0", "Ok"}, 451, "4.4.1", NULL},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct smtp_reply r = smtp_reply_passed_on(&rows[i].said);

        assert_int_equal(r.code, rows[i].code);
        assert_string_equal(r.enhanced, rows[i].enhanced);
        if (rows[i].text != NULL)
            assert_string_equal(r.text, rows[i].text);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),         cmocka_unit_test(test_format),
        cmocka_unit_test(test_format_cuts),   cmocka_unit_test(test_write),
        cmocka_unit_test(test_read),          cmocka_unit_test(test_read_next),
        cmocka_unit_test(test_read_limits),   cmocka_unit_test(test_clean),
        cmocka_unit_test(test_clean_lengths), cmocka_unit_test(test_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

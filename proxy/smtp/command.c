#include "proxy/smtp/command.h"

#include <string.h>

#include "base/utf8.h"
#include "proxy/smtp/ascii.h"

#define PH(phase) (1u << SMTP_PHASE_##phase)
#define PH_ANY    (PH(GREETED) | PH(READY) | PH(MAIL) | PH(RCPT) | PH(BDAT))

#define VF_NONE        0u
#define VF_PRE_TLS     1u
#define VF_ARGUMENT    2u
#define VF_NO_ARGUMENT 4u

static const struct {
    const char *text;
    size_t n;
    unsigned phases, flags;
} verbs[] = {
    [SMTP_VERB_UNKNOWN] = {"unknown", 0, 0, VF_NONE},
#define SMTP_VERB(id, text, phases, flags)                                                         \
    [SMTP_VERB_##id] = {text, sizeof text - 1, phases, flags},
#include "proxy/smtp/command.def"
#undef SMTP_VERB
};

#define SIZE_DIGITS 20  /* RFC 1870 4 */
#define ENVID_MAX   100 /* RFC 3461 4.4 */
#define ORCPT_MAX   500 /* RFC 3461 4.2 */
#define HELO_MAX    255

struct smtp_command
smtp_command_parse(struct span line)
{
    struct smtp_command command = {.verb = SMTP_VERB_UNKNOWN};
    size_t n = 0;

    while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t')
        n++;
    command.text = span_of(line.p, n);
    command.argument = span_trim(span_of(line.p + n, line.n - n));
    for (unsigned verb = SMTP_VERB_UNKNOWN + 1; verb < SMTP_VERB_COUNT; verb++) {
        if (!span_equal_nocase(command.text, span_of(verbs[verb].text, verbs[verb].n)))
            continue;
        command.verb = (enum smtp_verb)verb;
        break;
    }
    return command;
}

const char *
smtp_verb_text(enum smtp_verb verb)
{
    return verbs[verb].text;
}

bool
smtp_verb_legal(enum smtp_verb verb, enum smtp_phase phase)
{
    return (verbs[verb].phases & 1u << phase) != 0;
}

bool
smtp_verb_before_tls(enum smtp_verb verb)
{
    return (verbs[verb].flags & VF_PRE_TLS) != 0;
}

bool
smtp_verb_needs_argument(enum smtp_verb verb)
{
    return (verbs[verb].flags & VF_ARGUMENT) != 0;
}

bool
smtp_verb_takes_no_argument(enum smtp_verb verb)
{
    return (verbs[verb].flags & VF_NO_ARGUMENT) != 0;
}

/* "FROM:" or "TO:", blanks, a path; then a blank or the end.  *REST is what follows. */
static enum smtp_syntax
parse_path(struct span argument, const char *keyword, bool is_sender, struct smtp_path *path,
           struct span *rest)
{
    size_t n = strlen(keyword), used;

    if (!span_starts_nocase(argument, keyword))
        return SMTP_SYNTAX_ARGUMENT;
    *rest = span_trim(span_of(argument.p + n, argument.n - n));
    if (!smtp_path_parse(*rest, is_sender, !is_sender, true, path, &used))
        return SMTP_SYNTAX_ADDRESS;
    *rest = span_of(rest->p + used, rest->n - used);
    if (rest->n > 0 && rest->p[0] != ' ' && rest->p[0] != '\t')
        return SMTP_SYNTAX_ADDRESS;
    return SMTP_SYNTAX_OK;
}

/* RFC 5321 4.1.2, esmtp-param. */
struct parameter {
    struct span keyword;
    bool has_value;
    struct span value;
};

/* Take the next parameter of *REST; false when there is none. */
static bool
next_parameter(struct span *rest, struct parameter *p)
{
    const char *equals;
    size_t n = 0;

    *rest = span_trim(*rest);
    if (rest->n == 0)
        return false;
    while (n < rest->n && rest->p[n] != ' ' && rest->p[n] != '\t')
        n++;
    p->keyword = span_of(rest->p, n);
    *rest = span_of(rest->p + n, rest->n - n);
    equals = memchr(p->keyword.p, '=', n);
    p->has_value = equals != NULL;
    p->value = span_of(NULL, 0);
    if (equals != NULL) {
        size_t keyword_n = (size_t)(equals - p->keyword.p);
        p->value = span_of(equals + 1, n - keyword_n - 1);
        p->keyword.n = keyword_n;
    }
    return true;
}

/* Note in *SEEN that the parameter BIT is here; false if it was before, or its value is amiss. */
static bool
note(unsigned *seen, unsigned bit, const struct parameter *p, bool wants_value)
{
    bool is_new = (*seen & bit) == 0;

    *seen |= bit;
    return is_new && p->has_value == wants_value && (!wants_value || p->value.n > 0);
}

static int
hex_digit(char c)
{
    if (ascii_is_digit(c))
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode the next octet of the xtext IN (RFC 3461 4) from *I on; -1 if it is malformed. '=' may
 * stand unencoded: senders do so, and it does no harm. */
static int
xtext_next(struct span in, size_t *i)
{
    char c = in.p[(*i)++];
    int high, low;

    if (c != '+')
        return c > ' ' && c <= '~' ? c : -1;
    if (in.n - *i < 2)
        return -1;
    high = hex_digit(in.p[(*i)++]);
    low = hex_digit(in.p[(*i)++]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static bool
xtext_is_valid(struct span in)
{
    for (size_t i = 0; i < in.n;)
        if (xtext_next(in, &i) < 0)
            return false;
    return in.n > 0;
}

/* RFC 1870 4: up to 20 digits.  What no 64 bits hold is too large for anybody. */
static bool
parse_size(struct span value, uint64_t *size)
{
    if (span_u64(value, UINT64_MAX, size))
        return true;
    *size = UINT64_MAX;
    for (size_t i = 0; i < value.n; i++)
        if (!ascii_is_digit(value.p[i]))
            return false;
    return value.n <= SIZE_DIGITS;
}

static bool
parse_body(struct span value, uint32_t offered, enum smtp_body *body)
{
    if (span_is_nocase(value, "7BIT"))
        *body = SMTP_BODY_7BIT;
    else if (span_is_nocase(value, "8BITMIME"))
        *body = SMTP_BODY_8BITMIME;
    else if (span_is_nocase(value, "BINARYMIME") && (offered & SMTP_CAP_BIT(BINARYMIME)) != 0)
        *body = SMTP_BODY_BINARYMIME;
    else
        return false;
    return true;
}

static bool
parse_ret(struct span value, enum smtp_ret *ret)
{
    *ret = span_is_nocase(value, "FULL")   ? SMTP_RET_FULL
           : span_is_nocase(value, "HDRS") ? SMTP_RET_HDRS
                                           : SMTP_RET_NONE;
    return *ret != SMTP_RET_NONE;
}

static enum smtp_syntax
parse_mail_parameter(const struct parameter *p, uint32_t offered, unsigned *seen,
                     struct smtp_mail *mail)
{
    bool is_ok;

    if (span_is_nocase(p->keyword, "SIZE") && (offered & SMTP_CAP_BIT(SIZE)) != 0) {
        mail->has_size = true;
        is_ok = note(seen, 1, p, true) && parse_size(p->value, &mail->size);
    } else if (span_is_nocase(p->keyword, "BODY") &&
               (offered & (SMTP_CAP_BIT(8BITMIME) | SMTP_CAP_BIT(BINARYMIME))) != 0) {
        mail->has_body = true;
        is_ok = note(seen, 2, p, true) && parse_body(p->value, offered, &mail->body);
    } else if (span_is_nocase(p->keyword, "SMTPUTF8") && (offered & SMTP_CAP_BIT(SMTPUTF8)) != 0) {
        mail->is_smtputf8 = true;
        is_ok = note(seen, 4, p, false);
    } else if (span_is_nocase(p->keyword, "RET") && (offered & SMTP_CAP_BIT(DSN)) != 0) {
        is_ok = note(seen, 8, p, true) && parse_ret(p->value, &mail->ret);
    } else if (span_is_nocase(p->keyword, "ENVID") && (offered & SMTP_CAP_BIT(DSN)) != 0) {
        mail->envid = p->value;
        is_ok = note(seen, 16, p, true) && p->value.n <= ENVID_MAX && xtext_is_valid(p->value);
    } else {
        return SMTP_SYNTAX_UNKNOWN;
    }
    return is_ok ? SMTP_SYNTAX_OK : SMTP_SYNTAX_PARAMETER;
}

enum smtp_syntax
smtp_mail_parse(struct span argument, uint32_t offered, struct smtp_mail *mail)
{
    struct span rest;
    struct parameter p;
    unsigned seen = 0;
    enum smtp_syntax syntax;

    *mail = (struct smtp_mail){.body = SMTP_BODY_7BIT};
    syntax = parse_path(argument, "FROM:", true, &mail->path, &rest);
    while (syntax == SMTP_SYNTAX_OK && next_parameter(&rest, &p))
        syntax = parse_mail_parameter(&p, offered, &seen, mail);
    if (syntax == SMTP_SYNTAX_OK && mail->path.is_utf8 && !mail->is_smtputf8)
        syntax = SMTP_SYNTAX_UTF8;
    return syntax;
}

/* "NEVER", or a list of the others (RFC 3461 4.1). */
static bool
parse_notify(struct span value, unsigned *notify)
{
    struct span item;

    while (span_next(&value, ',', &item)) {
        if (span_is_nocase(item, "NEVER"))
            *notify |= SMTP_NOTIFY_NEVER;
        else if (span_is_nocase(item, "SUCCESS"))
            *notify |= SMTP_NOTIFY_SUCCESS;
        else if (span_is_nocase(item, "FAILURE"))
            *notify |= SMTP_NOTIFY_FAILURE;
        else if (span_is_nocase(item, "DELAY"))
            *notify |= SMTP_NOTIFY_DELAY;
        else
            return false;
    }
    return (*notify & SMTP_NOTIFY_NEVER) == 0 || *notify == SMTP_NOTIFY_NEVER;
}

/* "type;address", the address in xtext (RFC 3461 4.2), with SMTPUTF8 also in UTF-8 (RFC 6533 3). */
static bool
orcpt_is_valid(struct span value, bool is_smtputf8)
{
    struct span type, rest = value;
    size_t n;

    if (value.n > ORCPT_MAX || memchr(value.p, ';', value.n) == NULL ||
        !span_next(&rest, ';', &type) || !xtext_is_valid(type) || rest.n == 0)
        return false;
    for (size_t i = 0; i < rest.n; i += n) {
        size_t end = i;
        n = utf8_printable(span_of(rest.p + i, rest.n - i));
        if (n > 1 && is_smtputf8)
            continue;
        if (xtext_next(rest, &end) < 0)
            return false;
        n = end - i;
    }
    return true;
}

static enum smtp_syntax
parse_rcpt_parameter(const struct parameter *p, uint32_t offered, bool is_smtputf8, unsigned *seen,
                     struct smtp_rcpt *rcpt)
{
    bool is_ok;

    if ((offered & SMTP_CAP_BIT(DSN)) == 0)
        return SMTP_SYNTAX_UNKNOWN;
    if (span_is_nocase(p->keyword, "NOTIFY")) {
        is_ok = note(seen, 1, p, true) && parse_notify(p->value, &rcpt->notify);
    } else if (span_is_nocase(p->keyword, "ORCPT")) {
        rcpt->orcpt = p->value;
        is_ok = note(seen, 2, p, true) && orcpt_is_valid(p->value, is_smtputf8);
    } else {
        return SMTP_SYNTAX_UNKNOWN;
    }
    return is_ok ? SMTP_SYNTAX_OK : SMTP_SYNTAX_PARAMETER;
}

enum smtp_syntax
smtp_rcpt_parse(struct span argument, uint32_t offered, bool is_smtputf8, struct smtp_rcpt *rcpt)
{
    struct span rest;
    struct parameter p;
    unsigned seen = 0;
    enum smtp_syntax syntax;

    rcpt->notify = 0;
    rcpt->orcpt = span_of(NULL, 0);
    syntax = parse_path(argument, "TO:", false, &rcpt->path, &rest);
    while (syntax == SMTP_SYNTAX_OK && next_parameter(&rest, &p))
        syntax = parse_rcpt_parameter(&p, offered, is_smtputf8, &seen, rcpt);
    if (syntax == SMTP_SYNTAX_OK && rcpt->path.is_utf8 && !is_smtputf8)
        syntax = SMTP_SYNTAX_UTF8;
    return syntax;
}

enum smtp_syntax
smtp_bdat_parse(struct span argument, struct smtp_bdat *bdat)
{
    struct span word = {0};

    bdat->size = 0;
    bdat->is_last = false;
    (void)span_next(&argument, ' ', &word);
    argument = span_trim(argument);
    if (argument.n > 0 && !span_is_nocase(argument, "LAST"))
        return SMTP_SYNTAX_ARGUMENT;
    bdat->is_last = argument.n > 0;
    return span_u64(word, INT64_MAX, &bdat->size) ? SMTP_SYNTAX_OK : SMTP_SYNTAX_ARGUMENT;
}

bool
smtp_helo_valid(struct span argument)
{
    for (size_t i = 0; i < argument.n; i++)
        if (argument.p[i] <= ' ' || argument.p[i] > '~')
            return false;
    return argument.n > 0 && argument.n <= HELO_MAX;
}

/* Decode VALUE into OUT.  False: malformed, too long, or not fit to be shown. */
static bool
parse_xclient_value(struct span value, char out[SMTP_XCLIENT_VALUE])
{
    size_t n = 0;

    if (span_is_nocase(value, "[UNAVAILABLE]") || span_is_nocase(value, "[TEMPUNAVAIL]"))
        return true;
    for (size_t i = 0; i < value.n;) {
        int c = xtext_next(value, &i);
        if (c < ' ' || c == 0x7f || n == SMTP_XCLIENT_VALUE - 1) {
            out[0] = '\0';
            return false;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return n > 0;
}

enum smtp_syntax
smtp_xclient_parse(struct span argument, struct smtp_xclient_args *args)
{
    struct parameter p;

    args->given = 0;
    for (unsigned i = 0; i < SMTP_XCLIENT_COUNT; i++)
        args->value[i][0] = '\0';
    while (next_parameter(&argument, &p)) {
        enum smtp_xclient attribute = smtp_xclient_find(p.keyword);

        if (attribute == SMTP_XCLIENT_COUNT)
            return SMTP_SYNTAX_UNKNOWN;
        if (!note(&args->given, 1u << attribute, &p, true) ||
            !parse_xclient_value(p.value, args->value[attribute]))
            return SMTP_SYNTAX_PARAMETER;
    }
    return args->given != 0 ? SMTP_SYNTAX_OK : SMTP_SYNTAX_ARGUMENT;
}

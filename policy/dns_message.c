#include "policy/dns_message.h"

#include <stdio.h>
#include <string.h>

enum { CLASS_IN = 1, TYPE_CNAME = 5, POINTERS_MAX = 64 };

struct reader {
    const uint8_t *p;
    size_t n, at;
};

struct resource {
    char owner[DNS_NAME_TEXT];
    unsigned type;
    uint32_t ttl_s;
    size_t data, data_n; /* within the message */
};

bool
dns_name_valid(struct span name)
{
    size_t label = 0;

    if (name.n == 0 || name.n > DNS_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == '.') {
            if (label == 0)
                return false;
            label = 0;
            continue;
        }
        if (name.p[i] < ' ' || name.p[i] > '~' || name.p[i] == '\\' || ++label > 63)
            return false;
    }
    return label > 0;
}

bool
dns_reverse_name(char out[DNS_NAME_TEXT], const struct netaddr *a, const char *suffix)
{
    char labels[65] = "";
    size_t n = 0;

    if (a->family == 4)
        n = (size_t)snprintf(labels, sizeof labels, "%u.%u.%u.%u", a->octets[3], a->octets[2],
                             a->octets[1], a->octets[0]);
    for (size_t i = 16; a->family == 6 && i-- > 0;)
        n += (size_t)snprintf(labels + n, sizeof labels - n, "%x.%x%s", a->octets[i] & 15u,
                              a->octets[i] >> 4, i > 0 ? "." : "");
    return (size_t)snprintf(out, DNS_NAME_TEXT, "%s.%s", labels, suffix) < DNS_NAME_TEXT;
}

static bool
read_u16(struct reader *r, unsigned *value)
{
    if (r->n - r->at < 2)
        return false;
    *value = (unsigned)r->p[r->at] << 8 | r->p[r->at + 1];
    r->at += 2;
    return true;
}

static bool
read_u32(struct reader *r, uint32_t *value)
{
    unsigned high, low;

    if (!read_u16(r, &high) || !read_u16(r, &low))
        return false;
    *value = (uint32_t)high << 16 | low;
    return true;
}

/* Append the label of LENGTH octets at AT to OUT of *N octets.  One that could not be told from the
 * dots of a name, or not be written, makes the name unreadable. */
static bool
add_label(char *out, size_t *n, const uint8_t *label, size_t length)
{
    if (*n + (*n > 0) + length > DNS_NAME_MAX)
        return false;
    if (*n > 0)
        out[(*n)++] = '.';
    for (size_t i = 0; i < length; i++) {
        if (label[i] < ' ' || label[i] > '~' || label[i] == '.' || label[i] == '\\')
            return false;
        out[(*n)++] = (char)label[i];
    }
    return true;
}

/* Read a name, compressed or not (RFC 1035 4.1.4); the root is "". With an unreadable label
 * OUT is "" and *IS_READABLE false, and what follows the name can still be read. */
static bool
read_name(struct reader *r, char out[DNS_NAME_TEXT], bool *is_readable)
{
    size_t at = r->at, n = 0;
    unsigned pointers = 0;

    *is_readable = true;
    while (at < r->n) {
        unsigned length = r->p[at++];
        if (length >= 0xc0) {
            if (at >= r->n || ++pointers > POINTERS_MAX)
                return false;
            if (pointers == 1)
                r->at = at + 1;
            at = (length & 0x3fu) << 8 | r->p[at];
            continue;
        }
        if (length > 63 || length > r->n - at)
            return false;
        if (length == 0) {
            if (pointers == 0)
                r->at = at;
            if (!*is_readable)
                n = 0;
            out[n] = '\0';
            return true;
        }
        if (*is_readable)
            *is_readable = add_label(out, &n, r->p + at, length);
        at += length;
    }
    return false;
}

static bool
read_resource(struct reader *r, struct resource *rr)
{
    unsigned class, length;
    bool is_readable;

    if (!read_name(r, rr->owner, &is_readable) || !read_u16(r, &rr->type) || !read_u16(r, &class) ||
        !read_u32(r, &rr->ttl_s) || !read_u16(r, &length) || length > r->n - r->at)
        return false;
    if (!is_readable || class != CLASS_IN)
        rr->type = 0;
    if (rr->ttl_s > INT32_MAX) /* RFC 2181 8 */
        rr->ttl_s = 0;
    rr->data = r->at;
    rr->data_n = length;
    r->at += length;
    return true;
}

/* A name that ends RR's data, SKIP octets into them. */
static bool
data_name(const struct reader *r, const struct resource *rr, size_t skip, char out[DNS_NAME_TEXT])
{
    struct reader data = {r->p, rr->data + rr->data_n, rr->data + skip};
    bool is_readable;

    return rr->data_n > skip && read_name(&data, out, &is_readable) && is_readable &&
           data.at == data.n;
}

static bool
add_text(struct dns_answer *a, const void *p, size_t n)
{
    if (sizeof a->text - a->text_n < n)
        return false;
    memcpy(a->text + a->text_n, p, n);
    a->text_n += n;
    return true;
}

/* The character-strings of a TXT record, joined (RFC 7208 3.3). */
static bool
add_strings(struct dns_answer *a, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i += 1u + data[i])
        if (data[i] > n - i - 1 || !add_text(a, data + i + 1, data[i]))
            return false;
    return true;
}

static bool
add_address(struct dns_answer *a, const uint8_t *data, size_t n)
{
    struct netaddr *address = &a->records[a->n].address;

    if (n != 4 && n != 16)
        return false;
    address->family = n == 4 ? 4 : 6;
    memcpy(address->octets, data, n);
    return true;
}

static bool
add_record(struct dns_answer *a, const struct reader *r, const struct resource *rr,
           enum dns_type type)
{
    const uint8_t *data = r->p + rr->data;
    char name[DNS_NAME_TEXT];
    size_t start = a->text_n;
    bool is_good = false;

    memset(&a->records[a->n], 0, sizeof a->records[a->n]);
    switch (type) {
    case DNS_A:
        is_good = rr->data_n == 4 && add_address(a, data, 4);
        break;
    case DNS_AAAA:
        is_good = rr->data_n == 16 && add_address(a, data, 16);
        break;
    case DNS_MX:
    case DNS_PTR:
        is_good = data_name(r, rr, type == DNS_MX ? 2 : 0, name) && add_text(a, name, strlen(name));
        break;
    case DNS_TXT:
        is_good = add_strings(a, data, rr->data_n);
        break;
    }
    if (!is_good)
        return false;
    a->records[a->n++].text = span_of(a->text + start, a->text_n - start);
    return true;
}

/* One walk over the answers: what NAME has of Q's type, or the name that it is another name of. */
static bool
walk(struct dns_answer *a, const struct dns_question *q, struct reader r, unsigned answers,
     char name[DNS_NAME_TEXT], bool *is_alias)
{
    struct resource rr;
    char alias[DNS_NAME_TEXT];

    *is_alias = false;
    for (unsigned i = 0; i < answers; i++) {
        if (!read_resource(&r, &rr))
            return false;
        if (!span_equal_nocase(span_str(rr.owner), span_str(name)))
            continue;
        if (rr.type == TYPE_CNAME && !*is_alias) {
            if (!data_name(&r, &rr, 0, alias))
                return false;
            *is_alias = true;
        } else if (rr.type == (unsigned)q->type && a->n < DNS_RECORDS_MAX) {
            if (!add_record(a, &r, &rr, q->type))
                return false;
        } else {
            continue;
        }
        if (rr.ttl_s < a->ttl_s)
            a->ttl_s = rr.ttl_s;
    }
    if (*is_alias)
        memcpy(name, alias, sizeof alias);
    return true;
}

static bool
same_question(struct reader *r, const struct dns_question *q)
{
    char name[DNS_NAME_TEXT];
    unsigned type, class;
    bool is_readable;

    return read_name(r, name, &is_readable) && is_readable && read_u16(r, &type) &&
           read_u16(r, &class) && type == (unsigned)q->type && class == CLASS_IN &&
           span_equal_nocase(span_str(name), span_str(q->name));
}

/* The status of the message; with DNS_OK, R stands at its answers. */
static enum dns_status
read_head(struct reader *r, const struct dns_question *q, unsigned *answers)
{
    unsigned id, flags, questions, other;

    if (!read_u16(r, &id) || !read_u16(r, &flags) || !read_u16(r, &questions) ||
        !read_u16(r, answers) || !read_u16(r, &other) || !read_u16(r, &other) || questions != 1 ||
        !same_question(r, q))
        return DNS_TROUBLE;
    bool is_response = (flags & 0x8000u) != 0, is_query_kind = (flags & 0x7800u) == 0,
         is_truncated = (flags & 0x0200u) != 0;
    if (!is_response || !is_query_kind || is_truncated)
        return DNS_TROUBLE;
    switch (flags & 0xfu) {
    case 0:
        return DNS_OK;
    case 3: /* also at the end of a chain of CNAMEs (RFC 6604 3) */
        return DNS_NONE;
    default:
        return DNS_TROUBLE;
    }
}

void
dns_answer_set(struct dns_answer *a, enum dns_status status)
{
    a->status = status;
    a->n = a->text_n = 0;
    a->ttl_s = status == DNS_NONE ? DNS_NEGATIVE_TTL_S : 0;
}

void
dns_answer_read(struct dns_answer *a, const struct dns_question *q, const uint8_t *message,
                size_t n)
{
    struct reader r = {message, n, 0};
    char name[DNS_NAME_TEXT];
    unsigned answers;
    bool is_alias = true;

    dns_answer_set(a, DNS_TROUBLE);
    enum dns_status status = read_head(&r, q, &answers);
    if (status != DNS_OK) {
        dns_answer_set(a, status);
        return;
    }
    a->ttl_s = UINT32_MAX;
    memcpy(name, q->name, sizeof name);
    for (unsigned links = 0; is_alias && a->n == 0; links++) {
        if (links > DNS_CNAMES_MAX || !walk(a, q, r, answers, name, &is_alias)) {
            dns_answer_set(a, DNS_TROUBLE);
            return;
        }
    }
    if (a->n == 0)
        dns_answer_set(a, DNS_NONE);
    else
        a->status = DNS_OK;
}

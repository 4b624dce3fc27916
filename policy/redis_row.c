#include "policy/redis_row.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "policy/ledger.h"
#include "policy/policy.h"

void
redis_row_hex(char out[REDIS_ROW_KEY_HEX], const uint8_t octets[16])
{
    for (size_t i = 0; i < 16; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", octets[i]);
}

static int
digit_of(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c == '\0' ? NULL : strchr(digits, c);

    return at == NULL ? -1 : (int)(at - digits);
}

bool
redis_row_unhex(struct span text, uint8_t octets[16])
{
    if (text.n != 32)
        return false;
    for (size_t i = 0; i < 16; i++) {
        int high = digit_of(text.p[2 * i]), low = digit_of(text.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        octets[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void
redis_row_network_member(char out[REDIS_ROW_MEMBER], enum redis_row_kind kind,
                         const struct network *network)
{
    char text[NETWORK_TEXT];

    network_format(network, text);
    (void)snprintf(out, REDIS_ROW_MEMBER, "%c%s", (char)kind, text);
}

void
redis_row_hash_member(char out[REDIS_ROW_MEMBER], enum redis_row_kind kind, struct hash128 hash)
{
    char text[REDIS_ROW_KEY_HEX];
    uint8_t octets[16];

    memcpy(octets, &hash.lo, 8);
    memcpy(octets + 8, &hash.hi, 8);
    redis_row_hex(text, octets);
    (void)snprintf(out, REDIS_ROW_MEMBER, "%c%s", (char)kind, text);
}

bool
redis_row_number(const struct redisReply *reply, size_t i, int64_t min, int64_t max, int64_t *value)
{
    if (i >= reply->elements || reply->element[i]->type != REDIS_REPLY_INTEGER ||
        reply->element[i]->integer < min || reply->element[i]->integer > max)
        return false;
    *value = reply->element[i]->integer;
    return true;
}

bool
redis_row_text(const struct redisReply *reply, size_t i, struct span *text)
{
    if (i >= reply->elements || reply->element[i]->type != REDIS_REPLY_STRING)
        return false;
    *text = span_of(reply->element[i]->str, reply->element[i]->len);
    return true;
}

static bool
read_member(struct span member, struct redis_row *row)
{
    struct span name = member.n > 0 ? span_of(member.p + 1, member.n - 1) : member;
    uint8_t octets[16];

    if (member.n == 0)
        return false;
    switch (member.p[0]) {
    case REDIS_ROW_HOLD:
    case REDIS_ROW_NULL_HOLD:
    case REDIS_ROW_CLEARED:
        row->kind = (enum redis_row_kind)member.p[0];
        return network_parse(name, &row->network);
    case REDIS_ROW_MARK:
    case REDIS_ROW_DELIVERY:
        row->kind = (enum redis_row_kind)member.p[0];
        if (!redis_row_unhex(name, octets))
            return false;
        memcpy(&row->hash.lo, octets, 8);
        memcpy(&row->hash.hi, octets + 8, 8);
        return true;
    default:
        return false;
    }
}

static bool
read_values(struct span text, struct redis_row *row)
{
    uint32_t *values[] = {&row->a, &row->b, &row->c};
    struct span item;

    for (size_t i = 0; i < 3; i++) {
        uint64_t value;
        if (!span_next(&text, ' ', &item) || !span_u64(item, UINT32_MAX, &value))
            return false;
        *values[i] = (uint32_t)value;
    }
    return !span_next(&text, ' ', &item);
}

static bool
is_hold(const struct redis_row *row)
{
    return row->kind == REDIS_ROW_HOLD || row->kind == REDIS_ROW_NULL_HOLD;
}

bool
redis_row_read(const struct redisReply *reply, size_t i, struct redis_row *row)
{
    struct span member, values;

    memset(row, 0, sizeof *row);
    if (!redis_row_text(reply, i, &member) || !read_member(member, row) ||
        !redis_row_number(reply, i + 1, -REDIS_ROW_HELD_MAX, REDIS_ROW_HELD_MAX, &row->left_s) ||
        !redis_row_text(reply, i + 2, &values) || !read_values(values, row))
        return false;
    if (is_hold(row) && ((row->a != POLICY_ACTION_NONE && row->a != POLICY_ACTION_BLOCK &&
                          row->a != POLICY_ACTION_BLIND) ||
                         row->b > POLICY_BY_CONTROL || row->c > LEDGER_REPEATS_MAX))
        return false;
    if (row->left_s > REDIS_ROW_SPAN_S)
        row->left_s = REDIS_ROW_SPAN_S;
    return true;
}

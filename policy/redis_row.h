#ifndef POLICY_REDIS_ROW_H
#define POLICY_REDIS_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "base/siphash.h"

/* The answers of redis_script.h, read as a stranger's: what is not exactly as it should be is no
 * answer.  Pure. */

struct redisReply;

enum redis_row_kind {
    REDIS_ROW_HOLD = 'h',
    REDIS_ROW_NULL_HOLD = 'z',
    REDIS_ROW_CLEARED = 'c',
    REDIS_ROW_MARK = 'm',
    REDIS_ROW_DELIVERY = 'd'
};

/* What the fleet says of a member. */
struct redis_row {
    enum redis_row_kind kind;
    struct network network; /* of h, z, c */
    struct hash128 hash;    /* of m, d */
    int64_t left_s;         /* until its end; negative: since */
    uint32_t a, b, c;
};

#define REDIS_ROW_MEMBER    64 /* room for a member and NUL */
#define REDIS_ROW_SPAN_S    ((int64_t)1000 * 24 * 3600)
#define REDIS_ROW_HELD_MAX  ((int64_t)1 << 32)
#define REDIS_ROW_KEY_HEX   33
#define REDIS_ROW_EPOCH_HEX 33

void redis_row_network_member(char out[REDIS_ROW_MEMBER], enum redis_row_kind kind,
                              const struct network *network);
void redis_row_hash_member(char out[REDIS_ROW_MEMBER], enum redis_row_kind kind,
                           struct hash128 hash);
/* 32 digits. */
void redis_row_hex(char out[REDIS_ROW_KEY_HEX], const uint8_t octets[16]);
bool redis_row_unhex(struct span text, uint8_t octets[16]);

/* The row that begins with the I-th element of REPLY, an array. */
bool redis_row_read(const struct redisReply *reply, size_t i, struct redis_row *row);
/* The I-th element of REPLY, an array, if it is a number within MIN and MAX. */
bool redis_row_number(const struct redisReply *reply, size_t i, int64_t min, int64_t max,
                      int64_t *value);
/* The same of a string, which is REPLY's. */
bool redis_row_text(const struct redisReply *reply, size_t i, struct span *text);

#endif

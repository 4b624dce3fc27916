#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "base/siphash.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* The key and the message of the paper's appendix: 00 01 02 and so on. */
static void
fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)i;
}

static void
to_hex(uint64_t x, char *out)
{
    for (int i = 0; i < 8; i++)
        snprintf(out + 2 * i, 3, "%02x", (unsigned)(x >> (8 * i) & 0xff));
}

static void
test_reference(void **state)
{
    /* As the authors' vectors are written: the hash's octets, the lowest first. */
    static const struct {
        size_t n;
        const char *h64, *h128;
    } cases[] = {
        {0, "310e0edd47db6f72", "a3817f04ba25a8e66df67214c7550293"},
        {1, "fd67dc93c539f874", "da87c1d86b99af44347659119b22fc45"},
        {7, "37d1018bf50002ab", "a1f1ebbed8dbc153c0b84aa61ff08239"},
        {8, "6224939a79f5f593", "3b62a9ba6258f5610f83e264f31497b4"},
        {15, "e545be4961ca29a1", "5493e99933b0a8117e08ec0f97cfc3d9"},
        {63, "724506eb4c328a95", "5150d1772f50834a503e069a973fbd7c"},
    };
    struct siphash_key key;
    uint8_t message[64];

    (void)state;
    fill(key.octets, sizeof key.octets);
    fill(message, sizeof message);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct hash128 h = siphash128(&key, message, cases[i].n);
        char hex[33];

        to_hex(siphash64(&key, message, cases[i].n), hex);
        assert_string_equal(hex, cases[i].h64);
        to_hex(h.lo, hex);
        to_hex(h.hi, hex + 16);
        assert_string_equal(hex, cases[i].h128);
    }
}

static uint64_t
little_endian(const unsigned char *p)
{
    uint64_t x = 0;

    for (size_t i = 0; i < 8; i++)
        x |= (uint64_t)p[i] << (8 * i);
    return x;
}

/* What OpenSSL's implementation says. */
static void
other(const struct siphash_key *key, const void *data, size_t n, size_t size, unsigned char *out)
{
    EVP_PKEY *pkey =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_SIPHASH, NULL, key->octets, sizeof key->octets);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *options;

    assert_int_equal(EVP_DigestSignInit(context, &options, NULL, NULL, pkey), 1);
    assert_true(EVP_PKEY_CTX_ctrl(options, -1, EVP_PKEY_OP_SIGNCTX, EVP_PKEY_CTRL_SET_DIGEST_SIZE,
                                  (int)size, NULL) > 0);
    assert_int_equal(EVP_DigestSign(context, out, &size, data, n), 1);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(pkey);
}

static void
test_against_openssl(void **state)
{
    uint8_t message[300];
    struct siphash_key key;

    (void)state;
    for (size_t i = 0; i < sizeof message; i++)
        message[i] = (uint8_t)(i * 37 + 11);
    for (size_t n = 0; n <= sizeof message; n++) {
        unsigned char out[16];
        struct hash128 h;

        memset(key.octets, (int)n, sizeof key.octets);
        other(&key, message, n, 8, out);
        assert_true(siphash64(&key, message, n) == little_endian(out));
        other(&key, message, n, 16, out);
        h = siphash128(&key, message, n);
        assert_true(h.lo == little_endian(out) && h.hi == little_endian(out + 8));
    }
}

static void
test_random(void **state)
{
    struct siphash_key a = siphash_key_random(), b = siphash_key_random();

    (void)state;
    assert_memory_not_equal(a.octets, b.octets, sizeof a.octets);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_against_openssl),
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

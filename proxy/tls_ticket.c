#include "proxy/tls_ticket.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/clock.h"

struct key {
    bool is_set;
    int64_t made_ms;
    unsigned char name[16]; /* as it stands in front of a ticket */
    unsigned char aes[32];
    unsigned char hmac[32];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct key keys[2]; /* the one that makes tickets, and the one before */

static bool
make_key(struct key *k, int64_t now_ms)
{
    if (RAND_bytes(k->name, sizeof(k->name)) != 1 || RAND_bytes(k->aes, sizeof(k->aes)) != 1 ||
        RAND_bytes(k->hmac, sizeof(k->hmac)) != 1)
        return false;
    k->made_ms = now_ms;
    k->is_set = true;
    return true;
}

/* Under the lock. */
static void
turn(int64_t now_ms)
{
    struct key fresh = {.is_set = false};

    if (keys[1].is_set && now_ms - keys[1].made_ms >= 2 * TLS_TICKET_TURN_MS)
        OPENSSL_cleanse(&keys[1], sizeof(keys[1]));
    if (keys[0].is_set && now_ms - keys[0].made_ms < TLS_TICKET_TURN_MS)
        return;
    if (!make_key(&fresh, now_ms))
        return;
    /* One that made its last ticket long ago has nothing left to read. */
    if (keys[0].is_set && now_ms - keys[0].made_ms < 2 * TLS_TICKET_TURN_MS)
        keys[1] = keys[0];
    keys[0] = fresh;
    OPENSSL_cleanse(&fresh, sizeof(fresh));
}

void
tls_ticket_turn(int64_t now_ms)
{
    pthread_mutex_lock(&lock);
    turn(now_ms);
    pthread_mutex_unlock(&lock);
}

/* The key to make a ticket with, or that NAME asks for; false: there is none. */
static bool
choose(const unsigned char *name, bool makes, struct key *out)
{
    bool found = false;

    pthread_mutex_lock(&lock);
    turn(clock_ms());
    for (size_t i = 0; i < 2 && !found; i++) {
        if (!keys[i].is_set || (!makes && memcmp(keys[i].name, name, sizeof(keys[i].name)) != 0))
            continue;
        *out = keys[i];
        found = true;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static bool
set_hmac(EVP_MAC_CTX *mac, struct key *k)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, k->hmac, sizeof(k->hmac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
        OSSL_PARAM_construct_end()};

    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 fine, 2 fine and renew it, 0 no such key, -1 failed.
 */
static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
          EVP_MAC_CTX *mac, int makes)
{
    struct key k;
    int result = -1;

    if (!choose(name, makes == 1, &k))
        return makes == 1 ? -1 : 0;
    if (makes == 1) {
        memcpy(name, k.name, sizeof(k.name));
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1 &&
            EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, k.aes, iv) == 1 &&
            set_hmac(mac, &k))
            result = 1;
    } else if (EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, k.aes, iv) == 1 &&
               set_hmac(mac, &k)) {
        /* TLS 1.3 gives a new ticket with each handshake in any case, and wants 2 for it. */
        result = SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1;
    }
    OPENSSL_cleanse(&k, sizeof(k));
    return result;
}

void
tls_ticket_use(SSL_CTX *context)
{
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket);
    SSL_CTX_set_timeout(context, TLS_TICKET_LIFE_S);
    /* A sender comes back with one; a second would be a second write. */
    SSL_CTX_set_num_tickets(context, 1);
}

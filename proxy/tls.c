#include "proxy/tls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/clock.h"
#include "proxy/tls_ticket.h"

/* For TLS 1.2: forward secrecy alone, AEAD first.  ECDHE with CBC and SHA-2 is for Windows before
 * 2016, which has no AEAD for RSA certificates and would fall back to the clear. */
#define CIPHERS                                                                                    \
    "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES+SHA384:ECDHE+AES+SHA256:"       \
    "!aNULL:!aDSS:!PSK:!CAMELLIA:!ARIA"
/* For TLS 1.3: the one that RFC 8446 9.1 demands first.  X25519 is no stronger than AES-128, and
 * SHA-256, which keys are derived with, has instructions of the processor's. */
#define SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
/* A library without the hybrid refuses the list that has it whole. */
#define GROUPS        "X25519:P-256:P-384"
#define GROUPS_HYBRID "X25519MLKEM768:" GROUPS

struct tls_contexts {
    _Atomic unsigned references;
    size_t n;
    SSL_CTX **v;
};

/* A session is made from the one before it, and so on for ever: what they go back to, a handshake
 * in which the host showed its certificate, must be no older than this (RFC 8446 4.6.1). */
#define WHOLE_MAX_MS (INT64_C(3600) * 1000)

/* The last session with a host, to be resumed. */
struct host_session {
    struct host_session *next;
    SSL_SESSION *session; /* NULL: none, or in use */
    int64_t whole_ms;     /* when a handshake with it was last a whole one, by clock_ms */
    char host[];
};

struct tls_client {
    SSL_CTX *context;
    struct host_session **sessions; /* the first of a list */
    enum settings_downstream_tls tls;
    const char *server_name; /* the downstream's settings outlive us */
    bool has_fingerprint;
    unsigned char fingerprint[32];
};

void
tls_error_text(char *out, size_t n)
{
    unsigned long code = ERR_get_error();
    const char *reason = ERR_reason_error_string(code);

    if (code == 0)
        span_copy(out, n, span_str("connection closed"));
    else if (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE)
        span_copy(out, n, span_str("not in PEM form"));
    else if (reason == NULL || !span_copy(out, n, span_str(reason)))
        ERR_error_string_n(code, out, n);
    ERR_clear_error();
}

void
tls_handshake_error(const SSL *ssl, char *out, size_t n)
{
    unsigned long code = ERR_peek_error();

    if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
        ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        long verdict = SSL_get_verify_result(ssl);
        span_copy(out, n, span_str(X509_verify_cert_error_string(verdict)));
        ERR_clear_error();
    } else {
        tls_error_text(out, n);
    }
}

static int
fail(struct err *e, const char *what)
{
    char text[160];

    tls_error_text(text, sizeof(text));
    return err_set(e, ERR_TLS, "%s: %s", what, text);
}

int
tls_no_password(char *out, int n, int is_writing, void *was_asked)
{
    (void)out;
    (void)n;
    (void)is_writing;
    if (was_asked != NULL)
        *(bool *)was_asked = true;
    return -1;
}

static void
set_common(SSL_CTX *context)
{
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    /* A record costs one read instead of two. */
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_default_passwd_cb(context, tls_no_password);
    /* The macros of OpenSSL cast const away. */
    if (SSL_CTX_set1_groups_list(context, (char[]){GROUPS_HYBRID}) != 1)
        SSL_CTX_set1_groups_list(context, (char[]){GROUPS});
    SSL_CTX_set_cipher_list(context, CIPHERS);
    SSL_CTX_set_ciphersuites(context, SUITES);
    ERR_clear_error();
}

static int
match_name(X509 *certificate, const char *name)
{
    return X509_check_host(certificate, name, 0, 0, NULL);
}

static int
choose_by_sni(SSL *ssl, int *alert, void *arg)
{
    struct tls_contexts *t = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void)alert;
    if (name == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    for (size_t i = 0; i < t->n; i++) {
        if (match_name(SSL_CTX_get0_certificate(t->v[i]), name) == 1) {
            SSL_set_SSL_CTX(ssl, t->v[i]);
            return SSL_TLSEXT_ERR_OK;
        }
    }
    /* An unknown name gets the first certificate: a sender that does not verify shall still
     * encrypt. */
    return SSL_TLSEXT_ERR_NOACK;
}

static SSL_CTX *
server_context(const struct settings_tls *tls, const char *certificate, const char *key,
               struct err *e)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (context == NULL) {
        fail(e, "TLS");
        return NULL;
    }
    set_common(context);
    if (tls->min_version == SETTINGS_MIN_VERSION_TLS13)
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_dh_auto(context, 1);
    /* Sessions are resumed by tickets alone; a cache would be one more thing to fill. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    tls_ticket_use(context);
    static const unsigned char id[] = "postern";
    SSL_CTX_set_session_id_context(context, id, sizeof(id) - 1);
    if (tls->ciphers != NULL && SSL_CTX_set_cipher_list(context, tls->ciphers) != 1)
        fail(e, "ciphers");
    else if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        fail(e, certificate);
    else if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        fail(e, key);
    else if (SSL_CTX_check_private_key(context) != 1)
        fail(e, key);
    else
        return context;
    SSL_CTX_free(context);
    return NULL;
}

static void
contexts_free(struct tls_contexts *t)
{
    for (size_t i = 0; i < t->n; i++)
        SSL_CTX_free(t->v[i]);
    free(t->v);
    free(t);
}

int
tls_contexts_new(const struct settings *st, struct tls_contexts **out, struct err *e)
{
    *out = NULL;
    if (st->tls.mode == SETTINGS_TLS_MODE_OFF || st->tls.certificate.n == 0)
        return 0;
    struct tls_contexts *t = calloc(1, sizeof(*t));
    if (t == NULL || (t->v = calloc(st->tls.certificate.n, sizeof(*t->v))) == NULL) {
        free(t);
        return err_set(e, ERR_SYSTEM, "out of memory");
    }
    atomic_store(&t->references, 1);
    for (size_t i = 0; i < st->tls.certificate.n; i++) {
        t->v[i] = server_context(&st->tls, st->tls.certificate.v[i], st->tls.key.v[i], e);
        if (t->v[i] == NULL) {
            contexts_free(t);
            return -1;
        }
        t->n++;
    }
    SSL_CTX_set_tlsext_servername_callback(t->v[0], choose_by_sni);
    SSL_CTX_set_tlsext_servername_arg(t->v[0], t);
    *out = t;
    return 0;
}

struct tls_contexts *
tls_contexts_ref(struct tls_contexts *t)
{
    if (t != NULL)
        atomic_fetch_add(&t->references, 1);
    return t;
}

void
tls_contexts_unref(struct tls_contexts *t)
{
    if (t != NULL && atomic_fetch_sub(&t->references, 1) == 1)
        contexts_free(t);
}

/* The callback for SNI reads T, so a handshake holds it: a reload may come in the middle. */
static void
drop_contexts(void *parent, void *t, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent;
    (void)data;
    (void)index;
    (void)argl;
    (void)argp;
    tls_contexts_unref(t);
}

static int holder;
static pthread_once_t holder_once = PTHREAD_ONCE_INIT;

static void
make_holder(void)
{
    holder = SSL_get_ex_new_index(0, NULL, NULL, NULL, drop_contexts);
}

SSL *
tls_accept(struct tls_contexts *t)
{
    SSL *ssl = SSL_new(t->v[0]);

    pthread_once(&holder_once, make_holder);
    if (ssl != NULL && SSL_set_ex_data(ssl, holder, tls_contexts_ref(t)) != 1) {
        tls_contexts_unref(t);
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

/* "AB:CD:..." or "abcd...": 32 octets. */
static bool
parse_fingerprint(const char *text, unsigned char out[32])
{
    unsigned n = 0;

    for (const char *p = text; *p != '\0'; p++) {
        int digit = OPENSSL_hexchar2int((unsigned char)*p);
        if (*p == ':')
            continue;
        if (digit < 0 || n >= 64)
            return false;
        out[n / 2] = (unsigned char)((n % 2 == 0 ? 0 : out[n / 2] << 4) | digit);
        n++;
    }
    return n == 64;
}

/* TLS 1.3 brings sessions behind the handshake. */
static int
on_session(SSL *ssl, SSL_SESSION *session)
{
    struct host_session *m = SSL_get_app_data(ssl);

    if (m == NULL)
        return 0;
    SSL_SESSION_free(m->session);
    m->session = session;
    return 1;
}

/* Sessions are of one context, so of one set of rules for the peer, and of one host: whoever has
 * one was verified as this one must be.  Each is used once at a time: those of TLS 1.3 once at all
 * (RFC 8446 C.4), and a host that cannot go on with one gets a whole handshake the next time. */
static void
resume(SSL *ssl, struct host_session **all, const char *host)
{
    struct host_session *m = *all;

    while (m != NULL && strcmp(m->host, host) != 0)
        m = m->next;
    if (m == NULL) {
        size_t n = strlen(host) + 1;
        if ((m = calloc(1, sizeof(*m) + n)) == NULL)
            return;
        memcpy(m->host, host, n);
        m->next = *all;
        *all = m;
    }
    SSL_set_app_data(ssl, m);
    if (m->session != NULL && clock_ms() - m->whole_ms < WHOLE_MAX_MS)
        (void)SSL_set_session(ssl, m->session);
    SSL_SESSION_free(m->session);
    m->session = NULL;
}

static void
forget_sessions(struct tls_client *t)
{
    if (t->sessions == NULL)
        return;
    for (struct host_session *m = *t->sessions, *next; m != NULL; m = next) {
        next = m->next;
        SSL_SESSION_free(m->session);
        free(m);
    }
    free(t->sessions);
}

static int
client_setup(struct tls_client *t, const struct settings_downstream *ds, struct err *e)
{
    set_common(t->context);
    SSL_CTX_set_session_cache_mode(t->context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(t->context, on_session);
    if (ds->fingerprint != NULL) {
        if (!parse_fingerprint(ds->fingerprint, t->fingerprint))
            return err_set(e, ERR_CONFIG, "fingerprint: not the sha256 of a certificate in hex");
        t->has_fingerprint = true;
    } else if (ds->tls == SETTINGS_TLS_VERIFY) {
        SSL_CTX_set_verify(t->context, SSL_VERIFY_PEER, NULL);
        if (ds->ca_file != NULL) {
            if (SSL_CTX_load_verify_locations(t->context, ds->ca_file, NULL) != 1)
                return fail(e, ds->ca_file);
        } else if (SSL_CTX_set_default_verify_paths(t->context) != 1) {
            return fail(e, "the system's certificate authorities");
        }
    }
    if (ds->client_certificate != NULL) {
        if (SSL_CTX_use_certificate_chain_file(t->context, ds->client_certificate) != 1)
            return fail(e, ds->client_certificate);
        if (SSL_CTX_use_PrivateKey_file(t->context, ds->client_key, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(t->context) != 1)
            return fail(e, ds->client_key);
    }
    return 0;
}

int
tls_client_new(const struct settings_downstream *ds, struct tls_client **out, struct err *e)
{
    *out = NULL;
    if (ds->tls == SETTINGS_TLS_OFF)
        return 0;
    struct tls_client *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    t->tls = ds->tls;
    t->server_name = ds->server_name;
    t->context = SSL_CTX_new(TLS_client_method());
    t->sessions = calloc(1, sizeof(struct host_session *));
    if (t->context == NULL || t->sessions == NULL || client_setup(t, ds, e) != 0) {
        if (t->context == NULL || t->sessions == NULL)
            fail(e, "TLS");
        tls_client_free(&t);
        return -1;
    }
    *out = t;
    return 0;
}

void
tls_client_free(struct tls_client **t)
{
    if (*t == NULL)
        return;
    /* A connection may outlive us by a moment. */
    if ((*t)->context != NULL)
        SSL_CTX_sess_set_new_cb((*t)->context, NULL);
    SSL_CTX_free((*t)->context);
    forget_sessions(*t);
    free(*t);
    *t = NULL;
}

SSL *
tls_connect(const struct tls_client *t, const char *host)
{
    SSL *ssl = SSL_new(t->context);
    const char *name = t->server_name != NULL ? t->server_name : host;
    struct netaddr address;

    if (ssl == NULL)
        return NULL;
    if (netaddr_parse(span_str(name), &address)) {
        if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) != 1)
            goto failed;
    } else if (SSL_set1_host(ssl, name) != 1 ||
               SSL_set_tlsext_host_name(ssl, (char *)(uintptr_t)name) != 1) {
        goto failed;
    }
    resume(ssl, t->sessions, host);
    return ssl;
failed:
    SSL_free(ssl);
    return NULL;
}

static bool
is_expected(const struct tls_client *t, const SSL *ssl)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;

    if (!t->has_fingerprint)
        return t->tls != SETTINGS_TLS_VERIFY || SSL_get_verify_result(ssl) == X509_V_OK;
    X509 *certificate = SSL_get1_peer_certificate(ssl);
    bool same = certificate != NULL && X509_digest(certificate, EVP_sha256(), digest, &n) == 1 &&
                n == sizeof(t->fingerprint) && memcmp(digest, t->fingerprint, n) == 0;
    X509_free(certificate);
    return same;
}

bool
tls_peer_accepted(const struct tls_client *t, SSL *ssl)
{
    struct host_session *m = SSL_get_app_data(ssl);
    bool is_accepted = is_expected(t, ssl);

    if (m == NULL)
        return is_accepted;
    if (!SSL_session_reused(ssl))
        m->whole_ms = clock_ms();
    /* Resumed, it would show us the same certificate again, though it had another by then. */
    if (!is_accepted) {
        SSL_SESSION_free(m->session);
        m->session = NULL;
    } else if (m->session == NULL && SSL_version(ssl) == TLS1_2_VERSION) {
        m->session = SSL_get1_session(ssl);
    }
    return is_accepted;
}

bool
tls_peer_verified(const struct tls_client *t)
{
    return t->has_fingerprint || t->tls == SETTINGS_TLS_VERIFY;
}

void
tls_log(enum log_level level, const struct tls_outcome *o)
{
    struct log_line l;

    if (!log_wants(level))
        return;
    log_begin(&l, level, "tls");
    log_str(&l, "session", o->session);
    log_str(&l, "leg", o->leg);
    if (o->ssl != NULL) {
        log_str(&l, "version", SSL_get_version(o->ssl));
        log_str(&l, "cipher", SSL_get_cipher_name(o->ssl));
    }
    log_str(&l, "peer", o->peer);
    log_str(&l, "verified", o->is_verified ? "yes" : "no");
    if (o->error != NULL)
        log_str(&l, "error", o->error);
    log_end(&l);
}

#include "proxy/tls_check.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "conf/check_file.h"
#include "proxy/tls.h"

#define SOON_DAYS 14

/* Where a fault is reported. */
struct place {
    struct faults *faults;
    unsigned line;
    const char *key, *path;
};

static void
tell(const struct place *p, bool is_warning, const char *text)
{
    faults_add(p->faults, p->line, is_warning, "%s: %s: %s", p->key, p->path, text);
}

static void
tell_error(const struct place *p)
{
    char text[160];

    tls_error_text(text, sizeof(text));
    tell(p, false, text);
}

static bool
is_readable(const char *path)
{
    return path != NULL && check_file_fault(path, false) == NULL;
}

static void
check_dates(const struct place *p, const X509 *certificate)
{
    int days = 0, seconds = 0;
    struct tm end;
    char date[16] = "", text[80];

    if (certificate == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1 ||
        ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate)) != 1)
        return;
    strftime(date, sizeof(date), "%Y-%m-%d", &end);
    if (days < 0 || seconds < 0)
        snprintf(text, sizeof(text), "expired on %s", date);
    else if (days < SOON_DAYS)
        snprintf(text, sizeof(text), "expires on %s", date);
    else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
        snprintf(text, sizeof(text), "is not valid yet");
    else
        return;
    tell(p, true, text);
}

/* NULL: reported, or not readable. */
static EVP_PKEY *
read_key(const struct place *p)
{
    BIO *file = is_readable(p->path) ? BIO_new_file(p->path, "r") : NULL;

    if (file == NULL)
        return NULL;
    bool is_locked = false;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(file, NULL, tls_no_password, &is_locked);
    BIO_free(file);
    if (key == NULL && is_locked)
        tell(p, false, "has a passphrase, which nobody is there to type");
    else if (key == NULL)
        tell(p, false, "no private key in PEM form");
    return key;
}

/* A chain and its key, as one server or client shows them. */
static void
check_pair(const struct place *certificate, const struct place *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    EVP_PKEY *private_key = read_key(key);
    X509 *leaf = NULL;
    STACK_OF(X509) *chain = NULL;

    if (context != NULL && is_readable(certificate->path)) {
        if (SSL_CTX_use_certificate_chain_file(context, certificate->path) != 1)
            tell_error(certificate);
        else
            leaf = SSL_CTX_get0_certificate(context);
        check_dates(certificate, leaf);
        SSL_CTX_get0_chain_certs(context, &chain);
        for (int i = 0; i < sk_X509_num(chain); i++)
            check_dates(certificate, sk_X509_value(chain, i));
    }
    if (leaf != NULL && private_key != NULL && X509_check_private_key(leaf, private_key) != 1)
        faults_add(key->faults, key->line, false, "%s: %s: is not the key of %s", key->key,
                   key->path, certificate->path);
    EVP_PKEY_free(private_key);
    SSL_CTX_free(context);
    ERR_clear_error();
}

static void
check_authorities(const struct place *p)
{
    X509_STORE *store = is_readable(p->path) ? X509_STORE_new() : NULL;

    if (store == NULL)
        return;
    if (X509_STORE_load_file(store, p->path) != 1) {
        tell(p, false, "no certificate in PEM form");
        ERR_clear_error();
    } else {
        STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(store);
        for (int i = 0; i < sk_X509_OBJECT_num(all); i++)
            check_dates(p, X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i)));
    }
    X509_STORE_free(store);
}

static void
check_inbound(const struct settings_tls *s, struct faults *f)
{
    SSL_CTX *context = s->ciphers != NULL ? SSL_CTX_new(TLS_server_method()) : NULL;

    if (context != NULL && SSL_CTX_set_cipher_list(context, s->ciphers) != 1)
        tell_error(&(struct place){f, s->ciphers_line, "ciphers", s->ciphers});
    SSL_CTX_free(context);
    for (size_t i = 0; i < s->certificate.n || i < s->key.n; i++) {
        /* One without the other is reported by settings_examine. */
        struct place certificate = {f, s->certificate_line, "certificate", NULL};
        struct place key = {f, s->key_line, "key", NULL};
        if (i < s->certificate.n)
            certificate.path = s->certificate.v[i];
        if (i < s->key.n)
            key.path = s->key.v[i];
        check_pair(&certificate, &key);
    }
}

static void
check_downstream(const struct settings_downstream *s, struct faults *f)
{
    struct place certificate = {f, s->client_certificate_line, "client_certificate",
                                s->client_certificate};
    struct place key = {f, s->client_key_line, "client_key", s->client_key};

    check_pair(&certificate, &key);
    if (s->tls == SETTINGS_TLS_VERIFY && s->fingerprint == NULL)
        check_authorities(&(struct place){f, s->ca_file_line, "ca_file", s->ca_file});
}

void
tls_check(const struct settings *st, struct faults *f)
{
    if (st->tls.mode != SETTINGS_TLS_MODE_OFF)
        check_inbound(&st->tls, f);
    for (size_t i = 0; i < st->n_downstreams; i++)
        if (st->downstreams[i].tls != SETTINGS_TLS_OFF)
            check_downstream(&st->downstreams[i], f);
    for (size_t i = 0; i < st->n_directories; i++)
        if (st->directories[i].type != SETTINGS_TYPE_FILE)
            check_authorities(&(struct place){f, st->directories[i].ca_file_line, "ca_file",
                                              st->directories[i].ca_file});
}

#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_tls.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_version.h"
#include "base/span.h"

struct context {
    struct context *next;
    char *ca_file, *certificate; /* paths; the first may be NULL */
    struct file_version ca_version, certificate_version;
    void *tls; /* libldap's */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct context *contexts;

static bool
is_same_path(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool
is_for(const struct context *c, const struct context *wanted)
{
    return is_same_path(c->ca_file, wanted->ca_file) &&
           is_same_path(c->certificate, wanted->certificate) &&
           file_version_equal(&c->ca_version, &wanted->ca_version) &&
           file_version_equal(&c->certificate_version, &wanted->certificate_version);
}

/* LD gets the one of WANTED's files, which it makes if there is none yet. */
static int
share(LDAP *ld, const struct context *wanted)
{
    struct context *c = contexts;
    int client = 0;

    while (c && !is_for(c, wanted))
        c = c->next;
    if (c)
        return ldap_set_option(ld, LDAP_OPT_X_TLS_CTX, c->tls);
    if (ldap_set_option(ld, LDAP_OPT_X_TLS_NEWCTX, &client) != 0)
        return -1;
    c = calloc(1, sizeof *c);
    if (!c)
        return 0; /* it has one, which nobody shares */
    *c = *wanted;
    c->ca_file = wanted->ca_file ? span_dup(span_str(wanted->ca_file)) : NULL;
    c->certificate = span_dup(span_str(wanted->certificate));
    if (!c->certificate || (wanted->ca_file && !c->ca_file) ||
        ldap_get_option(ld, LDAP_OPT_X_TLS_CTX, &c->tls) != 0) {
        free(c->ca_file);
        free(c->certificate);
        free(c);
        return 0;
    }
    c->next = contexts;
    contexts = c;
    return 0;
}

static int
set_certificate(LDAP *ld, const struct settings_directory *conf)
{
    const struct context wanted = {
        .ca_file = conf->ca_file,
        .certificate = conf->bind_password_file,
        .ca_version = file_version_of(conf->ca_file),
        .certificate_version = file_version_of(conf->bind_password_file),
    };
    int rc = ldap_set_option(ld, LDAP_OPT_X_TLS_CERTFILE, conf->bind_password_file);

    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_X_TLS_KEYFILE, conf->bind_password_file);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&lock);
    rc = share(ld, &wanted);
    pthread_mutex_unlock(&lock);
    return rc;
}

int
dir_tls_set(LDAP *ld, const struct settings_directory *conf, struct err *e)
{
    int demand = LDAP_OPT_X_TLS_DEMAND, lowest = LDAP_OPT_X_TLS_PROTOCOL_TLS1_2, client = 0;
    int rc = ldap_set_option(ld, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand);

    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_X_TLS_PROTOCOL_MIN, &lowest);
    if (rc == 0 && conf->ca_file)
        rc = ldap_set_option(ld, LDAP_OPT_X_TLS_CACERTFILE, conf->ca_file);
    if (rc == 0 && conf->bind == SETTINGS_BIND_EXTERNAL && conf->bind_password_file)
        rc = set_certificate(ld, conf);
    else if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_X_TLS_NEWCTX, &client);
    return rc == 0 ? 0 : err_set(e, ERR_LDAP, "TLS: certificate or CA file cannot be used");
}

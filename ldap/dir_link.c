#define _GNU_SOURCE /* explicit_bzero */
#include "ldap/dir_link.h"

#include <errno.h>
#include <fcntl.h>
#include <sasl/sasl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "ldap/dir_gate.h"
#include "ldap/dir_tls.h"

/* What GnuTLS, asked by libldap, has to say of a certificate that was not verified. */
#define NO_WORDS "(unknown error code)"
#define UNVERIFIED                                                                                 \
    "is its certificate vouched for by ca_file, not expired, and for the name in uri?"

int
dir_link_error(LDAP *ld, int code, struct err *e, const char *action)
{
    char *words = NULL;

    ldap_get_option(ld, LDAP_OPT_DIAGNOSTIC_MESSAGE, &words);
    if (words && words[0])
        err_set(e, ERR_LDAP, "%s: %s (%s)", action, ldap_err2string(code),
                strcmp(words, NO_WORDS) == 0 ? UNVERIFIED : words);
    else
        err_set(e, ERR_LDAP, "%s: %s", action, ldap_err2string(code));
    ldap_memfree(words);
    return -1;
}

/* libldap's hook on each connected socket. */

static int
socket_added(LDAP *ld, Sockbuf *sb, LDAPURLDesc *server, struct sockaddr *address,
             struct ldap_conncb *ctx)
{
    ber_socket_t fd = -1;

    (void)ld;
    (void)server;
    (void)address;
    if (ber_sockbuf_ctrl(sb, LBER_SB_OPT_GET_FD, &fd) == 1 && fd >= 0)
        dir_guard_watch(ctx->lc_arg, fd);
    return dir_gate_add(sb);
}

static void
socket_gone(LDAP *ld, Sockbuf *sb, struct ldap_conncb *ctx)
{
    (void)ld;
    (void)sb;
    (void)ctx;
}

void
dir_link_init(struct dir_link *l, struct dir_watchdog *w)
{
    *l = (struct dir_link){
        .hook = {.lc_add = socket_added, .lc_del = socket_gone, .lc_arg = &l->guard}};
    dir_guard_init(&l->guard, w);
}

static int
set_options(LDAP *ld, const struct settings_directory *conf, struct ldap_conncb *hook,
            struct err *e)
{
    const struct timeval timeout = {.tv_sec = (time_t)(conf->timeout / 1000),
                                    .tv_usec = (suseconds_t)(conf->timeout % 1000) * 1000};
    int version = LDAP_VERSION3, idle_s = 120, interval_s = 15, probes = 4;
    int rc = ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version);

    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_RESTART, LDAP_OPT_ON);
    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_NETWORK_TIMEOUT, &timeout);
    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_X_KEEPALIVE_IDLE, &idle_s);
    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_X_KEEPALIVE_INTERVAL, &interval_s);
    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_X_KEEPALIVE_PROBES, &probes);
    if (rc == 0)
        rc = ldap_set_option(ld, LDAP_OPT_CONNECT_CB, hook);
    if (rc != 0)
        return err_set(e, ERR_LDAP, "options of libldap");
    return dir_tls_set(ld, conf, e);
}

/* The first line of the file into OUT; read at each bind, so that a new password is taken at once.
 * None at all is no password: a server may take a name without one for a stranger's bind (RFC 4513
 * 5.1.2), and show him nobody. */
static int
read_password(const char *path, char *out, size_t capacity, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, capacity - 1);
    int saved = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0)
        return err_errno(e, ERR_LDAP, saved, "%s", path);
    out[n] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    if (out[0] == '\0')
        return err_set(e, ERR_LDAP, "%s: no password", path);
    return strlen(out) < capacity - 1 ? 0 : err_set(e, ERR_LDAP, "%s: too long", path);
}

/* A bind by one message and its answer. */
static int
bind_once(LDAP *ld, const struct settings_directory *conf, const char *mechanism,
          struct berval *secret)
{
    struct timeval timeout = {.tv_sec = (time_t)(conf->timeout / 1000),
                              .tv_usec = (suseconds_t)(conf->timeout % 1000) * 1000};
    const char *dn =
        mechanism == LDAP_SASL_SIMPLE && conf->bind == SETTINGS_BIND_SIMPLE ? conf->bind_dn : NULL;
    LDAPMessage *answer = NULL;
    int id, code, rc = ldap_sasl_bind(ld, dn, mechanism, secret, NULL, NULL, &id);

    if (rc != LDAP_SUCCESS)
        return rc;
    rc = ldap_result(ld, id, LDAP_MSG_ALL, &timeout, &answer);
    if (rc == 0)
        return LDAP_TIMEOUT;
    if (rc < 0) {
        ldap_get_option(ld, LDAP_OPT_RESULT_CODE, &code);
        return code == LDAP_SUCCESS ? LDAP_SERVER_DOWN : code;
    }
    rc = ldap_parse_result(ld, answer, &code, NULL, NULL, NULL, NULL, 1);
    return rc == LDAP_SUCCESS ? code : rc;
}

/* GSSAPI needs nothing from a person: the keytab says all. */
static int
answer_nothing(LDAP *ld, unsigned flags, void *defaults, void *prompts)
{
    (void)ld;
    (void)flags;
    (void)defaults;
    for (sasl_interact_t *p = prompts; p->id != SASL_CB_LIST_END; p++) {
        p->result = "";
        p->len = 0;
    }
    return LDAP_SUCCESS;
}

static int
bind_gssapi(LDAP *ld)
{
    int rc = ldap_sasl_interactive_bind_s(ld, NULL, "GSSAPI", NULL, NULL, LDAP_SASL_QUIET,
                                          answer_nothing, NULL);
    Sockbuf *sb = NULL;

    if (rc == LDAP_SUCCESS &&
        (ldap_get_option(ld, LDAP_OPT_SOCKBUF, &sb) != 0 || dir_gate_raise(sb) < 0))
        rc = LDAP_NO_MEMORY;
    return rc;
}

static int
bind_link(LDAP *ld, const struct settings_directory *conf, struct err *e)
{
    char password[1024] = "";
    struct berval secret = {.bv_val = password};
    int rc;

    switch (conf->bind) {
    case SETTINGS_BIND_EXTERNAL:
        return bind_once(ld, conf, "EXTERNAL", &secret);
    case SETTINGS_BIND_GSSAPI:
        return bind_gssapi(ld);
    case SETTINGS_BIND_SIMPLE:
        if (conf->bind_password_file &&
            read_password(conf->bind_password_file, password, sizeof password, e) < 0)
            return LDAP_PARAM_ERROR;
        break;
    case SETTINGS_BIND_ANONYMOUS:
        break;
    }
    secret.bv_len = strlen(password);
    rc = bind_once(ld, conf, LDAP_SASL_SIMPLE, &secret);
    explicit_bzero(password, sizeof password);
    return rc;
}

static int
connect_link(struct dir_link *l, const struct settings_directory *conf, size_t uri, struct err *e)
{
    bool is_plain = strncasecmp(conf->uri.v[uri], "ldap://", 7) == 0;
    int rc = ldap_connect(l->ld);

    /* With a socket it was connected, and what failed is the handshake or the certificate. */
    if (rc != LDAP_SUCCESS)
        return dir_link_error(l->ld, rc, e, l->guard.fd < 0 ? "connect" : "TLS");
    rc = is_plain && conf->starttls ? ldap_start_tls_s(l->ld, NULL, NULL) : LDAP_SUCCESS;
    return rc == LDAP_SUCCESS ? 0 : dir_link_error(l->ld, rc, e, "StartTLS");
}

enum dir_link_result
dir_link_open(struct dir_link *l, const struct dir_plan *plan, size_t uri, struct err *e)
{
    const struct settings_directory *conf = plan->conf;
    int rc = ldap_initialize(&l->ld, conf->uri.v[uri]);

    *e = (struct err){.kind = ERR_NONE};
    if (rc != LDAP_SUCCESS) {
        l->ld = NULL;
        err_set(e, ERR_LDAP, "%s", ldap_err2string(rc));
        return DIR_LINK_FAILED;
    }
    rc = LDAP_OTHER;
    dir_guard_arm(&l->guard, clock_ms() + conf->timeout);
    if (set_options(l->ld, conf, &l->hook, e) == 0 && connect_link(l, conf, uri, e) == 0) {
        dir_guard_arm(&l->guard, clock_ms() + conf->timeout);
        rc = bind_link(l->ld, conf, e);
        if (rc != LDAP_SUCCESS && e->kind == ERR_NONE)
            dir_link_error(l->ld, rc, e, "bind");
    }
    if (rc == LDAP_SUCCESS) {
        dir_guard_disarm(&l->guard);
        return DIR_LINK_OK;
    }
    if (dir_link_close(l))
        err_set(e, ERR_LDAP, "no answer within the timeout");
    return rc == LDAP_INVALID_CREDENTIALS ? DIR_LINK_REFUSED : DIR_LINK_FAILED;
}

bool
dir_link_close(struct dir_link *l)
{
    if (l->ld)
        ldap_unbind_ext(l->ld, NULL, NULL);
    l->ld = NULL;
    return dir_guard_close(&l->guard);
}

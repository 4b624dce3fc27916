#include "conf/check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "conf/check_file.h"
#include "conf/value.h"

/* A fault or doubt about KEY of the section at S: told where the file sets it, else at the
 * section's header, else of the file as a whole. */
#define LINE(s, key)          ((s)->key##_line != 0 ? (s)->key##_line : (s)->line)
#define FAULT(f, s, key, ...) faults_add((f), LINE((s), key), false, #key ": " __VA_ARGS__)
#define WARN(f, s, key, ...)  faults_add((f), LINE((s), key), true, #key ": " __VA_ARGS__)

/* What WRONG says about PATH, as a fault of KEY. */
static void
tell(struct faults *f, unsigned line, const char *key, const char *path, const char *wrong)
{
    if (wrong != NULL)
        faults_add(f, line, false, "%s: %s: %s", key, path, wrong);
}

#define TELL(f, s, key, ...)                                                                       \
    do {                                                                                           \
        if ((s)->key != NULL)                                                                      \
            tell((f), LINE((s), key), #key, (s)->key, (__VA_ARGS__));                              \
    } while (0)
#define CHECK_FILE(f, s, key)      TELL(f, s, key, check_file_fault((s)->key, false))
#define CHECK_SECRET(f, s, key)    TELL(f, s, key, check_file_fault((s)->key, true))
#define CHECK_PASSWORD(f, s, key)  TELL(f, s, key, check_file_password_fault((s)->key))
#define CHECK_DIRECTORY(f, s, key) TELL(f, s, key, check_file_directory_fault((s)->key))

/* --- [server] [spool] [tls] [log] --- */

/* What is wrong with S as an address (with ALLOW_DOMAIN also as "@domain"); NULL: nothing. */
static const char *
address_fault(const char *s, bool allow_domain)
{
    const char *wrong = allow_domain ? "is not an address or @domain" : "is not an address";
    const char *at = strrchr(s, '@');

    if (*s == '<')
        return "is not an address; write it without < and >";
    /* Only within quotes may a local part hold these. */
    if (at == NULL || (*s != '"' && s + strcspn(s, "<>@ \t") != at) || (!allow_domain && at == s))
        return wrong;
    for (const char *p = ++at; *p != '\0'; p++)
        if ((unsigned char)*p >= 0x80)
            return "has a domain that is not ASCII; write it as xn--...";
    return *at == '[' || value_is_domain(span_str(at)) ? NULL : wrong;
}

static bool
has_everybody(const struct network_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].prefix == 0)
            return true;
    return false;
}

static bool
is_too_long_for_socket(const char *path)
{
    return strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path);
}

static void
check_server(struct faults *f, const struct settings *st)
{
    const struct settings_server *s = &st->server;
    uid_t uid;
    gid_t gid;

    if (!value_is_domain(span_str(s->hostname)))
        FAULT(f, s, hostname, "%s is not a host name", s->hostname);
    else if (strchr(s->hostname, '.') == NULL)
        WARN(f, s, hostname, "%s has no dot; other servers may not accept it", s->hostname);
    if (s->user != NULL && !settings_find_user(s->user, &uid, &gid))
        FAULT(f, s, user, "there is no user %s", s->user);
    else if (s->user != NULL && geteuid() != 0 && geteuid() != uid)
        WARN(f, s, user, "no effect unless root starts it");
    TELL(f, s, state_dir, check_file_made_fault(s->state_dir));
    const char *wrong = s->postmaster != NULL ? address_fault(s->postmaster, false) : NULL;
    if (wrong != NULL)
        FAULT(f, s, postmaster, "%s %s", s->postmaster, wrong);
    if (st->control.socket != NULL && is_too_long_for_socket(st->control.socket))
        FAULT(f, &st->control, socket, "its path is too long for a socket");
    else
        TELL(f, &st->control, socket, check_file_socket_fault(st->control.socket));
    if (has_everybody(&s->xclient))
        WARN(f, s, xclient, "everybody may claim any address");
    if (has_everybody(&s->proxy_protocol))
        WARN(f, s, proxy_protocol, "everybody may claim any address");
    if (st->spool.dir_line != 0)
        CHECK_DIRECTORY(f, &st->spool, dir);
    if (s->max_message_size > st->spool.memory + st->spool.disk_total / 4)
        WARN(f, &st->spool, disk_total,
             "a client's quarter of it is less than max_message_size, which gets 452 for ever");
}

/* Of [server] an address may stand twice: its workers share each. */
static void
check_http(struct faults *f, const struct settings *st)
{
    const struct listen_list *http = &st->http.listen, *smtp = &st->server.listen;

    for (size_t i = 0; i < http->n; i++) {
        char text[NETADDR_TEXT];
        size_t k = 0, m = 0;
        netaddr_format(&http->v[i].address, text);
        while (k < i && !settings_listen_clash(&http->v[k], &http->v[i]))
            k++;
        while (m < smtp->n && !settings_listen_clash(&smtp->v[m], &http->v[i]))
            m++;
        if (k < i || m < smtp->n)
            FAULT(f, &st->http, listen, "%s, port %u, is taken by another of %s", text,
                  (unsigned)http->v[i].port, k < i ? "these" : "[server]");
    }
}

static void
check_tls(struct faults *f, const struct settings_tls *s)
{
    for (size_t i = 0; i < s->certificate.n; i++)
        tell(f, LINE(s, certificate), "certificate", s->certificate.v[i],
             check_file_fault(s->certificate.v[i], false));
    for (size_t i = 0; i < s->key.n; i++)
        tell(f, LINE(s, key), "key", s->key.v[i], check_file_fault(s->key.v[i], true));
    if (s->certificate.n != s->key.n) {
        unsigned line = s->key_line != 0 ? s->key_line : s->certificate_line;
        faults_add(f, line, false, "certificate, key: %zu certificates but %zu keys",
                   s->certificate.n, s->key.n);
    }
    if (s->mode == SETTINGS_TLS_MODE_REQUIRED && s->certificate.n == 0)
        FAULT(f, s, mode, "required, but there is no certificate");
    else if (s->mode == SETTINGS_TLS_MODE_REQUIRED)
        WARN(f, s, mode, "required: an MX loses the mail of senders without TLS (RFC 3207 4)");
    else if (s->mode == SETTINGS_TLS_MODE_OPPORTUNISTIC && s->certificate.n == 0)
        WARN(f, s, certificate, "none; STARTTLS is not offered");
}

static bool
is_host_port(const char *text, uint16_t default_port)
{
    char host[256];
    uint16_t port;

    return value_host_port(span_str(text), default_port, host, sizeof(host), &port) == NULL;
}

static bool
is_address_port(const char *text, uint16_t default_port)
{
    char host[256];
    uint16_t port;
    struct netaddr address;

    return value_host_port(span_str(text), default_port, host, sizeof(host), &port) == NULL &&
           netaddr_parse(span_str(host), &address);
}

static bool
is_log_target(const char *t)
{
    if (strncmp(t, "unix:", 5) == 0)
        return t[5] == '/';
    if (strncmp(t, "udp:", 4) == 0 || strncmp(t, "tcp:", 4) == 0)
        return is_host_port(t + 4, 0);
    return strcmp(t, "syslog") == 0 || strcmp(t, "stderr") == 0;
}

int
settings_facility(const char *name)
{
    static const struct {
        const char *name;
        int value;
    } facilities[] = {{"kern", LOG_KERN},     {"user", LOG_USER},     {"mail", LOG_MAIL},
                      {"daemon", LOG_DAEMON}, {"auth", LOG_AUTH},     {"syslog", LOG_SYSLOG},
                      {"lpr", LOG_LPR},       {"news", LOG_NEWS},     {"uucp", LOG_UUCP},
                      {"cron", LOG_CRON},     {"local0", LOG_LOCAL0}, {"local1", LOG_LOCAL1},
                      {"local2", LOG_LOCAL2}, {"local3", LOG_LOCAL3}, {"local4", LOG_LOCAL4},
                      {"local5", LOG_LOCAL5}, {"local6", LOG_LOCAL6}, {"local7", LOG_LOCAL7}};

    for (size_t i = 0; i < sizeof(facilities) / sizeof(facilities[0]); i++)
        if (strcmp(facilities[i].name, name) == 0)
            return facilities[i].value;
    return -1;
}

/* Both count from the most severe, so that one may be cast to the other. */
_Static_assert((int)SETTINGS_LEVEL_ERROR == (int)LOG_LEVEL_ERROR &&
                   (int)SETTINGS_LEVEL_DEBUG == (int)LOG_LEVEL_DEBUG,
               "levels");

static void
check_log(struct faults *f, const struct settings_log *s)
{
    if (!is_log_target(s->target))
        FAULT(f, s, target, "%s is not syslog, stderr, unix:/PATH, udp:HOST:PORT or tcp:HOST:PORT",
              s->target);
    else if (strncmp(s->target, "unix:", 5) == 0 && is_too_long_for_socket(s->target + 5))
        FAULT(f, s, target, "its path is too long for a socket");
    if (settings_facility(s->facility) < 0)
        FAULT(f, s, facility, "%s is not a syslog facility", s->facility);
    /* RFC 5424 6: APP-NAME */
    for (size_t i = 0; s->tag[i] != '\0'; i++) {
        if (s->tag[i] <= ' ' || s->tag[i] > '~' || i >= 48) {
            FAULT(f, s, tag, "not 1 to 48 printable characters without blanks");
            break;
        }
    }
}

/* --- [domain] --- */

static void
link_downstream(struct faults *f, const struct settings *st, struct settings_domain *d)
{
    if (d->downstream == NULL) {
        FAULT(f, d, downstream, "[domain %s] has none", d->name);
        return;
    }
    for (size_t i = 0; i < st->n_downstreams; i++) {
        if (strcmp(st->downstreams[i].name, d->downstream) == 0) {
            d->downstream_index = i;
            return;
        }
    }
    FAULT(f, d, downstream, "there is no [downstream %s]", d->downstream);
}

/* Where the directory of that name is; false: nowhere. */
static bool
find_directory(const struct settings *st, const char *name, size_t *index)
{
    for (*index = 0; *index < st->n_directories; (*index)++)
        if (strcmp(st->directories[*index].name, name) == 0)
            return true;
    return false;
}

static void
link_directories(struct faults *f, const struct settings *st, struct settings_domain *d)
{
    size_t unnamed, n = d->directory.n > 0 ? d->directory.n : 1;
    bool is_one_unnamed = find_directory(st, "", &unnamed);

    if (n > SETTINGS_DIRECTORIES_MAX)
        FAULT(f, d, directory, "more than %d", SETTINGS_DIRECTORIES_MAX);
    d->directory_index = calloc(n, sizeof(*d->directory_index));
    if (d->directory_index == NULL) {
        faults_add(f, d->line, false, "out of memory");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const char *name = d->directory.n > 0 ? d->directory.v[i] : "";
        if (find_directory(st, name, &d->directory_index[i]))
            d->n_directory_index++;
        else if (d->directory.n > 0)
            FAULT(f, d, directory, "there is no [directory %s]%s", name,
                  is_one_unnamed ? "; the one without a name needs one to be in a list" : "");
        else
            FAULT(f, d, recipients, "directory, but there is no [directory]");
    }
}

static void
check_domain(struct faults *f, const struct settings *st, struct settings_domain *d)
{
    link_downstream(f, st, d);
    if (d->recipients == SETTINGS_RECIPIENTS_DIRECTORY)
        link_directories(f, st, d);
    else if (d->directory.n > 0)
        WARN(f, d, directory, "no effect without recipients = directory");
    if (d->recipients == SETTINGS_RECIPIENTS_ANY)
        WARN(f, d, recipients, "any: unknown recipients are accepted here and bounce later");
}

/* --- [downstream] --- */

static bool
is_fingerprint(const char *s)
{
    size_t digits = 0;

    for (; *s != '\0'; s++) {
        if (strchr("0123456789abcdefABCDEF", *s) != NULL)
            digits++;
        else if (*s != ':')
            return false;
    }
    return digits == 64;
}

/* Its connections would be counted apart, and so be more than max_connections. */
static void
check_twins(struct faults *f, const struct settings_downstream *d)
{
    for (size_t i = 1; i < d->hosts.n; i++) {
        const struct host_entry *host = &d->hosts.v[i];
        size_t k = 0;
        while (k < i && (d->hosts.v[k].port != host->port ||
                         !span_is_nocase(span_str(host->name), d->hosts.v[k].name)))
            k++;
        if (k < i)
            FAULT(f, d, hosts, "%s, port %u, stands there twice", host->name, (unsigned)host->port);
    }
}

static void
check_downstream(struct faults *f, const struct settings_downstream *d)
{
    bool has_weight = false;

    for (size_t i = 0; i < d->hosts.n; i++)
        has_weight = has_weight || d->hosts.v[i].weight > 0;
    if (d->hosts.n == 0)
        FAULT(f, d, hosts, "[downstream %s] has none", d->name);
    else if (!has_weight)
        FAULT(f, d, hosts, "all of them are spares");
    check_twins(f, d);
    CHECK_FILE(f, d, ca_file);
    CHECK_FILE(f, d, client_certificate);
    CHECK_SECRET(f, d, client_key);
    if (d->client_certificate != NULL && d->client_key == NULL)
        FAULT(f, d, client_certificate, "client_key is missing");
    if (d->client_certificate == NULL && d->client_key != NULL)
        FAULT(f, d, client_key, "client_certificate is missing");
    if (d->fingerprint != NULL && !is_fingerprint(d->fingerprint))
        FAULT(f, d, fingerprint, "not a sha256 in 64 hexadecimal digits");
    if (d->fingerprint != NULL && d->tls == SETTINGS_TLS_OFF)
        FAULT(f, d, fingerprint, "there is no certificate to verify with tls = off");
    if (d->ca_file != NULL && d->tls != SETTINGS_TLS_VERIFY)
        WARN(f, d, ca_file, "no effect without tls = verify");
    if (d->server_name != NULL && d->tls != SETTINGS_TLS_VERIFY)
        WARN(f, d, server_name, "no effect without tls = verify");
}

/* --- [directory] --- */

/* NULL, or what is wrong with a server's URI; whether it begins in the clear in *IS_CLEAR. */
static const char *
uri_fault(struct span uri, bool *is_clear)
{
    char host[256];
    uint16_t port;

    *is_clear = span_starts_nocase(uri, "ldap://");
    if (uri.n > SETTINGS_URI_MAX)
        return "too long";
    if (span_starts_nocase(uri, "ldapi://"))
        return NULL;
    if (!*is_clear && !span_starts_nocase(uri, "ldaps://"))
        return "not ldap://, ldaps:// or ldapi://";
    size_t n = strlen(*is_clear ? "ldap://" : "ldaps://");
    struct span server = span_of(uri.p + n, uri.n - n);
    if (span_ends_nocase(server, "/"))
        server.n--;
    return value_host_port(server, 389, host, sizeof(host), &port);
}

static void
check_uris(struct faults *f, const struct settings_directory *d)
{
    bool is_clear = false;

    if (d->uri.n == 0)
        FAULT(f, d, uri, "type ldap and ad need servers");
    if (d->uri.n > SETTINGS_SERVERS_MAX)
        FAULT(f, d, uri, "more than %d servers", SETTINGS_SERVERS_MAX);
    for (size_t i = 0; i < d->uri.n; i++) {
        bool is_ldap;
        const char *wrong = uri_fault(span_str(d->uri.v[i]), &is_ldap);
        if (wrong != NULL)
            FAULT(f, d, uri, "%s: %s", d->uri.v[i], wrong);
        is_clear = is_clear || (is_ldap && !d->starttls);
    }
    if (is_clear && d->bind_password_file != NULL)
        WARN(f, d, uri, "the password goes in the clear over ldap:// without starttls");
}

static void
check_bind(struct faults *f, const struct settings_directory *d)
{
    /* With external it is no password, but the certificate and key to log in with. */
    if (d->bind == SETTINGS_BIND_EXTERNAL) {
        CHECK_SECRET(f, d, bind_password_file);
        return;
    }
    CHECK_PASSWORD(f, d, bind_password_file);
    if (d->bind != SETTINGS_BIND_SIMPLE) {
        if (d->bind_password_file != NULL)
            WARN(f, d, bind_password_file, "no effect without bind = simple or external");
        return;
    }
    /* RFC 4513 5.1.2: a name without a password is no login at all. */
    if (d->bind_dn != NULL && d->bind_password_file == NULL)
        FAULT(f, d, bind_dn, "bind_password_file is missing");
    if (d->bind_dn == NULL && d->bind_password_file != NULL)
        FAULT(f, d, bind_password_file, "bind_dn is missing");
    if (d->bind_dn == NULL && d->bind_password_file == NULL && d->type == SETTINGS_TYPE_AD)
        WARN(f, d, bind, "without bind_dn the login is anonymous, which Active Directory refuses");
}

/* The rest of a filter's grammar is libldap's.  An escaped parenthesis is \28 or \29. */
static bool
is_balanced(const char *filter)
{
    size_t depth = 0;

    for (const char *p = filter; *p != '\0'; p++) {
        if (*p == '(')
            depth++;
        else if (*p == ')' && depth-- == 0)
            return false;
        if (depth == 0 && p[1] != '\0')
            return false;
    }
    return depth == 0;
}

/* Whatever is neither & nor | nor ! compares. */
static bool
has_comparisons(const char *filter)
{
    for (const char *p = strchr(filter, '('); p != NULL; p = strchr(p, '(')) {
        p += 1 + strspn(p + 1, " ");
        if (*p == '\0' || strchr("&|!", *p) != NULL)
            continue;
        const char *equals = memchr(p, '=', strcspn(p, "()"));
        if (equals == NULL || equals == p)
            return false;
    }
    return true;
}

static const char *
filter_fault(const char *filter)
{
    if (filter[0] != '(')
        return "not in parentheses (RFC 4515)";
    if (!is_balanced(filter))
        return "its parentheses do not match (RFC 4515)";
    return has_comparisons(filter) ? NULL : "a comparison in it has no = (RFC 4515)";
}

/* Does a comparison with what is asked for look into another attribute than ATTRIBUTE? */
static bool
looks_elsewhere(const char *filter, const char *attribute)
{
    for (const char *asked = strchr(filter, '%'); asked != NULL; asked = strchr(asked + 1, '%')) {
        const char *name = asked;
        while (name > filter && name[-1] != '(')
            name--;
        if (!span_is_nocase(span_of(name, strcspn(name, "=<>~:")), attribute))
            return true;
    }
    return false;
}

/* Where addresses stand, unless attributes says otherwise. */
static const char *
default_attribute(const struct settings_directory *d)
{
    return d->type == SETTINGS_TYPE_AD ? "proxyAddresses" : "mail";
}

/* The filter that there is without one looks into one attribute alone. */
static void
check_no_filter(struct faults *f, const struct settings_directory *d)
{
    const char *asked = default_attribute(d);

    if (d->mode == SETTINGS_MODE_LOOKUP && d->attributes.n > 0 &&
        (d->attributes.n > 1 || !span_is_nocase(span_str(d->attributes.v[0]), asked)))
        WARN(f, d, attributes, "without a filter only %s is looked into", asked);
}

static void
check_filters(struct faults *f, const struct settings_directory *d)
{
    const char *wrong = d->filter != NULL ? filter_fault(d->filter) : NULL;

    if (d->filter == NULL)
        check_no_filter(f, d);
    else if (strstr(d->filter, "%u") == NULL && strstr(d->filter, "%l") == NULL)
        FAULT(f, d, filter, "neither %%u nor %%l is in it, so all recipients look the same");
    if (wrong != NULL)
        FAULT(f, d, filter, "%s", wrong);
    else if (d->filter != NULL && d->mode == SETTINGS_MODE_SNAPSHOT && d->attributes.n == 0 &&
             looks_elsewhere(d->filter, default_attribute(d)))
        WARN(f, d, filter, "with mode = snapshot and no attributes only values of %s count",
             default_attribute(d));
    wrong = d->snapshot_filter != NULL ? filter_fault(d->snapshot_filter) : NULL;
    if (wrong != NULL)
        FAULT(f, d, snapshot_filter, "%s", wrong);
}

static void
check_servers(struct faults *f, const struct settings_directory *d, const char *state_dir)
{
    check_uris(f, d);
    check_bind(f, d);
    CHECK_FILE(f, d, ca_file);
    if (d->type == SETTINGS_TYPE_LDAP && d->base == NULL)
        FAULT(f, d, base, "type ldap needs one");
    check_filters(f, d);
    if (d->mode == SETTINGS_MODE_SNAPSHOT && state_dir == NULL)
        FAULT(f, d, mode, "snapshot needs a state_dir");
}

static void
check_directory(struct faults *f, const struct settings_directory *d, const char *state_dir)
{
    if (d->type != SETTINGS_TYPE_FILE) {
        check_servers(f, d, state_dir);
        return;
    }
    CHECK_FILE(f, d, file);
    if (d->file == NULL)
        FAULT(f, d, file, "type file needs one");
    if (d->mode == SETTINGS_MODE_SNAPSHOT)
        WARN(f, d, mode, "snapshot has no effect with type file");
}

/* --- the rest --- */

/* Every one that is none. */
static void
check_addresses(struct faults *f, unsigned line, const char *key, const struct str_list *l,
                bool allow_domain)
{
    for (size_t i = 0; i < l->n; i++) {
        const char *wrong = address_fault(l->v[i], allow_domain);
        if (wrong != NULL)
            faults_add(f, line, false, "%s: %s %s", key, l->v[i], wrong);
    }
}

/* Recipients in other domains are refused before traps are looked at. */
static void
check_traps(struct faults *f, const struct settings *st)
{
    const struct settings_harvest *s = &st->harvest;

    check_addresses(f, LINE(s, traps), "traps", &s->traps, false);
    for (size_t i = 0; i < s->traps.n; i++) {
        const char *trap = s->traps.v[i];
        if (address_fault(trap, false) == NULL &&
            settings_domain_for(st, span_str(strrchr(trap, '@') + 1)) == NULL)
            WARN(f, s, traps, "%s is in no accepted domain, so it catches nobody", trap);
    }
}

static void
check_harvest(struct faults *f, const struct settings *st)
{
    const struct settings_harvest *s = &st->harvest;

    check_traps(f, st);
    if (s->block_time > s->block_time_max)
        WARN(f, s, block_time, "longer than block_time_max, which limits it");
    if (s->threshold_wide > 0 && s->threshold_wide < s->threshold)
        WARN(f, s, threshold_wide, "less than threshold: a network is judged before a client");
    if (has_everybody(&s->allow))
        WARN(f, s, allow, "everybody; enabled = no says so more clearly");
    CHECK_PASSWORD(f, s, redis_password_file);
    if (strncmp(s->redis, "unix:/", 6) != 0 && !is_host_port(s->redis, 6379))
        FAULT(f, s, redis, "%s is not HOST:PORT or unix:/PATH", s->redis);
    else if (strncmp(s->redis, "unix:", 5) == 0 && is_too_long_for_socket(s->redis + 5))
        FAULT(f, s, redis, "its path is too long for a socket");
}

static void
check_blocked(struct faults *f, const struct settings_blocked *s)
{
    check_addresses(f, LINE(s, senders), "senders", &s->senders, true);
    check_addresses(f, LINE(s, recipients), "recipients", &s->recipients, true);
    if (has_everybody(&s->clients))
        WARN(f, s, clients, "everybody");
}

static void
check_dns(struct faults *f, const struct settings *st)
{
    const struct settings_dnsbl *s = &st->dnsbl;
    bool is_private = false, is_network = false;

    for (size_t i = 0; i < s->self.n; i++) {
        const struct network *n = &s->self.v[i];
        is_private = is_private || netaddr_is_private(&n->base);
        is_network = is_network || n->prefix != (n->base.family == 6 ? 128 : 32);
    }
    if (is_private)
        WARN(f, s, self, "private addresses are on no list");
    if (is_network)
        WARN(f, s, self, "of a network the first address alone is looked up");
    if (s->self.n > 0 && s->null_sender.n == 0)
        WARN(f, s, self, "no effect without null_sender");
    if (st->dns.nameserver != NULL && !is_address_port(st->dns.nameserver, 53))
        FAULT(f, &st->dns, nameserver, "%s is not an IP address, with or without a port",
              st->dns.nameserver);
}

void
settings_check(struct settings *st, struct faults *f)
{
    check_server(f, st);
    check_http(f, st);
    check_tls(f, &st->tls);
    check_log(f, &st->log);
    if (st->n_domains == 0)
        faults_add(f, 0, false, "no [domain ...]: no mail would be accepted");
    for (size_t i = 0; i < st->n_domains; i++)
        check_domain(f, st, &st->domains[i]);
    for (size_t i = 0; i < st->n_downstreams; i++)
        check_downstream(f, &st->downstreams[i]);
    for (size_t i = 0; i < st->n_directories; i++)
        check_directory(f, &st->directories[i], st->server.state_dir);
    check_harvest(f, st);
    check_blocked(f, &st->blocked);
    check_dns(f, st);
}

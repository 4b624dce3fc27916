#define _GNU_SOURCE /* getgrouplist */
#include "conf/check.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "conf/value.h"

struct check {
    struct settings *st;
    struct faults *faults;
    check_line_fn *line_of;
    void *arg;
};

static unsigned
line(const struct check *c, const void *member)
{
    return c->line_of(c->arg, member);
}

#define FAULT(c, member, ...) faults_add((c)->faults, line((c), (member)), false, __VA_ARGS__)
#define WARN(c, member, ...)  faults_add((c)->faults, line((c), (member)), true, __VA_ARGS__)

/* A file that must be there; a secret one must be closed to others. */
static void
check_file(const struct check *c, const void *member, const char *key, const char *path,
           bool is_secret)
{
    struct stat s;

    if (path == NULL)
        return;
    if (stat(path, &s) != 0)
        FAULT(c, member, "%s = %s: %s", key, path, strerror(errno));
    else if (!S_ISREG(s.st_mode))
        FAULT(c, member, "%s = %s: not a file", key, path);
    else if (is_secret && (s.st_mode & S_IRWXO) != 0)
        FAULT(c, member, "%s = %s: others may read it (mode %04o; 0640 or less is fine)", key, path,
              (unsigned)(s.st_mode & 07777));
}

static bool
is_directory(const char *path)
{
    struct stat s;

    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

/* The directory that PATH is in must be there. */
static bool
has_parent(const char *path)
{
    char *copy = span_dup(span_str(path));

    if (copy == NULL)
        return false;
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    char *slash = strrchr(copy, '/');
    bool is_there = true;
    if (slash != NULL) {
        slash[slash == copy ? 1 : 0] = '\0';
        is_there = is_directory(copy);
    }
    free(copy);
    return is_there;
}

static bool
is_hostname(const char *s)
{
    size_t n = strlen(s);

    if (n == 0 || n > 255 || s[0] == '.' || s[0] == '-')
        return false;
    for (; *s != '\0'; s++) {
        bool is_good = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
                       (*s >= '0' && *s <= '9') || *s == '-' || *s == '_' || *s == '.';
        if (!is_good)
            return false;
    }
    return true;
}

/* "a@b" or "@b" */
static bool
is_address(const char *s, bool allow_domain)
{
    const char *at = strrchr(s, '@');

    return at != NULL && at[1] != '\0' && (allow_domain || at != s) && strlen(s) <= 571;
}

static void
check_addresses(const struct check *c, const struct str_list *l, const char *key, bool allow_domain)
{
    for (size_t i = 0; i < l->n; i++)
        if (!is_address(l->v[i], allow_domain))
            FAULT(c, l, "%s: %s is not an address%s", key, l->v[i],
                  allow_domain ? " or @domain" : "");
}

static void
check_server(const struct check *c)
{
    const struct settings_server *s = &c->st->server;

    if (!is_hostname(s->hostname))
        FAULT(c, &s->hostname, "hostname = %s: not a host name", s->hostname);
    else if (strchr(s->hostname, '.') == NULL)
        WARN(c, &s->hostname, "hostname %s has no dot: other servers may refuse it", s->hostname);
    if (s->listen.n == 0)
        FAULT(c, &s->listen, "listen: no address to listen on");
    if (s->user != NULL && getpwnam(s->user) == NULL)
        FAULT(c, &s->user, "user = %s: there is no such user", s->user);
    if (s->state_dir != NULL && !is_directory(s->state_dir) && !has_parent(s->state_dir))
        FAULT(c, &s->state_dir, "state_dir = %s: its parent directory is not there", s->state_dir);
    if (s->postmaster != NULL && !is_address(s->postmaster, false))
        FAULT(c, &s->postmaster, "postmaster = %s: not an address", s->postmaster);
    if (c->st->spool.dir != s->state_dir && !is_directory(c->st->spool.dir) &&
        (s->state_dir == NULL || strcmp(c->st->spool.dir, s->state_dir) != 0))
        FAULT(c, &c->st->spool.dir, "dir = %s: not a directory", c->st->spool.dir);
}

static void
check_tls(const struct check *c)
{
    const struct settings_tls *tls = &c->st->tls;

    for (size_t i = 0; i < tls->certificate.n; i++)
        check_file(c, &tls->certificate, "certificate", tls->certificate.v[i], false);
    for (size_t i = 0; i < tls->key.n; i++)
        check_file(c, &tls->key, "key", tls->key.v[i], true);
    if (tls->certificate.n != tls->key.n)
        FAULT(c, tls->key.n > 0 ? &tls->key : &tls->certificate,
              "certificate and key: %zu certificates and %zu keys; each certificate needs its key",
              tls->certificate.n, tls->key.n);
    if (tls->mode == SETTINGS_TLS_MODE_REQUIRED && tls->certificate.n == 0)
        FAULT(c, &tls->mode, "mode = required without a certificate");
    else if (tls->mode == SETTINGS_TLS_MODE_REQUIRED)
        WARN(c, &tls->mode,
             "mode = required on an MX refuses every sender without TLS (RFC 3207 4)");
    else if (tls->mode == SETTINGS_TLS_MODE_OPPORTUNISTIC && tls->certificate.n == 0)
        WARN(c, &tls->certificate, "no certificate: STARTTLS is not offered");
}

static bool
is_log_target(const char *t)
{
    char host[256];
    uint16_t port;

    if (strcmp(t, "syslog") == 0 || strcmp(t, "stderr") == 0)
        return true;
    if (strncmp(t, "unix:", 5) == 0)
        return t[5] == '/';
    if (strncmp(t, "udp:", 4) == 0 || strncmp(t, "tcp:", 4) == 0)
        return value_host_port(span_str(t + 4), 514, host, sizeof(host), &port) == NULL;
    return false;
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

/* An empty text here means the default, for there is no log without them. */
static bool
default_text(char **member, const char *text)
{
    return *member != NULL || (*member = span_dup(span_str(text))) != NULL;
}

static void
check_log(const struct check *c)
{
    struct settings_log *log = &c->st->log;

    if (!default_text(&log->target, "syslog") || !default_text(&log->facility, "mail") ||
        !default_text(&log->tag, "postern")) {
        FAULT(c, log, "out of memory");
        return;
    }
    if (!is_log_target(log->target))
        FAULT(c, &log->target,
              "target = %s: not syslog, stderr, unix:PATH, udp:HOST:PORT or tcp:HOST:PORT",
              log->target);
    if (settings_facility(log->facility) < 0)
        FAULT(c, &log->facility, "facility = %s: no facility of syslog", log->facility);
    for (const char *p = log->tag; *p != '\0'; p++) {
        if (*p <= ' ' || *p > '~' || p - log->tag >= 48) {
            FAULT(c, &log->tag, "tag: up to 48 printable characters without blanks");
            break;
        }
    }
}

static void
check_domain(const struct check *c, struct settings_domain *d)
{
    struct settings *st = c->st;
    static char none[] = "", *unnamed[] = {none};
    struct str_list names = d->directory;

    if (d->downstream == NULL) {
        FAULT(c, d, "[domain %s]: downstream is not given", d->name);
    } else {
        d->downstream_index = st->n_downstreams;
        for (size_t i = 0; i < st->n_downstreams; i++)
            if (strcmp(st->downstreams[i].name, d->downstream) == 0)
                d->downstream_index = i;
        if (d->downstream_index == st->n_downstreams)
            FAULT(c, &d->downstream, "downstream = %s: there is no [downstream %s]", d->downstream,
                  d->downstream);
    }
    if (d->recipients == SETTINGS_RECIPIENTS_ANY)
        WARN(c, &d->recipients,
             "recipients = any: every address of %s is taken, and what does not exist bounces",
             d->name);
    if (d->recipients != SETTINGS_RECIPIENTS_DIRECTORY)
        return;
    if (names.n == 0)
        names = (struct str_list){unnamed, 1};
    d->directory_index = calloc(names.n, sizeof(*d->directory_index));
    if (d->directory_index == NULL) {
        FAULT(c, d, "out of memory");
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        size_t k = 0;
        while (k < st->n_directories && strcmp(st->directories[k].name, names.v[i]) != 0)
            k++;
        if (k < st->n_directories)
            d->directory_index[d->n_directory_index++] = k;
        else if (*names.v[i] == '\0')
            FAULT(c, d, "[domain %s]: there is no [directory] for its recipients", d->name);
        else
            FAULT(c, &d->directory, "directory = %s: there is no [directory %s]", names.v[i],
                  names.v[i]);
    }
}

static bool
is_fingerprint(const char *s)
{
    size_t digits = 0;

    for (; *s != '\0'; s++) {
        if (*s == ':')
            continue;
        if (!((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'f') || (*s >= 'A' && *s <= 'F')))
            return false;
        digits++;
    }
    return digits == 64;
}

static void
check_downstream(const struct check *c, const struct settings_downstream *d)
{
    bool has_weight = false;

    if (d->hosts.n == 0)
        FAULT(c, &d->hosts, "[downstream %s]: hosts is not given", d->name);
    if (d->hosts.n > 64)
        FAULT(c, &d->hosts, "hosts: at most 64");
    for (size_t i = 0; i < d->hosts.n; i++)
        has_weight = has_weight || d->hosts.v[i].weight > 0;
    if (d->hosts.n > 0 && !has_weight)
        FAULT(c, &d->hosts, "hosts: all are spares (weight=0)");
    check_file(c, &d->ca_file, "ca_file", d->ca_file, false);
    check_file(c, &d->client_certificate, "client_certificate", d->client_certificate, false);
    check_file(c, &d->client_key, "client_key", d->client_key, true);
    if ((d->client_certificate == NULL) != (d->client_key == NULL))
        FAULT(c, d->client_key == NULL ? &d->client_certificate : &d->client_key,
              "client_certificate and client_key go together");
    if (d->fingerprint != NULL && !is_fingerprint(d->fingerprint))
        FAULT(c, &d->fingerprint, "fingerprint: not the sha256 of a certificate (64 hex digits)");
    if (d->tls == SETTINGS_TLS_OFF &&
        (d->ca_file != NULL || d->fingerprint != NULL || d->client_certificate != NULL))
        FAULT(c, &d->tls, "tls = off with certificates given");
    else if (d->ca_file != NULL && d->tls != SETTINGS_TLS_VERIFY)
        WARN(c, &d->ca_file, "ca_file has no effect without tls = verify");
    if (d->max_connections < 4)
        WARN(c, &d->max_connections,
             "max_connections = %d: a client's quarter is rounded up to one", d->max_connections);
}

static void
check_directory_servers(const struct check *c, const struct settings_directory *d)
{
    bool has_plain = false;

    if (d->uri.n == 0)
        FAULT(c, &d->uri, "[directory %s]: uri is not given", d->name);
    for (size_t i = 0; i < d->uri.n; i++) {
        const char *uri = d->uri.v[i];
        bool is_plain = strncmp(uri, "ldap://", 7) == 0;
        has_plain = has_plain || is_plain;
        if (!is_plain && strncmp(uri, "ldaps://", 8) != 0 && strncmp(uri, "ldapi://", 8) != 0)
            FAULT(c, &d->uri, "uri = %s: not ldap://, ldaps:// or ldapi://", uri);
    }
    if (d->bind == SETTINGS_BIND_SIMPLE && (d->bind_dn == NULL || d->bind_password_file == NULL))
        FAULT(c, &d->bind,
              "bind = simple needs bind_dn and bind_password_file (or bind = anonymous)");
    else if (d->bind == SETTINGS_BIND_SIMPLE && has_plain && !d->starttls)
        WARN(c, &d->uri, "the password goes in the clear over ldap:// without starttls");
    check_file(c, &d->bind_password_file, "bind_password_file", d->bind_password_file, true);
    if (d->base == NULL && d->type == SETTINGS_TYPE_LDAP)
        FAULT(c, &d->base, "[directory %s]: base is not given", d->name);
    if (d->filter != NULL && strstr(d->filter, "%u") == NULL && strstr(d->filter, "%l") == NULL)
        FAULT(c, &d->filter,
              "filter: neither %%u nor %%l stands in it, so it finds the same for everybody");
    if (d->filter != NULL && (d->filter[0] != '(' || d->filter[strlen(d->filter) - 1] != ')'))
        FAULT(c, &d->filter, "filter: not in parentheses (RFC 4515)");
    if (d->mode == SETTINGS_MODE_SNAPSHOT && c->st->server.state_dir == NULL)
        FAULT(c, &d->mode, "mode = snapshot needs server.state_dir");
}

static void
check_directory(const struct check *c, const struct settings_directory *d)
{
    check_file(c, &d->file, "file", d->file, false);
    check_file(c, &d->ca_file, "ca_file", d->ca_file, false);
    if (d->type != SETTINGS_TYPE_FILE)
        check_directory_servers(c, d);
    else if (d->file == NULL)
        FAULT(c, d, "[directory %s]: type = file needs file", d->name);
    else if (d->mode == SETTINGS_MODE_SNAPSHOT)
        FAULT(c, &d->mode, "mode = snapshot is for servers, not for a file");
}

static void
check_harvest(const struct check *c)
{
    const struct settings_harvest *h = &c->st->harvest;
    char host[256];
    uint16_t port;

    if (h->block_time > h->block_time_max)
        FAULT(c, &h->block_time_max, "block_time_max is less than block_time");
    if (h->tarpit > h->tarpit_max)
        FAULT(c, &h->tarpit_max, "tarpit_max is less than tarpit");
    if (h->threshold_wide != 0 && h->threshold_wide < h->threshold)
        FAULT(c, &h->threshold_wide,
              "threshold_wide is less than threshold: whole networks would be blocked for one "
              "client");
    check_addresses(c, &h->traps, "traps", false);
    check_file(c, &h->redis_password_file, "redis_password_file", h->redis_password_file, true);
    if (h->ledger == SETTINGS_LEDGER_REDIS &&
        (h->redis == NULL ||
         (strncmp(h->redis, "unix:/", 6) != 0 &&
          value_host_port(span_str(h->redis), 6379, host, sizeof(host), &port) != NULL)))
        FAULT(c, &h->redis, "redis: not HOST:PORT or unix:/PATH");
}

static void
check_dns(const struct check *c)
{
    const struct settings *st = c->st;
    char host[256];
    uint16_t port;

    if (st->dns.nameserver != NULL &&
        value_host_port(span_str(st->dns.nameserver), 53, host, sizeof(host), &port) != NULL)
        FAULT(c, &st->dns.nameserver, "nameserver = %s: not HOST:PORT", st->dns.nameserver);
    for (size_t i = 0; i < st->dnsbl.self.n; i++)
        if (netaddr_is_private(&st->dnsbl.self.v[i].base))
            WARN(c, &st->dnsbl.self, "self: a private address is on no list");
}

void
settings_check(struct settings *st, struct faults *f, check_line_fn *line_of, void *arg)
{
    struct check c = {.st = st, .faults = f, .line_of = line_of, .arg = arg};

    check_server(&c);
    check_tls(&c);
    check_log(&c);
    if (st->n_domains == 0)
        faults_add(f, 0, false, "no [domain ...]: no mail would be accepted");
    for (size_t i = 0; i < st->n_domains; i++)
        check_domain(&c, &st->domains[i]);
    for (size_t i = 0; i < st->n_downstreams; i++)
        check_downstream(&c, &st->downstreams[i]);
    for (size_t i = 0; i < st->n_directories; i++)
        check_directory(&c, &st->directories[i]);
    check_harvest(&c);
    check_addresses(&c, &st->blocked.senders, "senders", true);
    check_addresses(&c, &st->blocked.recipients, "recipients", true);
    check_dns(&c);
}

/* Would USER, in all its groups, be let read PATH?  By mode bits alone: what access(2) would say if
 * we were that user. */
static bool
may_read(const struct passwd *user, const char *path)
{
    struct stat s;
    gid_t groups[64];
    int n = 64;

    if (stat(path, &s) != 0 || user->pw_uid == 0)
        return true; /* missing: told elsewhere */
    if (s.st_uid == user->pw_uid)
        return (s.st_mode & S_IRUSR) != 0;
    if (getgrouplist(user->pw_name, user->pw_gid, groups, &n) < 0)
        n = 64;
    for (int i = 0; i < n; i++)
        if (groups[i] == s.st_gid)
            return (s.st_mode & S_IRGRP) != 0;
    return (s.st_mode & S_IROTH) != 0;
}

static void
need(const struct passwd *user, const char *path, struct faults *f)
{
    if (path != NULL && !may_read(user, path))
        faults_add(f, 0, false, "%s: user %s cannot read it, and a reload would need it", path,
                   user->pw_name);
}

void
settings_check_access(const struct settings *st, struct faults *f)
{
    const struct passwd *user;

    if (geteuid() != 0 || st->server.user == NULL || (user = getpwnam(st->server.user)) == NULL)
        return;
    need(user, st->path, f);
    for (size_t i = 0; i < st->tls.certificate.n; i++)
        need(user, st->tls.certificate.v[i], f);
    for (size_t i = 0; i < st->tls.key.n; i++)
        need(user, st->tls.key.v[i], f);
    for (size_t i = 0; i < st->n_downstreams; i++) {
        need(user, st->downstreams[i].ca_file, f);
        need(user, st->downstreams[i].client_certificate, f);
        need(user, st->downstreams[i].client_key, f);
    }
    for (size_t i = 0; i < st->n_directories; i++) {
        need(user, st->directories[i].file, f);
        need(user, st->directories[i].ca_file, f);
        need(user, st->directories[i].bind_password_file, f);
    }
    need(user, st->harvest.redis_password_file, f);
}

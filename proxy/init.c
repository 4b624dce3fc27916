#include "proxy/init.h"

#include <string.h>

#include "base/netaddr.h"
#include "base/span.h"
#include "conf/value.h"

/* A value is one line, and " ;" would begin a comment. */
static bool
can_stand(const char *value)
{
    for (const char *p = value; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f || (*p == ';' && p > value && p[-1] == ' '))
            return false;
    return *value != '\0';
}

static int
check_present(const struct init_answers *a, struct err *e)
{
    const struct {
        const char *flag, *value;
        bool is_optional;
    } answers[] = {{"hostname", a->hostname, false},
                   {"domain", a->domain, false},
                   {"exchange", a->exchange, false},
                   {"ad", a->ad, false},
                   {"base", a->base, true}};

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        if (answers[i].value == NULL && !answers[i].is_optional)
            return err_set(e, ERR_CONFIG, "--init needs --%s", answers[i].flag);
        if (answers[i].value != NULL && !can_stand(answers[i].value))
            return err_set(e, ERR_CONFIG, "--%s: not a value of one line", answers[i].flag);
    }
    return 0;
}

static int
check_hosts(const char *text, struct err *e)
{
    struct host_list hosts;
    const char *wrong = value_hosts(text, &hosts);

    host_list_clear(&hosts);
    return wrong != NULL ? err_set(e, ERR_CONFIG, "--exchange %s: %s", text, wrong) : 0;
}

/* What follows the scheme of a server's URI; none if it is no such URI. */
static struct span
after_scheme(struct span uri, bool *is_clear)
{
    static const char clear[] = "ldap://", tls[] = "ldaps://";

    *is_clear = span_starts_nocase(uri, clear);
    size_t n = *is_clear                      ? sizeof(clear) - 1
               : span_starts_nocase(uri, tls) ? sizeof(tls) - 1
                                              : uri.n;
    return span_of(uri.p + n, uri.n - n);
}

/* What the URIs say: whether one of them begins in the clear, whether all are global catalogues,
 * and the DNS domain of the first that has one, which is mostly the directory's own. */
struct servers {
    bool is_clear, is_catalogue;
    struct span domain;
};

/* HOST behind its first dot; the empty span if it has none, or is an address. */
static struct span
domain_of(struct span host)
{
    struct netaddr address;
    struct span label;

    if (netaddr_parse(host, &address) || !span_next(&host, '.', &label))
        return span_str("");
    return host;
}

static int
look_at_servers(const char *text, struct servers *out, struct err *e)
{
    struct span rest = span_str(text), uri;

    *out = (struct servers){.is_catalogue = true};
    while (span_next(&rest, ',', &uri)) {
        char name[256];
        uint16_t port;
        bool is_clear;
        struct span host = after_scheme(span_trim(uri), &is_clear);
        if (value_host_port(host, is_clear ? 389 : 636, name, sizeof(name), &port) != NULL)
            return err_set(e, ERR_CONFIG, "--ad %s: not ldaps://HOST[:PORT] or ldap://HOST[:PORT]",
                           text);
        out->is_clear = out->is_clear || is_clear;
        out->is_catalogue = out->is_catalogue && (port == 3268 || port == 3269);
        if (out->domain.n == 0)
            out->domain = domain_of(span_of(host.p, host.p[0] == '[' ? 0 : strlen(name)));
    }
    return 0;
}

/* The DN of a DNS domain. */
static void
write_base(FILE *out, struct span domain)
{
    struct span label;
    const char *between = "";

    while (span_next(&domain, '.', &label)) {
        fprintf(out, "%sDC=%.*s", between, (int)label.n, label.p);
        between = ",";
    }
}

int
init_write(const struct init_answers *a, FILE *out, struct err *e)
{
    struct servers servers;

    if (check_present(a, e) != 0)
        return -1;
    if (!value_is_domain(span_str(a->hostname)))
        return err_set(e, ERR_CONFIG, "--hostname %s: not a host name", a->hostname);
    if (!value_is_domain(span_str(a->domain)))
        return err_set(e, ERR_CONFIG, "--domain %s: not a domain; others get a section each, later",
                       a->domain);
    if (check_hosts(a->exchange, e) != 0 || look_at_servers(a->ad, &servers, e) != 0)
        return -1;
    struct span domain = servers.domain.n > 0 ? servers.domain : span_str(a->domain);

    fprintf(out,
            "; Every other key has its default: postern.ini(5).\n"
            "\n"
            "[server]\n"
            "hostname = %s\n"
            "%s"
            "; Only log which recipients would be refused. Remove this line once the log is\n"
            "; right.\n"
            "monitor = yes\n"
            "\n"
            "[tls]\n"
            "certificate = /etc/postern/%s.crt\n"
            "key = /etc/postern/%s.key\n"
            "\n"
            "[domain %s]\n"
            "downstream = exchange\n"
            "\n"
            "[downstream exchange]\n"
            "hosts = %s\n"
            "tls = required\n"
            "\n"
            "[directory]\n"
            "type = ad\n"
            "uri = %s\n"
            "%s"
            "ca_file = /etc/postern/ad-ca.crt\n"
            "bind_dn = postern@%.*s\n"
            "bind_password_file = /etc/postern/ad-password\n",
            a->hostname, a->has_user ? "user = postern\n" : "", a->hostname, a->hostname, a->domain,
            a->exchange, a->ad, servers.is_clear ? "starttls = yes\n" : "", (int)domain.n,
            domain.p);
    /* A global catalogue is searched from the root of all. */
    if (a->base == NULL && servers.is_catalogue)
        return 0;
    fprintf(out, "base = ");
    if (a->base != NULL)
        fprintf(out, "%s", a->base);
    else
        write_base(out, domain);
    putc('\n', out);
    return 0;
}

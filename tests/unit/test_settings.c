#define _GNU_SOURCE /* open_memstream, mkdtemp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/settings_table.h"
#include "conf/value.h"
#include "tests/unit/load_settings.h"

/* --- defaults and bounds, from the table --- */

static void
test_defaults(void **state)
{
    struct settings *st = load_good(BASE);

    (void)state;
    assert_int_equal(st->server.workers, 0);
    assert_int_equal(st->server.listen.n, 2);
    assert_int_equal(st->server.listen.v[1].port, 25);
    assert_int_equal(st->server.listen.v[1].address.family, 6);
    assert_string_equal(st->server.state_dir, "/var/lib/postern");
    assert_string_equal(st->spool.dir, "/var/lib/postern");
    assert_true(st->server.command_timeout == 300000);
    assert_true(st->spool.memory == 262144);
    assert_int_equal(st->server.bare_lf, SETTINGS_BARE_LF_NORMALIZE);
    assert_int_equal(st->tls.min_version, SETTINGS_MIN_VERSION_TLS12);
    assert_null(st->server.user);
    assert_true(st->server.header_firewall);
    assert_false(st->server.monitor);
    assert_true(st->harvest.ratio > 0.49 && st->harvest.ratio < 0.51);
    assert_int_equal(st->harvest.action, SETTINGS_ACTION_BLOCK);
    assert_int_equal(st->harvest.prefix4, 32);
    assert_int_equal(st->harvest.allow.n, 2);
    assert_int_equal(st->dnsbl.null_sender.n, 0);
    assert_int_equal(st->n_remote_domains, 1);
    assert_string_equal(st->remote_domains[0].name, "default");
    assert_int_equal(st->remote_domains[0].ndr, SETTINGS_NDR_YES);
    assert_int_equal(st->downstreams[0].tls, SETTINGS_TLS_REQUIRED);
    assert_int_equal(st->downstreams[0].hosts.v[0].port, 25);
    assert_int_equal(st->server.hostname_line, 2);
    assert_int_equal(st->server.listen_line, 0);
    assert_int_equal(st->tls.line, 3);
    assert_int_equal(st->log.line, 0);
    assert_int_equal(st->domains[0].line, 5);
    settings_unref(st);
}

static bool
is_one_sentence_after_another(const char *help)
{
    size_t n = strlen(help);

    return n > 1 && help[n - 1] == '.' && help[0] != ' ' && strstr(help, "  ") == NULL;
}

/* Every row holds together: names are unique, the default is a value and within the bounds. */
static void
test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < settings_table_n; i++) {
        const struct setting *s = &settings_table[i];
        struct settings *st = calloc(1, sizeof(*st));
        struct err e = {.text = ""};
        void *section = settings_sections[s->section].is_named
                            ? settings_add_instance(st, s->section, strdup("x"))
                            : settings_section_at(st, s->section, 0);

        if (setting_find(s->section, s->key) != s)
            fail_msg("%s stands twice", s->key);
        if (setting_set(s, section, s->text, &e) != 0)
            fail_msg("%s = %s: %s", s->key, s->text, e.text);
        if (!is_one_sentence_after_another(s->help))
            fail_msg("%s: %s", s->key, s->help);
        /* Empty is only told from the default where there is a default. */
        assert_true((s->flags & SETTING_NONE) == 0 || s->text[0] != '\0');
        settings_clear(st);
        free(st);
    }
}

static void
write_number(const struct setting *s, char out[VALUE_TEXT + 4], uint64_t n)
{
    if (s->type == SETTING_DURATION)
        snprintf(out, VALUE_TEXT + 4, "%llums", (unsigned long long)n);
    else
        snprintf(out, VALUE_TEXT + 4, "%llu", (unsigned long long)n);
}

/* Each bound is taken and its neighbour outside is not. */
static void
test_bounds(void **state)
{
    struct settings *st = calloc(1, sizeof(*st));

    (void)state;
    for (enum settings_section id = 0; id < SETTINGS_SECTIONS; id++)
        if (settings_sections[id].is_named)
            assert_non_null(settings_add_instance(st, id, strdup("x")));
    for (size_t i = 0; i < settings_table_n; i++) {
        const struct setting *s = &settings_table[i];
        void *section = settings_section_at(st, s->section, 0);
        char text[VALUE_TEXT + 4];
        struct err e;

        if (s->max == 0 || s->type == SETTING_HOSTS || s->type == SETTING_ZONES)
            continue;
        const uint64_t good[] = {s->min, s->max};
        for (size_t k = 0; k < LENGTH(good); k++) {
            write_number(s, text, good[k]);
            if (setting_set(s, section, text, &e) != 0)
                fail_msg("%s = %s: %s", s->key, text, e.text);
        }
        write_number(s, text, s->max + 1);
        assert_int_equal(setting_set(s, section, text, &e), -1);
        assert_non_null(strstr(e.text, "out of range"));
        if (s->min > 0) {
            write_number(s, text, s->min - 1);
            assert_int_equal(setting_set(s, section, text, &e), -1);
            assert_non_null(strstr(e.text, "out of range"));
        }
    }
    settings_clear(st);
    free(st);
}

static void
test_long_lists(void **state)
{
    static const struct {
        const char *head;
        int max;
        const char *item;
        bool is_same; /* each item may stand there again */
        const char *should;
    } cases[] = {
        {BASE "[downstream y]\nhosts = h", 64, "x", false, ": out of range (at most 64)\n"},
        {BASE "[dnsbl]\nany_sender = z", 16, "x", false, ": out of range (at most 16)\n"},
        {BASE "[directory]\ntype = ldap\nbase = b\nuri = ldaps://z", 16, "ldaps://x", false,
         ": uri: more than 16 servers\n"},
        {BASE "[directory x]\nfile = /dev/null\n"
              "[domain y]\ndownstream = x\ndirectory = x",
         16, "x", true, ": directory: more than 16\n"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char text[2048];
        size_t n = (size_t)snprintf(text, sizeof(text), "%s", cases[i].head);
        for (int k = 2; k <= cases[i].max; k++) {
            char number[12] = "";
            if (!cases[i].is_same)
                snprintf(number, sizeof(number), "%d", k);
            n += (size_t)snprintf(text + n, sizeof(text) - n, ", %s%s", cases[i].item, number);
        }
        settings_unref(load_good(text));
        snprintf(text + n, sizeof(text) - n, ", %s", cases[i].item);
        struct loaded l = load(text);
        assert_null(l.st);
        assert_non_null(strstr(l.faults, cases[i].should));
        unload(&l);
    }
}

/* As in every INI file a section may be taken up again. */
static void
test_section_goes_on(void **state)
{
    struct settings *st = load_good(BASE "[server]\nmax_hops = 7\n[log]\ntag = x\n[server]\n"
                                         "max_errors = 9\n[domain A.EXAMPLE]\n"
                                         "directory =\n");

    (void)state;
    assert_int_equal(st->server.max_hops, 7);
    assert_int_equal(st->server.max_errors, 9);
    assert_int_equal(st->server.hostname_line, 2);
    assert_string_equal(st->log.tag, "x");
    assert_int_equal(st->n_domains, 1);
    settings_unref(st);
}

/* A [directory] of which the file says nothing has the defaults that are asked for without one. */
static void
test_cache_defaults(void **state)
{
    struct settings *st = load_good(BASE "[directory]\nfile = /dev/null\n");
    struct settings_directory defaults = {.name = NULL};

    (void)state;
    settings_cache_defaults(&defaults);
    assert_int_equal(defaults.cache_size, 100000);
    assert_int_equal(defaults.cache_size, st->directories[0].cache_size);
    assert_int_equal(defaults.cache_positive, st->directories[0].cache_positive);
    assert_int_equal(defaults.cache_negative, st->directories[0].cache_negative);
    assert_int_equal(defaults.cache_stale, st->directories[0].cache_stale);
    settings_unref(st);
}

/* An empty value is the default, but for the keys whose emptiness says something. */
static void
test_empty(void **state)
{
    char text[8192];
    size_t n = 0;

    (void)state;
    for (enum settings_section id = 0; id < SETTINGS_SECTIONS; id++) {
        if (settings_sections[id].is_named)
            continue;
        n += (size_t)snprintf(text + n, sizeof(text) - n, "[%s]\n", settings_sections[id].name);
        for (size_t i = 0; i < settings_table_n; i++)
            if (settings_table[i].section == id)
                n += (size_t)snprintf(text + n, sizeof(text) - n, "%s =\n", settings_table[i].key);
    }
    snprintf(text + n, sizeof(text) - n,
             "[domain a.example]\ndownstream = x\nrecipients = any\ndirectory =\n[downstream "
             "x]\nhosts=h\ntls=\n");
    struct loaded l = load(text);
    if (l.st == NULL)
        fail_msg("%s", l.faults);
    const struct settings *st = l.st;
    assert_null(st->server.state_dir);
    assert_null(st->control.socket);
    assert_int_equal(st->http.listen.n, 0);
    assert_int_equal(st->harvest.allow.n, 0);
    assert_int_equal(st->server.listen.n, 2);
    assert_int_equal(st->server.max_hops, 25);
    assert_string_equal(st->log.target, "syslog");
    assert_string_equal(st->log.tag, "postern");
    assert_string_equal(st->harvest.redis_prefix, "postern:");
    assert_string_equal(st->spool.dir, "/var/tmp");
    assert_non_null(st->server.hostname);
    unload(&l);
}

/* --- faults --- */

/* TEXT begins in line 10, behind BASE. */
static void
test_faults(void **state)
{
    static const struct {
        const char *text, *should;
    } cases[] = {
        {"[nosuch]\nx = 1\n", "f:10: unknown section [nosuch]\n"},
        {"[server x]\n", "f:10: unknown section [server x]\n"},
        {"[Server]\n", "f:10: unknown section [Server]\n"},
        {"[log]\nnosuch = 1\nTag = x\n",
         "f:11: unknown key nosuch in [log]\nf:12: unknown key Tag in [log]\n"},
        {"[log]\ntag = a\n\ntag = b\n", "f:13: duplicate key tag, first in line 11\n"},
        {"[log]\ntag =\ntag = b\n", "f:12: duplicate key tag, first in line 11\n"},
        {"[server]\nmax_hops = many\n", "f:11: max_hops = many: not a whole number, 0 or more\n"},
        {"[domain b.example]\ndownstream = x\nrecipients = downstream\n[log]\n"
         "[domain B.EXAMPLE]\ndownstream = x\n",
         "f:15: duplicate key downstream, first in line 11\n"},
        {"[downstream  x]\nhosts = i\n", "f:11: duplicate key hosts, first in line 9\n"},
        {"[domain]\n",
         "f:10: [domain]: its name is not a domain (write one that is not ASCII as xn--...)\n"},
        {"[domain *]\n",
         "f:10: [domain *]: its name is not a domain (write one that is not ASCII as xn--...)\n"},
        {"[domain a b]\n",
         "f:10: [domain a b]: its name is not a domain (write one that is not ASCII as xn--...)\n"},
        {"[downstream]\n", "f:10: [downstream]: it needs a name\n"},
        {"[directory d23456789012345678901234567890123456789012345678901234567890123]\n"
         "file = /dev/null\n"
         "[directory d234567890123456789012345678901234567890123456789012345678901234]\n",
         "f:12: [directory d234567890123456789012345678901234567890123456789012345678901234]: its "
         "name has more than 63 octets\n"},
        {"[downstream z\xfcrich]\n[directory z\xc3\xbcrich]\nfile = /dev/null\n[directory a\tb]\n",
         "f:10: [downstream z\xfcrich]: its name is not printable UTF-8\n"
         "f:13: [directory a\tb]: its name is not printable UTF-8\n"},
        {"[remote_domain]\n", "f:10: [remote_domain]: its name is neither default nor a domain\n"},
        {"[remote_domain default]\nndr = no\n[remote_domain DEFAULT]\nndr = no\n",
         "f:13: duplicate key ndr, first in line 11\n"},
        {"[domain b.example]\nrecipients = downstream\n",
         "f:10: downstream: [domain b.example] has none\n"},
        {"[domain b.example]\ndownstream = y\nrecipients = downstream\n",
         "f:11: downstream: there is no [downstream y]\n"},
        {"[domain b.example]\ndownstream = x\n",
         "f:10: recipients: directory, but there is no [directory]\n"},
        {"[domain b.example]\ndownstream = x\ndirectory = d\n",
         "f:12: directory: there is no [directory d]\n"},
        {"[domain b.example]\ndownstream = x\ndirectory = default\n[directory]\nfile = /dev/null\n",
         "f:12: directory: there is no [directory default]; the one without a name needs one to be "
         "in a list\n"},
        {"[downstream y]\n", "f:10: hosts: [downstream y] has none\n"},
        {"[downstream y]\nhosts = a weight=0, b weight=0\n",
         "f:11: hosts: all of them are spares\n"},
        {"[downstream y]\nhosts = a, [::1], A:25 weight=0, b, a:26, [::1]:25\n",
         "f:11: hosts: A, port 25, stands there twice\nf:11: hosts: ::1, port 25, stands there "
         "twice\n"},
        {"[downstream y]\nhosts = a\ntls = maybe\n",
         "f:12: tls = maybe: not one of off | opportunistic | required | verify\n"},
        {"[downstream y]\nhosts = a\nfingerprint = 1234\n",
         "f:12: fingerprint: not a sha256 in 64 hexadecimal digits\n"},
        {"[downstream y]\nhosts = a\nclient_key = /dev/null\n",
         "f:12: client_key: /dev/null: others may read it; mode 0640 or less is fine\nf:12: "
         "client_key: client_certificate is missing\n"},
        {"[downstream y]\nhosts = a\nclient_certificate = /dev/null\n",
         "f:12: client_certificate: client_key is missing\n"},
        {"[downstream y]\nhosts = a\nfingerprint = 12:zz\n",
         "f:12: fingerprint: not a sha256 in 64 hexadecimal digits\n"},
        {"[downstream y]\nhosts = a\ntls = off\nfingerprint = "
         "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:"
         "DD:EE:FF\n",
         "f:13: fingerprint: there is no certificate to verify with tls = off\n"},
        {"[log]\ntarget = unix:log\n", "f:11: target: unix:log is not syslog, stderr, unix:/PATH, "
                                       "udp:HOST:PORT or tcp:HOST:PORT\n"},
        {"[downstream y]\nhosts = a\nca_file = /nonexistent\ntls = verify\n",
         "f:12: ca_file: /nonexistent: No such file or directory\n"},
        {"[downstream y]\nhosts = a\nca_file = /dev\ntls = verify\n",
         "f:12: ca_file: /dev: is a directory\n"},
        {"[directory]\n", "f:10: file: type file needs one\n"},
        {"[directory]\nfile = /nonexistent\n",
         "f:11: file: /nonexistent: No such file or directory\n"},
        {"[directory]\ntype = ldap\n",
         "f:10: uri: type ldap and ad need servers\nf:10: base: type ldap needs one\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = http://x\n",
         "f:13: uri: http://x: not ldap://, ldaps:// or ldapi://\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x:99999, ldaps://, ldap://[::1]:389, "
         "ldaps://a ldaps://b, ldaps://a/, ldap://::1, ldapi://%2frun%2fldapi\n",
         "f:13: uri: ldap://x:99999: the port is not a number up to 65535 (an IPv6 address is "
         "written in brackets)\n"
         "f:13: uri: ldaps://: not HOST:PORT (an IPv6 address is written in brackets)\n"
         "f:13: uri: ldaps://a ldaps://b: not HOST:PORT (an IPv6 address is written in "
         "brackets)\n"
         "f:13: uri: ldap://::1: not HOST:PORT (an IPv6 address is written in brackets)\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x\nfilter = mail=%u\n",
         "f:14: filter: not in parentheses (RFC 4515)\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x\nfilter = (mail=%u\n",
         "f:14: filter: its parentheses do not match (RFC 4515)\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x\nfilter = (&(mail=%u)(cn=x)))\n",
         "f:14: filter: its parentheses do not match (RFC 4515)\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x\nfilter = (mail=%u)(cn=x)\n",
         "f:14: filter: its parentheses do not match (RFC 4515)\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x\nfilter = (&(mail=%u)(cn))\n"
         "snapshot_filter = (mail=*\n[directory y]\ntype = ldap\nbase = dc=x\nuri = ldap://x\n"
         "filter = (mail%u)\nsnapshot_filter = (& (a=*) (!( | (b=c(=*))))\n",
         "f:14: filter: a comparison in it has no = (RFC 4515)\n"
         "f:15: snapshot_filter: its parentheses do not match (RFC 4515)\n"
         "f:20: filter: a comparison in it has no = (RFC 4515)\n"
         "f:21: snapshot_filter: its parentheses do not match (RFC 4515)\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x\nfilter = (mail=*@%d)\n",
         "f:14: filter: neither %u nor %l is in it, so all recipients look the same\n"},
        {"[directory]\ntype = ldap\nbase = dc=x\nuri = ldap://x\nbind_dn = cn=x\n",
         "f:14: bind_dn: bind_password_file is missing\n"},
        {"[directory]\ntype = ad\nuri = ldaps://x\nbind_password_file = /dev/null\n",
         "f:13: bind_password_file: /dev/null: others may read it; mode 0640 or less is "
         "fine\nf:13: bind_password_file: bind_dn is missing\n"},
        {"[harvest]\nratio = 1.01\n", "f:11: ratio = 1.01: out of range (0 to 1)\n"},
        {"[harvest]\nprefix4 = 33\nprefix6 = 15\n",
         "f:11: prefix4 = 33: out of range (8 to 32)\nf:12: prefix6 = 15: out of range (16 to "
         "128)\n"},
        {"[harvest]\nblock_time = 366d\n", "f:11: block_time = 366d: out of range (1ms to 365d)\n"},
        {"[harvest]\nallow = 10.0.0.1/8\n",
         "f:11: allow = 10.0.0.1/8: not an address, nor a network in CIDR form with no bits set "
         "behind the prefix\n"},
        {"[harvest]\nallow = 10.0.0.0/8, x, ::1, 10.0.0.1/8\n",
         "f:11: allow = x: not an address, nor a network in CIDR form with no bits set behind the "
         "prefix\nf:11: allow = 10.0.0.1/8: not an address, nor a network in CIDR form with no "
         "bits set behind the prefix\n"},
        {"[harvest]\nallow = 10.0.0.0/8,,::1\n",
         "f:11: allow = 10.0.0.0/8,,::1: an empty item in the list\n"},
        {"[downstream y]\nhosts = a, b:0, c d\n",
         "f:11: hosts = b:0: no port\n"
         "f:11: hosts = c d: only weight=N (0 to 1000) may follow a host\n"},
        {"[http]\nlisten = 127.0.0.1:9125, here:1\n", "f:11: listen = here:1: not ADDRESS:PORT\n"},
        {"[control]\nsocket = /nonexistent/dir/socket\n",
         "f:11: socket: /nonexistent/dir/socket: cannot be created: its parent does not exist\n"},
        {"[harvest]\ntraps = a@a.example, nobody, @c\n",
         "f:11: traps: nobody is not an address\nf:11: traps: @c is not an address\n"},
        {"[harvest]\ntraps = @b\n", "f:11: traps: @b is not an address\n"},
        {"[harvest]\nredis = unix:redis\n",
         "f:11: redis: unix:redis is not HOST:PORT or unix:/PATH\n"},
        {"[harvest]\nenabled = maybe\n", "f:11: enabled = maybe: neither yes nor no\n"},
        {"[blocked]\nsenders = @b, a@\n", "f:11: senders: a@ is not an address or @domain\n"},
        {"[blocked]\nsenders = @b\xc3\xbc\n",
         "f:11: senders: @b\xc3\xbc has a domain that is not ASCII; write it as xn--...\n"},
        {"[blocked]\nrecipients = x\n", "f:11: recipients: x is not an address or @domain\n"},
        /* What no address can equal is a fault, not ignored. */
        {"[blocked]\nsenders = \"x y\"@a.example, \"x@y\"@a.example, x@[192.0.2.1], @a_b.example\n"
         "recipients = <x@a.example>, x@a.example., @*.a.example, x y@a.example, x@y@a.example\n",
         "f:12: recipients: <x@a.example> is not an address; write it without < and >\n"
         "f:12: recipients: x@a.example. is not an address or @domain\n"
         "f:12: recipients: @*.a.example is not an address or @domain\n"
         "f:12: recipients: x y@a.example is not an address or @domain\n"
         "f:12: recipients: x@y@a.example is not an address or @domain\n"},
        {"[spool]\ndir = /nonexistent/dir\n",
         "f:11: dir: /nonexistent/dir: No such file or directory\n"},
        {"[spool]\nmemory = 1X\n", "f:11: memory = 1X: not a size such as 65536, 64K, 25M or 1G\n"},
        {"[log]\ntarget = carrier:pigeon\n", "f:11: target: carrier:pigeon is not syslog, stderr, "
                                             "unix:/PATH, udp:HOST:PORT or tcp:HOST:PORT\n"},
        {"[log]\ntarget = udp:host\n", "f:11: target: udp:host is not syslog, stderr, unix:/PATH, "
                                       "udp:HOST:PORT or tcp:HOST:PORT\n"},
        {"[log]\nfacility = male\n", "f:11: facility: male is not a syslog facility\n"},
        {"[log]\ntag = a b\n", "f:11: tag: not 1 to 48 printable characters without blanks\n"},
        {"[log]\nlevel = loud\n",
         "f:11: level = loud: not one of error | warning | notice | info | debug\n"},
        {"[control]\nsocket = "
         "/123456789/123456789/123456789/123456789/123456789/123456789/123456789/"
         "123456789/123456789/123456789/1234567\n",
         "f:11: socket: its path is too long for a socket\n"},
        {"[log]\ntarget = unix:"
         "/123456789/123456789/123456789/123456789/123456789/123456789/123456789/"
         "123456789/123456789/123456789/1234567\n[harvest]\nredis = unix:"
         "/123456789/123456789/123456789/123456789/123456789/123456789/123456789/"
         "123456789/123456789/123456789/1234567\n",
         "f:11: target: its path is too long for a socket\n"
         "f:13: redis: its path is too long for a socket\n"},
        {"[http]\nlisten = 127.0.0.1:24, 127.0.0.2:25, [::1]:24, 0.0.0.0:24, [::1]:26, [::1]:26\n",
         "f:11: listen: 127.0.0.2, port 25, is taken by another of [server]\n"
         "f:11: listen: 0.0.0.0, port 24, is taken by another of these\n"
         "f:11: listen: ::1, port 26, is taken by another of these\n"},
        {"[http]\nlisten = somewhere\n", "f:11: listen = somewhere: no port\n"},
        {"[dns]\nnameserver = 1.2.3.4:x\n",
         "f:11: nameserver: 1.2.3.4:x is not an IP address, with or without a port\n"},
        {"[dns]\nnameserver = ns.example.com:53\n",
         "f:11: nameserver: ns.example.com:53 is not an IP address, with or without a port\n"},
        {"[dns]\ntimeout = 5\n",
         "f:11: timeout = 5: not a duration such as 500ms, 30s, 10m, 1h or 7d\n"},
        {"[dnsbl]\nany_sender = a.example=1\n",
         "f:11: any_sender = a.example=1: the answers that count are written 127.0.0.2, "
         "127.0.0.[2..11] or 127.0.0.[2;4;6..8]\n"},
        {"this is no line\n", "f:10: neither [section] nor key = value\n"},
        {"[log\n", "f:10: a section is written [NAME]\n"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s", BASE, cases[i].text);
        struct loaded l = load(text);
        if (l.st != NULL || strcmp(l.faults, cases[i].should) != 0)
            fail_msg("%s\n%s\n%s", cases[i].text, l.faults, cases[i].should);
        unload(&l);
    }
}

static void
test_faults_of_the_whole(void **state)
{
    struct faults *f = faults_new();
    char first[256];

    (void)state;
    struct loaded l = load("[server]\nhostname = mx.example.com\n[tls]\nmode = off\n");
    assert_string_equal(l.faults, "f:0: no [domain ...]: no mail would be accepted\n");
    assert_null(l.st);
    unload(&l);
    l = load("x = 1\ny = 2\n" BASE);
    assert_string_equal(l.faults, "f:1: x is before any section\nf:2: y is before any section\n");
    unload(&l);

    assert_null(settings_load("/nonexistent", f));
    faults_first(f, "/nonexistent", first, sizeof(first));
    assert_string_equal(first, "/nonexistent:0: cannot open it: No such file or directory");
    faults_free(&f);
}

/* Warnings are told, and the settings taken. */
static void
test_warnings(void **state)
{
    static const struct {
        const char *text, *should;
    } cases[] = {
        {"[domain b.example]\ndownstream = x\nrecipients = any\n",
         "f:12: warning: recipients: any: unknown recipients are accepted here and bounce later\n"},
        {"[domain b.example]\ndownstream = x\nrecipients = downstream\ndirectory = d\n",
         "f:13: warning: directory: no effect without recipients = directory\n"},
        {"[downstream y]\nhosts = a\nca_file = /dev/null\nserver_name = b\n",
         "f:12: warning: ca_file: no effect without tls = verify\n"
         "f:13: warning: server_name: no effect without tls = verify\n"},
        {"[directory]\nfile = /dev/null\nmode = snapshot\n",
         "f:12: warning: mode: snapshot has no effect with type file\n"},
        {"[directory]\ntype = ad\nuri = ldaps://x\n",
         "f:10: warning: bind: without bind_dn the login is anonymous, which Active Directory "
         "refuses\n"},
        {"[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\n", ""},
        {"[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\n"
         "filter = ( & (a:dn:1.2:=%u) (b>=c)(!(| (d=*\\29=) (e~=f) (&))))\nsnapshot_filter = "
         "(a=*)\n",
         ""},
        {"[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\nattributes = Mail\n", ""},
        {"[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\nattributes = mail, alias\n",
         "f:14: warning: attributes: without a filter only mail is looked into\n"},
        {"[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\nattributes = alias\n"
         "filter = (alias=%u)\n",
         ""},
        {"[server]\nstate_dir = /tmp\n[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\n"
         "mode = snapshot\nfilter = (&(cn=*)(Mail=%u))\n",
         ""},
        {"[server]\nstate_dir = /tmp\n[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\n"
         "mode = snapshot\nfilter = (|(mail=%u)(proxyAddresses=smtp:%u))\n",
         "f:17: warning: filter: with mode = snapshot and no attributes only values of mail "
         "count\n"},
        {"[server]\nstate_dir = /tmp\n[directory]\ntype = ldap\nuri = ldap://x\nbase = dc=x\n"
         "mode = snapshot\nfilter = (|(mail=%u)(alias=%u))\nattributes = mail, alias\n",
         ""},
        {"[log]\ntarget = unix:/dev/log\n", ""},
        {"[control]\nsocket = "
         "/tmp////////////////////////////////////////////////////////////////////////"
         "/////////////////////////123456\n",
         ""},
        {"[log]\ntarget = tcp:[::1]:514\nfacility = local3\n", ""},
        {"[directory]\ntype = ad\nuri = ldap://x\nbind = gssapi\n", ""},
        {"[harvest]\nblock_time = 7h\n",
         "f:11: warning: block_time: longer than block_time_max, which limits it\n"},
        {"[harvest]\nthreshold_wide = 9\n", "f:11: warning: threshold_wide: less than threshold: a "
                                            "network is judged before a client\n"},
        {"[harvest]\nthreshold_wide = 0\ntarpit_max = 0s\n", ""},
        {"[harvest]\nallow = 0.0.0.0/0\n",
         "f:11: warning: allow: everybody; enabled = no says so more clearly\n"},
        {"[harvest]\ntraps = trap@A.example, trap@b.example, trap@x.c.example\n"
         "[domain *.c.example]\ndownstream = x\nrecipients = downstream\n",
         "f:11: warning: traps: trap@b.example is in no accepted domain, so it catches nobody\n"},
        {"[blocked]\nclients = ::/0\n", "f:11: warning: clients: everybody\n"},
        {"[server]\nmax_message_size = 6M\n[spool]\nmemory = 1M\ndisk_total = 20M\n", ""},
        {"[server]\nmax_message_size = 6M\n[spool]\nmemory = 1M\ndisk_total = 19M\n",
         "f:14: warning: disk_total: a client's quarter of it is less than max_message_size, which "
         "gets 452 for ever\n"},
        {"[dnsbl]\nself = 192.168.0.1\nnull_sender = a.example\n",
         "f:11: warning: self: private addresses are on no list\n"},
        {"[dnsbl]\nself = 192.0.2.1, 2001:db8::1/128\n",
         "f:11: warning: self: no effect without null_sender\n"},
        {"[dnsbl]\nself = 192.0.2.0/31\nnull_sender = a.example\n",
         "f:11: warning: self: of a network the first address alone is looked up\n"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s", BASE, cases[i].text);
        struct loaded l = load(text);
        if (l.st == NULL || strcmp(l.faults, cases[i].should) != 0)
            fail_msg("%s\n%s\n%s", cases[i].text, l.faults, cases[i].should);
        unload(&l);
    }
}

static void
test_warnings_of_server_and_tls(void **state)
{
    static const char tail[] = "[domain a.example]\ndownstream = x\nrecipients = downstream\n"
                               "[downstream x]\nhosts = h\n";
    static const struct {
        const char *text, *should;
        bool is_good;
    } cases[] = {
        {"[server]\nhostname = mx\n[tls]\nmode = off\n",
         "f:2: warning: hostname: mx has no dot; other servers may not accept it\n", true},
        {"[server]\nhostname = mx.example.com\n",
         "f:0: warning: certificate: none; STARTTLS is not offered\n", true},
        {"[server]\nhostname = mx.example.com\n[tls]\n",
         "f:3: warning: certificate: none; STARTTLS is not offered\n", true},
        {"[server]\nhostname = mx.example.com\n[tls]\nmode = required\n",
         "f:4: mode: required, but there is no certificate\n", false},
        {"[server]\nhostname = mx.example.com\nxclient = 0.0.0.0/0\nproxy_protocol = "
         "::/0\n[tls]\nmode=off\n",
         "f:3: warning: xclient: everybody may claim any address\n"
         "f:4: warning: proxy_protocol: everybody may claim any address\n",
         true},
        {"[server]\nhostname = a b\nuser = no such\npostmaster = root\n[tls]\nmode=off\n",
         "f:2: hostname: a b is not a host name\nf:3: user: there is no user no such\n"
         "f:4: postmaster: root is not an address\n",
         false},
        {"[server]\nhostname = mx.example.com\nstate_dir = /nonexistent/a\n[tls]\nmode=off\n",
         "f:3: state_dir: /nonexistent/a: cannot be created: its parent does "
         "not exist\n",
         false},
        {"[server]\nhostname = mx.example.com\nstate_dir = /dev/null\n[tls]\nmode=off\n",
         "f:3: state_dir: /dev/null: is not a directory\n", false},
        {"[server]\nhostname = mx.example.com\nstate_dir "
         "=\n[tls]\nmode=off\n[directory]\ntype=ldap\nbase=x\nuri=ldaps://x\nmode=snapshot\n",
         "f:10: mode: snapshot needs a state_dir\n", false},
        {"[server]\nhostname = mx.example.com\n[tls]\ncertificate = /dev/null, /dev/null\n",
         "f:4: certificate, key: 2 certificates but 0 keys\n", false},
        {"[server]\nhostname = mx.example.com\n[tls]\ncertificate = /dev/zero\nkey = /dev/zero\n",
         "f:4: certificate: /dev/zero: is a device\nf:5: key: /dev/zero: is a device\n", false},
        {"[server]\nhostname = mx.example.com\n[tls]\ncertificate = /nonexistent/c\nkey = "
         "/nonexistent/k\n",
         "f:4: certificate: /nonexistent/c: No such file or directory\n"
         "f:5: key: /nonexistent/k: No such file or directory\n",
         false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s", cases[i].text, tail);
        struct loaded l = load(text);
        if ((l.st != NULL) != cases[i].is_good || strcmp(l.faults, cases[i].should) != 0)
            fail_msg("%s\n%s\n%s", text, l.faults, cases[i].should);
        unload(&l);
    }
}

/* Whoever is not root becomes nobody else. */
static void
test_warning_of_user(void **state)
{
    static const char text[] = "[server]\nhostname = mx.example.com\nuser = root\n[tls]\n"
                               "mode = off\n[domain a.example]\ndownstream = x\n"
                               "recipients = downstream\n[downstream x]\nhosts = h\n";
    uid_t self = geteuid();

    (void)state;
    if (self == 0) {
        struct loaded by_root = load(text);
        assert_string_equal(by_root.faults, "");
        unload(&by_root);
        assert_int_equal(seteuid(65534), 0);
    }
    struct loaded l = load(text);
    assert_int_equal(seteuid(self), 0);
    assert_non_null(l.st);
    assert_string_equal(l.faults, "f:3: warning: user: no effect unless root starts it\n");
    unload(&l);
}

/* --- files --- */

static char directory[64];
static char path[128];

static int
make_directory(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "/tmp/postern-settings-XXXXXX");
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/secret", directory);
    FILE *out = fopen(path, "w");
    if (out == NULL)
        return -1;
    fputs("secret\n", out);
    return fclose(out);
}

static int
remove_directory(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static void
test_secrets(void **state)
{
    static const char *const texts[] = {
        BASE "[directory]\ntype = ldap\nbase = x\nuri = ldaps://x\nbind_dn = x\nbind_password_file "
             "= %s\n",
        BASE "[harvest]\nredis_password_file = %s\n",
        BASE "[downstream y]\nhosts = a\nclient_certificate = /dev/null\nclient_key = %s\n",
    };
    static const struct {
        mode_t mode;
        bool is_good;
    } modes[] = {
        {0600, true},  {0400, true},  {0640, true},  {0660, true},
        {0644, false}, {0604, false}, {0602, false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(texts); i++) {
        for (size_t k = 0; k < LENGTH(modes); k++) {
            char text[512];
            const char *mark = strstr(texts[i], "%s");
            snprintf(text, sizeof(text), "%.*s%s%s", (int)(mark - texts[i]), texts[i], path,
                     mark + 2);
            assert_int_equal(chmod(path, modes[k].mode), 0);
            struct loaded l = load(text);
            if ((l.st != NULL) != modes[k].is_good || (l.faults[0] == '\0') != modes[k].is_good)
                fail_msg("%o: %s", modes[k].mode, l.faults);
            unload(&l);
        }
    }
}

static void
test_warnings_with_secrets(void **state)
{
    static const char tail[] = "[domain a.example]\ndownstream = x\nrecipients = downstream\n"
                               "[downstream x]\nhosts = h\n";
    static const struct {
        const char *text, *should; /* the secret's path stands at the end of TEXT */
    } cases[] = {
        {"[server]\nhostname = a.example\nstate_dir = /tmp//\n"
         "[tls]\nmode = required\ncertificate = /dev/null\nkey = ",
         "f:5: warning: mode: required: an MX loses the mail of senders without TLS (RFC 3207 "
         "4)\n"},
        {"[server]\nhostname = a.example\n[tls]\nmode = off\n[directory]\ntype = ldap\nbase = x\n"
         "uri = ldaps://a, LDAP://b\nbind_dn = x\nbind_password_file = ",
         "f:8: warning: uri: the password goes in the clear over ldap:// without starttls\n"},
        {"[server]\nhostname = a.example\n[tls]\nmode = off\n[directory]\ntype = ldap\nbase = x\n"
         "uri = ldap://b\nstarttls = yes\nbind_dn = x\nbind_password_file = ",
         ""},
        {"[server]\nhostname = a.example\n[tls]\nmode = off\n[directory]\ntype = ldap\nbase = x\n"
         "uri = ldaps://b\nbind = external\nbind_password_file = ",
         ""},
        {"[server]\nhostname = a.example\n[tls]\nmode = off\n[directory]\ntype = ldap\nbase = x\n"
         "uri = ldaps://b\nbind = gssapi\nbind_password_file = ",
         "f:10: warning: bind_password_file: no effect without bind = simple or external\n"},
    };

    (void)state;
    assert_int_equal(chmod(path, 0600), 0);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s\n%s", cases[i].text, path, tail);
        struct loaded l = load(text);
        if (l.st == NULL || strcmp(l.faults, cases[i].should) != 0)
            fail_msg("%s\n%s", text, l.faults);
        unload(&l);
    }
}

static size_t
access_faults(const struct settings *st, char first[1024])
{
    struct faults *f = faults_new();

    settings_check_access(st, f);
    faults_first(f, "f", first, 1024);
    size_t n = faults_errors(f);
    faults_free(&f);
    assert_int_equal(geteuid(), 0); /* root again */
    return n;
}

/* The directory is root's alone, so nobody can read what is in it, whatever its mode. */
static void
test_access(void **state)
{
    char text[1024], should[1024], first[1024];

    (void)state;
    if (geteuid() != 0)
        skip();
    snprintf(text, sizeof(text),
             "[server]\nhostname = a.example\nuser = nobody\n"
             "[tls]\ncertificate = /dev/null\nkey = %s\n"
             "[domain a.example]\ndownstream = x\n[downstream x]\nhosts = h\n"
             "[directory]\nfile = %s\n",
             path, path);
    assert_int_equal(chmod(path, 0600), 0);
    struct settings *st = load_good(text);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(access_faults(st, first), 2);
    snprintf(should, sizeof(should), "f:6: %s: user nobody cannot read it", path);
    assert_string_equal(first, should);
    assert_int_equal(chmod(directory, 0755), 0);
    assert_int_equal(access_faults(st, first), 0);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(access_faults(st, first), 2);
    free(st->server.user);
    st->server.user = NULL;
    assert_int_equal(access_faults(st, first), 0);
    settings_unref(st);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_section_goes_on),
        cmocka_unit_test(test_cache_defaults),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_faults_of_the_whole),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_warnings_of_server_and_tls),
        cmocka_unit_test(test_warning_of_user),
        cmocka_unit_test_setup_teardown(test_secrets, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_warnings_with_secrets, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(test_access, make_directory, remove_directory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

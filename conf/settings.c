#define _GNU_SOURCE /* getaddrinfo */
#include "conf/settings.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "conf/check.h"
#include "conf/ini_reader.h"
#include "conf/settings_table.h"
#include "conf/value.h"

/* Where the reader is. */
enum place {
    PLACE_TOP,     /* before any section */
    PLACE_SECTION, /* in one */
    PLACE_SKIP     /* in one whose header was a fault: one fault is enough for it */
};

struct loader {
    struct settings *st;
    struct faults *faults;
    enum place place;
    enum settings_section id;
    void *section;
};

/* --- reading --- */

/* Split "domain example.com"; false if there is no such section. */
static bool
find_section(struct span header, enum settings_section *id, struct span *name)
{
    size_t n = 0;

    while (n < header.n && header.p[n] != ' ' && header.p[n] != '\t')
        n++;
    *name = span_trim(span_of(header.p + n, header.n - n));
    for (*id = 0; *id < SETTINGS_SECTIONS; (*id)++)
        if (span_is(span_of(header.p, n), settings_sections[*id].name))
            return settings_sections[*id].is_named || name->n == 0;
    return false;
}

static bool
is_domain_pattern(struct span s)
{
    if (span_starts_nocase(s, "*."))
        s = span_of(s.p + 2, s.n - 2);
    return value_is_domain(s);
}

/* As log, metrics and JSON show it. */
static bool
is_printable(struct span s)
{
    size_t n = 1;

    for (; s.n > 0 && n > 0; s = span_of(s.p + n, s.n - n))
        n = utf8_printable(s);
    return n > 0;
}

/* NULL, or what is wrong with a named section's name. */
static const char *
check_name(enum settings_section id, struct span name)
{
    if (id == SETTINGS_SECTION_domain && !is_domain_pattern(name))
        return "its name is not a domain (write one that is not ASCII as xn--...)";
    if (id == SETTINGS_SECTION_remote_domain && !span_is_nocase(name, "default") &&
        !is_domain_pattern(name))
        return "its name is neither default nor a domain";
    if (id == SETTINGS_SECTION_downstream && name.n == 0)
        return "it needs a name";
    if ((id == SETTINGS_SECTION_downstream || id == SETTINGS_SECTION_directory) &&
        name.n > SETTINGS_NAME_MAX)
        return "its name has more than 63 octets";
    if (!is_printable(name))
        return "its name is not printable UTF-8";
    return NULL;
}

/* The section of that kind and name which stands in the file already, or NULL. */
static void *
find_instance(struct settings *st, enum settings_section id, const char *name)
{
    for (size_t i = 0; i < settings_instances(st, id); i++) {
        void *section = settings_section_at(st, id, i);
        if (settings_sections[id].is_named ? strcmp(settings_section_name(section), name) == 0
                                           : *settings_section_line(id, section) != 0)
            return section;
    }
    return NULL;
}

static void
on_section(void *arg, unsigned line, const char *header)
{
    struct loader *l = arg;
    struct span span;

    l->place = PLACE_SKIP;
    if (!find_section(span_str(header), &l->id, &span)) {
        faults_add(l->faults, line, false, "unknown section [%s]", header);
        return;
    }
    const char *wrong = settings_sections[l->id].is_named ? check_name(l->id, span) : NULL;
    if (wrong != NULL) {
        faults_add(l->faults, line, false, "[%s]: %s", header, wrong);
        return;
    }
    char *name = span_dup(span);
    if (name == NULL) {
        faults_add(l->faults, line, false, "out of memory");
        return;
    }
    if (l->id == SETTINGS_SECTION_domain || l->id == SETTINGS_SECTION_remote_domain)
        for (char *p = name; *p != '\0'; p++)
            *p = ascii_lower(*p);
    l->section = find_instance(l->st, l->id, name);
    if (l->section != NULL) {
        free(name); /* it goes on; a key that it has already is the fault */
    } else if (settings_sections[l->id].is_named) {
        l->section = settings_add_instance(l->st, l->id, name);
    } else {
        l->section = settings_section_at(l->st, l->id, 0);
        free(name);
    }
    if (l->section == NULL) {
        faults_add(l->faults, line, false, "out of memory");
        return;
    }
    unsigned *section_line = settings_section_line(l->id, l->section);
    if (*section_line == 0)
        *section_line = line;
    l->place = PLACE_SECTION;
}

static void
tell_value(struct loader *l, unsigned line, const char *key, struct span value, const struct err *e)
{
    /* What is wrong with a long value must still fit behind it. */
    faults_add(l->faults, line, false, "%s = %.*s%s: %s", key, value.n > 64 ? 64 : (int)value.n,
               value.p, value.n > 64 ? "..." : "", e->text);
}

/* Report the items of a list that are wrong, each as if it stood alone; false if none is by itself.
 * The first good one is left in place, so that an empty list is not reported as well. */
static bool
tell_items(struct loader *l, unsigned line, const struct setting *s, const char *value)
{
    struct span rest = span_str(value), item;
    char *good = NULL;
    bool is_told = false;

    while (span_next(&rest, ',', &item)) {
        struct err e = {.kind = ERR_NONE};
        item = span_trim(item);
        char *text = item.n > 0 ? span_dup(item) : NULL;
        if (text == NULL)
            continue;
        bool is_good = setting_set(s, l->section, text, &e) == 0;
        if (!is_good) {
            tell_value(l, line, s->key, item, &e);
            is_told = true;
        }
        if (is_good && good == NULL)
            good = text;
        else
            free(text);
    }
    (void)setting_set(s, l->section, good != NULL ? good : s->text, NULL);
    free(good);
    return is_told;
}

static void
on_key(void *arg, unsigned line, const char *key, const char *value)
{
    struct loader *l = arg;
    struct err e;

    if (l->place != PLACE_SECTION) {
        if (l->place == PLACE_TOP)
            faults_add(l->faults, line, false, "%s is before any section", key);
        return;
    }
    const struct setting *s = setting_find(l->id, key);
    if (s == NULL) {
        faults_add(l->faults, line, false, "unknown key %s in [%s]", key,
                   settings_sections[l->id].name);
        return;
    }
    unsigned *key_line = setting_line(s, l->section);
    if (*key_line != 0) {
        faults_add(l->faults, line, false, "duplicate key %s, first in line %u", key, *key_line);
        return;
    }
    *key_line = line;
    if (*value == '\0' && (s->flags & SETTING_NONE) == 0)
        return;
    if (setting_set(s, l->section, value, &e) != 0) {
        /* The default, so that one fault does not cause others. */
        (void)setting_set(s, l->section, s->text, NULL);
        if (!setting_is_list(s) || !tell_items(l, line, s, value))
            tell_value(l, line, key, span_str(value), &e);
    }
}

/* --- what the file leaves open --- */

/* The machine's fully qualified name, as far as the machine knows it. */
static char *
machine_name(void)
{
    char name[256] = "localhost";
    struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char *result = NULL;

    if (gethostname(name, sizeof(name) - 1) != 0)
        return span_dup(span_str("localhost"));
    if (strchr(name, '.') == NULL && getaddrinfo(name, NULL, &hints, &found) == 0) {
        if (found->ai_canonname != NULL && strchr(found->ai_canonname, '.') != NULL)
            result = span_dup(span_str(found->ai_canonname));
        freeaddrinfo(found);
    }
    return result != NULL ? result : span_dup(span_str(name));
}

/* spool.dir follows state_dir unless the file sets it. */
static bool
set_spool_dir(struct settings *st)
{
    const char *dir = st->server.state_dir != NULL ? st->server.state_dir : "/var/tmp";

    if (st->spool.dir_line != 0)
        return true;
    free(st->spool.dir);
    st->spool.dir = span_dup(span_str(dir));
    return st->spool.dir != NULL;
}

static int
compare_name(const void *key, const void *element)
{
    const struct span *a = key;
    struct span b = span_str((*(const struct settings_domain *const *)element)->name);
    size_t n = a->n < b.n ? a->n : b.n;
    int order = n > 0 ? memcmp(a->p, b.p, n) : 0;

    return order != 0 ? order : (a->n > b.n) - (a->n < b.n);
}

static int
compare_domains(const void *a, const void *b)
{
    struct span name = span_str((*(const struct settings_domain *const *)a)->name);

    return compare_name(&name, b);
}

/* Each RCPT looks for its domain, and a provider may have thousands. */
static bool
sort_domains(struct settings *st)
{
    st->by_name = calloc(st->n_domains + 1, sizeof(*st->by_name));
    if (st->by_name == NULL)
        return false;
    for (size_t i = 0; i < st->n_domains; i++)
        st->by_name[i] = &st->domains[i];
    qsort(st->by_name, st->n_domains, sizeof(*st->by_name), compare_domains);
    return true;
}

/* As the addresses that they are compared with. */
static void
lower(struct str_list *addresses)
{
    for (size_t i = 0; i < addresses->n; i++)
        utf8_lower(addresses->v[i], strlen(addresses->v[i]));
}

/* HOSTNAME: of this machine, where the file does not say it; NULL: it is looked up. */
static bool
fill_in(struct settings *st, const char *hostname)
{
    bool has_default = false;

    lower(&st->harvest.traps);
    lower(&st->blocked.senders);
    lower(&st->blocked.recipients);

    if (st->server.hostname == NULL)
        st->server.hostname = hostname != NULL ? span_dup(span_str(hostname)) : machine_name();
    if (st->server.hostname == NULL)
        return false;
    for (size_t i = 0; i < st->n_remote_domains; i++)
        has_default = has_default || strcmp(st->remote_domains[i].name, "default") == 0;
    if (!has_default && settings_add_instance(st, SETTINGS_SECTION_remote_domain,
                                              span_dup(span_str("default"))) == NULL)
        return false;
    if (st->spool.dir == NULL)
        st->spool.dir_line = 0;
    return set_spool_dir(st) && sort_domains(st);
}

/* --- life --- */

/* As settings_examine, from an open stream. */
static struct settings *
read_all(FILE *in, const char *path, const char *hostname, struct faults *f)
{
    static const struct ini_events events = {.section = on_section, .key = on_key};
    struct settings *st = calloc(1, sizeof(*st));

    if (st == NULL) {
        faults_add(f, 0, false, "out of memory");
        return NULL;
    }
    atomic_init(&st->references, 1);
    for (enum settings_section id = 0; id < SETTINGS_SECTIONS; id++)
        if (!settings_sections[id].is_named)
            settings_set_defaults(id, settings_section_at(st, id, 0));
    st->path = span_dup(span_str(path));
    if (ini_reader_run(in, &events, &(struct loader){.st = st, .faults = f}, f)) {
        if (st->path != NULL && fill_in(st, hostname))
            settings_check(st, f);
        else
            faults_add(f, 0, false, "out of memory");
    }
    return st;
}

/* A faulty one is of no use to a server. */
static struct settings *
unless_faulty(struct settings *st, const struct faults *f)
{
    if (faults_errors(f) == 0)
        return st;
    settings_unref(st);
    return NULL;
}

struct settings *
settings_read(FILE *in, const char *path, struct faults *f)
{
    return unless_faulty(read_all(in, path, NULL, f), f);
}

static struct settings *
examine(const char *path, const char *hostname, struct faults *f)
{
    FILE *in = fopen(path, "re");

    if (in == NULL) {
        faults_add(f, 0, false, "cannot open it: %s", strerror(errno));
        return NULL;
    }
    struct settings *st = read_all(in, path, hostname, f);
    fclose(in);
    return st;
}

struct settings *
settings_examine(const char *path, struct faults *f)
{
    return examine(path, NULL, f);
}

struct settings *
settings_load(const char *path, struct faults *f)
{
    return unless_faulty(examine(path, NULL, f), f);
}

struct settings *
settings_load_again(const char *path, const struct settings *old, struct faults *f)
{
    return unless_faulty(examine(path, old->server.hostname, f), f);
}

struct settings *
settings_ref(struct settings *st)
{
    atomic_fetch_add_explicit(&st->references, 1, memory_order_relaxed);
    return st;
}

void
settings_unref(struct settings *st)
{
    if (st == NULL || atomic_fetch_sub_explicit(&st->references, 1, memory_order_acq_rel) != 1)
        return;
    settings_clear(st);
    free(st);
}

/* --- looking up --- */

/* How well PATTERN fits DOMAIN: 0 not at all; a longer wildcard is better, exact is best. */
static size_t
fit(const char *pattern, struct span domain)
{
    size_t n = strlen(pattern);

    if (span_is_nocase(domain, pattern))
        return SIZE_MAX;
    if (strncmp(pattern, "*.", 2) == 0 && domain.n > n - 1 && span_ends_nocase(domain, pattern + 1))
        return n;
    return 0;
}

static const struct settings_domain *
find_domain(const struct settings *st, struct span name)
{
    const struct settings_domain *const *found =
        bsearch(&name, st->by_name, st->n_domains, sizeof(*st->by_name), compare_name);

    return found != NULL ? *found : NULL;
}

const struct settings_domain *
settings_domain_for(const struct settings *st, struct span domain)
{
    const struct settings_domain *found = find_domain(st, domain);
    char pattern[256] = "*";

    /* The longest wildcard first. */
    for (size_t i = 1; found == NULL && i < domain.n; i++) {
        struct span rest = span_of(domain.p + i, domain.n - i);
        if (rest.p[0] == '.' && span_copy(pattern + 1, sizeof(pattern) - 1, rest))
            found = find_domain(st, span_of(pattern, 1 + rest.n));
    }
    return found;
}

const struct settings_remote_domain *
settings_remote_domain_for(const struct settings *st, struct span domain)
{
    const struct settings_remote_domain *best = NULL;
    size_t best_fit = 0;

    for (size_t i = 0; i < st->n_remote_domains; i++) {
        const struct settings_remote_domain *rd = &st->remote_domains[i];
        size_t n = strcmp(rd->name, "default") == 0 ? 1 : fit(rd->name, domain);
        if (n > best_fit) {
            best_fit = n;
            best = rd;
        }
    }
    return best;
}

void
settings_cache_defaults(struct settings_directory *out)
{
    for (size_t i = 0; i < settings_table_n; i++) {
        const struct setting *s = &settings_table[i];
        if (s->section == SETTINGS_SECTION_directory && strncmp(s->key, "cache_", 6) == 0)
            (void)setting_set(s, out, s->text, NULL);
    }
}

static bool
is_equal_but(unsigned flags, const struct settings_directory *a, const struct settings_directory *b)
{
    for (size_t i = 0; i < settings_table_n; i++) {
        const struct setting *s = &settings_table[i];
        if (s->section == SETTINGS_SECTION_directory && (s->flags & flags) == 0 &&
            !setting_equal(s, a, b))
            return false;
    }
    return true;
}

bool
settings_directory_equal(const struct settings_directory *a, const struct settings_directory *b)
{
    return is_equal_but(0, a, b);
}

bool
settings_directory_agree(const struct settings_directory *a, const struct settings_directory *b)
{
    return is_equal_but(SETTING_HOW, a, b);
}

static bool
is_everywhere(const struct netaddr *a)
{
    return netaddr_equal(a, &(struct netaddr){.family = a->family});
}

bool
settings_listen_clash(const struct listen_entry *a, const struct listen_entry *b)
{
    return a->port == b->port && a->address.family == b->address.family &&
           (netaddr_equal(&a->address, &b->address) || is_everywhere(&a->address) ||
            is_everywhere(&b->address));
}

/* --- naming keys --- */

/* Add "section.key" to the list in OUT. */
static void
name_key(const struct setting *s, char *out, size_t n)
{
    size_t used = strlen(out);

    snprintf(out + used, n - used, "%s%s.%s", used > 0 ? ", " : "",
             settings_sections[s->section].name, s->key);
}

bool
settings_keep_fixed(struct settings *fresh, const struct settings *old, char *out, size_t n)
{
    bool is_unnamed = fresh->server.hostname_line == 0 && old->server.hostname_line != 0;

    /* The machine's own name is not looked up by a reload. */
    snprintf(out, n, "%s", is_unnamed ? "server.hostname" : "");
    if (is_unnamed)
        fresh->server.hostname_line = old->server.hostname_line; /* it is the file's still */
    for (size_t i = 0; i < settings_table_n; i++) {
        const struct setting *s = &settings_table[i];
        /* All fixed keys are of sections without a name. */
        char *to = (char *)fresh + settings_sections[s->section].offset;
        const char *from = (const char *)old + settings_sections[s->section].offset;
        if ((s->flags & SETTING_FIXED) == 0 || setting_equal(s, to, from))
            continue;
        name_key(s, out, n);
        setting_copy(s, to, from);
    }
    (void)set_spool_dir(fresh);
    return out[0] != '\0';
}

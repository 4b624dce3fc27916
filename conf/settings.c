#define _GNU_SOURCE /* getaddrinfo's AI_CANONNAME under -std=c11 */
#include "conf/settings.h"

#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/check.h"
#include "conf/ini_reader.h"
#include "conf/value.h"

enum section_id {
#define SECTION(section, title) SECTION_##section,
#define NAMED(section, plural)  SECTION_##section,
#define SETTING(section, key, type, text, min, max, flags, help)
#include "conf/settings.def"
#undef SECTION
#undef NAMED
#undef SETTING
    SECTION_COUNT
};

enum value_type {
    VALUE_DURATION,
    VALUE_SIZE,
    VALUE_INT,
    VALUE_BOOL,
    VALUE_RATIO,
    VALUE_STRING,
    VALUE_PATH,
    VALUE_LIST,
    VALUE_NETWORKS,
    VALUE_HOSTS,
    VALUE_LISTEN,
#define CHOICE_BEGIN(type) VALUE_##type,
#define CHOICE(type, id, word)
#define CHOICE_END(type)
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END
};

enum setting_flag { FLAG_RELOAD, FLAG_FIXED };

struct row {
    enum section_id section;
    enum value_type type;
    enum setting_flag flag;
    const char *key, *type_name, *text, *help;
    uint64_t min, max;
    size_t offset, size;
};

static const struct row rows[] = {
#define SECTION(section, title)
#define NAMED(section, plural)
#define SETTING(section_, key_, type_, text_, min_, max_, flag_, help_)                            \
    {.section = SECTION_##section_,                                                                \
     .type = VALUE_##type_,                                                                        \
     .flag = FLAG_##flag_,                                                                         \
     .key = #key_,                                                                                 \
     .type_name = #type_,                                                                          \
     .text = (text_),                                                                              \
     .help = (help_),                                                                              \
     .min = (min_),                                                                                \
     .max = (max_),                                                                                \
     .offset = offsetof(struct settings_##section_, key_),                                         \
     .size = sizeof(SETTING_C_##type_)},
#include "conf/settings.def"
#undef SECTION
#undef NAMED
#undef SETTING
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* Where a section's struct is: itself, or its array. */
struct section_place {
    const char *name;
    bool is_named;
    size_t offset; /* in struct settings: of the struct, or of the array's pointer */
    size_t count_offset;
    size_t size;
};

static const struct section_place sections[SECTION_COUNT] = {
#define SECTION(section, title)                                                                    \
    [SECTION_##section] = {#section, false, offsetof(struct settings, section), 0,                 \
                           sizeof(struct settings_##section)},
#define NAMED(section, plural)                                                                     \
    [SECTION_##section] = {#section, true, offsetof(struct settings, plural),                      \
                           offsetof(struct settings, n_##plural),                                  \
                           sizeof(struct settings_##section)},
#define SETTING(section, key, type, text, min, max, flags, help)
#include "conf/settings.def"
#undef SECTION
#undef NAMED
#undef SETTING
};

struct choice {
    enum value_type type;
    int value;
    const char *word;
};

static const struct choice choices[] = {
#define CHOICE_BEGIN(type)
#define CHOICE(type, id, word) {VALUE_##type, SETTINGS_##type##_##id, word},
#define CHOICE_END(type)
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END
};

/* The settings with their count of references, which the readers of the struct need not see. */
struct counted {
    struct settings st;
    _Atomic unsigned references;
};

/* A key as it stands in the file. */
struct seen {
    size_t row;
    size_t instance;
    unsigned line;
};

struct loader {
    struct settings *st;
    struct faults *faults;
    enum section_id section; /* SECTION_COUNT: none, or one that is unknown */
    size_t instance;
    bool is_known;
    struct seen *seen;
    size_t n_seen;
    unsigned header_lines[SECTION_COUNT];
};

/* --- members --- */

static void *
section_at(struct settings *st, enum section_id id, size_t instance)
{
    char *base = (char *)st + sections[id].offset;

    if (!sections[id].is_named)
        return base;
    void *array;
    memcpy(&array, base, sizeof(array));
    return (char *)array + instance * sections[id].size;
}

static size_t
section_instances(const struct settings *st, enum section_id id)
{
    size_t n = 1;

    if (sections[id].is_named)
        memcpy(&n, (const char *)st + sections[id].count_offset, sizeof(n));
    return n;
}

static void
clear_member(const struct row *row, void *member)
{
    switch (row->type) {
    case VALUE_STRING:
    case VALUE_PATH:
        free(*(char **)member);
        *(char **)member = NULL;
        break;
    case VALUE_LIST:
        str_list_clear(member);
        break;
    case VALUE_NETWORKS:
        network_list_clear(member);
        break;
    case VALUE_HOSTS:
        host_list_clear(member);
        break;
    case VALUE_LISTEN:
        listen_list_clear(member);
        break;
    case VALUE_DURATION:
    case VALUE_SIZE:
    case VALUE_INT:
    case VALUE_BOOL:
    case VALUE_RATIO:
#define CHOICE_BEGIN(type) case VALUE_##type:
#define CHOICE(type, id, word)
#define CHOICE_END(type)
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END
        break;
    }
}

/* An enum's storage is an int here, like every other small number's: see the assertion. */
_Static_assert(sizeof(enum settings_TLS) == sizeof(int), "choices are stored as int");

static const char *
choose(const struct row *row, const char *text, int *value)
{
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        if (choices[i].type == row->type && strcmp(choices[i].word, text) == 0) {
            *value = choices[i].value;
            return NULL;
        }
    }
    return "unknown value";
}

static bool
is_within(const struct row *row, uint64_t value)
{
    return value >= row->min && value <= row->max;
}

/* Set MEMBER from TEXT.  NULL, or what is wrong; then MEMBER is as before, or cleared. */
static const char *
set_member(const struct row *row, const char *text, void *member)
{
    const char *wrong = NULL;
    int64_t n = 0;
    uint64_t octets = 0;
    double ratio = 0;

    switch (row->type) {
    case VALUE_DURATION:
        wrong = value_duration(text, &n);
        if (wrong == NULL && !is_within(row, (uint64_t)n))
            return "out of range";
        if (wrong == NULL)
            *(int64_t *)member = n;
        return wrong;
    case VALUE_SIZE:
        wrong = value_size(text, &octets);
        if (wrong == NULL && !is_within(row, octets))
            return "out of range";
        if (wrong == NULL)
            *(uint64_t *)member = octets;
        return wrong;
    case VALUE_INT:
        wrong = value_int(text, &n);
        if (wrong == NULL && !is_within(row, (uint64_t)n))
            return "out of range";
        if (wrong == NULL)
            *(int *)member = (int)n;
        return wrong;
    case VALUE_RATIO:
        wrong = value_ratio(text, &ratio);
        if (wrong == NULL && (ratio < (double)row->min || ratio > (double)row->max))
            return "out of range";
        if (wrong == NULL)
            *(double *)member = ratio;
        return wrong;
    case VALUE_BOOL:
        return value_bool(text, member);
    case VALUE_STRING:
    case VALUE_PATH:
        clear_member(row, member);
        if (*text != '\0' && (*(char **)member = span_dup(span_str(text))) == NULL)
            return "out of memory";
        return NULL;
    case VALUE_LIST:
        clear_member(row, member);
        return value_list(text, member);
    case VALUE_NETWORKS:
        clear_member(row, member);
        return value_networks(text, member);
    case VALUE_HOSTS:
        clear_member(row, member);
        return value_hosts(text, member);
    case VALUE_LISTEN:
        clear_member(row, member);
        return value_listen(text, member);
#define CHOICE_BEGIN(type) case VALUE_##type:
#define CHOICE(type, id, word)
#define CHOICE_END(type)
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END
        return choose(row, text, member);
    }
    return "unknown type";
}

static void
set_defaults(enum section_id id, void *section)
{
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].section == id)
            (void)set_member(&rows[i], rows[i].text, (char *)section + rows[i].offset);
}

static void
clear_section(enum section_id id, void *section)
{
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].section == id)
            clear_member(&rows[i], (char *)section + rows[i].offset);
}

/* A new, defaulted element of a named section's array; NULL when memory is out. */
static void *
add_instance(struct settings *st, enum section_id id)
{
    const struct section_place *place = &sections[id];
    size_t n = section_instances(st, id);
    void *array;

    memcpy(&array, (char *)st + place->offset, sizeof(array));
    void *grown = realloc(array, (n + 1) * place->size);
    if (grown == NULL)
        return NULL;
    memset((char *)grown + n * place->size, 0, place->size);
    memcpy((char *)st + place->offset, &grown, sizeof(grown));
    n++;
    memcpy((char *)st + place->count_offset, &n, sizeof(n));
    void *section = section_at(st, id, n - 1);
    set_defaults(id, section);
    return section;
}

/* Named sections begin alike. */
struct named {
    char *name;
    unsigned line;
};
_Static_assert(offsetof(struct settings_domain, name) == offsetof(struct named, name) &&
                   offsetof(struct settings_domain, line) == offsetof(struct named, line) &&
                   offsetof(struct settings_directory, line) == offsetof(struct named, line) &&
                   offsetof(struct settings_downstream, line) == offsetof(struct named, line) &&
                   offsetof(struct settings_remote_domain, line) == offsetof(struct named, line),
               "named sections begin with name and line");

/* --- reading --- */

static bool
is_domain_text(const char *s)
{
    if (*s == '\0' || strlen(s) > 255)
        return false;
    for (const char *p = s; *p != '\0'; p++) {
        bool is_letter =
            (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-' || *p == '_';
        if (!is_letter && !(*p == '.' && p > s && p[-1] != '.' && p[1] != '\0'))
            return false;
    }
    return true;
}

static bool
is_domain_pattern(const char *s)
{
    return is_domain_text(strncmp(s, "*.", 2) == 0 ? s + 2 : s);
}

static void
lower(char *s)
{
    for (; *s != '\0'; s++)
        *s = ascii_lower(*s);
}

static bool
check_name(struct loader *l, enum section_id id, unsigned line, const char *name)
{
    const char *what = sections[id].name;

    if (id == SECTION_domain && !is_domain_pattern(name))
        faults_add(l->faults, line, false,
                   "[%s %s]: not a domain (write it as xn--... if it is not ASCII)", what, name);
    else if (id == SECTION_remote_domain && strcmp(name, "default") != 0 &&
             !is_domain_pattern(name))
        faults_add(l->faults, line, false, "[%s %s]: neither a domain nor default", what, name);
    else if (id == SECTION_downstream && *name == '\0')
        faults_add(l->faults, line, false, "[downstream] needs a name: [downstream NAME]");
    else
        return true;
    return false;
}

static void
on_section(void *arg, unsigned line, const char *text)
{
    struct loader *l = arg;
    struct span rest = span_trim(span_str(text)), word = rest;
    char name[300] = "";

    l->section = SECTION_COUNT;
    for (size_t i = 0; i < rest.n; i++) {
        if (rest.p[i] == ' ' || rest.p[i] == '\t') {
            word = span_of(rest.p, i);
            if (!span_copy(name, sizeof(name), span_trim(span_of(rest.p + i, rest.n - i)))) {
                faults_add(l->faults, line, false, "the section's name is too long");
                return;
            }
            break;
        }
    }
    enum section_id id = 0;
    while (id < SECTION_COUNT && !span_is(word, sections[id].name))
        id++;
    if (id == SECTION_COUNT || (!sections[id].is_named && name[0] != '\0')) {
        faults_add(l->faults, line, false, "unknown section [%.*s]", (int)rest.n, rest.p);
        return;
    }
    if (!sections[id].is_named) {
        if (l->header_lines[id] != 0)
            faults_add(l->faults, line, false, "section [%s] stands twice, first in line %u",
                       sections[id].name, l->header_lines[id]);
        l->header_lines[id] = line;
        l->section = id;
        l->instance = 0;
        return;
    }
    if (id == SECTION_domain || id == SECTION_remote_domain)
        lower(name);
    if (!check_name(l, id, line, name))
        return;
    for (size_t i = 0; i < section_instances(l->st, id); i++) {
        const struct named *other = section_at(l->st, id, i);
        if (strcmp(other->name, name) == 0) {
            faults_add(l->faults, line, false, "section [%.*s] stands twice, first in line %u",
                       (int)rest.n, rest.p, other->line);
            return;
        }
    }
    struct named *section = add_instance(l->st, id);
    if (section == NULL || (section->name = span_dup(span_str(name))) == NULL) {
        faults_add(l->faults, line, false, "out of memory");
        return;
    }
    section->line = line;
    l->section = id;
    l->instance = section_instances(l->st, id) - 1;
}

static bool
has_empty_value(const struct row *row)
{
    return row->type >= VALUE_STRING && row->type <= VALUE_LISTEN;
}

static void
on_key(void *arg, unsigned line, const char *key, const char *value)
{
    struct loader *l = arg;
    size_t i = 0;

    if (l->section == SECTION_COUNT) {
        if (section_instances(l->st, SECTION_server) == 1 && l->n_seen == 0 &&
            faults_errors(l->faults) == 0)
            faults_add(l->faults, line, false, "key %s before any section", key);
        return; /* of an unknown section, which has been told */
    }
    while (i < ROWS && !(rows[i].section == l->section && strcmp(rows[i].key, key) == 0))
        i++;
    if (i == ROWS) {
        faults_add(l->faults, line, false, "unknown key %s in [%s]", key,
                   sections[l->section].name);
        return;
    }
    for (size_t k = 0; k < l->n_seen; k++) {
        if (l->seen[k].row == i && l->seen[k].instance == l->instance) {
            faults_add(l->faults, line, false, "%s stands twice, first in line %u", key,
                       l->seen[k].line);
            return;
        }
    }
    struct seen *grown = realloc(l->seen, (l->n_seen + 1) * sizeof(*grown));
    if (grown == NULL) {
        faults_add(l->faults, line, false, "out of memory");
        return;
    }
    l->seen = grown;
    l->seen[l->n_seen++] = (struct seen){.row = i, .instance = l->instance, .line = line};
    /* An empty number or choice is the default; an empty text or list is empty. */
    if (*value == '\0' && !has_empty_value(&rows[i]))
        return;
    void *member = (char *)section_at(l->st, l->section, l->instance) + rows[i].offset;
    const char *wrong = set_member(&rows[i], value, member);
    if (wrong != NULL)
        faults_add(l->faults, line, false, "%s = %s: %s", key, value, wrong);
}

/* The line where the member at this address was set; else its section's; else 0. */
static unsigned
line_of(void *arg, const void *member)
{
    struct loader *l = arg;

    for (size_t k = 0; k < l->n_seen; k++) {
        const struct row *row = &rows[l->seen[k].row];
        const char *at = (char *)section_at(l->st, row->section, l->seen[k].instance) + row->offset;
        if (at == member)
            return l->seen[k].line;
    }
    for (enum section_id id = 0; id < SECTION_COUNT; id++) {
        for (size_t i = 0; i < section_instances(l->st, id); i++) {
            const char *at = section_at(l->st, id, i);
            if ((const char *)member >= at && (const char *)member < at + sections[id].size)
                return sections[id].is_named ? ((const struct named *)(const void *)at)->line
                                             : l->header_lines[id];
        }
    }
    return 0;
}

/* The machine's fully qualified name, as far as it knows it without asking the network for long. */
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

static bool
fill_in(struct settings *st)
{
    bool has_default = false;

    if (st->server.hostname == NULL && (st->server.hostname = machine_name()) == NULL)
        return false;
    if (st->spool.dir == NULL) {
        const char *dir = st->server.state_dir != NULL ? st->server.state_dir : "/var/tmp";
        if ((st->spool.dir = span_dup(span_str(dir))) == NULL)
            return false;
    }
    for (size_t i = 0; i < st->n_remote_domains; i++)
        if (strcmp(st->remote_domains[i].name, "default") == 0)
            has_default = true;
    if (!has_default) {
        struct settings_remote_domain *rd = add_instance(st, SECTION_remote_domain);
        if (rd == NULL || (rd->name = span_dup(span_str("default"))) == NULL)
            return false;
    }
    return true;
}

static void
settings_free(struct settings *st)
{
    for (enum section_id id = 0; id < SECTION_COUNT; id++) {
        for (size_t i = 0; i < section_instances(st, id); i++) {
            void *section = section_at(st, id, i);
            clear_section(id, section);
            if (sections[id].is_named)
                free(((struct named *)section)->name);
        }
    }
    for (size_t i = 0; i < st->n_domains; i++)
        free(st->domains[i].directory_index);
    free(st->domains);
    free(st->downstreams);
    free(st->directories);
    free(st->remote_domains);
    free(st->path);
    free(st);
}

struct settings *
settings_read(FILE *in, const char *path, struct faults *f)
{
    static const struct ini_events events = {.section = on_section, .key = on_key};
    struct counted *counted = calloc(1, sizeof(*counted));
    struct loader l = {.faults = f, .section = SECTION_COUNT};

    if (counted == NULL) {
        faults_add(f, 0, false, "out of memory");
        return NULL;
    }
    struct settings *st = l.st = &counted->st;
    atomic_store(&counted->references, 1);
    for (enum section_id id = 0; id < SECTION_COUNT; id++)
        if (!sections[id].is_named)
            set_defaults(id, section_at(st, id, 0));
    st->path = span_dup(span_str(path));
    if (ini_reader_run(in, &events, &l, f)) {
        if (fill_in(st))
            settings_check(st, f, line_of, &l);
        else
            faults_add(f, 0, false, "out of memory");
    }
    free(l.seen);
    if (faults_errors(f) == 0)
        return st;
    settings_free(st);
    return NULL;
}

struct settings *
settings_load(const char *path, struct faults *f)
{
    FILE *in = fopen(path, "re");

    if (in == NULL) {
        faults_add(f, 0, false, "cannot open: %s", strerror(errno));
        return NULL;
    }
    struct settings *st = settings_read(in, path, f);
    fclose(in);
    return st;
}

struct settings *
settings_ref(struct settings *st)
{
    atomic_fetch_add_explicit(&((struct counted *)st)->references, 1, memory_order_relaxed);
    return st;
}

void
settings_unref(struct settings *st)
{
    if (st != NULL && atomic_fetch_sub_explicit(&((struct counted *)st)->references, 1,
                                                memory_order_acq_rel) == 1)
        settings_free(st);
}

/* --- looking up --- */

/* How well PATTERN fits DOMAIN: 0 not at all; a longer wildcard is better, exact is best. */
static size_t
fit(const char *pattern, struct span domain)
{
    size_t n = strlen(pattern);

    if (span_is(domain, pattern))
        return SIZE_MAX;
    if (strncmp(pattern, "*.", 2) == 0 && domain.n > n - 1 && span_ends_nocase(domain, pattern + 1))
        return n;
    return 0;
}

const struct settings_domain *
settings_domain_for(const struct settings *st, struct span domain)
{
    const struct settings_domain *best = NULL;
    size_t best_fit = 0;

    for (size_t i = 0; i < st->n_domains; i++) {
        size_t n = fit(st->domains[i].name, domain);
        if (n > best_fit) {
            best_fit = n;
            best = &st->domains[i];
        }
    }
    return best;
}

const struct settings_remote_domain *
settings_remote_domain_for(const struct settings *st, struct span domain)
{
    const struct settings_remote_domain *best = NULL;
    size_t best_fit = 0;

    for (size_t i = 0; i < st->n_remote_domains; i++) {
        const struct settings_remote_domain *rd = &st->remote_domains[i];
        size_t n = strcmp(rd->name, "default") == 0 ? 1 : domain.n > 0 ? fit(rd->name, domain) : 0;
        if (n > best_fit) {
            best_fit = n;
            best = rd;
        }
    }
    return best;
}

/* --- reload --- */

static bool
same_member(const struct row *row, const void *a, const void *b)
{
    const struct listen_list *la = a, *lb = b;

    switch (row->type) {
    case VALUE_STRING:
    case VALUE_PATH: {
        struct span sa = span_str(*(char *const *)a), sb = span_str(*(char *const *)b);
        return span_equal(sa, sb);
    }
    case VALUE_LISTEN:
        if (la->n != lb->n)
            return false;
        for (size_t i = 0; i < la->n; i++)
            if (!netaddr_equal(&la->v[i].address, &lb->v[i].address) ||
                la->v[i].port != lb->v[i].port)
                return false;
        return true;
    case VALUE_INT:
        return *(const int *)a == *(const int *)b;
    case VALUE_DURATION:
    case VALUE_SIZE:
    case VALUE_BOOL:
    case VALUE_RATIO:
    case VALUE_LIST:
    case VALUE_NETWORKS:
    case VALUE_HOSTS:
#define CHOICE_BEGIN(type) case VALUE_##type:
#define CHOICE(type, id, word)
#define CHOICE_END(type)
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END
        break;
    }
    return true; /* none of the fixed keys */
}

bool
settings_keep_fixed(struct settings *fresh, const struct settings *old, char *out, size_t n)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *row = &rows[i];
        if (row->flag != FLAG_FIXED)
            continue;
        char *a = (char *)fresh + sections[row->section].offset + row->offset;
        const char *b = (const char *)old + sections[row->section].offset + row->offset;
        if (same_member(row, a, b))
            continue;
        int more = snprintf(out + used, n - used, "%s%s.%s", used > 0 ? ", " : "",
                            sections[row->section].name, row->key);
        if (more > 0 && (size_t)more < n - used)
            used += (size_t)more;
        clear_member(row, a);
        if (row->type == VALUE_INT) {
            *(int *)(void *)a = *(const int *)(const void *)b;
        } else if (row->type == VALUE_LISTEN) {
            const struct listen_list *from = (const void *)b;
            struct listen_list *to = (void *)a;
            to->v = malloc((from->n + 1) * sizeof(*to->v));
            if (to->v != NULL && from->n > 0) {
                memcpy(to->v, from->v, from->n * sizeof(*to->v));
                to->n = from->n;
            }
        } else {
            *(char **)(void *)a = span_dup(span_str(*(char *const *)(const void *)b));
        }
    }
    return used > 0;
}

size_t
settings_count(void)
{
    return ROWS;
}

struct setting_info
settings_info(size_t i)
{
    const struct row *row = &rows[i];

    return (struct setting_info){.section = sections[row->section].name,
                                 .key = row->key,
                                 .type = row->type_name,
                                 .default_text = row->text,
                                 .help = row->help,
                                 .is_named = sections[row->section].is_named,
                                 .is_fixed = row->flag == FLAG_FIXED};
}

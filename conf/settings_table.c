#include "conf/settings_table.h"

#include <stdlib.h>
#include <string.h>

#include "conf/value.h"

#define SECONDS(n) ((n)*INT64_C(1000))
#define HOURS(n)   (SECONDS(n) * 3600)
#define DAYS(n)    (HOURS(n) * 24)
#define GIB(n)     ((n)*UINT64_C(1073741824))
#define TIB(n)     (GIB(n) * 1024)

/* For the table, every type of choice.def is the same. */
enum {
#define CHOICE_BEGIN(type, tag) SETTING_##type = SETTING_CHOICE,
#define CHOICE(type, id, word)
#define CHOICE_END(type)
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END
};

#define FIXED SETTING_FIXED
#define NONE  SETTING_NONE
#define HOW   SETTING_HOW

const struct setting settings_table[] = {
#define SECTION_BEGIN(section, help)
#define NAMED_BEGIN(section, plural, help)
#define SETTING(section_, key_, type_, text_, min_, max_, flags_, help_)                           \
    {.section = SETTINGS_SECTION_##section_,                                                       \
     .type = (enum setting_type)SETTING_##type_,                                                   \
     .type_name = #type_,                                                                          \
     .flags = (flags_),                                                                            \
     .key = #key_,                                                                                 \
     .text = (text_),                                                                              \
     .help = (help_),                                                                              \
     .min = (min_),                                                                                \
     .max = (max_),                                                                                \
     .offset = offsetof(struct settings_##section_, key_),                                         \
     .line_offset = offsetof(struct settings_##section_, key_##_line)},
#define SECTION_END(section)
#include "conf/settings.def"
#undef SECTION_BEGIN
#undef NAMED_BEGIN
#undef SETTING
#undef SECTION_END
};
const size_t settings_table_n = sizeof(settings_table) / sizeof(settings_table[0]);

const struct section settings_sections[SETTINGS_SECTIONS] = {
#define SECTION_BEGIN(section, help_)                                                              \
    {.name = #section,                                                                             \
     .help = (help_),                                                                              \
     .offset = offsetof(struct settings, section),                                                 \
     .size = sizeof(struct settings_##section),                                                    \
     .line_offset = offsetof(struct settings_##section, line)},
#define NAMED_BEGIN(section, plural, help_)                                                        \
    {.name = #section,                                                                             \
     .help = (help_),                                                                              \
     .is_named = offsetof(struct settings_##section, name) == 0,                                   \
     .offset = offsetof(struct settings, plural),                                                  \
     .count_offset = offsetof(struct settings, n_##plural),                                        \
     .size = sizeof(struct settings_##section),                                                    \
     .line_offset = offsetof(struct settings_##section, line)},
#define SETTING(section, key, type, text, min, max, flags, help)
#define SECTION_END(section)
#include "conf/settings.def"
#undef SECTION_BEGIN
#undef NAMED_BEGIN
#undef SETTING
#undef SECTION_END
};

struct choice {
    const char *type_name;
    int value;
    const char *word;
};

static const struct choice choices[] = {
#define CHOICE_BEGIN(type, tag)
#define CHOICE(type, id, word) {#type, SETTINGS_##type##_##id, word},
#define CHOICE_END(type)
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END
};
#define CHOICES (sizeof(choices) / sizeof(choices[0]))

/* Every choice is read and written as an int. */
_Static_assert(sizeof(enum settings_downstream_tls) == sizeof(int), "an enum is not an int");

/* --- sections --- */

void *
settings_section_at(struct settings *st, enum settings_section id, size_t instance)
{
    char *base = (char *)st + settings_sections[id].offset;
    char *array;

    if (!settings_sections[id].is_named)
        return base;
    memcpy(&array, base, sizeof(array));
    return array + instance * settings_sections[id].size;
}

size_t
settings_instances(const struct settings *st, enum settings_section id)
{
    size_t n = 1;

    if (settings_sections[id].is_named)
        memcpy(&n, (const char *)st + settings_sections[id].count_offset, sizeof(n));
    return n;
}

const char *
settings_section_name(const void *section)
{
    const char *name;

    memcpy(&name, section, sizeof(name));
    return name;
}

unsigned *
settings_section_line(enum settings_section id, void *section)
{
    return (unsigned *)(void *)((char *)section + settings_sections[id].line_offset);
}

void
settings_set_defaults(enum settings_section id, void *section)
{
    for (size_t i = 0; i < settings_table_n; i++)
        if (settings_table[i].section == id)
            (void)setting_set(&settings_table[i], section, settings_table[i].text, NULL);
}

void *
settings_add_instance(struct settings *st, enum settings_section id, char *name)
{
    const struct section *kind = &settings_sections[id];
    size_t n = settings_instances(st, id);
    char *array;

    memcpy(&array, (char *)st + kind->offset, sizeof(array));
    char *grown = name != NULL ? realloc(array, (n + 1) * kind->size) : NULL;
    if (grown == NULL) {
        free(name);
        return NULL;
    }
    char *section = grown + n * kind->size;
    memset(section, 0, kind->size);
    memcpy(section, &name, sizeof(name));
    n++;
    memcpy((char *)st + kind->offset, &grown, sizeof(grown));
    memcpy((char *)st + kind->count_offset, &n, sizeof(n));
    settings_set_defaults(id, section);
    return section;
}

/* --- keys --- */

const struct setting *
setting_find(enum settings_section id, const char *key)
{
    for (size_t i = 0; i < settings_table_n; i++)
        if (settings_table[i].section == id && strcmp(settings_table[i].key, key) == 0)
            return &settings_table[i];
    return NULL;
}

unsigned *
setting_line(const struct setting *s, void *section)
{
    return (unsigned *)(void *)((char *)section + s->line_offset);
}

static void
clear_member(const struct setting *s, void *member)
{
    switch (s->type) {
    case SETTING_STRING:
    case SETTING_PATH:
        free(*(char **)member);
        *(char **)member = NULL;
        break;
    case SETTING_LIST:
        str_list_clear(member);
        break;
    case SETTING_NETWORKS:
        network_list_clear(member);
        break;
    case SETTING_HOSTS:
        host_list_clear(member);
        break;
    case SETTING_LISTEN:
        listen_list_clear(member);
        break;
    case SETTING_ZONES:
        zone_list_clear(member);
        break;
    case SETTING_DURATION:
    case SETTING_SIZE:
    case SETTING_INT:
    case SETTING_BOOL:
    case SETTING_RATIO:
    case SETTING_CHOICE:
        break;
    }
}

void
settings_clear(struct settings *st)
{
    for (enum settings_section id = 0; id < SETTINGS_SECTIONS; id++) {
        for (size_t i = 0; i < settings_instances(st, id); i++) {
            char *section = settings_section_at(st, id, i);
            for (size_t k = 0; k < settings_table_n; k++)
                if (settings_table[k].section == id)
                    clear_member(&settings_table[k], section + settings_table[k].offset);
            if (settings_sections[id].is_named)
                free(*(char **)(void *)section);
        }
    }
    for (size_t i = 0; i < st->n_domains; i++)
        free(st->domains[i].directory_index);
    free(st->by_name);
    free(st->domains);
    free(st->downstreams);
    free(st->directories);
    free(st->remote_domains);
    free(st->path);
}

static const char *
choose(const struct setting *s, const char *text, void *member)
{
    for (size_t i = 0; i < CHOICES; i++) {
        if (strcmp(choices[i].type_name, s->type_name) == 0 && strcmp(choices[i].word, text) == 0) {
            memcpy(member, &choices[i].value, sizeof(choices[i].value));
            return NULL;
        }
    }
    return "not one of these";
}

/* Parse TEXT into MEMBER, which is empty; a number that has bounds also goes into *BOUNDED. */
static const char *
parse(const struct setting *s, const char *text, void *member, double *bounded)
{
    const char *wrong = NULL;

    switch (s->type) {
    case SETTING_DURATION:
        wrong = value_duration(text, member);
        *bounded = (double)*(int64_t *)member;
        break;
    case SETTING_SIZE:
        wrong = value_size(text, member);
        *bounded = (double)*(uint64_t *)member;
        break;
    case SETTING_INT:
        wrong = value_int(text, member);
        *bounded = *(int *)member;
        break;
    case SETTING_RATIO:
        wrong = value_ratio(text, member);
        *bounded = *(double *)member;
        break;
    case SETTING_HOSTS:
        wrong = value_hosts(text, member);
        *bounded = (double)((struct host_list *)member)->n;
        break;
    case SETTING_BOOL:
        wrong = value_bool(text, member);
        break;
    case SETTING_STRING:
    case SETTING_PATH:
        if (*text != '\0' && (*(char **)member = span_dup(span_str(text))) == NULL)
            wrong = "out of memory";
        break;
    case SETTING_LIST:
        wrong = value_list(text, member);
        break;
    case SETTING_NETWORKS:
        wrong = value_networks(text, member);
        break;
    case SETTING_LISTEN:
        wrong = value_listen(text, member);
        break;
    case SETTING_ZONES:
        wrong = value_zones(text, member);
        *bounded = (double)((struct zone_list *)member)->n;
        break;
    case SETTING_CHOICE:
        wrong = choose(s, text, member);
        break;
    }
    return wrong;
}

int
setting_set(const struct setting *s, void *section, const char *text, struct err *e)
{
    void *member = (char *)section + s->offset;
    double bounded = (double)s->min;
    char allowed[128];

    clear_member(s, member);
    const char *wrong = parse(s, text, member, &bounded);
    if (wrong != NULL) {
        setting_describe(s, allowed, sizeof(allowed));
        return s->type == SETTING_CHOICE ? err_set(e, ERR_CONFIG, "not one of %s", allowed)
                                         : err_set(e, ERR_CONFIG, "%s", wrong);
    }
    if (bounded < (double)s->min || bounded > (double)s->max) {
        setting_describe_range(s, allowed, sizeof(allowed));
        return err_set(e, ERR_CONFIG, "out of range (%s)", allowed);
    }
    return 0;
}

bool
setting_is_list(const struct setting *s)
{
    return s->type == SETTING_LIST || s->type == SETTING_NETWORKS || s->type == SETTING_HOSTS ||
           s->type == SETTING_LISTEN || s->type == SETTING_ZONES;
}

static bool
text_equal(const char *a, const char *b)
{
    return span_equal(span_str(a), span_str(b));
}

static bool
list_equal(const struct str_list *a, const struct str_list *b)
{
    bool is_equal = a->n == b->n;

    for (size_t i = 0; is_equal && i < a->n; i++)
        is_equal = text_equal(a->v[i], b->v[i]);
    return is_equal;
}

static bool
listen_equal(const struct listen_list *a, const struct listen_list *b)
{
    bool is_equal = a->n == b->n;

    for (size_t i = 0; is_equal && i < a->n; i++)
        is_equal =
            netaddr_equal(&a->v[i].address, &b->v[i].address) && a->v[i].port == b->v[i].port;
    return is_equal;
}

bool
setting_equal(const struct setting *s, const void *section_a, const void *section_b)
{
    const void *a = (const char *)section_a + s->offset;
    const void *b = (const char *)section_b + s->offset;

    switch (s->type) {
    case SETTING_DURATION:
        return *(const int64_t *)a == *(const int64_t *)b;
    case SETTING_INT:
        return *(const int *)a == *(const int *)b;
    case SETTING_CHOICE:
        return memcmp(a, b, sizeof(int)) == 0;
    case SETTING_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case SETTING_STRING:
    case SETTING_PATH:
        return text_equal(*(char *const *)a, *(char *const *)b);
    case SETTING_LIST:
        return list_equal(a, b);
    case SETTING_LISTEN:
        return listen_equal(a, b);
    case SETTING_SIZE:
    case SETTING_RATIO:
    case SETTING_NETWORKS:
    case SETTING_HOSTS:
    case SETTING_ZONES:
        break;
    }
    return false;
}

void
setting_copy(const struct setting *s, void *to_section, const void *from_section)
{
    void *to = (char *)to_section + s->offset;
    const void *from = (const char *)from_section + s->offset;

    clear_member(s, to);
    if (s->type == SETTING_INT) {
        memcpy(to, from, sizeof(int));
    } else if (s->type == SETTING_LISTEN) {
        const struct listen_list *source = from;
        struct listen_list *copy = to;
        size_t size = source->n * sizeof(*source->v);
        if (size > 0 && (copy->v = malloc(size)) != NULL) {
            memcpy(copy->v, source->v, size);
            copy->n = source->n;
        }
    } else if (*(char *const *)from != NULL) {
        *(char **)to = span_dup(span_str(*(char *const *)from));
    }
}

/* --- for people --- */

void
setting_describe(const struct setting *s, char *out, size_t n)
{
    static const char *const names[] = {
        [SETTING_DURATION] = "duration",
        [SETTING_SIZE] = "size",
        [SETTING_INT] = "number",
        [SETTING_BOOL] = "yes | no",
        [SETTING_RATIO] = "number",
        [SETTING_STRING] = "text",
        [SETTING_PATH] = "path",
        [SETTING_LIST] = "list",
        [SETTING_NETWORKS] = "networks",
        [SETTING_HOSTS] = "hosts",
        [SETTING_LISTEN] = "addresses with ports",
        [SETTING_ZONES] = "zones",
        [SETTING_CHOICE] = "",
    };
    size_t used = 0;

    snprintf(out, n, "%s", names[s->type]);
    for (size_t i = 0; s->type == SETTING_CHOICE && i < CHOICES && used < n; i++) {
        if (strcmp(choices[i].type_name, s->type_name) == 0)
            used += (size_t)snprintf(out + used, n - used, "%s%s", used > 0 ? " | " : "",
                                     choices[i].word);
    }
}

void
setting_describe_range(const struct setting *s, char *out, size_t n)
{
    char min[VALUE_TEXT], max[VALUE_TEXT];

    value_write_size(min, s->min);
    value_write_size(max, s->max);
    if (s->type == SETTING_DURATION) {
        value_write_duration(min, (int64_t)s->min);
        value_write_duration(max, (int64_t)s->max);
    } else if (s->type != SETTING_SIZE) {
        snprintf(min, sizeof(min), "%llu", (unsigned long long)s->min);
        snprintf(max, sizeof(max), "%llu", (unsigned long long)s->max);
    }
    out[0] = '\0';
    if (s->type == SETTING_HOSTS || s->type == SETTING_ZONES)
        snprintf(out, n, "at most %s", max);
    else if (s->max > 0)
        snprintf(out, n, "%s to %s", min, max);
}

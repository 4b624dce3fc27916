#ifndef CONF_SETTINGS_TABLE_H
#define CONF_SETTINGS_TABLE_H

#include "base/err.h"
#include "conf/settings.h"

/* settings.def as a table, and what can be done to any key by its row.  For conf alone: everybody
 * else reads the structs. */

enum settings_section {
#define SECTION_BEGIN(section, help)       SETTINGS_SECTION_##section,
#define NAMED_BEGIN(section, plural, help) SETTINGS_SECTION_##section,
#define SETTING(section, key, type, text, min, max, flags, help)
#define SECTION_END(section)
#include "conf/settings.def"
#undef SECTION_BEGIN
#undef NAMED_BEGIN
#undef SETTING
#undef SECTION_END
    SETTINGS_SECTIONS
};

enum setting_type {
    SETTING_DURATION,
    SETTING_SIZE,
    SETTING_INT,
    SETTING_BOOL,
    SETTING_RATIO,
    SETTING_STRING,
    SETTING_PATH,
    SETTING_LIST,
    SETTING_NETWORKS,
    SETTING_HOSTS,
    SETTING_LISTEN,
    SETTING_ZONES,
    SETTING_CHOICE, /* all of choice.def */
};

enum setting_flag { SETTING_FIXED = 1, SETTING_NONE = 2, SETTING_HOW = 4 };

/* A key. */
struct setting {
    enum settings_section section;
    enum setting_type type;
    const char *type_name; /* as in settings.def; tells the choices apart */
    unsigned flags;
    const char *key, *text, *help; /* text: the default */
    uint64_t min, max;
    size_t offset, line_offset; /* in the section's struct */
};

struct section {
    const char *name, *help;
    bool is_named;
    size_t offset;       /* in struct settings: of the struct, or of the array's pointer */
    size_t count_offset; /* of the array's length */
    size_t size;         /* of the struct */
    size_t line_offset;  /* in it */
};

extern const struct setting settings_table[];
extern const size_t settings_table_n;
extern const struct section settings_sections[SETTINGS_SECTIONS];

/* The struct of a section; INSTANCE counts those of one kind of named section. */
void *settings_section_at(struct settings *st, enum settings_section id, size_t instance);
size_t settings_instances(const struct settings *st, enum settings_section id);
/* A new one at the end of a named section's array, with all defaults; it owns NAME, malloc'd (NULL
 * fails too).  NULL when memory is out: nothing is added, and NAME is freed. */
void *settings_add_instance(struct settings *st, enum settings_section id, char *name);
void settings_set_defaults(enum settings_section id, void *section);
/* Free everything but ST itself. */
void settings_clear(struct settings *st);

/* The name of a named section's struct, and where the header of any stands. */
const char *settings_section_name(const void *section);
unsigned *settings_section_line(enum settings_section id, void *section);

/* The key's row, or NULL. */
const struct setting *setting_find(enum settings_section id, const char *key);
/* Set the member in SECTION from TEXT.  -1 with E set if that is no good value. */
int setting_set(const struct setting *s, void *section, const char *text, struct err *e);
/* Is its value a list, with commas between? */
bool setting_is_list(const struct setting *s);
/* Where the file sets it. */
unsigned *setting_line(const struct setting *s, void *section);
/* Types of which no key asks this are never equal. */
bool setting_equal(const struct setting *s, const void *section_a, const void *section_b);
/* Put FROM's value in place of TO's: of a FIXED key. */
void setting_copy(const struct setting *s, void *to_section, const void *from_section);
/* What may stand there, for people: "duration", or "off | required".  OUT is never overrun. */
void setting_describe(const struct setting *s, char *out, size_t n);
/* Its bounds: "1s to 1h"; empty for types that have none. */
void setting_describe_range(const struct setting *s, char *out, size_t n);

#endif

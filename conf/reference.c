#include "conf/reference.h"

#include <string.h>

#include "conf/settings_table.h"

#define COLUMNS 78

/* What postern.ini has to start from, in place of a default or of NAME. */
static const struct {
    enum settings_section section;
    const char *key; /* NULL: the name of the section */
    const char *value;
} examples[] = {
    {SETTINGS_SECTION_domain, NULL, "example.com"},
    {SETTINGS_SECTION_domain, "downstream", "exchange"},
    {SETTINGS_SECTION_downstream, NULL, "exchange"},
    {SETTINGS_SECTION_downstream, "hosts", "ex1.corp.example.com:25, ex2.corp.example.com:25"},
    {SETTINGS_SECTION_directory, "type", "ad"},
    {SETTINGS_SECTION_directory, "uri",
     "ldaps://dc1.corp.example.com, ldaps://dc2.corp.example.com"},
    {SETTINGS_SECTION_remote_domain, NULL, "default"},
};

/* VALUE, or the example that goes before it. */
static const char *
example_for(enum settings_section section, const char *key, const char *value)
{
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        const char *its = examples[i].key;
        if (examples[i].section == section &&
            (key == NULL || its == NULL ? key == its : strcmp(key, its) == 0))
            return examples[i].value;
    }
    return value;
}

/* TEXT as comments, words kept whole. */
static void
write_comment(FILE *out, const char *text)
{
    size_t column = 0;

    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        if (column > 0 && column + 1 + n > COLUMNS) {
            putc('\n', out);
            column = 0;
        }
        column += (size_t)fprintf(out, "%s%.*s", column == 0 ? "; " : " ", (int)n, text);
        text += n;
        text += strspn(text, " ");
    }
    putc('\n', out);
}

static void
write_key(FILE *out, const struct setting *s)
{
    const char *value = example_for(s->section, s->key, s->text);
    char text[512], choices[128];
    size_t n = 0;

    if (s->type == SETTING_CHOICE) {
        setting_describe(s, choices, sizeof(choices));
        n = (size_t)snprintf(text, sizeof(text), "%s. ", choices);
    }
    n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", s->help);
    if (value != s->text && s->text[0] != '\0')
        snprintf(text + n, sizeof(text) - n, " Default: %s.", s->text);
    putc('\n', out);
    write_comment(out, text);
    fprintf(out, "%s =%s%s\n", s->key, *value != '\0' ? " " : "", value);
}

void
reference_write_ini(FILE *out)
{
    fputs("; The configuration of Postern: every key with its default, see postern.ini(5).\n"
          "; To start from it, set the [domain], the hosts of [downstream], the [directory], and\n"
          "; in [tls] a certificate and its key.  `postern -t -c FILE` checks it.\n",
          out);
    for (enum settings_section id = 0; id < SETTINGS_SECTIONS; id++) {
        const char *name = example_for(id, NULL, "");
        putc('\n', out);
        write_comment(out, settings_sections[id].help);
        fprintf(out, "[%s%s%s]\n", settings_sections[id].name, *name != '\0' ? " " : "", name);
        for (size_t i = 0; i < settings_table_n; i++)
            if (settings_table[i].section == id)
                write_key(out, &settings_table[i]);
    }
}

/* TEXT in mdoc: each sentence begins a line, and no octet of it means anything to roff. */
static void
write_mdoc(FILE *out, const char *text)
{
    size_t column = 0;

    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        if (column > 0 && (column + 1 + n > COLUMNS || text[-2] == '.')) {
            putc('\n', out);
            column = 0;
        }
        const char *before = column > 0 ? " " : *text == '.' || *text == '\'' ? "\\&" : "";
        column += (size_t)fprintf(out, "%s%.*s", before, (int)n, text);
        text += n;
        text += strspn(text, " ");
    }
    putc('\n', out);
}

static void
write_manual_key(FILE *out, const struct setting *s)
{
    char allowed[128], range[64], text[256];

    setting_describe(s, allowed, sizeof(allowed));
    setting_describe_range(s, range, sizeof(range));
    fprintf(out, ".It Ic %s = %s %s\n", s->key, s->type == SETTING_CHOICE ? "Cm" : "Ar", allowed);
    write_mdoc(out, s->help);
    if (s->text[0] != '\0') {
        snprintf(text, sizeof(text), "Default: %s.", s->text);
        write_mdoc(out, text);
    }
    if (range[0] != '\0') {
        snprintf(text, sizeof(text), "Range: %s.", range);
        write_mdoc(out, text);
    }
    if ((s->flags & SETTING_FIXED) != 0)
        write_mdoc(out, "SIGHUP does not change it.");
}

void
reference_write_manual(FILE *out)
{
    for (enum settings_section id = 0; id < SETTINGS_SECTIONS; id++) {
        const struct section *section = &settings_sections[id];
        fprintf(out, ".Ss The [%s%s] section%s\n", section->name, section->is_named ? " NAME" : "",
                section->is_named ? "s" : "");
        write_mdoc(out, section->help);
        fputs(".Bl -tag -width Ds\n", out);
        for (size_t i = 0; i < settings_table_n; i++)
            if (settings_table[i].section == id)
                write_manual_key(out, &settings_table[i]);
        fputs(".El\n", out);
    }
}

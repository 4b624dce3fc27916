#include "proxy/ops/text_table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/span.h"

struct text_table {
    size_t n_columns;
    bool is_right[TEXT_TABLE_COLUMNS];
    size_t width[TEXT_TABLE_COLUMNS];
    char **cells; /* the headings are the first row */
    size_t n, room;
};

void
text_safe(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
        else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) /* U+0080 to U+009F */
            *p = p[1] = '?';
    }
}

/* The columns that TEXT takes, one a character. */
static size_t
text_width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void *
checked(void *p)
{
    if (!p)
        abort();
    return p;
}

struct text_table *
text_table_new(const char *const *headings, size_t n)
{
    assert(n <= TEXT_TABLE_COLUMNS);
    struct text_table *t = checked(calloc(1, sizeof *t));
    t->n_columns = n;
    for (size_t i = 0; i < n; i++) {
        t->is_right[i] = headings[i][0] == '>';
        text_table_add(t, headings[i] + t->is_right[i]);
    }
    return t;
}

void
text_table_add(struct text_table *t, const char *text)
{
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->cells = checked(realloc(t->cells, t->room * sizeof *t->cells));
    }
    char *cell = checked(span_dup(span_str(text)));
    text_safe(cell);
    size_t width = text_width(cell), column = t->n % t->n_columns;
    if (width > t->width[column])
        t->width[column] = width;
    t->cells[t->n++] = cell;
}

void
text_table_addf(struct text_table *t, const char *format, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    text_table_add(t, text);
}

static void
print_cell(const struct text_table *t, size_t i, FILE *out)
{
    size_t column = i % t->n_columns;
    int pad = (int)(t->width[column] - text_width(t->cells[i]));
    bool is_last = column == t->n_columns - 1;
    if (t->is_right[column])
        fprintf(out, "%*s%s", pad, "", t->cells[i]);
    else
        fprintf(out, "%s%*s", t->cells[i], is_last ? 0 : pad, "");
    fputs(is_last ? "\n" : "  ", out);
}

void
text_table_print(struct text_table **pt, size_t max, const char *none, FILE *out)
{
    struct text_table *t = *pt;
    *pt = NULL;
    bool is_empty = t->n == t->n_columns;
    if (is_empty)
        fprintf(out, "%s\n", none);
    for (size_t i = 0; i < t->n; i++) {
        if (!is_empty && i / t->n_columns <= max)
            print_cell(t, i, out);
        free(t->cells[i]);
    }
    free(t->cells);
    free(t);
}

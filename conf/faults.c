#include "conf/faults.h"

#include <stdarg.h>
#include <stdlib.h>

struct fault {
    unsigned line;
    bool is_warning;
    char text[512];
};

struct faults {
    struct fault *v;
    size_t n, capacity;
    size_t errors;
};

struct faults *
faults_new(void)
{
    return calloc(1, sizeof(struct faults));
}

void
faults_free(struct faults **f)
{
    if (*f == NULL)
        return;
    free((*f)->v);
    free(*f);
    *f = NULL;
}

void
faults_add(struct faults *f, unsigned line, bool is_warning, const char *format, ...)
{
    va_list args;

    if (!is_warning)
        f->errors++;
    if (f->n == f->capacity) {
        size_t capacity = f->capacity == 0 ? 16 : f->capacity * 2;
        struct fault *grown = realloc(f->v, capacity * sizeof(*grown));
        if (grown == NULL)
            return; /* the count stands */
        f->v = grown;
        f->capacity = capacity;
    }
    /* Sorted by line as it grows, the order found kept within a line. */
    size_t at = f->n++;
    while (at > 0 && f->v[at - 1].line > line) {
        f->v[at] = f->v[at - 1];
        at--;
    }
    f->v[at].line = line;
    f->v[at].is_warning = is_warning;
    va_start(args, format);
    vsnprintf(f->v[at].text, sizeof(f->v[at].text), format, args);
    va_end(args);
}

size_t
faults_errors(const struct faults *f)
{
    return f->errors;
}

void
faults_print(const struct faults *f, const char *path, FILE *out)
{
    for (size_t i = 0; i < f->n; i++)
        fprintf(out, "%s:%u: %s%s\n", path, f->v[i].line, f->v[i].is_warning ? "warning: " : "",
                f->v[i].text);
}

void
faults_first(const struct faults *f, const char *path, char *out, size_t n)
{
    out[0] = '\0';
    for (size_t i = 0; i < f->n; i++) {
        if (!f->v[i].is_warning) {
            snprintf(out, n, "%s:%u: %s", path, f->v[i].line, f->v[i].text);
            return;
        }
    }
}

const char *
faults_next(const struct faults *f, size_t *i, unsigned *line, bool *is_warning)
{
    if (*i >= f->n)
        return NULL;
    const struct fault *fault = &f->v[(*i)++];
    *line = fault->line;
    *is_warning = fault->is_warning;
    return fault->text;
}

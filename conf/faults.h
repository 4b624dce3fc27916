#ifndef CONF_FAULTS_H
#define CONF_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* What is wrong with, or doubtful in, a configuration file: gathered, so that one run tells all.
 * Kept sorted by line; those of one line stand in the order found. */
struct faults;

/* NULL when memory is out. */
struct faults *faults_new(void);
/* Clears *F; NULL is fine. */
void faults_free(struct faults **f);
/* LINE 0: the file as a whole.  A warning does not keep the configuration from being used.  When
 * memory is out the text is lost, but not the count. */
void faults_add(struct faults *f, unsigned line, bool is_warning, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* How many are no warnings. */
size_t faults_errors(const struct faults *f);
/* One a line: "PATH:LINE: message", "PATH:LINE: warning: message". */
void faults_print(const struct faults *f, const char *path, FILE *out);
/* The first that is no warning ("" if there is none), as faults_print writes it, into OUT. */
void faults_first(const struct faults *f, const char *path, char *out, size_t n);
/* The text of the next one after *I (start with 0), or NULL. */
const char *faults_next(const struct faults *f, size_t *i, unsigned *line, bool *is_warning);

#endif

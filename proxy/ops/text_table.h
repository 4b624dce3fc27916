#ifndef PROXY_OPS_TEXT_TABLE_H
#define PROXY_OPS_TEXT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Columns of text for a terminal. */

#define TEXT_TABLE_COLUMNS 8

struct text_table;

/* HEADINGS are N column titles; one that begins with '>' (which is not shown) stands above numbers,
 * to the right.  Aborts when memory is out: it belongs to a program that does one thing and ends.
 */
struct text_table *text_table_new(const char *const *headings, size_t n);
/* The next cell, row by row.  TEXT is copied and made safe (text_safe). */
void text_table_add(struct text_table *t, const char *text);
void text_table_addf(struct text_table *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Print the headings and at most MAX rows, or NONE and a line's end if there is no row, and free.
 * Clears *T. */
void text_table_print(struct text_table **t, size_t max, const char *none, FILE *out);

/* TEXT (UTF-8) as a terminal may be given it: control characters, C1 too, become '?', so that a
 * stranger's address cannot command the terminal.  In place. */
void text_safe(char *text);

#endif

#ifndef PROXY_OPS_CONTROL_SHOW_H
#define PROXY_OPS_CONTROL_SHOW_H

#include <stdio.h>

#include <jansson.h>

#include "proxy/ops/control.h"

/* What the daemon answered to a command, for people: tables and sentences on OUT. */
void control_show(enum control_id command, json_t *answer, FILE *out);

/* One screen of `top`, at most ROWS lines: ANSWER, and the rates since BEFORE, the answer of
 * ELAPSED_MS ago (NULL: there was none). */
void control_show_top(const json_t *answer, const json_t *before, int64_t elapsed_ms, unsigned rows,
                      FILE *out);

/* "3d 4h", "12m 5s", "7s": the two largest units. */
#define CONTROL_SPAN_TEXT 32
void control_span_text(json_int_t s, char out[CONTROL_SPAN_TEXT]);

#endif

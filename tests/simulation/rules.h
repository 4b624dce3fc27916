#ifndef SIMULATION_RULES_H
#define SIMULATION_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/netaddr.h"

/* The rules that are tried on the month, each as its makers describe it; Postern's is its own code.
 * A rule sees one session after the other. */

enum answer {
    ANSWER_TOLD,    /* the truth: 250 or 550 5.1.1 */
    ANSWER_REFUSED, /* 5xx, whoever it is */
    ANSWER_PUT_OFF, /* 4xx, whoever it is */
    ANSWER_CLOSED   /* the session ends; later it may be tried again */
};

struct rule {
    const char *name;
    const char *settings; /* Postern's: KEY=VALUE,... of [harvest]; or NULL: the defaults */
    void *(*begin)(const struct rule *rule);
    void (*end)(void *state);
    /* A connection; false: it is put off. */
    bool (*open)(void *state, const struct netaddr *client, int64_t now_ms);
    /* MAIL; false: the session ends. */
    bool (*mail)(void *state, bool is_null);
    /* RCPT.  Adds to *DELAY_MS what the answer is held back. */
    enum answer (*rcpt)(void *state, uint32_t who, bool is_known, int64_t *delay_ms);
    /* DATA, with N accepted recipients; false: refused for good. */
    bool (*data)(void *state, const uint32_t *accepted, size_t n);
};

extern const struct rule rule_none, rule_postern, rule_gfi, rule_cisco, rule_postfix;

#endif

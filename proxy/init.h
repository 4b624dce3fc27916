#ifndef PROXY_INIT_H
#define PROXY_INIT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/* postern --init: a configuration to begin with, from the answers to five questions. */

/* As they stand on the command line; NULL: not given. */
struct init_answers {
    const char *hostname; /* of this machine */
    const char *domain;   /* that mail is taken for */
    const char *exchange; /* HOST[:PORT], or several with commas between */
    const char *ad;       /* URIs of domain controllers, with commas between */
    const char *base;     /* DN; NULL: the controller's domain, the root for a global catalogue */
    bool has_user;        /* a user postern is there, as packages make one */
};

/* Write to OUT what `postern -t` accepts once the files that it names are there.  -1 with E set,
 * and nothing written, if an answer is missing or cannot stand in a configuration. */
int init_write(const struct init_answers *a, FILE *out, struct err *e);

#endif

#ifndef PROXY_SAVER_H
#define PROXY_SAVER_H

#include "base/err.h"

/* The thread that writes into state_dir, every two seconds, what policy and the downstream hosts
 * keep there: a disk may take its time, and no loop waits for it. */

struct saver;
struct server;

/* SRV has all its parts but the workers.  NULL with E set. */
struct saver *saver_new(struct server *srv, struct err *e);
/* Waits for what is being saved, and saves the hosts once more (policy_free does that for policy).
 * Clears *S; NULL is fine. */
void saver_free(struct saver **s);

#endif

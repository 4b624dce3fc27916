#ifndef LDAP_DIR_SERVERS_H
#define LDAP_DIR_SERVERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/settings.h"
#include "ldap/dir_verdict.h"

/* What a pool knows of the servers of its directory, and says of them in the log: which of them are
 * up, and how the last search went.  The pool's lock is over it.  A server is known by its number
 * among the section's URIs. */

struct dir_servers;

/* CONF outlives it.  NULL when memory is out. */
struct dir_servers *dir_servers_new(const struct settings_directory *conf);
void dir_servers_free(struct dir_servers **s); /* NULL is fine */

/* A server is up, or ERROR says why it is not. True: that is a change. */
bool dir_servers_note(struct dir_servers *s, size_t uri, const char *error);
bool dir_servers_is_up(const struct dir_servers *s, size_t uri);
bool dir_servers_is_down(const struct dir_servers *s, size_t uri); /* false: nobody has tried yet */
bool dir_servers_are_all_down(const struct dir_servers *s);

/* How the last search of a server went: ERROR is why it stays open, NULL if it was answered. */
void dir_servers_searched(struct dir_servers *s, size_t uri, const char *error);
/* The first connection is open: whether searches are answered is not known yet. */
void dir_servers_doubt(struct dir_servers *s);
/* No search was answered since then, but one has failed. */
bool dir_servers_are_mute(const struct dir_servers *s);
/* After a search that failed: when to try one again; INT64_MAX: there is no need. */
int64_t dir_servers_probe_ms(const struct dir_servers *s);
void dir_servers_set_probe(struct dir_servers *s, int64_t probe_ms);

/* Why a question is not answered: the servers' errors say; if there is none, WHY (which may be
 * NULL). */
void dir_servers_explain(const struct dir_servers *s, const char *why, struct dir_detail *detail);
/* The servers of OUT. */
void dir_servers_view(const struct dir_servers *s, struct dir_view *out);

#endif

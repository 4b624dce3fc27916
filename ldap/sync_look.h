#ifndef LDAP_SYNC_LOOK_H
#define LDAP_SYNC_LOOK_H

#include <ldap.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "ldap/dir_link.h"
#include "ldap/dir_plan.h"
#include "ldap/snapshot.h"
#include "ldap/snapshot_rows.h"

/* One look at a directory over one link: what it found, on its way into the snapshot.  Every
 * function that may fail returns -1 with the look's error set, and then nothing of it is to be
 * taken. */
struct sync_look {
    const struct dir_plan *plan;
    struct snapshot *snapshot;
    struct snapshot_part *part;
    struct dir_link *link;
    const atomic_bool *is_ending; /* give up */
    int64_t ends_ms;              /* so late, too */
    const char *uri;              /* of the server */
    struct err e;

    /* The server. */
    bool is_ad;
    char *context; /* the naming context that the base is in: all changes are below it */
    struct snapshot_mark mark;
    bool has_sync; /* RFC 4533 */

    /* What was found. */
    struct snapshot_rows rows;    /* struct snapshot_row */
    struct snapshot_rows changed; /* struct snapshot_id */
    struct snapshot_rows present; /* struct snapshot_id: RFC 4533's present phase */
    bool is_present_phase;        /* who is neither changed nor present is gone */
    bool has_rules;               /* some object has rules about senders, or had */
    struct snapshot_rules *rules;
    size_t n_rules, rules_capacity;
};

void sync_look_init(struct sync_look *k, const struct dir_plan *plan, struct snapshot *s,
                    struct snapshot_part *part, struct dir_link *link,
                    const atomic_bool *is_ending);
/* What was found is forgotten, the server is not. */
void sync_look_reset(struct sync_look *k);
void sync_look_clear(struct sync_look *k);

/* A search. */
struct sync_search {
    const char *base;
    int scope;
    const char *filter;
    char **attributes;
    bool with_deleted;                       /* LDAP_CONTROL 1.2.840.113556.1.4.417 */
    bool is_missing_fine, is_elsewhere_fine; /* noSuchObject, referral: as if nothing was found */
    bool *is_elsewhere;                      /* set by a referral */
};
typedef int sync_entry_fn(struct sync_look *k, LDAPMessage *entry, void *arg); /* -1: give up */
/* By pages.  FN gets every entry. */
int sync_search(struct sync_look *k, const struct sync_search *s, sync_entry_fn *fn, void *arg);
/* A reference to another server, which nobody follows: in Active Directory to another partition, of
 * other servers to a part of what is looked for, so that not all would be seen. */
int sync_reference(struct sync_look *k);
/* The library may block until then, and the look goes on; -1: the program ends. */
int sync_arm(struct sync_look *k);
/* The first value of ATTRIBUTE, malloc'd; NULL: none. */
char *sync_value(struct sync_look *k, LDAPMessage *entry, const char *attribute);

/* What a look asks for of an entry; NULL-terminated, malloc'd (the array alone). */
char **sync_attributes(const struct sync_look *k);
/* The filter of a full look into OUT. */
void sync_filter(const struct dir_plan *plan, char *out, size_t capacity);
/* Which object ENTRY is. */
int sync_entry_id(struct sync_look *k, LDAPMessage *entry, struct snapshot_id *id);
/* ENTRY's addresses to the rows, its id to the changed ones; a sync_entry_fn. */
int sync_take_entry(struct sync_look *k, LDAPMessage *entry, void *arg);
/* The same with the id known. */
int sync_take_object(struct sync_look *k, LDAPMessage *entry, const struct snapshot_id *id);
/* The address in a value of an address attribute, canonical, as it is stored; its length or 0. */
size_t sync_address(const struct dir_plan *plan, struct span value, char out[DIR_ADDRESS_MAX + 1]);

/* Who and what the server is. */
int sync_identify(struct sync_look *k);
/* BEFORE is of the same server, in the same life of its database. */
bool sync_is_same(const struct sync_look *k, const struct snapshot_mark *before);
/* Everything. */
int sync_look_full(struct sync_look *k);
/* What changed since BEFORE.  1: that cannot be told, a full look is due. */
int sync_look_changes(struct sync_look *k, const struct snapshot_mark *before);
int sync_ad_changes(struct sync_look *k, const struct snapshot_mark *before);
int sync_repl_changes(struct sync_look *k, const struct snapshot_mark *before);
/* All rules about senders. */
int sync_look_rules(struct sync_look *k);

#endif

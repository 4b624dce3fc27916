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

/* One read of a directory over one link (a "look"), and what it found, before that is written into
 * the snapshot.  A function that returns int returns -1 with the look's error set when it fails;
 * then the whole look must be discarded. */
struct sync_look {
    const struct dir_plan *plan;
    struct snapshot *snapshot;
    struct snapshot_part *part;
    struct dir_link *link;
    const atomic_bool *is_ending; /* the program ends: give up */
    int64_t ends_ms;              /* deadline of the look */
    const char *uri;              /* of the server */
    struct err e;

    /* The server. */
    bool is_ad;
    char *context; /* the naming context of the base: changes are searched below it */
    struct snapshot_mark mark;
    bool has_sync; /* RFC 4533 */

    /* What was found. */
    struct snapshot_rows rows;    /* struct snapshot_row */
    struct snapshot_rows changed; /* struct snapshot_id */
    struct snapshot_rows present; /* struct snapshot_id: RFC 4533's present phase */
    bool is_present_phase;        /* objects neither changed nor present were deleted */
    bool has_rules;               /* some object has rules about senders, or had */
    struct snapshot_rules *rules;
    size_t n_rules, rules_capacity;
};

void sync_look_init(struct sync_look *k, const struct dir_plan *plan, struct snapshot *s,
                    struct snapshot_part *part, struct dir_link *link,
                    const atomic_bool *is_ending);
/* Drop what was found, but keep what is known of the server. */
void sync_look_reset(struct sync_look *k);
void sync_look_clear(struct sync_look *k);

/* A search. */
struct sync_search {
    const char *base;
    int scope;
    const char *filter;
    char **attributes;
    bool with_deleted;                       /* LDAP_CONTROL 1.2.840.113556.1.4.417 */
    bool is_missing_fine, is_elsewhere_fine; /* noSuchObject, referral: an empty result */
    bool *is_elsewhere;                      /* set by a referral */
};
typedef int sync_entry_fn(struct sync_look *k, LDAPMessage *entry, void *arg); /* -1: give up */
/* Search page by page; FN is called for every entry. */
int sync_search(struct sync_look *k, const struct sync_search *s, sync_entry_fn *fn, void *arg);
/* Handle a reference to another server, which is not followed.  In Active Directory it leads to
 * another partition: 0.  With other servers a part of the result would be missing: -1. */
int sync_reference(struct sync_look *k);
/* Before a call that may block: set the link's deadline.  -1: the look must end. */
int sync_arm(struct sync_look *k);
/* The first value of ATTRIBUTE, malloc'd; NULL: none. */
char *sync_value(struct sync_look *k, LDAPMessage *entry, const char *attribute);

/* The attributes that a look requests; NULL-terminated, malloc'd (the array only). */
char **sync_attributes(const struct sync_look *k);
/* Write the filter of a full look into OUT. */
void sync_filter(const struct dir_plan *plan, char *out, size_t capacity);
/* The id of the object that ENTRY is. */
int sync_entry_id(struct sync_look *k, LDAPMessage *entry, struct snapshot_id *id);
/* Add ENTRY's addresses to the rows and its id to the changed ones; a sync_entry_fn. */
int sync_take_entry(struct sync_look *k, LDAPMessage *entry, void *arg);
/* The same, if the id is known already. */
int sync_take_object(struct sync_look *k, LDAPMessage *entry, const struct snapshot_id *id);
/* The canonical form, as it is stored, of the address in VALUE.  Its length; 0: no address. */
size_t sync_address(const struct dir_plan *plan, struct span value, char out[DIR_ADDRESS_MAX + 1]);

/* Find out which server it is, and what it supports. */
int sync_identify(struct sync_look *k);
/* Was BEFORE taken from the same server and the same instance of its database? */
bool sync_is_same(const struct sync_look *k, const struct snapshot_mark *before);
/* Read all entries. */
int sync_look_full(struct sync_look *k);
/* Read what changed since BEFORE.  1: the server cannot tell, and a full look is necessary. */
int sync_look_changes(struct sync_look *k, const struct snapshot_mark *before);
int sync_ad_changes(struct sync_look *k, const struct snapshot_mark *before);
int sync_repl_changes(struct sync_look *k, const struct snapshot_mark *before);
/* Read all rules about senders. */
int sync_look_rules(struct sync_look *k);

#endif

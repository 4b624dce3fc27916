#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ldap/dir_filter.h"
#include "ldap/sync_look.h"

/* What the root of a server says of it, and the changes of an Active Directory.  USNs belong to one
 * controller, and to one life of its database: a controller that was restored has another
 * invocationId. */

static char *root_attributes[] = {(char[]){"highestCommittedUSN"}, (char[]){"dnsHostName"},
                                  (char[]){"dsServiceName"},       (char[]){"namingContexts"},
                                  (char[]){"supportedControl"},    NULL};

static bool
has_value(struct sync_look *k, LDAPMessage *entry, const char *attribute, const char *value)
{
    struct berval **values = ldap_get_values_len(k->link->ld, entry, attribute);
    bool has = false;

    for (size_t i = 0; values && values[i]; i++)
        has = has || span_is(span_of(values[i]->bv_val, values[i]->bv_len), value);
    ldap_value_free_len(values);
    return has;
}

/* The longest naming context that the base ends with; the base itself if there is none. */
static char *
find_context(struct sync_look *k, LDAPMessage *entry)
{
    struct berval **values = ldap_get_values_len(k->link->ld, entry, "namingContexts");
    struct span base = span_str(k->plan->base), best = {.n = 0};
    char *plain = NULL, *text;

    /* It may be written with blanks. */
    if (ldap_dn_normalize(k->plan->base, LDAP_DN_FORMAT_LDAP, &plain, LDAP_DN_FORMAT_LDAPV3) ==
            LDAP_SUCCESS &&
        plain)
        base = span_str(plain);
    for (size_t i = 0; values && values[i]; i++) {
        struct span context = span_of(values[i]->bv_val, values[i]->bv_len);

        if (context.n > best.n && span_ends_nocase(base, values[i]->bv_val))
            best = context;
    }
    text = span_dup(best.n > 0 ? best : base);
    ldap_memfree(plain);
    ldap_value_free_len(values);
    return text;
}

struct root {
    char *service; /* DN of the controller's settings, which have its invocationId */
};

static int
take_root(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct root *root = arg;
    char *usn = sync_value(k, entry, "highestCommittedUSN");
    char *host = sync_value(k, entry, "dnsHostName");

    k->is_ad = usn && host && span_u64(span_str(usn), UINT64_MAX, &k->mark.usn) &&
               span_copy(k->mark.controller, sizeof k->mark.controller, span_str(host));
    if (!k->is_ad)
        (void)span_copy(k->mark.controller, sizeof k->mark.controller, span_str(k->uri));
    k->has_sync = has_value(k, entry, "supportedControl", LDAP_CONTROL_SYNC);
    free(k->context);
    k->context = find_context(k, entry);
    free(root->service);
    root->service = sync_value(k, entry, "dsServiceName");
    free(usn);
    free(host);
    return k->context ? 0 : err_set(&k->e, ERR_SYSTEM, "out of memory");
}

static int
take_invocation(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct berval **values = ldap_get_values_len(k->link->ld, entry, "invocationId");

    (void)arg;
    if (values && values[0] && values[0]->bv_len == sizeof k->mark.invocation)
        memcpy(&k->mark.invocation, values[0]->bv_val, sizeof k->mark.invocation);
    ldap_value_free_len(values);
    return 0;
}

/* OpenLDAP's place in the history of its changes, in the form of its cookies. */
static int
take_csn(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct berval **values = ldap_get_values_len(k->link->ld, entry, "contextCSN");
    size_t n = 0, room = sizeof k->mark.cookie;

    (void)arg;
    for (size_t i = 0; values && values[i] && n < room; i++)
        n += (size_t)snprintf(k->mark.cookie + n, room - n, "%s%s", i == 0 ? "rid=000,csn=" : ";",
                              values[i]->bv_val);
    if (n >= room)
        k->mark.cookie[0] = '\0';
    ldap_value_free_len(values);
    return 0;
}

int
sync_identify(struct sync_look *k)
{
    char *invocation[] = {(char[]){"invocationId"}, NULL};
    char *csn[] = {(char[]){"contextCSN"}, NULL};
    struct root root = {.service = NULL};
    struct sync_search s = {.base = "",
                            .scope = LDAP_SCOPE_BASE,
                            .filter = "(objectClass=*)",
                            .attributes = root_attributes,
                            .is_missing_fine = true};
    int rc;

    k->mark = (struct snapshot_mark){.full_s = 0};
    rc = sync_search(k, &s, take_root, &root);
    if (rc == 0 && !k->context)
        rc = err_set(&k->e, ERR_LDAP, "the server says nothing of itself");
    if (rc == 0 && k->is_ad && root.service) {
        s.base = root.service;
        s.attributes = invocation;
        rc = sync_search(k, &s, take_invocation, NULL);
    } else if (rc == 0 && k->has_sync) {
        s.base = k->context;
        s.attributes = csn;
        rc = sync_search(k, &s, take_csn, NULL);
    }
    free(root.service);
    return rc;
}

static int
take_id(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct snapshot_id id;

    (void)arg;
    if (sync_entry_id(k, entry, &id) < 0)
        return -1;
    snapshot_rows_add(&k->changed, &id);
    return k->changed.is_full ? err_set(&k->e, ERR_SYSTEM, "out of memory") : 0;
}

int
sync_ad_changes(struct sync_look *k, const struct snapshot_mark *before)
{
    char *guid[] = {(char[]){"objectGUID"}, NULL};
    char since[64], look[DIR_FILTER_MAX], filter[DIR_FILTER_MAX + 80];
    char **attributes;
    struct sync_search s = {.base = k->context, .scope = LDAP_SCOPE_SUBTREE};
    int rc;

    if (before->usn > k->mark.usn)
        return 1;
    if (before->usn == k->mark.usn)
        return 0;
    snprintf(since, sizeof since, "(uSNChanged>=%" PRIu64 ")", before->usn + 1);
    sync_filter(k->plan, look, sizeof look);
    snprintf(filter, sizeof filter, "(&%s%s)", since, look);

    /* First whatever changed, was moved away or deleted, and then what of it is a recipient: one
     * that changes in between is seen as a recipient. */
    s.filter = since;
    s.attributes = guid;
    s.with_deleted = true;
    rc = sync_search(k, &s, take_id, NULL);
    if (rc < 0)
        return -1;
    attributes = sync_attributes(k);
    if (!attributes)
        return err_set(&k->e, ERR_SYSTEM, "out of memory");
    s.base = k->plan->base;
    s.filter = filter;
    s.attributes = attributes;
    s.with_deleted = false;
    rc = sync_search(k, &s, sync_take_entry, NULL);
    free(attributes);
    return rc;
}

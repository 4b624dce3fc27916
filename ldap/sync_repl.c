#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "ldap/dir_filter.h"
#include "ldap/sync_look.h"

/* RFC 4533, refreshOnly: the server says what changed since a cookie, and either what is gone or
 * what is still there. */

static int
note(struct snapshot_rows *r, const struct berval *uuid)
{
    if (uuid && uuid->bv_len == sizeof(struct snapshot_id))
        snapshot_rows_add(r, uuid->bv_val);
    return r->is_full ? LDAP_NO_MEMORY : LDAP_SUCCESS;
}

static int
on_entry(ldap_sync_t *ls, LDAPMessage *m, struct berval *uuid, ldap_sync_refresh_t phase)
{
    struct sync_look *k = ls->ls_private;
    struct snapshot_id id;

    if (sync_arm(k) < 0)
        return LDAP_CANCELLED;
    if (phase == LDAP_SYNC_CAPI_PRESENT)
        return note(&k->present, uuid);
    if (phase == LDAP_SYNC_CAPI_DELETE)
        return note(&k->changed, uuid);
    if (!uuid || uuid->bv_len != sizeof id.octets)
        return LDAP_PROTOCOL_ERROR;
    memcpy(id.octets, uuid->bv_val, sizeof id.octets);
    return sync_take_object(k, m, &id) == 0 ? LDAP_SUCCESS : LDAP_OTHER;
}

static int
on_reference(ldap_sync_t *ls, LDAPMessage *m)
{
    (void)m;
    return sync_reference(ls->ls_private) == 0 ? LDAP_SUCCESS : LDAP_OTHER;
}

static int
on_info(ldap_sync_t *ls, LDAPMessage *m, BerVarray uuids, ldap_sync_refresh_t phase)
{
    struct sync_look *k = ls->ls_private;
    bool is_gone = phase == LDAP_SYNC_CAPI_DELETES_IDSET;
    int rc = LDAP_SUCCESS;

    (void)m;
    if (sync_arm(k) < 0)
        return LDAP_CANCELLED;
    for (size_t i = 0; uuids && uuids[i].bv_val && rc == LDAP_SUCCESS; i++)
        rc = note(is_gone ? &k->changed : &k->present, &uuids[i]);
    return rc;
}

static int
on_result(ldap_sync_t *ls, LDAPMessage *m, int is_delete_phase)
{
    struct sync_look *k = ls->ls_private;
    int code = LDAP_OTHER;

    if (ldap_parse_result(ls->ls_ld, m, &code, NULL, NULL, NULL, NULL, 0) != LDAP_SUCCESS)
        code = LDAP_DECODING_ERROR;
    k->is_present_phase = !is_delete_phase;
    return code;
}

/* Objects neither changed nor present were deleted: add them to the changed ones. */
static int
note_missing(struct sync_look *k)
{
    struct snapshot_rows known = snapshot_rows_of(sizeof(struct snapshot_id));
    struct snapshot_id *ids = NULL;
    size_t n = 0;

    if (snapshot_objects(k->part, &ids, &n, &k->e) < 0)
        return -1;
    snapshot_rows_add_many(&known, ids, n);
    free(ids);
    snapshot_rows_add_many(&k->present, k->changed.octets, k->changed.n);
    snapshot_rows_sort(&known);
    snapshot_rows_sort(&k->present);
    snapshot_rows_differ(&known, &k->present);
    snapshot_rows_add_many(&k->changed, known.octets, known.n);
    n = known.is_full || k->present.is_full || k->changed.is_full;
    snapshot_rows_clear(&known);
    return n > 0 ? err_set(&k->e, ERR_SYSTEM, "out of memory") : 0;
}

/* Whatever the server has against it, a full look may do. */
static bool
is_refusal(int code)
{
    return code > 0 && code != LDAP_BUSY && code != LDAP_UNAVAILABLE;
}

int
sync_repl_changes(struct sync_look *k, const struct snapshot_mark *before)
{
    char filter[DIR_FILTER_MAX];
    char **attributes = sync_attributes(k);
    ldap_sync_t ls;
    int rc;

    if (!attributes || sync_arm(k) < 0) {
        free(attributes);
        return -1;
    }
    sync_filter(k->plan, filter, sizeof filter);
    ldap_sync_initialize(&ls);
    ls.ls_base = span_dup(span_str(k->plan->base));
    ls.ls_scope = LDAP_SCOPE_SUBTREE;
    ls.ls_filter = span_dup(span_str(filter));
    ls.ls_attrs = attributes;
    ls.ls_timeout = -1; /* the guard's */
    ls.ls_search_entry = on_entry;
    ls.ls_search_reference = on_reference;
    ls.ls_intermediate = on_info;
    ls.ls_search_result = on_result;
    ls.ls_private = k;
    ls.ls_ld = k->link->ld;
    ber_str2bv(before->cookie, 0, 1, &ls.ls_cookie);
    rc = ldap_sync_init_refresh_only(&ls);
    if (rc == LDAP_SUCCESS && !span_copy(k->mark.cookie, sizeof k->mark.cookie,
                                         span_of(ls.ls_cookie.bv_val, ls.ls_cookie.bv_len)))
        k->mark.cookie[0] = '\0'; /* the next look is a full one */
    ls.ls_ld = NULL;              /* these two are not its own to free */
    ls.ls_attrs = NULL;
    ldap_sync_destroy(&ls, 0);
    free(attributes);
    if (rc == LDAP_SUCCESS)
        return k->is_present_phase ? note_missing(k) : 0;
    if (is_refusal(rc) && k->e.kind == ERR_NONE)
        return 1;
    return k->e.kind != ERR_NONE ? -1 : dir_link_error(k->link->ld, rc, &k->e, "changes");
}

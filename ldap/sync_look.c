#define _POSIX_C_SOURCE 200809L
#include "ldap/sync_look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "ldap/dir_address.h"
#include "ldap/dir_filter.h"
#include "ldap/dir_result.h"

#define PAGE        1000 /* Active Directory gives no more */
#define PAGE_MIN_MS 60000
#define LOOK_MAX_MS (60 * 60 * 1000) /* a server that never comes to an end is left */

void
sync_look_init(struct sync_look *k, const struct dir_plan *plan, struct snapshot *s,
               struct snapshot_part *part, struct dir_link *link, const atomic_bool *is_ending)
{
    *k = (struct sync_look){.plan = plan,
                            .snapshot = s,
                            .part = part,
                            .link = link,
                            .is_ending = is_ending,
                            .ends_ms = clock_ms() + LOOK_MAX_MS,
                            .rows = snapshot_rows_of(sizeof(struct snapshot_row)),
                            .changed = snapshot_rows_of(sizeof(struct snapshot_id)),
                            .present = snapshot_rows_of(sizeof(struct snapshot_id))};
}

void
sync_look_reset(struct sync_look *k)
{
    snapshot_rows_clear(&k->rows);
    snapshot_rows_clear(&k->changed);
    snapshot_rows_clear(&k->present);
    for (size_t i = 0; i < k->n_rules; i++) {
        free(k->rules[i].allow);
        free(k->rules[i].deny);
    }
    free(k->rules);
    k->rules = NULL;
    k->n_rules = k->rules_capacity = 0;
    k->has_rules = k->is_present_phase = false;
}

void
sync_look_clear(struct sync_look *k)
{
    sync_look_reset(k);
    free(k->context);
    k->context = NULL;
}

/* Searches. */

int
sync_arm(struct sync_look *k)
{
    const int64_t timeout_ms = k->plan->conf->timeout, now_ms = clock_ms();

    if (now_ms >= k->ends_ms)
        return err_set(&k->e, ERR_LDAP, "search: no end within an hour");
    dir_guard_arm(&k->link->guard, now_ms + (timeout_ms < PAGE_MIN_MS ? PAGE_MIN_MS : timeout_ms));
    /* In this order: whoever says that it ends cuts the link after that. */
    return atomic_load(k->is_ending) ? err_set(&k->e, ERR_LDAP, "the program ends") : 0;
}

static int
fail(struct sync_look *k, int code, const char *action)
{
    return dir_link_error(k->link->ld, code, &k->e, action);
}

/* How the page ended: 0, or -1. COOKIE is of the next one, empty if this was the last. */
static int
end_page(struct sync_look *k, const struct sync_search *s, LDAPMessage *m, struct berval *cookie)
{
    LDAPControl **controls = NULL, *paging;
    char *words = NULL;
    int code = LDAP_OTHER, rc;

    ber_memfree(cookie->bv_val);
    *cookie = (struct berval){.bv_len = 0};
    rc = ldap_parse_result(k->link->ld, m, &code, NULL, &words, NULL, &controls, 0);
    if (rc != LDAP_SUCCESS)
        code = rc;
    if (code == LDAP_SUCCESS) {
        paging = ldap_control_find(LDAP_CONTROL_PAGEDRESULTS, controls, NULL);
        rc = paging ? ldap_parse_pageresponse_control(k->link->ld, paging, NULL, cookie)
                    : LDAP_SUCCESS;
        if (rc != LDAP_SUCCESS)
            err_set(&k->e, ERR_LDAP, "search: the paging cannot be read");
    } else if (code == LDAP_NO_SUCH_OBJECT && s->is_missing_fine) {
        rc = LDAP_SUCCESS;
    } else if (code == LDAP_REFERRAL && s->is_elsewhere_fine) {
        rc = LDAP_SUCCESS;
        if (s->is_elsewhere)
            *s->is_elsewhere = true;
    } else {
        rc = code;
        err_set(&k->e, ERR_LDAP, "search: %s%s%s", ldap_err2string(code),
                words && *words ? ": " : "", words ? words : "");
    }
    ldap_controls_free(controls);
    ldap_memfree(words);
    return rc == LDAP_SUCCESS ? 0 : -1;
}

int
sync_reference(struct sync_look *k)
{
    return k->plan->is_ad
               ? 0
               : err_set(&k->e, ERR_LDAP, "search: a part of the directory is on another server");
}

static int
receive_page(struct sync_look *k, const struct sync_search *s, int id, struct berval *cookie,
             sync_entry_fn *fn, void *arg)
{
    for (;;) {
        LDAPMessage *m = NULL;
        int rc, type;

        if (sync_arm(k) < 0)
            return -1;
        type = ldap_result(k->link->ld, id, LDAP_MSG_ONE, NULL, &m);
        if (type <= 0)
            return fail(k, LDAP_SERVER_DOWN, "search");
        rc = type == LDAP_RES_SEARCH_ENTRY       ? fn(k, m, arg)
             : type == LDAP_RES_SEARCH_REFERENCE ? sync_reference(k)
             : type == LDAP_RES_SEARCH_RESULT    ? end_page(k, s, m, cookie)
                                                 : 0;
        ldap_msgfree(m);
        if (rc < 0 || type == LDAP_RES_SEARCH_RESULT)
            return rc;
    }
}

static int
search_page(struct sync_look *k, const struct sync_search *s, struct berval *cookie,
            sync_entry_fn *fn, void *arg)
{
    LDAPControl scope = {.ldctl_oid = (char[]){"1.2.840.113556.1.4.1339"}};
    LDAPControl deleted = {.ldctl_oid = (char[]){"1.2.840.113556.1.4.417"}, .ldctl_iscritical = 1};
    LDAPControl *paging = NULL, *controls[4] = {NULL};
    size_t n = 0;
    int id, rc = LDAP_SUCCESS;

    if (s->scope != LDAP_SCOPE_BASE) {
        rc = ldap_create_page_control(k->link->ld, PAGE, cookie, 0, &paging);
        controls[n++] = paging;
        if (k->is_ad)
            controls[n++] = &scope;
        if (s->with_deleted)
            controls[n++] = &deleted;
    }
    if (rc == LDAP_SUCCESS && sync_arm(k) == 0) {
        rc = ldap_search_ext(k->link->ld, s->base, s->scope, s->filter, s->attributes, 0, controls,
                             NULL, NULL, 0, &id);
        if (rc == LDAP_SUCCESS)
            rc = receive_page(k, s, id, cookie, fn, arg);
        else
            rc = fail(k, rc, "search");
    } else {
        rc = rc == LDAP_SUCCESS ? -1 : fail(k, rc, "search");
    }
    if (paging)
        ldap_control_free(paging);
    return rc;
}

int
sync_search(struct sync_look *k, const struct sync_search *s, sync_entry_fn *fn, void *arg)
{
    struct berval cookie = {.bv_len = 0};
    int rc;

    do {
        rc = search_page(k, s, &cookie, fn, arg);
    } while (rc == 0 && cookie.bv_len > 0);
    ber_memfree(cookie.bv_val);
    return rc;
}

/* Entries. */

char *
sync_value(struct sync_look *k, LDAPMessage *entry, const char *attribute)
{
    struct berval **values = ldap_get_values_len(k->link->ld, entry, attribute);
    char *text =
        values && values[0] ? span_dup(span_of(values[0]->bv_val, values[0]->bv_len)) : NULL;

    ldap_value_free_len(values);
    return text;
}

char **
sync_attributes(const struct sync_look *k)
{
    static char guid[] = "objectGUID", uuid[] = "entryUUID";
    size_t n = 0;
    char **list;

    while (k->plan->attributes[n])
        n++;
    list = calloc(n + 2, sizeof *list);
    if (!list)
        return NULL;
    memcpy(list, k->plan->attributes, n * sizeof *list);
    list[n] = k->is_ad ? guid : uuid;
    return list;
}

void
sync_filter(const struct dir_plan *plan, char *out, size_t capacity)
{
    size_t n;

    if (plan->conf->snapshot_filter) {
        snprintf(out, capacity, "%s", plan->conf->snapshot_filter);
        return;
    }
    n = (size_t)snprintf(out, capacity, "(|");
    for (size_t i = 0; i < plan->n_addresses && n < capacity; i++)
        n += (size_t)snprintf(
            out + n, capacity - n, "(%s=%s*)", plan->addresses[i],
            span_is_nocase(span_str(plan->addresses[i]), "proxyAddresses") ? "smtp:" : "");
    if (n < capacity)
        snprintf(out + n, capacity - n, ")");
}

static int
hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* entryUUID is text (RFC 4530). */
static bool
read_uuid(struct span text, struct snapshot_id *id)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++) {
        int digit = hex(ascii_lower(text.p[i]));

        if (text.p[i] == '-')
            continue;
        if (digit < 0 || n == 2 * sizeof id->octets)
            return false;
        id->octets[n / 2] = (uint8_t)(id->octets[n / 2] << 4 | digit);
        n++;
    }
    return n == 2 * sizeof id->octets;
}

int
sync_entry_id(struct sync_look *k, LDAPMessage *entry, struct snapshot_id *id)
{
    struct berval **values =
        ldap_get_values_len(k->link->ld, entry, k->is_ad ? "objectGUID" : "entryUUID");
    bool is_read = false;

    *id = (struct snapshot_id){.octets = {0}};
    if (values && values[0] && k->is_ad) {
        is_read = values[0]->bv_len == sizeof id->octets;
        if (is_read)
            memcpy(id->octets, values[0]->bv_val, sizeof id->octets);
    } else if (values && values[0]) {
        is_read = read_uuid(span_of(values[0]->bv_val, values[0]->bv_len), id);
    }
    ldap_value_free_len(values);
    return is_read ? 0
                   : err_set(&k->e, ERR_LDAP, "an entry has no %s to know it by",
                             k->is_ad ? "objectGUID" : "entryUUID");
}

size_t
sync_address(const struct dir_plan *plan, struct span value, char out[DIR_ADDRESS_MAX + 1])
{
    const char *colon;

    if (span_starts_nocase(value, "smtp:"))
        value = span_of(value.p + 5, value.n - 5);
    colon = memchr(value.p, ':', value.n);
    /* Of another kind: "sip:anna@example.com". */
    if (colon && plan->is_ad && value.p[0] != '"')
        return 0;
    return dir_address_canonical(value, out);
}

/* An X.500 address, for mail to an IMCEA one: "x500:" and the value in lower case, into OUT. */
static size_t
x500_address(struct span name, struct span value, char out[DIR_ADDRESS_MAX + 6])
{
    size_t n = 5;

    if (span_starts_nocase(value, "x500:"))
        value = span_of(value.p + 5, value.n - 5);
    else if (!span_is_nocase(name, "legacyExchangeDN"))
        return 0;
    if (value.n == 0 || value.n > DIR_ADDRESS_MAX)
        return 0;
    memcpy(out, "x500:", n);
    for (size_t i = 0; i < value.n; i++)
        out[n++] = ascii_lower(value.p[i]);
    return n;
}

static bool
is_address_attribute(const struct dir_plan *plan, struct span name)
{
    for (size_t i = 0; i < plan->n_addresses; i++)
        if (span_is_nocase(name, plan->addresses[i]))
            return true;
    return false;
}

static void
add_row(struct sync_look *k, const struct snapshot_id *id, struct span address, uint32_t limits)
{
    struct snapshot_row row;

    memset(&row, 0, sizeof row);
    row.address = snapshot_hash(k->snapshot, address);
    row.object = *id;
    row.limits = limits;
    snapshot_rows_add(&k->rows, &row);
}

static void
take_value(struct sync_look *k, const struct snapshot_id *id, struct span name, struct span value)
{
    char address[DIR_ADDRESS_MAX + 6];
    size_t n;

    if (k->plan->is_ad && (n = x500_address(name, value, address)) > 0) {
        add_row(k, id, span_of(address, n), SNAPSHOT_IS_X500);
        return;
    }
    n = is_address_attribute(k->plan, name) ? sync_address(k->plan, value, address) : 0;
    if (n > 0)
        add_row(k, id, span_of(address, n), 0);
}

static uint32_t
limits_of(const struct sync_look *k, struct span name, struct span value)
{
    uint64_t kib;

    if (!k->plan->is_ad)
        return 0;
    if (span_is_nocase(name, "msExchRequireAuthToSendTo"))
        return span_is_nocase(value, "TRUE") ? SNAPSHOT_REQUIRE_AUTH : 0;
    if (span_is_nocase(name, "delivContLength"))
        return span_u64(value, SNAPSHOT_KIB_MAX, &kib) ? (uint32_t)kib : 0;
    if (span_is_nocase(name, "authOrig") || span_is_nocase(name, "unauthOrig") ||
        span_is_nocase(name, "dLMemSubmitPerms") || span_is_nocase(name, "dLMemRejectPerms"))
        return SNAPSHOT_HAS_RULES;
    return 0;
}

/* A very long attribute comes in parts, each to be asked for. */
struct part {
    char name[64];
    unsigned next; /* 0: there are no more */
    bool is_split; /* two attributes do, and only one is followed */
    const struct snapshot_id *id;
    uint32_t limits;
};

static void
take_attribute(struct sync_look *k, const char *description, struct berval *const *values,
               struct part *part)
{
    struct dir_attribute a = dir_result_attribute(span_str(description));

    for (size_t i = 0; values[i]; i++) {
        struct span value = span_of(values[i]->bv_val, values[i]->bv_len);

        part->limits |= limits_of(k, a.name, value);
        take_value(k, part->id, a.name, value);
    }
    if (a.is_ranged && is_address_attribute(k->plan, a.name)) {
        part->is_split = part->is_split || part->next > 0;
        part->next = a.is_last ? 0 : a.next;
        span_copy(part->name, sizeof part->name, a.name);
    }
}

static int
take_attributes(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct part *part = arg;
    BerElement *ber = NULL;

    for (char *name = ldap_first_attribute(k->link->ld, entry, &ber); name;
         name = ldap_next_attribute(k->link->ld, entry, ber)) {
        struct berval **values = ldap_get_values_len(k->link->ld, entry, name);

        if (values)
            take_attribute(k, name, values, part);
        ldap_value_free_len(values);
        ldap_memfree(name);
    }
    ber_free(ber, 0);
    return 0;
}

static int
take_rest(struct sync_look *k, LDAPMessage *entry, struct part *part)
{
    char *dn = part->next > 0 ? ldap_get_dn(k->link->ld, entry) : NULL;
    int rc = 0;

    while (dn && part->next > 0 && rc == 0) {
        char range[96];
        char *attributes[] = {range, NULL};
        unsigned from = part->next;
        const struct sync_search s = {.base = dn,
                                      .scope = LDAP_SCOPE_BASE,
                                      .filter = "(objectClass=*)",
                                      .attributes = attributes,
                                      .is_missing_fine = true};

        snprintf(range, sizeof range, "%s;range=%u-*", part->name, from);
        part->next = 0; /* nothing may come: the object is gone */
        rc = sync_search(k, &s, take_attributes, part);
        if (rc == 0 && part->next > 0 && part->next <= from)
            rc = err_set(&k->e, ERR_LDAP, "search: the server repeats the values of %s", dn);
    }
    if (rc == 0 && (part->next > 0 || part->is_split))
        rc = err_set(&k->e, ERR_LDAP, "search: not all values of %s can be had",
                     dn ? dn : "an entry");
    ldap_memfree(dn);
    return rc;
}

int
sync_take_object(struct sync_look *k, LDAPMessage *entry, const struct snapshot_id *id)
{
    struct part part = {.id = id};
    size_t first = k->rows.n;

    take_attributes(k, entry, &part);
    if (take_rest(k, entry, &part) < 0)
        return -1;
    for (size_t i = first; i < k->rows.n; i++)
        ((struct snapshot_row *)snapshot_rows_at(&k->rows, i))->limits |= part.limits;
    k->has_rules = k->has_rules || part.limits & SNAPSHOT_HAS_RULES;
    snapshot_rows_add(&k->changed, id);
    return k->rows.is_full || k->changed.is_full
               ? err_set(&k->e, ERR_SYSTEM, "no room for more than %zu addresses", k->rows.n)
               : 0;
}

int
sync_take_entry(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct snapshot_id id;

    (void)arg;
    return sync_entry_id(k, entry, &id) < 0 ? -1 : sync_take_object(k, entry, &id);
}

int
sync_look_full(struct sync_look *k)
{
    char filter[DIR_FILTER_MAX];
    char **attributes = sync_attributes(k);
    struct sync_search s = {.base = k->plan->base,
                            .scope = LDAP_SCOPE_SUBTREE,
                            .filter = filter,
                            .attributes = attributes};
    int rc;

    if (!attributes)
        return err_set(&k->e, ERR_SYSTEM, "out of memory");
    sync_filter(k->plan, filter, sizeof filter);
    rc = sync_search(k, &s, sync_take_entry, NULL);
    free(attributes);
    return rc;
}

bool
sync_is_same(const struct sync_look *k, const struct snapshot_mark *before)
{
    return span_equal_nocase(span_str(before->controller), span_str(k->mark.controller)) &&
           memcmp(&before->invocation, &k->mark.invocation, sizeof before->invocation) == 0;
}

int
sync_look_changes(struct sync_look *k, const struct snapshot_mark *before)
{
    if (!sync_is_same(k, before))
        return 1;
    if (k->is_ad)
        return sync_ad_changes(k, before);
    return k->has_sync && before->cookie[0] != '\0' ? sync_repl_changes(k, before) : 1;
}

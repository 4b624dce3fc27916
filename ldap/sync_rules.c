#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "ldap/dir_filter.h"
#include "ldap/dir_result.h"
#include "ldap/sync_look.h"

/* Who may write to whom, so that no server is needed to tell: the lists of an object name users and
 * groups by DN, of which the snapshot keeps the addresses' hashes. */

#define MEMBERS_MAX 20000u /* addresses of a list; one with more is left to Exchange */
#define BUCKETS     1024u

enum kind { KIND_USER, KIND_GROUP };

/* What a DN stands for; resolved once. */
struct resolved {
    struct resolved *next;
    uint64_t key; /* hash of kind and DN */
    bool is_open; /* cannot be told from here */
    struct snapshot_rows hashes;
};

/* A value of a list, to be resolved when all lists are read. */
struct name {
    struct name *next;
    size_t rule; /* index */
    bool is_deny;
    enum kind kind;
    char dn[];
};

struct pass {
    struct name *names;
    struct resolved *buckets[BUCKETS];
};

/* Reading the lists. */

static int
add_name(struct pass *p, size_t rule, bool is_deny, enum kind kind, const struct berval *dn)
{
    struct name *n = malloc(sizeof *n + dn->bv_len + 1);

    if (!n)
        return -1;
    n->rule = rule;
    n->is_deny = is_deny;
    n->kind = kind;
    memcpy(n->dn, dn->bv_val, dn->bv_len);
    n->dn[dn->bv_len] = '\0';
    n->next = p->names;
    p->names = n;
    return 0;
}

static struct snapshot_rules *
add_rule(struct sync_look *k, const struct snapshot_id *id)
{
    if (k->n_rules == k->rules_capacity) {
        size_t capacity = k->rules_capacity ? 2 * k->rules_capacity : 64;
        struct snapshot_rules *rules = realloc(k->rules, capacity * sizeof *rules);

        if (!rules)
            return NULL;
        k->rules = rules;
        k->rules_capacity = capacity;
    }
    k->rules[k->n_rules] = (struct snapshot_rules){.object = *id};
    return &k->rules[k->n_rules++];
}

static int
take_list(struct sync_look *k, struct pass *p, const char *description,
          struct berval *const *values)
{
    struct dir_attribute a = dir_result_attribute(span_str(description));
    struct snapshot_rules *rule = &k->rules[k->n_rules - 1];
    bool is_group =
        span_is_nocase(a.name, "dLMemSubmitPerms") || span_is_nocase(a.name, "dLMemRejectPerms");
    bool is_deny =
        span_is_nocase(a.name, "unauthOrig") || span_is_nocase(a.name, "dLMemRejectPerms");

    if (!is_group && !is_deny && !span_is_nocase(a.name, "authOrig"))
        return 0;
    if (is_deny)
        rule->is_deny_open = rule->is_deny_open || a.is_ranged;
    else
        rule->is_allow_open = rule->is_allow_open || a.is_ranged;
    for (size_t i = 0; values[i]; i++) {
        rule->has_allow = rule->has_allow || !is_deny;
        if (add_name(p, k->n_rules - 1, is_deny, is_group ? KIND_GROUP : KIND_USER, values[i]) < 0)
            return -1;
    }
    return 0;
}

static int
take_rules(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    BerElement *ber = NULL;
    struct snapshot_id id;
    int rc = 0;

    if (sync_entry_id(k, entry, &id) < 0)
        return -1;
    if (!add_rule(k, &id))
        return err_set(&k->e, ERR_SYSTEM, "out of memory");
    for (char *name = ldap_first_attribute(k->link->ld, entry, &ber); name;
         name = ldap_next_attribute(k->link->ld, entry, ber)) {
        struct berval **values = ldap_get_values_len(k->link->ld, entry, name);

        if (rc == 0 && values && take_list(k, arg, name, values) < 0)
            rc = err_set(&k->e, ERR_SYSTEM, "out of memory");
        ldap_value_free_len(values);
        ldap_memfree(name);
    }
    ber_free(ber, 0);
    return rc;
}

/* Resolving. */

static uint64_t
key_of(const struct sync_look *k, enum kind kind, const char *dn)
{
    size_t n = strlen(dn);
    char *lower = malloc(n + 2);
    uint64_t key = 0;

    if (!lower)
        return 0;
    lower[0] = (char)('0' + kind);
    for (size_t i = 0; i <= n; i++)
        lower[i + 1] = ascii_lower(dn[i]);
    key = snapshot_hash(k->snapshot, span_of(lower, n + 1)).lo;
    free(lower);
    return key;
}

static struct resolved *
find_resolved(struct pass *p, uint64_t key)
{
    struct resolved *r = p->buckets[key % BUCKETS];

    while (r && r->key != key)
        r = r->next;
    return r;
}

static void
add_address(const struct sync_look *k, struct resolved *r, struct span value)
{
    char address[DIR_ADDRESS_MAX + 1];
    size_t n = span_starts_nocase(value, "smtp:") ? sync_address(k->plan, value, address) : 0;
    uint64_t hash;

    if (n == 0 || r->is_open)
        return;
    if (r->hashes.n == MEMBERS_MAX) {
        r->is_open = true;
        return;
    }
    hash = snapshot_hash(k->snapshot, span_of(address, n)).lo;
    snapshot_rows_add(&r->hashes, &hash);
}

/* Some attribute of ENTRY has more values than came. */
static bool
is_cut(const struct sync_look *k, LDAPMessage *entry)
{
    BerElement *ber = NULL;
    bool is_ranged = false;

    for (char *name = ldap_first_attribute(k->link->ld, entry, &ber); name;
         name = ldap_next_attribute(k->link->ld, entry, ber)) {
        is_ranged = is_ranged || dir_result_attribute(span_str(name)).is_ranged;
        ldap_memfree(name);
    }
    ber_free(ber, 0);
    return is_ranged;
}

static int
take_addresses(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct resolved *r = arg;
    static const char *const attributes[] = {"proxyAddresses", "targetAddress"};

    r->is_open = r->is_open || is_cut(k, entry);
    for (size_t i = 0; i < 2; i++) {
        struct berval **values = ldap_get_values_len(k->link->ld, entry, attributes[i]);

        for (size_t v = 0; values && values[v]; v++)
            add_address(k, r, span_of(values[v]->bv_val, values[v]->bv_len));
        ldap_value_free_len(values);
    }
    return 0;
}

static char *address_attributes[] = {(char[]){"proxyAddresses"}, (char[]){"targetAddress"}, NULL};

/* The DN's own addresses. */
static int
resolve_user(struct sync_look *k, const char *dn, struct resolved *r)
{
    const struct sync_search s = {.base = dn,
                                  .scope = LDAP_SCOPE_BASE,
                                  .filter = "(objectClass=*)",
                                  .attributes = address_attributes,
                                  .is_missing_fine = true,
                                  .is_elsewhere_fine = true,
                                  .is_elsewhere = &r->is_open};

    return sync_search(k, &s, take_addresses, r);
}

/* Active Directory follows groups in groups by itself. */
static int
resolve_chain(struct sync_look *k, const char *dn, struct resolved *r)
{
    struct dir_filter filter = {.n = 0};
    const struct sync_search s = {.base = k->context,
                                  .scope = LDAP_SCOPE_SUBTREE,
                                  .filter = filter.text,
                                  .attributes = address_attributes};

    dir_filter_add(&filter, "(&(memberOf:1.2.840.113556.1.4.1941:=");
    dir_filter_add_value(&filter, span_str(dn));
    dir_filter_add(&filter, ")(|(proxyAddresses=smtp:*)(targetAddress=smtp:*)))");
    if (filter.is_full) {
        r->is_open = true;
        return 0;
    }
    return sync_search(k, &s, take_addresses, r);
}

/* Of other servers only the members are known, which may be groups again. */
struct todo {
    struct todo *next;
    char dn[];
};

#define SEEN 65536u /* places; more than twice MEMBERS_MAX */

struct members {
    struct resolved *resolved;
    struct todo *todo;
    bool is_member; /* what is asked for; else the group itself */
    size_t count;   /* of the members so far */
    uint64_t *seen; /* their keys; 0: a free place */
};

/* DN is new. */
static bool
see(const struct sync_look *k, struct members *m, const char *dn)
{
    uint64_t key = key_of(k, KIND_USER, dn) | 1;
    size_t i = (size_t)(key >> 1) % SEEN;

    while (m->seen[i] != 0 && m->seen[i] != key)
        i = (i + 1) % SEEN;
    if (m->seen[i] == key)
        return false;
    m->seen[i] = key;
    m->count++;
    return true;
}

static int
add_todo(const struct sync_look *k, struct members *m, const char *dn)
{
    size_t n = strlen(dn);
    struct todo *t;

    if (!see(k, m, dn))
        return 0;
    t = malloc(sizeof *t + n + 1);
    if (!t)
        return -1;
    memcpy(t->dn, dn, n + 1);
    t->next = m->todo;
    m->todo = t;
    return 0;
}

static int
take_member(struct sync_look *k, LDAPMessage *entry, void *arg)
{
    struct members *m = arg;
    struct berval **values = ldap_get_values_len(k->link->ld, entry, "member");
    int rc = m->is_member ? take_addresses(k, entry, m->resolved) : 0;

    m->resolved->is_open = m->resolved->is_open || is_cut(k, entry);
    if (values && m->count + (size_t)ldap_count_values_len(values) > MEMBERS_MAX)
        m->resolved->is_open = true;
    for (size_t i = 0; values && values[i] && rc == 0 && !m->resolved->is_open; i++)
        if (add_todo(k, m, values[i]->bv_val) < 0)
            rc = err_set(&k->e, ERR_SYSTEM, "out of memory");
    ldap_value_free_len(values);
    return rc;
}

static int
resolve_members(struct sync_look *k, const char *dn, struct resolved *r)
{
    char *attributes[] = {(char[]){"member"}, (char[]){"proxyAddresses"}, (char[]){"targetAddress"},
                          NULL};
    struct members m = {.resolved = r, .seen = calloc(SEEN, sizeof *m.seen)};
    struct sync_search s = {.base = dn,
                            .scope = LDAP_SCOPE_BASE,
                            .filter = "(objectClass=*)",
                            .attributes = attributes,
                            .is_missing_fine = true,
                            .is_elsewhere_fine = true,
                            .is_elsewhere = &r->is_open};
    int rc =
        m.seen ? sync_search(k, &s, take_member, &m) : err_set(&k->e, ERR_SYSTEM, "out of memory");

    m.is_member = true;
    while (m.todo) {
        struct todo *t = m.todo;

        m.todo = t->next;
        s.base = t->dn;
        if (rc == 0 && !r->is_open)
            rc = sync_search(k, &s, take_member, &m);
        free(t);
    }
    free(m.seen);
    return rc;
}

static struct resolved *
resolve(struct sync_look *k, struct pass *p, enum kind kind, const char *dn)
{
    uint64_t key = key_of(k, kind, dn);
    struct resolved *r = find_resolved(p, key);
    int rc;

    if (r)
        return r;
    r = calloc(1, sizeof *r);
    if (!r) {
        err_set(&k->e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    r->key = key;
    r->hashes = snapshot_rows_of(sizeof(uint64_t));
    r->next = p->buckets[key % BUCKETS];
    p->buckets[key % BUCKETS] = r;
    if (kind == KIND_USER)
        rc = resolve_user(k, dn, r);
    else
        rc = k->is_ad ? resolve_chain(k, dn, r) : resolve_members(k, dn, r);
    if (rc == 0 && r->hashes.is_full)
        rc = err_set(&k->e, ERR_SYSTEM, "out of memory");
    return rc == 0 ? r : NULL;
}

static int
append(uint64_t **list, size_t *n, const struct snapshot_rows *hashes)
{
    uint64_t *longer = realloc(*list, (*n + hashes->n + 1) * sizeof *longer);

    if (!longer)
        return -1;
    if (hashes->n > 0)
        memcpy(longer + *n, hashes->octets, hashes->n * sizeof *longer);
    *list = longer;
    *n += hashes->n;
    return 0;
}

static int
apply_name(struct sync_look *k, struct pass *p, const struct name *n)
{
    const struct resolved *r = resolve(k, p, n->kind, n->dn);
    struct snapshot_rules *rule = &k->rules[n->rule];
    int rc;

    if (!r)
        return -1;
    if (n->is_deny) {
        rule->is_deny_open = rule->is_deny_open || r->is_open;
        rc = append(&rule->deny, &rule->n_deny, &r->hashes);
    } else {
        rule->is_allow_open = rule->is_allow_open || r->is_open;
        rc = append(&rule->allow, &rule->n_allow, &r->hashes);
    }
    return rc == 0 ? 0 : err_set(&k->e, ERR_SYSTEM, "out of memory");
}

static void
clear(struct pass *p)
{
    while (p->names) {
        struct name *n = p->names;

        p->names = n->next;
        free(n);
    }
    for (size_t i = 0; i < BUCKETS; i++)
        while (p->buckets[i]) {
            struct resolved *r = p->buckets[i];

            p->buckets[i] = r->next;
            snapshot_rows_clear(&r->hashes);
            free(r);
        }
}

int
sync_look_rules(struct sync_look *k)
{
    char *attributes[] = {(char[]){"authOrig"},
                          (char[]){"unauthOrig"},
                          (char[]){"dLMemSubmitPerms"},
                          (char[]){"dLMemRejectPerms"},
                          k->is_ad ? (char[]){"objectGUID"} : (char[]){"entryUUID"},
                          NULL};
    const struct sync_search s = {
        .base = k->plan->base,
        .scope = LDAP_SCOPE_SUBTREE,
        .filter = "(|(authOrig=*)(unauthOrig=*)(dLMemSubmitPerms=*)(dLMemRejectPerms=*))",
        .attributes = attributes};
    struct pass p = {.names = NULL};
    int rc = sync_search(k, &s, take_rules, &p);

    for (const struct name *n = p.names; n && rc == 0; n = n->next)
        rc = apply_name(k, &p, n);
    clear(&p);
    return rc;
}

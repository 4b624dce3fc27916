#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_wire.h"

#include <sys/time.h>

#include "base/clock.h"
#include "ldap/dir_result.h"

#define ENTRIES_MAX 20 /* of one search: one is right, two are a mistake */

/* LDAP_SERVER_DOMAIN_SCOPE_OID: no references to other partitions. */
static LDAPControl domain_scope = {.ldctl_oid = (char[]){"1.2.840.113556.1.4.1339"}};
static LDAPControl *no_references[] = {&domain_scope, NULL};

int
dir_wire_send(LDAP *ld, const struct dir_plan *plan, struct dir_query *q, int *id)
{
    struct timeval limit = {.tv_sec = (time_t)(plan->conf->timeout + 999) / 1000};
    struct dir_search s;

    if (!dir_query_search(q, &s))
        return 0;
    return ldap_search_ext(ld, s.base, s.scope, s.filter, s.attributes, 0,
                           plan->is_ad ? no_references : NULL, NULL, &limit, ENTRIES_MAX,
                           id) == LDAP_SUCCESS
               ? 1
               : -1;
}

static enum dir_wire
take_end(LDAP *ld, struct dir_query *q, LDAPMessage *m, struct err *e)
{
    enum dir_outcome outcome;
    int code = LDAP_OTHER;
    char *words = NULL;
    struct err why;

    if (ldap_parse_result(ld, m, &code, NULL, &words, NULL, NULL, 0) != LDAP_SUCCESS)
        code = LDAP_DECODING_ERROR;
    err_set(&why, ERR_LDAP, "search: %s%s%s", ldap_err2string(code), words && *words ? ": " : "",
            words ? words : "");
    ldap_memfree(words);
    outcome = dir_result_outcome(code);
    if (outcome == DIR_OUTCOME_LOST) {
        *e = why;
        return DIR_WIRE_LOST;
    }
    /* That a group is gone is no fault of the server's: only what leaves the question open is. */
    if (!dir_query_end(q, code) || dir_query_verdict(q)->status != DIR_UNAVAILABLE)
        return DIR_WIRE_ENDED;
    if (outcome == DIR_OUTCOME_COMPLETE) {
        /* It answers, and for an address that it has this is no trouble. */
        dir_query_explain(q, "search: a part of the directory is on another server");
        return DIR_WIRE_ENDED;
    }
    dir_query_explain(q, why.text);
    *e = why;
    return outcome == DIR_OUTCOME_FAILED ? DIR_WIRE_REFUSED : DIR_WIRE_ENDED;
}

enum dir_wire
dir_wire_take(LDAP *ld, struct dir_query *q, LDAPMessage *m, struct err *e)
{
    *e = (struct err){.kind = ERR_NONE};
    switch (ldap_msgtype(m)) {
    case LDAP_RES_SEARCH_ENTRY:
        dir_query_entry(q, ld, m);
        return DIR_WIRE_GOES_ON;
    case LDAP_RES_SEARCH_REFERENCE:
        dir_query_reference(q);
        return DIR_WIRE_GOES_ON;
    case LDAP_RES_SEARCH_RESULT:
        return take_end(ld, q, m, e);
    default:
        return DIR_WIRE_GOES_ON;
    }
}

/* One search of the probe, to its end. */
static enum dir_wire
await_end(LDAP *ld, struct dir_query *q, int id, int64_t until_ms, struct err *e)
{
    enum dir_wire end = DIR_WIRE_GOES_ON;

    while (end == DIR_WIRE_GOES_ON) {
        int64_t left_ms = until_ms - clock_ms();
        struct timeval left = {.tv_sec = (time_t)(left_ms / 1000),
                               .tv_usec = (suseconds_t)(left_ms % 1000) * 1000};
        LDAPMessage *m = NULL;
        int type = left_ms <= 0 ? 0 : ldap_result(ld, id, LDAP_MSG_ONE, &left, &m);

        if (type <= 0) {
            err_set(e, ERR_LDAP, "search: %s",
                    type == 0 ? "no answer within the timeout" : "the connection was lost");
            return DIR_WIRE_LOST;
        }
        end = dir_wire_take(ld, q, m, e);
        ldap_msgfree(m);
    }
    return end;
}

int
dir_wire_probe(struct dir_link *l, const struct dir_plan *plan, struct err *e)
{
    const int64_t until_ms = clock_ms() + plan->conf->timeout;
    struct dir_query *q = dir_query_new(plan, span_str("probe@postern.invalid"), false);
    enum dir_wire end = DIR_WIRE_ENDED;
    int id, sent = 0, code = LDAP_OTHER;

    *e = (struct err){.kind = ERR_NONE};
    if (!q)
        return err_set(e, ERR_SYSTEM, "out of memory");
    dir_guard_arm(&l->guard, until_ms);
    while (end == DIR_WIRE_ENDED && (sent = dir_wire_send(l->ld, plan, q, &id)) > 0)
        end = await_end(l->ld, q, id, until_ms, e);
    dir_guard_disarm(&l->guard);
    dir_query_free(&q);
    if (sent < 0) {
        ldap_get_option(l->ld, LDAP_OPT_RESULT_CODE, &code);
        return dir_link_error(l->ld, code, e, "search");
    }
    return end == DIR_WIRE_ENDED ? 0 : -1;
}

enum dir_link_result
dir_wire_open(struct dir_link *l, const struct dir_plan *plan, size_t uri, struct err *e)
{
    enum dir_link_result result = dir_link_open(l, plan, uri, e);

    if (result == DIR_LINK_OK && dir_wire_probe(l, plan, e) < 0) {
        dir_link_close(l);
        result = DIR_LINK_FAILED;
    }
    return result;
}

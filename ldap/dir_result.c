#include "ldap/dir_result.h"

#include <ldap.h>
#include <string.h>

#include "ldap/dir_address.h"

enum dir_outcome
dir_result_outcome(int code)
{
    if (code < 0)
        return DIR_OUTCOME_LOST;
    switch (code) {
    case LDAP_SUCCESS:
        return DIR_OUTCOME_COMPLETE;
    case LDAP_TIMELIMIT_EXCEEDED:
    case LDAP_SIZELIMIT_EXCEEDED:
    case LDAP_PARTIAL_RESULTS:
    case LDAP_ADMINLIMIT_EXCEEDED:
        return DIR_OUTCOME_PARTIAL;
    case LDAP_BUSY:
    case LDAP_UNAVAILABLE:
        return DIR_OUTCOME_LOST;
    default:
        return DIR_OUTCOME_FAILED;
    }
}

bool
dir_result_is_address(struct span value, struct span address)
{
    char canonical[DIR_ADDRESS_MAX + 1];
    size_t n;

    if (span_starts_nocase(value, "smtp:"))
        value = span_of(value.p + 5, value.n - 5);
    if (span_equal_nocase(value, address))
        return true;
    n = dir_address_canonical(value, canonical); /* a domain may be kept in its own script */
    return n > 0 && span_equal(span_of(canonical, n), address);
}

bool
dir_result_is_x500(struct span value, struct span x500)
{
    if (span_starts_nocase(value, "x500:"))
        value = span_of(value.p + 5, value.n - 5);
    return span_equal_nocase(value, x500);
}

struct dir_attribute
dir_result_attribute(struct span description)
{
    struct dir_attribute a = {.name = description};
    struct span rest = description, option;

    if (!span_next(&rest, ';', &a.name))
        return a;
    while (span_next(&rest, ';', &option)) {
        struct span low;
        uint64_t high = 0;

        if (!span_starts_nocase(option, "range="))
            continue;
        option = span_of(option.p + 6, option.n - 6);
        (void)span_next(&option, '-', &low);
        a.is_last = span_is(option, "*");
        a.is_ranged = a.is_last || span_u64(option, UINT32_MAX - 1, &high);
        a.next = a.is_ranged && !a.is_last ? (unsigned)high + 1 : 0;
    }
    return a;
}

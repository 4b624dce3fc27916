#ifndef TESTS_FUZZ_REQUIRE_H
#define TESTS_FUZZ_REQUIRE_H

#include <stdbool.h>
#include <stdlib.h>

/* What has to hold whatever the input is: to a fuzzer, and to its replay, the end is the finding.
 */
static inline void
require(bool is_true)
{
    if (!is_true)
        abort();
}

#endif

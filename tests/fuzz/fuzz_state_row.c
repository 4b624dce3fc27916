#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "policy/ledger.h"
#include "policy/memo.h"
#include "policy/policy.h"
#include "policy/state_row.h"
#include "tests/fuzz/require.h"

/* What lies in policy.mdb, whoever wrote it: as the row of a network, whose key is the first octets
 * of the input, and as a fact.  What is taken for a row can be written, and is the same row then.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
as_network(const struct state_view *v, struct span key, struct span value)
{
    static uint8_t once[STATE_ROW_MAX], again[STATE_ROW_MAX];
    struct network network;
    struct ledger_entry *e;
    size_t n;

    if (!state_row_read(v, key, value))
        return;
    memcpy(&network, key.p, sizeof network);
    e = ledger_open(v->ledger, &network, false, v->now);
    require(e != NULL);
    for (int i = 0; i < 2; i++) {
        require(e->hold[i].action <= POLICY_ACTION_BLIND && e->hold[i].by <= POLICY_BY_CONTROL);
        (void)ledger_unknown(e, i == 1, v->now);
    }
    require(ledger_served(e, v->now) <= WINDOW_COUNT_MAX);
    n = state_row_write(v, e, once);
    ledger_clear(v->ledger, e);
    ledger_close(v->ledger, e);
    require(state_row_read(v, key, span_of((const char *)once, n)));
    e = ledger_open(v->ledger, &network, false, v->now);
    require(state_row_write(v, e, again) == n && memcmp(once, again, n) == 0);
    ledger_clear(v->ledger, e);
    ledger_close(v->ledger, e);
}

static void
as_fact(const struct state_view *v, struct span key, struct span value)
{
    struct hash128 hash;
    struct memo *m;

    if (!state_fact_read(v, v->marks, key, value))
        return;
    memcpy(&hash, key.p, sizeof hash);
    memo_lock(v->marks);
    m = memo_find(v->marks, hash, v->now.s);
    require(m == NULL || m->until_s > v->now.s);
    if (m != NULL)
        memo_drop(v->marks, m);
    memo_unlock(v->marks);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct siphash_key key = {.octets = {1}};
    static struct state_view v = {.wall_offset = 1700000000, .now = {100000000, 3600}};
    const char *p = (const char *)data;
    size_t n;

    if (v.ledger == NULL) {
        v.ledger = ledger_new(&key, 1024);
        v.marks = memo_new(&key, 64);
        require(v.ledger != NULL && v.marks != NULL);
    }
    n = size < sizeof(struct network) ? size : sizeof(struct network);
    as_network(&v, span_of(p, n), span_of(p + n, size - n));
    n = size < sizeof(struct hash128) ? size : sizeof(struct hash128);
    as_fact(&v, span_of(p, n), span_of(p + n, size - n));
    return 0;
}

#include "policy/state_row.h"

#include <string.h>

#include "policy/policy.h"

#define ROW_IS_ON      1u
#define ROW_IS_MONITOR 2u

/* The two clocks.  A moment that lies in the future (the clock was put back) is now. */

static uint32_t
to_wall(const struct state_view *v, uint32_t s)
{
    return (uint32_t)(s + v->wall_offset);
}

static uint32_t
end_from_wall(const struct state_view *v, uint32_t wall_s)
{
    int64_t s = (int64_t)wall_s - v->wall_offset;

    return s < 1 ? 1 : s >= MEMO_PINNED ? MEMO_PINNED - 1 : (uint32_t)s;
}

static uint32_t
past_from_wall(const struct state_view *v, uint32_t wall_s)
{
    uint32_t s = end_from_wall(v, wall_s);

    return s < v->now.s ? s : v->now.s;
}

/* Ledger rows. */

size_t
state_row_write(const struct state_view *v, const struct ledger_entry *e, uint8_t *out)
{
    const struct window *windows[3] = {&e->unknown[0], &e->unknown[1], &e->served};
    struct state_row row = {0};
    size_t length = sizeof row;

    for (int i = 0; i < 2; i++) {
        const struct ledger_hold *h = &e->hold[i];
        row.hold[i].until_s = h->until_s == 0 ? 0 : to_wall(v, h->until_s);
        row.hold[i].action = h->action;
        row.hold[i].by = h->by;
        row.hold[i].repeats = h->repeats;
        row.hold[i].flags =
            (uint8_t)((h->is_on ? ROW_IS_ON : 0) | (h->is_monitor ? ROW_IS_MONITOR : 0));
    }
    for (int w = 0; w < 3; w++) {
        size_t n;
        const struct sighting *seen = window_sightings(windows[w], &n);
        row.n[w] = (uint16_t)n;
        for (size_t i = 0; i < n; i++) {
            struct sighting kept = {seen[i].hash, to_wall(v, seen[i].at_s)};
            memcpy(out + length, &kept, sizeof kept);
            length += sizeof kept;
        }
    }
    memcpy(out, &row, sizeof row);
    return length;
}

bool
state_row_is_empty(const struct state_row *row)
{
    return row->hold[0].until_s == 0 && row->hold[1].until_s == 0 && row->n[0] == 0 &&
           row->n[1] == 0 && row->n[2] == 0;
}

static void
read_windows(const struct state_view *v, struct ledger_entry *e, const struct state_row *row,
             const char *in)
{
    struct window *windows[3] = {&e->unknown[0], &e->unknown[1], &e->served};

    for (int w = 0; w < 3; w++) {
        struct sighting seen[WINDOW_EXACT];
        memcpy(seen, in, row->n[w] * sizeof *seen);
        in += row->n[w] * sizeof *seen;
        for (uint16_t i = 0; i < row->n[w]; i++)
            seen[i].at_s = past_from_wall(v, seen[i].at_s);
        ledger_restore(v->ledger, e, windows[w], seen, row->n[w], v->now);
    }
}

static bool
is_good_row(const struct network *network, const struct state_row *row, size_t length)
{
    size_t sightings = 0;

    if ((network->base.family != 4 && network->base.family != 6) ||
        network->prefix > (network->base.family == 4 ? 32 : 128))
        return false;
    for (int i = 0; i < 2; i++)
        if (row->hold[i].action > POLICY_ACTION_BLIND || row->hold[i].by > POLICY_BY_CONTROL ||
            row->hold[i].repeats > LEDGER_REPEATS_MAX)
            return false;
    for (int w = 0; w < 3; w++) {
        if (row->n[w] > WINDOW_EXACT)
            return false;
        sightings += row->n[w];
    }
    return length == sizeof *row + sightings * sizeof(struct sighting);
}

bool
state_row_read(const struct state_view *v, struct span key, struct span value)
{
    struct network network;
    struct ledger_entry *e;
    struct state_row row;

    if (key.n != sizeof network || value.n < sizeof row)
        return false;
    memcpy(&network, key.p, sizeof network);
    memcpy(&row, value.p, sizeof row);
    if (!is_good_row(&network, &row, value.n))
        return false;
    e = ledger_open(v->ledger, &network, true, v->now);
    read_windows(v, e, &row, value.p + sizeof row);
    for (int i = 0; i < 2; i++) {
        struct ledger_hold h = {.action = row.hold[i].action,
                                .by = row.hold[i].by,
                                .repeats = row.hold[i].repeats,
                                .is_on = (row.hold[i].flags & ROW_IS_ON) != 0,
                                .is_monitor = (row.hold[i].flags & ROW_IS_MONITOR) != 0};
        if (row.hold[i].until_s == 0)
            continue;
        h.until_s = end_from_wall(v, row.hold[i].until_s);
        ledger_hold(v->ledger, e, i == 1, &h);
    }
    ledger_close(v->ledger, e);
    return true;
}

struct state_fact
state_fact_of(const struct state_view *v, const struct memo *m)
{
    return (struct state_fact){to_wall(v, m->until_s), m->value};
}

bool
state_fact_read(const struct state_view *v, struct memo_table *t, struct span key,
                struct span value)
{
    struct hash128 hash;
    struct state_fact fact;
    struct memo *m;
    uint32_t until_s;

    if (key.n != sizeof hash || value.n != sizeof fact)
        return false;
    memcpy(&hash, key.p, sizeof hash);
    memcpy(&fact, value.p, sizeof fact);
    until_s = end_from_wall(v, fact.until_s);
    memo_lock(t);
    m = memo_put(t, hash, until_s, fact.value);
    if (m != NULL) {
        m->is_saved = true;
        m->is_dirty = false;
        if (until_s <= v->now.s)
            memo_drop(t, m);
    }
    memo_unlock(t);
    return true;
}

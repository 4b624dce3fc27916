#ifndef POLICY_STATE_ROW_H
#define POLICY_STATE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "policy/state.h"

/* How the rows of the state's tables are written and read: octets of this machine, moments of the
 * wall clock.  Whatever the disk has, reading it is safe. */

/* The value of a network: this, and then the sightings of each window. */
struct state_row {
    struct {
        uint32_t until_s;
        uint8_t action, by, repeats, flags;
    } hold[2];
    uint16_t n[3];
    uint16_t reserved;
};

#define STATE_ROW_MAX                                                                              \
    (sizeof(struct state_row) + (size_t)3 * WINDOW_EXACT * sizeof(struct sighting))

/* The value of a mark or a delivery. */
struct state_fact {
    uint32_t until_s;
    uint32_t value;
};

/* E's row into OUT (STATE_ROW_MAX); returns its length.  E is open. */
size_t state_row_write(const struct state_view *v, const struct ledger_entry *e, uint8_t *out);
/* Nothing in it is worth keeping. */
bool state_row_is_empty(const struct state_row *row);
/* Into the ledger.  False if it is no row. */
bool state_row_read(const struct state_view *v, struct span key, struct span value);

struct state_fact state_fact_of(const struct state_view *v, const struct memo *m);
/* Into T.  False if it is no fact. */
bool state_fact_read(const struct state_view *v, struct memo_table *t, struct span key,
                     struct span value);

#endif

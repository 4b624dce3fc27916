#ifndef SIMULATION_TRAFFIC_H
#define SIMULATION_TRAFFIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/netaddr.h"

/* A month of a company's mail, the same for every rule that is tried on it.
 *
 * The company has PEOPLE_VALID addresses, PEOPLE_GONE more of people who left, and beyond these are
 * those that nobody ever had.  All of it is drawn from one seed:
 *
 *   correspondents   6,000 hosts, 2 to 20 messages a month each, mostly one recipient, in business
 *                    hours; 0.6 % of recipients mistyped, 1.2 % gone.  Four of them rent their host
 *                    in the /24 from which the slow harvest comes
 *   providers        four big ones, each with 128 to 512 addresses in whole /24s, 55,000 messages;
 *                    0.8 % mistyped, 0.8 % gone
 *   partners         40 hosts that write to 5 to 25 at once, three times a week; a tenth of a
 *                    list is gone, but 60 % with the partner in eight who never cleans his
 *   newsletters      70 lists of 40 to 500 of our addresses on 2 to 6 hosts each, sent one to four
 *                    times a month, a message a recipient, 100 a session.  2 to 30 % of a list
 *                    is gone, and the sender takes off whoever was refused, as all who send for
 *                    others do; but 55 to 80 % with the sender in ten who never takes anybody off
 *   bounces          250 innocent hosts each bounce 1 to 40 messages that were forged in the name
 *                    of addresses that nobody has, and now and then one of ours
 *   spam runs        400 bots with bought lists (a third still right), 1 to 10 messages of 10 to 30
 *   dictionary       20 hosts, 5,000 guesses each: for twelve hours, every two minutes, a session
 * of as many as it is allowed, 50 to a message slow, from a /24 200 hosts in it: for five days, a
 * guess every half hour slow, from 1,000 hosts anywhere: for seven days, every six hours, a message
 * to 1 to 4 guesses
 *
 * 4 % of guesses are right.  A harvester that is cut off continues with its next guess at its next
 * visit.  There are no tombstones for those who left, as the defaults have none (directory.mode =
 * lookup).
 *
 * How likely the old lists are: where 15 % of the people leave each year, more than half of a list
 * is gone after four and a half years, and four fifths after ten.  To get there a sender must have
 * ignored for years that half of what he sent was answered with 550. */

#define PEOPLE_VALID 2600u
#define PEOPLE_GONE  700u

enum traffic_kind {
    TRAFFIC_CORRESPONDENT, /* the innocent come first */
    TRAFFIC_PROVIDER,
    TRAFFIC_PARTNER,
    TRAFFIC_OLD_PARTNER, /* who never cleans his list */
    TRAFFIC_NEWSLETTER,
    TRAFFIC_OLD_NEWSLETTER, /* the same */
    TRAFFIC_BOUNCE,
    TRAFFIC_SPAM,
    TRAFFIC_DICTIONARY,
    TRAFFIC_SLOW_24,
    TRAFFIC_SLOW_1000,
    TRAFFIC_KINDS
};

/* One message, or of a harvester as many as his visit may take. */
struct message {
    uint32_t first; /* of its recipients */
    uint16_t n;
};

/* One session. */
struct visit {
    int64_t at_ms;
    struct netaddr client;
    uint32_t host; /* of a harvester: which of them */
    uint32_t first, n;
    uint8_t kind;
    uint8_t tries; /* how often before */
};

struct traffic {
    struct visit *visits; /* by time */
    size_t n_visits;
    struct message *messages;
    size_t n_messages;
    uint32_t *recipients; /* numbers of people; below PEOPLE_VALID they exist */
    size_t n_recipients;
    uint32_t n_hosts; /* of harvesters */
};

void traffic_make(struct traffic *t, uint64_t seed);
void traffic_free(struct traffic *t);
bool traffic_is_innocent(enum traffic_kind kind);
bool traffic_is_harvest(enum traffic_kind kind);

#endif

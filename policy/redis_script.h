#ifndef POLICY_REDIS_SCRIPT_H
#define POLICY_REDIS_SCRIPT_H

/* What runs in Redis, so that each step of a fleet's ledger is one: a Lua script.  All of its keys
 * begin with redis_prefix:
 *
 *   fleet      hash: the key that addresses are hashed with, the epoch (another one means that the
 *              data was lost), the version of the newest change
 *   log        sorted set of members by the version of their last change: what is new is read from
 *              here, from any version on, so a Postern that was away misses nothing
 *   fact       hash: what there is to say of a member, "END A B C", END on Redis's clock
 *   end        sorted set: when a member may be forgotten
 *   net        sorted set of networks by when they were last heard of
 *   u:NETWORK, z:NETWORK, s:NETWORK
 *              sorted sets of hashed addresses by the second they were last seen: unknown, unknown
 *              under the null sender, served
 *   b:HASH     string: which Postern began with a message, some seconds ago
 *
 * A member is a kind and a name: h and z NETWORK, a block and one for the null sender only (A is
 * its action, 0: none, B who made it, C its repetitions); c NETWORK, all inside it was cleared at
 * END; m HASH, a mark (A 1, or 0: it was taken off; B its value); d HASH, a delivery (A 1: done, 2:
 * Postern C is at it, 3: that failed, 0: its client knows of it).
 *
 * Moments come and go as seconds from now, so no two clocks are compared.  All keys run out, and
 * the number of members, of networks and of addresses of a network is bounded: the oldest go.
 *
 * KEYS are the five of the fleet, for `count` the three of the network, for `begin` the message's.
 * ARGV:
 *   join KEY EPOCH            -> {key, epoch} in force: these, if there are none
 *   poll VERSION MAX          -> {epoch, version, version read up to, then member, seconds, "A B C"
 *                                 of each change behind VERSION, the oldest first}
 *   put MEMBER SECONDS KEEP A B C
 *                             -> {} or, if the fleet knows better, what it knows as in poll
 *   begin WHO                 -> 1 if another than WHO began with it, else 0
 *   count NETWORK WINDOW MAX CLEARED N_U N_Z N_S (SECONDS HASH)...
 *                             -> {unknown, of the null sender, served in WINDOW, served in a week};
 *                                CLEARED: how long ago, -1: never */

#define REDIS_SCRIPT_FLEET_KEYS 5

extern const char redis_script[];

#endif

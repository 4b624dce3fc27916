#ifndef POLICY_RESOLVER_PRIVATE_H
#define POLICY_RESOLVER_PRIVATE_H

#include <pthread.h>
#include <sys/queue.h>

#include "base/mailbox.h"
#include "base/siphash.h"
#include "policy/dns_cache.h"
#include "policy/dns_channel.h"
#include "policy/resolver.h"

/* What the files behind resolver.h share: resolver.c (life, look-ups, SPF), resolver_zones.c (block
 * lists), resolver_client.c (the other loops' end). */

/* What travels between a client and the resolver: a question on the way there, the same with its
 * answer on the way back. */

enum resolver_kind { RESOLVER_SPF, RESOLVER_DNSBL };

#define RESOLVER_SENDER_MAX 600

struct resolver_item {
    struct mailbox_item item;   /* first */
    struct resolver_item *next; /* of those that wait for the same look-up */
    uint64_t client;            /* whose; 0: the resolver's own */
    uint64_t ticket;
    enum resolver_kind kind;
    struct netaddr address;
    unsigned lists;
    char helo[DNS_NAME_TEXT];
    char sender[RESOLVER_SENDER_MAX];
    struct resolver_answer answer;
};

/* From any thread. */

/* Answers for the number it returns go to BOX, until it is taken out.  0 if memory is out. */
uint64_t resolver_add_client(struct resolver *r, struct mailbox *box);
void resolver_remove_client(struct resolver *r, uint64_t client);
/* ITEM becomes the resolver's. */
void resolver_post(struct resolver *r, struct resolver_item *item);

/* The resolver's thread only. */

#define RESOLVER_ZONES_MAX   32
#define RESOLVER_LOOKUPS_MAX 2000
#define RESOLVER_WAITING_MAX 20000 /* questions, of askers that are gone as well */
#define RESOLVER_TROUBLE_MS  30000 /* how long a failure is remembered */

enum zone_state { ZONE_UNTESTED, ZONE_UP, ZONE_DOWN };

struct zone;
struct zone_test {
    struct zone *zone;
    struct dns_query *query;
};

struct zone {
    struct resolver *resolver;
    struct dnsbl_zone spec;
    enum zone_state state;
    const char *fault; /* of the last test; NULL: none */
    int64_t tested_ms;
    unsigned open; /* tests under way */
    struct zone_test tests[DNSBL_POINTS];
    enum dnsbl_finding findings[DNSBL_POINTS];
};

struct lookup;
struct zone_question {
    struct lookup *lookup;
    struct dns_query *query; /* under way, or NULL */
    struct hash128 key;      /* of the cache */
    bool is_begun;
};

struct lookup {
    LIST_ENTRY(lookup) link;
    struct resolver *resolver;
    enum resolver_kind kind;
    struct hash128 key;
    struct resolver_item *waiting; /* at least one */
    struct event *deadline;
    /* SPF */
    struct spf *spf;
    struct dns_query *query;
    struct hash128 cache_key;
    uint32_t ttl_s;
    /* DNSBL */
    struct zone_question zones[RESOLVER_ZONES_MAX];
};

struct retired {
    SLIST_ENTRY(retired) link;
    struct dns_channel *channel;
};

struct client {
    LIST_ENTRY(client) link;
    uint64_t id;
    struct mailbox *box;
};

struct resolver {
    struct event_base *base;
    char *resolv_conf; /* the file that names the system's servers */
    struct dns_channel *channel;
    char *nameserver;              /* whom it asks; empty: the system's */
    SLIST_HEAD(, retired) retired; /* those before; each goes once it is idle */
    struct dns_cache *cache;
    struct siphash_key key;
    int64_t timeout_ms;
    struct mailbox *box;
    struct event *arrival, *tick;
    LIST_HEAD(lookups, lookup) lookups;
    size_t n_lookups, n_waiting;
    struct zone zones[RESOLVER_ZONES_MAX];
    size_t n_zones;
    struct netaddr *self;
    size_t n_self;
    int64_t self_due_ms;
    pthread_mutex_t lock; /* of what follows */
    LIST_HEAD(clients, client) clients;
    uint64_t last_client;
};

/* A time to live as it is used. */
int64_t resolver_ttl_ms(uint32_t ttl_s);
/* The cache's key for a question of KIND about ADDRESS and NAME, a domain or a zone shorter than
 * RESOLVER_SENDER_MAX.  Without KIND they would meet: anybody may send for a zone's name. */
struct hash128 resolver_cache_key(const struct resolver *r, enum resolver_kind kind,
                                  const struct netaddr *address, const char *name);
/* Take up a question. */
void resolver_take(struct resolver *r, struct resolver_item *item);
/* All who wait for L get ANSWER; L is freed. */
void resolver_finish(struct lookup *l, const struct resolver_answer *answer);

/* Put in place the N zones of SPECS, and the addresses that are to be on none, and test the zones.
 * IS_SAME_SERVER: those that were up before are until they are tested.
 * -1 if memory is out: all stays as it was. */
int resolver_zones_set(struct resolver *r, const struct dnsbl_zone *specs, size_t n,
                       const struct network_list *self, bool is_same_server);
void resolver_zones_clear(struct resolver *r);
/* Once a minute; and of it, what is for the zones. */
void resolver_tick(struct resolver *r, int64_t now_ms);
void resolver_zones_tick(struct resolver *r, int64_t now_ms);
/* Ask the zones that can be asked by now; ends L if nothing is left to ask. */
void resolver_zones_advance(struct lookup *l);
/* L's time is over: what did not answer lists nobody, for a while. */
void resolver_zones_expire(struct lookup *l);
/* Forget what L has asked. */
void resolver_zones_cancel(struct lookup *l);
/* What is known about an address of our own. */
void resolver_zones_self(const struct resolver_item *item);

#endif

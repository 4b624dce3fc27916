#include "proxy/session/clients.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/siphash.h"

/* There are at most max_connections entries, so a fixed number of buckets serves. */
#define BUCKETS 4096u

struct entry {
    struct entry *next;
    struct network network;
    unsigned n;
};

struct clients {
    pthread_mutex_t lock;
    struct siphash_key key; /* strangers choose their networks */
    struct entry *buckets[BUCKETS];
};

struct clients *
clients_new(void)
{
    struct clients *c = calloc(1, sizeof(*c));

    if (c != NULL) {
        pthread_mutex_init(&c->lock, NULL);
        c->key = siphash_key_random();
    }
    return c;
}

void
clients_free(struct clients **c)
{
    if (*c == NULL)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while ((*c)->buckets[i] != NULL) {
            struct entry *e = (*c)->buckets[i];
            (*c)->buckets[i] = e->next;
            free(e);
        }
    }
    pthread_mutex_destroy(&(*c)->lock);
    free(*c);
    *c = NULL;
}

static struct entry **
find(struct clients *c, const struct network *network)
{
    uint64_t hash = siphash64(&c->key, network->base.octets, sizeof(network->base.octets));
    struct entry **at = &c->buckets[hash % BUCKETS];

    while (*at != NULL && !network_equal(&(*at)->network, network))
        at = &(*at)->next;
    return at;
}

bool
clients_enter(struct clients *c, const struct network *network, unsigned max)
{
    bool is_in = false;

    pthread_mutex_lock(&c->lock);
    struct entry **at = find(c, network);
    if (*at == NULL && (*at = calloc(1, sizeof(**at))) != NULL)
        (*at)->network = *network;
    if (*at != NULL && (*at)->n < max) {
        (*at)->n++;
        is_in = true;
    }
    pthread_mutex_unlock(&c->lock);
    return is_in;
}

void
clients_leave(struct clients *c, const struct network *network)
{
    pthread_mutex_lock(&c->lock);
    struct entry **at = find(c, network);
    struct entry *e = *at;
    if (e != NULL && --e->n == 0) {
        *at = e->next;
        free(e);
    }
    pthread_mutex_unlock(&c->lock);
}

#ifndef POLICY_REDIS_LINK_H
#define POLICY_REDIS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A connection to Redis that is made anew whenever it is lost, and one script in it.  Commands are
 * calls of the script; they are pipelined, and each answer has half a second from the one before:
 * a Redis that is slower is taken for gone.  Nothing blocks, the look-up of its name included. What
 * it answers is bounded before it is believed, and what nobody asked for ends the connection. One
 * loop's thread. */

struct event_base;
struct redisReply;
struct redis_link;

#define REDIS_LINK_PENDING_MAX  512u  /* calls without an answer */
#define REDIS_LINK_ELEMENTS_MAX 1024u /* of an array in an answer */
#define REDIS_LINK_WORDS_MAX    1024u /* of a call */

/* UP: the script is there, calls may be made.  DOWN: they may not; WHY is for the log.  DOWN comes
 * at first, or after UP, and then for each attempt that fails. */
struct redis_link_events {
    void (*up)(void *arg);
    void (*down)(void *arg, const char *why);
};

/* ADDRESS is HOST:PORT or unix:PATH; PASSWORD_FILE (NULL: none) is read at each attempt, its first
 * line counts.  SCRIPT must outlive the link.  The first attempt is made from the loop.  NULL when
 * memory is out. */
struct redis_link *redis_link_new(struct event_base *base, const char *address,
                                  const char *password_file, const char *script,
                                  const struct redis_link_events *events, void *arg);
/* Calls without an answer are answered NULL.  Clears *L; NULL is fine. */
void redis_link_free(struct redis_link **l);

/* REPLY is NULL if none came, or an error: the link goes down then. */
typedef void redis_link_reply_fn(void *arg, const struct redisReply *reply);

/* How many calls may be made now. */
size_t redis_link_room(const struct redis_link *l);
/* Call the script: KEYS of the N words of ARGV are its KEYS.  REPLY is called exactly once, unless
 * false is returned: there is no room. */
bool redis_link_call(struct redis_link *l, size_t keys, size_t n, const char *const *argv,
                     redis_link_reply_fn *reply, void *arg);
/* The answers make no sense: end the connection, and try anew. */
void redis_link_give_up(struct redis_link *l, const char *why);

#endif

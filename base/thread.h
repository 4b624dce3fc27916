#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

/* POSIX threads as all of ours use them. */

/* Start FN(ARG) with all signals blocked: they are for the thread that handles them, and a write to
 * a broken pipe only fails.  0, or an errno value. */
int thread_start(pthread_t *thread, void *(*fn)(void *), void *arg);
/* A condition whose timed waits go by clock_ms. */
void thread_cond_init(pthread_cond_t *condition);
/* Wait for CONDITION, initialized as above, at most until UNTIL_MS of clock_ms (INT64_MAX: without
 * limit).  0, or ETIMEDOUT; it may wake spuriously. */
int thread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ms);

#endif

#ifndef PROXY_RELAY_SPOOL_H
#define PROXY_RELAY_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/netaddr.h"
#include "conf/settings.h"

/* Room for messages in hand: how much memory all of them may take, and, beyond it, unlinked files
 * that a thread of its own writes and reads, so that a slow disk delays its own message only.
 * Nothing here survives the process, by design: what is held was not acknowledged. */

struct spool;        /* the process's: limits and thread */
struct spool_client; /* one loop's end of it */
struct spool_file;   /* one message's file; belongs to the loop that made it */

#define SPOOL_BLOCK (256u * 1024u) /* what is written or read at a time */

/* Opens nothing yet. NULL with E set when the thread cannot be started. */
struct spool *spool_new(const struct settings *st, struct err *e);
/* After all clients are gone. */
void spool_free(struct spool **s);
/* Limits and directory of a new configuration, for what comes from now on. */
void spool_update(struct spool *s, const struct settings *st);

/* Take or give back room in memory_total; false: there is none left. Any thread. */
bool spool_memory_take(struct spool *s, size_t n);
void spool_memory_give(struct spool *s, size_t n);

struct spool_client *spool_client_new(struct spool *s);
void spool_client_free(struct spool_client **c);
/* Readable when spool_client_dispatch has news. */
int spool_client_fd(const struct spool_client *c);
void spool_client_dispatch(struct spool_client *c);

/* News of a file: OK is false when the disk failed or is full (a tenth of the file system is kept
 * free); then the file is of no more use.  For a read, DATA is what was asked for; else, what was
 * waited for has been written. */
typedef void spool_done_fn(void *arg, bool is_ok, const char *data, size_t n);

/* CLIENT's share of disk_total is a quarter.  NULL when memory is out. */
struct spool_file *spool_file_new(struct spool_client *c, const struct network *client,
                                  spool_done_fn *done, void *arg);
/* What was not written yet is thrown away, the block at hand is let finish by itself; DONE is not
 * called any more. */
void spool_file_free(struct spool_file **f);
/* Append BLOCK (malloc'd) to the file.  It is taken over in any case, and so are the COUNTED octets
 * that were taken of memory_total for it: they are given back when it is freed.  False when the
 * limits leave no room. */
bool spool_file_write(struct spool_file *f, char *block, size_t n, size_t counted);
/* Read N (at most SPOOL_BLOCK) octets at OFFSET; one read at a time.  What needs no disk is there
 * at once, in *DATA; else *DATA is NULL, and DONE brings it.  It is valid until the next read.
 * False when memory is out. */
bool spool_file_read(struct spool_file *f, uint64_t offset, size_t n, const char **data);
/* Are more than MAX octets handed over and not yet written?  Then DONE tells when more are. */
bool spool_file_is_behind(struct spool_file *f, size_t max);

#endif

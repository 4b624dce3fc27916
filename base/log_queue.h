#ifndef BASE_LOG_QUEUE_H
#define BASE_LOG_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/span.h"

/* A line on its way to the target. */
struct log_record {
    int64_t wall_us; /* when it happened */
    enum log_level level;
    struct span text; /* at most LOG_LINE_MAX octets */
};

/* A ring of octets, bounded, oldest line first out.  No locks: log_writer.c has one around it. */
struct log_queue;

/* NULL when memory is out. */
struct log_queue *log_queue_new(size_t capacity_bytes);
/* Clears *Q; NULL is fine. */
void log_queue_free(struct log_queue **q);
/* Copies R; false, and nothing is kept, if there is no room for all of it. */
bool log_queue_put(struct log_queue *q, const struct log_record *r);
/* Take the oldest line, its text to TEXT; false if there is none. */
bool log_queue_take(struct log_queue *q, struct log_record *r, char text[LOG_LINE_MAX]);
/* How many lines were ever put, and taken. */
uint64_t log_queue_in(const struct log_queue *q);
uint64_t log_queue_out(const struct log_queue *q);

#endif

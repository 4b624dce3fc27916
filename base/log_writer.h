#ifndef BASE_LOG_WRITER_H
#define BASE_LOG_WRITER_H

#include "base/log_queue.h"

/* Hand a line to the writer's thread, or, when there is none, to stderr at once.  R is copied. */
void log_submit(const struct log_record *r);

#endif

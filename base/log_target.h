#ifndef BASE_LOG_TARGET_H
#define BASE_LOG_TARGET_H

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "base/log_queue.h"

/* Where lines go, and how they are framed there.  Only the writer's thread uses it once it is made,
 * as everything here may block. */

struct log_target;

/* Check and copy OPTIONS; opens nothing.  NULL with E set if they name no target. */
struct log_target *log_target_new(const struct log_options *options, struct err *e);
/* Closes it too.  Clears *T; NULL is fine. */
void log_target_free(struct log_target **t);
/* Open the target if it is not, and write one line, or, for stderr, keep it for log_target_flush.
 * False if it was not written, and the target is closed: the line may be tried again. */
bool log_target_write(struct log_target *t, const struct log_record *r);
/* As the options have it, and why the last line was not written. */
const char *log_target_name(const struct log_target *t);
const char *log_target_error(const struct log_target *t);
/* Write what is kept.  False if some of it was not written: that is still kept, and may be tried
 * again. */
bool log_target_flush(struct log_target *t);
/* Is there anything to flush? */
bool log_target_keeps(const struct log_target *t);

/* One line to stderr, without a target. */
bool log_target_stderr(const struct log_record *r);

#endif

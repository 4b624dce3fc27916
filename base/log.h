#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/netaddr.h"
#include "base/span.h"

/* One line an event: `event=NAME key=value ...`.  A line is built on the caller's stack, quoted in
 * one place, and handed to a bounded queue; a thread of its own writes it to the target.  Any
 * thread may log; none ever waits: a line that finds the queue full is counted as dropped, and the
 * writer says how many were as soon as it can.  Before log_open, and after log_close, lines go to
 * stderr at once. */

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};

#define LOG_LINE_MAX 4096

struct log_line {
    enum log_level level;
    bool full; /* something did not fit and was left out */
    size_t n;
    char text[LOG_LINE_MAX];
};

struct log_options {
    const char *target; /* syslog | stderr | unix:PATH | udp:HOST:PORT | tcp:HOST:PORT */
    int facility;       /* LOG_MAIL ... of <syslog.h> */
    enum log_level level;
    const char *tag;
    const char *hostname; /* for RFC 5424 */
};

/* Start the writer.  OPTIONS are copied.  The target itself is opened by the writer, and reopened
 * by it whenever it fails, so a log daemon that is away is not an error. */
int log_open(const struct log_options *options, struct err *e);
/* Change target, facility, level, tag; lines queued before go to the old target. */
int log_reopen(const struct log_options *options, struct err *e);
/* Write what is queued, for at most a second, and stop the writer. */
void log_close(void);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* Lines dropped since the start. */
uint64_t log_dropped(void);
/* True if a line of LEVEL would be written: to save the work of building it. */
bool log_wants(enum log_level level);

/* log_begin, any number of pairs, log_end.  A value with a space, quote, backslash, `=` or control
 * character stands in double quotes, in which quotes, backslashes and control characters are
 * written \xNN.  A pair that does not fit is cut or left out whole, never half quoted. */
void log_begin(struct log_line *l, enum log_level level, const char *event);
/* What L has so far, to begin other lines with: malloc'd text; NULL when memory is out, or the
 * line's level is not wanted. */
char *log_keep(const struct log_line *l);
/* As log_begin, with what log_keep gave. */
void log_begin_with(struct log_line *l, enum log_level level, const char *kept);
void log_pair(struct log_line *l, struct span key, struct span value);
/* In place, as a constant's length is known when it is compiled. */
static inline void
log_span(struct log_line *l, const char *key, struct span value)
{
    log_pair(l, span_str(key), value);
}
static inline void
log_str(struct log_line *l, const char *key, const char *value)
{
    log_pair(l, span_str(key), span_str(value));
}
/* <a@b>; the empty span is <>. */
void log_path(struct log_line *l, const char *key, struct span address);
void log_int(struct log_line *l, const char *key, int64_t value);
/* MS in seconds, as 1.234. */
void log_seconds(struct log_line *l, const char *key, int64_t ms);
void log_addr(struct log_line *l, const char *key, const struct netaddr *a);
void log_fmt(struct log_line *l, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void log_end(struct log_line *l);

/* A whole event whose keys are all strings: log_event(LEVEL, "config", "state", "loaded", NULL). */
void log_event(enum log_level level, const char *event, ...) __attribute__((sentinel));

#endif

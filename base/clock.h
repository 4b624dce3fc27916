#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_TEXT 40 /* room for a date of either form, and NUL */

/* Monotonic milliseconds since some fixed moment; never goes back, never steps. */
int64_t clock_ms(void);
/* The same in nanoseconds, for measuring. */
int64_t clock_ns(void);
/* Wall clock seconds since 1970, for what is shown or outlives the process. */
int64_t clock_wall_s(void);
/* The same in microseconds. */
int64_t clock_wall_us(void);
/* A moment in the local zone, as RFC 5322 3.3 writes it: "Tue, 24 Nov 2026 16:24:50 +0000". */
void clock_rfc5322(char out[CLOCK_TEXT], int64_t wall_s);
/* The same as RFC 3339 does, with microseconds: "2026-11-24T16:24:50.123456+00:00". */
void clock_rfc3339(char out[CLOCK_TEXT], int64_t wall_us);

#endif

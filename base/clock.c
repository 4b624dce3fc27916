#define _DEFAULT_SOURCE

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t
clock_read_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t
clock_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

int64_t
clock_ms(void)
{
    return clock_ns() / 1000000;
}

int64_t
clock_wall_us(void)
{
    return clock_read_ns(CLOCK_REALTIME) / 1000;
}

int64_t
clock_wall_s(void)
{
    return clock_wall_us() / 1000000;
}

/* Local time, and its offset from UTC as a sign and minutes. */
static struct tm
local_time(int64_t wall_s, char *sign, int *minutes)
{
    time_t t = (time_t)wall_s;
    struct tm tm = {0};

    localtime_r(&t, &tm);
    *sign = tm.tm_gmtoff < 0 ? '-' : '+';
    *minutes = (int)((tm.tm_gmtoff < 0 ? -tm.tm_gmtoff : tm.tm_gmtoff) / 60);
    return tm;
}

static void
format_rfc5322(char *out, int64_t wall_s)
{
    /* strftime would speak the locale's language. */
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    char sign;
    int minutes;
    struct tm tm = local_time(wall_s, &sign, &minutes);

    size_t n = (size_t)snprintf(out, CLOCK_TEXT, "%s, %d %s ", days[tm.tm_wday], tm.tm_mday,
                                months[tm.tm_mon]);

    n += strftime(out + n, CLOCK_TEXT - n, "%Y %H:%M:%S", &tm);
    snprintf(out + n, CLOCK_TEXT - n, " %c%02d%02d", sign, minutes / 60, minutes % 60);
}

void
clock_rfc5322(char out[CLOCK_TEXT], int64_t wall_s)
{
    /* Many ask for the same second. */
    static _Thread_local char text[CLOCK_TEXT];
    static _Thread_local int64_t of_s = INT64_MIN;

    if (of_s != wall_s)
        format_rfc5322(text, wall_s);
    of_s = wall_s;
    memcpy(out, text, sizeof text);
}

void
clock_rfc3339(char out[CLOCK_TEXT], int64_t wall_us)
{
    /* Kept while the second lasts; only the fraction is written anew. */
    static _Thread_local char text[CLOCK_TEXT];
    static _Thread_local size_t dot;
    static _Thread_local int64_t of_s = INT64_MIN;
    int64_t wall_s = wall_us / 1000000, fraction = wall_us % 1000000;

    if (of_s != wall_s) {
        char sign;
        int minutes;
        struct tm tm = local_time(wall_s, &sign, &minutes);

        dot = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(text + dot, sizeof text - dot, ".000000%c%02d:%02d", sign, minutes / 60,
                 minutes % 60);
        of_s = wall_s;
    }
    memcpy(out, text, sizeof text);
    for (size_t i = 6; i > 0; i--, fraction /= 10)
        out[dot + i] = (char)('0' + fraction % 10);
}

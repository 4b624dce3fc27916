#include "ldap/dir_timing.h"

bool
dir_timing_is_idle(int64_t heard_ms, int64_t now_ms)
{
    return now_ms - heard_ms >= DIR_IDLE_MAX_MS;
}

int64_t
dir_timing_end_ms(int64_t sent_ms, int64_t heard_ms, int64_t timeout_ms, size_t n_servers)
{
    bool is_silent = heard_ms <= sent_ms;

    return sent_ms + (is_silent && n_servers > 1 ? timeout_ms / 2 : timeout_ms);
}

enum dir_patience
dir_timing_patience(int64_t sent_ms, int64_t heard_ms, int64_t now_ms, int64_t timeout_ms,
                    size_t n_servers)
{
    if (now_ms < dir_timing_end_ms(sent_ms, heard_ms, timeout_ms, n_servers))
        return DIR_PATIENCE_WAIT;
    return heard_ms <= sent_ms ? DIR_PATIENCE_LOST : DIR_PATIENCE_GIVE_UP;
}

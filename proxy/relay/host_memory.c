#define _POSIX_C_SOURCE 200809L /* fileno */
#include "proxy/relay/host_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME       "capabilities"
#define LINE_MAX_OCTETS 2048

static void
make_path(const char *dir, const char *suffix, char *path, size_t n)
{
    snprintf(path, n, "%s/" FILE_NAME "%s", dir, suffix);
}

/* "ex1:25 37748736 SIZE,DSN, exchange": the downstream's name comes last, since it may have blanks.
 */
static void
read_line(struct hosts *h, struct span line)
{
    struct span label, size, keywords, keyword;
    struct smtp_capabilities caps = {.bits = 0};

    if (!span_next(&line, ' ', &label) || !span_next(&line, ' ', &size) ||
        !span_u64(size, UINT64_MAX, &caps.size) || !span_next(&line, ' ', &keywords))
        return;
    while (span_next(&keywords, ',', &keyword)) {
        enum smtp_cap cap = smtp_cap_find(keyword);
        if (cap != SMTP_CAP_COUNT)
            caps.bits |= 1u << cap;
    }
    hosts_recall(h, line, label, &caps);
}

void
host_memory_load(struct hosts *h, const char *state_dir)
{
    char path[4096], line[LINE_MAX_OCTETS];

    make_path(state_dir, "", path, sizeof(path));
    FILE *in = fopen(path, "re");
    if (in == NULL)
        return;
    while (fgets(line, sizeof(line), in) != NULL)
        read_line(h, span_of(line, strcspn(line, "\n")));
    fclose(in);
}

static void
write_host(void *arg, const struct host_view *view)
{
    FILE *out = arg;

    if (!view->was_reached)
        return;
    fprintf(out, "%s %" PRIu64 " ", view->host, view->caps.size);
    for (unsigned cap = 0; cap < SMTP_CAP_COUNT; cap++)
        if ((view->caps.bits >> cap & 1) != 0)
            fprintf(out, "%s,", smtp_cap_keyword((enum smtp_cap)cap));
    fprintf(out, " %s\n", view->downstream);
}

static int
write_file(struct hosts *h, const char *state_dir, struct err *e)
{
    char path[4096], fresh[4096];

    make_path(state_dir, "", path, sizeof(path));
    make_path(state_dir, ".new", fresh, sizeof(fresh));
    FILE *out = fopen(fresh, "we");
    if (out == NULL)
        return err_errno(e, ERR_STORAGE, errno, "%s/" FILE_NAME, state_dir);
    hosts_each(h, write_host, out);
    bool is_ok = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
    is_ok = fclose(out) == 0 && is_ok;
    if (is_ok && rename(fresh, path) == 0)
        return 0;
    int error = errno;
    unlink(fresh);
    return err_errno(e, ERR_STORAGE, error, "%s", path);
}

int
host_memory_save(struct hosts *h, const char *state_dir, struct err *e)
{
    if (!hosts_changed(h) || write_file(h, state_dir, e) == 0)
        return 0;
    hosts_set_changed(h);
    return -1;
}

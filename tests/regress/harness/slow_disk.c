/* Loaded with LD_PRELOAD: while the file SLOW_FLAG is there, whoever has SLOW_FILE (a part of a
 * path) synced, or opens it as a stream, does not come back.  SLOW_FLAG.reached says that somebody
 * is waiting. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int sync_fn(int);
typedef FILE *open_fn(const char *, const char *);

static void
wait_for(const char *path)
{
    const char *flag = getenv("SLOW_FLAG"), *slow = getenv("SLOW_FILE");
    char reached[PATH_MAX];

    if (!flag || !slow || !strstr(path, slow) || access(flag, F_OK) != 0)
        return;
    snprintf(reached, sizeof reached, "%s.reached", flag);
    close(open(reached, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    while (access(flag, F_OK) == 0)
        usleep(10000);
}

static void
wait_for_descriptor(int fd)
{
    char link[64], path[PATH_MAX] = "";

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0)
        wait_for(path);
}

int
fdatasync(int fd)
{
    wait_for_descriptor(fd);
    return ((sync_fn *)dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int
fsync(int fd)
{
    wait_for_descriptor(fd);
    return ((sync_fn *)dlsym(RTLD_NEXT, "fsync"))(fd);
}

FILE *
fopen(const char *path, const char *mode)
{
    wait_for(path);
    return ((open_fn *)dlsym(RTLD_NEXT, "fopen"))(path, mode);
}

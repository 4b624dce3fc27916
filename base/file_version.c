#define _POSIX_C_SOURCE 200809L /* st_ctim */
#include "base/file_version.h"

#include <stddef.h>
#include <sys/stat.h>

struct file_version
file_version_of(const char *path)
{
    struct file_version v = {.size = -1};
    struct stat st;

    if (path && stat(path, &st) == 0)
        v = (struct file_version){st.st_dev, st.st_ino, st.st_size, st.st_ctim};
    return v;
}

bool
file_version_equal(const struct file_version *a, const struct file_version *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

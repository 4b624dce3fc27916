#define _POSIX_C_SOURCE 200809L /* st_ctim */
#include "ldap/dir_version.h"

#include <stddef.h>
#include <sys/stat.h>

struct dir_version
dir_version_of(const char *path)
{
    struct dir_version v = {.size = -1};
    struct stat st;

    if (path && stat(path, &st) == 0)
        v = (struct dir_version){st.st_dev, st.st_ino, st.st_size, st.st_ctim};
    return v;
}

bool
dir_version_equal(const struct dir_version *a, const struct dir_version *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

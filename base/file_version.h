#ifndef BASE_FILE_VERSION_H
#define BASE_FILE_VERSION_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

/* A file as it was when it was read: is it still the same? A value. */
struct file_version {
    dev_t device;
    ino_t inode;
    off_t size; /* -1: there was none */
    struct timespec changed;
};

struct file_version file_version_of(const char *path); /* NULL: of no file */
bool file_version_equal(const struct file_version *a, const struct file_version *b);

#endif

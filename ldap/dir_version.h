#ifndef LDAP_DIR_VERSION_H
#define LDAP_DIR_VERSION_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

/* A file as it was when it was read: is it still the same? A value. */
struct dir_version {
    dev_t device;
    ino_t inode;
    off_t size; /* -1: there was none */
    struct timespec changed;
};

struct dir_version dir_version_of(const char *path); /* NULL: of no file */
bool dir_version_equal(const struct dir_version *a, const struct dir_version *b);

#endif

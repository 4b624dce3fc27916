#define _GNU_SOURCE /* faccessat */
#include "conf/check_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/span.h"

const char *
check_file_fault(const char *path, bool is_secret)
{
    struct stat s;

    if (stat(path, &s) != 0)
        return strerror(errno);
    if (S_ISDIR(s.st_mode))
        return "is a directory";
    if (S_ISFIFO(s.st_mode))
        return "is a pipe"; /* who waits for its other end serves nobody meanwhile */
    if (S_ISCHR(s.st_mode) && !span_is(span_str(path), "/dev/null"))
        return "is a device"; /* which may have no end */
    if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0)
        return strerror(errno);
    if (is_secret && (s.st_mode & S_IRWXO) != 0)
        return "others may read it; mode 0640 or less is fine";
    return NULL;
}

const char *
check_file_password_fault(const char *path)
{
    const char *wrong = check_file_fault(path, true);
    char first = '\n';

    if (wrong != NULL)
        return wrong;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, &first, 1) : -1;
    if (n < 0)
        wrong = strerror(errno);
    else if (first == '\n' || first == '\r')
        wrong = "there is no password on its first line";
    if (fd >= 0)
        close(fd);
    return wrong;
}

const char *
check_file_directory_fault(const char *path)
{
    struct stat s;

    if (stat(path, &s) != 0)
        return strerror(errno);
    return S_ISDIR(s.st_mode) ? NULL : "is not a directory";
}

/* Where PATH lies, malloc'd. */
static char *
parent_of(const char *path)
{
    struct span parent = span_str(path);

    while (parent.n > 1 && parent.p[parent.n - 1] == '/')
        parent.n--;
    while (parent.n > 0 && parent.p[parent.n - 1] != '/')
        parent.n--;
    return parent.n > 0 ? span_dup(parent) : span_dup(span_str("."));
}

/* Is a directory where PATH lies? */
static const char *
parent_fault(const char *path)
{
    char *parent = parent_of(path);
    const char *wrong = NULL;
    struct stat s;

    if (parent == NULL)
        wrong = "out of memory";
    else if (stat(parent, &s) != 0)
        wrong = errno == ENOENT ? "cannot be created: its parent does not exist" : strerror(errno);
    else if (!S_ISDIR(s.st_mode))
        wrong = "cannot be created: its parent is not a directory";
    free(parent);
    return wrong;
}

const char *
check_file_made_fault(const char *path)
{
    struct stat s;

    if (stat(path, &s) != 0 && errno == ENOENT)
        return parent_fault(path);
    return check_file_directory_fault(path);
}

const char *
check_file_socket_fault(const char *path)
{
    char *parent = parent_of(path);
    const char *wrong = parent != NULL ? parent_fault(path) : "out of memory";

    if (parent != NULL && wrong != NULL)
        wrong = parent_fault(parent);
    free(parent);
    return wrong;
}

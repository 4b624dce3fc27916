#ifndef CONF_CHECK_FILE_H
#define CONF_CHECK_FILE_H

#include <stdbool.h>

/* Looks at the files and directories that a configuration names; nothing is changed. */

/* NULL, or what is wrong with PATH as a file to read; a secret must be closed to others. */
const char *check_file_fault(const char *path, bool is_secret);
/* The same for a file with a password on its first line. */
const char *check_file_password_fault(const char *path);
/* NULL, or what is wrong with PATH as a directory. */
const char *check_file_directory_fault(const char *path);
/* The same if it may as well be made, for which its parent must be there. */
const char *check_file_made_fault(const char *path);
/* The same for the directory that the socket PATH is to be in. */
const char *check_file_socket_fault(const char *path);

#endif

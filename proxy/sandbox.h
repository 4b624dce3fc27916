#ifndef PROXY_SANDBOX_H
#define PROXY_SANDBOX_H

#include <stdbool.h>

#include "conf/settings.h"

/* What a bug of ours may be turned into, made small: no core dumps, no new rights, no programs, no
 * system calls beyond those that we and our libraries use (seccomp; a refused one fails with EPERM
 * and stands in the kernel's log, nothing is killed), no file written outside of our directories
 * (Landlock).  What the kernel or a container does not let us have is told in a `sandbox` line and
 * left out: it is a second wall, not the first. */

/* For the process and the threads it has and will make.  Once the ports are bound, the user is
 * changed and the log is open; before any other thread writes files. */
void sandbox_enter(const struct settings *st);
/* For the calling thread, a loop that reads what strangers send: it opens no port, makes no process
 * and changes no directory. */
void sandbox_narrow(void);
/* May files be made in DIR since sandbox_enter? */
bool sandbox_may_write(const char *dir);

#endif

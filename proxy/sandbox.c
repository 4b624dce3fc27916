#define _GNU_SOURCE /* syscall, O_PATH, O_TMPFILE */
#include "proxy/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED true
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED false
#endif

/* Headers older than the kernel. */
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

/* Everything that we, libc, OpenSSL, libldap with SASL and Kerberos, LMDB and name services use; a
 * name that this machine does not have is skipped. */
static const char *const allowed[] = {
    /* files */
    "access", "chmod", "close", "close_range", "creat", "faccessat", "faccessat2", "fadvise64",
    "fallocate", "fchmod", "fchmodat", "fdatasync", "flock", "fstat", "fstatfs", "fsync",
    "ftruncate", "getcwd", "getdents", "getdents64", "link", "linkat", "lseek", "lstat", "mkdir",
    "mkdirat", "newfstatat", "open", "openat", "openat2", "pread64", "preadv", "preadv2",
    "pwrite64", "pwritev", "pwritev2", "read", "readlink", "readlinkat", "readv", "rename",
    "renameat", "renameat2", "stat", "statfs", "statx", "sync_file_range", "umask", "unlink",
    "unlinkat", "utimensat", "write", "writev",
    /* descriptors and events */
    "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait",
    "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "fcntl", "inotify_add_watch",
    "inotify_init1", "inotify_rm_watch", "pipe", "pipe2", "poll", "ppoll", "pselect6", "select",
    /* sockets */
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    /* memory */
    "brk", "madvise", "membarrier", "mincore", "mlock", "mmap", "mprotect", "mremap", "msync",
    "munlock", "munmap",
    /* the process and its threads */
    "arch_prctl", "exit", "exit_group", "futex", "futex_waitv", "get_robust_list", "getcpu",
    "getegid", "geteuid", "getgid", "getgroups", "getpgrp", "getpid", "getppid", "getpriority",
    "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "gettid", "getuid", "prctl",
    "prlimit64", "rseq", "sched_getaffinity", "sched_getparam", "sched_getscheduler",
    "sched_setaffinity", "sched_yield", "seccomp", "set_robust_list", "set_tid_address",
    "setrlimit", "sysinfo", "uname",
    /* signals and time */
    "clock_getres", "clock_gettime", "clock_nanosleep", "getrandom", "gettimeofday", "kill",
    "nanosleep", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "tgkill", "time",
    "timer_create", "timer_delete", "timer_settime", "timerfd_create", "timerfd_settime", "times",
    "tkill"};

/* What a loop has no use for. */
static const char *const narrowed[] = {
    "bind",      "chmod",     "clone",  "creat",    "fchmod",    "fchmodat", "link",
    "linkat",    "listen",    "mkdir",  "mkdirat",  "prlimit64", "rename",   "renameat",
    "renameat2", "setrlimit", "unlink", "unlinkat", "utimensat"};

static bool is_filtered; /* the process; set before there are loops */

/* Sanitizers and valgrind do at the end, and when they find something, what no mail proxy does. */
static bool
is_watched(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return IS_SANITIZED || (preload != NULL && strstr(preload, "vgpreload") != NULL);
}

static void
tell(const char *what, const char *state, const char *error)
{
    bool is_well = *error == '\0';

    log_event(is_well ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "sandbox", "what", what, "state", state,
              is_well ? NULL : "error", error, NULL);
}

static int
add(scmp_filter_ctx filter, uint32_t action, const char *const *names, size_t n)
{
    int result = 0;

    for (size_t i = 0; i < n && result == 0; i++) {
        int call = seccomp_syscall_resolve_name(names[i]);
        if (call != __NR_SCMP_ERROR)
            result = seccomp_rule_add(filter, action, call, 0);
        /* A call that this machine knows by another number only (EDOM) is none to it. */
        if (result == -EDOM)
            result = 0;
    }
    return result;
}

/* Calls of which only some uses are ours. */
static int
add_partly(scmp_filter_ctx filter)
{
    static const unsigned families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    int result = 0;

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]) && result == 0; i++)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_EQ, families[i], 0));
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1,
                                  SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                  SCMP_A1(SCMP_CMP_NE, TIOCSTI, 0));
    if (result == 0) /* threads alone */
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    /* Its flags are in memory, which a filter cannot read: libc goes back to clone. */
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return result;
}

static bool
load(scmp_filter_ctx filter, int result, const char *what)
{
    /* The filter is only fit to be loaded if all of it is there. */
    if (result == 0)
        result = seccomp_load(filter);
    if (result == 0)
        tell(what, "up", "");
    else
        tell(what, "down", strerror(-result));
    seccomp_release(filter);
    return result == 0;
}

static void
filter_process(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));

    if (filter == NULL) {
        tell("seccomp", "down", "out of memory");
        return;
    }
    int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
    if (result == 0)
        result = add(filter, SCMP_ACT_ALLOW, allowed, sizeof(allowed) / sizeof(allowed[0]));
    if (result == 0)
        result = add_partly(filter);
    is_filtered = load(filter, result, "seccomp");
}

void
sandbox_narrow(void)
{
    if (!is_filtered)
        return;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (filter == NULL)
        return;
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
    (void)load(filter,
               add(filter, SCMP_ACT_ERRNO(EPERM), narrowed, sizeof(narrowed) / sizeof(narrowed[0])),
               "seccomp of a loop");
}

/* --- Landlock --- */

static bool
allow_beneath(int ruleset, const char *dir, uint64_t rights)
{
    if (dir == NULL)
        return true;
    int fd = open(dir, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT;
    struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};
    long result = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    int error = errno;
    close(fd);
    errno = error;
    return result == 0;
}

static bool
allow_beside(int ruleset, const char *path, uint64_t rights)
{
    char *dir = path != NULL ? strdup(path) : NULL;
    char *slash = dir != NULL ? strrchr(dir, '/') : NULL;

    if (slash != NULL)
        slash[slash == dir] = '\0';
    bool result = slash == NULL || allow_beneath(ruleset, dir, rights);
    free(dir);
    return result;
}

/* Reading is left alone: what a reload will name is not known. */
static void
restrict_writing(const struct settings *st)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    uint64_t rights = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                      LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
                      LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK;
    uint64_t never = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                     LANDLOCK_ACCESS_FS_MAKE_SYM;

    if (version < 0) {
        tell("landlock", "down", strerror(errno));
        return;
    }
    if (version >= 2)
        rights |= LANDLOCK_ACCESS_FS_REFER;
    if (version >= 3)
        rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
    struct landlock_ruleset_attr attr = {.handled_access_fs = rights | never};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    /* The temporary directories are for what Kerberos keeps, and for a spool to come. */
    bool is_ok = ruleset >= 0 && allow_beneath(ruleset, st->server.state_dir, rights) &&
                 allow_beneath(ruleset, st->spool.dir, rights) &&
                 allow_beneath(ruleset, "/tmp", rights) &&
                 allow_beneath(ruleset, "/var/tmp", rights) &&
                 allow_beside(ruleset, st->control.socket, rights) &&
                 syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    tell("landlock", is_ok ? "up" : "down", is_ok ? "" : strerror(errno));
    if (ruleset >= 0)
        close(ruleset);
}

bool
sandbox_may_write(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
    return fd >= 0 || errno != EACCES;
}

void
sandbox_enter(const struct settings *st)
{
    static const struct rlimit none = {0, 0};

    setrlimit(RLIMIT_CORE, &none);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        tell("no_new_privs", "down", strerror(errno));
    if (is_watched()) {
        tell("seccomp", "down", "under a sanitizer or valgrind");
        return;
    }
    restrict_writing(st);
    filter_process();
}

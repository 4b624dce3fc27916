#define _GNU_SOURCE /* unshare, syscall */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "proxy/sandbox.h"

/* Each test is a process of its own, which exits with 0 if all is as it should be, with the line of
 * what is not, or with SKIPPED. */
#define SKIPPED 255
#define CHECK(is_true)                                                                             \
    do {                                                                                           \
        if (!(is_true))                                                                            \
            _exit(__LINE__ % 250 + 1);                                                             \
    } while (0)

static char state_dir[] = "/dev/shm/postern-sandbox-XXXXXX";
static char outside[] = "/dev/shm/postern-outside-XXXXXX";

static void
enter(void)
{
    struct settings st = {.server = {.state_dir = state_dir}, .spool = {.dir = state_dir}};

    log_set_level(LOG_LEVEL_ERROR);
    sandbox_enter(&st);
    if (prctl(PR_GET_SECCOMP) != 2)
        _exit(SKIPPED); /* a sanitizer, or a container that does not let us */
}

static bool
is_refused(long result)
{
    return result == -1 && errno == EPERM;
}

static void *
try_from_thread(void *arg)
{
    (void)arg;
    return is_refused(unshare(CLONE_NEWUSER)) ? arg : NULL;
}

static void
refused_calls(void)
{
    char *argv[] = {(char[]){"true"}, NULL};
    pthread_t thread;
    void *result = NULL;
    struct rlimit core;

    enter();
    CHECK(is_refused(execv("/bin/true", argv)));
    CHECK(is_refused(unshare(CLONE_NEWUSER)));
    CHECK(is_refused(syscall(SYS_ptrace, 0, 0, 0, 0)));
    CHECK(is_refused(syscall(SYS_bpf, 0, NULL, 0)));
    CHECK(is_refused(syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL)));
    CHECK(is_refused(syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0)));
    CHECK(is_refused(syscall(SYS_io_uring_setup, 1, NULL)));
    CHECK(is_refused(setuid(0)) || getuid() != 0);
    CHECK(is_refused(socket(AF_PACKET, SOCK_RAW, 0)));
    CHECK(is_refused(syscall(SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0)));
    CHECK(is_refused(fork()));
    CHECK(pthread_create(&thread, NULL, try_from_thread, state_dir) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == state_dir);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    CHECK(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_max == 0);
}

/* What we and our libraries do goes on. */
static void
usual_calls(void)
{
    struct addrinfo *found = NULL;

    enter();
    for (int family = 0; family < 2; family++) {
        int fd = socket(family == 0 ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0 && close(fd) == 0);
    }
    CHECK(getaddrinfo("localhost", "25", NULL, &found) == 0);
    freeaddrinfo(found);
    FILE *f = fopen("/etc/passwd", "re"); /* a reload reads anywhere */
    CHECK(f != NULL && fclose(f) == 0);
}

static int
make_file(const char *dir)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/file", dir);
    return open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
}

static bool
has_landlock(void)
{
    return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) > 0;
}

static void
writing(void)
{
    if (!has_landlock())
        _exit(SKIPPED);
    enter();
    CHECK(make_file(state_dir) >= 0 && sandbox_may_write(state_dir));
    CHECK(make_file(outside) < 0 && errno == EACCES && !sandbox_may_write(outside));
    CHECK(sandbox_may_write("/tmp"));
}

static void *
narrow(void *arg)
{
    struct sockaddr sa = {.sa_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    sandbox_narrow();
    CHECK(is_refused(bind(fd, &sa, sizeof(sa))));
    CHECK(is_refused(listen(fd, 1)));
    CHECK(is_refused(fork()));
    CHECK(is_refused(mkdir("/tmp/x", 0700)));
    CHECK(is_refused(unlink("/tmp/x")));
    CHECK(close(fd) == 0);
    return arg;
}

/* A loop's own filter is its own. */
static void
narrowed_loop(void)
{
    pthread_t thread;

    enter();
    CHECK(pthread_create(&thread, NULL, narrow, NULL) == 0 && pthread_join(thread, NULL) == 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listen(fd, 1) == 0 && close(fd) == 0);
}

static void
run(void (*body)(void))
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status)); /* never killed */
    if (WEXITSTATUS(status) == SKIPPED)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
test_refused_calls(void **state)
{
    (void)state;
    run(refused_calls);
}

static void
test_usual_calls(void **state)
{
    (void)state;
    run(usual_calls);
}

static void
test_writing(void **state)
{
    (void)state;
    run(writing);
}

static void
test_narrowed_loop(void **state)
{
    (void)state;
    run(narrowed_loop);
}

static int
make_directories(void **state)
{
    (void)state;
    return mkdtemp(state_dir) == NULL || mkdtemp(outside) == NULL ? -1 : 0;
}

static int
remove_directories(void **state)
{
    char path[128];

    (void)state;
    snprintf(path, sizeof(path), "%s/file", state_dir);
    unlink(path);
    return rmdir(state_dir) != 0 || rmdir(outside) != 0 ? -1 : 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_calls), cmocka_unit_test(test_usual_calls),
        cmocka_unit_test(test_writing), cmocka_unit_test(test_narrowed_loop)};

    return cmocka_run_group_tests(tests, make_directories, remove_directories);
}

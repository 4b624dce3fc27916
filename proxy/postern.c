#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "conf/check.h"
#include "conf/check_file.h"
#include "conf/settings.h"
#include "ldap/directory.h"
#include "proxy/init.h"
#include "proxy/server.h"
#include "proxy/tls_check.h"

/* The daemon's command line: postern(8). */

static void
usage(FILE *out)
{
    fputs("usage: postern -c FILE       run in the foreground\n"
          "       postern -t -c FILE    check the configuration, and report every fault\n"
          "       postern --init --hostname NAME --domain DOMAIN --exchange HOST[:PORT]\n"
          "               --ad URI [--base DN]    print a configuration to begin with\n"
          "       postern --version | --help\n",
          out);
}

/* What a reload would refuse in the lists of recipients. */
static void
check_recipients(const struct settings *st, struct faults *f)
{
    for (size_t i = 0; i < st->n_directories; i++) {
        const struct settings_directory *directory = &st->directories[i];
        struct err e = {.kind = ERR_NONE};
        if (directory->type != SETTINGS_TYPE_FILE || directory->file == NULL ||
            check_file_fault(directory->file, false) != NULL) /* told by settings_examine */
            continue;
        int n = directory_file_check(directory->file, &e);
        if (n < 0)
            faults_add(f, directory->file_line, false, "file: %s", e.text);
        else if (n == 0)
            faults_add(f, directory->file_line, true, "file: %s: " DIRECTORY_FILE_EMPTY,
                       directory->file);
    }
}

static int
check(const char *path)
{
    struct faults *f = faults_new();

    if (f == NULL)
        return EX_OSERR;
    struct settings *st = settings_examine(path, f);
    if (st != NULL) {
        settings_check_access(st, f);
        tls_check(st, f);
        check_recipients(st, f);
    }
    settings_unref(st);
    faults_print(f, path, stderr);
    bool is_ok = faults_errors(f) == 0;
    faults_free(&f);
    if (!is_ok)
        return EX_CONFIG;
    printf("%s: ok\n", path);
    return EXIT_SUCCESS;
}

/* Whoever starts us may have closed some of 0, 1 and 2: what is opened next would be there, and be
 * written to as if it were stderr. */
static void
keep_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR); /* not close-on-exec, as those are not */
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        (void)close(fd);
}

/* Blocks of the spool come and go by the 256 KiB: without this, each is a mapping of its own, made,
 * filled with zeroes and given back. */
static void
keep_heap(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 8 << 20);
#endif
}

static int
run(const char *path)
{
    struct faults *f = faults_new();
    struct err e = {.kind = ERR_NONE};

    if (f == NULL)
        return EX_OSERR;
    keep_heap();
    struct settings *st = settings_load(path, f);
    if (st != NULL)
        tls_check(st, f);
    if (faults_errors(f) > 0) {
        settings_unref(st);
        faults_print(f, path, stderr);
        faults_free(&f);
        return EX_CONFIG;
    }
    int result = server_run(path, st, f, &e);
    faults_free(&f);
    if (result == 0)
        return EXIT_SUCCESS;
    fprintf(stderr, "postern: %s\n", e.text);
    return e.kind == ERR_CONFIG || e.kind == ERR_TLS ? EX_CONFIG : EX_OSERR;
}

static int
init(struct init_answers *answers)
{
    struct err e = {.kind = ERR_NONE};
    uid_t uid;
    gid_t gid;

    answers->has_user = settings_find_user("postern", &uid, &gid);
    if (init_write(answers, stdout, &e) == 0)
        return EXIT_SUCCESS;
    fprintf(stderr, "postern: %s\n", e.text);
    return EX_USAGE;
}

int
main(int argc, char **argv)
{
    enum { INIT = 256, HOSTNAME, DOMAIN, EXCHANGE, AD, BASE };
    static const struct option options[] = {{"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"init", no_argument, NULL, INIT},
                                            {"hostname", required_argument, NULL, HOSTNAME},
                                            {"domain", required_argument, NULL, DOMAIN},
                                            {"exchange", required_argument, NULL, EXCHANGE},
                                            {"ad", required_argument, NULL, AD},
                                            {"base", required_argument, NULL, BASE},
                                            {NULL, 0, NULL, 0}};
    struct init_answers answers = {.hostname = NULL};
    const char *path = NULL;
    bool is_check = false, is_init = false;
    int c;

    keep_standard_descriptors();
    while ((c = getopt_long(argc, argv, "c:thV", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            path = optarg;
            break;
        case 't':
            is_check = true;
            break;
        case 'V':
            puts("postern " POSTERN_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        case INIT:
            is_init = true;
            break;
        case HOSTNAME:
            answers.hostname = optarg;
            break;
        case DOMAIN:
            answers.domain = optarg;
            break;
        case EXCHANGE:
            answers.exchange = optarg;
            break;
        case AD:
            answers.ad = optarg;
            break;
        case BASE:
            answers.base = optarg;
            break;
        default:
            usage(stderr);
            return EX_USAGE;
        }
    }
    bool is_answered = answers.hostname != NULL || answers.domain != NULL ||
                       answers.exchange != NULL || answers.ad != NULL || answers.base != NULL;
    if (optind != argc || (path == NULL) != is_init || (is_answered && !is_init) ||
        (is_check && is_init)) {
        usage(stderr);
        return EX_USAGE;
    }
    if (is_init)
        return init(&answers);
    return is_check ? check(path) : run(path);
}

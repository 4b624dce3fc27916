/* posternctl: asks a running Postern, over its control socket, and shows the answer. */
#define _GNU_SOURCE

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/span.h"
#include "proxy/ops/control.h"
#include "proxy/ops/control_explain.h"
#include "proxy/ops/control_help.h"
#include "proxy/ops/control_show.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3 };

struct ctl {
    const char *socket;
    bool is_json;
    bool is_drawing; /* on a screen that is about to vanish */
    FILE *in, *out;  /* the connection, once there is one */
};

static int
usage(const char *text, const char *what)
{
    fprintf(stderr, "posternctl: %s%s\nposternctl --help lists the commands.\n", text, what);
    return EXIT_USAGE;
}

/* Connect once; 0, or the exit status with the reason said. */
static int
connect_daemon(struct ctl *ctl)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!span_copy(address.sun_path, sizeof address.sun_path, span_str(ctl->socket)))
        return usage("the socket's path is too long: ", ctl->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || connect(fd, (struct sockaddr *)&address, sizeof address) == -1) {
        int errnum = errno;
        const char *hint = errnum == EACCES
                               ? "; the socket is its user's: run this as root or as that user"
                           : errnum == ENOENT || errnum == ECONNREFUSED
                               ? "; is postern running, with this [control] socket?"
                               : "";
        fprintf(stderr, "posternctl: cannot reach the daemon at %s: %s%s\n", ctl->socket,
                strerror(errnum), hint);
        if (fd != -1)
            close(fd);
        return EXIT_NO_DAEMON;
    }
    ctl->in = fdopen(fd, "r");
    ctl->out = ctl->in ? fdopen(dup(fd), "w") : NULL;
    if (!ctl->out) {
        perror("posternctl");
        return EXIT_NO_DAEMON;
    }
    return 0;
}

static int
lost(const struct ctl *ctl)
{
    if (ctl->is_drawing)
        return EXIT_NO_DAEMON;
    fprintf(stderr, "posternctl: the daemon at %s ended the connection without an answer\n",
            ctl->socket);
    return EXIT_NO_DAEMON;
}

/* Ask, and read the answer into *ANSWER (the caller's); 0, or the exit status with the reason said.
 */
static int
ask(struct ctl *ctl, enum control_id command, json_t *args, json_t **answer)
{
    *answer = NULL;
    int rc = ctl->in ? 0 : connect_daemon(ctl);
    if (rc)
        return rc;
    json_t *request =
        json_pack("{s:s, s:O}", "command", control_commands[command].name, "args", args);
    if (!request)
        return usage("an argument is not valid UTF-8", "");
    bool is_sent = json_dumpf(request, ctl->out, JSON_COMPACT) == 0 &&
                   fputc('\n', ctl->out) != EOF && fflush(ctl->out) == 0;
    json_decref(request);
    if (!is_sent)
        return lost(ctl);
    char *line = NULL;
    size_t room = 0;
    ssize_t n = getline(&line, &room, ctl->in);
    if (n > 0 && line[n - 1] == '\n')
        *answer = json_loadb(line, (size_t)n, 0, NULL);
    free(line);
    if (!json_is_object(*answer)) {
        json_decref(*answer);
        *answer = NULL;
        return lost(ctl);
    }
    return 0;
}

/* Print ANSWER (taken over) and say how it went. */
static int
show(const struct ctl *ctl, enum control_id command, json_t *answer)
{
    bool is_ok = json_is_true(json_object_get(answer, "ok"));
    if (ctl->is_json) {
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (is_ok) {
        control_show(command, answer, stdout);
    } else {
        const char *error = json_string_value(json_object_get(answer, "error"));
        fprintf(stderr, "posternctl: %s\n", error ? error : "the daemon refused");
    }
    json_decref(answer);
    if (fflush(stdout) == EOF)
        return EXIT_REFUSED;
    return is_ok ? 0 : EXIT_REFUSED;
}

static volatile sig_atomic_t is_interrupted;

static void
on_signal(int number)
{
    (void)number;
    is_interrupted = 1;
}

/* Wait a second, or until the user ends it. */
static void
rest(void)
{
    poll(NULL, 0, 1000);
}

static unsigned
screen_rows(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row ? size.ws_row : 24;
}

/* Redraw each second on the terminal's other screen, which leaves what was there as it was. */
static int
run_top(struct ctl *ctl)
{
    json_t *args = json_array(), *before = NULL, *answer;
    int64_t before_ms = 0;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    int rc = ask(ctl, CONTROL_top, args, &answer);
    ctl->is_drawing = rc == 0;
    if (ctl->is_drawing)
        fputs("\033[?1049h\033[?25l", stdout);
    while (rc == 0 && !is_interrupted) {
        int64_t now_ms = clock_ms();
        fputs("\033[H\033[2J", stdout);
        control_show_top(answer, before, now_ms - before_ms, screen_rows() - 1, stdout);
        fflush(stdout);
        json_decref(before);
        before = answer;
        before_ms = now_ms;
        answer = NULL;
        rest();
        if (!is_interrupted)
            rc = ask(ctl, CONTROL_top, args, &answer);
    }
    if (ctl->is_drawing) {
        fputs("\033[?25h\033[?1049l", stdout);
        fflush(stdout);
        ctl->is_drawing = false;
        if (rc)
            lost(ctl);
    }
    json_decref(answer);
    json_decref(before);
    json_decref(args);
    return rc;
}

static int
run(struct ctl *ctl, enum control_id command, json_t *args)
{
    json_t *answer;
    if (command == CONTROL_top && !ctl->is_json && isatty(STDOUT_FILENO))
        return run_top(ctl);
    if (command == CONTROL_explain) {
        answer = control_explain(json_string_value(json_array_get(args, 0)));
        return show(ctl, command, answer);
    }
    int rc = ask(ctl, command, args, &answer);
    return rc ? rc : show(ctl, command, answer);
}

/* The command's words from ARGV; --json may also stand behind the command. */
static int
run_words(struct ctl *ctl, char **argv)
{
    enum control_id command = control_find(span_str(argv[0]));
    if (command == CONTROL_COUNT)
        return usage("no such command: ", argv[0]);
    json_t *args = json_array();
    for (size_t i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "-j") == 0)
            ctl->is_json = true;
        else if (json_array_append_new(args, json_string(argv[i])) == -1)
            return usage("not valid UTF-8: ", argv[i]);
    }
    const struct control_command *c = &control_commands[command];
    size_t n = json_array_size(args);
    if (n < c->least || n > c->most) {
        fprintf(stderr, "usage: posternctl %s%s%s\n", c->name, c->arguments[0] ? " " : "",
                c->arguments);
        json_decref(args);
        return EXIT_USAGE;
    }
    int rc = run(ctl, command, args);
    json_decref(args);
    return rc;
}

int
main(int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'}, {"json", no_argument, NULL, 'j'},
        {"completion", no_argument, NULL, 'c'},   {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
    struct ctl ctl = {.socket = CONTROL_DEFAULT_SOCKET};
    int c;
    while ((c = getopt_long(argc, argv, "+s:jhV", options, NULL)) != -1) {
        switch (c) {
        case 's':
            ctl.socket = optarg;
            break;
        case 'j':
            ctl.is_json = true;
            break;
        case 'c':
            control_completion(stdout);
            return 0;
        case 'h':
            control_help(stdout);
            return 0;
        case 'V':
            puts("posternctl " POSTERN_VERSION);
            return 0;
        default:
            return usage("see the usage", "");
        }
    }
    if (optind == argc)
        return usage("a command is missing", "");
    signal(SIGPIPE, SIG_IGN);
    int rc = run_words(&ctl, argv + optind);
    if (ctl.out)
        fclose(ctl.out);
    if (ctl.in)
        fclose(ctl.in);
    return rc;
}

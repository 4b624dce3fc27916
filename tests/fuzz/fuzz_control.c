#define _GNU_SOURCE

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy/ops/control_show.h"
#include "proxy/ops/control_socket.h"
#include "tests/fuzz/require.h"

/* The octets as requests on a control socket, each of which gets one line of JSON; and as what a
 * daemon answers to posternctl, of which a terminal is never shown a control character. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
on_request(void *arg, struct control_call *call, const char *command, const json_t *args)
{
    (void)arg;
    if (control_find(span_str(command)) == CONTROL_COUNT)
        control_refuse(call, "no such command: %s", command);
    else
        control_answer(call, json_pack("{s:O}", "args", args));
}

/* A control socket that is there for good, and the path of it. */
static struct event_base *
serve(struct sockaddr_un *address)
{
    static struct event_base *base;
    static char path[64];
    if (!base) {
        struct err e;
        snprintf(path, sizeof path, "/tmp/postern-fuzz-control-%d", (int)getpid());
        base = event_base_new();
        require(base && control_socket_new(base, path, NULL, on_request, NULL, &e));
    }
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    require(span_copy(address->sun_path, sizeof address->sun_path, span_str(path)));
    return base;
}

static void
check_line(const char *line, size_t n)
{
    json_t *answer = json_loadb(line, n, 0, NULL);
    require(json_is_boolean(json_object_get(answer, "ok")));
    json_decref(answer);
}

static void
as_requests(const uint8_t *data, size_t size)
{
    struct sockaddr_un address;
    struct event_base *base = serve(&address);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    require(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    require(size == 0 || send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size);
    shutdown(fd, SHUT_WR);
    static char text[1 << 20];
    size_t used = 0, answers = 0, requests = 0;
    for (;;) {
        ssize_t n = recv(fd, text + used, sizeof text - used, MSG_DONTWAIT);
        if (n > 0)
            used += (size_t)n;
        else if (n == -1 && errno == EAGAIN)
            event_base_loop(base, EVLOOP_ONCE);
        else
            break; /* also a reset: it was cut off for a line that is too long */
    }
    struct span rest = span_of(text, used), line;
    while (used && span_next(&rest, '\n', &line) && line.n) {
        check_line(line.p, line.n);
        answers++;
    }
    for (size_t i = 0; i < size; i++)
        requests += data[i] == '\n';
    require(answers <= requests + 1);
    close(fd);
}

static void
as_answer(const uint8_t *data, size_t size)
{
    json_t *answer = json_loadb((const char *)data, size, 0, NULL);
    if (!json_is_object(answer)) {
        json_decref(answer);
        return;
    }
    for (enum control_id id = 0; id < CONTROL_COUNT; id++) {
        char *text = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&text, &n);
        require(out != NULL);
        control_show(id, answer, out);
        fclose(out);
        for (size_t i = 0; i < n; i++)
            require(text[i] == '\n' || ((unsigned char)text[i] >= 0x20 && text[i] != 0x7f));
        free(text);
    }
    json_decref(answer);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 16384)
        return 0;
    as_requests(data, size);
    as_answer(data, size);
    return 0;
}

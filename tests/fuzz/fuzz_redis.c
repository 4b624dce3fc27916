#define _GNU_SOURCE /* accept4 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "conf/settings.h"
#include "policy/ledger_redis.h"
#include "policy/ledger_redis_private.h"
#include "tests/fuzz/require.h"

/* A Redis that says anything: the input, cut at octets 0xFF; each time something is asked, the next
 * part is said, and where there is none it hangs up.
 *
 * Whatever it says, no block is learnt that could not have come about here. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define QUIET_ROUNDS 3
#define ROUNDS_MAX   400

static struct {
    struct event_base *base;
    struct settings *settings;
    struct policy *policy;
    int listener, fd; /* fd -1: nobody has connected */
    char path[64], file[80];
} world = {.listener = -1, .fd = -1};

static void
clean_up(void)
{
    policy_free(&world.policy, world.settings, clock_ms(), clock_wall_s());
    settings_unref(world.settings);
    event_base_free(world.base);
    close(world.listener);
    unlink(world.path);
}

static void
set_up(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct faults *faults = faults_new();
    struct err e;
    FILE *out;

    log_set_level(LOG_LEVEL_ERROR);
    snprintf(world.path, sizeof world.path, "/tmp/postern-fuzz-redis-%d", (int)getpid());
    snprintf(world.file, sizeof world.file, "%s.ini", world.path);
    require(span_copy(address.sun_path, sizeof address.sun_path, span_str(world.path)));
    world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    require(bind(world.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
            listen(world.listener, 8) == 0);
    out = fopen(world.file, "we");
    require(out != NULL && faults != NULL);
    fprintf(out,
            "[server]\nhostname = mx.example.test\nstate_dir =\n"
            "[domain example.test]\ndownstream = exchange\nrecipients = any\n"
            "[downstream exchange]\nhosts = 127.0.0.1:26\n"
            "[harvest]\nledger = redis\nredis = unix:%s\n",
            world.path);
    fclose(out);
    world.settings = settings_load(world.file, faults);
    unlink(world.file);
    require(world.settings != NULL);
    faults_free(&faults);
    world.policy = policy_new(world.settings, clock_ms(), clock_wall_s(), &e);
    world.base = event_base_new();
    require(world.policy != NULL && world.base != NULL && atexit(clean_up) == 0);
}

static void
hang_up(void)
{
    if (world.fd >= 0)
        close(world.fd);
    world.fd = -1;
}

static void
say_next(struct span *script)
{
    struct span part;

    if (!span_next(script, '\xff', &part) || part.n == 0 ||
        send(world.fd, part.p, part.n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)part.n)
        hang_up();
}

/* False: there was nothing to do. */
static bool
serve(struct span *script)
{
    char octets[8192];
    ssize_t n;

    if (world.fd < 0) {
        world.fd = accept4(world.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        return world.fd >= 0;
    }
    n = recv(world.fd, octets, sizeof octets, 0);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        hang_up();
        return true;
    }
    while (n == sizeof octets)
        n = recv(world.fd, octets, sizeof octets, 0);
    say_next(script);
    return true;
}

static void
check_entry(void *arg, struct ledger_entry *e)
{
    (void)arg;
    require(e->network.base.family == 4 || e->network.base.family == 6);
    require(e->network.prefix <= (e->network.base.family == 4 ? 32 : 128));
    for (int i = 0; i < 2; i++)
        require(e->hold[i].action <= POLICY_ACTION_BLIND && e->hold[i].by <= POLICY_BY_CONTROL &&
                e->hold[i].repeats <= LEDGER_REPEATS_MAX);
}

static void
forget(void *arg, struct ledger_entry *e)
{
    ledger_clear(arg, e);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct netaddr blocked = {.family = 4, .octets = {192, 0, 2, 7}};
    struct network network = network_of(&blocked, 32);
    struct ledger_redis *r = NULL;
    struct span script = span_of((const char *)data, size);
    struct ledger *ledger;

    if (size == 0 || size > 65536)
        return 0;
    if (!world.base)
        set_up();
    ledger = world.policy->ledger;
    policy_block(world.policy, world.settings, &network, 0, clock_ms());
    ledger_redis_update(&r, world.policy, world.settings, world.base);
    require(r != NULL);
    for (unsigned quiet = 0, rounds = 0; quiet < QUIET_ROUNDS && rounds < ROUNDS_MAX; rounds++) {
        (void)event_base_loop(world.base, EVLOOP_NONBLOCK);
        quiet = serve(&script) ? 0 : quiet + 1;
        if (r->phase == LEDGER_REDIS_READY)
            ledger_redis_tell(r, clock_ms());
    }
    ledger_walk(ledger, check_entry, NULL);
    ledger_redis_free(&r);
    hang_up();
    /* hiredis lets go of what it has in a turn of the loop. */
    (void)event_base_loop(world.base, EVLOOP_NONBLOCK);
    ledger_walk(ledger, forget, ledger);
    return 0;
}

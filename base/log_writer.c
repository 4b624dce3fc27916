#define _GNU_SOURCE

#include "base/log_writer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_queue.h"
#include "base/log_target.h"
#include "base/thread.h"

#define QUEUE_BYTES (4 << 20)
#define CLOSE_MS    1000 /* log_close waits no longer */
/* The writer rests when it has written all there was: under load it is woken a hundred times a
 * second at most, not for each line, and a lone line does not wait. */
#define REST_MS      10
#define RETRY_MIN_MS 100 /* after a target failed; doubled up to RETRY_MAX_MS */
#define RETRY_MAX_MS 5000
#define TELL_MS      1000             /* between two lines about dropped ones */
#define LOST_MS      (10 * 60 * 1000) /* between two words on stderr about a lost target */

enum mode {
    MODE_CLOSED,   /* lines go to stderr at once */
    MODE_RUNNING,  /* lines go into the queue */
    MODE_ABANDONED /* the thread still hangs in its target: lines are dropped, and it ends when it
                      can */
};

/* One for the process.  All but DROPPED changes under LOCK, which is never held over I/O. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;  /* to the thread: look again */
    pthread_cond_t ended; /* from the thread: HAS_ENDED */
    enum mode mode;
    bool is_idle;    /* the thread waits for a line */
    bool is_changed; /* a word from log_close or log_reopen, to end any wait */
    bool is_closing, has_ended;
    struct log_queue *queue;
    struct log_target *next; /* log_reopen's, which takes over after NEXT_AT lines; or NULL */
    uint64_t next_at;
    uint64_t untold;          /* dropped, and not yet said so */
    _Atomic uint64_t dropped; /* since the start */
} writer = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_t writer_thread;

static void
init_conditions(void)
{
    thread_cond_init(&writer.wake);
    thread_cond_init(&writer.ended);
}

/* Wait for MS, or until log_close or log_reopen has something to say. */
static void
pause_ms(int64_t ms)
{
    int64_t end_ms = clock_ms() + ms;

    while (!writer.is_changed && thread_cond_wait(&writer.wake, &writer.lock, end_ms) == 0)
        ;
    writer.is_changed = false;
}

static void
wait_for_line(void)
{
    writer.is_idle = true;
    while (!writer.is_changed && log_queue_in(writer.queue) == log_queue_out(writer.queue))
        pthread_cond_wait(&writer.wake, &writer.lock);
    writer.is_idle = false;
    writer.is_changed = false;
}

/* The next thing to write: what was dropped, if it is time to say so, or a line. */
static bool
next_record(struct log_record *r, char text[LOG_LINE_MAX], int64_t *told_ms)
{
    bool is_empty = log_queue_in(writer.queue) == log_queue_out(writer.queue);
    int64_t now_ms;
    int n;

    if (writer.untold == 0)
        return log_queue_take(writer.queue, r, text);
    now_ms = clock_ms();
    if (!is_empty && now_ms - *told_ms < TELL_MS)
        return log_queue_take(writer.queue, r, text);
    n = snprintf(text, LOG_LINE_MAX, "event=log dropped=%llu", (unsigned long long)writer.untold);
    *r = (struct log_record){clock_wall_us(), LOG_LEVEL_WARNING, span_of(text, (size_t)n)};
    writer.untold = 0;
    *told_ms = now_ms;
    return true;
}

/* A word on stderr about the target, which cannot say it itself; unless nobody reads there. */
static void
tell_stderr(const char *state, const char *target, const char *error, uint64_t lines_lost)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    struct log_line l;

    if (poll(&p, 1, 0) != 1 || (p.revents & POLLOUT) == 0)
        return;
    log_begin(&l, LOG_LEVEL_ERROR, "log");
    log_str(&l, "state", state);
    if (target)
        log_str(&l, "target", target);
    if (error)
        log_str(&l, "error", error);
    log_int(&l, "dropped", (int64_t)lines_lost);
    (void)log_target_stderr(
        &(struct log_record){clock_wall_us(), LOG_LEVEL_ERROR, span_of(l.text, l.n)});
}

/* What has been said of a target that takes nothing. */
struct loss {
    bool is_told;
    int64_t told_ms;
};

static void
watch_target(struct loss *loss, const struct log_target *target, bool ok)
{
    if (log_target_keeps(target))
        return; /* it is stderr itself, perhaps in the middle of a line */
    if (ok && loss->is_told) {
        tell_stderr("up", log_target_name(target), NULL, log_dropped());
        loss->is_told = false;
    } else if (!ok && (loss->told_ms == 0 || clock_ms() - loss->told_ms >= LOST_MS)) {
        tell_stderr("down", log_target_name(target), log_target_error(target), log_dropped());
        loss->is_told = true;
        loss->told_ms = clock_ms();
    }
}

/* The next line is for the target that log_reopen brought. */
static bool
is_change_due(void)
{
    return writer.next && log_queue_out(writer.queue) >= writer.next_at;
}

/* The target that log_reopen brought takes over once the lines from before it are written, or at
 * once if its predecessor FAILED. */
static void
change_target(struct log_target **target, bool has_record, bool failed)
{
    if (!writer.next || (!failed && (has_record || log_target_keeps(*target) || !is_change_due())))
        return;
    log_target_free(target);
    *target = writer.next;
    writer.next = NULL;
}

static void *
write_lines(void *argument)
{
    struct log_target *target = argument;
    struct log_record r;
    char text[LOG_LINE_MAX];
    bool has_record = false, has_written = false;
    int64_t told_ms = -TELL_MS, retry_ms = 0;
    struct loss loss = {.is_told = false};

    pthread_mutex_lock(&writer.lock);
    while (writer.mode == MODE_RUNNING) {
        change_target(&target, has_record, retry_ms > 0);
        if (!has_record && !is_change_due())
            has_record = next_record(&r, text, &told_ms);
        if (has_record || log_target_keeps(target)) {
            bool ok;

            pthread_mutex_unlock(&writer.lock);
            ok = has_record ? log_target_write(target, &r) : log_target_flush(target);
            watch_target(&loss, target, ok);
            pthread_mutex_lock(&writer.lock);
            has_record = has_record && !ok;
            has_written = ok;
            if (ok) {
                retry_ms = 0;
                continue;
            }
            retry_ms = retry_ms == 0 ? RETRY_MIN_MS : retry_ms * 2;
            if (retry_ms > RETRY_MAX_MS)
                retry_ms = RETRY_MAX_MS;
            pause_ms(writer.is_closing ? RETRY_MIN_MS : retry_ms);
        } else if (writer.is_closing) {
            break;
        } else if (has_written) {
            has_written = false;
            pause_ms(REST_MS);
        } else {
            wait_for_line();
        }
    }
    log_target_free(&target);
    log_target_free(&writer.next);
    writer.has_ended = true;
    pthread_cond_signal(&writer.ended);
    pthread_mutex_unlock(&writer.lock);
    return NULL;
}

static int
start(struct log_target *target, struct err *e)
{
    int rc;

    if (writer.mode == MODE_RUNNING || (writer.mode == MODE_ABANDONED && !writer.has_ended))
        return err_set(e, ERR_SYSTEM, "log: there is a writer already");
    log_queue_free(&writer.queue);
    writer.queue = log_queue_new(QUEUE_BYTES);
    if (!writer.queue)
        return err_errno(e, ERR_SYSTEM, ENOMEM, "log");
    writer.is_idle = writer.is_changed = writer.is_closing = writer.has_ended = false;
    rc = thread_start(&writer_thread, write_lines, target);
    if (rc != 0) {
        log_queue_free(&writer.queue);
        return err_errno(e, ERR_SYSTEM, rc, "log: no thread");
    }
    writer.mode = MODE_RUNNING;
    return 0;
}

int
log_open(const struct log_options *options, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct log_target *target = log_target_new(options, e);
    int rc;

    if (!target)
        return -1;
    pthread_once(&once, init_conditions);
    pthread_mutex_lock(&writer.lock);
    rc = start(target, e);
    pthread_mutex_unlock(&writer.lock);
    if (rc == 0)
        log_set_level(options->level);
    else
        log_target_free(&target);
    return rc;
}

int
log_reopen(const struct log_options *options, struct err *e)
{
    struct log_target *target = log_target_new(options, e);
    int rc = 0;

    if (!target)
        return -1;
    pthread_mutex_lock(&writer.lock);
    if (writer.mode == MODE_RUNNING) {
        log_target_free(&writer.next); /* one that came and went unused */
        writer.next = target;
        writer.next_at = log_queue_in(writer.queue);
        writer.is_changed = true;
        pthread_cond_signal(&writer.wake);
    } else {
        rc = err_set(e, ERR_SYSTEM, "log: not open");
        log_target_free(&target);
    }
    pthread_mutex_unlock(&writer.lock);
    if (rc == 0)
        log_set_level(options->level);
    return rc;
}

void
log_close(void)
{
    int64_t end_ms = clock_ms() + CLOSE_MS;
    uint64_t lines_lost = 0;
    bool has_ended;

    pthread_mutex_lock(&writer.lock);
    if (writer.mode != MODE_RUNNING || writer.is_closing) {
        pthread_mutex_unlock(&writer.lock);
        return;
    }
    writer.is_closing = writer.is_changed = true;
    pthread_cond_signal(&writer.wake);
    while (!writer.has_ended && thread_cond_wait(&writer.ended, &writer.lock, end_ms) == 0)
        ;
    has_ended = writer.has_ended;
    writer.mode = has_ended ? MODE_CLOSED : MODE_ABANDONED;
    if (has_ended) {
        log_queue_free(&writer.queue);
    } else {
        writer.is_changed = true;
        pthread_cond_signal(&writer.wake);
        /* With the one that the writer has in hand. */
        lines_lost = log_queue_in(writer.queue) - log_queue_out(writer.queue) + 1;
    }
    pthread_mutex_unlock(&writer.lock);
    if (has_ended) {
        pthread_join(writer_thread, NULL);
    } else {
        pthread_detach(writer_thread);
        tell_stderr("down", NULL, "these lines were not written before the end",
                    lines_lost + log_dropped());
    }
}

uint64_t
log_dropped(void)
{
    return atomic_load_explicit(&writer.dropped, memory_order_relaxed);
}

static void
drop(void)
{
    atomic_fetch_add_explicit(&writer.dropped, 1, memory_order_relaxed);
    writer.untold++;
}

void
log_submit(const struct log_record *r)
{
    enum mode mode;

    pthread_mutex_lock(&writer.lock);
    mode = writer.mode;
    if (mode == MODE_ABANDONED) {
        drop();
    } else if (mode == MODE_RUNNING) {
        if (!log_queue_put(writer.queue, r))
            drop();
        else if (writer.is_idle)
            pthread_cond_signal(&writer.wake);
    }
    pthread_mutex_unlock(&writer.lock);
    if (mode == MODE_CLOSED)
        log_target_stderr(r);
}

#define _GNU_SOURCE /* O_TMPFILE, preadv2 */
#include "proxy/relay/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mailbox.h"
#include "base/thread.h"

#define CLIENT_BUCKETS 256u

/* What one client network has on disk, over all loops. */
struct share {
    struct share *next;
    struct network client;
    unsigned files;
    uint64_t octets;
};

enum job_kind { JOB_WRITE, JOB_READ, JOB_CLOSE, JOB_LEAVE, JOB_STOP };

/* Jobs are done in order.  A write that nobody waits for is answered only when it failed. */
struct job {
    struct mailbox_item item;
    LIST_ENTRY(job) link; /* of a write that is not begun, in its file's list */
    enum job_kind kind;
    bool is_ok;
    struct spool_client *client;
    struct spool_file *file;
    char *block;    /* of a write; NULL: thrown away, the owner is gone */
    size_t counted; /* what was taken of memory_total for it */
    size_t n;
    uint64_t offset;
};

struct spool {
    struct mailbox *jobs;
    pthread_t thread;
    struct job stop;
    _Atomic uint64_t memory_used, memory_total;
    pthread_mutex_t lock; /* over all below */
    uint64_t disk_used, disk_total;
    char *dir;
    struct share *shares[CLIENT_BUCKETS];
    bool was_full; /* of the file system: said once */
};

struct spool_client {
    struct spool *spool;
    struct mailbox *results;
    struct job leave;
};

struct spool_file {
    struct spool_client *client;
    struct spool *spool;
    struct share *share;
    spool_done_fn *done; /* NULL: the owner is gone */
    void *arg;
    int fd; /* made by the thread before it has written anything; -1: not yet */
    uint64_t size;
    _Atomic size_t unwritten;
    _Atomic bool has_failed; /* a write: there is a hole */
    _Atomic bool is_awaited; /* the owner wants to know of the next write */
    LIST_HEAD(, job) writes; /* not begun; under the spool's lock */
    char *read_block;
    _Atomic unsigned references; /* the owner's, later the closing job's; each answer's */
    struct job close;
};

static int
open_unlinked(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    /* A file system without O_TMPFILE. */
    char *path = NULL;
    size_t n = strlen(dir) + sizeof("/postern-XXXXXX");
    if ((path = malloc(n)) == NULL)
        return -1;
    if (!span_copy(path, n, span_str(dir))) {
        free(path);
        return -1;
    }
    memcpy(path + strlen(dir), "/postern-XXXXXX", sizeof("/postern-XXXXXX"));
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    free(path);
    return fd;
}

static void
say(struct spool *s, const char *state, const char *error)
{
    log_event(LOG_LEVEL_WARNING, "spool", "state", state, "dir", s->dir, "error", error, NULL);
}

/* A tenth of the file system is not ours. */
static bool
has_room(struct spool *s, int fd)
{
    struct statvfs v;
    bool is_full = fstatvfs(fd, &v) != 0 || v.f_bavail < v.f_blocks / 10;

    pthread_mutex_lock(&s->lock);
    bool changed = is_full != s->was_full;
    s->was_full = is_full;
    pthread_mutex_unlock(&s->lock);
    if (changed)
        say(s, is_full ? "down" : "up",
            is_full ? "less than a tenth of the file system is free" : "");
    return !is_full;
}

static bool
write_all(int fd, const char *p, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t done = pwrite(fd, p, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        p += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return true;
}

static bool
read_all(int fd, char *p, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t done = pread(fd, p, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        p += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return true;
}

static void
open_file(struct spool *s, struct spool_file *f)
{
    pthread_mutex_lock(&s->lock);
    char *dir = span_dup(span_str(s->dir));
    pthread_mutex_unlock(&s->lock);
    f->fd = dir != NULL ? open_unlinked(dir) : -1;
    if (f->fd < 0)
        say(s, "down", strerror(errno));
    free(dir);
}

static void
release(struct spool_file *f)
{
    if (atomic_fetch_sub(&f->references, 1) > 1)
        return;
    free(f->read_block);
    free(f);
}

static void
answer(struct job *j)
{
    atomic_fetch_add(&j->file->references, 1);
    mailbox_post(j->client->results, &j->item);
}

static void
free_block(struct job *j)
{
    free(j->block);
    j->block = NULL;
    spool_memory_give(j->file->spool, j->counted);
}

/* False: nobody wants it any more. */
static bool
begin_write(struct spool *s, struct job *j)
{
    pthread_mutex_lock(&s->lock);
    LIST_REMOVE(j, link);
    pthread_mutex_unlock(&s->lock);
    return j->block != NULL;
}

static void
do_write(struct spool *s, struct job *j)
{
    struct spool_file *f = j->file;

    if (!begin_write(s, j)) {
        free(j);
        return;
    }
    if (f->fd < 0)
        open_file(s, f);
    j->is_ok = !atomic_load(&f->has_failed) && f->fd >= 0 && has_room(s, f->fd) &&
               write_all(f->fd, j->block, j->n, j->offset);
    free_block(j);
    if (!j->is_ok)
        atomic_store(&f->has_failed, true);
    /* In this order, as spool_file_is_behind has it the other way round: one sees the other. */
    atomic_fetch_sub(&f->unwritten, j->n);
    if (atomic_exchange(&f->is_awaited, false) || !j->is_ok)
        answer(j);
    else
        free(j);
}

static void
do_job(struct spool *s, struct job *j)
{
    struct spool_file *f = j->file;

    switch (j->kind) {
    case JOB_WRITE:
        do_write(s, j);
        return;
    case JOB_READ:
        j->is_ok = !atomic_load(&f->has_failed) && f->fd >= 0 &&
                   read_all(f->fd, f->read_block, j->n, j->offset);
        answer(j);
        return;
    case JOB_CLOSE:
        if (f->fd >= 0)
            close(f->fd);
        release(f);
        return;
    case JOB_LEAVE:
        mailbox_post(j->client->results, &j->item);
        return;
    case JOB_STOP:
        return;
    }
}

static void *
spool_thread(void *arg)
{
    struct spool *s = arg;
    bool runs = true;

    while (runs) {
        struct mailbox_item *item = mailbox_wait(s->jobs);
        while (item != NULL) {
            struct job *j = (struct job *)item;
            item = item->next;
            runs = j->kind != JOB_STOP;
            do_job(s, j);
        }
    }
    return NULL;
}

void
spool_update(struct spool *s, const struct settings *st)
{
    char *dir = span_dup(span_str(st->spool.dir));

    atomic_store(&s->memory_total, st->spool.memory_total);
    pthread_mutex_lock(&s->lock);
    s->disk_total = st->spool.disk_total;
    if (dir != NULL) {
        free(s->dir);
        s->dir = dir;
    }
    pthread_mutex_unlock(&s->lock);
}

struct spool *
spool_new(const struct settings *st, struct err *e)
{
    struct spool *s = calloc(1, sizeof(*s));

    if (s == NULL || (s->jobs = mailbox_new()) == NULL) {
        free(s);
        err_set(e, ERR_SYSTEM, "spool: out of memory");
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    spool_update(s, st);
    int error = thread_start(&s->thread, spool_thread, s);
    if (error != 0) {
        err_errno(e, ERR_SYSTEM, error, "spool thread");
        mailbox_free(&s->jobs);
        free(s->dir);
        free(s);
        return NULL;
    }
    return s;
}

void
spool_free(struct spool **sp)
{
    struct spool *s = *sp;

    if (s == NULL)
        return;
    *sp = NULL;
    s->stop.kind = JOB_STOP;
    mailbox_post(s->jobs, &s->stop.item);
    pthread_join(s->thread, NULL);
    mailbox_free(&s->jobs);
    pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}

bool
spool_memory_take(struct spool *s, size_t n)
{
    if (atomic_fetch_add_explicit(&s->memory_used, n, memory_order_relaxed) + n <=
        atomic_load_explicit(&s->memory_total, memory_order_relaxed))
        return true;
    spool_memory_give(s, n);
    return false;
}

void
spool_memory_give(struct spool *s, size_t n)
{
    atomic_fetch_sub_explicit(&s->memory_used, n, memory_order_relaxed);
}

struct spool_client *
spool_client_new(struct spool *s)
{
    struct spool_client *c = calloc(1, sizeof(*c));

    if (c == NULL || (c->results = mailbox_new()) == NULL) {
        free(c);
        return NULL;
    }
    c->spool = s;
    return c;
}

int
spool_client_fd(const struct spool_client *c)
{
    return mailbox_fd(c->results);
}

static struct share **
find_share(struct spool *s, const struct network *client)
{
    unsigned hash = 0;

    for (size_t i = 0; i < sizeof(client->base.octets); i++)
        hash = hash * 31 + client->base.octets[i];
    struct share **at = &s->shares[hash % CLIENT_BUCKETS];
    while (*at != NULL && !network_equal(&(*at)->client, client))
        at = &(*at)->next;
    return at;
}

static struct share *
join_share(struct spool *s, const struct network *client)
{
    pthread_mutex_lock(&s->lock);
    struct share **at = find_share(s, client);
    if (*at == NULL && (*at = calloc(1, sizeof(**at))) != NULL)
        (*at)->client = *client;
    struct share *share = *at;
    if (share != NULL)
        share->files++;
    pthread_mutex_unlock(&s->lock);
    return share;
}

static void
leave_share(struct spool *s, struct share *share, uint64_t octets)
{
    pthread_mutex_lock(&s->lock);
    s->disk_used -= octets;
    share->octets -= octets;
    if (--share->files == 0) {
        *find_share(s, &share->client) = share->next;
        free(share);
    }
    pthread_mutex_unlock(&s->lock);
}

static bool
take_disk(struct spool *s, struct share *share, size_t n)
{
    pthread_mutex_lock(&s->lock);
    bool fits = s->disk_used + n <= s->disk_total && share->octets + n <= s->disk_total / 4;
    if (fits) {
        s->disk_used += n;
        share->octets += n;
    }
    pthread_mutex_unlock(&s->lock);
    return fits;
}

struct spool_file *
spool_file_new(struct spool_client *c, const struct network *client, spool_done_fn *done, void *arg)
{
    struct spool_file *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return NULL;
    f->client = c;
    f->spool = c->spool;
    f->fd = -1;
    f->done = done;
    f->arg = arg;
    atomic_init(&f->references, 1);
    if ((f->share = join_share(c->spool, client)) == NULL) {
        free(f);
        return NULL;
    }
    return f;
}

/* What waits for the disk: a client that sends, goes and comes again would have any amount of it
 * wait while the disk is slow. */
static void
throw_away(struct spool_file *f)
{
    struct job *j;

    pthread_mutex_lock(&f->spool->lock);
    LIST_FOREACH(j, &f->writes, link)
        free_block(j);
    pthread_mutex_unlock(&f->spool->lock);
}

void
spool_file_free(struct spool_file **fp)
{
    struct spool_file *f = *fp;

    if (f == NULL)
        return;
    *fp = NULL;
    f->done = NULL;
    throw_away(f);
    /* Its room is free for the client's next message, though one block may be under way. */
    leave_share(f->spool, f->share, f->size);
    f->share = NULL;
    /* The thread closes the file, since even close may wait. */
    f->close.kind = JOB_CLOSE;
    f->close.file = f;
    mailbox_post(f->spool->jobs, &f->close.item);
}

static struct job *
new_job(struct spool_file *f, enum job_kind kind, size_t n, uint64_t offset)
{
    struct job *j = calloc(1, sizeof(*j));

    if (j == NULL)
        return NULL;
    j->kind = kind;
    j->client = f->client;
    j->file = f;
    j->n = n;
    j->offset = offset;
    return j;
}

bool
spool_file_write(struct spool_file *f, char *block, size_t n, size_t counted)
{
    bool fits = take_disk(f->spool, f->share, n);
    struct job *j = fits ? new_job(f, JOB_WRITE, n, f->size) : NULL;

    if (fits)
        f->size += n; /* given back with the file, whatever comes of the job */
    if (j == NULL) {
        free(block);
        spool_memory_give(f->spool, counted);
        return false;
    }
    j->block = block;
    j->counted = counted;
    atomic_fetch_add(&f->unwritten, n);
    pthread_mutex_lock(&f->spool->lock);
    LIST_INSERT_HEAD(&f->writes, j, link);
    pthread_mutex_unlock(&f->spool->lock);
    mailbox_post(f->spool->jobs, &j->item);
    return true;
}

bool
spool_file_read(struct spool_file *f, uint64_t offset, size_t n, const char **data)
{
    if (f->read_block == NULL && (f->read_block = malloc(SPOOL_BLOCK)) == NULL)
        return false;
    /* What was written is in the kernel's cache as a rule: a copy, and no thread to wake.  Where it
     * was not, there may be a hole. */
    struct iovec iov = {.iov_base = f->read_block, .iov_len = n};
    if (atomic_load(&f->unwritten) == 0 && !atomic_load(&f->has_failed) &&
        preadv2(f->fd, &iov, 1, (off_t)offset, RWF_NOWAIT) == (ssize_t)n) {
        *data = f->read_block;
        return true;
    }
    *data = NULL;
    struct job *j = new_job(f, JOB_READ, n, offset);
    if (j == NULL)
        return false;
    mailbox_post(f->spool->jobs, &j->item);
    return true;
}

bool
spool_file_is_behind(struct spool_file *f, size_t max)
{
    if (atomic_load(&f->unwritten) <= max)
        return false;
    atomic_store(&f->is_awaited, true);
    return atomic_load(&f->unwritten) > max; /* it may have been the last one */
}

/* True when the client is through: what it had asked for is done. */
static bool
handle_results(struct mailbox_item *item)
{
    bool has_left = false;

    while (item != NULL) {
        struct job *j = (struct job *)item;
        struct spool_file *f = j->file;
        item = item->next;
        if (j->kind == JOB_LEAVE) {
            has_left = true;
            continue;
        }
        if (f->done != NULL)
            f->done(f->arg, j->is_ok, j->kind == JOB_READ ? f->read_block : NULL, j->n);
        release(f);
        free(j);
    }
    return has_left;
}

void
spool_client_dispatch(struct spool_client *c)
{
    (void)handle_results(mailbox_take(c->results));
}

void
spool_client_free(struct spool_client **cp)
{
    struct spool_client *c = *cp;

    if (c == NULL)
        return;
    *cp = NULL;
    c->leave.kind = JOB_LEAVE;
    c->leave.client = c;
    mailbox_post(c->spool->jobs, &c->leave.item);
    while (!handle_results(mailbox_wait(c->results)))
        ;
    mailbox_free(&c->results);
    free(c);
}

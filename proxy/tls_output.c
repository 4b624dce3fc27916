#include "proxy/tls_output.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Four records of 16 KiB, with what TLS adds to each. */
#define ROOM (4u * (16384u + 512u))

struct output {
    int fd;
    bool gathers;
    char *kept;
    size_t start, end;
};

static BIO_METHOD *method;

static ssize_t
put(const struct output *o, const char *p, size_t n)
{
    ssize_t done;

    do
        done = send(o->fd, p, n, MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    return done;
}

/* True when nothing is kept any more. */
static bool
put_kept(struct output *o)
{
    while (o->start < o->end) {
        ssize_t done = put(o, o->kept + o->start, o->end - o->start);
        if (done < 0)
            return false;
        o->start += (size_t)done;
    }
    o->start = o->end = 0;
    return true;
}

static bool
has_room(const struct output *o, size_t n)
{
    return o->gathers && n <= ROOM - o->end;
}

static int
output_write(BIO *b, const char *p, int length)
{
    struct output *o = BIO_get_data(b);
    size_t n = (size_t)length;
    ssize_t done = -1;

    BIO_clear_retry_flags(b);
    if (o->gathers && o->kept == NULL)
        o->gathers = (o->kept = malloc(ROOM)) != NULL;
    if (has_room(o, n) || put_kept(o)) {
        if (!has_room(o, n)) {
            done = put(o, p, n);
        } else {
            memcpy(o->kept + o->end, p, n);
            o->end += n;
            done = length;
        }
    }
    if (done < 0 && errno == EAGAIN)
        BIO_set_retry_write(b);
    return (int)done;
}

static long
output_control(BIO *b, int command, long number, void *argument)
{
    (void)b;
    (void)number;
    (void)argument;
    /* Asked for at the end of a flight of the handshake, of which nothing is kept. */
    return command == BIO_CTRL_FLUSH;
}

static int
output_destroy(BIO *b)
{
    struct output *o = BIO_get_data(b);

    if (o != NULL)
        free(o->kept);
    free(o);
    return 1;
}

static void
make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "records");
    if (method == NULL)
        return;
    BIO_meth_set_write(method, output_write);
    BIO_meth_set_ctrl(method, output_control);
    BIO_meth_set_destroy(method, output_destroy);
}

BIO *
tls_output_new(int fd)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct output *o = calloc(1, sizeof(*o));

    pthread_once(&once, make_method);
    BIO *b = o != NULL && method != NULL ? BIO_new(method) : NULL;
    if (b == NULL) {
        free(o);
        return NULL;
    }
    o->fd = fd;
    BIO_set_data(b, o);
    BIO_set_init(b, 1);
    return b;
}

void
tls_output_gather(BIO *output)
{
    struct output *o = BIO_get_data(output);

    o->gathers = true;
}

bool
tls_output_flush(BIO *output)
{
    struct output *o = BIO_get_data(output);

    o->gathers = false;
    if (!put_kept(o))
        return false;
    free(o->kept);
    o->kept = NULL;
    return true;
}

size_t
tls_output_pending(BIO *output)
{
    const struct output *o = BIO_get_data(output);

    return o->end - o->start;
}

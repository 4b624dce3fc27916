#include "tests/bench/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <openssl/err.h>

#define LINE 78u

void
die(const char *what)
{
    perror(what);
    exit(2);
}

int
epoll_make(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0)
        die("epoll_create1");
    return epoll;
}

void
wire_open(struct wire *w, int epoll, int fd, void *owner)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = owner};

    memset(w, 0, sizeof(*w));
    w->fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

void
wire_close(struct wire *w)
{
    if (w->ssl != NULL) {
        if (!w->is_broken && !w->is_shaking)
            SSL_shutdown(w->ssl);
        ERR_clear_error();
        SSL_free(w->ssl);
    }
    close(w->fd);
    free(w->out);
    memset(w, 0, sizeof(*w));
    w->fd = -1;
}

void
wire_put(struct wire *w, const char *p, size_t n)
{
    if (w->out_n + n > w->out_capacity) {
        w->out_capacity = 2 * (w->out_n + n);
        w->out = realloc(w->out, w->out_capacity);
        if (w->out == NULL)
            die("out of memory");
    }
    memcpy(w->out + w->out_n, p, n);
    w->out_n += n;
}

void
wire_put_tail(struct wire *w, const char *p, size_t n)
{
    w->tail = p;
    w->tail_n = n;
}

/* > 0 written, 0 not now, -1 broken. */
static ssize_t
write_some(struct wire *w)
{
    struct iovec iov[2] = {{w->out + w->out_at, w->out_n - w->out_at},
                           {(void *)(uintptr_t)w->tail, w->tail_n}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};

    if (w->ssl != NULL) {
        const struct iovec *v = iov[0].iov_len > 0 ? &iov[0] : &iov[1];
        size_t done = 0;
        ERR_clear_error();
        if (SSL_write_ex(w->ssl, v->iov_base, v->iov_len, &done) == 1)
            return (ssize_t)done;
        int error = SSL_get_error(w->ssl, 0);
        return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
    }
    ssize_t done = sendmsg(w->fd, &message, MSG_NOSIGNAL);
    if (done < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    return done;
}

void
wire_flush(struct wire *w)
{
    while (!w->is_broken && !w->is_shaking && w->out_n - w->out_at + w->tail_n > 0) {
        ssize_t done = write_some(w);
        if (done == 0)
            return;
        if (done < 0) {
            w->is_broken = true;
            return;
        }
        size_t n = (size_t)done, of_out = w->out_n - w->out_at;
        if (n < of_out)
            of_out = n;
        w->out_at += of_out;
        w->tail += n - of_out;
        w->tail_n -= n - of_out;
        if (w->out_at == w->out_n)
            w->out_at = w->out_n = 0;
    }
}

ssize_t
wire_read(struct wire *w, char *p, size_t n)
{
    size_t done = 0;

    if (w->is_broken)
        return -1;
    if (w->ssl == NULL) {
        ssize_t got = recv(w->fd, p, n, 0);
        if (got > 0)
            return got;
        return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    }
    ERR_clear_error();
    if (SSL_read_ex(w->ssl, p, n, &done) == 1)
        return (ssize_t)done;
    int error = SSL_get_error(w->ssl, 0);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return 0;
    w->is_broken = error != SSL_ERROR_ZERO_RETURN;
    return -1;
}

void
wire_start_tls(struct wire *w, SSL *ssl)
{
    w->ssl = ssl;
    w->is_shaking = true;
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                          SSL_MODE_RELEASE_BUFFERS);
    if (SSL_set_fd(ssl, w->fd) != 1)
        w->is_broken = true;
}

bool
wire_shake(struct wire *w)
{
    ERR_clear_error();
    int done = SSL_do_handshake(w->ssl);
    if (done == 1) {
        w->is_shaking = false;
        return true;
    }
    int error = SSL_get_error(w->ssl, done);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        w->is_broken = true;
    return false;
}

const char *
body_plain(void)
{
    static char block[BODY_BLOCK];

    if (block[0] != '\0')
        return block;
    for (size_t at = 0; at < BODY_BLOCK;) {
        size_t n = BODY_BLOCK - at < LINE + 2 ? BODY_BLOCK - at : LINE;
        for (size_t i = 0; i < n - 2; i++)
            block[at + i] = (char)('!' + (at + i * 7) % 94);
        if (at / LINE % 5 == 1)
            block[at] = '.';
        block[at + n - 2] = '\r';
        block[at + n - 1] = '\n';
        at += n;
    }
    return block;
}

const char *
body_stuffed(size_t *n)
{
    static char block[2 * BODY_BLOCK];
    static size_t length;
    static bool is_made;
    const char *plain = body_plain();

    for (size_t i = 0; !is_made && i < BODY_BLOCK; i++) {
        if (plain[i] == '.' && (i == 0 || plain[i - 1] == '\n'))
            block[length++] = '.';
        block[length++] = plain[i];
    }
    is_made = true;
    *n = length;
    return block;
}

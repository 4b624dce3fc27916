#ifndef TESTS_BENCH_WIRE_H
#define TESTS_BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

/* What the load generator and the sink share: a connection that one edge-triggered epoll entry
 * serves, and the content of which both know every octet. */

struct wire {
    int fd;
    SSL *ssl; /* NULL in the clear */
    bool is_shaking;
    bool is_broken; /* of no more use */
    char *out;
    size_t out_at, out_n, out_capacity;
    const char *tail; /* follows `out`; not ours */
    size_t tail_n;
};

/* FD is nonblocking; it is entered into EPOLL with OWNER as its data. */
void wire_open(struct wire *w, int epoll, int fd, void *owner);
void wire_close(struct wire *w);
/* Append to what is written by wire_flush. Dies when memory is out, as all here. */
void wire_put(struct wire *w, const char *p, size_t n);
/* These octets, which outlive the writing, follow what was put. */
void wire_put_tail(struct wire *w, const char *p, size_t n);
void wire_flush(struct wire *w);
/* > 0 octets, 0 nothing now, -1 the end. */
ssize_t wire_read(struct wire *w, char *p, size_t n);
/* Takes SSL over; its side (accept or connect state) is set.  Then wire_shake at each event until
 * it is true.
 */
void wire_start_tls(struct wire *w, SSL *ssl);
bool wire_shake(struct wire *w);

/* The content of a message behind its header: BODY_BLOCK octets over and over, lines of text of
 * which some begin with a dot.  As it is, and as it is in DATA; the length of the latter is *N. */
#define BODY_BLOCK 4096u
const char *body_plain(void);
const char *body_stuffed(size_t *n);

int epoll_make(void);
_Noreturn void die(const char *what);

#endif

#ifndef PROXY_RELAY_MESSAGE_H
#define PROXY_RELAY_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <openssl/evp.h>

#include "base/netaddr.h"
#include "base/span.h"
#include "proxy/relay/spool.h"
#include "proxy/smtp/command.h"
#include "proxy/smtp/header.h"

/* The held transaction: the envelope, and the content, un-stuffed, as it was received.  The header
 * section is kept apart (read, counted, edited); the body is in memory up to its share, what is
 * over in an unlinked file.  Belongs to one loop. */

struct message_recipient {
    char *address;     /* as it is sent on */
    char *canonical;   /* as it is compared */
    char *orcpt;       /* as written; NULL: none */
    unsigned notify;   /* SMTP_NOTIFY_*; 0: not given */
    uint64_t max_size; /* octets this recipient takes; 0: any */
    bool is_directory; /* the directory knew it: a 5.1.x of the downstream is drift */
    bool was_marked;   /* taken though the downstream refused it lately, as it took it when asked */
    bool is_would;     /* taken only since monitor = yes: no merit of the client's */
};

struct message {
    /* the envelope */
    char *sender;           /* as it is sent on; "" for <> */
    char *sender_canonical; /* "" for <> */
    char *envid;            /* NULL: none */
    enum smtp_body body;
    enum smtp_ret ret;
    bool is_smtputf8;
    struct message_recipient *recipients;
    size_t n_recipients, recipients_capacity;
    size_t n_served; /* of those behind n_recipients: they have had it by an earlier burst */

    /* the content */
    bool is_bdat;          /* came by BDAT: may hold what DATA cannot carry */
    uint64_t content_size; /* octets as received */
    char *header; /* the section as received, with its empty line; after message_finish: edited */
    size_t header_n, header_capacity;
    bool is_header_too_long;
    struct header_end header_end;

    struct message_chunk *chunks, *last_chunk; /* the body as far as it is in memory */
    struct message_chunk *block;               /* of the file, not yet handed over to it */
    uint64_t body_size, file_size;             /* the whole; what is in the file */
    size_t memory;                             /* taken from the spool's share */
    struct spool_file *file;
    size_t header_memory, block_memory; /* taken likewise, for a long header and for the block */
    bool is_tight;                      /* there was no room for a whole block */
    bool has_failed;                    /* the spool refused: the content is incomplete */
    bool is_reading;                    /* a block is under way from the file */

    EVP_MD_CTX *digest; /* of the content as received; NULL when nobody needs it */
    unsigned char sha256[32];

    /* where it lives */
    struct spool *spool;
    struct spool_client *spool_client;
    size_t memory_share; /* octets of content that stay in memory */
    struct network client;

    /* one reader at a time */
    spool_done_fn *ready;
    void *ready_arg;
};

struct message_place {
    struct spool *spool;
    struct spool_client *client;
    size_t memory_share;
    struct network network; /* of the client, for its share of the disk */
    bool wants_digest;
};

/* READY(arg, ok, ...) tells that the file has taken what was handed over, or failed, or, while
 * reading, that the next block is there.  NULL when memory is out. */
struct message *message_new(const struct message_place *place, spool_done_fn *ready,
                            void *ready_arg);
void message_free(struct message **m);
/* Who is told from now on (the session while it receives, then the burst). */
void message_set_ready(struct message *m, spool_done_fn *ready, void *ready_arg);

/* Spans are copied. False when memory is out. */
bool message_set_sender(struct message *m, const struct smtp_mail *mail, struct span canonical);
bool message_add_recipient(struct message *m, const struct smtp_rcpt *rcpt, struct span canonical,
                           uint64_t max_size, bool is_directory);
/* IS_SERVED[i] says who has the message already: those go behind the others. */
void message_set_served(struct message *m, const bool *is_served);

/* Append content. False: no room or no memory (has_failed is set); what follows may be thrown away.
 */
bool message_append(struct message *m, struct span content);
/* So much waits for the disk that the sender should pause until `ready`. */
bool message_is_congested(const struct message *m);
/* The content is complete: closes the digest. False if it failed. */
bool message_finish(struct message *m);
/* Put HEADER (malloc'd, taken over) in place of the header section. */
void message_replace_header(struct message *m, char *header, size_t n);
/* The octets that go to the downstream: header and body. */
uint64_t message_wire_size(const struct message *m);

/* Reading from the start, as often as there are attempts. */
struct message_reader {
    struct message *message;
    size_t header_used;
    const struct message_chunk *chunk;
    size_t chunk_used;
    uint64_t file_offset; /* of what BLOCK begins with */
    const char *block;
    size_t block_n, block_used;
    bool skips_block; /* the block under way was asked for by an attempt before */
    bool has_failed;
};

enum message_read { MESSAGE_READ_DATA, MESSAGE_READ_WAIT, MESSAGE_READ_END, MESSAGE_READ_FAILED };

#define MESSAGE_IOV 16

void message_reader_start(struct message_reader *r, struct message *m);
/* The next octets, in up to MESSAGE_IOV pieces; they stay valid until message_reader_used. WAIT:
 * `ready` will be called: give its arguments to message_reader_block, then ask again. */
enum message_read message_reader_next(struct message_reader *r, struct iovec *iov, int *n);
void message_reader_used(struct message_reader *r, size_t n);
void message_reader_block(struct message_reader *r, bool is_ok, const char *data, size_t n);

#endif

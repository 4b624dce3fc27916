#include "proxy/relay/message.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A chunk holds this much, the first of a message less, since most messages are small. */
#define CHUNK_FIRST (4096u - 64u)
#define CHUNK_NEXT  (65536u - 64u)
/* More than this waiting for the disk pauses the sender. */
#define UNWRITTEN_MAX (2u * SPOOL_BLOCK)
/* When memory_total has no room, a block of a file is this large, and nobody counts it: so much a
 * session may cost in any case. */
#define BLOCK_TIGHT 16384u
/* The same of a header. */
#define HEADER_FREE 16384u

struct message_chunk {
    struct message_chunk *next;
    size_t n, capacity;
    char *data;
};

static void
on_spool(void *arg, bool is_ok, const char *data, size_t n)
{
    struct message *m = arg;

    if (!is_ok)
        m->has_failed = true;
    if (data != NULL)
        m->is_reading = false; /* also when nobody waits for it any more */
    if (m->ready != NULL)
        m->ready(m->ready_arg, is_ok, data, n);
}

/* Looked up by name once: OpenSSL does so again at each use of EVP_sha256(). */
static EVP_MD *sha256;

static void
fetch_sha256(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static EVP_MD_CTX *
new_digest(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();

    pthread_once(&once, fetch_sha256);
    if (digest == NULL || sha256 == NULL || EVP_DigestInit_ex(digest, sha256, NULL) != 1) {
        EVP_MD_CTX_free(digest);
        return NULL;
    }
    return digest;
}

struct message *
message_new(const struct message_place *place, spool_done_fn *ready, void *ready_arg)
{
    struct message *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->spool = place->spool;
    m->spool_client = place->client;
    m->memory_share = place->memory_share;
    m->client = place->network;
    m->ready = ready;
    m->ready_arg = ready_arg;
    if (place->wants_digest && (m->digest = new_digest()) == NULL) {
        free(m);
        return NULL;
    }
    return m;
}

static void
free_chunks(struct message_chunk *c)
{
    while (c != NULL) {
        struct message_chunk *next = c->next;
        free(c->data);
        free(c);
        c = next;
    }
}

void
message_free(struct message **mp)
{
    struct message *m = *mp;

    if (m == NULL)
        return;
    *mp = NULL;
    for (size_t i = 0; i < m->n_recipients + m->n_served; i++) {
        free(m->recipients[i].address);
        free(m->recipients[i].canonical);
        free(m->recipients[i].orcpt);
    }
    free(m->recipients);
    free(m->sender);
    free(m->sender_canonical);
    free(m->envid);
    free(m->header);
    free_chunks(m->chunks);
    free_chunks(m->block);
    spool_file_free(&m->file);
    spool_memory_give(m->spool, m->memory + m->header_memory + m->block_memory);
    EVP_MD_CTX_free(m->digest);
    free(m);
}

void
message_set_ready(struct message *m, spool_done_fn *ready, void *ready_arg)
{
    m->ready = ready;
    m->ready_arg = ready_arg;
}

/* NULL for an empty span is no failure: *FAILED tells. */
static char *
dup_given(struct span s, bool *failed)
{
    if (s.n == 0)
        return NULL;
    char *copy = span_dup(s);
    if (copy == NULL)
        *failed = true;
    return copy;
}

bool
message_set_sender(struct message *m, const struct smtp_mail *mail, struct span canonical)
{
    bool failed = false;

    m->sender = span_dup(span_of(mail->path.text, mail->path.n));
    m->sender_canonical = span_dup(canonical);
    m->envid = dup_given(mail->envid, &failed);
    m->body = mail->has_body ? mail->body : SMTP_BODY_7BIT;
    m->ret = mail->ret;
    m->is_smtputf8 = mail->is_smtputf8;
    return m->sender != NULL && m->sender_canonical != NULL && !failed;
}

bool
message_add_recipient(struct message *m, const struct smtp_rcpt *rcpt, struct span canonical,
                      uint64_t max_size, bool is_directory)
{
    bool failed = false;

    if (m->n_recipients == m->recipients_capacity) {
        size_t capacity = m->recipients_capacity == 0 ? 1 : m->recipients_capacity * 2;
        struct message_recipient *grown = realloc(m->recipients, capacity * sizeof(*grown));
        if (grown == NULL)
            return false;
        m->recipients = grown;
        m->recipients_capacity = capacity;
    }
    struct message_recipient r = {
        .address = span_dup(span_of(rcpt->path.text, rcpt->path.n)),
        .canonical = span_dup(canonical),
        .orcpt = dup_given(rcpt->orcpt, &failed),
        .notify = rcpt->notify,
        .max_size = max_size,
        .is_directory = is_directory,
    };
    if (r.address == NULL || r.canonical == NULL || failed) {
        free(r.address);
        free(r.canonical);
        free(r.orcpt);
        return false;
    }
    m->recipients[m->n_recipients++] = r;
    return true;
}

void
message_set_served(struct message *m, const bool *is_served)
{
    size_t n = m->n_recipients, kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (is_served[i])
            continue;
        struct message_recipient r = m->recipients[i];
        m->recipients[i] = m->recipients[kept];
        m->recipients[kept++] = r;
    }
    m->n_recipients = kept;
    m->n_served = n - kept;
}

static bool
fail(struct message *m)
{
    m->has_failed = true;
    return false;
}

static bool
take_more(struct message *m, size_t n)
{
    if (!spool_memory_take(m->spool, n))
        return false;
    m->header_memory += n;
    return true;
}

static bool
append_header(struct message *m, struct span s)
{
    if (m->is_header_too_long)
        return true;
    if (m->header_n + s.n > SMTP_HEADER_MAX) {
        m->is_header_too_long = true;
        return true;
    }
    if (m->header_n + s.n > m->header_capacity) {
        size_t capacity = m->header_capacity == 0 ? 2048 : m->header_capacity;
        while (capacity < m->header_n + s.n)
            capacity *= 2;
        if (capacity > HEADER_FREE && !take_more(m, capacity - m->header_memory))
            return fail(m);
        char *grown = realloc(m->header, capacity);
        if (grown == NULL)
            return fail(m);
        m->header = grown;
        m->header_capacity = capacity;
    }
    memcpy(m->header + m->header_n, s.p, s.n);
    m->header_n += s.n;
    return true;
}

static struct message_chunk *
new_chunk(size_t capacity)
{
    struct message_chunk *c = calloc(1, sizeof(*c));

    if (c == NULL || (c->data = malloc(capacity)) == NULL) {
        free(c);
        return NULL;
    }
    c->capacity = capacity;
    return c;
}

/* Whole chunks at a time, while the cache still has them: dots cut what is appended into lines. */
static bool
digest(struct message *m, const char *p, size_t n)
{
    return m->digest == NULL || EVP_DigestUpdate(m->digest, p, n) == 1;
}

/* Hand the block at hand over to the file. */
static bool
write_block(struct message *m)
{
    struct message_chunk *c = m->block;
    size_t counted = m->block_memory;

    m->block = NULL;
    m->block_memory = 0;
    bool is_ok = spool_file_write(m->file, c->data, c->n, counted);
    free(c);
    return is_ok || fail(m);
}

/* Room in a block of the file, which is handed over when full. */
static struct message_chunk *
block_with_room(struct message *m)
{
    if (m->block != NULL && m->block->n == m->block->capacity && !write_block(m))
        return NULL;
    if (m->block == NULL) {
        m->is_tight = !spool_memory_take(m->spool, SPOOL_BLOCK);
        m->block_memory = m->is_tight ? 0 : SPOOL_BLOCK;
        m->block = new_chunk(m->is_tight ? BLOCK_TIGHT : SPOOL_BLOCK);
    }
    return m->block;
}

/* Room for more of the body: in memory up to its share, then in a file. */
static struct message_chunk *
chunk_with_room(struct message *m)
{
    struct message_chunk *c = m->last_chunk;
    size_t capacity = m->chunks == NULL ? CHUNK_FIRST : CHUNK_NEXT;
    size_t left = m->memory_share - m->memory;

    if (m->file != NULL)
        return block_with_room(m);
    if (c != NULL && c->n < c->capacity)
        return c;
    if (capacity > left)
        capacity = left;
    if (capacity == 0 || !spool_memory_take(m->spool, capacity)) {
        m->file = spool_file_new(m->spool_client, &m->client, on_spool, m);
        return m->file != NULL ? block_with_room(m) : NULL;
    }
    m->memory += capacity;
    if ((c = new_chunk(capacity)) == NULL)
        return NULL;
    if (m->last_chunk != NULL)
        m->last_chunk->next = c;
    else
        m->chunks = c;
    m->last_chunk = c;
    return c;
}

static bool
append_body(struct message *m, struct span s)
{
    m->body_size += s.n;
    while (s.n > 0) {
        struct message_chunk *c = chunk_with_room(m);
        if (c == NULL)
            return fail(m);
        size_t n = c->capacity - c->n < s.n ? c->capacity - c->n : s.n;
        memcpy(c->data + c->n, s.p, n);
        c->n += n;
        if (c->n == c->capacity && !digest(m, c->data, c->n))
            return fail(m);
        if (m->file != NULL)
            m->file_size += n;
        s.p += n;
        s.n -= n;
    }
    return true;
}

bool
message_append(struct message *m, struct span content)
{
    if (m->has_failed)
        return false;
    m->content_size += content.n;
    if (!m->header_end.found) {
        size_t n = header_end_scan(&m->header_end, content);
        if (!append_header(m, span_of(content.p, n)))
            return false;
        if (m->header_end.found && !digest(m, m->header, m->header_n))
            return fail(m);
        content.p += n;
        content.n -= n;
    }
    return append_body(m, content);
}

bool
message_is_congested(const struct message *m)
{
    return m->file != NULL &&
           spool_file_is_behind(m->file, m->is_tight ? BLOCK_TIGHT : UNWRITTEN_MAX);
}

bool
message_finish(struct message *m)
{
    const struct message_chunk *c = m->file != NULL ? m->block : m->last_chunk;

    if (m->has_failed)
        return false;
    if (!m->header_end.found && !digest(m, m->header, m->header_n))
        return fail(m);
    if (c != NULL && c->n < c->capacity && !digest(m, c->data, c->n))
        return fail(m);
    if (m->block != NULL && !write_block(m))
        return false;
    if (m->digest != NULL && EVP_DigestFinal_ex(m->digest, m->sha256, NULL) != 1)
        return fail(m);
    return true;
}

void
message_replace_header(struct message *m, char *header, size_t n)
{
    free(m->header);
    m->header = header;
    m->header_n = n;
    m->header_capacity = n;
}

uint64_t
message_wire_size(const struct message *m)
{
    return m->header_n + m->body_size;
}

void
message_reader_start(struct message_reader *r, struct message *m)
{
    memset(r, 0, sizeof(*r));
    r->message = m;
    r->chunk = m->chunks;
    r->skips_block = m->is_reading;
}

/* DATA: it is there. */
static enum message_read
next_block(struct message_reader *r)
{
    struct message *m = r->message;
    uint64_t left = m->file_size - r->file_offset;
    size_t n = left < SPOOL_BLOCK ? (size_t)left : SPOOL_BLOCK;
    const char *data;

    if (r->has_failed || m->has_failed)
        return MESSAGE_READ_FAILED;
    if (left == 0)
        return MESSAGE_READ_END;
    if (m->is_reading)
        return MESSAGE_READ_WAIT;
    /* Jobs of a file are done in order, so what was written before is there. */
    if (!spool_file_read(m->file, r->file_offset, n, &data))
        return MESSAGE_READ_FAILED;
    m->is_reading = data == NULL;
    if (m->is_reading)
        return MESSAGE_READ_WAIT;
    message_reader_block(r, true, data, n);
    return MESSAGE_READ_DATA;
}

enum message_read
message_reader_next(struct message_reader *r, struct iovec *iov, int *n)
{
    struct message *m = r->message;

    *n = 0;
    if (r->header_used < m->header_n) {
        iov[*n].iov_base = m->header + r->header_used;
        iov[(*n)++].iov_len = m->header_n - r->header_used;
    }
    size_t used = r->chunk_used;
    for (const struct message_chunk *c = r->chunk; c != NULL && *n < MESSAGE_IOV; c = c->next) {
        iov[*n].iov_base = c->data + used;
        iov[(*n)++].iov_len = c->n - used;
        used = 0;
    }
    if (*n > 0)
        return MESSAGE_READ_DATA;
    /* The file's turn comes only when all before it is used up. */
    if (r->block_used == r->block_n) {
        enum message_read status = m->file != NULL ? next_block(r) : MESSAGE_READ_END;
        if (status != MESSAGE_READ_DATA)
            return status;
    }
    iov[*n].iov_base = (char *)(uintptr_t)r->block + r->block_used;
    iov[(*n)++].iov_len = r->block_n - r->block_used;
    return MESSAGE_READ_DATA;
}

void
message_reader_used(struct message_reader *r, size_t n)
{
    size_t header = r->message->header_n - r->header_used;

    if (header > n)
        header = n;
    r->header_used += header;
    n -= header;
    while (n > 0 && r->chunk != NULL) {
        size_t left = r->chunk->n - r->chunk_used;
        if (left > n) {
            r->chunk_used += n;
            return;
        }
        n -= left;
        r->chunk = r->chunk->next;
        r->chunk_used = 0;
    }
    r->block_used += n;
}

void
message_reader_block(struct message_reader *r, bool is_ok, const char *data, size_t n)
{
    /* News of the last writes come here too. */
    if (!is_ok)
        r->has_failed = true;
    if (data == NULL)
        return;
    if (r->skips_block) {
        r->skips_block = false;
        return;
    }
    if (!is_ok)
        return; /* what is in it was never the message's */
    r->block = data;
    r->block_n = n;
    r->block_used = 0;
    r->file_offset += n;
}

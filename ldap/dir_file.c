#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_file.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/siphash.h"
#include "conf/value.h"
#include "ldap/dir_address.h"

/* An open-addressing table of tags and of offsets into one block of NUL-terminated texts: five
 * octets a slot, and no allocation for each address.  That an address is not there is said by the
 * tags, mostly, of which a processor's cache has very many. */
struct dir_file {
    struct siphash_key key;
    char *text;
    size_t n_text, text_capacity;
    uint8_t *tags;   /* a part of the hash of each slot's address; 0: free */
    uint32_t *texts; /* where it stands */
    size_t n_slots;  /* a power of two, at least half of them free */
    size_t count;
    bool has_domains; /* an @domain among the addresses */
};

static uint8_t
tag_of(uint64_t hash)
{
    return (uint8_t)(hash >> 56 | 1);
}

static const char *
text_of(const struct dir_file *f, size_t slot)
{
    return f->text + f->texts[slot];
}

/* The slot where ADDRESS, which hashes to HASH, stands, or the free one where it belongs. */
static size_t
slot_of(const struct dir_file *f, struct span address, uint64_t hash)
{
    size_t i = (size_t)hash & (f->n_slots - 1);

    while (f->tags[i] != 0 &&
           (f->tags[i] != tag_of(hash) || !span_equal(span_str(text_of(f, i)), address)))
        i = (i + 1) & (f->n_slots - 1);
    return i;
}

static uint64_t
hash_of(const struct dir_file *f, struct span address)
{
    return siphash64(&f->key, address.p, address.n);
}

static void
fill_slot(struct dir_file *f, size_t slot, uint64_t hash, uint32_t text)
{
    f->tags[slot] = tag_of(hash);
    f->texts[slot] = text;
}

static int
grow_slots(struct dir_file *f)
{
    struct dir_file bigger = *f;

    bigger.n_slots = f->n_slots == 0 ? 64 : f->n_slots * 2;
    bigger.tags = calloc(bigger.n_slots, sizeof *bigger.tags);
    bigger.texts = calloc(bigger.n_slots, sizeof *bigger.texts);
    if (!bigger.tags || !bigger.texts) {
        free(bigger.tags);
        free(bigger.texts);
        return -1;
    }
    for (size_t i = 0; i < f->n_slots; i++) {
        if (f->tags[i] == 0)
            continue;
        struct span address = span_str(text_of(f, i));
        uint64_t hash = hash_of(f, address);
        fill_slot(&bigger, slot_of(&bigger, address, hash), hash, f->texts[i]);
    }
    free(f->tags);
    free(f->texts);
    *f = bigger;
    return 0;
}

/* -1 when memory is out, or over 4 GiB. */
static int
add(struct dir_file *f, const char *address, size_t n)
{
    uint64_t hash = hash_of(f, span_of(address, n));
    size_t slot;

    if ((f->count + 1) * 2 > f->n_slots && grow_slots(f) < 0)
        return -1;
    slot = slot_of(f, span_of(address, n), hash);
    if (f->tags[slot] != 0)
        return 0;
    if (f->n_text + n + 1 > f->text_capacity) {
        size_t capacity = f->text_capacity * 2 + 4096;
        char *text = capacity < UINT32_MAX ? realloc(f->text, capacity) : NULL;

        if (!text)
            return -1;
        f->text = text;
        f->text_capacity = capacity;
    }
    memcpy(f->text + f->n_text, address, n);
    f->text[f->n_text + n] = '\0';
    fill_slot(f, slot, hash, (uint32_t)f->n_text);
    f->n_text += n + 1;
    f->count++;
    f->has_domains |= address[0] == '@';
    return 0;
}

/* A '#' starts a comment at the start of a line or after a blank: it may stand within a local part.
 */
static struct span
without_comment(struct span line)
{
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] == '#' && (i == 0 || line.p[i - 1] == ' ' || line.p[i - 1] == '\t'))
            return span_of(line.p, i);
    return line;
}

/* Without quotes these are in no local part (RFC 5321 4.1.2): a list of proxyAddresses has
 * "smtp:" before each, one of another format commas. */
static bool
has_specials(struct span local)
{
    if (local.n > 0 && local.p[0] == '"')
        return false;
    for (size_t i = 0; i < local.n; i++)
        if (strchr("()<>[]:;@\\,\"", local.p[i]) != NULL)
            return true;
    return false;
}

enum line_fate { LINE_TAKEN, LINE_NO_ADDRESS, LINE_NO_MEMORY };

static enum line_fate
add_line(struct dir_file *f, struct span line)
{
    char address[DIR_ADDRESS_MAX + 1];
    size_t n;

    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    line = span_trim(without_comment(line));
    if (line.n == 0)
        return LINE_TAKEN;
    n = dir_address_canonical(line, address);
    size_t domain = dir_address_at(span_of(address, n)) + 1;
    /* A line that can match nobody, such as one in angle brackets, is no address. */
    if (n == 0 || !value_is_domain(span_of(address + domain, n - domain)) ||
        has_specials(span_of(address, domain - 1)))
        return LINE_NO_ADDRESS;
    return add(f, address, n) < 0 ? LINE_NO_MEMORY : LINE_TAKEN;
}

static int
bad_lines(const char *path, size_t first, size_t n, struct err *e)
{
    err_set(e, ERR_CONFIG, "%s:%zu: neither an address nor @domain", path, first);
    if (n > 1 && e)
        err_set(e, ERR_CONFIG, "%s (%zu more such)", e->text, n - 1);
    return -1;
}

static int
read_lines(struct dir_file *f, FILE *in, const char *path, struct err *e)
{
    char *line = NULL;
    size_t capacity = 0, number = 0, n_bad = 0, first_bad = 0;
    ssize_t n;
    int rc = 0;

    errno = 0;
    while (rc == 0 && (n = getline(&line, &capacity, in)) >= 0) {
        struct span text = span_of(line, (size_t)n);

        if (n > 0 && line[n - 1] == '\n')
            text.n--;
        if (++number == 1 && text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0)
            text = span_of(text.p + 3, text.n - 3); /* Windows' editors begin UTF-8 so */
        enum line_fate fate = add_line(f, text);
        if (fate == LINE_NO_MEMORY)
            rc = err_set(e, ERR_SYSTEM, "%s: out of memory", path);
        else if (fate == LINE_NO_ADDRESS && n_bad++ == 0)
            first_bad = number;
    }
    if (rc == 0 && !feof(in))
        rc = err_errno(e, ERR_CONFIG, errno, "%s", path);
    else if (rc == 0 && n_bad > 0)
        rc = bad_lines(path, first_bad, n_bad, e);
    free(line);
    return rc;
}

struct dir_file *
dir_file_load(const char *path, struct err *e)
{
    struct dir_file *f;
    FILE *in = fopen(path, "re");

    if (!in) {
        err_errno(e, ERR_CONFIG, errno, "%s", path);
        return NULL;
    }
    f = calloc(1, sizeof *f);
    if (!f)
        err_set(e, ERR_SYSTEM, "%s: out of memory", path);
    if (f) {
        f->key = siphash_key_random();
        if (grow_slots(f) < 0) {
            err_set(e, ERR_SYSTEM, "%s: out of memory", path);
            dir_file_free(&f);
        } else if (read_lines(f, in, path, e) < 0) {
            dir_file_free(&f);
        }
    }
    fclose(in);
    return f;
}

void
dir_file_free(struct dir_file **f)
{
    if (!*f)
        return;
    free((*f)->tags);
    free((*f)->texts);
    free((*f)->text);
    free(*f);
    *f = NULL;
}

static bool
has(const struct dir_file *f, struct span address)
{
    return f->tags[slot_of(f, address, hash_of(f, address))] != 0;
}

bool
dir_file_has(const struct dir_file *f, struct span address)
{
    size_t at;

    if (has(f, address))
        return true;
    if (!f->has_domains)
        return false;
    at = dir_address_at(address);
    return at < address.n && has(f, span_of(address.p + at, address.n - at));
}

size_t
dir_file_count(const struct dir_file *f)
{
    return f->count;
}

#include "ldap/dir_gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ldap.h>

/* The shortest LDAPMessage: its tag and length, a message ID of one octet, and an operation without
 * content.  So many octets contain the whole head, and can be read before the length is known. */
#define SHORTEST  7u
#define KEPT_MAX  16384u                    /* a larger buffer is freed after its message */
#define SYNC_OIDS "1.3.6.1.4.1.4203.1.9.1." /* RFC 4533 2 */

enum {
    TAG_BOOLEAN = 0x01,
    TAG_NUMBER = 0x02,
    TAG_OCTETS = 0x04,
    TAG_SEQUENCE = 0x30,
    TAG_CONTROLS = 0xa0,
    TAG_EXTENDED = 0x78,
    TAG_INTERMEDIATE = 0x79,
    TAG_EXTENDED_NAME = 0x8a,
    TAG_INTERMEDIATE_NAME = 0x80,
    TAG_INTERMEDIATE_VALUE = 0x81
};

/* Soundness. */

struct element {
    unsigned tag;
    struct span value;
};

/* The lengths in octets of the head and of the value of the BER element at P, of which N octets are
 * there.  False if LDAP does not allow it (RFC 4511 5.1: definite lengths only), or if its head is
 * not complete. */
static bool
read_head(const uint8_t *p, size_t n, size_t *head, size_t *value)
{
    size_t octets;

    if (n < 2 || (p[0] & 0x1f) == 0x1f)
        return false;
    octets = p[1] < 0x80 ? 0 : p[1] & 0x7fu;
    if (p[1] == 0x80 || octets > 4 || n < 2 + octets)
        return false;
    *head = 2 + octets;
    *value = octets == 0 ? p[1] : 0;
    for (size_t i = 0; i < octets; i++)
        *value = *value << 8 | p[2 + i];
    return true;
}

static bool
next_element(struct span *rest, struct element *e)
{
    const uint8_t *p = (const uint8_t *)rest->p;
    size_t head, value;

    if (!read_head(p, rest->n, &head, &value) || value > rest->n - head)
        return false;
    *e = (struct element){p[0], span_of(rest->p + head, value)};
    *rest = span_of(rest->p + head + value, rest->n - head - value);
    return true;
}

static bool
is_sound_extended(struct span fields)
{
    struct element e;

    while (fields.n > 0)
        if (!next_element(&fields, &e) || (e.tag == TAG_EXTENDED_NAME && e.value.n == 0))
            return false;
    return true;
}

static bool
is_sound_intermediate(struct span fields)
{
    struct element name, value;

    return next_element(&fields, &name) && name.tag == TAG_INTERMEDIATE_NAME && name.value.n > 0 &&
           next_element(&fields, &value) && value.tag == TAG_INTERMEDIATE_VALUE &&
           value.value.n > 0;
}

/* Is it a control whose value is used?  Only the beginning of the name is compared, since libldap
 * does not see what follows a NUL in it. */
static bool
is_read(struct span name)
{
    return span_starts_nocase(name, SYNC_OIDS) ||
           span_starts_nocase(name, LDAP_CONTROL_PAGEDRESULTS);
}

static bool
is_sound_control(struct span fields)
{
    struct element name, e = {.tag = 0};

    if (!next_element(&fields, &name))
        return false;
    if (!is_read(name.value))
        return true;
    if (next_element(&fields, &e) && e.tag == TAG_BOOLEAN && !next_element(&fields, &e))
        return false;
    return e.tag == TAG_OCTETS && e.value.n > 0;
}

static bool
are_sound_controls(struct span list)
{
    struct element control;

    while (list.n > 0)
        if (!next_element(&list, &control) || control.tag != TAG_SEQUENCE ||
            !is_sound_control(control.value))
            return false;
    return true;
}

bool
dir_gate_is_sound(struct span message)
{
    struct element whole, number, operation, controls;

    if (!next_element(&message, &whole) || whole.tag != TAG_SEQUENCE || message.n > 0 ||
        !next_element(&whole.value, &number) || number.tag != TAG_NUMBER ||
        !next_element(&whole.value, &operation) ||
        (operation.tag == TAG_EXTENDED && !is_sound_extended(operation.value)) ||
        (operation.tag == TAG_INTERMEDIATE && !is_sound_intermediate(operation.value)))
        return false;
    if (whole.value.n == 0)
        return true;
    return next_element(&whole.value, &controls) && whole.value.n == 0 &&
           (controls.tag != TAG_CONTROLS || are_sound_controls(controls.value));
}

/* The layer of libldap's socket. */

struct gate {
    uint8_t *octets; /* of the current message */
    size_t capacity, n;
    size_t size;  /* of the whole message; 0: not known yet */
    size_t given; /* to the reader, once the message is complete */
    bool is_shut; /* an unsound message was seen: every read fails */
};

static int
refuse(struct gate *g)
{
    g->is_shut = true;
    errno = EPROTO;
    return -1;
}

/* Take the size of the message from its head. */
static int
take_size(struct gate *g)
{
    size_t head, value;

    if (!read_head(g->octets, g->n, &head, &value) || value > DIR_GATE_MESSAGE_MAX ||
        head + value < SHORTEST)
        return refuse(g);
    g->size = head + value;
    return 0;
}

static int
reserve(struct gate *g, size_t capacity)
{
    uint8_t *octets = capacity > g->capacity ? realloc(g->octets, capacity) : g->octets;

    if (octets == NULL)
        return -1; /* with errno set */
    if (capacity > g->capacity)
        g->capacity = capacity;
    g->octets = octets;
    return 0;
}

/* Read until there are UP_TO octets.  1, or what the layer below returned (0: end of file). */
static ber_slen_t
fill(Sockbuf_IO_Desc *layer, struct gate *g, size_t up_to)
{
    if (reserve(g, up_to) < 0)
        return -1;
    while (g->n < up_to) {
        ber_slen_t n = LBER_SBIOD_READ_NEXT(layer, g->octets + g->n, up_to - g->n);
        if (n <= 0)
            return n;
        g->n += (size_t)n;
    }
    return 1;
}

/* Read one message and check it.  Never beyond its end: what follows the response to StartTLS
 * belongs to TLS.  Returns as fill. */
static ber_slen_t
take_message(Sockbuf_IO_Desc *layer, struct gate *g)
{
    ber_slen_t rc = g->size == 0 ? fill(layer, g, SHORTEST) : 1;

    if (rc > 0 && g->size == 0 && take_size(g) < 0)
        return -1;
    if (rc > 0)
        rc = fill(layer, g, g->size);
    if (rc > 0 && !dir_gate_is_sound(span_of((const char *)g->octets, g->size)))
        return refuse(g);
    return rc;
}

static void
forget_message(struct gate *g)
{
    if (g->capacity > KEPT_MAX) {
        free(g->octets);
        g->octets = NULL;
        g->capacity = 0;
    }
    g->n = g->size = g->given = 0;
}

static bool
is_whole(const struct gate *g)
{
    return g->size > 0 && g->n == g->size;
}

static ber_slen_t
gate_read(Sockbuf_IO_Desc *layer, void *out, ber_len_t capacity)
{
    struct gate *g = layer->sbiod_pvt;
    ber_slen_t rc = g->is_shut ? refuse(g) : is_whole(g) ? 1 : take_message(layer, g);
    size_t n;

    if (rc <= 0)
        return rc;
    n = g->size - g->given < capacity ? g->size - g->given : capacity;
    memcpy(out, g->octets + g->given, n);
    g->given += n;
    if (g->given == g->size)
        forget_message(g);
    return (ber_slen_t)n;
}

static ber_slen_t
gate_write(Sockbuf_IO_Desc *layer, void *octets, ber_len_t n)
{
    return LBER_SBIOD_WRITE_NEXT(layer, octets, n);
}

static int
gate_control(Sockbuf_IO_Desc *layer, int option, void *value)
{
    if (option == LBER_SB_OPT_DATA_READY && is_whole(layer->sbiod_pvt))
        return 1;
    return LBER_SBIOD_CTRL_NEXT(layer, option, value);
}

static int
gate_setup(Sockbuf_IO_Desc *layer, void *arg)
{
    (void)arg;
    layer->sbiod_pvt = calloc(1, sizeof(struct gate));
    return layer->sbiod_pvt != NULL ? 0 : -1;
}

static int
gate_remove(Sockbuf_IO_Desc *layer)
{
    struct gate *g = layer->sbiod_pvt;

    if (g != NULL)
        free(g->octets);
    free(g);
    layer->sbiod_pvt = NULL;
    return 0;
}

static Sockbuf_IO gate_layer = {.sbi_setup = gate_setup,
                                .sbi_remove = gate_remove,
                                .sbi_ctrl = gate_control,
                                .sbi_read = gate_read,
                                .sbi_write = gate_write};

int
dir_gate_add(Sockbuf *sb)
{
    return ber_sockbuf_add_io(sb, &gate_layer, LBER_SBIOD_LEVEL_APPLICATION, NULL);
}

int
dir_gate_raise(Sockbuf *sb)
{
    (void)ber_sockbuf_remove_io(sb, &gate_layer, LBER_SBIOD_LEVEL_APPLICATION);
    return dir_gate_add(sb);
}

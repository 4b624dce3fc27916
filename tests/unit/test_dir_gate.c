#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ldap/dir_gate.h"

#define OCTETS(text)                                                                               \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }

/* Messages number 5 (an entry's, a result's, ...), and whether libldap may have them. */
static const struct {
    const char *what;
    struct span message;
    bool is_sound;
} rows[] = {
    {"unbind, the shortest", OCTETS("\x30\x05\x02\x01\x05\x42\x00"), true},
    {"result", OCTETS("\x30\x0c\x02\x01\x05\x65\x07\x0a\x01\x00\x04\x00\x04\x00"), true},
    {"long lengths",
     OCTETS("\x30\x84\x00\x00\x00\x10\x02\x01\x05\x65\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04"
            "\x00"),
     true},
    {"no content", OCTETS("\x30\x00"), false},
    {"no number", OCTETS("\x30\x05\x65\x03\x0a\x01\x00"), false},
    {"no operation", OCTETS("\x30\x03\x02\x01\x05"), false},
    {"another tag", OCTETS("\x31\x05\x02\x01\x05\x42\x00"), false},
    {"an operation beyond its end", OCTETS("\x30\x05\x02\x01\x05\x42\x01"), false},
    {"no definite length", OCTETS("\x30\x80\x02\x01\x05\x42\x00"), false},
    {"a length of five octets", OCTETS("\x30\x85\x00\x00\x00\x00\x05\x02\x01\x05\x42\x00"), false},
    {"a long tag", OCTETS("\x30\x06\x02\x01\x05\x5f\x01\x00"), false},

    {"extended, a name",
     OCTETS("\x30\x0f\x02\x01\x05\x78\x0a\x0a\x01\x00\x04\x00\x04\x00\x8a\x01"
            "1"),
     true},
    {"extended, none", OCTETS("\x30\x0c\x02\x01\x05\x78\x07\x0a\x01\x00\x04\x00\x04\x00"), true},
    {"extended, an empty name",
     OCTETS("\x30\x0e\x02\x01\x05\x78\x09\x0a\x01\x00\x04\x00\x04\x00\x8a\x00"), false},
    {"notice of disconnection, an empty name",
     OCTETS("\x30\x0e\x02\x01\x00\x78\x09\x0a\x01\x34\x04\x00\x04\x00\x8a\x00"), false},
    {"extended, half a field", OCTETS("\x30\x06\x02\x01\x05\x78\x01\x0a"), false},

    {"intermediate", OCTETS("\x30\x0b\x02\x01\x05\x79\x06\x80\x01\x31\x81\x01\x80"), true},
    {"intermediate, nothing", OCTETS("\x30\x05\x02\x01\x05\x79\x00"), false},
    {"intermediate, an empty name", OCTETS("\x30\x0a\x02\x01\x05\x79\x05\x80\x00\x81\x01\x80"),
     false},
    {"intermediate, no value", OCTETS("\x30\x08\x02\x01\x05\x79\x03\x80\x01\x31"), false},
    {"intermediate, an empty value", OCTETS("\x30\x0a\x02\x01\x05\x79\x05\x80\x01\x31\x81\x00"),
     false},

    {"a control", OCTETS("\x30\x0c\x02\x01\x05\x42\x00\xa0\x05\x30\x03\x04\x01\x31"), true},
    {"no name of a control", OCTETS("\x30\x09\x02\x01\x05\x42\x00\xa0\x02\x30\x00"), false},
    {"sync state",
     OCTETS("\x30\x27\x02\x01\x05\x42\x00\xa0\x20\x30\x1e\x04\x18"
            "1.3.6.1.4.1.4203.1.9.1.2"
            "\x04\x02\x30\x00"),
     true},
    {"sync state, critical",
     OCTETS("\x30\x2a\x02\x01\x05\x42\x00\xa0\x23\x30\x21\x04\x18"
            "1.3.6.1.4.1.4203.1.9.1.2"
            "\x01\x01\xff\x04\x02\x30\x00"),
     true},
    {"sync state, no value",
     OCTETS("\x30\x23\x02\x01\x05\x42\x00\xa0\x1c\x30\x1a\x04\x18"
            "1.3.6.1.4.1.4203.1.9.1.2"),
     false},
    {"sync state, critical, no value",
     OCTETS("\x30\x26\x02\x01\x05\x42\x00\xa0\x1f\x30\x1d\x04\x18"
            "1.3.6.1.4.1.4203.1.9.1.2"
            "\x01\x01\xff"),
     false},
    {"sync done, an empty value",
     OCTETS("\x30\x25\x02\x01\x05\x42\x00\xa0\x1e\x30\x1c\x04\x18"
            "1.3.6.1.4.1.4203.1.9.1.3"
            "\x04\x00"),
     false},
    {"paging",
     OCTETS("\x30\x27\x02\x01\x05\x42\x00\xa0\x20\x30\x1e\x04\x16"
            "1.2.840.113556.1.4.319"
            "\x04\x04\x30\x02\x04\x00"),
     true},
    {"paging, an empty value",
     OCTETS("\x30\x23\x02\x01\x05\x42\x00\xa0\x1c\x30\x1a\x04\x16"
            "1.2.840.113556.1.4.319"
            "\x04\x00"),
     false},
    {"paging, another thing for a value",
     OCTETS("\x30\x28\x02\x01\x05\x42\x00\xa0\x21\x30\x1f\x04\x16"
            "1.2.840.113556.1.4.319"
            "\x02\x01\x00\x04\x02\x30\x00"),
     false},
    {"paging for who reads on behind a NUL",
     OCTETS("\x30\x25\x02\x01\x05\x42\x00\xa0\x1e\x30\x1c\x04\x18"
            "1.2.840.113556.1.4.319"
            "\x00"
            "1\x04\x00"),
     false},
    {"another's, an empty value",
     OCTETS("\x30\x0e\x02\x01\x05\x42\x00\xa0\x07\x30\x05\x04\x01\x31"
            "\x04\x00"),
     true},
    {"something else behind the operation", OCTETS("\x30\x07\x02\x01\x05\x42\x00\x04\x00"), true},
};

static void
tells_what_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (dir_gate_is_sound(rows[i].message) != rows[i].is_sound)
            fail_msg("%s", rows[i].what);
    assert_false(dir_gate_is_sound((struct span)OCTETS("\x30\x05\x02\x01\x05\x42\x00\x00")));
}

/* None that is cut short is sound. */
static void
takes_no_half_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t n = 0; rows[i].is_sound && n < rows[i].message.n; n++)
            assert_false(dir_gate_is_sound(span_of(rows[i].message.p, n)));
}

/* A gate on one end of a pair of sockets. */
struct line {
    Sockbuf *sb;
    int far;
};

static struct line
line_new(void)
{
    struct line l = {.sb = ber_sockbuf_alloc()};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(ber_sockbuf_ctrl(l.sb, LBER_SB_OPT_SET_FD, &fds[0]), 1);
    /* As libldap does it: the gate first. */
    assert_int_equal(dir_gate_add(l.sb), 0);
    assert_int_equal(ber_sockbuf_add_io(l.sb, &ber_sockbuf_io_tcp, LBER_SBIOD_LEVEL_PROVIDER, NULL),
                     0);
    l.far = fds[1];
    return l;
}

static void
line_free(struct line *l)
{
    ber_sockbuf_free(l->sb);
    close(l->far);
}

static void
line_send(const struct line *l, struct span octets)
{
    assert_int_equal(write(l->far, octets.p, octets.n), octets.n);
}

/* What libldap makes of what is there: the tag of a message, or -1. */
static long
line_next(const struct line *l)
{
    BerElement *ber = ber_alloc_t(LBER_USE_DER);
    ber_len_t n;
    ber_tag_t tag = ber_get_next(l->sb, &n, ber);

    ber_free(ber, 1);
    return tag == LBER_DEFAULT ? -1 : (long)tag;
}

/* What is still in the socket. */
static ssize_t
line_rest(const struct line *l)
{
    char octets[64];
    int fd = -1;

    assert_int_equal(ber_sockbuf_ctrl(l->sb, LBER_SB_OPT_GET_FD, &fd), 1);
    return recv(fd, octets, sizeof octets, MSG_PEEK | MSG_DONTWAIT);
}

static void
lets_sound_messages_through(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct line l = line_new();

        line_send(&l, rows[i].message);
        if (rows[i].message.n >= 7)
            assert_int_equal(line_next(&l), rows[i].is_sound ? 0x30 : -1);
        line_free(&l);
    }
}

static void
is_shut_behind_one_that_is_not(void **state)
{
    struct line l = line_new();

    (void)state;
    line_send(&l,
              span_of("\x30\x05\x02\x01\x05\x79\x00", sizeof "\x30\x05\x02\x01\x05\x79\x00" - 1));
    line_send(&l,
              span_of("\x30\x05\x02\x01\x05\x42\x00", sizeof "\x30\x05\x02\x01\x05\x42\x00" - 1));
    assert_int_equal(line_next(&l), -1);
    assert_int_equal(errno, EPROTO);
    assert_int_equal(line_next(&l), -1);
    line_free(&l);
}

/* What stands behind a message is left where it is: behind StartTLS's answer it is TLS's. */
static void
reads_no_further_than_a_message(void **state)
{
    struct span message = OCTETS("\x30\x0c\x02\x01\x05\x65\x07\x0a\x01\x00\x04\x00\x04\x00");
    struct line l = line_new();

    (void)state;
    line_send(&l, message);
    line_send(&l, span_of("\x16\x03\x01", sizeof "\x16\x03\x01" - 1));
    assert_int_equal(line_next(&l), 0x30);
    assert_int_equal(line_rest(&l), 3);
    assert_false(ber_sockbuf_ctrl(l.sb, LBER_SB_OPT_DATA_READY, NULL));
    line_free(&l);
}

/* Octet by octet. */
static void
waits_for_the_whole(void **state)
{
    struct span message = OCTETS("\x30\x0c\x02\x01\x05\x65\x07\x0a\x01\x00\x04\x00\x04\x00");
    struct line l = line_new();
    BerElement *ber = ber_alloc_t(LBER_USE_DER);
    ber_len_t size = 0;

    (void)state;
    for (size_t i = 0; i + 1 < message.n; i++) {
        line_send(&l, span_of(message.p + i, 1));
        assert_int_equal(ber_get_next(l.sb, &size, ber), LBER_DEFAULT);
        assert_int_equal(errno, EAGAIN);
    }
    line_send(&l, span_of(message.p + message.n - 1, 1));
    assert_int_equal(ber_get_next(l.sb, &size, ber), 0x30);
    assert_int_equal(size, message.n - 2);
    ber_free(ber, 1);
    line_free(&l);
}

static void
takes_what_is_too_long_for_garbage(void **state)
{
    struct line l = line_new();

    (void)state;
    line_send(&l, span_of("\x30\x84\x02\x00\x00\x01\x02\x01\x05",
                          sizeof "\x30\x84\x02\x00\x00\x01\x02\x01\x05" - 1));
    assert_int_equal(line_next(&l), -1);
    assert_int_equal(errno, EPROTO);
    line_free(&l);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_what_is_sound),
        cmocka_unit_test(takes_no_half_message),
        cmocka_unit_test(lets_sound_messages_through),
        cmocka_unit_test(is_shut_behind_one_that_is_not),
        cmocka_unit_test(reads_no_further_than_a_message),
        cmocka_unit_test(waits_for_the_whole),
        cmocka_unit_test(takes_what_is_too_long_for_garbage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

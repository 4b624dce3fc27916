#ifndef TESTS_FUZZ_MAIL_WORLD_H
#define TESTS_FUZZ_MAIL_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/fuzz/require.h"

/* One worker, driven by hand in this thread, between a client on a socketpair and a downstream on
 * loopback TCP: what the fuzzers of whole sessions play in.  All that is called aborts on failure.
 */

/* The downstream's side: octets that have come over connection C.  Answer by world_say. */
struct world_connection;
struct world_downstream {
    void (*connected)(struct world_connection *c);
    void (*heard)(struct world_connection *c, const uint8_t *p, size_t n);
};

/* What the session works under. */
enum world_kind {
    WORLD_PLAIN,
    WORLD_STRICT,  /* bare LF and loops are refused, unknown recipients at DATA; no reports */
    WORLD_MONITOR, /* the same, but verdicts on recipients are only logged */
    WORLD_SEALED,  /* no mail without TLS; messages go to files */
    WORLD_KINDS
};
/* Make it, at the first call; then put the host up again, as offering CAPABILITIES (SMTP_CAP_BIT).
 */
void world_open(enum world_kind kind, const struct world_downstream *downstream,
                uint32_t capabilities);
/* A client connects from 127.0.0.LAST: .5 speaks PROXY first, .6 may use XCLIENT. */
void world_connect(uint8_t last);
/* The client's handshake, after the reply to STARTTLS; from then on all it sends and hears is in
 * TLS.  False when it fails. */
bool world_start_tls(void);
bool world_is_tls(void);
/* The client sends; what the session says to it is heard meanwhile. */
void world_send(const uint8_t *p, size_t n);
/* Let all turns be taken until nobody has anything more to do at once. */
void world_settle(void);
/* What the session has said to the client so far; NUL behind it. */
const char *world_heard(void);
bool world_is_open(void); /* the session has not ended the connection */
/* The client goes; the session must end.  Every line logged so far is an event and its pairs, in
 * the contract's quotes. */
void world_disconnect(void);

void world_say(struct world_connection *c, const uint8_t *p, size_t n);
void world_hang_up(struct world_connection *c);
void *world_state(struct world_connection *c, size_t n); /* N octets of the fuzzer's own, zeroed */
/* End all connections of the downstream. */
void world_hang_up_all(void);

#endif

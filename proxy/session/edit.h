#ifndef PROXY_SESSION_EDIT_H
#define PROXY_SESSION_EDIT_H

#include <stdbool.h>

#include <openssl/ssl.h>

#include "base/netaddr.h"
#include "conf/settings.h"
#include "proxy/relay/host.h"
#include "proxy/relay/message.h"

/* What is done to a complete message before it is handed over: loops are found, fields that a
 * stranger has no right to are taken out, the sender's domain's rules are applied, our Received is
 * put on top. */

struct edit {
    const struct settings *settings;
    const struct netaddr *client;
    const char *helo;
    const char *id; /* SESSION.N */
    bool is_esmtp;
    const SSL *ssl;      /* NULL: in the clear */
    struct route *route; /* where it goes: does it offer DSN? */
    bool is_proven;      /* SPF says the sender is who he says he is */
};

enum edit_verdict { EDIT_OK, EDIT_LOOP, EDIT_FAILED /* memory is out */ };

enum edit_verdict edit_message(struct message *m, const struct edit *edit);

#endif

#ifndef CONF_VALUE_H
#define CONF_VALUE_H

#include "conf/settings.h"

/* Texts of the configuration into values. Pure.  Each returns NULL, or what is wrong, for a message
 * after "KEY: ".  What a value allocates belongs to the caller, on failure nothing does. */

const char *value_duration(const char *text, int64_t *ms);  /* 500ms 30s 10m 1h 7d */
const char *value_size(const char *text, uint64_t *octets); /* 65536 64K 25M 1G */
const char *value_int(const char *text, int64_t *n);
const char *value_bool(const char *text, bool *b); /* yes no */
const char *value_ratio(const char *text, double *d);
const char *value_list(const char *text, struct str_list *l);         /* comma-separated */
const char *value_networks(const char *text, struct network_list *l); /* CIDR or addresses */
const char *value_hosts(const char *text,
                        struct host_list *l); /* HOST[:PORT] [weight=N], default port 25 */
const char *value_listen(const char *text, struct listen_list *l); /* ADDRESS:PORT */
/* HOST:PORT, [ADDRESS]:PORT; DEFAULT_PORT 0: a port must stand there.  HOST is copied without
 * brackets. */
const char *value_host_port(struct span text, uint16_t default_port, char *host, size_t n,
                            uint16_t *port);

void str_list_clear(struct str_list *l);
void network_list_clear(struct network_list *l);
void host_list_clear(struct host_list *l);
void listen_list_clear(struct listen_list *l);

#endif

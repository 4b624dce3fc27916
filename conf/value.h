#ifndef CONF_VALUE_H
#define CONF_VALUE_H

#include "conf/settings.h"

/* Texts of the configuration into values.  Pure.  Each returns NULL, or what is wrong, to stand
 * after "KEY = TEXT: ".  What a value allocates belongs to the caller; on failure it is empty. */

const char *value_duration(const char *text, int64_t *ms);  /* 500ms 30s 10m 1h 7d */
const char *value_size(const char *text, uint64_t *octets); /* 65536 64K 25M 1G */
const char *value_int(const char *text, int *n);            /* 0 and up */
const char *value_bool(const char *text, bool *b);          /* yes no */
const char *value_ratio(const char *text, double *d);       /* 0.5 */
/* Separated by commas; the empty text is the empty list, an empty item a fault. */
const char *value_list(const char *text, struct str_list *l);
const char *value_networks(const char *text, struct network_list *l); /* CIDR, or an address */
const char *value_hosts(const char *text, struct host_list *l);       /* HOST[:PORT] [weight=N] */
const char *value_listen(const char *text, struct listen_list *l);    /* ADDRESS:PORT */
const char *value_zones(const char *text, struct zone_list *l);       /* ZONE[=127.0.0.[2;4..8]] */
/* HOST, HOST:PORT, [ADDRESS]:PORT; DEFAULT_PORT 0: a port must stand there.  HOST, of N octets,
 * gets it without brackets. */
const char *value_host_port(struct span text, uint16_t default_port, char *host, size_t n,
                            uint16_t *port);
/* Labels of letters, digits, - and _, with dots between. */
bool value_is_domain(struct span s);

void str_list_clear(struct str_list *l);
void network_list_clear(struct network_list *l);
void host_list_clear(struct host_list *l);
void listen_list_clear(struct listen_list *l);
void zone_list_clear(struct zone_list *l);

/* The other way, as one would write it.  OUT has VALUE_TEXT octets. */
#define VALUE_TEXT 24
void value_write_duration(char out[VALUE_TEXT], int64_t ms);
void value_write_size(char out[VALUE_TEXT], uint64_t octets);

#endif

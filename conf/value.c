#include "conf/value.h"

#include <stdlib.h>
#include <string.h>

static const char out_of_memory[] = "out of memory";

/* --- numbers --- */

struct unit {
    const char *name;
    uint64_t factor;
};

/* From the smallest to the largest. */
static const struct unit duration_units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                             {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
static const struct unit size_units[] = {
    {"", 1}, {"K", 1024}, {"M", 1048576}, {"G", 1073741824}, {NULL, 0}};

/* A decimal number and a unit, up to INT64_MAX. */
static bool
parse_scaled(const char *text, const struct unit *units, uint64_t *value)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t n;

    if (!span_u64(span_of(text, digits), INT64_MAX, &n))
        return false;
    for (; units->name != NULL; units++) {
        if (strcmp(text + digits, units->name) == 0) {
            *value = n * units->factor;
            return n <= (uint64_t)INT64_MAX / units->factor;
        }
    }
    return false;
}

static void
write_scaled(char out[VALUE_TEXT], const struct unit *units, uint64_t value)
{
    const struct unit *best = units;

    for (; units->name != NULL && value != 0; units++)
        if (value % units->factor == 0)
            best = units;
    snprintf(out, VALUE_TEXT, "%llu%s", (unsigned long long)(value / best->factor), best->name);
}

const char *
value_duration(const char *text, int64_t *ms)
{
    uint64_t value = 0;

    if (!parse_scaled(text, duration_units, &value))
        return "not a duration such as 500ms, 30s, 10m, 1h or 7d";
    *ms = (int64_t)value;
    return NULL;
}

const char *
value_size(const char *text, uint64_t *octets)
{
    return parse_scaled(text, size_units, octets) ? NULL
                                                  : "not a size such as 65536, 64K, 25M or 1G";
}

void
value_write_duration(char out[VALUE_TEXT], int64_t ms)
{
    write_scaled(out, duration_units + (ms == 0), (uint64_t)ms);
}

void
value_write_size(char out[VALUE_TEXT], uint64_t octets)
{
    write_scaled(out, size_units, octets);
}

const char *
value_int(const char *text, int *n)
{
    uint64_t value;

    if (!span_u64(span_str(text), INT32_MAX, &value))
        return "not a whole number, 0 or more";
    *n = (int)value;
    return NULL;
}

const char *
value_bool(const char *text, bool *b)
{
    *b = strcmp(text, "yes") == 0;
    return *b || strcmp(text, "no") == 0 ? NULL : "neither yes nor no";
}

const char *
value_ratio(const char *text, double *d)
{
    static const char wrong[] = "not a number such as 0.5";
    size_t n = strcspn(text, ".");
    uint64_t whole, part = 0;
    double scale = 1;

    if (!span_u64(span_of(text, n), 1000, &whole))
        return wrong;
    if (text[n] == '.') {
        struct span digits = span_str(text + n + 1);
        if (digits.n > 9 || !span_u64(digits, INT32_MAX, &part))
            return wrong;
        for (size_t i = 0; i < digits.n; i++)
            scale *= 10;
    }
    *d = (double)whole + (double)part / scale;
    return NULL;
}

/* --- lists --- */

typedef const char *parse_item_fn(struct span item, void *slot);

/* A list of N elements of SIZE octets in *V; when something is wrong, those before it. */
static const char *
parse_items(const char *text, size_t size, parse_item_fn *parse, void **v, size_t *n)
{
    struct span rest = span_trim(span_str(text)), item;
    const char *wrong = NULL;

    *v = NULL;
    *n = 0;
    if (rest.n == 0)
        return NULL;
    while (wrong == NULL && span_next(&rest, ',', &item)) {
        item = span_trim(item);
        if (item.n == 0)
            return "an empty item in the list";
        char *grown = realloc(*v, (*n + 1) * size);
        if (grown == NULL)
            return out_of_memory;
        *v = grown;
        wrong = parse(item, grown + *n * size);
        if (wrong == NULL)
            (*n)++;
    }
    return wrong;
}

static const char *
parse_text(struct span item, void *slot)
{
    char *text = span_dup(item);

    memcpy(slot, &text, sizeof(text));
    return text != NULL ? NULL : out_of_memory;
}

void
str_list_clear(struct str_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
    *l = (struct str_list){NULL, 0};
}

const char *
value_list(const char *text, struct str_list *l)
{
    void *v;
    const char *wrong = parse_items(text, sizeof(*l->v), parse_text, &v, &l->n);

    l->v = v;
    if (wrong != NULL)
        str_list_clear(l);
    return wrong;
}

static const char *
parse_network(struct span item, void *slot)
{
    return network_parse(item, slot)
               ? NULL
               : "not an address, nor a network in CIDR form with no bits set behind the prefix";
}

void
network_list_clear(struct network_list *l)
{
    free(l->v);
    *l = (struct network_list){NULL, 0};
}

const char *
value_networks(const char *text, struct network_list *l)
{
    void *v;
    const char *wrong = parse_items(text, sizeof(*l->v), parse_network, &v, &l->n);

    l->v = v;
    if (wrong != NULL)
        network_list_clear(l);
    return wrong;
}

/* --- hosts and ports --- */

bool
value_is_domain(struct span s)
{
    size_t label = 0;

    for (size_t i = 0; i < s.n; i++) {
        char c = ascii_lower(s.p[i]);
        bool is_good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (is_good)
            label++;
        else if (c != '.' || label == 0)
            return false;
        else
            label = 0;
        if (label > 63)
            return false;
    }
    return label > 0 && s.n <= 253;
}

const char *
value_host_port(struct span text, uint16_t default_port, char *host, size_t n, uint16_t *port)
{
    const char *colon = text.n > 0 ? memchr(text.p, ':', text.n) : NULL;
    struct span name = text, rest;
    uint64_t value = default_port;

    if (text.n > 0 && text.p[0] == '[') {
        const char *end = memchr(text.p, ']', text.n);
        struct netaddr address;
        if (end == NULL)
            return "[ without ]";
        name = span_of(text.p + 1, (size_t)(end - text.p) - 1);
        if (!netaddr_parse(name, &address))
            return "no address in the brackets";
        rest = span_of(end + 1, text.n - name.n - 2);
        if (rest.n > 0 && rest.p[0] != ':')
            return "not HOST:PORT";
    } else {
        if (colon != NULL)
            name = span_of(text.p, (size_t)(colon - text.p));
        rest = span_of(text.p + name.n, text.n - name.n);
        if (!value_is_domain(name))
            return "not HOST:PORT (an IPv6 address stands in brackets)";
    }
    if (rest.n > 0 && !span_u64(span_of(rest.p + 1, rest.n - 1), 65535, &value))
        return "the port is not a number up to 65535 (an IPv6 address stands in brackets)";
    if (value == 0)
        return "no port";
    if (!span_copy(host, n, name))
        return "the name is too long";
    *port = (uint16_t)value;
    return NULL;
}

static const char *
parse_host(struct span item, void *slot)
{
    struct host_entry *entry = slot;
    char name[256];
    uint64_t weight = 1;
    size_t n = 0;

    while (n < item.n && item.p[n] != ' ' && item.p[n] != '\t')
        n++;
    struct span option = span_trim(span_of(item.p + n, item.n - n));
    if (option.n > 0 && (!span_starts_nocase(option, "weight=") ||
                         !span_u64(span_of(option.p + 7, option.n - 7), 1000, &weight)))
        return "only weight=N (0 to 1000) may follow a host";
    const char *wrong = value_host_port(span_of(item.p, n), 25, name, sizeof(name), &entry->port);
    if (wrong != NULL)
        return wrong;
    entry->weight = (int)weight;
    entry->name = span_dup(span_str(name));
    return entry->name != NULL ? NULL : out_of_memory;
}

void
host_list_clear(struct host_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].name);
    free(l->v);
    *l = (struct host_list){NULL, 0};
}

const char *
value_hosts(const char *text, struct host_list *l)
{
    void *v;
    const char *wrong = parse_items(text, sizeof(*l->v), parse_host, &v, &l->n);

    l->v = v;
    if (wrong != NULL)
        host_list_clear(l);
    return wrong;
}

static const char *
parse_listen(struct span item, void *slot)
{
    struct listen_entry *entry = slot;
    char host[64];
    const char *wrong = value_host_port(item, 0, host, sizeof(host), &entry->port);

    if (wrong == NULL && !netaddr_parse(span_str(host), &entry->address))
        wrong = "not ADDRESS:PORT";
    return wrong;
}

void
listen_list_clear(struct listen_list *l)
{
    free(l->v);
    *l = (struct listen_list){NULL, 0};
}

const char *
value_listen(const char *text, struct listen_list *l)
{
    void *v;
    const char *wrong = parse_items(text, sizeof(*l->v), parse_listen, &v, &l->n);

    l->v = v;
    if (wrong != NULL)
        listen_list_clear(l);
    return wrong;
}

/* --- zones --- */

/* RFC 5782 2.4: an IPv6 address in nibbles, of 64 octets, stands before the name of a zone. */
#define ZONE_MAX (253 - 64)

static bool
parse_octet(struct span s, uint8_t *octet)
{
    uint64_t value;

    if (!span_u64(s, 255, &value))
        return false;
    *octet = (uint8_t)value;
    return true;
}

/* N or [N..M]; takes it off *REST. */
static bool
parse_octets(struct span *rest, uint8_t *low, uint8_t *high)
{
    size_t n = 0;

    if (rest->n > 0 && rest->p[0] == '[') {
        const char *end = memchr(rest->p, ']', rest->n);
        const char *dots = end != NULL ? memchr(rest->p, '.', (size_t)(end - rest->p)) : NULL;
        if (dots == NULL || dots[1] != '.')
            return false;
        n = (size_t)(end - rest->p) + 1;
        if (!parse_octet(span_of(rest->p + 1, (size_t)(dots - rest->p) - 1), low) ||
            !parse_octet(span_of(dots + 2, (size_t)(end - dots) - 2), high) || *low > *high)
            return false;
    } else {
        while (n < rest->n && rest->p[n] != '.')
            n++;
        if (!parse_octet(span_of(rest->p, n), low))
            return false;
        *high = *low;
    }
    *rest = span_of(rest->p + n, rest->n - n);
    return true;
}

static bool
parse_answers(struct span text, struct zone_entry *zone)
{
    for (int i = 0; i < 4; i++) {
        if (i > 0) {
            if (text.n == 0 || text.p[0] != '.')
                return false;
            text = span_of(text.p + 1, text.n - 1);
        }
        if (!parse_octets(&text, &zone->low[i], &zone->high[i]))
            return false;
    }
    return text.n == 0 && zone->low[0] == 127 && zone->high[0] == 127;
}

static const char *
parse_zone(struct span item, void *slot)
{
    struct zone_entry *zone = slot;
    const char *equals = memchr(item.p, '=', item.n);
    struct span name = equals != NULL ? span_of(item.p, (size_t)(equals - item.p)) : item;

    *zone = (struct zone_entry){.low = {127, 0, 0, 0}, .high = {127, 255, 255, 255}};
    if (name.n > 0 && name.p[name.n - 1] == '.')
        name.n--;
    if (!value_is_domain(name) || name.n > ZONE_MAX)
        return "not the name of a zone";
    if (equals != NULL &&
        !parse_answers(span_of(equals + 1, item.n - (size_t)(equals - item.p) - 1), zone))
        return "the answers to take are written 127.0.0.2 or 127.0.0.[2..11]";
    zone->name = span_dup(name);
    return zone->name != NULL ? NULL : out_of_memory;
}

void
zone_list_clear(struct zone_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].name);
    free(l->v);
    *l = (struct zone_list){NULL, 0};
}

const char *
value_zones(const char *text, struct zone_list *l)
{
    void *v;
    const char *wrong = parse_items(text, sizeof(*l->v), parse_zone, &v, &l->n);

    l->v = v;
    if (wrong != NULL)
        zone_list_clear(l);
    return wrong;
}

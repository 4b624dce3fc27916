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

/* Parse a list into *V, N elements of SIZE octets; when something is wrong, those before it. */
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
            return "not HOST:PORT (an IPv6 address is written in brackets)";
    }
    if (rest.n > 0 && !span_u64(span_of(rest.p + 1, rest.n - 1), 65535, &value))
        return "the port is not a number up to 65535 (an IPv6 address is written in brackets)";
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

static void
take_values(uint64_t set[4], unsigned low, unsigned high)
{
    for (unsigned value = low; value <= high; value++)
        set[value / 64] |= (uint64_t)1 << value % 64;
}

/* N or, within brackets, N..M. */
static bool
parse_range(struct span text, bool is_bracketed, uint64_t set[4])
{
    const char *dots = is_bracketed && text.n > 0 ? memchr(text.p, '.', text.n) : NULL;
    size_t n = dots != NULL ? (size_t)(dots - text.p) : text.n;
    uint64_t low, high;

    if (!span_u64(span_of(text.p, n), 255, &low))
        return false;
    high = low;
    if (dots != NULL && (n + 1 == text.n || dots[1] != '.' ||
                         !span_u64(span_of(dots + 2, text.n - n - 2), 255, &high) || low > high))
        return false;
    take_values(set, (unsigned)low, (unsigned)high);
    return true;
}

/* N or [N;N..M;...]; takes it off *REST. */
static bool
parse_octet(struct span *rest, uint64_t set[4])
{
    bool is_bracketed = rest->n > 0 && rest->p[0] == '[';
    struct span items, item;
    size_t n = 0;

    while (n < rest->n && rest->p[n] != (is_bracketed ? ']' : '.'))
        n++;
    items = span_of(rest->p + is_bracketed, n - is_bracketed);
    if (is_bracketed && n++ == rest->n)
        return false;
    *rest = span_of(rest->p + n, rest->n - n);
    while (span_next(&items, is_bracketed ? ';' : '.', &item))
        if (!parse_range(item, is_bracketed, set))
            return false;
    return true;
}

static bool
parse_answers(struct span text, struct zone_entry *zone)
{
    uint64_t loopback[4] = {0};

    for (int i = 0; i < 4; i++) {
        if (i > 0) {
            if (text.n == 0 || text.p[0] != '.')
                return false;
            text = span_of(text.p + 1, text.n - 1);
        }
        if (!parse_octet(&text, zone->taken[i]))
            return false;
    }
    take_values(loopback, 127, 127);
    return text.n == 0 && memcmp(zone->taken[0], loopback, sizeof loopback) == 0;
}

static const char *
parse_zone(struct span item, void *slot)
{
    static const char every_answer[] = "127.[0..255].[0..255].[0..255]";
    struct zone_entry *zone = slot;
    const char *equals = memchr(item.p, '=', item.n);
    struct span name = equals != NULL ? span_of(item.p, (size_t)(equals - item.p)) : item;

    *zone = (struct zone_entry){.name = NULL};
    if (name.n > 0 && name.p[name.n - 1] == '.')
        name.n--;
    if (!value_is_domain(name) || name.n > ZONE_MAX)
        return "not the name of a zone";
    if (!parse_answers(equals != NULL ? span_of(equals + 1, item.n - (size_t)(equals - item.p) - 1)
                                      : span_str(every_answer),
                       zone))
        return "the answers that count are written 127.0.0.2, 127.0.0.[2..11] or "
               "127.0.0.[2;4;6..8]";
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

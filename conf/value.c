#include "conf/value.h"

#include <stdlib.h>
#include <string.h>

static const char out_of_memory[] = "out of memory";

struct unit {
    const char *name;
    uint64_t factor;
};

/* A decimal number and a unit. */
static const char *
scaled(const char *text, const struct unit *units, uint64_t *value)
{
    struct span s = span_str(text);
    size_t digits = 0;
    uint64_t n;

    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    if (!span_u64(span_of(s.p, digits), INT64_MAX, &n))
        return "not a number with a unit";
    for (; units->name != NULL; units++) {
        if (!span_is(span_of(s.p + digits, s.n - digits), units->name))
            continue;
        if (n > (uint64_t)INT64_MAX / units->factor)
            return "too large";
        *value = n * units->factor;
        return NULL;
    }
    return "unknown or missing unit";
}

const char *
value_duration(const char *text, int64_t *ms)
{
    static const struct unit units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                        {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
    uint64_t value = 0;
    const char *wrong = scaled(text, units, &value);

    if (wrong != NULL)
        return "not a duration such as 500ms, 30s, 10m, 1h or 7d";
    *ms = (int64_t)value;
    return NULL;
}

const char *
value_size(const char *text, uint64_t *octets)
{
    static const struct unit units[] = {
        {"", 1}, {"K", 1024}, {"M", 1048576}, {"G", 1073741824}, {NULL, 0}};

    return scaled(text, units, octets) == NULL ? NULL : "not a size such as 65536, 64K, 25M or 1G";
}

const char *
value_int(const char *text, int64_t *n)
{
    uint64_t value;

    if (!span_u64(span_str(text), INT32_MAX, &value))
        return "not a number";
    *n = (int64_t)value;
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
    struct span s = span_str(text);
    uint64_t whole, part = 0;
    double scale = 1;
    const char *dot = memchr(s.p, '.', s.n);
    size_t n = dot != NULL ? (size_t)(dot - s.p) : s.n;

    if (!span_u64(span_of(s.p, n), 1000, &whole))
        return "not a number such as 0.5";
    if (dot != NULL) {
        struct span digits = span_of(dot + 1, s.n - n - 1);
        if (digits.n > 9 || !span_u64(digits, INT32_MAX, &part))
            return "not a number such as 0.5";
        for (size_t i = 0; i < digits.n; i++)
            scale *= 10;
    }
    *d = (double)whole + (double)part / scale;
    return NULL;
}

/* One more element of SIZE octets at *V. */
static void *
grow(void *v, size_t n, size_t size)
{
    return realloc(v, (n + 1) * size);
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
    struct span rest = span_trim(span_str(text)), item;

    *l = (struct str_list){NULL, 0};
    if (rest.n == 0)
        return NULL;
    while (span_next(&rest, ',', &item)) {
        item = span_trim(item);
        if (item.n == 0) {
            str_list_clear(l);
            return "an empty item in the list";
        }
        char **grown = grow(l->v, l->n, sizeof(*l->v));
        if (grown != NULL) {
            l->v = grown;
            if ((l->v[l->n] = span_dup(item)) != NULL) {
                l->n++;
                continue;
            }
        }
        str_list_clear(l);
        return out_of_memory;
    }
    return NULL;
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
    struct str_list items;
    const char *wrong = value_list(text, &items);

    *l = (struct network_list){NULL, 0};
    for (size_t i = 0; wrong == NULL && i < items.n; i++) {
        struct network *grown = grow(l->v, l->n, sizeof(*l->v));
        if (grown == NULL) {
            wrong = out_of_memory;
            break;
        }
        l->v = grown;
        if (network_parse(span_str(items.v[i]), &l->v[l->n]))
            l->n++;
        else
            wrong = "not an address, nor a network in CIDR form without host bits";
    }
    str_list_clear(&items);
    if (wrong != NULL)
        network_list_clear(l);
    return wrong;
}

const char *
value_host_port(struct span text, uint16_t default_port, char *host, size_t n, uint16_t *port)
{
    struct span name = text, number = span_of(NULL, 0);
    uint64_t value = default_port;

    if (text.n > 0 && text.p[0] == '[') {
        const char *end = memchr(text.p, ']', text.n);
        struct netaddr address;
        if (end == NULL)
            return "[ without ]";
        name = span_of(text.p + 1, (size_t)(end - text.p) - 1);
        number = span_of(end + 1, text.n - name.n - 2);
        if (!netaddr_parse(name, &address))
            return "no address in the brackets";
        if (number.n > 0 && number.p[0] != ':')
            return "not HOST:PORT";
    } else {
        for (size_t i = 0; i < text.n; i++) {
            if (text.p[i] == ':') {
                name = span_of(text.p, i);
                number = span_of(text.p + i, text.n - i);
                break;
            }
        }
    }
    if (number.n > 0 && !span_u64(span_of(number.p + 1, number.n - 1), 65535, &value))
        return "the port is not a number up to 65535 (an IPv6 address stands in brackets)";
    if (value == 0)
        return "no port";
    if (name.n == 0 || !span_copy(host, n, name))
        return "no host";
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] <= ' ' || name.p[i] > '~')
            return "not a host name";
    *port = (uint16_t)value;
    return NULL;
}

void
host_list_clear(struct host_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].name);
    free(l->v);
    *l = (struct host_list){NULL, 0};
}

static const char *
parse_host(struct span item, struct host_entry *entry)
{
    struct span host = item, weight = span_of(NULL, 0);
    char name[256];
    uint64_t n = 1;

    for (size_t i = 0; i < item.n; i++) {
        if (item.p[i] == ' ' || item.p[i] == '\t') {
            host = span_of(item.p, i);
            weight = span_trim(span_of(item.p + i, item.n - i));
            break;
        }
    }
    if (weight.n > 0 && (!span_starts_nocase(weight, "weight=") ||
                         !span_u64(span_of(weight.p + 7, weight.n - 7), 1000, &n)))
        return "only weight=N (0 to 1000) may follow a host";
    const char *wrong = value_host_port(host, 25, name, sizeof(name), &entry->port);
    if (wrong != NULL)
        return wrong;
    entry->weight = (int)n;
    entry->name = span_dup(span_str(name));
    return entry->name != NULL ? NULL : out_of_memory;
}

const char *
value_hosts(const char *text, struct host_list *l)
{
    struct str_list items;
    const char *wrong = value_list(text, &items);

    *l = (struct host_list){NULL, 0};
    for (size_t i = 0; wrong == NULL && i < items.n; i++) {
        struct host_entry *grown = grow(l->v, l->n, sizeof(*l->v));
        if (grown == NULL) {
            wrong = out_of_memory;
            break;
        }
        l->v = grown;
        wrong = parse_host(span_str(items.v[i]), &l->v[l->n]);
        if (wrong == NULL)
            l->n++;
    }
    str_list_clear(&items);
    if (wrong != NULL)
        host_list_clear(l);
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
    struct str_list items;
    const char *wrong = value_list(text, &items);

    *l = (struct listen_list){NULL, 0};
    for (size_t i = 0; wrong == NULL && i < items.n; i++) {
        char host[64];
        struct listen_entry *grown = grow(l->v, l->n, sizeof(*l->v));
        if (grown == NULL) {
            wrong = out_of_memory;
            break;
        }
        l->v = grown;
        wrong = value_host_port(span_str(items.v[i]), 0, host, sizeof(host), &l->v[l->n].port);
        if (wrong == NULL && !netaddr_parse(span_str(host), &l->v[l->n].address))
            wrong = "not ADDRESS:PORT";
        if (wrong == NULL)
            l->n++;
    }
    str_list_clear(&items);
    if (wrong != NULL)
        listen_list_clear(l);
    return wrong;
}

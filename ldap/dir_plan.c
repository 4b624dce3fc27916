#include "ldap/dir_plan.h"

#include <stdint.h>
#include <stdlib.h>

/* What an entry of Exchange's says about who may write to it and how much. */
static const char *const restrictions[] = {
    "msExchRequireAuthToSendTo", "delivContLength",  "authOrig",        "unauthOrig",
    "dLMemSubmitPerms",          "dLMemRejectPerms", "legacyExchangeDN"};
#define RESTRICTIONS (sizeof restrictions / sizeof restrictions[0])

static const char *const proxy_addresses[] = {"proxyAddresses"};
static const char *const mail[] = {"mail"};

int
dir_plan_init(struct dir_plan *p, const struct settings_directory *conf)
{
    size_t n = 0;

    *p = (struct dir_plan){.conf = conf, .is_ad = conf->type == SETTINGS_TYPE_AD};
    p->base = conf->base ? conf->base : "";
    p->filter = conf->filter ? conf->filter : p->is_ad ? "(proxyAddresses=smtp:%u)" : "(mail=%u)";
    if (conf->attributes.n > 0) {
        p->addresses = (const char *const *)conf->attributes.v;
        p->n_addresses = conf->attributes.n;
    } else if (!conf->filter || conf->mode == SETTINGS_MODE_SNAPSHOT) {
        p->addresses = p->is_ad ? proxy_addresses : mail;
        p->n_addresses = 1;
    }
    p->attributes = calloc(p->n_addresses + RESTRICTIONS + 2, sizeof *p->attributes);
    if (!p->attributes)
        return -1;
    /* libldap takes them without const, and does not change them. */
    for (size_t i = 0; i < p->n_addresses; i++)
        p->attributes[n++] = (char *)(uintptr_t)p->addresses[i];
    for (size_t i = 0; p->is_ad && i < RESTRICTIONS; i++)
        p->attributes[n++] = (char *)(uintptr_t)restrictions[i];
    if (n == 0)
        p->attributes[n++] = (char *)(uintptr_t) "1.1"; /* RFC 4511 4.5.1.8: none */
    return 0;
}

void
dir_plan_clear(struct dir_plan *p)
{
    free(p->attributes);
    *p = (struct dir_plan){.conf = NULL};
}

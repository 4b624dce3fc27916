#ifndef CONF_SETTINGS_H
#define CONF_SETTINGS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/netaddr.h"
#include "base/span.h"
#include "conf/faults.h"

/* The configuration: read whole, checked whole, and immutable from then on.  It is shared by
 * reference between threads; a reload makes a new one.  conf/settings.def lists every key, and
 * conf/choice.def the values of those that choose. */

/* What a [downstream NAME] or [directory NAME] may have, so that all who show it have room. */
#define SETTINGS_NAME_MAX 63
/* The directories that a domain may name. */
#define SETTINGS_DIRECTORIES_MAX 16
/* The servers of a directory, and the octets of the URI of one, for the same reason. */
#define SETTINGS_SERVERS_MAX 16
#define SETTINGS_URI_MAX     279

struct str_list {
    char **v;
    size_t n;
};

struct host_entry {
    char *name; /* name or address, without brackets */
    uint16_t port;
    int weight; /* 0: a spare */
};

struct host_list {
    struct host_entry *v;
    size_t n;
};

struct listen_entry {
    struct netaddr address;
    uint16_t port;
};

struct listen_list {
    struct listen_entry *v;
    size_t n;
};

/* A DNS block list, and which answers are taken from it: for each octet of theirs a bit for each
 * value that it may have. */
struct zone_entry {
    char *name; /* without a dot at the end */
    uint64_t taken[4][4];
};

struct zone_list {
    struct zone_entry *v;
    size_t n;
};

#define CHOICE_BEGIN(type, tag)                                                                    \
    enum settings_##tag                                                                            \
    {
#define CHOICE(type, id, word) SETTINGS_##type##_##id,
#define CHOICE_END(type)                                                                           \
    }                                                                                              \
    ;
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END

#define SETTING_C_DURATION    int64_t  /* milliseconds */
#define SETTING_C_SIZE        uint64_t /* octets */
#define SETTING_C_INT         int
#define SETTING_C_BOOL        bool
#define SETTING_C_RATIO       double
#define SETTING_C_STRING      char * /* NULL: none */
#define SETTING_C_PATH        char * /* NULL: none */
#define SETTING_C_LIST        struct str_list
#define SETTING_C_NETWORKS    struct network_list
#define SETTING_C_HOSTS       struct host_list
#define SETTING_C_LISTEN      struct listen_list
#define SETTING_C_ZONES       struct zone_list
#define SETTING_C_BARE_LF     enum settings_bare_lf
#define SETTING_C_TLS         enum settings_downstream_tls
#define SETTING_C_TLS_MODE    enum settings_tls_mode
#define SETTING_C_MIN_VERSION enum settings_min_version
#define SETTING_C_LEVEL       enum settings_level
#define SETTING_C_RECIPIENTS  enum settings_recipients
#define SETTING_C_TYPE        enum settings_type
#define SETTING_C_BIND        enum settings_bind
#define SETTING_C_MODE        enum settings_mode
#define SETTING_C_ON_FAILURE  enum settings_on_failure
#define SETTING_C_ACTION      enum settings_action
#define SETTING_C_STAGE       enum settings_stage
#define SETTING_C_LEDGER      enum settings_ledger
#define SETTING_C_NDR         enum settings_ndr

/* A struct for each section, a member for each key, and beside it KEY_line: where the file sets it,
 * else 0.  Named sections have the name: "" for [directory], lower case for domains.  A domain has
 * its downstream and its directories as indices into the arrays of struct settings; the directories
 * in the order asked, none unless recipients = directory. */
#define SECTION_BEGIN(section, help)                                                               \
    struct settings_##section {                                                                    \
        unsigned line; /* of the header, else 0 */
#define NAMED_BEGIN(section, plural, help)                                                         \
    struct settings_##section {                                                                    \
        char *name;                                                                                \
        unsigned line;                                                                             \
        SETTINGS_RESOLVED_##section
#define SETTINGS_RESOLVED_domain                                                                   \
    size_t downstream_index;                                                                       \
    size_t *directory_index;                                                                       \
    size_t n_directory_index;
#define SETTINGS_RESOLVED_downstream
#define SETTINGS_RESOLVED_directory
#define SETTINGS_RESOLVED_remote_domain
#define SETTING(section, key, type, text, min, max, flags, help)                                   \
    SETTING_C_##type key;                                                                          \
    unsigned key##_line;
#define SECTION_END(section)                                                                       \
    }                                                                                              \
    ;
#include "conf/settings.def"
#undef SECTION_BEGIN
#undef NAMED_BEGIN
#undef SETTING
#undef SECTION_END

struct settings {
#define SECTION_BEGIN(section, help) struct settings_##section section;
#define NAMED_BEGIN(section, plural, help)                                                         \
    struct settings_##section *plural;                                                             \
    size_t n_##plural;
#define SETTING(section, key, type, text, min, max, flags, help)
#define SECTION_END(section)
#include "conf/settings.def"
#undef SECTION_BEGIN
#undef NAMED_BEGIN
#undef SETTING
#undef SECTION_END
    const struct settings_domain **by_name; /* the domains, sorted, for settings_domain_for */
    char *path;                             /* of the file */
    _Atomic unsigned references;
};

/* Read and check PATH.  Every fault is in F; NULL if one of them is no warning.  The caller owns
 * the reference.  Nothing is made, bound or contacted; files are looked at (missing, or a secret
 * that others may read).  server.hostname and spool.dir are filled in, [remote_domain default] is
 * always there. */
struct settings *settings_load(const char *path, struct faults *f);
/* The same for a reload, which may not wait: server.hostname is OLD's unless the file has one, for
 * the machine's own may take a look-up in the DNS, and that fail. */
struct settings *settings_load_again(const char *path, const struct settings *old,
                                     struct faults *f);
/* The same from an open stream; PATH is for messages. */
struct settings *settings_read(FILE *in, const char *path, struct faults *f);
/* For -t: the same, but also with faults in it, so that what is good can be looked at further;
 * where a value was faulty the default stands.  NULL when nothing could be read.  Nothing may run
 * on it. */
struct settings *settings_examine(const char *path, struct faults *f);
/* For -t: when root runs it, can server.user read what a reload will read, and write where it
 * must? */
void settings_check_access(const struct settings *st, struct faults *f);
struct settings *settings_ref(struct settings *st);
/* NULL is fine. */
void settings_unref(struct settings *st);

/* The accepted domain's section for DOMAIN: exact, else the longest wildcard, which matches any
 * depth of subdomains but not the domain itself; NULL: none. */
const struct settings_domain *settings_domain_for(const struct settings *st, struct span domain);
/* The same for a sender's domain, empty for <>; else [remote_domain default].  Never NULL. */
const struct settings_remote_domain *settings_remote_domain_for(const struct settings *st,
                                                                struct span domain);
/* The cache_ keys of OUT with their defaults; nothing else of it is set, nothing to be freed. */
void settings_cache_defaults(struct settings_directory *out);
/* Has every key the same value in both? */
bool settings_directory_equal(const struct settings_directory *a,
                              const struct settings_directory *b);
/* What one has answered the other would answer: what differs is how they are asked, at most. */
bool settings_directory_agree(const struct settings_directory *a,
                              const struct settings_directory *b);

/* Does whoever listens on A keep others from B? */
bool settings_listen_clash(const struct listen_entry *a, const struct listen_entry *b);

/* SIGHUP cannot change some keys: put OLD's values in place of FRESH's where they differ, and name
 * them ("server.listen, control.socket") in OUT.  False if none differs. */
bool settings_keep_fixed(struct settings *fresh, const struct settings *old, char *out, size_t n);

/* The number of a syslog facility ("mail"), or -1. */
int settings_facility(const char *name);

#endif

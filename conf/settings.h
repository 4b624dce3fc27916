#ifndef CONF_SETTINGS_H
#define CONF_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/netaddr.h"
#include "base/span.h"

/* The configuration: read whole, checked whole, and immutable from then on.  It is shared by
 * reference between threads; a reload makes a new one.  conf/settings.def lists every key; the
 * member of a section's struct has the key's name.  Durations are milliseconds, sizes octets; an
 * empty text is NULL. */

struct str_list {
    char **v;
    size_t n;
};

struct host_entry {
    char *name; /* name or address, without brackets */
    uint16_t port;
    int weight;
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

#define CHOICE_BEGIN(type)                                                                         \
    enum settings_##type                                                                           \
    {
#define CHOICE(type, id, word) SETTINGS_##type##_##id,
#define CHOICE_END(type)                                                                           \
    SETTINGS_##type##_COUNT                                                                        \
    }                                                                                              \
    ;
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END

#define SETTING_C_DURATION    int64_t
#define SETTING_C_SIZE        uint64_t
#define SETTING_C_INT         int
#define SETTING_C_BOOL        bool
#define SETTING_C_RATIO       double
#define SETTING_C_STRING      char *
#define SETTING_C_PATH        char *
#define SETTING_C_LIST        struct str_list
#define SETTING_C_NETWORKS    struct network_list
#define SETTING_C_HOSTS       struct host_list
#define SETTING_C_LISTEN      struct listen_list
#define SETTING_C_BARE_LF     enum settings_BARE_LF
#define SETTING_C_TLS         enum settings_TLS
#define SETTING_C_TLS_MODE    enum settings_TLS_MODE
#define SETTING_C_MIN_VERSION enum settings_MIN_VERSION
#define SETTING_C_LEVEL       enum settings_LEVEL
#define SETTING_C_RECIPIENTS  enum settings_RECIPIENTS
#define SETTING_C_TYPE        enum settings_TYPE
#define SETTING_C_BIND        enum settings_BIND
#define SETTING_C_MODE        enum settings_MODE
#define SETTING_C_ON_FAILURE  enum settings_ON_FAILURE
#define SETTING_C_ACTION      enum settings_ACTION
#define SETTING_C_STAGE       enum settings_STAGE
#define SETTING_C_LEDGER      enum settings_LEDGER
#define SETTING_C_NDR         enum settings_NDR

/* A struct for each section.  Those of named sections also have the name ("" for [directory]), the
 * line of their header, and what is resolved at load: a domain's downstream and its directories, in
 * the order asked (none unless recipients = directory). */
#define SECTION(section, title)                                                                    \
    }                                                                                              \
    ;                                                                                              \
    struct settings_##section {
#define NAMED(section, plural)                                                                     \
    }                                                                                              \
    ;                                                                                              \
    struct settings_##section {                                                                    \
        char *name;                                                                                \
        unsigned line;                                                                             \
        SETTINGS_EXTRA_##section
#define SETTINGS_EXTRA_domain                                                                      \
    size_t downstream_index;                                                                       \
    size_t *directory_index;                                                                       \
    size_t n_directory_index;
#define SETTINGS_EXTRA_downstream
#define SETTINGS_EXTRA_directory
#define SETTINGS_EXTRA_remote_domain
#define SETTING(section, key, type, text, min, max, flags, help) SETTING_C_##type key;
struct settings_begin {
    unsigned char none;
#include "conf/settings.def"
};
#undef SECTION
#undef NAMED
#undef SETTING

struct settings {
#define SECTION(section, title) struct settings_##section section;
#define NAMED(section, plural)                                                                     \
    struct settings_##section *plural;                                                             \
    size_t n_##plural;
#define SETTING(section, key, type, text, min, max, flags, help)
#include "conf/settings.def"
#undef SECTION
#undef NAMED
#undef SETTING
    char *path; /* of the file */
};

/* What is wrong with a configuration, in the order found. */
struct faults;
struct faults *faults_new(void);
void faults_free(struct faults **f);
/* LINE 0: the file as a whole.  A warning does not keep the configuration from being used. */
void faults_add(struct faults *f, unsigned line, bool is_warning, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
size_t faults_errors(const struct faults *f);
/* One a line, sorted by line: "FILE:LINE: message", "FILE:LINE: warning: message". */
void faults_print(const struct faults *f, const char *path, FILE *out);
/* The first fault that is no warning ("" if there is none), as faults_print writes it, into OUT. */
void faults_first(const struct faults *f, const char *path, char *out, size_t n);
/* The next one after *I (start with 0), or NULL. */
const char *faults_next(const struct faults *f, size_t *i, unsigned *line, bool *is_warning);

/* Read and check PATH.  Every fault is in F; NULL if one of them is no warning. The caller owns the
 * reference. */
struct settings *settings_load(const char *path, struct faults *f);
/* The same from an open stream; PATH is for messages. */
struct settings *settings_read(FILE *in, const char *path, struct faults *f);
/* What touches the system, for -t: run by root, can `user` read what it must? */
void settings_check_access(const struct settings *st, struct faults *f);
struct settings *settings_ref(struct settings *st);
void settings_unref(struct settings *st);

/* The accepted domain's section for DOMAIN (lower case): exact, else the longest wildcard; NULL:
 * none. */
const struct settings_domain *settings_domain_for(const struct settings *st, struct span domain);
/* The same for a sender's domain; empty for <>.  Never NULL. */
const struct settings_remote_domain *settings_remote_domain_for(const struct settings *st,
                                                                struct span domain);

/* SIGHUP cannot change some keys: put OLD's values in place of FRESH's where they differ and name
 * these
 * ("server.listen, control.socket") in OUT; false if none differs. */
bool settings_keep_fixed(struct settings *fresh, const struct settings *old, char *out, size_t n);

/* The number of a syslog facility ("mail"), or -1. */
int settings_facility(const char *name);

/* For -t, the manual and the sample file: each key in turn. */
struct setting_info {
    const char *section, *key, *type, *default_text, *help;
    bool is_named, is_fixed;
};
size_t settings_count(void);
struct setting_info settings_info(size_t i);

#endif

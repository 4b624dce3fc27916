#ifndef LDAP_SNAPSHOT_H
#define LDAP_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/siphash.h"
#include "base/span.h"
#include "ldap/dir_verdict.h"

/* What was seen of whole directories, in one LMDB file: state_dir/recipients.mdb, mode 0600.  It
 * has no address, only hashes of addresses under a key that lies beside it (recipients.key, 0600):
 * a copy of the file lists nobody, though who has both can test guesses.  Any thread reads, without
 * waiting for who writes; a look is taken whole or not at all. */

struct snapshot;

/* DIR is there already.  A damaged file is set aside as recipients.mdb.damaged, told in the log
 * (event=directory), and begun anew; so is one that the key does not fit.  NULL with E set. */
struct snapshot *snapshot_open(const char *dir, struct err *e);
/* After every reader is freed.  Clears *S; NULL is fine. */
void snapshot_close(struct snapshot **s);

/* Of an address, canonical, or of "x500:" and an X.500 address in lower case. */
struct hash128 snapshot_hash(const struct snapshot *s, struct span address);

/* objectGUID or entryUUID, in the octets that the server sends. */
struct snapshot_id {
    uint8_t octets[16];
};

/* One directory's part of it; lives as long as the snapshot. */
struct snapshot_part;

/* The part called NAME, for whoever writes it from now on: *EPOCH goes with what he writes, and
 * former writers are refused.  Waits for none of them.  NULL: memory is out. */
struct snapshot_part *snapshot_claim(struct snapshot *s, const char *name, unsigned *epoch);
/* Was it seen by FINGERPRINT (of the settings that decide what is looked at)?  Does not wait. */
bool snapshot_is_of(struct snapshot_part *p, struct hash128 fingerprint);
/* Before the first look: what was seen by another FINGERPRINT is dropped.  -1 with E set. */
int snapshot_attach(struct snapshot_part *p, unsigned epoch, struct hash128 fingerprint,
                    struct err *e);
/* Drop the parts that are none of these N. */
int snapshot_retain(struct snapshot *s, const char *const *names, size_t n, struct err *e);

/* Where the next look goes on from; kept with what was seen. */
struct snapshot_mark {
    int64_t full_s, look_s; /* wall clock, when they began; 0: never */
    uint64_t usn;           /* Active Directory: all changes up to it were seen */
    struct snapshot_id invocation;
    char controller[256]; /* which server: dnsHostName, or the URI where there is none */
    char cookie[512];     /* RFC 4533; empty: none */
    uint64_t entries;     /* addresses; the snapshot counts them */
    uint64_t objects;
};

/* Does not wait for who writes. */
void snapshot_mark(struct snapshot_part *p, struct snapshot_mark *mark);

/* The same, cheaply, for every question. LOOK_MS is on clock_ms's scale. */
struct snapshot_age {
    bool is_there; /* a look was taken */
    int64_t look_ms;
};
struct snapshot_age snapshot_age(const struct snapshot_part *p);

/* Reading.  One thread uses a reader. */
struct snapshot_reader;
struct snapshot_reader *snapshot_reader_new(struct snapshot *s); /* NULL: memory is out */
void snapshot_reader_free(struct snapshot_reader **r);

enum snapshot_found {
    SNAPSHOT_UNKNOWN, /* there is none, or it cannot be read */
    SNAPSHOT_LACKS,
    SNAPSHOT_HAS
};
/* KEY as in dir_verdict.h: an address, perhaps with NUL and a sender.  *V only with HAS. */
enum snapshot_found snapshot_find(struct snapshot_reader *r, struct snapshot_part *p,
                                  struct span key, struct dir_verdict *v);
/* ADDRESS left the directory at SINCE_S (wall clock) or later. */
bool snapshot_was_known(struct snapshot_reader *r, struct snapshot_part *p, struct span address,
                        int64_t since_s);

/* Writing. */
#define SNAPSHOT_REQUIRE_AUTH 0x80000000u
#define SNAPSHOT_HAS_RULES    0x40000000u
#define SNAPSHOT_IS_X500      0x20000000u /* no address, not counted */
#define SNAPSHOT_KIB_MAX      0x1fffffffu /* the rest: KiB of a message; 0: no limit */

/* One address of one object. */
struct snapshot_row {
    struct hash128 address;
    struct snapshot_id object;
    uint32_t limits; /* SNAPSHOT_ */
};

/* Who may write to an object, by their addresses' hashes (lo).  A list that could not be resolved
 * is open: it refuses nobody. */
struct snapshot_rules {
    struct snapshot_id object;
    bool has_allow, is_allow_open, is_deny_open;
    uint64_t *allow, *deny; /* the caller's, in any order */
    size_t n_allow, n_deny;
};

/* What a look has seen; all of it is the caller's. */
struct snapshot_look {
    bool is_full; /* all there is; else the objects in CHANGED have these rows, or are gone */
    const struct snapshot_row *rows;
    size_t n_rows;
    const struct snapshot_id *changed;
    size_t n_changed;
    bool has_rules; /* RULES replace those that are there */
    const struct snapshot_rules *rules;
    size_t n_rules;
    struct snapshot_mark mark;
    int64_t began_ms; /* clock_ms */
    int max_loss;     /* percent of the addresses; 100 or more: any */
    int64_t buried_s; /* tombstones from before this moment go */
};

struct snapshot_result {
    uint64_t learned, lost; /* addresses */
};

enum snapshot_take {
    SNAPSHOT_TAKEN,
    SNAPSHOT_REFUSED, /* it would lose more than max_loss; R says how many */
    SNAPSHOT_FAILED   /* E says why; nothing was taken */
};
enum snapshot_take snapshot_take(struct snapshot_part *p, unsigned epoch,
                                 const struct snapshot_look *look, struct snapshot_result *r,
                                 struct err *e);

/* Every object, in order; malloc'd.  -1 with E set. */
int snapshot_objects(struct snapshot_part *p, struct snapshot_id **ids, size_t *n, struct err *e);

/* An address that two objects (or more, of which two are told) have. */
struct snapshot_duplicate {
    struct hash128 address;
    struct snapshot_id objects[2];
};
/* At most MOST of them; malloc'd.  -1 with E set. */
int snapshot_duplicates(struct snapshot_part *p, size_t most, struct snapshot_duplicate **list,
                        size_t *n, struct err *e);

#endif

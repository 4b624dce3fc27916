#define _DEFAULT_SOURCE /* mkdtemp, ldap_init_fd */
#include <ldap.h>
#include <openldap.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "conf/settings.h"
#include "ldap/dir_gate.h"
#include "ldap/dir_query.h"
#include "ldap/dir_result.h"
#include "ldap/sync_look.h"
#include "tests/fuzz/require.h"

/* A directory that says anything, to a question and to a look.  The first octet of the input says
 * who is answered (one of MODES); then each line is a word of the server's:
 *
 *   e DN     an entry; its attributes and values follow: `a DESCRIPTION`, `v VALUE`, and
 *   s STATE UUID  the sync state of it (RFC 4533), STATE a digit, UUID sixteen octets
 *   r URI    a continuation reference
 *   i OCTETS an intermediate sync message
 *   d CODE COOKIE  the end of the search, with a cookie of paging; p CODE COOKIE  with one of sync,
 *            which was its present phase if the cookie begins with p
 *   b OCTETS what stands for itself
 *
 * All of it lies in the socket before the first question is put.  A question without a match in the
 * values never says "found", one that did not succeed never "absent"; what a look took is in the
 * snapshot. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char MODES[] = "qlfFcC";
#define ADDRESS      "anna@example.test"
#define SEARCHES_MAX 140 /* of a question: both lists, 64 groups each */
#define INPUT_MAX    8192
#define ANSWERED_MAX 100 /* what is asked has to fit into a socket */

static struct settings_directory conf[2];
static struct dir_plan plans[2]; /* [1]: Active Directory */
static struct snapshot *snapshot;
static struct dir_watchdog *watchdog;
static char state_dir[] = "/dev/shm/postern-fuzz-directory-XXXXXX";

static void
clean_up(void)
{
    char path[96];

    snapshot_close(&snapshot);
    dir_watchdog_free(&watchdog);
    for (int i = 0; i < 2; i++) {
        dir_plan_clear(&plans[i]);
    }
    snprintf(path, sizeof path, "rm -rf %s", state_dir);
    require(system(path) == 0);
}

static void
set_up(void)
{
    static char base[] = "dc=example,dc=test", mail[] = "mail", *attributes[] = {mail};
    struct err e;

    if (snapshot)
        return;
    log_set_level(LOG_LEVEL_ERROR);
    conf[0].type = SETTINGS_TYPE_LDAP;
    conf[0].attributes.n = 1;
    conf[0].attributes.v = attributes;
    conf[1].type = SETTINGS_TYPE_AD;
    for (int i = 0; i < 2; i++) {
        conf[i].base = base;
        require(dir_plan_init(&plans[i], &conf[i]) == 0);
    }
    require(mkdtemp(state_dir) != NULL);
    snapshot = snapshot_open(state_dir, &e);
    watchdog = dir_watchdog_new(&e);
    require(snapshot != NULL && watchdog != NULL && atexit(clean_up) == 0);
}

/* The server. */

struct server {
    int id; /* of the search that is answered */
    BerElement *entry;
    bool is_in_attribute;
    int state; /* of the entry, -1: none */
    struct span uuid;
    size_t n_said;
};

/* What is said, in one piece: the kernel counts a small one many times over, and a socket pair is
 * full by a few hundred of them.  What would not fit is not said. */
static char said[1 << 17];

static void
say_octets(struct server *s, const char *p, size_t n)
{
    if (n > sizeof said - s->n_said)
        return;
    memcpy(said + s->n_said, p, n);
    s->n_said += n;
}

static void
say(struct server *s, BerElement *b)
{
    struct berval octets;

    require(ber_flatten2(b, &octets, 0) == 0);
    say_octets(s, octets.bv_val, octets.bv_len);
    ber_free(b, 1);
}

/* The controls of a message, of which there is one. */
static void
add_control(BerElement *b, const char *oid, BerElement *value)
{
    struct berval octets;

    require(ber_flatten2(value, &octets, 0) == 0);
    ber_printf(b, "t{{sO}}", (ber_tag_t)LDAP_TAG_CONTROLS, oid, &octets);
    ber_free(value, 1);
}

static void
end_attribute(struct server *s)
{
    if (s->is_in_attribute)
        ber_printf(s->entry, "]N}");
    s->is_in_attribute = false;
}

static void
end_entry(struct server *s)
{
    if (!s->entry)
        return;
    end_attribute(s);
    ber_printf(s->entry, "}}");
    if (s->state >= 0) {
        BerElement *value = ber_alloc_t(LBER_USE_DER);

        ber_printf(value, "{eo}", (ber_int_t)s->state, s->uuid.p, (ber_len_t)s->uuid.n);
        add_control(s->entry, LDAP_CONTROL_SYNC_STATE, value);
    }
    ber_printf(s->entry, "N}");
    say(s, s->entry);
    s->entry = NULL;
    s->state = -1;
}

static void
end_search(struct server *s, struct span text, bool is_sync)
{
    BerElement *b = ber_alloc_t(LBER_USE_DER), *value = ber_alloc_t(LBER_USE_DER);
    struct span number, cookie = text;
    uint64_t code = 0;

    if (span_next(&cookie, ' ', &number))
        (void)span_u64(number, 255, &code);
    ber_printf(b, "{it{ess}", (ber_int_t)s->id, (ber_tag_t)LDAP_RES_SEARCH_RESULT, (ber_int_t)code,
               "", "");
    if (is_sync)
        ber_printf(value, "{ob}", cookie.p ? cookie.p : "", (ber_len_t)cookie.n,
                   (ber_int_t)(cookie.n == 0 || *cookie.p != 'p'));
    else
        ber_printf(value, "{io}", (ber_int_t)0, cookie.p ? cookie.p : "", (ber_len_t)cookie.n);
    add_control(b, is_sync ? LDAP_CONTROL_SYNC_DONE : LDAP_CONTROL_PAGEDRESULTS, value);
    ber_printf(b, "N}");
    say(s, b);
    s->id++;
}

static void
say_line(struct server *s, char word, struct span text)
{
    const char *p = text.p ? text.p : "";
    BerElement *b;

    switch (word) {
    case 'e':
        end_entry(s);
        s->entry = ber_alloc_t(LBER_USE_DER);
        ber_printf(s->entry, "{it{o{", (ber_int_t)s->id, (ber_tag_t)LDAP_RES_SEARCH_ENTRY, p,
                   (ber_len_t)text.n);
        break;
    case 'a':
        if (!s->entry)
            break;
        end_attribute(s);
        ber_printf(s->entry, "{o[", p, (ber_len_t)text.n);
        s->is_in_attribute = true;
        break;
    case 'v':
        if (s->is_in_attribute)
            ber_printf(s->entry, "o", p, (ber_len_t)text.n);
        break;
    case 's':
        if (text.n < 2)
            break;
        s->state = *p & 7;
        s->uuid = span_of(p + 2, text.n - 2);
        break;
    case 'r':
        end_entry(s);
        b = ber_alloc_t(LBER_USE_DER);
        ber_printf(b, "{it{oN}N}", (ber_int_t)s->id, (ber_tag_t)LDAP_RES_SEARCH_REFERENCE, p,
                   (ber_len_t)text.n);
        say(s, b);
        break;
    case 'i':
        end_entry(s);
        b = ber_alloc_t(LBER_USE_DER);
        ber_printf(b, "{it{tstoN}N}", (ber_int_t)s->id, (ber_tag_t)LDAP_RES_INTERMEDIATE,
                   (ber_tag_t)LDAP_TAG_IM_RES_OID, LDAP_SYNC_INFO, (ber_tag_t)LDAP_TAG_IM_RES_VALUE,
                   p, (ber_len_t)text.n);
        say(s, b);
        break;
    case 'd':
    case 'p':
        end_entry(s);
        end_search(s, text, word == 'p');
        break;
    case 'b':
        end_entry(s);
        say_octets(s, p, text.n);
        break;
    default:
        break;
    }
}

/* *FD is the server's end, for whoever wants to know what is asked. */
static LDAP *
connect_to(struct span script, int *fd)
{
    struct server s = {.id = 1, .state = -1};
    struct span line;
    LDAP *ld = NULL;
    Sockbuf *sb = NULL;
    int fds[2], version = LDAP_VERSION3;

    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    while (s.id <= ANSWERED_MAX && span_next(&script, '\n', &line))
        if (line.n > 0)
            say_line(&s, line.p[0],
                     line.n > 2 ? span_of(line.p + 2, line.n - 2) : (struct span){0});
    end_entry(&s);
    require(s.n_said == 0 ||
            send(fds[1], said, s.n_said, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)s.n_said);
    shutdown(fds[1], SHUT_WR);
    require(ldap_init_fd(fds[0], LDAP_PROTO_TCP, "ldap://127.0.0.1/", &ld) == LDAP_SUCCESS);
    ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version);
    ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
    require(ldap_get_option(ld, LDAP_OPT_SOCKBUF, &sb) == 0 && dir_gate_add(sb) == 0);
    *fd = fds[1];
    return ld;
}

/* A question. */

static bool
names_anna(struct span script)
{
    for (size_t i = 0; i + 5 <= script.n; i++)
        if (span_starts_nocase(span_of(script.p + i, script.n - i), "anna@"))
            return true;
    return false;
}

/* The code that a search ended with; LDAP_SERVER_DOWN if it did not. */
static int
receive(struct dir_query *q, LDAP *ld, int id)
{
    for (;;) {
        LDAPMessage *m = NULL;
        int code = LDAP_SERVER_DOWN, type = ldap_result(ld, id, LDAP_MSG_ONE, NULL, &m);

        if (type <= 0)
            return code;
        if (type == LDAP_RES_SEARCH_ENTRY)
            dir_query_entry(q, ld, m);
        else if (type == LDAP_RES_SEARCH_REFERENCE)
            dir_query_reference(q);
        else if (type == LDAP_RES_SEARCH_RESULT &&
                 ldap_parse_result(ld, m, &code, NULL, NULL, NULL, NULL, 0) != LDAP_SUCCESS)
            code = LDAP_SERVER_DOWN;
        ldap_msgfree(m);
        if (type == LDAP_RES_SEARCH_RESULT)
            return code;
    }
}

static void
read_away(int fd)
{
    char octets[4096];

    while (recv(fd, octets, sizeof octets, MSG_DONTWAIT) > 0) {
    }
}

static void
ask(LDAP *ld, int fd, const struct dir_plan *plan, struct span script)
{
    static const char key[] = ADDRESS "\0ben@example.org";
    struct dir_query *q = dir_query_new(plan, span_of(key, sizeof key - 1), true);
    const struct dir_verdict *v = dir_query_verdict(q);
    struct dir_search s;
    struct dir_detail *detail;
    bool is_over = false, is_all_success = true;

    for (unsigned n = 0; !is_over && dir_query_search(q, &s); n++) {
        int id, code;

        require(n < SEARCHES_MAX && s.filter[0] == '(');
        read_away(fd);
        if (ldap_search_ext(ld, s.base, s.scope, s.filter, s.attributes, 0, NULL, NULL, NULL, 0,
                            &id) != LDAP_SUCCESS)
            break;
        code = receive(q, ld, id);
        is_all_success = is_all_success && code == LDAP_SUCCESS;
        if (dir_result_outcome(code) == DIR_OUTCOME_LOST)
            break;
        is_over = dir_query_end(q, code);
    }
    if (is_over) {
        require(v->status != DIR_ABSENT || is_all_success);
        require(v->status != DIR_FOUND || names_anna(script));
    }
    detail = dir_query_take_detail(q);
    require(!detail || memchr(detail->text, '\0', sizeof detail->text) != NULL);
    free(detail);
    dir_query_free(&q);
}

/* A look. */

static void
keep(struct sync_look *k, unsigned epoch, bool is_full)
{
    const struct hash128 anna = snapshot_hash(snapshot, span_str(ADDRESS));
    struct snapshot_look look = {.is_full = is_full,
                                 .rows = (const struct snapshot_row *)(void *)k->rows.octets,
                                 .n_rows = k->rows.n,
                                 .changed = (const struct snapshot_id *)k->changed.octets,
                                 .n_changed = k->changed.n,
                                 .has_rules = k->n_rules > 0,
                                 .rules = k->rules,
                                 .n_rules = k->n_rules,
                                 .mark = k->mark,
                                 .began_ms = clock_ms(),
                                 .max_loss = 100};
    struct snapshot_reader *r = snapshot_reader_new(snapshot);
    struct snapshot_result result;
    struct dir_verdict v;
    bool has_anna = false;
    struct err e;

    require(snapshot_take(k->part, epoch, &look, &result, &e) == SNAPSHOT_TAKEN);
    for (size_t i = 0; i < k->rows.n; i++)
        has_anna = has_anna || memcmp(&look.rows[i].address, &anna, sizeof anna) == 0;
    if (is_full || has_anna)
        require(snapshot_find(r, k->part, span_str(ADDRESS), &v) ==
                (has_anna ? SNAPSHOT_HAS : SNAPSHOT_LACKS));
    snapshot_reader_free(&r);
}

static void
look_at(LDAP *ld, const struct dir_plan *plan, bool is_full)
{
    static const struct hash128 fingerprint = {1, 2};
    static const atomic_bool is_ending;
    struct snapshot_mark before = {
        .full_s = 1, .look_s = 1, .usn = 5, .controller = "dc1", .cookie = "rid=000,csn=1"};
    struct dir_link link = {.ld = ld};
    struct sync_look k;
    unsigned epoch;
    struct err e;
    int rc;

    dir_guard_init(&link.guard, watchdog);
    struct snapshot_part *part = snapshot_claim(snapshot, "", &epoch);
    require(part != NULL && snapshot_attach(part, epoch, fingerprint, &e) == 0);
    sync_look_init(&k, plan, snapshot, part, &link, &is_ending);
    k.uri = "dc1";
    rc = sync_identify(&k);
    if (rc == 0)
        rc = is_full ? sync_look_full(&k) : sync_look_changes(&k, &before);
    if (rc == 0 && k.has_rules)
        rc = sync_look_rules(&k);
    require(rc >= 0 || k.e.kind != ERR_NONE);
    if (rc == 0)
        keep(&k, epoch, is_full);
    sync_look_clear(&k);
    (void)dir_guard_close(&link.guard);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *mode = size > 1 && size <= INPUT_MAX && data[0] ? strchr(MODES, data[0]) : NULL;
    struct span script;
    LDAP *ld;
    int fd;

    if (!mode)
        return 0;
    set_up();
    script = span_of((const char *)data + 1, size - 1);
    ld = connect_to(script, &fd);
    if (mode - MODES < 2)
        ask(ld, fd, &plans[*mode == 'q'], script);
    else
        look_at(ld, &plans[*mode == 'f' || *mode == 'c'], *mode == 'f' || *mode == 'F');
    ldap_destroy(ld);
    close(fd);
    return 0;
}

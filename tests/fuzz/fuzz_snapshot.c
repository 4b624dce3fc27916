#define _GNU_SOURCE /* mkdtemp */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "ldap/snapshot.h"
#include "tests/fuzz/require.h"

/* A snapshot's file with octets that are others than were written: two octets say where it ends (in
 * units of 16; 0: where it did) and, by their highest bit, which of two it is; then four each what
 * is where: three the offset, one the octet.
 *
 * It is opened all the same, anew if need be, and can be read and written. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Their rows fit into a node, or need a tree. */
static const unsigned people[2] = {40, 1000};
#define PEOPLE_MAX 1000u
#define FILE_MAX   ((size_t)1 << 20)

static const struct hash128 FINGERPRINT = {1, 2};
static char dir[] = "/dev/shm/postern-fuzz-snapshot-XXXXXX", path[96];
static uint8_t *whole[2], *damaged;
static size_t n_whole[2];

static void
clean_up(void)
{
    char command[128];

    free(whole[0]);
    free(whole[1]);
    free(damaged);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    require(system(command) == 0);
}

static void
write_file(const char *name, const void *octets, size_t n)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    require(fd >= 0 && write(fd, octets, n) == (ssize_t)n && close(fd) == 0);
}

static struct span
person(unsigned i, char out[32])
{
    return span_of(out, (size_t)snprintf(out, 32, "p%u@example.test", i));
}

/* Half of them are there, then the others; so there are tombstones and free pages. */
static void
take(struct snapshot *s, struct snapshot_part *p, unsigned epoch, unsigned first, unsigned n,
     bool is_damaged)
{
    static struct snapshot_row rows[PEOPLE_MAX];
    uint64_t allowed[] = {7, 9};
    struct snapshot_rules rules = {.has_allow = true, .allow = allowed, .n_allow = 2};
    struct snapshot_look look = {.is_full = true,
                                 .rows = rows,
                                 .n_rows = n,
                                 .has_rules = true,
                                 .rules = &rules,
                                 .n_rules = 1,
                                 .mark = {.full_s = 1, .look_s = 1, .usn = first},
                                 .began_ms = clock_ms(),
                                 .max_loss = 100};
    struct snapshot_result result;
    char address[32];
    struct err e;

    for (unsigned i = 0; i < n; i++) {
        memset(&rows[i], 0, sizeof rows[i]);
        rows[i].address = snapshot_hash(s, person(first + i, address));
        rows[i].object.octets[0] = (uint8_t)((first + i) >> 8);
        rows[i].object.octets[1] = (uint8_t)(first + i);
        rows[i].limits = i % 8 == 0 ? SNAPSHOT_HAS_RULES : i;
    }
    rules.object = rows[0].object;
    require(snapshot_take(p, epoch, &look, &result, &e) == SNAPSHOT_TAKEN || is_damaged);
}

static struct snapshot_part *
attach(struct snapshot *s, unsigned *epoch)
{
    struct err e;
    struct snapshot_part *p = snapshot_claim(s, "", epoch);

    require(p != NULL && snapshot_attach(p, *epoch, FINGERPRINT, &e) == 0);
    return p;
}

static void
write_whole(unsigned which)
{
    struct snapshot_part *p;
    struct stat status;
    struct snapshot *s;
    unsigned epoch;
    struct err e;
    int fd;

    (void)unlink(path);
    s = snapshot_open(dir, &e);
    require(s != NULL);
    p = attach(s, &epoch);
    take(s, p, epoch, 0, people[which] / 2, false);
    take(s, p, epoch, people[which] / 2, people[which] / 2, false);
    snapshot_close(&s);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    require(fd >= 0 && fstat(fd, &status) == 0 && (size_t)status.st_size <= FILE_MAX);
    n_whole[which] = (size_t)status.st_size;
    whole[which] = malloc(n_whole[which]);
    require(whole[which] && read(fd, whole[which], n_whole[which]) == status.st_size &&
            close(fd) == 0);
}

static void
set_up(void)
{
    static const uint8_t key[16] = {7};
    char key_path[96];

    log_set_level(LOG_LEVEL_ERROR);
    require(mkdtemp(dir) != NULL && atexit(clean_up) == 0);
    snprintf(path, sizeof path, "%s/recipients.mdb", dir);
    snprintf(key_path, sizeof key_path, "%s/recipients.key", dir);
    write_file(key_path, key, sizeof key);
    write_whole(0);
    write_whole(1);
    damaged = malloc(FILE_MAX);
    require(damaged != NULL);
}

static void
use(struct snapshot *s, unsigned n_people)
{
    struct snapshot_duplicate *duplicates = NULL;
    struct snapshot_reader *r = snapshot_reader_new(s);
    struct snapshot_id *ids = NULL;
    struct snapshot_mark mark;
    struct snapshot_part *p;
    struct dir_verdict v;
    char address[64];
    unsigned epoch;
    struct err e;
    size_t n;

    p = attach(s, &epoch);
    snapshot_mark(p, &mark);
    for (unsigned i = 0; i < n_people; i += n_people / 40) {
        struct span key = person(i, address);

        (void)snapshot_find(r, p, key, &v);
        (void)snapshot_was_known(r, p, key, 0);
        memcpy(address + key.n, "\0a@example.org", 14);
        (void)snapshot_find(r, p, span_of(address, key.n + 14), &v);
    }
    (void)snapshot_objects(p, &ids, &n, &e);
    (void)snapshot_duplicates(p, 8, &duplicates, &n, &e);
    free(ids);
    free(duplicates);
    take(s, p, epoch, 0, n_people / 2, true);
    snapshot_reader_free(&r);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot *s;
    struct err e;
    size_t n;

    if (size < 2 || size > 4096)
        return 0;
    if (!damaged)
        set_up();
    unsigned which = data[1] >> 7;
    n = (size_t)(data[0] | (data[1] & 0x7f) << 8) * 16;
    if (n == 0 || n > n_whole[which])
        n = n_whole[which];
    memcpy(damaged, whole[which], n_whole[which]);
    for (size_t i = 2; i + 4 <= size; i += 4)
        damaged[(size_t)(data[i] | data[i + 1] << 8 | data[i + 2] << 16) % n_whole[which]] =
            data[i + 3];
    write_file(path, damaged, n);
    s = snapshot_open(dir, &e);
    require(s != NULL);
    use(s, people[which]);
    snapshot_close(&s);
    return 0;
}

#define _GNU_SOURCE /* setgroups, seteuid, faccessat */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/check.h"

/* Whether server.user can read what a reload will read, and write what outlives it, is asked of the
 * kernel, in that user's place: mode bits alone know neither the directories above a file nor
 * access control lists. */

struct self {
    gid_t group;
    int n_groups;
    gid_t *groups;
};

static int
become(const char *user, uid_t uid, gid_t gid, struct self *self)
{
    self->group = getegid();
    self->n_groups = getgroups(0, NULL);
    self->groups = self->n_groups >= 0 ? calloc((size_t)self->n_groups + 1, sizeof(gid_t)) : NULL;
    if (self->groups == NULL)
        return -1;
    if (getgroups(self->n_groups, self->groups) < 0 || initgroups(user, gid) != 0 ||
        setegid(gid) != 0 || seteuid(uid) != 0)
        return -1;
    return 0;
}

/* Also after a become that failed half-way. */
static void
return_to(struct self *self)
{
    if (self->groups == NULL)
        return;
    if (seteuid(0) != 0 || setegid(self->group) != 0 ||
        setgroups((size_t)self->n_groups, self->groups) != 0)
        abort(); /* never go on as half another user */
    free(self->groups);
}

static void
need(const struct settings *st, struct faults *f, unsigned line, const char *path)
{
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;

    if (fd >= 0)
        close(fd);
    else if (path != NULL && errno == EACCES)
        faults_add(f, line, false, "%s: user %s cannot read it", path, st->server.user);
}

/* A missing one is no fault: it will be created for that user. */
static void
need_directory(const struct settings *st, struct faults *f, unsigned line, const char *path)
{
    if (path != NULL && faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) != 0 && errno == EACCES)
        faults_add(f, line, false, "%s: user %s cannot write to it", path, st->server.user);
}

/* What somebody else has put into state_dir, a backup by root say: a warning, for it may be nothing
 * of ours. */
static void
need_state(const struct settings *st, struct faults *f)
{
    DIR *dir = st->server.state_dir != NULL ? opendir(st->server.state_dir) : NULL;
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (entry->d_type == DT_REG &&
            faccessat(dirfd(dir), entry->d_name, R_OK | W_OK, AT_EACCESS) != 0 && errno == EACCES)
            faults_add(f, st->server.state_dir_line, true, "%s/%s: user %s cannot write it",
                       st->server.state_dir, entry->d_name, st->server.user);
    if (dir != NULL)
        closedir(dir);
}

static void
need_all(const struct settings *st, struct faults *f)
{
    need(st, f, st->server.user_line, st->path);
    for (size_t i = 0; i < st->tls.certificate.n; i++)
        need(st, f, st->tls.certificate_line, st->tls.certificate.v[i]);
    for (size_t i = 0; i < st->tls.key.n; i++)
        need(st, f, st->tls.key_line, st->tls.key.v[i]);
    for (size_t i = 0; i < st->n_downstreams; i++) {
        const struct settings_downstream *d = &st->downstreams[i];
        need(st, f, d->ca_file_line, d->ca_file);
        need(st, f, d->client_certificate_line, d->client_certificate);
        need(st, f, d->client_key_line, d->client_key);
    }
    for (size_t i = 0; i < st->n_directories; i++) {
        const struct settings_directory *d = &st->directories[i];
        need(st, f, d->file_line, d->file);
        need(st, f, d->ca_file_line, d->ca_file);
        need(st, f, d->bind_password_file_line, d->bind_password_file);
    }
    need(st, f, st->harvest.redis_password_file_line, st->harvest.redis_password_file);
    need_directory(st, f, st->server.state_dir_line, st->server.state_dir);
    need_state(st, f);
    if (st->spool.dir_line != 0)
        need_directory(st, f, st->spool.dir_line, st->spool.dir);
}

bool
settings_find_user(const char *name, uid_t *uid, gid_t *gid)
{
    struct passwd entry, *found = NULL;
    size_t n = 1024;
    char *buffer = NULL, *grown;
    int e = ERANGE;

    while (e == ERANGE && (grown = realloc(buffer, n *= 2)) != NULL) {
        buffer = grown;
        e = getpwnam_r(name, &entry, buffer, n, &found);
    }
    if (e == 0 && found != NULL) {
        *uid = entry.pw_uid;
        *gid = entry.pw_gid;
    }
    free(buffer);
    return e == 0 && found != NULL;
}

void
settings_check_access(const struct settings *st, struct faults *f)
{
    const char *user = st->server.user;
    struct self self = {.groups = NULL};
    uid_t uid;
    gid_t gid;

    if (geteuid() != 0 || user == NULL || !settings_find_user(user, &uid, &gid))
        return;
    if (become(user, uid, gid, &self) == 0)
        need_all(st, f);
    else
        faults_add(f, st->server.user_line, false, "user: cannot become %s: %s", user,
                   strerror(errno));
    return_to(&self);
}

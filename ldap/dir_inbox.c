#include "ldap/dir_inbox.h"

#include <stdatomic.h>
#include <stdlib.h>

struct dir_inbox {
    atomic_uint references;
    struct mailbox *mailbox;
};

struct dir_inbox *
dir_inbox_new(void)
{
    struct dir_inbox *box = calloc(1, sizeof *box);

    if (!box)
        return NULL;
    atomic_init(&box->references, 1);
    box->mailbox = mailbox_new();
    if (!box->mailbox) {
        free(box);
        return NULL;
    }
    return box;
}

struct dir_inbox *
dir_inbox_ref(struct dir_inbox *box)
{
    atomic_fetch_add(&box->references, 1);
    return box;
}

void
dir_inbox_close(struct dir_inbox **inbox)
{
    struct dir_inbox *box = *inbox;

    *inbox = NULL;
    if (!box || atomic_fetch_sub(&box->references, 1) != 1)
        return;
    for (struct mailbox_item *item = mailbox_take(box->mailbox), *next; item; item = next) {
        next = item->next;
        dir_reply_free((struct dir_reply *)item);
    }
    mailbox_free(&box->mailbox);
    free(box);
}

struct mailbox *
dir_inbox_mailbox(const struct dir_inbox *box)
{
    return box->mailbox;
}

void
dir_reply_free(struct dir_reply *r)
{
    free(r->detail);
    free(r->report);
    free(r);
}

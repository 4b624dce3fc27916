#ifndef LDAP_DIR_INBOX_H
#define LDAP_DIR_INBOX_H

#include <stdint.h>

#include "base/mailbox.h"
#include "ldap/dir_verdict.h"

/* Where replies of the connections' threads go: one for each asking loop.  It lives, by reference,
 * until the last question of that loop is answered, also when the loop is gone. */

struct dir_inbox;

struct dir_inbox *dir_inbox_new(void); /* NULL with errno set */
struct dir_inbox *dir_inbox_ref(struct dir_inbox *box);
void dir_inbox_close(struct dir_inbox **box); /* gives a reference up; clears *BOX; NULL is fine */
struct mailbox *dir_inbox_mailbox(const struct dir_inbox *box);

/* What the mailbox holds; the taker frees it with dir_reply_free. */
struct dir_reply {
    struct mailbox_item item;
    uint64_t id;   /* the asker's */
    unsigned step; /* the asker's */
    struct dir_verdict verdict;
    struct dir_detail *detail; /* if it was asked for, or NULL */
    struct dir_report *report; /* the same */
};
void dir_reply_free(struct dir_reply *r);

#endif

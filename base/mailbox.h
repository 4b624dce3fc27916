#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

/* The one way between threads: many post, one takes.  A mutex, a list, and an eventfd that is
 * written only when the list was empty.  Only values and ids travel in it. */

struct mailbox;

/* Stands first in every item, so that the taker may cast. */
struct mailbox_item {
    struct mailbox_item *next;
};

/* NULL with errno set on failure. */
struct mailbox *mailbox_new(void);
/* Items still inside are not freed: take them first.  Clears *M; NULL is fine. */
void mailbox_free(struct mailbox **m);
/* Becomes readable when something is inside; now and then when it was just taken. */
int mailbox_fd(const struct mailbox *m);
/* From any thread.  The box owns ITEM until it is taken. */
void mailbox_post(struct mailbox *m, struct mailbox_item *item);
/* Everything inside, oldest first, or NULL; also makes the descriptor unreadable. */
struct mailbox_item *mailbox_take(struct mailbox *m);
/* As mailbox_take, but waits until there is something: for a thread that does nothing else. */
struct mailbox_item *mailbox_wait(struct mailbox *m);

#endif

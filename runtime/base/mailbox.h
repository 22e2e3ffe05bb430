/* mailbox.h: messages from many threads to one, in order of arrival.
 *
 * The receiver waits on an eventfd (mailbox_fd, for an event loop) or in
 * mailbox_wait; it takes everything that is there in one go. Nodes are
 * intrusive: put a struct mail first in your message. The mailbox owns a node
 * from post to take. Bounded: post refuses past max_messages.
 * Lock: one mutex, held for a few instructions; no other lock is taken inside.
 */
#ifndef ARGOSY_BASE_MAILBOX_H
#define ARGOSY_BASE_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/err.h"

struct mail {
    struct mail *next;
};

struct mailbox {
    pthread_mutex_t lock;
    struct mail *head;
    struct mail **tail;
    size_t count;
    size_t max_messages;
    int event_fd;
};

int mailbox_init(struct mailbox *m, size_t max_messages, struct err *e);
/* Nodes still inside are the caller's to take first. */
void mailbox_release(struct mailbox *m);

/* Any thread. False when full: the node stays the caller's. */
bool mailbox_post(struct mailbox *m, struct mail *node);
/* Like mailbox_post, never refuses: for messages that must not be lost (a peer is gone). */
void mailbox_post_always(struct mailbox *m, struct mail *node);
/* Wakes the receiver without a message. Any thread. */
void mailbox_wake(struct mailbox *m);

/* Receiver only. A list linked by `next`, oldest first, or NULL. Clears the eventfd. */
struct mail *mailbox_take(struct mailbox *m);
/* Receiver only. Blocks until there is something, a wake, or timeout_ms (-1: for ever). */
void mailbox_wait(struct mailbox *m, int timeout_ms);
int mailbox_fd(const struct mailbox *m);

#endif

#include "runtime/base/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/base/check.h"

int mailbox_init(struct mailbox *m, size_t max_messages, struct err *e)
{
    m->head = NULL;
    m->tail = &m->head;
    m->count = 0;
    m->max_messages = max_messages;
    m->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->event_fd < 0)
        return err_sys(e, errno, "mailbox: eventfd");
    pthread_mutex_init(&m->lock, NULL);
    return 0;
}

void mailbox_release(struct mailbox *m)
{
    ASSERT(m->head == NULL);
    close(m->event_fd);
    m->event_fd = -1;
    pthread_mutex_destroy(&m->lock);
}

void mailbox_wake(struct mailbox *m)
{
    uint64_t one = 1;
    ssize_t n = write(m->event_fd, &one, sizeof(one));
    (void)n; /* EAGAIN: the counter is full, so the receiver is awake anyway */
}

static bool post(struct mailbox *m, struct mail *node, bool always)
{
    node->next = NULL;
    pthread_mutex_lock(&m->lock);
    bool fits = always || m->count < m->max_messages;
    bool was_empty = m->head == NULL;
    if (fits) {
        *m->tail = node;
        m->tail = &node->next;
        m->count++;
    }
    pthread_mutex_unlock(&m->lock);
    if (fits && was_empty)
        mailbox_wake(m);
    return fits;
}

bool mailbox_post(struct mailbox *m, struct mail *node)
{
    return post(m, node, false);
}

void mailbox_post_always(struct mailbox *m, struct mail *node)
{
    post(m, node, true);
}

struct mail *mailbox_take(struct mailbox *m)
{
    uint64_t count;
    /* Cleared before the list is taken: a post in between only wakes us once too often. */
    ssize_t n = read(m->event_fd, &count, sizeof(count));
    (void)n;
    pthread_mutex_lock(&m->lock);
    struct mail *all = m->head;
    m->head = NULL;
    m->tail = &m->head;
    m->count = 0;
    pthread_mutex_unlock(&m->lock);
    return all;
}

void mailbox_wait(struct mailbox *m, int timeout_ms)
{
    struct pollfd p = {.fd = m->event_fd, .events = POLLIN};
    poll(&p, 1, timeout_ms);
}

int mailbox_fd(const struct mailbox *m)
{
    return m->event_fd;
}

/* rpc_end.h: one end of the wire in a test: a mailbox, and what is expected to come out of it. */
#ifndef ARGOSY_TESTS_RPC_END_H
#define ARGOSY_TESTS_RPC_END_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/clock.h"
#include "runtime/rpc/rpc.h"

#define PATIENCE_MS 20000

/* One end: its mailbox, and the events that were taken from it and not looked at yet. */
struct end {
    struct mailbox box;
    struct mail *list;
};

static inline void end_init(struct end *n, size_t max)
{
    struct err e;
    n->list = NULL;
    assert_int_equal(mailbox_init(&n->box, max, &e), 0);
}

static inline void end_release(struct end *n)
{
    for (struct mail *m = n->list ? n->list : mailbox_take(&n->box); m;) {
        struct mail *next = m->next;
        rpc_event_free((struct rpc_event *)m);
        m = next;
        if (!m)
            m = mailbox_take(&n->box);
    }
    mailbox_release(&n->box);
}

static inline struct rpc_event *next_event(struct end *n)
{
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    while (!n->list) {
        n->list = mailbox_take(&n->box);
        if (n->list)
            break;
        if (clock_mono_ms() > until)
            fail_msg("no event came");
        mailbox_wait(&n->box, 100);
    }
    struct rpc_event *ev = (struct rpc_event *)n->list;
    n->list = n->list->next;
    return ev;
}

/* Takes the next event, which must be of this kind; the caller frees it. */
static inline struct rpc_event *expect(struct end *n, enum rpc_event_kind kind)
{
    struct rpc_event *ev = next_event(n);
    if (ev->kind != kind)
        fail_msg("event %d came instead of %d: %s", (int)ev->kind, (int)kind,
                 ev->kind == RPC_CLOSED ? ev->why.msg : "");
    return ev;
}

static inline uint64_t expect_opened(struct end *n)
{
    struct rpc_event *ev = expect(n, RPC_OPENED);
    uint64_t stream = ev->stream;
    assert_true(ev->peer[0] != 0);
    assert_true(stream != 0);
    rpc_event_free(ev);
    return stream;
}

static inline struct err expect_closed(struct end *n, uint64_t stream)
{
    struct rpc_event *ev = expect(n, RPC_CLOSED);
    struct err why = ev->why;
    assert_int_equal(ev->stream, stream);
    rpc_event_free(ev);
    return why;
}

static inline struct rpc_config config_of(const char *address)
{
    return (struct rpc_config){
        .address = address, .streams_max = 8, .out_bytes_max = 8u << 20, .keepalive_ms = 2000};
}

#endif

/* A tie to a router that the test plays; what time it is the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/log.h"
#include "runtime/worker/attachment.h"
#include "tests/unit/runtime/rpc/rpc_end.h"

#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 1000 /* under what a Welcome may take */

struct tie {
    struct worker_config config;
    struct offer offer;
    struct roster roster;
    struct identity identity;
    struct end at_router, at_worker;
    struct rpc_server *router;
    uint64_t stream; /* the router's */
    char address[64];
    struct attachment a;
    struct load_report load;
};

static void tie_open(struct tie *t)
{
    struct rpc_config c = config_of("127.0.0.1:0");
    struct err e;
    memset(t, 0, sizeof(*t));
    t->config = (struct worker_config){.heartbeat_ms = 200,
                                       .backoff_min_ms = BACKOFF_MIN_MS,
                                       .backoff_max_ms = BACKOFF_MAX_MS,
                                       .keepalive_ms = 5000,
                                       .out_bytes_max = 1 << 20};
    snprintf(t->offer.name, sizeof(t->offer.name), "fake");
    t->roster = (struct roster){.offers = &t->offer, .n = 1};
    t->identity = (struct identity){
        .id = "tester", .device = {"cpu", "a", 1}, .roster = &t->roster, .config = &t->config};
    end_init(&t->at_router, 1000);
    end_init(&t->at_worker, 1000);
    if (rpc_server_open(&c, &t->at_router.box, &t->router, &e) < 0)
        fail_msg("%s", e.msg);
    snprintf(t->address, sizeof(t->address), "127.0.0.1:%d", rpc_server_port(t->router));
    if (attachment_init(&t->a, t->address, &t->identity, &t->at_worker.box, &e) < 0)
        fail_msg("%s", e.msg);
}

static void tie_close(struct tie *t)
{
    attachment_release(&t->a);
    rpc_server_free(t->router);
    end_release(&t->at_worker);
    end_release(&t->at_router);
}

/* The dial ends, and Hello is there. */
static void attach(struct tie *t, uint64_t now_ms)
{
    struct rpc_event *ev = expect(&t->at_worker, RPC_OPENED);
    attachment_opened(&t->a, ev, now_ms);
    rpc_event_free(ev);
    t->stream = expect_opened(&t->at_router);
    ev = expect(&t->at_router, RPC_FRAME);
    assert_int_equal(ev->from_worker->frame_case, ARGOSY__FROM_WORKER__FRAME_HELLO);
    rpc_event_free(ev);
}

static void expect_load(struct tie *t)
{
    struct rpc_event *ev = expect(&t->at_router, RPC_FRAME);
    assert_int_equal(ev->from_worker->frame_case, ARGOSY__FROM_WORKER__FRAME_LOAD);
    rpc_event_free(ev);
}

static uint64_t tick(struct tie *t, uint64_t now_ms)
{
    return attachment_tick(&t->a, &t->load, 0, now_ms);
}

/* Ticks, and what that writes to stderr. */
static void tick_aloud(struct tie *t, uint64_t now_ms, char *said, size_t cap)
{
    int ends[2], keep = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    tick(t, now_ms);
    dup2(keep, STDERR_FILENO);
    close(keep);
    close(ends[1]);
    ssize_t n = read(ends[0], said, cap - 1);
    close(ends[0]);
    said[n > 0 ? n : 0] = 0;
}

static void test_attachment_leaves_a_router_that_does_not_welcome_it(void **state)
{
    (void)state;
    struct tie t;
    char said[1000];
    uint64_t now = 1000;
    tie_open(&t);
    for (unsigned round = 1; round <= 3; round++) {
        uint64_t until = now + ATTACHMENT_WELCOME_MS;
        attach(&t, now);
        assert_int_equal(tick(&t, until - 1), until); /* sooner than the next Load is due */
        expect_load(&t);
        tick_aloud(&t, until, said, sizeof(said));
        assert_non_null(strstr(said, "no Welcome"));
        assert_non_null(strstr(said, t.address));
        assert_non_null(strstr(said, "protocol=4"));
        tick_aloud(&t, until + 1, said, sizeof(said));
        assert_string_equal(said, ""); /* once */
        assert_int_equal(expect_closed(&t.at_router, t.stream).code, ERR_OK);
        struct rpc_event *ev = expect(&t.at_worker, RPC_CLOSED);
        now = until + 2;
        attachment_closed(&t.a, ev, now);
        rpc_event_free(ev);
        /* However long it waited, it got nowhere: the next wait is drawn from twice as much. */
        assert_int_equal(t.a.failures, round);
        assert_in_range(tick(&t, now), now + BACKOFF_MIN_MS, now + (BACKOFF_MIN_MS << round));
        now = t.a.dial_at_ms;
        tick(&t, now);
        assert_int_equal(t.a.state, ATTACHMENT_DIALLING);
    }
    tie_close(&t);
}

static void test_attachment_stays_where_it_is_welcome(void **state)
{
    (void)state;
    struct tie t;
    Argosy__Welcome w = ARGOSY__WELCOME__INIT;
    tie_open(&t);
    attach(&t, 1000);
    attachment_welcome(&t.a, &w);
    for (uint64_t now = 1000; now <= 1000 + 2 * ATTACHMENT_WELCOME_MS; now += 200) {
        assert_int_equal(tick(&t, now), now + 200);
        expect_load(&t);
    }
    /* What ends after a while is no failure of long ago. */
    t.a.failures = 7;
    rpc_server_close(t.router, t.stream);
    struct rpc_event *ev = expect(&t.at_worker, RPC_CLOSED);
    attachment_closed(&t.a, ev, 1000 + 2 * ATTACHMENT_WELCOME_MS);
    rpc_event_free(ev);
    assert_int_equal(t.a.failures, 1);
    tie_close(&t);
}

int main(void)
{
    log_init("test", LOG_LEVEL_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attachment_leaves_a_router_that_does_not_welcome_it),
        cmocka_unit_test(test_attachment_stays_where_it_is_welcome),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

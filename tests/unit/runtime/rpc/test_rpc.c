/* The two ends of the wire over loopback, in one process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "tests/unit/runtime/rpc/rpc_end.h"

/* A server and one client that is attached to it. */
struct pair {
    struct end at_server, at_client;
    struct rpc_server *server;
    struct rpc_client *client;
    uint64_t server_stream, client_stream;
    char address[64];
};

static void dial(struct pair *p, const struct rpc_config *base)
{
    struct err e;
    struct rpc_config c = *base;
    c.address = p->address;
    if (rpc_client_open(&c, &p->at_client.box, &p->client, &e) < 0)
        fail_msg("%s", e.msg);
    p->client_stream = expect_opened(&p->at_client);
    p->server_stream = expect_opened(&p->at_server);
}

static void pair_open(struct pair *p, const struct rpc_config *base, size_t mail_max)
{
    struct err e;
    memset(p, 0, sizeof(*p));
    end_init(&p->at_server, mail_max);
    end_init(&p->at_client, mail_max);
    if (rpc_server_open(base, &p->at_server.box, &p->server, &e) < 0)
        fail_msg("%s", e.msg);
    if (rpc_server_port(p->server))
        snprintf(p->address, sizeof(p->address), "127.0.0.1:%d", rpc_server_port(p->server));
    else
        snprintf(p->address, sizeof(p->address), "%s", base->address);
    dial(p, base);
}

static void pair_close(struct pair *p)
{
    rpc_client_free(p->client);
    rpc_server_free(p->server);
    end_release(&p->at_client);
    end_release(&p->at_server);
}

static int send_load(struct pair *p, uint64_t steps, struct err *e)
{
    Argosy__Load load = ARGOSY__LOAD__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    load.steps = steps;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = &load;
    return rpc_client_send(p->client, p->client_stream, &f, e);
}

static int send_cancel(struct rpc_server *s, uint64_t stream, uint64_t request, struct err *e)
{
    Argosy__Cancel cancel = ARGOSY__CANCEL__INIT;
    Argosy__ToWorker f = ARGOSY__TO_WORKER__INIT;
    cancel.request = request;
    f.frame_case = ARGOSY__TO_WORKER__FRAME_CANCEL;
    f.cancel = &cancel;
    return rpc_server_send(s, stream, &f, e);
}

/* A Start with a prompt of n tokens of three bytes each. */
static int send_start(struct rpc_server *s, uint64_t stream, size_t n, struct err *e)
{
    uint32_t *tokens = calloc(n ? n : 1, sizeof(*tokens));
    Argosy__Sampling sampling = ARGOSY__SAMPLING__INIT;
    Argosy__Start start = ARGOSY__START__INIT;
    Argosy__ToWorker f = ARGOSY__TO_WORKER__INIT;
    for (size_t i = 0; i < n; i++)
        tokens[i] = 100000 + (uint32_t)(i % 1000);
    start.request = 1;
    start.sampling = &sampling;
    start.prompt = tokens;
    start.n_prompt = n;
    f.frame_case = ARGOSY__TO_WORKER__FRAME_START;
    f.start = &start;
    int rc = rpc_server_send(s, stream, &f, e);
    free(tokens);
    return rc;
}

static void test_rpc_carries_frames_both_ways_in_order(void **state)
{
    (void)state;
    enum { N = 5000 };
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 100000);
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(send_load(&p, i, &e), 0);
        assert_int_equal(send_cancel(p.server, p.server_stream, i, &e), 0);
    }
    for (uint64_t i = 0; i < N; i++) {
        struct rpc_event *ev = expect(&p.at_server, RPC_FRAME);
        assert_int_equal(ev->from_worker->frame_case, ARGOSY__FROM_WORKER__FRAME_LOAD);
        assert_int_equal(ev->from_worker->load->steps, i);
        rpc_event_free(ev);
        ev = expect(&p.at_client, RPC_FRAME);
        assert_int_equal(ev->to_worker->frame_case, ARGOSY__TO_WORKER__FRAME_CANCEL);
        assert_int_equal(ev->to_worker->cancel->request, i);
        rpc_event_free(ev);
    }
    pair_close(&p);
}

static void test_rpc_works_over_a_unix_socket(void **state)
{
    (void)state;
    char address[64];
    struct pair p;
    struct err e;
    snprintf(address, sizeof(address), "unix:build/test-rpc-%d.sock", (int)getpid());
    struct rpc_config c = config_of(address);
    pair_open(&p, &c, 1000);
    assert_int_equal(rpc_server_port(p.server), 0);
    assert_int_equal(send_load(&p, 7, &e), 0);
    struct rpc_event *ev = expect(&p.at_server, RPC_FRAME);
    assert_int_equal(ev->from_worker->load->steps, 7);
    rpc_event_free(ev);
    pair_close(&p);
}

static void test_rpc_says_when_the_client_vanishes(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 1000);
    rpc_client_free(p.client);
    p.client = NULL;
    expect_closed(&p.at_server, p.server_stream);
    assert_int_equal(send_cancel(p.server, p.server_stream, 1, &e), ERR_PEER);
    pair_close(&p);
}

static void test_rpc_says_when_the_server_goes(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 1000);
    rpc_server_free(p.server);
    p.server = NULL;
    struct err why = expect_closed(&p.at_client, p.client_stream);
    assert_int_equal(why.code, ERR_PEER);
    assert_non_null(strstr(why.msg, "shutting down"));
    assert_int_equal(send_load(&p, 1, &e), ERR_PEER);
    pair_close(&p);
}

static void test_rpc_close_delivers_what_was_queued(void **state)
{
    (void)state;
    enum { N = 500 };
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 10000);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(send_cancel(p.server, p.server_stream, i, &e), 0);
    rpc_server_close(p.server, p.server_stream);
    for (uint64_t i = 0; i < N; i++)
        rpc_event_free(expect(&p.at_client, RPC_FRAME));
    assert_int_equal(expect_closed(&p.at_client, p.client_stream).code, ERR_OK);
    assert_int_equal(expect_closed(&p.at_server, p.server_stream).code, ERR_OK);

    assert_int_equal(rpc_client_dial(p.client, &e), 0);
    p.client_stream = expect_opened(&p.at_client);
    p.server_stream = expect_opened(&p.at_server);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(send_load(&p, i, &e), 0);
    rpc_client_close(p.client, p.client_stream);
    for (uint64_t i = 0; i < N; i++)
        rpc_event_free(expect(&p.at_server, RPC_FRAME));
    assert_int_equal(expect_closed(&p.at_server, p.server_stream).code, ERR_OK);
    assert_int_equal(expect_closed(&p.at_client, p.client_stream).code, ERR_OK);
    pair_close(&p);
}

static void test_rpc_refuses_a_frame_over_the_limit(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 1000);
    assert_int_equal(send_start(p.server, p.server_stream, 1500000, &e), ERR_LIMIT);
    /* The largest that fits arrives whole, and the stream lives on. */
    assert_int_equal(send_start(p.server, p.server_stream, 1u << 20, &e), 0);
    struct rpc_event *ev = expect(&p.at_client, RPC_FRAME);
    assert_int_equal(ev->to_worker->start->n_prompt, 1u << 20);
    assert_int_equal(ev->to_worker->start->prompt[999], 100999);
    rpc_event_free(ev);
    pair_close(&p);
}

static void test_rpc_closes_a_peer_that_breaks_a_bound(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 1000);
    Argosy__Hello hello = ARGOSY__HELLO__INIT; /* no worker_id */
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_HELLO;
    f.hello = &hello;
    assert_int_equal(rpc_client_send(p.client, p.client_stream, &f, &e), 0);
    struct err why = expect_closed(&p.at_server, p.server_stream);
    assert_int_equal(why.code, ERR_RANGE);
    assert_string_equal(why.msg, "hello.worker_id is empty");
    why = expect_closed(&p.at_client, p.client_stream);
    assert_int_equal(why.code, ERR_PEER);
    assert_non_null(strstr(why.msg, "hello.worker_id is empty"));

    assert_int_equal(rpc_client_dial(p.client, &e), 0);
    p.client_stream = expect_opened(&p.at_client);
    p.server_stream = expect_opened(&p.at_server);
    assert_int_equal(send_start(p.server, p.server_stream, (1u << 20) + 1, &e), 0);
    why = expect_closed(&p.at_client, p.client_stream);
    assert_int_equal(why.code, ERR_RANGE);
    assert_non_null(strstr(why.msg, "start.prompt"));
    expect_closed(&p.at_server, p.server_stream);
    pair_close(&p);
}

static void test_rpc_closes_a_reader_that_is_too_slow(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e = {0};
    int rc = 0, sent = 0;
    pair_open(&p, &c, 2); /* the client's owner takes nothing: two frames fit */
    while (rc == 0 && sent < 100) {
        rc = send_start(p.server, p.server_stream, 300000, &e);
        sent += rc == 0;
    }
    assert_int_equal(rc, ERR_LIMIT);
    assert_in_range(sent, 8, 60); /* 0.9 MB each: the queue's 8 MB and what is on the way */
    struct err why = expect_closed(&p.at_server, p.server_stream);
    assert_int_equal(why.code, ERR_LIMIT);
    assert_non_null(strstr(why.msg, "does not read"));
    pair_close(&p);
}

static void test_rpc_waits_for_an_owner_without_room(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 4);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(send_cancel(p.server, p.server_stream, i, &e), 0);
    rpc_server_close(p.server, p.server_stream);
    for (uint64_t i = 0; i < N; i++) {
        struct rpc_event *ev = expect(&p.at_client, RPC_FRAME);
        assert_int_equal(ev->to_worker->cancel->request, i);
        rpc_event_free(ev);
    }
    assert_int_equal(expect_closed(&p.at_client, p.client_stream).code, ERR_OK);
    pair_close(&p);
}

static int hold_cancel(struct pair *p, uint64_t request)
{
    Argosy__Cancel cancel = ARGOSY__CANCEL__INIT;
    Argosy__ToWorker f = ARGOSY__TO_WORKER__INIT;
    cancel.request = request;
    f.frame_case = ARGOSY__TO_WORKER__FRAME_CANCEL;
    f.cancel = &cancel;
    return rpc_server_hold(p->server, p->server_stream, &f, NULL);
}

static void expect_cancels(struct end *n, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        struct rpc_event *ev = expect(n, RPC_FRAME);
        assert_int_equal(ev->to_worker->cancel->request, i);
        rpc_event_free(ev);
    }
}

/* The end of a write that was under way takes what is held along: tried until none is. Another 200
 * are more than one message takes. */
static void test_rpc_held_frames_wait_for_a_flush(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    uint64_t n = 0, came = 0;
    pair_open(&p, &c, 1000);
    rpc_server_flush(p.server); /* nothing to do */
    do {
        expect_cancels(&p.at_client, came, n);
        came = n;
        assert_true(n < 50);
        assert_int_equal(hold_cancel(&p, n++), 0);
        usleep(20000);
    } while ((p.at_client.list = mailbox_take(&p.at_client.box)));
    for (uint64_t i = 0; i < 200; i++)
        assert_int_equal(hold_cancel(&p, n++), 0);
    rpc_server_flush(p.server);
    expect_cancels(&p.at_client, came, n);
    pair_close(&p);
}

static void test_rpc_held_frames_keep_their_place_and_go_before_the_end(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 1000);
    assert_int_equal(hold_cancel(&p, 0), 0);
    assert_int_equal(send_cancel(p.server, p.server_stream, 1, &e), 0);
    assert_int_equal(hold_cancel(&p, 2), 0);
    rpc_server_close(p.server, p.server_stream);
    expect_cancels(&p.at_client, 0, 3);
    assert_int_equal(expect_closed(&p.at_client, p.client_stream).code, ERR_OK);
    expect_closed(&p.at_server, p.server_stream);
    assert_int_equal(hold_cancel(&p, 3), ERR_PEER);
    rpc_server_flush(p.server); /* the stream is gone */
    pair_close(&p);
}

enum { CROSSING = 3000 };

static void *send_loads(void *arg)
{
    for (uint64_t i = 0; i < CROSSING; i++)
        if (send_load(arg, i, NULL) < 0)
            return "a Load could not be sent";
    return NULL;
}

static void *send_cancels(void *arg)
{
    struct pair *p = arg;
    for (uint64_t i = 0; i < CROSSING; i++)
        if (send_cancel(p->server, p->server_stream, i, NULL) < 0)
            return "a Cancel could not be sent";
    return NULL;
}

/* Who writes meets what comes the other way, with room for it and without. */
static void test_rpc_keeps_the_order_where_both_write_at_once(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    pthread_t senders[2];
    void *said;
    pair_open(&p, &c, 4);
    assert_int_equal(pthread_create(&senders[0], NULL, send_loads, &p), 0);
    assert_int_equal(pthread_create(&senders[1], NULL, send_cancels, &p), 0);
    for (uint64_t i = 0; i < CROSSING; i++) {
        struct rpc_event *ev = expect(&p.at_server, RPC_FRAME);
        assert_int_equal(ev->from_worker->load->steps, i);
        rpc_event_free(ev);
        ev = expect(&p.at_client, RPC_FRAME);
        assert_int_equal(ev->to_worker->cancel->request, i);
        rpc_event_free(ev);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(senders[i], &said);
        assert_null(said);
    }
    pair_close(&p);
}

static void test_rpc_server_takes_many_and_refuses_one_more(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    struct rpc_client *more[8];
    struct end ends[8];
    pair_open(&p, &c, 1000);
    c.address = p.address;
    for (int i = 0; i < 8; i++) {
        end_init(&ends[i], 100);
        assert_int_equal(rpc_client_open(&c, &ends[i].box, &more[i], &e), 0);
        if (i < 7) {
            expect_opened(&ends[i]);
            expect_opened(&p.at_server);
        }
    }
    struct rpc_event *ev = next_event(&ends[7]);
    if (ev->kind == RPC_OPENED) {
        rpc_event_free(ev);
        ev = next_event(&ends[7]);
    }
    assert_int_equal(ev->kind, RPC_CLOSED);
    assert_non_null(strstr(ev->why.msg, "all the workers it takes"));
    rpc_event_free(ev);
    /* The server goes first, with eight attached. */
    rpc_server_free(p.server);
    p.server = NULL;
    for (int i = 0; i < 8; i++) {
        rpc_client_free(more[i]);
        end_release(&ends[i]);
    }
    pair_close(&p);
}

static void test_rpc_dials_again_after_a_failure(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    pair_open(&p, &c, 1000);
    assert_int_equal(rpc_client_dial(p.client, &e), ERR_BUSY);
    rpc_server_free(p.server);
    expect_closed(&p.at_client, p.client_stream);
    for (int i = 0; i < 3; i++) { /* nobody is there */
        assert_int_equal(rpc_client_dial(p.client, &e), 0);
        struct rpc_event *ev = expect(&p.at_client, RPC_CLOSED);
        assert_int_equal(ev->why.code, ERR_PEER);
        rpc_event_free(ev);
    }
    c.address = p.address;
    assert_int_equal(rpc_server_open(&c, &p.at_server.box, &p.server, &e), 0);
    for (;;) { /* what is left of the first server's events */
        struct rpc_event *ev = NULL;
        assert_int_equal(rpc_client_dial(p.client, &e), 0);
        ev = next_event(&p.at_client);
        bool opened = ev->kind == RPC_OPENED;
        p.client_stream = ev->stream;
        rpc_event_free(ev);
        if (opened)
            break;
    }
    assert_int_equal(send_load(&p, 9, &e), 0);
    for (bool found = false; !found;) {
        struct rpc_event *ev = next_event(&p.at_server);
        found = ev->kind == RPC_FRAME && ev->from_worker->load->steps == 9;
        rpc_event_free(ev);
    }
    pair_close(&p);
}

static void test_rpc_second_server_on_a_port_is_an_error(void **state)
{
    (void)state;
    struct rpc_config c = config_of("127.0.0.1:0");
    struct pair p;
    struct err e;
    struct rpc_server *second = NULL;
    pair_open(&p, &c, 1000);
    c.address = p.address;
    assert_int_equal(rpc_server_open(&c, &p.at_server.box, &second, &e), ERR_IO);
    assert_non_null(strstr(e.msg, p.address));
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rpc_carries_frames_both_ways_in_order),
        cmocka_unit_test(test_rpc_works_over_a_unix_socket),
        cmocka_unit_test(test_rpc_says_when_the_client_vanishes),
        cmocka_unit_test(test_rpc_says_when_the_server_goes),
        cmocka_unit_test(test_rpc_close_delivers_what_was_queued),
        cmocka_unit_test(test_rpc_refuses_a_frame_over_the_limit),
        cmocka_unit_test(test_rpc_closes_a_peer_that_breaks_a_bound),
        cmocka_unit_test(test_rpc_closes_a_reader_that_is_too_slow),
        cmocka_unit_test(test_rpc_waits_for_an_owner_without_room),
        cmocka_unit_test(test_rpc_keeps_the_order_where_both_write_at_once),
        cmocka_unit_test(test_rpc_held_frames_wait_for_a_flush),
        cmocka_unit_test(test_rpc_held_frames_keep_their_place_and_go_before_the_end),
        cmocka_unit_test(test_rpc_server_takes_many_and_refuses_one_more),
        cmocka_unit_test(test_rpc_dials_again_after_a_failure),
        cmocka_unit_test(test_rpc_second_server_on_a_port_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

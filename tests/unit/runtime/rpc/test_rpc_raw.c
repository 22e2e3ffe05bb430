/* A peer that speaks gRPC but not our protocol: plain gRPC core calls against rpc_server. */
#include <grpc/byte_buffer.h>
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/runtime/rpc/rpc_end.h"

struct raw {
    struct end at_server;
    struct rpc_server *server;
    grpc_completion_queue *cq;
    grpc_channel *channel;
};

static void raw_open(struct raw *r, grpc_compression_algorithm compression)
{
    struct rpc_config c = config_of("127.0.0.1:0");
    struct err e;
    char address[64];
    end_init(&r->at_server, 100);
    if (rpc_server_open(&c, &r->at_server.box, &r->server, &e) < 0)
        fail_msg("%s", e.msg);
    snprintf(address, sizeof(address), "127.0.0.1:%d", rpc_server_port(r->server));
    r->cq = grpc_completion_queue_create_for_pluck(NULL);
    grpc_arg unlimited[] = {
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)GRPC_ARG_MAX_SEND_MESSAGE_LENGTH,
         .value.integer = -1},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM,
         .value.integer = (int)compression},
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_HTTP_PROXY, .value.integer = 0},
    };
    grpc_channel_args args = {3, unlimited};
    grpc_channel_credentials *creds = grpc_insecure_credentials_create();
    r->channel = grpc_channel_create(address, creds, &args);
    grpc_channel_credentials_release(creds);
}

static void raw_close(struct raw *r)
{
    grpc_channel_destroy(r->channel);
    grpc_completion_queue_shutdown(r->cq);
    grpc_completion_queue_destroy(r->cq);
    rpc_server_free(r->server);
    end_release(&r->at_server);
}

/* Sends one message of these bytes (NULL: none) and returns the status that ends the call. */
static grpc_status_code raw_call(struct raw *r, const char *method, const void *bytes, size_t n,
                                 uint32_t flags, char *details, size_t cap)
{
    grpc_call *call = grpc_channel_create_call(
        r->channel, NULL, GRPC_PROPAGATE_DEFAULTS, r->cq, grpc_slice_from_static_string(method),
        NULL, gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_seconds(10, GPR_TIMESPAN)),
        NULL);
    grpc_metadata_array initial, trailing;
    grpc_metadata_array_init(&initial);
    grpc_metadata_array_init(&trailing);
    grpc_status_code status = GRPC_STATUS_UNKNOWN;
    grpc_slice words = grpc_empty_slice();
    grpc_slice slice = grpc_slice_from_copied_buffer(bytes ? bytes : "", n);
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_RECV_INITIAL_METADATA},
                      {.op = GRPC_OP_RECV_STATUS_ON_CLIENT},
                      {.op = GRPC_OP_SEND_MESSAGE, .flags = flags}};
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &initial;
    ops[2].data.recv_status_on_client.trailing_metadata = &trailing;
    ops[2].data.recv_status_on_client.status = &status;
    ops[2].data.recv_status_on_client.status_details = &words;
    ops[3].data.send_message.send_message = message;
    assert_int_equal(grpc_call_start_batch(call, ops, bytes ? 4 : 3, call, NULL), GRPC_CALL_OK);
    grpc_completion_queue_pluck(r->cq, call, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    char *text = grpc_slice_to_c_string(words);
    snprintf(details, cap, "%s", text);
    gpr_free(text);
    grpc_byte_buffer_destroy(message);
    grpc_slice_unref(slice);
    grpc_slice_unref(words);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_call_unref(call);
    return status;
}

/* What the owner of the server hears of such a call. */
static struct err owner_hears(struct raw *r)
{
    rpc_event_free(expect(&r->at_server, RPC_OPENED));
    struct rpc_event *ev = expect(&r->at_server, RPC_CLOSED);
    struct err why = ev->why;
    rpc_event_free(ev);
    return why;
}

static void test_rpc_unknown_methods_are_unimplemented(void **state)
{
    (void)state;
    struct raw r;
    char details[256];
    raw_open(&r, GRPC_COMPRESS_NONE);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(raw_call(&r, i % 2 ? "/argosy.Cluster/Other" : "/x", "hello", 5, 0,
                                  details, sizeof(details)),
                         GRPC_STATUS_UNIMPLEMENTED);
        assert_non_null(strstr(details, "/argosy.Cluster/Attach"));
    }
    assert_null(mailbox_take(&r.at_server.box));
    raw_close(&r);
}

static void test_rpc_garbage_closes_the_stream_with_the_reason(void **state)
{
    (void)state;
    struct raw r;
    char details[256];
    raw_open(&r, GRPC_COMPRESS_NONE);
    assert_int_equal(raw_call(&r, "/argosy.Cluster/Attach", "\x0b garbage", 9,
                              GRPC_WRITE_NO_COMPRESS, details, sizeof(details)),
                     GRPC_STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(details, "9 bytes are not a list of frames"));
    struct err why = owner_hears(&r);
    assert_int_equal(why.code, ERR_FORMAT);
    assert_string_equal(why.msg, details);
    raw_close(&r);
}

/* { frames (15) = { load (2) { steps (5) = 7 } }, 1 = "x", frames = { load { steps = 8 } },
 *   frames = { hello (1) {} } }: the last has no worker_id. */
static void test_rpc_frames_of_a_message_come_one_by_one_up_to_a_bad_one(void **state)
{
    (void)state;
    struct raw r;
    char details[256];
    raw_open(&r, GRPC_COMPRESS_NONE);
    assert_int_equal(raw_call(&r, "/argosy.Cluster/Attach",
                              "\x7a\x04\x12\x02\x28\x07\x0a\x01x\x7a\x04\x12\x02\x28\x08"
                              "\x7a\x02\x0a\x00",
                              19, GRPC_WRITE_NO_COMPRESS, details, sizeof(details)),
                     GRPC_STATUS_INVALID_ARGUMENT);
    assert_string_equal(details, "hello.worker_id is empty");
    rpc_event_free(expect(&r.at_server, RPC_OPENED));
    for (uint64_t steps = 7; steps < 9; steps++) {
        struct rpc_event *ev = expect(&r.at_server, RPC_FRAME);
        assert_int_equal(ev->from_worker->load->steps, steps);
        rpc_event_free(ev);
    }
    struct rpc_event *ev = expect(&r.at_server, RPC_CLOSED);
    assert_int_equal(ev->why.code, ERR_RANGE);
    rpc_event_free(ev);
    raw_close(&r);
}

/* { hello (1) { worker_id (1) = "w" } }, which stood alone in a message then */
static void test_rpc_a_frame_of_protocol_3_is_refused_by_name(void **state)
{
    (void)state;
    struct raw r;
    char details[256];
    raw_open(&r, GRPC_COMPRESS_NONE);
    assert_int_equal(raw_call(&r, "/argosy.Cluster/Attach", "\x0a\x03\x0a\x01w", 5,
                              GRPC_WRITE_NO_COMPRESS, details, sizeof(details)),
                     GRPC_STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(details, "protocol 3"));
    assert_int_equal(owner_hears(&r).code, ERR_RANGE);
    raw_close(&r);
}

static void test_rpc_compressed_frames_are_refused_unread(void **state)
{
    (void)state;
    struct raw r;
    char details[256];
    raw_open(&r, GRPC_COMPRESS_GZIP);
    char *zeros = calloc(1, 16 << 20); /* 16 KB on the wire */
    grpc_status_code status =
        raw_call(&r, "/argosy.Cluster/Attach", zeros, 16 << 20, 0, details, sizeof(details));
    free(zeros);
    assert_int_equal(status, GRPC_STATUS_UNIMPLEMENTED);
    assert_non_null(strstr(details, "gzip"));
    assert_int_equal(owner_hears(&r).code, ERR_PEER);
    raw_close(&r);
}

static void test_rpc_oversize_messages_are_refused(void **state)
{
    (void)state;
    struct raw r;
    char details[256];
    raw_open(&r, GRPC_COMPRESS_NONE);
    char *zeros = calloc(1, 5 << 20);
    grpc_status_code status = raw_call(&r, "/argosy.Cluster/Attach", zeros, 5 << 20,
                                       GRPC_WRITE_NO_COMPRESS, details, sizeof(details));
    free(zeros);
    assert_int_equal(status, GRPC_STATUS_RESOURCE_EXHAUSTED);
    struct err why = owner_hears(&r);
    assert_int_equal(why.code, ERR_PEER);
    assert_non_null(strstr(why.msg, "too large"));
    raw_close(&r);
}

static void test_rpc_server_ends_with_a_silent_call_open(void **state)
{
    (void)state;
    struct raw r;
    raw_open(&r, GRPC_COMPRESS_NONE);
    grpc_call *call =
        grpc_channel_create_call(r.channel, NULL, GRPC_PROPAGATE_DEFAULTS, r.cq,
                                 grpc_slice_from_static_string("/argosy.Cluster/Attach"), NULL,
                                 gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    assert_int_equal(grpc_call_start_batch(call, &op, 1, &op, NULL), GRPC_CALL_OK);
    grpc_completion_queue_pluck(r.cq, &op, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    rpc_event_free(expect(&r.at_server, RPC_OPENED));
    uint64_t before = clock_mono_ms();
    rpc_server_free(r.server);
    r.server = NULL;
    assert_true(clock_mono_ms() - before < 5000);
    grpc_call_unref(call);
    raw_close(&r);
}

int main(void)
{
    grpc_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rpc_unknown_methods_are_unimplemented),
        cmocka_unit_test(test_rpc_garbage_closes_the_stream_with_the_reason),
        cmocka_unit_test(test_rpc_frames_of_a_message_come_one_by_one_up_to_a_bad_one),
        cmocka_unit_test(test_rpc_a_frame_of_protocol_3_is_refused_by_name),
        cmocka_unit_test(test_rpc_compressed_frames_are_refused_unread),
        cmocka_unit_test(test_rpc_oversize_messages_are_refused),
        cmocka_unit_test(test_rpc_server_ends_with_a_silent_call_open),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    grpc_shutdown_blocking();
    return failed;
}

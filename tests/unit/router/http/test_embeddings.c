/* POST /v1/embeddings over a fake pool. */
#include "tests/unit/router/http/harness.h"

#define EMBED "/v1/embeddings"

static double vector_at(struct json_object *o, int item, size_t i)
{
    char path[32];
    snprintf(path, sizeof(path), "data.%d.embedding", item);
    return json_object_get_double(json_object_array_get_idx(json_at(o, path), i));
}

/* The fake pool's vector is (3, first id, 4), or (3, first id, -1.5) for a mean. */
static void test_embeddings_have_openais_shape(void **state)
{
    struct reply r;
    (void)state;
    post(EMBED, "{\"model\":\"tiny\",\"input\":[0,5],\"encoding_format\":\"float\"}", &r);
    assert_int_equal(r.status, 200);
    struct json_object *o = reply_json(&r);
    assert_string_equal(str_at(o, "object"), "list");
    assert_string_equal(str_at(o, "model"), "tiny");
    assert_string_equal(str_at(o, "data.0.object"), "embedding");
    assert_int_equal(int_at(o, "data.0.index"), 0);
    assert_int_equal(json_object_array_length(json_at(o, "data.0.embedding")), 3);
    assert_true((float)vector_at(o, 0, 0) == 0.6f); /* 3 of (3, 0, 4), whose length is 5 */
    assert_true(vector_at(o, 0, 1) == 0 && (float)vector_at(o, 0, 2) == 0.8f);
    assert_int_equal(int_at(o, "usage.prompt_tokens"), 2);
    assert_int_equal(int_at(o, "usage.total_tokens"), 2);
    assert_string_equal(reply_header(&r, "X-Argosy-Worker"), "worker-1");
    json_object_put(o);
    reply_release(&r);
}

static void test_embeddings_of_several_inputs_are_in_order(void **state)
{
    struct reply r;
    (void)state;
    post(EMBED,
         "{\"model\":\"tiny\",\"input\":[[7],[8,1],[9]],\"pooling\":\"mean\",\"normalize\":false}",
         &r);
    assert_int_equal(r.status, 200);
    struct json_object *o = reply_json(&r);
    for (int i = 0; i < 3; i++) {
        assert_true(vector_at(o, i, 0) == 3 && vector_at(o, i, 2) == -1.5);
        assert_true(vector_at(o, i, 1) == 7 + i);
    }
    assert_int_equal(int_at(o, "usage.prompt_tokens"), 4);
    json_object_put(o);
    reply_release(&r);
    post(EMBED, "{\"model\":\"tiny\",\"input\":[\"ab\",\"b\"],\"normalize\":false}", &r);
    o = reply_json(&r);
    assert_true(vector_at(o, 0, 1) == 'a' && vector_at(o, 1, 1) == 'b');
    json_object_put(o);
    reply_release(&r);
}

/* struct.pack("<3f", 3, 7, 4) in base64. */
static void test_embeddings_in_base64_are_little_endian_floats(void **state)
{
    struct reply r;
    (void)state;
    post(EMBED,
         "{\"model\":\"tiny\",\"input\":[7],\"normalize\":false,\"encoding_format\":\"base64\"}",
         &r);
    struct json_object *o = reply_json(&r);
    assert_string_equal(str_at(o, "data.0.embedding"), "AABAQAAA4EAAAIBA");
    json_object_put(o);
    reply_release(&r);
}

/* Workers with room for three give 300 inputs their vectors all the same. */
static void test_embeddings_wait_for_room(void **state)
{
    struct reply r;
    struct buf body;
    (void)state;
    fake.live_max = 3;
    buf_init(&body, 0);
    buf_adds(&body, "{\"model\":\"tiny\",\"normalize\":false,\"input\":[[0]");
    for (int i = 1; i < 300; i++)
        buf_addf(&body, ",[%d]", i % TINY_VOCAB);
    buf_adds(&body, "]}");
    post(EMBED, buf_str(&body), &r);
    assert_int_equal(r.status, 200);
    struct json_object *o = reply_json(&r);
    assert_int_equal(json_object_array_length(json_at(o, "data")), 300);
    for (int i = 0; i < 300; i++)
        assert_true(vector_at(o, i, 1) == i % (int)TINY_VOCAB);
    json_object_put(o);
    reply_release(&r);
    buf_release(&body);
    fake.refuse = true;
    fake.fault = GEN_FAULT_BUSY;
    post(EMBED, "{\"model\":\"tiny\",\"input\":[[1],[2]]}", &r);
    assert_int_equal(r.status, 429);
    reply_release(&r);
}

static void expect_embeddings_refused(const char *fields, int status, const char *param)
{
    char body[512];
    struct reply r;
    snprintf(body, sizeof(body), "{\"model\":\"tiny\",%s}", fields);
    post(EMBED, body, &r);
    assert_int_equal(r.status, status);
    struct json_object *o = reply_json(&r);
    assert_string_equal(str_at(o, "error.param"), param);
    json_object_put(o);
    reply_release(&r);
}

static void test_embeddings_refuse_what_is_wrong(void **state)
{
    struct reply r;
    struct buf body;
    (void)state;
    expect_embeddings_refused("\"input\":\"\"", 400, "input");
    expect_embeddings_refused("\"input\":[]", 400, "input");
    expect_embeddings_refused("\"input\":[\"a\",\"\"]", 400, "input[1]");
    expect_embeddings_refused("\"input\":[[1],[99999]]", 400, "input[1]");
    expect_embeddings_refused("\"user\":\"u\"", 400, "input");
    expect_embeddings_refused("\"input\":\"a\",\"dimensions\":2", 400, "dimensions");
    expect_embeddings_refused("\"input\":\"a\",\"encoding_format\":\"int8\"", 400,
                              "encoding_format");
    expect_embeddings_refused("\"input\":\"a\",\"pooling\":\"cls\"", 400, "pooling");
    expect_embeddings_refused("\"input\":\"a\",\"stream\":true", 400, "stream");
    post(EMBED, "{\"model\":\"none\",\"input\":\"a\"}", &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
    buf_init(&body, 0);
    buf_adds(&body, "{\"model\":\"tiny\",\"input\":[[0]");
    for (int i = 0; i < 2048; i++)
        buf_adds(&body, ",[1]");
    buf_adds(&body, "]}");
    post(EMBED, buf_str(&body), &r);
    assert_int_equal(r.status, 400);
    reply_release(&r);
    buf_release(&body);
}

/* One that fails takes the others with it; so does a client that goes. */
static void test_embeddings_end_together(void **state)
{
    struct reply r;
    (void)state;
    fake.fail_at = 0;
    fake.fault = GEN_FAULT_WORKER;
    post(EMBED, "{\"model\":\"tiny\",\"input\":[[1],[2],[3]]}", &r);
    assert_int_equal(r.status, 502);
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.cancelled, 2);
    reply_release(&r);
    fake.hold = true;
    int fd = dial();
    assert_true(send_text(fd,
                          "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 38\r\n\r\n"
                          "{\"model\":\"tiny\",\"input\":[[1],[2],[3]]}"));
    for (int i = 0; i < 1000 && fake.live < 3; i++)
        pump_ms(1);
    assert_int_equal(fake.live, 3);
    close(fd);
    for (int i = 0; i < 1000 && fake.live > 0; i++)
        pump_ms(1);
    assert_int_equal(fake.live, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, server_setup, server_teardown)
    const struct CMUnitTest tests[] = {
        T(test_embeddings_have_openais_shape),
        T(test_embeddings_of_several_inputs_are_in_order),
        T(test_embeddings_in_base64_are_little_endian_floats),
        T(test_embeddings_wait_for_room),
        T(test_embeddings_refuse_what_is_wrong),
        T(test_embeddings_end_together),
    };
    return cmocka_run_group_tests(tests, NULL, group_teardown);
}

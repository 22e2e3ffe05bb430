/* The server below the API: heads, bodies, limits, connections. */
#include "tests/unit/router/http/harness.h"

#define GET_HEALTH "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
#define STREAM_BODY "{\"model\":\"tiny\",\"prompt\":\"x\",\"stream\":true,\"max_tokens\":500}"

static void expect_error(const char *request, int status)
{
    struct reply r;
    exchange(request, &r);
    if (r.status != status)
        fail_msg("%.60s: wanted %d, got %d", request, status, r.status);
    struct json_object *o = reply_json(&r);
    assert_non_null(json_at(o, "error.message"));
    assert_string_equal(str_at(o, "error.type"),
                        status >= 500 ? "server_error" : "invalid_request_error");
    assert_non_null(reply_header(&r, "X-Request-Id"));
    json_object_put(o);
    reply_release(&r);
}

static void test_health_answers(void **state)
{
    struct reply r;
    (void)state;
    exchange(GET_HEALTH, &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(buf_str(&r.body), "{\"status\":\"ok\"}");
    assert_string_equal(reply_header(&r, "Connection"), "keep-alive");
    assert_null(reply_header(&r, "Access-Control-Allow-Origin"));
    reply_release(&r);
}

static void test_unknown_path_and_method(void **state)
{
    struct reply r;
    (void)state;
    expect_error("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect_error("GET /v1/chat/completions/ HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect_error("GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    expect_error("DELETE /v1/models/tiny HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    exchange("PUT /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_string_equal(reply_header(&r, "Allow"), "POST, OPTIONS");
    reply_release(&r);
}

static void test_malformed_requests_get_json(void **state)
{
    (void)state;
    expect_error("GARBAGE\r\n\r\n", 400);
    expect_error("GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    expect_error("GET /health HTTP/1.1\nHost: x\r\n\r\n", 400);
    expect_error("GET /health HTTP/1.1\r\n\r\n", 400);
    expect_error("GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 505);
    expect_error("GET /health HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n", 400);
    expect_error("GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400);
    expect_error("GET /health HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", 400);
    expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n", 400);
    /* Bodies that would do: it is the heads that are refused. */
    expect_error("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n"
                 "Content-Length: 14\r\n\r\n{\"prompt\":\"x\"}",
                 400);
    expect_error("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n"
                 "Transfer-Encoding: chunked\r\n\r\ne\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\n",
                 400);
    expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
                 501);
    expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
                 "Content-Length: 2\r\n\r\n{}",
                 415);
    expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "zz\r\n",
                 400);
    expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n", 417);
}

static void test_header_over_limit_is_431(void **state)
{
    struct buf text;
    (void)state;
    buf_init(&text, 0);
    buf_adds(&text, "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ");
    for (int i = 0; i < 4000; i++)
        buf_adds(&text, "0123456789");
    expect_error(buf_str(&text), 431); /* before its end is there */
    buf_adds(&text, "\r\n\r\n");
    expect_error(buf_str(&text), 431);
    buf_clear(&text);
    buf_adds(&text, "GET /health HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 100; i++)
        buf_adds(&text, "X-A: 1\r\n");
    buf_adds(&text, "\r\n");
    expect_error(buf_str(&text), 431);
    buf_release(&text);
}

static void test_body_over_limit_is_413(void **state)
{
    struct buf text;
    (void)state;
    /* Refused from Content-Length alone, and without the 100 that was asked for. */
    expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
                 "Expect: 100-continue\r\n\r\n",
                 413);
    expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "ffffff\r\n",
                 413);
    /* The client sends all of it before it reads: the answer must not be lost to a reset. */
    buf_init(&text, 0);
    buf_adds(&text, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n");
    for (int i = 0; i < 80000; i++)
        buf_adds(&text, "0123456789012345678901234567890123456789012345678901234567890123456789"
                        "012345678901234567890123456789");
    struct reply r;
    int fd = dial();
    assert_true(send_bytes(fd, text.data, text.len));
    read_reply(fd, &r, NULL, false);
    assert_int_equal(r.status, 413);
    assert_true(is_closed(fd));
    reply_release(&r);
    close(fd);
    buf_release(&text);
}

static void test_continue_is_answered(void **state)
{
    struct reply r;
    struct buf rest;
    (void)state;
    buf_init(&rest, 0);
    int fd = dial();
    send_text(fd, "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n"
                  "Expect: 100-continue\r\n\r\n");
    read_reply(fd, &r, &rest, false);
    assert_int_equal(r.status, 100);
    reply_release(&r);
    send_text(fd, "{\"prompt\":\"x\"}");
    read_reply(fd, &r, &rest, false);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    close(fd);
    buf_release(&rest);
}

static void test_chunked_body_is_read(void **state)
{
    static const char request[] =
        "POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5;ext=1\r\n{\"pro\r\n9\r\nmpt\":\"x\"}\r\n0\r\nTrailer: 1\r\n\r\n";
    struct reply r;
    (void)state;
    int fd = dial();
    for (size_t i = 0; i + 1 < sizeof(request); i++) /* byte by byte */
        send_bytes(fd, request + i, 1);
    read_reply(fd, &r, NULL, false);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(buf_str(&r.body), "\"tokens\":[120]"));
    reply_release(&r);
    close(fd);
}

static void test_keep_alive_and_pipelining(void **state)
{
    struct reply r;
    struct buf rest;
    (void)state;
    buf_init(&rest, 0);
    int fd = dial();
    send_text(fd,
              GET_HEALTH "\r\n" GET_HEALTH
                         "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 33\r\n\r\n"
                         "{\"model\":\"tiny\",\"prompt\":\"hello\"}" GET_HEALTH
                         "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" GET_HEALTH);
    for (int i = 0; i < 5; i++) {
        read_reply(fd, &r, &rest, false);
        assert_int_equal(r.status, 200);
        assert_int_equal(strstr(buf_str(&r.body), "choices") != NULL, i == 2);
        reply_release(&r);
    }
    assert_int_equal(rest.len, 0);
    assert_true(is_closed(fd));
    close(fd);
    buf_release(&rest);
}

static void test_head_has_no_body(void **state)
{
    struct reply r;
    (void)state;
    exchange("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "Content-Length"), "15");
    reply_release(&r);
}

static void test_options_and_cors(void **state)
{
    struct reply r;
    (void)state;
    server.config.cors_origin = "https://app.example";
    server_reopen();
    exchange("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_int_equal(r.status, 204);
    reply_release(&r);
    exchange("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_int_equal(r.status, 204);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "https://app.example");
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Methods"), "POST, OPTIONS");
    reply_release(&r);
}

static void test_http_1_0_stream_ends_with_the_connection(void **state)
{
    struct reply r;
    char text[512];
    (void)state;
    int fd = dial();
    snprintf(text, sizeof(text),
             "POST /v1/completions HTTP/1.0\r\nContent-Length: %zu\r\n\r\n" STREAM_BODY,
             strlen(STREAM_BODY));
    send_text(fd, text);
    pump_ms(50);
    char bytes[8192];
    ssize_t n = recv(fd, bytes, sizeof(bytes) - 1, 0);
    assert_true(n > 0);
    bytes[n] = 0;
    assert_null(strstr(bytes, "Transfer-Encoding"));
    assert_non_null(strstr(bytes, "data: [DONE]\n\n"));
    assert_true(is_closed(fd));
    close(fd);
    (void)r;
}

static void test_request_id_is_kept_if_sane(void **state)
{
    struct reply r;
    (void)state;
    exchange("GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: my-id.1\r\n\r\n", &r);
    assert_string_equal(reply_header(&r, "X-Request-Id"), "my-id.1");
    reply_release(&r);
    exchange("GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: a \"b\"\r\n\r\n", &r);
    assert_int_equal(strncmp(reply_header(&r, "X-Request-Id"), "req-", 4), 0);
    reply_release(&r);
}

static void test_slow_heads_and_bodies_time_out(void **state)
{
    struct reply r;
    (void)state;
    server.config.header_timeout_ms = 100;
    server.config.body_timeout_ms = 100;
    server_reopen();
    int head = dial();
    int body = dial();
    send_text(head, "GET /health HTTP/1.1\r\n");
    send_text(body, "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
    for (int i = 0; i < 6; i++) { /* a byte now and then does not help */
        pump_ms(25);
        send(head, "x", 1, MSG_NOSIGNAL);
        send(body, "x", 1, MSG_NOSIGNAL);
    }
    read_reply(head, &r, NULL, false);
    assert_int_equal(r.status, 408);
    reply_release(&r);
    read_reply(body, &r, NULL, false);
    assert_int_equal(r.status, 408);
    reply_release(&r);
    close(head);
    close(body);
}

static void test_idle_connections_are_closed(void **state)
{
    struct reply r;
    (void)state;
    server.config.idle_timeout_ms = 50;
    server_reopen();
    int fresh = dial();
    int used = dial();
    send_text(used, GET_HEALTH);
    read_reply(used, &r, NULL, false);
    reply_release(&r);
    assert_true(is_closed(fresh));
    assert_true(is_closed(used));
    close(fresh);
    close(used);
}

static int open_stream(int receive_bytes)
{
    char text[512];
    int fd = dial_with(receive_bytes);
    snprintf(text, sizeof(text),
             "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n" STREAM_BODY,
             strlen(STREAM_BODY));
    send_text(fd, text);
    return fd;
}

static void test_client_gone_cancels(void **state)
{
    (void)state;
    fake.forever = true;
    fake.delay_us = 1000;
    int fd = open_stream(0);
    pump_ms(20);
    assert_int_equal(fake.live, 1);
    close(fd);
    pump_ms(20);
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.cancelled, 1);
    fake.hold = true; /* and one that waits for its first token, gone by reset */
    fd = open_stream(0);
    pump_ms(20);
    assert_int_equal(fake.live, 1);
    struct linger hard = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fd);
    pump_ms(20);
    assert_int_equal(fake.cancelled, 2);
}

static void test_slow_reader_is_closed_and_cancelled(void **state)
{
    (void)state;
    server.config.output_bytes_max = 65536;
    server_reopen();
    fake.forever = true;
    fake.step = 64;
    /* More than the kernel keeps for a socket: many streams on one script would do as well. */
    server.texts.items[0].context_tokens = 1 << 20;
    char body[256];
    char text[512];
    snprintf(body, sizeof(body),
             "{\"model\":\"tiny\",\"prompt\":\"x\",\"stream\":true,\"max_tokens\":1000000,"
             "\"logprobs\":20}");
    snprintf(text, sizeof(text),
             "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    int fd = dial_with(4096);
    send_text(fd, text);
    uint64_t until = clock_mono_ms() + WAIT_MS;
    while (fake.cancelled == 0 && clock_mono_ms() < until)
        pump();
    server.texts.items[0].context_tokens = TINY_CONTEXT;
    assert_int_equal(fake.cancelled, 1);
    close(fd);
}

static void test_stalled_write_is_closed(void **state)
{
    (void)state;
    server.config.write_timeout_ms = 150;
    server.config.output_bytes_max = 1u << 30;
    server_reopen();
    fake.forever = true;
    fake.step = 64;
    server.texts.items[0].context_tokens = 1 << 24;
    int fd = dial_with(4096);
    const char *body = "{\"model\":\"tiny\",\"prompt\":\"x\",\"stream\":true,"
                       "\"max_tokens\":10000000,\"logprobs\":20}";
    char head[128];
    snprintf(head, sizeof(head),
             "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    send_text(fd, head);
    send_text(fd, body);
    pump_ms(20);
    fake.delay_us = 5000;
    uint64_t until = clock_mono_ms() + WAIT_MS;
    while (fake.cancelled == 0 && clock_mono_ms() < until)
        pump();
    server.texts.items[0].context_tokens = TINY_CONTEXT;
    assert_int_equal(fake.cancelled, 1);
    close(fd);
}

static void test_connections_over_limit_get_503(void **state)
{
    struct reply r;
    (void)state;
    server.config.connections_max = 2;
    server_reopen();
    int a = dial();
    int b = dial();
    pump_ms(10);
    exchange(GET_HEALTH, &r);
    assert_int_equal(r.status, 503);
    json_object_put(reply_json(&r));
    reply_release(&r);
    close(a);
    pump_ms(10);
    exchange(GET_HEALTH, &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    close(b);
}

/* One address is one client: the server is not full, and who comes from elsewhere gets in. */
static void test_connections_of_one_client_over_limit_get_429(void **state)
{
    struct reply r;
    int fds[3];
    (void)state;
    server.config.client_connections_max = 2;
    server_reopen();
    for (int i = 0; i < 3; i++) {
        fds[i] = dial();
        pump_ms(20);
    }
    read_reply(fds[2], &r, NULL, false);
    assert_int_equal(r.status, 429);
    assert_non_null(strstr(buf_str(&r.body), "too_many_connections"));
    reply_release(&r);
    close(fds[2]);
    struct sockaddr_in elsewhere = {.sin_family = AF_INET};
    inet_pton(AF_INET, "127.0.0.9", &elsewhere.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&elsewhere, sizeof(elsewhere)), 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(http_port(server.http))};
    inet_pton(AF_INET, "127.0.0.1", &sa.sin_addr);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    assert_true(send_text(fd, GET_HEALTH));
    read_reply(fd, &r, NULL, false);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    close(fd);
    /* One that ends makes room. */
    close(fds[0]);
    pump_ms(50);
    exchange(GET_HEALTH, &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    close(fds[1]);
}

static void test_a_connection_ends_after_so_many_requests(void **state)
{
    struct reply r;
    (void)state;
    server.config.connection_requests_max = 2;
    server_reopen();
    int fd = dial();
    for (int i = 0; i < 2; i++) {
        send_text(fd, GET_HEALTH);
        read_reply(fd, &r, NULL, false);
        assert_int_equal(r.status, 200);
        assert_string_equal(reply_header(&r, "Connection"), i ? "close" : "keep-alive");
        reply_release(&r);
    }
    assert_true(is_closed(fd));
    close(fd);
}

/* Bodies that never end, from many, take no more than all may together. */
static void test_bodies_together_over_limit_get_503(void **state)
{
    struct reply r;
    char *half = calloc(1, 6000);
    (void)state;
    server.config.bodies_bytes_max = 10000;
    server_reopen();
    int fds[2];
    memset(half, ' ', 5999);
    for (int i = 0; i < 2; i++) {
        fds[i] = dial();
        send_text(fds[i],
                  "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n");
        send_text(fds[i], half);
        pump_ms(20);
    }
    read_reply(fds[1], &r, NULL, false);
    assert_int_equal(r.status, 503);
    reply_release(&r);
    close(fds[0]);
    close(fds[1]);
    pump_ms(50);
    post("/v1/completions", "{\"model\":\"tiny\",\"prompt\":\"hi\"}", &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    free(half);
}

static void test_stop_accepting_finishes_what_runs(void **state)
{
    struct reply r;
    (void)state;
    fake.delay_us = 5000;
    int idle = dial();
    int fd = open_stream(0);
    pump_ms(12);
    assert_int_equal(http_requests_running(server.http), 1);
    http_stop_accepting(server.http);
    read_reply(fd, &r, NULL, false);
    assert_true(r.complete);
    assert_non_null(strstr(buf_str(&r.body), "data: [DONE]\n\n"));
    reply_release(&r);
    assert_true(is_closed(fd));
    assert_true(is_closed(idle));
    assert_int_equal(http_requests_running(server.http), 0);
    close(fd);
    close(idle);
}

static size_t resident_pages(void)
{
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*u %zu", &pages), 1);
    fclose(f);
    return pages;
}

static void test_a_thousand_requests_leave_memory_flat(void **state)
{
    struct reply r;
    size_t before = 0;
    (void)state;
    for (int i = 0; i < 1200; i++) {
        if (i == 200)
            before = resident_pages();
        post("/v1/completions",
             i % 3 == 0   ? "{\"model\":\"tiny\",\"prompt\":\"x\",\"n\":2,\"logprobs\":2}"
             : i % 3 == 1 ? STREAM_BODY
                          : "{\"model\":\"tiny\",\"prompt\":7}",
             &r);
        assert_int_equal(r.status, i % 3 == 2 ? 400 : 200);
        reply_release(&r);
    }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)before; /* the sanitizers keep freed memory; they look for leaks themselves */
#else
    assert_in_range(resident_pages(), 0, before + 64); /* 256 KB */
#endif
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)
    const struct CMUnitTest tests[] = {
        T(test_health_answers),
        T(test_unknown_path_and_method),
        T(test_malformed_requests_get_json),
        T(test_header_over_limit_is_431),
        T(test_body_over_limit_is_413),
        T(test_continue_is_answered),
        T(test_chunked_body_is_read),
        T(test_keep_alive_and_pipelining),
        T(test_head_has_no_body),
        T(test_options_and_cors),
        T(test_http_1_0_stream_ends_with_the_connection),
        T(test_request_id_is_kept_if_sane),
        T(test_slow_heads_and_bodies_time_out),
        T(test_idle_connections_are_closed),
        T(test_client_gone_cancels),
        T(test_slow_reader_is_closed_and_cancelled),
        T(test_stalled_write_is_closed),
        T(test_connections_over_limit_get_503),
        T(test_connections_of_one_client_over_limit_get_429),
        T(test_a_connection_ends_after_so_many_requests),
        T(test_bodies_together_over_limit_get_503),
        T(test_stop_accepting_finishes_what_runs),
        T(test_a_thousand_requests_leave_memory_flat),
    };
    return cmocka_run_group_tests(tests, NULL, group_teardown);
}

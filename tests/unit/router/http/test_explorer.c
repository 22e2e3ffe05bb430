/* The explorer's paths over the fake pool: assets, snapshot, viewers and their bounds. */
#include "tests/unit/router/http/harness.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

/* Opens a viewer and reads until `text` is there; the bytes so far in `seen`. */
static int view(struct buf *seen, const char *text)
{
    int fd = dial_with(4096);
    uint64_t until = clock_mono_ms() + WAIT_MS;
    send_text(fd, GET("/explorer/events"));
    while (!strstr(buf_str(seen), text) && clock_mono_ms() < until) {
        char bytes[4096];
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        if (n > 0)
            buf_add(seen, bytes, (size_t)n);
        else
            pump();
    }
    return fd;
}

static void test_assets_have_a_policy_and_a_tag(void **state)
{
    (void)state;
    static const char *const paths[] = {"/explorer", "/explorer/explorer.css",
                                        "/explorer/explorer.js", "/explorer/charts.js",
                                        "/explorer/icon.svg"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        char request[256];
        struct reply r;
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[i]);
        exchange(request, &r);
        assert_int_equal(r.status, 200);
        assert_true(r.body.len > 200);
        assert_non_null(strstr(reply_header(&r, "Content-Security-Policy"), "default-src 'none'"));
        assert_null(strstr(reply_header(&r, "Content-Security-Policy"), "unsafe"));
        assert_string_equal(reply_header(&r, "X-Content-Type-Options"), "nosniff");
        snprintf(request, sizeof(request),
                 "GET %s HTTP/1.1\r\nHost: x\r\nIf-None-Match: W/\"x\", %s\r\n\r\n", paths[i],
                 reply_header(&r, "ETag"));
        reply_release(&r);
        exchange(request, &r);
        assert_int_equal(r.status, 304);
        assert_int_equal(r.body.len, 0);
        assert_null(reply_header(&r, "Content-Length"));
        reply_release(&r);
    }
}

static void test_the_snapshot_is_json_whatever_a_worker_is_called(void **state)
{
    (void)state;
    struct reply r;
    exchange(GET("/explorer/snapshot"), &r);
    struct json_object *o = reply_json(&r);
    assert_int_equal(r.status, 200);
    assert_string_equal(str_at(o, "workers.0.id"), "wor\"ker-1");
    assert_string_equal(str_at(o, "workers.0.state"), "ready");
    assert_int_equal(int_at(o, "workers.0.kv_pages_used"), 2);
    assert_string_equal(str_at(o, "models.0.name"), "tiny");
    assert_int_equal(int_at(o, "router.moves"), 3);
    assert_int_equal(json_object_array_length(json_at(o, "columns")),
                     json_object_array_length(json_at(o, "sample")));
    json_object_put(o);
    reply_release(&r);
    exchange(GET("/explorer/worker/nobody"), &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
}

static void test_a_viewer_gets_the_past_and_each_second(void **state)
{
    (void)state;
    struct buf seen;
    struct reply r;
    buf_init(&seen, 0);
    int fd = view(&seen, "event: history");
    close(fd);
    pump_ms(20);
    buf_clear(&seen);
    /* Two ticks: the one at once, and the timer's. */
    fd = view(&seen, "\"sample\":[1");
    assert_non_null(strstr(buf_str(&seen), "Content-Type: text/event-stream"));
    exchange(GET("/explorer/worker/wor%22ker-1"), &r);
    struct json_object *o = reply_json(&r);
    assert_string_equal(str_at(o, "id"), "wor\"ker-1");
    assert_true(json_object_array_length(json_at(o, "samples")) >= 1);
    json_object_put(o);
    reply_release(&r);
    close(fd);
    buf_release(&seen);
}

static void test_viewers_are_bounded_and_leave(void **state)
{
    (void)state;
    struct buf seen;
    struct reply r;
    server.config.viewers_max = 2;
    server_reopen();
    buf_init(&seen, 0);
    int one = view(&seen, "event: history");
    buf_clear(&seen);
    int two = view(&seen, "event: history");
    exchange(GET("/explorer/events"), &r);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(buf_str(&r.body), "too_many_viewers"));
    assert_non_null(reply_header(&r, "Retry-After"));
    reply_release(&r);
    close(one);
    pump_ms(20);
    buf_clear(&seen);
    one = view(&seen, "event: history");
    assert_non_null(strstr(buf_str(&seen), "200 OK"));
    exchange(GET("/metrics"), &r);
    assert_non_null(strstr(buf_str(&r.body), "argosy_explorer_viewers 2\n"));
    assert_non_null(strstr(buf_str(&r.body), "argosy_explorer_viewers_refused_total 1\n"));
    reply_release(&r);
    close(one);
    close(two);
    buf_release(&seen);
}

/* A draining router does not wait for people who look. */
static void test_viewers_do_not_hold_a_draining_router(void **state)
{
    (void)state;
    struct buf seen;
    buf_init(&seen, 0);
    int fd = view(&seen, "event: history");
    assert_int_equal(http_requests_running(server.http), 1);
    http_stop_accepting(server.http);
    assert_true(is_closed(fd));
    assert_int_equal(http_requests_running(server.http), 0);
    close(fd);
    buf_release(&seen);
}

static void test_what_is_off_is_not_there(void **state)
{
    (void)state;
    static const char *const requests[] = {GET("/explorer"),          GET("/explorer/explorer.js"),
                                           GET("/explorer/snapshot"), GET("/explorer/events"),
                                           GET("/explorer/worker/x"), GET("/metrics")};
    server.config.explorer = server.config.metrics = false;
    server_reopen();
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct reply r;
        exchange(requests[i], &r);
        assert_int_equal(r.status, 404);
        assert_non_null(strstr(buf_str(&r.body), "unknown_url"));
        reply_release(&r);
    }
}

static void test_nothing_there_can_be_changed(void **state)
{
    (void)state;
    static const char *const paths[] = {"/explorer", "/explorer/snapshot", "/explorer/events",
                                        "/explorer/worker/x", "/explorer/icon.svg"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct reply r;
        post(paths[i], "{}", &r);
        assert_int_equal(r.status, 405);
        reply_release(&r);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)
    const struct CMUnitTest tests[] = {
        T(test_assets_have_a_policy_and_a_tag),
        T(test_the_snapshot_is_json_whatever_a_worker_is_called),
        T(test_a_viewer_gets_the_past_and_each_second),
        T(test_viewers_are_bounded_and_leave),
        T(test_viewers_do_not_hold_a_draining_router),
        T(test_what_is_off_is_not_there),
        T(test_nothing_there_can_be_changed),
    };
    return cmocka_run_group_tests(tests, NULL, group_teardown);
}

/* `argosy top`: what it makes of a snapshot, and that it fits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/cli/top_view.h"

#define HEAD                                                                                     \
    "{\"router\":{\"version\":\"0.1.0\",\"state\":\"serving\",\"up_s\":3725,\"workers\":%u,"     \
    "\"moves\":7},\"columns\":[\"time\",\"tokens\",\"ttft_p50_ms\",\"itl_p50_ms\",\"running\"]," \
    "\"sample\":[1,12345,61.5,null,9],\"workers\":["

static void write_snapshot(struct buf *out, uint32_t n)
{
    buf_addf(out, HEAD, n);
    for (uint32_t i = 0; i < n; i++)
        buf_addf(out,
                 "%s{\"id\":\"worker-%u\",\"device\":\"NVIDIA H100 80GB HBM3\",\"state\":\"%s\","
                 "\"labels\":{\"region\":\"eu-west\"},\"running\":%u,\"waiting\":1,"
                 "\"sequences_max\":8,\"kv_pages\":100,\"kv_pages_used\":25,\"tokens_per_s\":%u,"
                 "\"attached_s\":90061}",
                 i ? "," : "", i, i == 2 ? "draining" : "ready", i % 9, 100 + i);
    buf_adds(out, "]}");
}

static void read_view(struct top_view *v, const char *json)
{
    struct err e = {0};
    if (top_view_read(v, json, strlen(json), &e) < 0)
        fail_msg("%s", e.msg);
}

static void test_a_snapshot_is_read(void **state)
{
    (void)state;
    struct top_view v = {0};
    struct buf json;
    buf_init(&json, 0);
    write_snapshot(&json, 3);
    read_view(&v, buf_str(&json));
    assert_int_equal(v.n, 3);
    assert_int_equal(v.n_attached, 3);
    assert_int_equal(v.up_s, 3725);
    assert_int_equal(v.moves, 7);
    assert_true(v.tokens_per_s == 12345);
    assert_true(v.first_ms[0] == 61.5);
    assert_true(v.each_ms[0] < 0); /* null */
    assert_true(v.each_ms[1] < 0); /* no such column */
    assert_int_equal(v.running, 9);
    assert_string_equal(v.workers[1].id, "worker-1");
    assert_string_equal(v.workers[1].region, "eu-west");
    assert_true(v.workers[1].kv == 0.25);
    top_view_sort(&v, TOP_BY_TOKENS);
    assert_string_equal(v.workers[0].id, "worker-2");
    top_view_release(&v);
    buf_release(&json);
}

/* Characters of the longest line, and the lines. */
static uint32_t widest(const char *text, uint32_t *lines)
{
    uint32_t most = 0;
    *lines = 0;
    for (const char *end; (end = strchr(text, '\n')); text = end + 1, ++*lines)
        if ((uint32_t)(end - text) > most)
            most = (uint32_t)(end - text);
    return most;
}

static void test_it_fits_any_terminal(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{80, 24}, {80, 23}, {40, 10}, {20, 2}, {132, 43}, {300, 8}};
    struct top_view v = {0};
    struct buf json, out;
    buf_init(&json, 0);
    buf_init(&out, 0);
    write_snapshot(&json, 60);
    read_view(&v, buf_str(&json));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t lines;
        buf_clear(&out);
        top_draw(&v, sizes[i][0], sizes[i][1], 0, false, "\n", &out);
        assert_true(widest(buf_str(&out), &lines) <= sizes[i][0]);
        assert_true(lines <= sizes[i][1]);
    }
    buf_clear(&out);
    top_draw(&v, 80, 24, 0, false, "\n", &out);
    assert_non_null(strstr(buf_str(&out), "worker-0           NVIDIA H100 80GB H [........]"));
    assert_non_null(strstr(buf_str(&out), "worker-2           draining "));
    assert_non_null(strstr(buf_str(&out), "and 43 more"));
    buf_clear(&out);
    top_draw(&v, 80, 24, 50, false, "\n", &out);
    assert_null(strstr(buf_str(&out), "worker-49 "));
    assert_non_null(strstr(buf_str(&out), "worker-59 "));
    assert_null(strstr(buf_str(&out), " more"));
    top_view_release(&v);
    buf_release(&json);
    buf_release(&out);
}

static void test_no_name_steers_the_terminal(void **state)
{
    (void)state;
    struct top_view v = {0};
    struct buf out;
    buf_init(&out, 0);
    read_view(&v,
              "{\"router\":{\"version\":\"\\u001b[2J\"},\"workers\":[{\"id\":\"a\\u001b]0;x\\u0007"
              "\\nb\",\"device\":\"M\\u00fcller\\u202e\\u009b31m\",\"state\":\"ready\"}]}");
    top_draw(&v, 80, 24, 0, false, "\n", &out);
    for (size_t i = 0; i < out.len; i++)
        assert_true(out.data[i] == '\n' || (out.data[i] >= 0x20 && out.data[i] < 0x7f));
    assert_non_null(strstr(buf_str(&out), "a?]0;x??b"));
    assert_non_null(strstr(buf_str(&out), "M?ller??31m"));
    top_view_release(&v);
    buf_release(&out);
}

static void test_what_is_no_snapshot_is_an_error(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",     "x", "[]", "{}", "{\"router\":{},\"workers\":1}", "{\"router\":{},\"workers\":[",
        "\"x\""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct top_view v = {0};
        struct err e = {0};
        assert_int_equal(top_view_read(&v, wrong[i], strlen(wrong[i]), &e), ERR_FORMAT);
        assert_int_equal(v.n, 0);
    }
    struct top_view v = {0};
    read_view(&v, "{\"router\":3,\"workers\":[1,null,\"x\",{\"running\":-5,\"kv_pages\":\"x\"}]}");
    assert_int_equal(v.n, 4);
    assert_int_equal(v.workers[3].running, 0);
    top_view_release(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_snapshot_is_read),
        cmocka_unit_test(test_it_fits_any_terminal),
        cmocka_unit_test(test_no_name_steers_the_terminal),
        cmocka_unit_test(test_what_is_no_snapshot_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

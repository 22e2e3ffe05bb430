/* Server-sent events, by the examples of the HTML standard, section 9.2.6. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/cli/sse.h"

static int collect(void *ctx, const char *data, size_t n, struct err *e)
{
    struct buf *out = ctx;
    (void)e;
    buf_addc(out, '<');
    buf_add(out, data, n);
    buf_addc(out, '>');
    return 0;
}

static int refuse(void *ctx, const char *data, size_t n, struct err *e)
{
    ++*(int *)ctx;
    (void)data;
    (void)n;
    return err_set(e, ERR_PEER, "enough");
}

static void expect(const char *stream, const char *events)
{
    for (size_t step = 1; step <= strlen(stream); step++) {
        struct sse s;
        struct buf out;
        struct err e = {0};
        sse_init(&s);
        buf_init(&out, 0);
        for (size_t i = 0, n = strlen(stream); i < n; i += step)
            assert_int_equal(
                sse_feed(&s, stream + i, n - i < step ? n - i : step, collect, &out, &e), 0);
        assert_string_equal(buf_str(&out), events);
        sse_release(&s);
        buf_release(&out);
    }
}

static void test_sse_joins_data_lines(void **state)
{
    (void)state;
    expect("data: YHOO\ndata: +2\ndata: 10\n\n", "<YHOO\n+2\n10>");
}

static void test_sse_ignores_comments_and_other_fields(void **state)
{
    (void)state;
    expect(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n",
           "<first event><second event>< third>");
}

static void test_sse_knows_all_line_ends(void **state)
{
    (void)state;
    expect("data: a\r\rdata: b\r\n\r\ndata: c\n\n", "<a><b><c>");
}

static void test_sse_gives_no_unfinished_event(void **state)
{
    (void)state;
    expect("data: a\n\ndata: b\n", "<a>");
    expect("data: b", "");
}

static void test_sse_passes_the_callers_error_on(void **state)
{
    (void)state;
    struct sse s;
    struct err e = {0};
    int calls = 0;
    sse_init(&s);
    const char two[] = "data: a\n\ndata: b\n\n";
    assert_int_equal(sse_feed(&s, two, sizeof two - 1, refuse, &calls, &e), ERR_PEER);
    assert_int_equal(calls, 1);
    assert_string_equal(e.msg, "enough");
    sse_release(&s);
}

static void test_sse_refuses_what_is_too_long(void **state)
{
    (void)state;
    struct err e = {0};
    struct buf out;
    buf_init(&out, 0);
    /* one line, and one event of many lines */
    for (int lines = 0; lines < 2; lines++) {
        struct sse s;
        int rc = 0;
        sse_init(&s);
        sse_feed(&s, "data: ", 6, collect, &out, &e);
        for (size_t sent = 0; rc == 0 && sent < 4u * SSE_LINE_BYTES_MAX; sent += 1000) {
            char piece[1001];
            memset(piece, 'x', sizeof piece);
            memcpy(piece, lines ? "\ndata: " : "xxxxxxx", 7);
            rc = sse_feed(&s, piece, 1000, collect, &out, &e);
        }
        assert_int_equal(rc, ERR_LIMIT);
        sse_release(&s);
    }
    assert_int_equal(out.len, 0);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sse_joins_data_lines),
        cmocka_unit_test(test_sse_ignores_comments_and_other_fields),
        cmocka_unit_test(test_sse_knows_all_line_ends),
        cmocka_unit_test(test_sse_gives_no_unfinished_event),
        cmocka_unit_test(test_sse_passes_the_callers_error_on),
        cmocka_unit_test(test_sse_refuses_what_is_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "runtime/base/err.h"

static void test_err_set_records_and_returns_the_code(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(err_set(&e, ERR_LIMIT, "%d of %s", 3, "them"), ERR_LIMIT);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_string_equal(e.msg, "3 of them");
    assert_int_equal(err_set(NULL, ERR_PEER, "nobody listens"), ERR_PEER);
}

static void test_err_sys_adds_the_words_of_errno(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(err_sys(&e, ENOENT, "%s", "a.yaml"), ERR_IO);
    assert_string_equal(e.msg, "a.yaml: No such file or directory");
}

static void test_err_prefix_goes_in_front(void **state)
{
    (void)state;
    struct err e;
    err_set(&e, ERR_FORMAT, "bad magic");
    assert_int_equal(err_prefix(&e, "model %d", 7), ERR_FORMAT);
    assert_string_equal(e.msg, "model 7: bad magic");
}

static void test_err_messages_are_cut_not_overrun(void **state)
{
    (void)state;
    struct err e;
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    err_set(&e, ERR_IO, "%s", text);
    assert_int_equal(strlen(e.msg), ERR_MSG_BYTES - 1);
    err_prefix(&e, "%s", text);
    assert_int_equal(strlen(e.msg), ERR_MSG_BYTES - 1);
    err_sys(&e, ENOENT, "%s", text);
    assert_int_equal(strlen(e.msg), ERR_MSG_BYTES - 1);
}

static void test_err_names_every_code(void **state)
{
    (void)state;
    assert_string_equal(err_name(ERR_OK), "ERR_OK");
    assert_string_equal(err_name(ERR_BUSY), "ERR_BUSY");
    assert_string_equal(err_name(ERR_CONFIG), "ERR_CONFIG");
    assert_string_equal(err_name(-1000), "ERR_?");
    assert_string_equal(err_name(1), "ERR_?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_set_records_and_returns_the_code),
        cmocka_unit_test(test_err_sys_adds_the_words_of_errno),
        cmocka_unit_test(test_err_prefix_goes_in_front),
        cmocka_unit_test(test_err_messages_are_cut_not_overrun),
        cmocka_unit_test(test_err_names_every_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <regex.h>
#include <unistd.h>

#include "runtime/base/log.h"

static char said[8192];

/* What a call writes to stderr. */
#define CAPTURE(call)                                      \
    do {                                                   \
        int ends[2], keep = dup(STDERR_FILENO);            \
        assert_int_equal(pipe(ends), 0);                   \
        dup2(ends[1], STDERR_FILENO);                      \
        call;                                              \
        dup2(keep, STDERR_FILENO);                         \
        close(keep);                                       \
        close(ends[1]);                                    \
        ssize_t n = read(ends[0], said, sizeof(said) - 1); \
        close(ends[0]);                                    \
        said[n > 0 ? n : 0] = 0;                           \
    } while (0)

static void test_log_line_has_time_level_program_and_facts(void **state)
{
    (void)state;
    regex_t re;
    log_init("tester", LOG_LEVEL_INFO);
    CAPTURE(log_warn("worker joined", "id=%s pages=%d", "w1", 7));
    regcomp(&re,
            "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z warn  "
            "tester\\[[0-9]+\\] worker joined id=w1 pages=7\n$",
            REG_EXTENDED);
    if (regexec(&re, said, 0, NULL, 0) != 0)
        fail_msg("%s", said);
    regfree(&re);
}

static void test_log_is_silent_below_its_level(void **state)
{
    (void)state;
    log_init("tester", LOG_LEVEL_WARN);
    CAPTURE(log_info("quiet", "x=1"));
    assert_string_equal(said, "");
    CAPTURE(log_error("loud", "x=1"));
    assert_non_null(strstr(said, "loud"));
    log_init("tester", LOG_LEVEL_OFF);
    CAPTURE(log_error("quiet", "x=1"));
    assert_string_equal(said, "");
}

static void test_log_an_event_is_one_line_whatever_it_holds(void **state)
{
    (void)state;
    static char name[4000];
    log_init("tester", LOG_LEVEL_INFO);
    CAPTURE(log_info("peer", "name=%s", "a\nb\x1b[2Jc"));
    assert_non_null(strstr(said, "name=a?b?[2Jc\n"));
    memset(name, 'x', sizeof(name) - 1);
    CAPTURE(log_info("peer", "name=%s", name));
    assert_true(strlen(said) <= 1024);
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
    CAPTURE(log_info(name, "x=%d", 1));
    assert_true(strlen(said) <= 1024);
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void test_log_levels_have_names(void **state)
{
    (void)state;
    assert_int_equal(log_level_parse("debug"), LOG_LEVEL_DEBUG);
    assert_int_equal(log_level_parse("off"), LOG_LEVEL_OFF);
    assert_int_equal(log_level_parse("loud"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_line_has_time_level_program_and_facts),
        cmocka_unit_test(test_log_is_silent_below_its_level),
        cmocka_unit_test(test_log_an_event_is_one_line_whatever_it_holds),
        cmocka_unit_test(test_log_levels_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/library.h"

static double (*cosine)(double);

static void test_library_is_opened_and_called(void **state)
{
    (void)state;
    const struct library_call calls[] = {{"cos", &cosine}};
    assert_null(library_open("libm.so.6", calls, 1));
    assert_true(cosine(0) == 1);
    assert_null(library_open("libm.so.6", calls, 1));
}

static void test_library_says_what_is_missing(void **state)
{
    (void)state;
    void (*nothing)(void) = NULL;
    const struct library_call calls[] = {{"cos", &cosine}, {"no_such_call", &nothing}};
    const char *why = library_open("libm.so.6", calls, 2);
    assert_non_null(why);
    assert_non_null(strstr(why, "no_such_call"));
    why = library_open("libargosy-of-nobody.so.7", calls, 1);
    assert_non_null(why);
    assert_non_null(strstr(why, "libargosy-of-nobody.so.7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_library_is_opened_and_called),
        cmocka_unit_test(test_library_says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

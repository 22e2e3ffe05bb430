#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/arena.h"

static void test_arena_gives_zeroed_aligned_memory_of_its_own(void **state)
{
    (void)state;
    struct arena a;
    unsigned char *given[500];
    arena_init(&a, 0);
    for (size_t i = 0; i < 500; i++) {
        size_t n = i * 7 % 300;
        given[i] = arena_alloc(&a, n);
        assert_non_null(given[i]);
        assert_int_equal((uintptr_t)given[i] % 16, 0);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(given[i][k], 0);
        memset(given[i], (int)(i % 251), n);
    }
    for (size_t i = 0; i < 500; i++) /* nobody wrote into another one's */
        for (size_t k = 0; k < i * 7 % 300; k++)
            assert_int_equal(given[i][k], i % 251);
    arena_release(&a);
    assert_int_equal(a.used_bytes, 0);
}

static void test_arena_first_chunk_is_as_large_as_reserved(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 4096);
    arena_reserve(&a, 100);
    assert_int_equal(a.used_bytes, 0); /* counts when it is handed out */
    char *p = arena_alloc(&a, 96);
    char *q = arena_alloc(&a, 16); /* the last of 112 */
    assert_ptr_equal(q, p + 96);
    memset(p, 1, 112);
    assert_non_null(arena_alloc(&a, 3000)); /* a chunk of its own */
    assert_int_equal(q[15], 1);
    arena_release(&a);
    arena_reserve(&a, SIZE_MAX); /* nothing */
    assert_null(a.head);
}

static void test_arena_stops_at_its_limit(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 100);
    assert_non_null(arena_alloc(&a, 64));
    assert_non_null(arena_alloc(&a, 32));
    assert_null(arena_alloc(&a, 1)); /* 16 more would be 112 */
    arena_release(&a);
    assert_non_null(arena_alloc(&a, 90)); /* and it can be used again */
    assert_null(arena_alloc(&a, 101));
    arena_release(&a);
}

static void test_arena_refuses_products_that_overflow(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    assert_null(arena_calloc(&a, SIZE_MAX / 2, 3));
    assert_null(arena_calloc(&a, (size_t)1 << 33, (size_t)1 << 31));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_strndup(&a, "x", SIZE_MAX));
    assert_non_null(arena_calloc(&a, 0, 8));
    arena_release(&a);
}

static void test_arena_copies_strings(void **state)
{
    (void)state;
    struct arena a;
    char text[] = "hello";
    arena_init(&a, 0);
    char *whole = arena_strdup(&a, text), *part = arena_strndup(&a, text, 4);
    int *number = arena_memdup(&a, &(int){7}, sizeof(int));
    memset(text, 'x', 5);
    assert_string_equal(whole, "hello");
    assert_string_equal(part, "hell");
    assert_int_equal(*number, 7);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_gives_zeroed_aligned_memory_of_its_own),
        cmocka_unit_test(test_arena_first_chunk_is_as_large_as_reserved),
        cmocka_unit_test(test_arena_stops_at_its_limit),
        cmocka_unit_test(test_arena_refuses_products_that_overflow),
        cmocka_unit_test(test_arena_copies_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/memory.h"

static void test_memory_blocks_are_zeroed_and_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, (2 << 20) + 1};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *p = memory_map(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (2 << 20), 0);
        for (size_t k = 0; k < sizes[i]; k += 512)
            assert_int_equal(p[k]++, 0);
        memory_unmap(p, sizes[i]);
    }
}

static void test_memory_that_is_forgotten_is_taken_no_more(void **state)
{
    (void)state;
    size_t bytes = (size_t)4 << 20;
    unsigned char there = 1, *p = memory_map(bytes);
    memset(p, 0xff, bytes);
    memory_forget(p, bytes);
    for (size_t i = 0; i < bytes; i += 4096) {
        assert_int_equal(mincore(p + i, 4096, &there), 0);
        assert_int_equal(there & 1, 0);
    }
    assert_int_equal(p[bytes - 1], 0);
    memory_unmap(p, bytes);
}

/* A rank that is forked beside a loaded model would keep that model's memory. */
static void test_memory_blocks_are_not_a_childs(void **state)
{
    (void)state;
    int status, ends[2];
    char *p = memory_map(4096);
    p[0] = 'x';
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(write(ends[1], p, 1) < 0 && errno == EFAULT ? 7 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_int_equal(p[0], 'x');
    close(ends[0]);
    close(ends[1]);
    memory_unmap(p, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_blocks_are_zeroed_and_aligned),
        cmocka_unit_test(test_memory_that_is_forgotten_is_taken_no_more),
        cmocka_unit_test(test_memory_blocks_are_not_a_childs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/mapping.h"

#define FILE_BYTES 20000u

static void test_mapping_has_the_file_and_reads_what_was_forgotten_again(void **state)
{
    (void)state;
    char path[] = "/tmp/test_mapping_XXXXXX";
    unsigned char bytes[FILE_BYTES];
    struct mapping m = {0};
    struct err e;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < FILE_BYTES; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    assert_int_equal(write(fd, bytes, FILE_BYTES), FILE_BYTES);
    assert_int_equal(mapping_open(&m, path, &e), 0);
    assert_int_equal(m.n, FILE_BYTES);
    assert_memory_equal(m.bytes, bytes, FILE_BYTES);
    mapping_forget((const char *)m.bytes + 10, FILE_BYTES - 20);
    mapping_forget(m.bytes, 1); /* less than a page */
    assert_memory_equal(m.bytes, bytes, FILE_BYTES);
    mapping_release(&m);
    assert_null(m.bytes);
    mapping_release(&m);
    close(fd);
    unlink(path);
}

static void test_mapping_refuses_what_is_no_file_with_bytes(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_mapping_XXXXXX", path[64];
    struct mapping m = {0};
    struct err e;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/file", folder);
    assert_int_equal(mapping_open(&m, path, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, path));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(mapping_open(&m, path, &e), ERR_IO); /* and does not wait for a writer */
    unlink(path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(mapping_open(&m, path, &e), ERR_FORMAT);
    assert_int_equal(mapping_open(&m, folder, &e), ERR_IO);
    assert_null(m.bytes);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mapping_has_the_file_and_reads_what_was_forgotten_again),
        cmocka_unit_test(test_mapping_refuses_what_is_no_file_with_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

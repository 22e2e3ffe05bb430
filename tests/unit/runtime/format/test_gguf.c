#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/buf.h"
#include "runtime/format/gguf.h"

/* Files are written here field by field, after the format's description. */

static void u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}

static void u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof(v));
}

static void str(struct buf *b, const char *s)
{
    u64(b, strlen(s));
    buf_adds(b, s);
}

static void key(struct buf *b, const char *k, uint32_t type)
{
    str(b, k);
    u32(b, type);
}

static void header(struct buf *b, uint64_t n_tensors, uint64_t n_kvs)
{
    buf_init(b, 0);
    buf_adds(b, "GGUF");
    u32(b, 3);
    u64(b, n_tensors);
    u64(b, n_kvs);
}

static void tensor(struct buf *b, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type,
                   uint64_t offset)
{
    str(b, name);
    u32(b, 2);
    u64(b, ne0);
    u64(b, ne1);
    u32(b, type);
    u64(b, offset);
}

static void pad(struct buf *b, size_t to)
{
    while (b->len % to)
        buf_addc(b, '\0');
}

/* Two tensors and a value of every kind. */
static void make_good(struct buf *b)
{
    float f = 0.5f;
    double d = 0.25;
    header(b, 2, 9);
    key(b, "n", GGUF_U32);
    u32(b, 7);
    key(b, "big", GGUF_U64);
    u64(b, 1ull << 40);
    key(b, "neg", GGUF_I32);
    u32(b, (uint32_t)-3);
    key(b, "f", GGUF_F32);
    buf_add(b, &f, 4);
    key(b, "d", GGUF_F64);
    buf_add(b, &d, 8);
    key(b, "yes", GGUF_BOOL);
    buf_addc(b, 1);
    key(b, "name", GGUF_STRING);
    str(b, "argosy");
    key(b, "words", GGUF_ARRAY);
    u32(b, GGUF_STRING);
    u64(b, 3);
    str(b, "a");
    str(b, "");
    str(b, "ccc");
    key(b, "ints", GGUF_ARRAY);
    u32(b, GGUF_I16);
    u64(b, 2);
    buf_add(b, "\xff\xff\x05\x00", 4);
    tensor(b, "w", 32, 2, GGUF_TENSOR_Q4_1, 0);
    tensor(b, "x", 3, 2, GGUF_TENSOR_F32, 64);
    pad(b, 32);
    for (int i = 0; i < 64 + 24; i++)
        buf_addc(b, (char)i);
}

static struct gguf *open_good(struct buf *b)
{
    struct gguf *g = NULL;
    struct err e;
    make_good(b);
    assert_int_equal(gguf_open_mem(b->data, b->len, &g, &e), 0);
    return g;
}

/* Opens what b holds, expects `code` and `words` in the message, and releases b. */
static void refuse(struct buf *b, int code, const char *words)
{
    struct gguf *g = NULL;
    struct err e = {0};
    /* A copy of exact size: ASan sees a read past its end. */
    char *exact = malloc(b->len ? b->len : 1);
    assert_non_null(exact);
    memcpy(exact, buf_str(b), b->len);
    int rc = gguf_open_mem(exact, b->len, &g, &e);
    if (rc != code || !strstr(e.msg, words))
        fail_msg("rc %d, message '%s', wanted %d and '%s'", rc, e.msg, code, words);
    assert_null(g);
    free(exact);
    buf_release(b);
}

static void test_gguf_reads_values_of_every_kind(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = open_good(&b);
    struct err e;
    uint32_t u = 0;
    uint64_t big = 0;
    float f = 0;
    bool yes = false;
    struct gguf_str s;
    assert_int_equal(gguf_u32(g, "n", GGUF_REQUIRED, &u, &e), 0);
    assert_int_equal(u, 7);
    assert_int_equal(gguf_u64(g, "big", GGUF_REQUIRED, &big, &e), 0);
    assert_true(big == 1ull << 40);
    assert_int_equal(gguf_u64(g, "n", GGUF_REQUIRED, &big, &e), 0);
    assert_true(big == 7);
    assert_int_equal(gguf_f32(g, "f", GGUF_REQUIRED, &f, &e), 0);
    assert_true(f == 0.5f);
    assert_int_equal(gguf_f32(g, "d", GGUF_REQUIRED, &f, &e), 0);
    assert_true(f == 0.25f);
    assert_int_equal(gguf_bool(g, "yes", GGUF_REQUIRED, &yes, &e), 0);
    assert_true(yes);
    assert_int_equal(gguf_str(g, "name", GGUF_REQUIRED, &s, &e), 0);
    assert_int_equal(s.n, 6);
    assert_memory_equal(s.s, "argosy", 6);
    assert_true(gguf_has(g, "n"));
    assert_false(gguf_has(g, "nn"));
    gguf_close(g);
    buf_release(&b);
}

static void test_gguf_refuses_a_wrong_type_or_range(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = open_good(&b);
    struct err e;
    uint32_t u = 99;
    float f;
    bool yes;
    struct gguf_str s;
    struct gguf_array a;
    assert_int_equal(gguf_u32(g, "big", GGUF_REQUIRED, &u, &e), ERR_FORMAT);
    assert_int_equal(gguf_u32(g, "neg", GGUF_REQUIRED, &u, &e), ERR_FORMAT);
    assert_int_equal(gguf_u32(g, "f", GGUF_OPTIONAL, &u, &e), ERR_FORMAT);
    assert_int_equal(gguf_u32(g, "yes", GGUF_OPTIONAL, &u, &e), ERR_FORMAT);
    assert_int_equal(gguf_f32(g, "n", GGUF_OPTIONAL, &f, &e), ERR_FORMAT);
    assert_int_equal(gguf_bool(g, "n", GGUF_OPTIONAL, &yes, &e), ERR_FORMAT);
    assert_int_equal(gguf_str(g, "words", GGUF_OPTIONAL, &s, &e), ERR_FORMAT);
    assert_int_equal(gguf_array(g, "name", GGUF_OPTIONAL, &a, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "'name'"));
    assert_int_equal(u, 99);
    gguf_close(g);
    buf_release(&b);
}

static void test_gguf_keeps_the_default_of_an_absent_optional_key(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = open_good(&b);
    struct err e;
    uint32_t u = 42;
    assert_int_equal(gguf_u32(g, "absent", GGUF_OPTIONAL, &u, &e), 0);
    assert_int_equal(u, 42);
    assert_int_equal(gguf_u32(g, "absent", GGUF_REQUIRED, &u, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "'absent'"));
    gguf_close(g);
    buf_release(&b);
}

static void test_gguf_walks_arrays(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = open_good(&b);
    struct err e;
    struct gguf_array a = {0};
    struct gguf_str s;
    int64_t v;
    float f;
    assert_false(gguf_next_str(&a, &s)); /* a zeroed one is empty */
    assert_int_equal(gguf_array(g, "words", GGUF_REQUIRED, &a, &e), 0);
    assert_int_equal(a.count, 3);
    assert_false(gguf_next_i64(&a, &v));
    assert_true(gguf_next_str(&a, &s) && s.n == 1 && s.s[0] == 'a');
    assert_true(gguf_next_str(&a, &s) && s.n == 0);
    assert_true(gguf_next_str(&a, &s) && s.n == 3 && !memcmp(s.s, "ccc", 3));
    assert_false(gguf_next_str(&a, &s));
    assert_int_equal(gguf_array(g, "ints", GGUF_REQUIRED, &a, &e), 0);
    assert_false(gguf_next_f32(&a, &f));
    assert_true(gguf_next_i64(&a, &v) && v == -1);
    assert_true(gguf_next_i64(&a, &v) && v == 5);
    assert_false(gguf_next_i64(&a, &v));
    gguf_close(g);
    buf_release(&b);
}

static void test_gguf_places_tensors(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = open_good(&b);
    assert_int_equal(gguf_tensor_count(g), 2);
    const struct gguf_tensor *w = gguf_find_tensor(g, "w"), *x = gguf_find_tensor(g, "x");
    assert_ptr_equal(w, gguf_tensor_at(g, 0));
    assert_ptr_equal(x, gguf_tensor_at(g, 1));
    assert_null(gguf_find_tensor(g, "y"));
    assert_int_equal(w->bytes, 40); /* two blocks of 32 at 20 bytes */
    assert_int_equal(w->ne[0], 32);
    assert_int_equal(w->ne[1], 2);
    assert_int_equal(w->ne[2], 1);
    assert_int_equal(*(const char *)w->data, 0);
    assert_int_equal(x->bytes, 24);
    assert_int_equal(*(const char *)x->data, 64);
    gguf_close(g);
    buf_release(&b);
}

/* Every start of a good file is refused, and none is read past its end. */
static void test_gguf_refuses_every_truncation(void **state)
{
    (void)state;
    struct buf b;
    make_good(&b);
    for (size_t n = 0; n < b.len; n++) {
        struct buf cut;
        buf_init(&cut, 0);
        buf_add(&cut, b.data, n);
        refuse(&cut, ERR_FORMAT, "gguf");
    }
    buf_release(&b);
}

static void test_gguf_refuses_magic_and_versions(void **state)
{
    (void)state;
    struct buf b;
    make_good(&b);
    b.data[0] = 'g';
    refuse(&b, ERR_FORMAT, "magic");
    make_good(&b);
    b.data[4] = 1;
    refuse(&b, ERR_UNSUPPORTED, "version 1");
    make_good(&b);
    memcpy(b.data + 4, "\0\0\0\3", 4);
    refuse(&b, ERR_UNSUPPORTED, "big-endian");
}

static void test_gguf_refuses_counts_that_the_file_cannot_hold(void **state)
{
    (void)state;
    struct buf b;
    header(&b, UINT64_MAX, 0);
    refuse(&b, ERR_FORMAT, "tensor count");
    header(&b, 0, 1ull << 62);
    refuse(&b, ERR_FORMAT, "metadata count");
    header(&b, 0, 1);
    key(&b, "a", GGUF_ARRAY);
    u32(&b, GGUF_U64);
    u64(&b, 1ull << 61); /* times 8 is 0 */
    refuse(&b, ERR_FORMAT, "'a': length");
    header(&b, 0, 1);
    key(&b, "a", GGUF_ARRAY);
    u32(&b, GGUF_STRING);
    u64(&b, 2);
    u64(&b, UINT64_MAX);
    u64(&b, 0);
    refuse(&b, ERR_FORMAT, "string in an array");
    header(&b, 0, 1);
    u64(&b, UINT64_MAX - 3);
    buf_adds(&b, "0123456789");
    refuse(&b, ERR_FORMAT, "metadata key");
}

static void test_gguf_refuses_bad_metadata(void **state)
{
    (void)state;
    struct buf b;
    header(&b, 0, 1);
    key(&b, "a", 13);
    u64(&b, 0);
    refuse(&b, ERR_FORMAT, "unknown type 13");
    header(&b, 0, 1);
    key(&b, "a", GGUF_BOOL);
    buf_addc(&b, 2);
    refuse(&b, ERR_FORMAT, "no bool");
    header(&b, 0, 1);
    key(&b, "a", GGUF_ARRAY);
    u32(&b, GGUF_ARRAY);
    u64(&b, 0);
    refuse(&b, ERR_UNSUPPORTED, "'a'");
    header(&b, 0, 1);
    key(&b, "", GGUF_U64);
    u64(&b, 0);
    u64(&b, 0);
    refuse(&b, ERR_FORMAT, "key '' of 0 bytes");
    header(&b, 0, 3);
    key(&b, "dup", GGUF_U32);
    u32(&b, 0);
    key(&b, "e", GGUF_U32);
    u32(&b, 0);
    key(&b, "dup", GGUF_U32);
    u32(&b, 0);
    refuse(&b, ERR_FORMAT, "'dup' is there twice");
}

static void one_tensor(struct buf *b, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset,
                       size_t data_bytes)
{
    header(b, 1, 0);
    tensor(b, "w", ne0, ne1, type, offset);
    pad(b, 32);
    for (size_t i = 0; i < data_bytes; i++)
        buf_addc(b, 0);
}

static void test_gguf_refuses_bad_tensors(void **state)
{
    (void)state;
    struct buf b;
    one_tensor(&b, 31, 1, GGUF_TENSOR_Q8_0, 0, 64);
    refuse(&b, ERR_FORMAT, "no multiple of Q8_0's 32");
    one_tensor(&b, 0, 1, GGUF_TENSOR_F32, 0, 64);
    refuse(&b, ERR_FORMAT, "dimension 0 is 0");
    one_tensor(&b, 1ull << 32, 1ull << 32, GGUF_TENSOR_F32, 0, 64); /* the product is 0 */
    refuse(&b, ERR_FORMAT, "dimension 1");
    one_tensor(&b, 1ull << 31, 1ull << 31, GGUF_TENSOR_F32, 0, 64); /* the bytes are 0 */
    refuse(&b, ERR_FORMAT, "more than the file has");
    one_tensor(&b, 16, 1, GGUF_TENSOR_F32, 0, 63);
    refuse(&b, ERR_FORMAT, "past the file's end");
    one_tensor(&b, 16, 1, GGUF_TENSOR_F32, 32, 64);
    refuse(&b, ERR_FORMAT, "past the file's end");
    one_tensor(&b, 16, 1, GGUF_TENSOR_F32, UINT64_MAX - 31, 64); /* offset + bytes is 32 */
    refuse(&b, ERR_FORMAT, "past the file's end");
    one_tensor(&b, 16, 1, GGUF_TENSOR_F32, 4, 128);
    refuse(&b, ERR_FORMAT, "not aligned to 32");
    header(&b, 2, 0);
    tensor(&b, "same", 1, 1, GGUF_TENSOR_F32, 0);
    tensor(&b, "same", 1, 1, GGUF_TENSOR_F32, 32);
    pad(&b, 32);
    buf_adds(&b, "0123456789012345678901234567890123456789");
    refuse(&b, ERR_FORMAT, "'same' is there twice");
    header(&b, 1, 0);
    str(&b, "w");
    u32(&b, 5);
    for (int i = 0; i < 8; i++)
        u64(&b, 1);
    refuse(&b, ERR_FORMAT, "5 dimensions");
    header(&b, 1, 0);
    tensor(&b, "a name of more than sixty-four bytes, which is what the format allows", 1, 1, 0, 0);
    refuse(&b, ERR_FORMAT, "tensor name");
}

static void test_gguf_takes_an_unknown_tensor_type_without_its_data(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = NULL;
    struct err e;
    one_tensor(&b, 32, 1, 999, 0, 0);
    assert_int_equal(gguf_open_mem(b.data, b.len, &g, &e), 0);
    const struct gguf_tensor *w = gguf_find_tensor(g, "w");
    assert_non_null(w);
    assert_null(w->data);
    assert_int_equal(w->bytes, 0);
    assert_null(gguf_tensor_type_name(w->type));
    gguf_close(g);
    buf_release(&b);
}

static void test_gguf_honours_alignment(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = NULL;
    struct err e;
    static const uint32_t bad[] = {0, 4, 48, 1u << 17};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        header(&b, 0, 1);
        key(&b, "general.alignment", GGUF_U32);
        u32(&b, bad[i]);
        refuse(&b, ERR_FORMAT, "general.alignment");
    }
    header(&b, 1, 1);
    key(&b, "general.alignment", GGUF_U32);
    u32(&b, 256);
    tensor(&b, "w", 1, 1, GGUF_TENSOR_F32, 256);
    pad(&b, 256);
    pad(&b, 256);
    size_t start = b.len;
    for (int i = 0; i < 260; i++)
        buf_addc(&b, 0);
    assert_int_equal(gguf_open_mem(b.data, b.len, &g, &e), 0);
    assert_ptr_equal(gguf_find_tensor(g, "w")->data, b.data + start + 256);
    gguf_close(g);
    buf_release(&b);
}

static void test_gguf_open_maps_a_file_and_names_it_in_errors(void **state)
{
    (void)state;
    char path[] = "/tmp/test_gguf_XXXXXX";
    struct buf b;
    struct gguf *g = NULL;
    struct err e;
    size_t n = 0;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    make_good(&b);
    assert_int_equal(gguf_open(path, &g, &e), ERR_FORMAT); /* empty so far */
    assert_non_null(strstr(e.msg, path));
    assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
    assert_int_equal(gguf_open(path, &g, &e), 0);
    assert_memory_equal(gguf_mapping(g, &n), b.data, b.len);
    assert_int_equal(n, b.len);
    gguf_close(g);
    assert_int_equal(ftruncate(fd, 30), 0);
    assert_int_equal(gguf_open(path, &g, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, path));
    close(fd);
    unlink(path);
    assert_int_equal(gguf_open(path, &g, &e), ERR_NOT_FOUND);
    assert_int_equal(gguf_open("/dev/zero", &g, &e), ERR_IO);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_reads_values_of_every_kind),
        cmocka_unit_test(test_gguf_refuses_a_wrong_type_or_range),
        cmocka_unit_test(test_gguf_keeps_the_default_of_an_absent_optional_key),
        cmocka_unit_test(test_gguf_walks_arrays),
        cmocka_unit_test(test_gguf_places_tensors),
        cmocka_unit_test(test_gguf_refuses_every_truncation),
        cmocka_unit_test(test_gguf_refuses_magic_and_versions),
        cmocka_unit_test(test_gguf_refuses_counts_that_the_file_cannot_hold),
        cmocka_unit_test(test_gguf_refuses_bad_metadata),
        cmocka_unit_test(test_gguf_refuses_bad_tensors),
        cmocka_unit_test(test_gguf_takes_an_unknown_tensor_type_without_its_data),
        cmocka_unit_test(test_gguf_honours_alignment),
        cmocka_unit_test(test_gguf_open_maps_a_file_and_names_it_in_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

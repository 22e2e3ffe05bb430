#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/threads.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"
#include "tests/unit/runtime/model/tiny_llama.h"

static int load(const struct tiny_llama *t, struct model *m, struct err *e)
{
    struct buf b;
    struct checkpoint *g = NULL;
    struct threads *threads = NULL;
    buf_init(&b, 0);
    tiny_llama_write(t, &b);
    assert_int_equal(checkpoint_open_gguf_mem(b.data, b.len, &g, e), 0);
    assert_int_equal(threads_create(2, &threads, e), 0);
    int rc = model_load(m, g, KN_ISA_REF, threads, e);
    threads_free(threads);
    checkpoint_close(g);
    buf_release(&b);
    return rc;
}

static void test_model_reads_what_the_file_says(void **state)
{
    (void)state;
    struct model m;
    struct err e;
    struct tiny_llama t = tiny_llama_small;
    t.qkv_bias = true;
    assert_int_equal(load(&t, &m, &e), 0);
    assert_int_equal(m.h.n_layers, 2);
    assert_int_equal(m.h.n_embd, 64);
    assert_int_equal(m.h.n_ff, 96);
    assert_int_equal(m.h.n_heads, 4);
    assert_int_equal(m.h.n_kv_heads, 2);
    assert_int_equal(m.h.head_dim, 16);
    assert_int_equal(m.h.vocab, TINY_VOCAB);
    assert_int_equal(m.h.context, 512);
    assert_int_equal(m.layers[1].k.rows, 32);
    assert_int_equal(m.layers[1].k.cols, 64);
    assert_int_equal(m.layers[1].down.cols, 96);
    assert_non_null(m.layers[0].qkv_bias);
    assert_ptr_not_equal(m.head.data, m.embed.data);
    assert_false(m.has_float_matrix);
    assert_int_equal(strlen(m.manifest_sha256), 64);
    model_release(&m);
}

static void test_model_ties_the_head_to_the_embedding(void **state)
{
    (void)state;
    struct model m;
    struct err e;
    struct tiny_llama t = tiny_llama_small;
    t.untied = false;
    t.type = KN_F16;
    assert_int_equal(load(&t, &m, &e), 0);
    assert_ptr_equal(m.head.data, m.embed.data);
    assert_true(m.has_float_matrix);
    assert_null(m.layers[0].qkv_bias);
    model_release(&m);
}

/* Llama 3 divides each frequency by its factor; the expected numbers are base^(-2i/dim) / factor.
 */
static void test_model_scales_the_rotation(void **state)
{
    (void)state;
    struct model m;
    struct err e;
    struct tiny_llama t = tiny_llama_small;
    t.rope_factors = true;
    assert_int_equal(load(&t, &m, &e), 0);
    for (int i = 0; i < 8; i++) {
        double expected = pow(10000.0, -2.0 * i / 16) / (1.0 + 7.0 * i / 8);
        assert_true(fabs(m.rope.inv_freq[i] / expected - 1) < 1e-7);
    }
    model_release(&m);
}

static void expect_error(const struct tiny_llama *t, int code, const char *words)
{
    struct model m;
    struct err e = {0};
    assert_int_equal(load(t, &m, &e), code);
    assert_int_equal(e.code, code);
    if (!strstr(e.msg, words))
        fail_msg("'%s' has no '%s'", e.msg, words);
}

static void test_model_names_an_architecture_it_does_not_serve(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.arch = "mamba\n";
    expect_error(&t, ERR_UNSUPPORTED, "'mamba?'");
    t.arch = NULL;
    t.left_out = "general.architecture";
    expect_error(&t, ERR_NOT_FOUND, "general.architecture");
}

static void test_model_names_the_tensor_that_is_missing(void **state)
{
    (void)state;
    static const char *const names[] = {"token_embd.weight", "output_norm.weight",
                                        "blk.0.attn_q.weight", "blk.1.ffn_down.weight",
                                        "blk.1.ffn_norm.weight"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct tiny_llama t = tiny_llama_small;
        t.left_out = names[i];
        expect_error(&t, ERR_FORMAT, names[i]);
    }
    struct tiny_llama t = tiny_llama_small;
    t.qkv_bias = true;
    t.left_out = "blk.1.attn_k.bias";
    expect_error(&t, ERR_FORMAT, "blk.1.attn_k.bias");
}

static void test_model_names_the_tensor_of_another_shape(void **state)
{
    (void)state;
    static const char *const names[] = {"output.weight",       "blk.0.attn_v.weight",
                                        "blk.1.ffn_up.weight", "blk.1.attn_norm.weight",
                                        "output_norm.weight",  "rope_freqs.weight"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct tiny_llama t = tiny_llama_small;
        t.rope_factors = true;
        t.bent = names[i];
        expect_error(&t, ERR_FORMAT, names[i]);
    }
}

static void test_model_refuses_a_tensor_it_does_not_know(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.added = "blk.0.attn_q_norm.weight";
    expect_error(&t, ERR_UNSUPPORTED, "attn_q_norm");
}

static void test_model_refuses_norms_that_are_not_finite(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.not_finite = "blk.1.ffn_norm.weight";
    expect_error(&t, ERR_FORMAT, "blk.1.ffn_norm.weight");
}

static void test_model_refuses_absurd_hyperparameters(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint64_t value;
    } cases[] = {
        {"llama.attention.head_count", 1000000000},
        {"llama.attention.head_count", 0},
        {"llama.attention.head_count", 3},
        {"llama.attention.head_count", 16}, /* heads of 4 */
        {"llama.attention.head_count_kv", 0},
        {"llama.attention.head_count_kv", 3},
        {"llama.attention.head_count_kv", 8},
        {"llama.block_count", 0},
        {"llama.block_count", 3},
        {"llama.block_count", UINT32_MAX},
        {"llama.block_count", UINT64_MAX},
        {"llama.embedding_length", 0},
        {"llama.embedding_length", 128},
        {"llama.embedding_length", UINT32_MAX},
        {"llama.feed_forward_length", 0},
        {"llama.feed_forward_length", 64},
        {"llama.context_length", 0},
        {"llama.context_length", UINT64_C(1) << 31},
        {"llama.rope.dimension_count", 0},
        {"llama.rope.dimension_count", 15},
        {"llama.rope.dimension_count", 18},
        {"llama.expert_count", 8},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tiny_llama t = tiny_llama_small;
        t.extra[0].key = cases[i].key;
        t.extra[0].value = cases[i].value;
        struct model m;
        struct err e = {0};
        int rc = load(&t, &m, &e);
        if (rc >= 0)
            fail_msg("%s = %llu was taken", cases[i].key, (unsigned long long)cases[i].value);
        assert_int_equal(rc, e.code);
        assert_int_not_equal(strlen(e.msg), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_reads_what_the_file_says),
        cmocka_unit_test(test_model_ties_the_head_to_the_embedding),
        cmocka_unit_test(test_model_scales_the_rotation),
        cmocka_unit_test(test_model_names_an_architecture_it_does_not_serve),
        cmocka_unit_test(test_model_names_the_tensor_that_is_missing),
        cmocka_unit_test(test_model_names_the_tensor_of_another_shape),
        cmocka_unit_test(test_model_refuses_a_tensor_it_does_not_know),
        cmocka_unit_test(test_model_refuses_norms_that_are_not_finite),
        cmocka_unit_test(test_model_refuses_absurd_hyperparameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

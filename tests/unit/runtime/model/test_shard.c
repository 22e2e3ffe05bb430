/* Every part of a model is held by the rank that computes with it, and by no more than need it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/rng.h"
#include "runtime/base/threads.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"
#include "tests/unit/runtime/model/tiny_llama.h"

static struct hparams random_shape(struct rng *rng)
{
    struct hparams h = {.n_kv_heads = 1 + (uint32_t)rng_below(rng, 12),
                        .head_dim = 8 * (1 + (uint32_t)rng_below(rng, 32)),
                        .n_embd = 32 * (1 + (uint32_t)rng_below(rng, 64)),
                        .n_ff = 1 + (uint32_t)rng_below(rng, 4000),
                        .vocab = 1 + (uint32_t)rng_below(rng, 100000)};
    h.n_heads = h.n_kv_heads * (1 + (uint32_t)rng_below(rng, 9));
    return h;
}

/* The next part begins where the last one ended, at a multiple of `unit` or at the end. */
static void check_next(uint32_t *end, struct shard_range part, uint32_t unit, uint32_t n)
{
    assert_int_equal(part.begin, *end);
    assert_true(part.end >= part.begin && part.end <= n);
    assert_true(part.end == n || part.end % unit == 0);
    *end = part.end;
}

static void check_heads(const struct hparams *h, const struct shard *s)
{
    uint32_t group = h->n_heads / h->n_kv_heads;
    uint32_t q = shard_count(s->q_heads), kv = shard_count(s->kv_heads);
    assert_int_equal(q == 0, kv == 0);
    if (q == 0)
        return;
    assert_true(s->kv_heads.end <= h->n_kv_heads);
    assert_int_equal(s->kv_heads.begin, s->q_heads.begin / group);
    assert_int_equal(s->kv_heads.end, (s->q_heads.end - 1) / group + 1);
    /* A kernel reads KV head h / (n_heads / n_kv_heads): the same for all of a rank's. */
    assert_true(q == kv * group || kv == 1);
}

static void test_shards_cover_every_model_once(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    for (int i = 0; i < 20000; i++) {
        struct hparams h = random_shape(&rng);
        uint32_t ranks = 1 + (uint32_t)rng_below(&rng, SHARD_RANKS_MAX);
        uint32_t q = 0, ff = 0, embed = 0, vocab = 0;
        for (uint32_t r = 0; r < ranks; r++) {
            struct shard s;
            shard_of(&h, r, ranks, &s);
            struct shard_range columns = {s.q_heads.begin * h.head_dim, s.q_heads.end * h.head_dim};
            uint32_t width = q * h.head_dim;
            check_next(&width, columns, KN_BLOCK, h.n_heads * h.head_dim);
            check_next(&q, s.q_heads, 1, h.n_heads);
            check_next(&ff, s.ff, KN_BLOCK, h.n_ff);
            check_next(&embed, s.embed, KN_ROW_TILE, h.n_embd);
            check_next(&vocab, s.vocab, KN_ROW_TILE, h.vocab);
            check_heads(&h, &s);
        }
        assert_true(q == h.n_heads && ff == h.n_ff && embed == h.n_embd && vocab == h.vocab);
    }
}

static void test_shards_are_even_to_a_unit(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 2);
    for (int i = 0; i < 2000; i++) {
        struct hparams h = random_shape(&rng);
        h.head_dim = 64;
        uint32_t ranks = 1 + (uint32_t)rng_below(&rng, SHARD_RANKS_MAX);
        uint32_t group = h.n_heads / h.n_kv_heads;
        for (uint32_t r = 0; r < ranks; r++) {
            struct shard s;
            shard_of(&h, r, ranks, &s);
            assert_true(shard_count(s.ff) <= h.n_ff / ranks + 2 * KN_BLOCK);
            assert_true(shard_count(s.embed) <= h.n_embd / ranks + 2 * KN_ROW_TILE);
            uint32_t most_kv = (h.n_kv_heads + ranks - 1) / ranks;
            assert_true(shard_count(s.kv_heads) <= most_kv);
            if (ranks >= h.n_kv_heads) { /* the group is shared out */
                uint32_t readers = ranks / h.n_kv_heads;
                assert_true(shard_count(s.q_heads) <= (group + readers - 1) / readers);
            }
        }
    }
}

static void test_shard_refuses_ranks_without_work(void **state)
{
    (void)state;
    struct hparams h = {.n_embd = 64, .n_ff = 96, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16};
    struct err e;
    assert_int_equal(shard_check(&h, 3, &e), 0);
    assert_int_equal(shard_check(&h, 4, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "at most 3"));
}

/* The packed bytes of all ranks are those of the whole, but for what every rank has. */
static void test_model_ranks_hold_their_part_alone(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.n_embd = 256;
    t.n_ff = 512;
    t.qkv_bias = true;
    struct buf b;
    struct checkpoint *g;
    struct threads *threads;
    struct model whole, part;
    struct err e;
    buf_init(&b, 0);
    tiny_llama_write(&t, &b);
    assert_int_equal(checkpoint_open_gguf_mem(b.data, b.len, &g, &e), 0);
    assert_int_equal(threads_create(1, &threads, &e), 0);
    assert_int_equal(model_load(&whole, g, KN_ISA_REF, threads, &e), 0);
    size_t bytes = 0;
    for (uint32_t r = 0; r < 4; r++) {
        assert_int_equal(model_load_rank(&part, g, KN_ISA_REF, r, 4, threads, &e), 0);
        assert_true(part.block_bytes < whole.block_bytes / 3);
        assert_int_equal(part.layers[1].up.rows, 128);
        assert_int_equal(part.layers[1].up.cols, 256);
        assert_memory_equal(part.layers[0].qkv_bias, whole.layers[0].qkv_bias + r * 64,
                            64 * sizeof(float));
        bytes += part.block_bytes;
        model_release(&part);
    }
    /* Two KV heads among four ranks: K and V twice. */
    size_t kv = kn_pack_bytes(KN_ISA_REF, KN_Q4_1, 128, 256);
    size_t padding = kn_pack_bytes(KN_ISA_REF, KN_Q4_1, KN_ROW_TILE, 256);
    assert_true(bytes >= whole.block_bytes + 4 * kv);
    assert_true(bytes <= whole.block_bytes + 4 * kv + 8 * padding);
    model_release(&whole);
    threads_free(threads);
    checkpoint_close(g);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_cover_every_model_once),
        cmocka_unit_test(test_shards_are_even_to_a_unit),
        cmocka_unit_test(test_shard_refuses_ranks_without_work),
        cmocka_unit_test(test_model_ranks_hold_their_part_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

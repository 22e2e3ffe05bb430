/* testing.h: what the tests of the operations share: random numbers, memory, comparison by bits. */
#ifndef ARGOSY_KERNELS_TESTING_H
#define ARGOSY_KERNELS_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/kernels.h"
#include "kernels/numerics.h"

/* The instruction set after `isa` that this CPU has (KN_ISA_COUNT: no more); says what it passes
 * over. Start from KN_ISA_REF to go through all but the reference. */
static inline enum kn_isa next_isa(enum kn_isa isa)
{
    for (isa++; isa < KN_ISA_COUNT && !kn_isa_available(isa); isa++) {
        print_message("SKIPPED on this CPU: %s\n", kn_isa_name(isa));
    }
    return isa;
}

/* xorshift64*: plain and its own, so that a failure can be repeated. */
struct random {
    uint64_t state;
};

static inline uint32_t random_u32(struct random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return (uint32_t)((r->state * 0x2545f4914f6cdd1du) >> 32);
}

static inline uint32_t random_below(struct random *r, uint32_t n)
{
    return (uint32_t)(((uint64_t)random_u32(r) * n) >> 32);
}

/* Uniform in [-1, 1). */
static inline float random_unit(struct random *r)
{
    return (float)(int32_t)random_u32(r) * 0x1p-31f;
}

/* Roughly normal, of variance 1. */
static inline float random_normal(struct random *r)
{
    float sum = 0.0f;

    for (int i = 0; i < 12; i++) {
        sum += random_unit(r);
    }
    return sum * 0.5f;
}

static inline void random_fill(struct random *r, float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = scale * random_normal(r);
    }
}

/* Exactly as many bytes as asked for end before the guard of the sanitizer. */
static inline void *get_memory(size_t bytes)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 64, bytes != 0 ? bytes : 1), 0);
    memset(p, 0xa5, bytes);
    return p;
}

static inline float *get_floats(int64_t n)
{
    return (float *)get_memory((size_t)n * sizeof(float));
}

/* The same bits, or NaN in both. */
static inline void assert_same_floats(const float *got, const float *want, int64_t n,
                                      const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        if (kn_bits(got[i]) != kn_bits(want[i]) && !(got[i] != got[i] && want[i] != want[i])) {
            fail_msg("%s: element %ld is %a (%08x), not %a (%08x)", what, (long)i, (double)got[i],
                     kn_bits(got[i]), (double)want[i], kn_bits(want[i]));
        }
    }
}

/* The block types. */
static const int block_types[] = {KN_Q4_0, KN_Q4_1, KN_Q5_0, KN_Q5_1, KN_Q8_0,   KN_Q2_K,
                                  KN_Q3_K, KN_Q4_K, KN_Q5_K, KN_Q6_K, KN_IQ4_NL, KN_MXFP4};
#define N_BLOCK_TYPES 12
static const int float_types[] = {KN_F32, KN_F16, KN_BF16};
#define N_FLOAT_TYPES 3
#define N_TYPES (N_BLOCK_TYPES + N_FLOAT_TYPES)

static inline int nth_type(int i)
{
    return i < N_BLOCK_TYPES ? block_types[i] : float_types[i - N_BLOCK_TYPES];
}

/* Where a block of the file has its fp16 scale and minimum (-1: none), and its sub-scales. */
struct block_map {
    int d, m, subs, n_subs;
};

static inline struct block_map block_map(int type)
{
    switch (type) {
    case KN_Q4_1:
    case KN_Q5_1:
        return (struct block_map){0, 2, 0, 0};
    case KN_Q2_K:
        return (struct block_map){80, 82, 0, 16};
    case KN_Q3_K:
        return (struct block_map){108, -1, 96, 12};
    case KN_Q4_K:
    case KN_Q5_K:
        return (struct block_map){0, 2, 4, 12};
    case KN_Q6_K:
        return (struct block_map){208, -1, 192, 16};
    case KN_MXFP4:
        return (struct block_map){-1, -1, 0, 0};
    default:
        return (struct block_map){0, -1, 0, 0};
    }
}

static inline void put_half(uint8_t *p, int at, uint16_t half)
{
    if (at >= 0) {
        memcpy(p + at, &half, 2);
    }
}

static inline void random_block(struct random *r, int type, uint8_t *p)
{
    struct block_map map = block_map(type);
    float size = map.n_subs != 0 ? 0.002f : 0.05f; /* sub-scales reach 63, quants of most 15 */

    for (size_t i = 0; i < kn_type_block_bytes(type); i++) {
        p[i] = (uint8_t)random_u32(r);
    }
    put_half(p, map.d, kn_f32_to_f16(size * random_normal(r)));
    put_half(p, map.m, kn_f32_to_f16(6.0f * size * random_normal(r)));
    if (type == KN_MXFP4) {
        p[0] = (uint8_t)(118 + random_below(r, 8));
    }
}

/* n rows of a random GGUF matrix; the scales are moderate. */
static inline uint8_t *random_weights(struct random *r, int type, int64_t rows, int64_t cols)
{
    size_t block_bytes = kn_type_block_bytes(type);
    int64_t n_blocks = rows * (cols / kn_type_block(type));
    uint8_t *w = (uint8_t *)get_memory((size_t)n_blocks * block_bytes);

    for (int64_t b = 0; b < n_blocks; b++) {
        uint8_t *p = w + (size_t)b * block_bytes;
        float x = random_normal(r);
        if (type == KN_F32) {
            memcpy(p, &x, 4);
        } else if (kn_type_block(type) == 1) {
            put_half(p, 0, type == KN_F16 ? kn_f32_to_f16(x) : (uint16_t)(kn_bits(x) >> 16));
        } else {
            random_block(r, type, p);
        }
    }
    return w;
}

/* Packs all of it; free m->data afterwards. */
static inline struct kn_matrix pack_matrix(enum kn_isa isa, int type, int64_t rows, int64_t cols,
                                           const uint8_t *src)
{
    void *data = get_memory(kn_pack_bytes(isa, type, rows, cols));

    kn_pack(isa, type, rows, cols, src, data, 0, rows);
    return (struct kn_matrix){.type = type, .isa = isa, .rows = rows, .cols = cols, .data = data};
}

/* Activations with room for n rows of k. */
static inline struct kn_act get_act(int64_t n, int64_t k)
{
    int64_t n_blocks = (k + KN_BLOCK - 1) / KN_BLOCK;

    return (struct kn_act){
        .f = get_floats(n * k),
        .q = (int8_t *)get_memory((size_t)(n * n_blocks * KN_BLOCK)),
        .d = get_floats(n * n_blocks),
        .s = (int32_t *)get_memory((size_t)(n * n_blocks) * sizeof(int32_t)),
        .h = (int32_t *)get_memory((size_t)(n * n_blocks) * sizeof(int32_t)),
        .k = k,
    };
}

static inline void free_act(struct kn_act *a)
{
    free(a->f);
    free(a->q);
    free(a->d);
    free(a->s);
    free(a->h);
}

static inline void assert_same_act(const struct kn_act *got, const struct kn_act *want, int64_t n)
{
    int64_t n_blocks = (got->k + KN_BLOCK - 1) / KN_BLOCK;

    assert_same_floats(got->f, want->f, n * got->k, "f");
    assert_same_floats(got->d, want->d, n * n_blocks, "d");
    assert_memory_equal(got->q, want->q, (size_t)(n * n_blocks * KN_BLOCK));
    assert_memory_equal(got->s, want->s, (size_t)(n * n_blocks) * sizeof(int32_t));
    assert_memory_equal(got->h, want->h, (size_t)(n * n_blocks) * sizeof(int32_t));
}

#endif

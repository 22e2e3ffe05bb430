/* vector.h: matmul in sixteen lanes, one row each, as lanes.h says. The integer part of block types
 * is in blocks_avx2.h and blocks_avx512.h; here are the float types, and what is around both. */

/* Tokens that share the weights in registers, and tokens whose activations stay in the L2 cache
 * while all rows pass. */
#define TILE_TOKENS (V_ISA == 512 ? 8 : 4)
#define CHUNK_TOKENS 64

/* Adds the segments and writes 16 rows of n tokens; `rows` of them are there. y: of the first. */
V_INLINE void V(put_tile)(int n, const struct segment_sums *sums, int64_t rows, bool accumulate,
                          float *y, int64_t ldy)
{
    for (int i = 0; i < n; i++, y += ldy) {
        VF s[KN_SEGMENTS];
        for (int seg = 0; seg < KN_SEGMENTS; seg++) {
            s[seg] = V(load)(sums->v[seg][i]);
        }
        VF a = V(add)(V(add)(s[0], s[1]), V(add)(s[2], s[3]));
        VF b = V(add)(V(add)(s[4], s[5]), V(add)(s[6], s[7]));
        VF v = V(add)(a, b);
        if (accumulate) {
            v = V(add)(V(loadn)(y, rows), v);
        }
        V(storen)(y, v, rows);
    }
}

/* ---- block types ---------------------------------------------------------------------------- */

#define BLOCKS_CASE(type, n)              \
    case n:                               \
        V(blocks_tile)(type, n, t, sums); \
        break

#if V_ISA == 512
#define BLOCKS_CASES(type) \
    BLOCKS_CASE(type, 1);  \
    BLOCKS_CASE(type, 2);  \
    BLOCKS_CASE(type, 3);  \
    BLOCKS_CASE(type, 4);  \
    BLOCKS_CASE(type, 5);  \
    BLOCKS_CASE(type, 6);  \
    BLOCKS_CASE(type, 7);  \
    BLOCKS_CASE(type, 8)
#else
#define BLOCKS_CASES(type) \
    BLOCKS_CASE(type, 1);  \
    BLOCKS_CASE(type, 2);  \
    BLOCKS_CASE(type, 3);  \
    BLOCKS_CASE(type, 4)
#endif

/* One function a type, which holds a version for each number of tokens. */
#define BLOCKS_FUNCTION(name, type)                                                            \
    V_TARGET static void V(name)(int n, const struct block_tile *t, struct segment_sums *sums) \
    {                                                                                          \
        switch (n) {                                                                           \
            BLOCKS_CASES(type);                                                                \
        }                                                                                      \
    }
BLOCKS_FUNCTION(blocks_q4_0, KN_Q4_0)
BLOCKS_FUNCTION(blocks_q4_1, KN_Q4_1)
BLOCKS_FUNCTION(blocks_q5_0, KN_Q5_0)
BLOCKS_FUNCTION(blocks_q5_1, KN_Q5_1)
BLOCKS_FUNCTION(blocks_q8_0, KN_Q8_0)
BLOCKS_FUNCTION(blocks_q2_k, KN_Q2_K)
BLOCKS_FUNCTION(blocks_q3_k, KN_Q3_K)
BLOCKS_FUNCTION(blocks_q4_k, KN_Q4_K)
BLOCKS_FUNCTION(blocks_q5_k, KN_Q5_K)
BLOCKS_FUNCTION(blocks_q6_k, KN_Q6_K)
BLOCKS_FUNCTION(blocks_iq4_nl, KN_IQ4_NL)
BLOCKS_FUNCTION(blocks_mxfp4, KN_MXFP4)
#undef BLOCKS_FUNCTION
#undef BLOCKS_CASES
#undef BLOCKS_CASE

/* The function of a type. */
static void (*V(blocks_function)(int type))(int, const struct block_tile *, struct segment_sums *)
{
    switch (type) {
    case KN_Q4_0:
        return V(blocks_q4_0);
    case KN_Q4_1:
        return V(blocks_q4_1);
    case KN_Q5_0:
        return V(blocks_q5_0);
    case KN_Q5_1:
        return V(blocks_q5_1);
    case KN_Q8_0:
        return V(blocks_q8_0);
    case KN_Q2_K:
        return V(blocks_q2_k);
    case KN_Q3_K:
        return V(blocks_q3_k);
    case KN_Q4_K:
        return V(blocks_q4_k);
    case KN_Q5_K:
        return V(blocks_q5_k);
    case KN_Q6_K:
        return V(blocks_q6_k);
    case KN_IQ4_NL:
        return V(blocks_iq4_nl);
    default:
        return V(blocks_mxfp4);
    }
}

V_TARGET static void V(matmul_blocks)(const struct kn_matrix *w, const struct kn_act *x,
                                      int64_t token_begin, int64_t token_end, int64_t row_begin,
                                      int64_t row_end, bool accumulate, float *y, int64_t ldy)
{
    void (*tile)(int, const struct block_tile *, struct segment_sums *) =
        V(blocks_function)(w->type);
    int64_t nb = w->cols / KN_BLOCK;
    struct segment_sums sums;
    struct kn_layout l;

    kn_layout_init(&l, w->type, w->cols);
    for (int64_t r = row_begin; r < row_end; r += KN_ROW_TILE) {
        const uint8_t *at = (const uint8_t *)w->data + (size_t)(r / KN_ROW_TILE) * l.tile;
        for (int64_t t = token_begin; t < token_end; t += TILE_TOKENS) {
            int n = token_end - t < TILE_TOKENS ? (int)(token_end - t) : TILE_TOKENS;
            struct block_tile b = {
                .scales = at,
                .quants = at + l.scales,
                .q = x->q + t * nb * KN_BLOCK,
                .d = x->d + t * nb,
                .s = x->s + t * nb,
                .h = x->h != NULL ? x->h + t * nb : NULL,
                .n_blocks = nb,
                .fetch = t == token_begin,
            };
            tile(n, &b, &sums);
            V(put_tile)(n, &sums, row_end - r, accumulate, y + t * ldy + r, ldy);
        }
    }
}

/* ---- float types ---------------------------------------------------------------------------- */

V_INLINE VF V(load_column)(int type, const uint8_t *p)
{
    const void *at = p;

    if (type == KN_F32) {
        return V(load)(at);
    }
    return type == KN_F16 ? V(loadh)(at, 16) : V(load_bf16)(at);
}

/* n_tiles row tiles times n tokens: enough chains of fma to hide their latency. x (n, k). */
V_INLINE void V(float_tiles)(int type, int n_tiles, int n, const uint8_t *w, size_t tile_bytes,
                             const float *x, int64_t k, struct segment_sums *sums)
{
    int64_t nb = (k + KN_BLOCK - 1) / KN_BLOCK;
    size_t bytes = KN_ROW_TILE * (type == KN_F32 ? 4 : 2);

    for (int seg = 0; seg < KN_SEGMENTS; seg++) {
        int64_t end = kn_segment(nb, seg + 1) * KN_BLOCK;
        VF acc[8];
        for (int i = 0; i < n_tiles * n; i++) {
            acc[i] = V(set1)(0.0f);
        }
        end = end < k ? end : k;
        for (int64_t c = kn_segment(nb, seg) * KN_BLOCK; c < end; c++) {
            for (int i = 0; i < n_tiles; i++) {
                const uint8_t *column = w + (size_t)i * tile_bytes + (size_t)c * bytes;
                VF v = V(load_column)(type, column);
                if (n == 1) { /* otherwise arithmetic takes longer than memory */
                    __builtin_prefetch(column + FETCH_AHEAD);
                }
                for (int t = 0; t < n; t++) {
                    acc[i * n + t] = V(fma)(v, V(set1)(x[t * k + c]), acc[i * n + t]);
                }
            }
        }
        for (int i = 0; i < n_tiles; i++) {
            for (int t = 0; t < n; t++) {
                V(store)(sums[i].v[seg][t], acc[i * n + t]);
            }
        }
    }
}

#define FLOATS_FUNCTION(name, type)                                                       \
    V_TARGET static void V(name)(int n_tiles, int n, const uint8_t *w, size_t tile_bytes, \
                                 const float *x, int64_t k, struct segment_sums *sums)    \
    {                                                                                     \
        if (n == 4 && n_tiles == 2) {                                                     \
            V(float_tiles)(type, 2, 4, w, tile_bytes, x, k, sums);                        \
        } else if (n == 4) {                                                              \
            V(float_tiles)(type, 1, 4, w, tile_bytes, x, k, sums);                        \
        } else if (n_tiles == 4) {                                                        \
            V(float_tiles)(type, 4, 1, w, tile_bytes, x, k, sums);                        \
        } else {                                                                          \
            V(float_tiles)(type, 1, 1, w, tile_bytes, x, k, sums);                        \
        }                                                                                 \
    }
FLOATS_FUNCTION(floats_f32, KN_F32)
FLOATS_FUNCTION(floats_f16, KN_F16)
FLOATS_FUNCTION(floats_bf16, KN_BF16)
#undef FLOATS_FUNCTION

V_TARGET static void V(matmul_floats)(const struct kn_matrix *w, const struct kn_act *x,
                                      int64_t token_begin, int64_t token_end, int64_t row_begin,
                                      int64_t row_end, bool accumulate, float *y, int64_t ldy)
{
    void (*tiles)(int, int, const uint8_t *, size_t, const float *, int64_t,
                  struct segment_sums *) = w->type == KN_F32   ? V(floats_f32)
                                           : w->type == KN_F16 ? V(floats_f16)
                                                               : V(floats_bf16);
    struct segment_sums sums[4];
    struct kn_layout l;
    int n_tiles, n;

    kn_layout_init(&l, w->type, w->cols);
    for (int64_t t = token_begin; t < token_end; t += n) {
        n = token_end - t >= 4 ? 4 : 1;
        for (int64_t r = row_begin; r < row_end; r += n_tiles * KN_ROW_TILE) {
            const uint8_t *at = (const uint8_t *)w->data + (size_t)(r / KN_ROW_TILE) * l.tile;
            n_tiles = n == 1 ? 4 : V_ISA == 512 ? 2 : 1;
            if (row_end - r <= (n_tiles - 1) * KN_ROW_TILE) {
                n_tiles = 1;
            }
            tiles(n_tiles, n, at, l.tile, x->f + t * w->cols, w->cols, sums);
            for (int i = 0; i < n_tiles; i++) {
                int64_t row = r + i * KN_ROW_TILE;
                V(put_tile)(n, &sums[i], row_end - row, accumulate, y + t * ldy + row, ldy);
            }
        }
    }
}

/* ---- both ----------------------------------------------------------------------------------- */

V_TARGET void V(kn_matmul)(const struct kn_matrix *w, const struct kn_act *x, int64_t n,
                           int64_t row_begin, int64_t row_end, bool accumulate, float *y,
                           int64_t ldy)
{
    for (int64_t t = 0; t < n; t += CHUNK_TOKENS) {
        int64_t end = n - t < CHUNK_TOKENS ? n : t + CHUNK_TOKENS;
        if (kn_is_float(w->type)) {
            V(matmul_floats)(w, x, t, end, row_begin, row_end, accumulate, y, ldy);
        } else {
            V(matmul_blocks)(w, x, t, end, row_begin, row_end, accumulate, y, ldy);
        }
    }
}

#undef TILE_TOKENS
#undef CHUNK_TOKENS

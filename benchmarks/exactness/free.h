/* free.h: matmul of block types free of the order of NUMERICS.md 4: one running sum over all
 * blocks, no segments, no tree. All else is the kernels' own code (kernels/matmul/blocks.h), so
 * that what is compared is the contract and not the craft. In lanes, as kernels/lanes.h says. */

#define FREE_TOKENS (V_ISA == 512 ? 8 : 4)
#define FREE_CHUNK 64

#define FREE_CASE(type, n)                 \
    case n:                                \
        V(blocks_tile)(type, n, t, &sums); \
        break
#if V_ISA == 512
#define FREE_CASES(type) \
    FREE_CASE(type, 1);  \
    FREE_CASE(type, 2);  \
    FREE_CASE(type, 3);  \
    FREE_CASE(type, 4);  \
    FREE_CASE(type, 5);  \
    FREE_CASE(type, 6);  \
    FREE_CASE(type, 7);  \
    FREE_CASE(type, 8)
#else
#define FREE_CASES(type) \
    FREE_CASE(type, 1);  \
    FREE_CASE(type, 2);  \
    FREE_CASE(type, 3);  \
    FREE_CASE(type, 4)
#endif

#define FREE_TILE(name, type)                                                              \
    V_TARGET static void V(name)(int n, const struct block_tile *t, float *y, int64_t ldy, \
                                 int64_t rows)                                             \
    {                                                                                      \
        struct segment_sums sums;                                                          \
        switch (n) {                                                                       \
            FREE_CASES(type);                                                              \
        }                                                                                  \
        for (int i = 0; i < n; i++) {                                                      \
            V(storen)(y + i * ldy, V(load)(sums.v[0][i]), rows);                           \
        }                                                                                  \
    }
FREE_TILE(free_q4_1, KN_Q4_1)
FREE_TILE(free_q8_0, KN_Q8_0)
FREE_TILE(free_q4_k, KN_Q4_K)
#undef FREE_TILE
#undef FREE_CASES
#undef FREE_CASE

/* As kn_ops(isa)->matmul without accumulate, for the three types above. */
V_TARGET static void V(free_matmul)(const struct kn_matrix *w, const struct kn_act *x, int64_t n,
                                    int64_t row_begin, int64_t row_end, float *y, int64_t ldy)
{
    void (*tile)(int, const struct block_tile *, float *, int64_t, int64_t) =
        w->type == KN_Q4_1   ? V(free_q4_1)
        : w->type == KN_Q8_0 ? V(free_q8_0)
                             : V(free_q4_k);
    int64_t nb = w->cols / KN_BLOCK;
    struct kn_layout l;

    kn_layout_init(&l, w->type, w->cols);
    for (int64_t begin = 0; begin < n; begin += FREE_CHUNK) {
        int64_t end = n - begin < FREE_CHUNK ? n : begin + FREE_CHUNK;
        for (int64_t r = row_begin; r < row_end; r += KN_ROW_TILE) {
            const uint8_t *at = (const uint8_t *)w->data + (size_t)(r / KN_ROW_TILE) * l.tile;
            for (int64_t t = begin; t < end; t += FREE_TOKENS) {
                struct block_tile b = {.scales = at,
                                       .quants = at + l.scales,
                                       .q = x->q + t * nb * KN_BLOCK,
                                       .d = x->d + t * nb,
                                       .s = x->s + t * nb,
                                       .n_blocks = nb,
                                       .fetch = t == begin};
                tile(end - t < FREE_TOKENS ? (int)(end - t) : FREE_TOKENS, &b, y + t * ldy + r, ldy,
                     row_end - r);
            }
        }
    }
}

#undef FREE_TOKENS
#undef FREE_CHUNK

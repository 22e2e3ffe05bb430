/* amx.h: matmul of block types with AMX tiles, for some tokens or more: the products of a block of
 * 16 rows with 16 tokens are one instruction, and what is left is the fp32 of NUMERICS.md 4. Float
 * types, few tokens and Q2_K (9 operations of fp32 a product) are AVX-512's. A thread owns the tile
 * registers for the length of a call.
 *
 * Formula   y[t, r] = tree8 of the segments' sums of d_x * t, as blocks.h; idot comes from TDPBSSD
 * Tiles     C (tokens, 16 rows) int32; A (tokens, 32) activations as they are; B (8, 16 rows × 4
 *           columns) quants as values, int8. Sub-blocks of 16: A (tokens, 16), B (4, …), two C.
 * Order     chunk of tokens, tile of rows, panel of blocks (unpacked once for the chunk), group of
 *           16 tokens, block. The sums of a group stay in registers.
 * Bound by  both: products (loads and stores of tiles, 36 cycles a block of 16 x 16) and the fp32
 *           (34 with 4 operations) do not overlap, whatever their order (measured). */

#define AMX_GROUP 16                 /* tokens of a tile */
#define AMX_GROUPS_MAX 16            /* of a chunk */
#define AMX_PANEL_BLOCKS 64          /* unpacked at a time */
#define AMX_SIDE_BYTES 262144        /* of a chunk's scales and sums, for all of K */
#define AMX_ACT_BYTES 524288         /* of a chunk's activations, for all of K */
#define AMX_ACT_AHEAD 4096           /* bytes that activations are fetched ahead of their use */
#define AMX_AHEAD 2                  /* blocks that the products are ahead of the fp32 */
#define AMX_HALF_AT (AMX_RING * 256) /* of the second half's dots after the first's */
#define AMX_RING 4                   /* a power of two above it */
#define AMX_TOKENS_MIN 16            /* from how many on it is faster than AVX-512 */

/* Loops over registers: gcc keeps an array in them only if all of its loops are gone early. Checked
 * builds would take minutes to compile what is unrolled. */
#if defined(__clang__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define AMX_UNROLL
#else
#define AMX_UNROLL _Pragma("GCC unroll 16")
#endif

#define A_TARGET KN_TARGET_AMX
#define A_INLINE static inline __attribute__((always_inline)) A_TARGET

/* What the fp32 of a block is: the types differ in nothing else once they are unpacked. */
enum amx_kind {
    AMX_SCALE, /* d */
    AMX_MIN,   /* d, m */
    AMX_HALVES /* d; sc0, sc1 */
};

/* Vectors of 16 floats that a block has: by row, and by token (d_x, and s). */
static inline __attribute__((always_inline)) int amx_row_vectors(enum amx_kind kind)
{
    return kind == AMX_SCALE ? 1 : kind == AMX_MIN ? 2 : 3;
}

static inline __attribute__((always_inline)) int amx_token_vectors(enum amx_kind kind)
{
    return kind == AMX_MIN ? 2 : 1;
}

/* The sums of a group between two panels: of the segment, and of the subtrees that are finished. */
struct amx_sums {
    float acc[AMX_GROUP][KN_ROW_TILE];
    float level[3][AMX_GROUP][KN_ROW_TILE];
};

struct amx_scratch {
    int8_t quants[AMX_PANEL_BLOCKS][8][64];
    float scales[AMX_PANEL_BLOCKS * 3 * KN_ROW_TILE];
    int8_t act[AMX_ACT_BYTES + AMX_ACT_AHEAD]; /* (groups, blocks, 16, 32): a tile is 8 lines */
    float side[AMX_SIDE_BYTES / 4];            /* (groups, blocks, token vectors, 16) */
    /* Halves apart, so that what is read and what is written meanwhile differ in the low 12 bits of
     * their addresses. */
    int32_t dots[2][AMX_RING][AMX_GROUP][KN_ROW_TILE];
    struct amx_sums sums[AMX_GROUPS_MAX];
} __attribute__((aligned(64)));

/* Where the blocks of a panel lie in the segments. */
struct amx_place {
    int64_t begin, end; /* blocks */
    int64_t n_blocks;   /* of a row */
    int64_t unit_blocks;
    int seg; /* of `begin` */
};

/* ---- tile registers -------------------------------------------------------------------------- */

/* 0, 5: C of a whole group, 1: its A; 3, 6 and 4: the same of the last, smaller one; 2: B. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64)));

A_TARGET static void amx_configure(bool halves, int tail)
{
    struct amx_config c = {.palette = 1};
    uint16_t a_bytes = halves ? KN_BLOCK / 2 : KN_BLOCK;

    for (int i = 0; i < 7; i++) {
        c.rows[i] = (uint8_t)(i == 3 || i == 4 || i == 6 ? (tail != 0 ? tail : 1) : AMX_GROUP);
        c.row_bytes[i] = 64;
    }
    c.row_bytes[1] = c.row_bytes[4] = a_bytes;
    c.rows[2] = (uint8_t)(a_bytes / 4);
    __asm__ volatile("" : : "m"(c));
    _tile_loadconfig(&c);
}

/* dots = the products of block `w` with a group's activations `a`. Those of the second half of the
 * block follow those of the first at dots + AMX_HALF_AT. */
A_INLINE void amx_dots(bool halves, bool whole, const int8_t *w, const int8_t *a, int32_t *dots)
{
    const int64_t lda = KN_BLOCK;

    for (int i = 0; i < AMX_GROUP * KN_BLOCK; i += 64) {
        __builtin_prefetch(a + AMX_ACT_AHEAD + i);
    }
    _tile_loadd(2, w, 64);
    if (whole) {
        _tile_zero(0);
        _tile_loadd(1, a, lda);
        _tile_dpbssd(0, 1, 2);
        _tile_stored(0, dots, 64);
        if (halves) {
            _tile_zero(5);
            _tile_loadd(2, w + 256, 64);
            _tile_loadd(1, a + 16, lda);
            _tile_dpbssd(5, 1, 2);
            _tile_stored(5, dots + AMX_HALF_AT, 64);
        }
    } else {
        _tile_zero(3);
        _tile_loadd(4, a, lda);
        _tile_dpbssd(3, 4, 2);
        _tile_stored(3, dots, 64);
        if (halves) {
            _tile_zero(6);
            _tile_loadd(2, w + 256, 64);
            _tile_loadd(4, a + 16, lda);
            _tile_dpbssd(6, 4, 2);
            _tile_stored(6, dots + AMX_HALF_AT, 64);
        }
    }
}

/* ---- fp32 ------------------------------------------------------------------------------------ */

/* acc[i] + d_x * t for n tokens, n a constant. rows: the block's vectors by row; tokens: by token.
 * Sums of integers are exact in fp32; they start from +0 so that zero is +0. */
A_INLINE void amx_add_block(enum amx_kind kind, int n, const int32_t *dots, const float *rows,
                            const float *tokens, __m512 *acc)
{
    __m512 d = _mm512_load_ps(rows), zero = _mm512_setzero_ps(), v[3];
    AMX_UNROLL

    for (int i = 1; i < amx_row_vectors(kind); i++) {
        v[i] = _mm512_load_ps(rows + 16 * i);
    }
    AMX_UNROLL
    for (int i = 0; i < n; i++) {
        __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots + 16 * i)), t;
        if (kind == AMX_HALVES) {
            __m512 dot1 = _mm512_cvtepi32_ps(_mm512_load_si512(dots + AMX_HALF_AT + 16 * i));
            dot = _mm512_fmadd_ps(v[2], dot1, _mm512_fmadd_ps(v[1], dot, zero));
        }
        if (kind == AMX_MIN) {
            t = _mm512_fmadd_ps(d, dot, _mm512_mul_ps(v[1], _mm512_set1_ps(tokens[16 + i])));
        } else {
            t = _mm512_mul_ps(d, dot);
        }
        acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(tokens[i]), t, acc[i]);
    }
}

/* The last of a subtree's 2^level segments is finished: adds what came before it in the subtree, as
 * tree8 does. level is a constant. */
A_INLINE void amx_end_subtree(int n, int level, struct amx_sums *sums, __m512 *acc)
{
    AMX_UNROLL
    for (int i = 0; i < n; i++) {
        AMX_UNROLL
        for (int j = 0; j < level; j++) {
            acc[i] = _mm512_add_ps(_mm512_load_ps(sums->level[j][i]), acc[i]);
        }
    }
    AMX_UNROLL
    for (int i = 0; i < n && level < 3; i++) {
        _mm512_store_ps(sums->level[level][i], acc[i]);
        acc[i] = _mm512_setzero_ps();
    }
}

/* Segment `seg` is finished. After the last one acc is the tree's sum. */
A_INLINE void amx_end_segment(int n, int seg, struct amx_sums *sums, __m512 *acc)
{
    if (seg == KN_SEGMENTS - 1) {
        amx_end_subtree(n, 3, sums, acc);
    } else if (seg % 4 == 3) {
        amx_end_subtree(n, 2, sums, acc);
    } else if (seg % 2 == 1) {
        amx_end_subtree(n, 1, sums, acc);
    } else {
        amx_end_subtree(n, 0, sums, acc);
    }
}

/* The blocks of a panel for a group of n tokens (as many as its tile has, or up to 3 more when it
 * is not whole). a: of the panel's first block. Leaves the sums in `sums`. */
A_INLINE void amx_group(enum amx_kind kind, bool whole, int n, struct amx_scratch *s,
                        const struct amx_place *p, const int8_t *a, const float *tokens,
                        struct amx_sums *sums)
{
    const bool halves = kind == AMX_HALVES;
    const int n_rows = 16 * amx_row_vectors(kind), n_tokens = 16 * amx_token_vectors(kind);
    int64_t n_blocks = p->end - p->begin, n_units, seg_end;
    int seg = p->seg;
    __m512 acc[AMX_GROUP];

    n_units = p->n_blocks / p->unit_blocks;
    AMX_UNROLL
    for (int i = 0; i < n; i++) {
        acc[i] = p->begin != 0 ? _mm512_load_ps(sums->acc[i]) : _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < AMX_AHEAD && b < n_blocks; b++) {
        amx_dots(halves, whole, s->quants[b][0], a + b * AMX_GROUP * KN_BLOCK, s->dots[0][b][0]);
    }
    seg_end = kn_segment(n_units, seg + 1) * p->unit_blocks - p->begin;
    for (int64_t b = 0;; b++) {
        for (; b == seg_end && seg < KN_SEGMENTS; seg++) {
            amx_end_segment(n, seg, sums, acc);
            seg_end = kn_segment(n_units, seg + 2) * p->unit_blocks - p->begin;
        }
        if (b == n_blocks) {
            break;
        }
        int64_t next = b + AMX_AHEAD;
        if (next < n_blocks) {
            amx_dots(halves, whole, s->quants[next][0], a + next * AMX_GROUP * KN_BLOCK,
                     s->dots[0][next & (AMX_RING - 1)][0]);
        }
        amx_add_block(kind, n, s->dots[0][b & (AMX_RING - 1)][0], s->scales + b * n_rows,
                      tokens + b * n_tokens, acc);
    }
    AMX_UNROLL
    for (int i = 0; i < n; i++) {
        _mm512_store_ps(sums->acc[i], acc[i]);
    }
}

#define AMX_GROUP_FUNCTION(name, kind)                                                     \
    A_TARGET static void name(int n, struct amx_scratch *s, const struct amx_place *p,     \
                              const int8_t *a, const float *tokens, struct amx_sums *sums) \
    {                                                                                      \
        if (n == AMX_GROUP) {                                                              \
            amx_group(kind, true, 16, s, p, a, tokens, sums);                              \
        } else if (n > 8) {                                                                \
            amx_group(kind, false, 16, s, p, a, tokens, sums);                             \
        } else {                                                                           \
            amx_group(kind, false, 8, s, p, a, tokens, sums);                              \
        }                                                                                  \
    }
AMX_GROUP_FUNCTION(amx_group_scale, AMX_SCALE)
AMX_GROUP_FUNCTION(amx_group_min, AMX_MIN)
AMX_GROUP_FUNCTION(amx_group_halves, AMX_HALVES)
#undef AMX_GROUP_FUNCTION

/* ---- weights --------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) enum amx_kind amx_kind_of(int type)
{
    return type_sub(type) == 16 ? AMX_HALVES : type_has_min(type) ? AMX_MIN : AMX_SCALE;
}

/* Blocks [begin, end) of the tile of rows at `tile`. type is a constant. */
A_INLINE void amx_unpack_type(int type, const uint8_t *tile, const struct kn_layout *l,
                              int64_t begin, int64_t end, struct amx_scratch *s)
{
    const enum amx_kind kind = amx_kind_of(type);
    const int zero = type_zero_log2(type) != 0 ? 1 << type_zero_log2(type) : 0;
    const size_t quant_bytes = 64 * (size_t)(type_low_bits(type) + type_high_bits(type));
    float *to = s->scales;

    for (int64_t b = begin; b < end; b++, to += 16 * amx_row_vectors(kind)) {
        const uint8_t *quants = tile + l->scales + (size_t)b * quant_bytes;
        struct block_scales_n512 w = load_scales_n512(type, tile, b, 0);
        for (int g = 0; g < 4; g++) {
            __m512i w0, w1, z = _mm512_set1_epi8((char)zero);
            load_groups_n512(type, quants, g, &w0, &w1);
            _mm512_store_si512(s->quants[b - begin][g], _mm512_sub_epi8(w0, z));
            _mm512_store_si512(s->quants[b - begin][g + 4], _mm512_sub_epi8(w1, z));
        }
        for (size_t i = 0; i < quant_bytes; i += 64) {
            __builtin_prefetch(quants + i + FETCH_AHEAD / 2);
        }
        _mm512_store_ps(to, w.d);
        if (kind == AMX_MIN) {
            _mm512_store_ps(to + 16, w.m);
        }
        if (type_sub(type) == 16) {
            _mm512_store_ps(to + 16, itof_n512(w.sc0));
            _mm512_store_ps(to + 32, itof_n512(w.sc1));
        }
    }
}

#define AMX_UNPACK_CASE(type)                          \
    case type:                                         \
        amx_unpack_type(type, tile, l, begin, end, s); \
        break
A_TARGET static void amx_unpack(int type, const uint8_t *tile, const struct kn_layout *l,
                                int64_t begin, int64_t end, struct amx_scratch *s)
{
    switch (type) {
        AMX_UNPACK_CASE(KN_Q4_0);
        AMX_UNPACK_CASE(KN_Q4_1);
        AMX_UNPACK_CASE(KN_Q5_0);
        AMX_UNPACK_CASE(KN_Q5_1);
        AMX_UNPACK_CASE(KN_Q8_0);
        AMX_UNPACK_CASE(KN_Q3_K);
        AMX_UNPACK_CASE(KN_Q4_K);
        AMX_UNPACK_CASE(KN_Q5_K);
        AMX_UNPACK_CASE(KN_Q6_K);
        AMX_UNPACK_CASE(KN_IQ4_NL);
        AMX_UNPACK_CASE(KN_MXFP4);
    }
    /* The tile instructions of some compilers do not say that they read memory. */
    __asm__ volatile("" : : : "memory");
}
#undef AMX_UNPACK_CASE

/* ---- activations ----------------------------------------------------------------------------- */

/* The vectors by token of n tokens from `token` on, all blocks. */
A_TARGET static void amx_token_side(enum amx_kind kind, const struct kn_act *x, int64_t token,
                                    int n, int64_t n_blocks, float *to)
{
    __m512i at =
        _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                           _mm512_set1_epi32((int32_t)n_blocks));
    __mmask16 there = (__mmask16)((1u << n) - 1);
    __m512i none = _mm512_setzero_si512();
    int64_t first = token * n_blocks;

    for (int64_t b = 0; b < n_blocks; b++, to += 16 * amx_token_vectors(kind)) {
        __m512i d = _mm512_mask_i32gather_epi32(none, there, at, x->d + first + b, 4);
        _mm512_store_si512(to, d);
        if (kind == AMX_MIN) {
            __m512i v = _mm512_mask_i32gather_epi32(none, there, at, x->s + first + b, 4);
            _mm512_store_ps(to + 16, _mm512_cvtepi32_ps(v));
        }
    }
}

/* The activations of n tokens from `token` on, all blocks, tile by tile. */
A_TARGET static void amx_token_tiles(const struct kn_act *x, int64_t token, int n, int64_t n_blocks,
                                     int8_t *to)
{
    for (int i = 0; i < n; i++) {
        const int8_t *from = x->q + (token + i) * n_blocks * KN_BLOCK;
        for (int64_t b = 0; b < n_blocks; b++) {
            memcpy(to + (b * AMX_GROUP + i) * KN_BLOCK, from + b * KN_BLOCK, KN_BLOCK);
        }
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* A tile of rows with a chunk of n tokens: all panels, then y. */
A_TARGET static void amx_row_tile(const struct kn_matrix *w, const struct kn_layout *l,
                                  const uint8_t *tile, int64_t token, int n, struct amx_scratch *s,
                                  int64_t rows, bool accumulate, float *y, int64_t ldy)
{
    enum amx_kind kind = amx_kind_of(w->type);
    void (*group)(int, struct amx_scratch *, const struct amx_place *, const int8_t *,
                  const float *, struct amx_sums *) = kind == AMX_SCALE ? amx_group_scale
                                                      : kind == AMX_MIN ? amx_group_min
                                                                        : amx_group_halves;
    int64_t nb = w->cols / KN_BLOCK;
    int side = 16 * amx_token_vectors(kind);
    struct amx_place p = {.n_blocks = nb, .unit_blocks = l->unit_blocks};

    for (p.begin = 0; p.begin < nb; p.begin = p.end) {
        p.end = nb - p.begin < AMX_PANEL_BLOCKS ? nb : p.begin + AMX_PANEL_BLOCKS;
        while (p.begin != 0 &&
               kn_segment(nb / p.unit_blocks, p.seg + 1) * p.unit_blocks <= p.begin) {
            p.seg++;
        }
        amx_unpack(w->type, tile, l, p.begin, p.end, s);
        for (int i = 0; i < n; i += AMX_GROUP) {
            int some = n - i < AMX_GROUP ? n - i : AMX_GROUP;
            struct amx_sums *sums = &s->sums[nb > AMX_PANEL_BLOCKS ? i / AMX_GROUP : 0];
            for (int t = 0; p.end == nb && t < some; t++) {
                __builtin_prefetch(y + (token + i + t) * ldy, 1);
            }
            group(some, s, &p, s->act + (i * nb + p.begin * AMX_GROUP) * KN_BLOCK,
                  s->side + (i / AMX_GROUP * nb + p.begin) * side, sums);
            for (int t = 0; p.end == nb && t < some; t++) {
                float *to = y + (token + i + t) * ldy;
                __m512 v = _mm512_load_ps(sums->acc[t]);
                if (accumulate) {
                    v = _mm512_add_ps(loadn_avx512(to, rows), v);
                }
                storen_avx512(to, v, rows);
            }
        }
    }
}

/* Groups of a chunk: so many that their scales have room and their activations stay in the L2 cache
 * while all rows pass. */
static int amx_groups(enum amx_kind kind, int64_t n_blocks)
{
    int64_t room = AMX_SIDE_BYTES / (n_blocks * 64 * amx_token_vectors(kind));
    int64_t cached = AMX_ACT_BYTES / (n_blocks * KN_BLOCK * AMX_GROUP);
    int64_t n = room < cached ? room : cached;

    return (int)(n < AMX_GROUPS_MAX ? n : AMX_GROUPS_MAX);
}

A_TARGET static void amx_matmul(const struct kn_matrix *w, const struct kn_act *x, int64_t n,
                                int64_t row_begin, int64_t row_end, bool accumulate, float *y,
                                int64_t ldy)
{
    enum amx_kind kind = amx_kind_of(w->type);
    int64_t nb = w->cols / KN_BLOCK, chunk = AMX_GROUP * amx_groups(kind, nb);
    struct amx_scratch s;
    struct kn_layout l;

    kn_layout_init(&l, w->type, w->cols);
    memset(s.dots, 0, sizeof s.dots); /* rows past the last token are computed with, and dropped */
    amx_configure(type_sub(w->type) == 16, (int)(n % AMX_GROUP));
    for (int64_t t = 0; t < n; t += chunk) {
        int some = (int)(n - t < chunk ? n - t : chunk);
        for (int i = 0; i < some; i += AMX_GROUP) {
            int group = some - i < AMX_GROUP ? some - i : AMX_GROUP;
            amx_token_side(kind, x, t + i, group, nb,
                           s.side + i / AMX_GROUP * nb * 16 * amx_token_vectors(kind));
            amx_token_tiles(x, t + i, group, nb, s.act + i * nb * KN_BLOCK);
        }
        for (int64_t r = row_begin; r < row_end; r += KN_ROW_TILE) {
            const uint8_t *tile = (const uint8_t *)w->data + (size_t)(r / KN_ROW_TILE) * l.tile;
            amx_row_tile(w, &l, tile, t, some, &s, row_end - r, accumulate, y + r, ldy);
        }
    }
    _tile_release();
}

void kn_matmul_amx(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy)
{
    if (kn_is_float(w->type) || w->type == KN_Q2_K || n < AMX_TOKENS_MIN ||
        amx_groups(amx_kind_of(w->type), w->cols / KN_BLOCK) < 1) {
        kn_matmul_avx512(w, x, n, row_begin, row_end, accumulate, y, ldy);
    } else {
        amx_matmul(w, x, n, row_begin, row_end, accumulate, y, ldy);
    }
}

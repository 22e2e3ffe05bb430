/* blocks.h: one register of rows (16 in AVX-512, half a tile in AVX2) times n tokens of a block
 * type. Written once in the native registers of an instruction set: N(x) is x of that set, NF its
 * floats, NI its integers, N_ROWS the rows of a register; blocks_avx2.h and blocks_avx512.h define
 * them and N(dots), the integer products, and include this. `type` and `n` are constants where this
 * is inlined. NUMERICS.md 4. */

/* Groups g and g + 4 of a block's quants (a group: four columns of each row), unsigned. */
N_INLINE void N(load_groups)(int type, const uint8_t *p, int g, NI *w0, NI *w1)
{
    if (type_low_bits(type) == 8) {
        *w0 = N(loadi)(p + 64 * g);
        *w1 = N(loadi)(p + 64 * (g + 4));
        return;
    }
    if (type_low_bits(type) == 4) {
        NI v = N(loadi)(p + 64 * g), mask = N(set8)(15);
        *w0 = N(andi)(v, mask);
        *w1 = N(andi)(N(shift16)(v, -4), mask);
    } else {
        NI mask = N(set8)(3);
        *w0 = N(andi)(N(shift16)(N(loadi)(p), -2 * g), mask);
        *w1 = N(andi)(N(shift16)(N(loadi)(p + 64), -2 * g), mask);
    }
    *w0 = N(lookup)(type, *w0);
    *w1 = N(lookup)(type, *w1);
    int low = type_low_bits(type);
    const uint8_t *high = p + 64 * low;
    if (type_high_bits(type) == 1) {
        NI v = N(loadi)(high), mask = N(set8)(1 << low);
        *w0 = N(ori)(*w0, N(andi)(N(shift16)(v, low - g), mask));
        *w1 = N(ori)(*w1, N(andi)(N(shift16)(v, low - g - 4), mask));
    } else if (type_high_bits(type) == 2) {
        NI mask = N(set8)(3 << low);
        *w0 = N(ori)(*w0, N(andi)(N(shift16)(N(loadi)(high), low - 2 * g), mask));
        *w1 = N(ori)(*w1, N(andi)(N(shift16)(N(loadi)(high + 64), low - 2 * g), mask));
    }
}

/* The scales of a block, once for all tokens. */
struct N(block_scales) {
    NF d, m;     /* as block_weights of ref.c */
    NI sc0, sc1; /* sub-blocks of 16: the scales, */
    NI zero;     /* the pairs of both times what the quants are above their values, negated, */
    NI min;      /* and the pairs of minima */
};

/* Block b of the tile whose scales start at `scales`; row: the first of the register. */
N_INLINE struct N(block_scales) N(load_scales)(int type, const uint8_t *scales, int64_t b, int row)
{
    int64_t in_unit = type_unit_blocks(type);
    const uint8_t *p = scales + (size_t)(b / in_unit) * type_scale_bytes(type);
    const uint8_t *subs = p + type_subs_at(type) + (size_t)(b % in_unit) * KN_SUB_BYTES;
    struct N(block_scales)
        s = {N(zerof)(), N(zerof)(), N(zeroi)(), N(zeroi)(), N(zeroi)(), N(zeroi)()};

    if (type == KN_MXFP4) {
        s.d = N(e8m0_half)(N(load_bytes)(p + row));
    } else {
        s.d = N(load_half)(p + 2 * row);
    }
    if (type_has_min(type)) {
        s.m = N(load_half)(p + 2 * KN_ROW_TILE + 2 * row);
        if (type_sub(type) != 0) {
            s.m = N(negf)(s.m);
        }
    }
    if (type_sub(type) == 32) {
        s.d = N(mulf)(s.d, N(itof)(N(load_bytes)(subs + row)));
        s.m = N(mulf)(s.m, N(itof)(N(load_bytes)(subs + KN_ROW_TILE + row)));
    } else if (type_sub(type) == 16) {
        NI pairs = N(load_pairs)(subs + 2 * row); /* two int8 of a row as two int16 */
        if (type_has_min(type)) {
            NI nibble = N(set16)(15);
            s.min = N(andi)(N(shift16)(pairs, -4), nibble);
            pairs = N(andi)(pairs, nibble);
        }
        s.sc0 = N(first16)(pairs);
        s.sc1 = N(second16)(pairs);
        if (type_zero_log2(type) != 0) {
            s.zero = N(sub16)(N(zeroi)(), N(shift16)(pairs, type_zero_log2(type)));
        }
    }
    return s;
}

/* acc + d_x * (the block's value): dot holds the products of the whole block, or of its halves. */
N_INLINE NF N(add_block)(int type, const struct N(block_scales) * w, NI dot0, NI dot1,
                         const struct block_tile *t, int64_t at, NF acc)
{
    NF term;

    if (type_sub(type) == 16) {
        NI sums = N(seti)(t->h[at]);
        NI isum = N(addi)(N(muli)(dot0, w->sc0), N(muli)(dot1, w->sc1));
        if (type_zero_log2(type) != 0) {
            isum = N(addi)(isum, N(dot16)(w->zero, sums));
        }
        term = N(mulf)(w->d, N(itof)(isum));
        if (type_has_min(type)) {
            NF imin = N(itof)(N(dot16)(w->min, sums));
            term = N(fmaf)(w->d, N(itof)(isum), N(mulf)(w->m, imin));
        }
        return N(fmaf)(N(setf)(t->d[at]), term, acc);
    }
    if (N(dots_above)(type)) {
        NI zero = N(shift32)(N(seti)(t->s[at]), type_zero_log2(type));
        dot0 = N(subi)(dot0, zero);
    }
    term = N(mulf)(w->d, N(itof)(dot0));
    if (type_has_min(type)) {
        NF s = N(itof)(N(seti)(t->s[at]));
        term = N(fmaf)(w->d, N(itof)(dot0), N(mulf)(w->m, s));
    }
    return N(fmaf)(N(setf)(t->d[at]), term, acc);
}

/* Rows row … of the tile, as many as a register holds. */
N_INLINE void N(blocks_rows)(int type, int n, int row, const struct block_tile *t,
                             struct segment_sums *sums)
{
    int64_t nb = t->n_blocks, in_unit = type_unit_blocks(type);
    size_t quant_bytes = 64 * (size_t)(type_low_bits(type) + type_high_bits(type));
    size_t tile_bytes =
        quant_bytes + type_scale_bytes(type) / (size_t)in_unit; /* that a block takes */

    /* Passes over halves of the rows share the fetching, which stays half a tile further ahead. */
    size_t fetch_bytes = tile_bytes * N_ROWS / KN_ROW_TILE;
    const uint8_t *fetch =
        t->scales +
        (size_t)nb * ((size_t)row * tile_bytes / KN_ROW_TILE + (tile_bytes - fetch_bytes)) +
        FETCH_AHEAD;
    int seg = 0;
    int64_t end = kn_segment(nb / in_unit, 1) * in_unit;
    NF acc[TILE_TOKENS_MAX];

    for (int i = 0; i < n; i++) {
        acc[i] = N(zerof)();
    }
    /* One loop over all blocks, for segments are short: at its end a segment's sums are put away,
     * and those of empty ones after it. */
    for (int64_t b = 0;; b++) {
        for (; b == end; end = kn_segment(nb / in_unit, seg + 1) * in_unit) {
            for (int i = 0; i < n; i++) {
                N(storef)(sums->v[seg][i] + row, acc[i]);
                acc[i] = N(zerof)();
            }
            if (++seg == KN_SEGMENTS) {
                return;
            }
        }
        for (size_t i = 0; t->fetch && i < fetch_bytes; i += 64) {
            __builtin_prefetch(fetch + (size_t)b * fetch_bytes + i);
        }
        struct N(block_scales) w = N(load_scales)(type, t->scales, b, row);
        NI dot0[TILE_TOKENS_MAX], dot1[TILE_TOKENS_MAX];
        N(dots)
        (type, n, t->quants + (size_t)b * quant_bytes + 4 * row, t->q + b * KN_BLOCK, nb * KN_BLOCK,
         dot0, dot1);
        for (int i = 0; i < n; i++) {
            acc[i] = N(add_block)(type, &w, dot0[i], dot1[i], t, i * nb + b, acc[i]);
        }
    }
}

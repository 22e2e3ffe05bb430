/* block.h: one block of 32 activations in two vectors of sixteen. Included once for each
 * instruction set, as lanes.h says; lanes past the end of a row are 0. */

/* sum: of the last 16 quants, times 2^16, plus that of the first. */
V_INLINE void V(quantize_block)(VF v0, VF v1, int8_t *q, float *d, int32_t *sum)
{
    VI absolute = V(iset1)(INT32_MAX);
    VI amax_bits = V(imax)(V(iand)(V(bits)(v0), absolute), V(iand)(V(bits)(v1), absolute));
    int32_t bits = V(ifold_max)(amax_bits);
    float amax = kn_float((uint32_t)bits);

    if (bits >= QUANTIZE_INF_BITS || amax < QUANTIZE_TINY) {
        *d = bits >= QUANTIZE_INF_BITS ? kn_float(QUANTIZE_NAN_BITS) : 0.0f;
        *sum = 0;
        V(store8)(q, V(iset1)(0));
        V(store8)(q + 16, V(iset1)(0));
        return;
    }
    *d = amax / 127.0f;
    VF inverse = V(set1)(127.0f / amax);
    VI q0 = V(ftoi)(V(mul)(v0, inverse));
    VI q1 = V(ftoi)(V(mul)(v1, inverse));
    V(store8)(q, q0);
    V(store8)(q + 16, q1);
    *sum = V(ifold)(V(iadd)(q0, V(shl)(q1, 16)));
}

/* Block b of row r of a, n of whose elements are in the row; v0, v1 hold 0 past them. */
V_INLINE void V(put_block)(struct kn_act *a, int64_t r, int64_t b, int64_t n, VF v0, VF v1)
{
    int64_t n_blocks = (a->k + KN_BLOCK - 1) / KN_BLOCK;
    int64_t at = r * n_blocks + b;

    if (a->f != NULL) {
        V(storen)(a->f + r * a->k + b * KN_BLOCK, v0, n);
        if (n > 16) {
            V(storen)(a->f + r * a->k + b * KN_BLOCK + 16, v1, n - 16);
        }
    }
    if (a->q != NULL) {
        int32_t sum;
        V(quantize_block)(v0, v1, a->q + at * KN_BLOCK, a->d + at, &sum);
        int32_t first = (int16_t)sum, second = (int32_t)((uint32_t)sum - (uint32_t)first) >> 16;
        a->s[at] = first + second;
        if (a->h != NULL) {
            a->h[at] = quantize_halves(first, second);
        }
    }
}

/* The first n of p in v0 and, past sixteen, in v1. */
V_INLINE void V(load_block)(const float *p, int64_t n, VF *v0, VF *v1)
{
    *v0 = V(loadn)(p, n);
    *v1 = n > 16 ? V(loadn)(p + 16, n - 16) : V(set1)(0.0f);
}

/* 0 in the lanes from n on. */
V_INLINE VF V(clip)(VF v, int64_t n)
{
    return n >= 16 ? v : V(select)(V(first)(n), v, V(set1)(0.0f));
}

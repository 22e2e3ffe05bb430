/* numerics.h: the scalar functions that every operation shares, to the bit.
 *
 * NUMERICS.md states each of them. Vector code (lanes.h) repeats them lane by
 * lane, with the same constants from here. Nothing outside kernels/ includes this.
 */
#ifndef ARGOSY_KERNELS_NUMERICS_H
#define ARGOSY_KERNELS_NUMERICS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* They are the same text on a GPU. */
#ifdef __CUDACC__
#define KN_NUMERIC static __host__ __device__ inline
#else
#define KN_NUMERIC static inline
#endif

KN_NUMERIC uint32_t kn_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

KN_NUMERIC float kn_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ---- half precision -------------------------------------------------------------------------- */

/* A signalling NaN becomes quiet, as F16C does. */
KN_NUMERIC float kn_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 0x1f;
    uint32_t fraction = h & 0x3ff;

    if (exponent == 0) { /* zero and subnormals: fraction * 2^-24, exact */
        float v = (float)fraction * 0x1p-24f;
        return kn_float(kn_bits(v) | sign);
    }
    if (exponent == 31) {
        return kn_float(sign | 0x7f800000u | (fraction << 13) | (fraction != 0 ? 0x400000u : 0));
    }
    return kn_float(sign | ((exponent + 112) << 23) | (fraction << 13));
}

/* Round to nearest even; overflow gives infinity; NaN stays NaN, made quiet. */
KN_NUMERIC uint16_t kn_f32_to_f16(float x)
{
    uint32_t u = kn_bits(x);
    uint32_t sign = (u >> 16) & 0x8000;
    uint32_t a = u & 0x7fffffff;

    if (a > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | ((a >> 13) & 0x3ff));
    }
    if (a >= 0x477ff000) { /* 65520 and above */
        return (uint16_t)(sign | 0x7c00);
    }
    if (a < 0x38800000) { /* the ulp of [0.5, 1) is 2^-24, that of fp16's subnormals */
        return (uint16_t)(sign | (kn_bits(kn_float(a) + 0.5f) - 0x3f000000));
    }
    a += 0xfff + ((a >> 13) & 1);
    return (uint16_t)(sign | ((a - 0x38000000) >> 13));
}

/* Fast mode's 8 bits (Micikevicius et al., "FP8 formats for deep learning", 2022, E4M3): to nearest
 * even; what is too large becomes 448; NaN stays NaN. */
KN_NUMERIC uint8_t kn_f32_to_e4m3(float x)
{
    uint32_t u = kn_bits(x);
    uint32_t sign = (u >> 24) & 0x80;
    uint32_t a = u & 0x7fffffff;

    if (a > 0x7f800000) {
        return 0x7f;
    }
    if (a > 0x43e00000) { /* 448 */
        return (uint8_t)(sign | 0x7e);
    }
    if (a < 0x3c800000) { /* the ulp of [2^14, 2^15) is 2^-9, that of the subnormals */
        return (uint8_t)(sign | (kn_bits(kn_float(a) + 16384.0f) - 0x46800000));
    }
    a += 0x7ffff + ((a >> 20) & 1);
    return (uint8_t)(sign | ((a - 0x3c000000) >> 20));
}

KN_NUMERIC float kn_bf16_to_f32(uint16_t h)
{
    return kn_float((uint32_t)h << 16);
}

/* Half of a power of two with the biased exponent e: 2^(e - 128), exact down to subnormals. */
KN_NUMERIC float kn_e8m0_half(uint32_t e)
{
    return kn_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

/* ---- exp, log, tanh and what is made of them ------------------------------------------------ */

#define KN_ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, half to even */
#define KN_EXP_MAX 89.0f
#define KN_EXP_MIN (-104.0f)
#define KN_LOG2E 0x1.715476p+0f
#define KN_LN2_HI 0x1.62e4p-1f
#define KN_LN2_LO 0x1.7f7d1cp-20f
#define KN_EXP_C2 0x1.fffffcp-2f
#define KN_EXP_C3 0x1.55549p-3f
#define KN_EXP_C4 0x1.5558fcp-5f
#define KN_EXP_C5 0x1.123b6ap-7f
#define KN_EXP_C6 0x1.6a21a8p-10f

KN_NUMERIC float kn_exp(float x)
{
    x = KN_EXP_MAX < x ? KN_EXP_MAX : x; /* NaN passes both */
    x = KN_EXP_MIN > x ? KN_EXP_MIN : x;
    float t = fmaf(x, KN_LOG2E, KN_ROUND_MAGIC);
    float n = t - KN_ROUND_MAGIC;
    float r = fmaf(n, -KN_LN2_HI, x);
    r = fmaf(n, -KN_LN2_LO, r);
    float p = fmaf(KN_EXP_C6, r, KN_EXP_C5);
    p = fmaf(p, r, KN_EXP_C4);
    p = fmaf(p, r, KN_EXP_C3);
    p = fmaf(p, r, KN_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* 2^n in two factors: p * 2^a is exact, and only the second may round (to a subnormal). */
    int32_t e = (int32_t)(kn_bits(t) - kn_bits(KN_ROUND_MAGIC));
    int32_t a = e >> 1;
    int32_t b = (int32_t)((uint32_t)e - (uint32_t)a);
    p = p * kn_float(((uint32_t)a + 127u) << 23);
    return p * kn_float(((uint32_t)b + 127u) << 23);
}

#define KN_SQRT_HALF_BITS 0x3f3504f3u
#define KN_LOG_C0 0x1.555548p-2f
#define KN_LOG_C1 (-0x1.000006p-2f)
#define KN_LOG_C2 0x1.99a4b6p-3f
#define KN_LOG_C3 (-0x1.555c4ep-3f)
#define KN_LOG_C4 0x1.233766p-3f
#define KN_LOG_C5 (-0x1.fc220ep-4f)
#define KN_LOG_C6 0x1.e6f08cp-4f
#define KN_LOG_C7 (-0x1.de3bf8p-4f)
#define KN_LOG_C8 0x1.14573ep-4f

/* For positive normal x alone; anything else gives no promised value. */
KN_NUMERIC float kn_log(float x)
{
    uint32_t u = kn_bits(x);
    int32_t e = (int32_t)(u - KN_SQRT_HALF_BITS) >> 23;
    float f = kn_float(u - ((uint32_t)e << 23)) - 1.0f; /* in [sqrt(1/2) - 1, sqrt(2) - 1), exact */
    float n = (float)e;
    float s = f * f;
    float p = fmaf(KN_LOG_C8, f, KN_LOG_C7);
    p = fmaf(p, f, KN_LOG_C6);
    p = fmaf(p, f, KN_LOG_C5);
    p = fmaf(p, f, KN_LOG_C4);
    p = fmaf(p, f, KN_LOG_C3);
    p = fmaf(p, f, KN_LOG_C2);
    p = fmaf(p, f, KN_LOG_C1);
    p = fmaf(p, f, KN_LOG_C0);
    float y = s * (f * p);
    y = fmaf(n, KN_LN2_LO, y);
    y = fmaf(-0.5f, s, y);
    y = f + y;
    return fmaf(n, KN_LN2_HI, y);
}

#define KN_TANH_SMALL 0.625f
#define KN_TANH_C0 (-0x1.555554p-2f)
#define KN_TANH_C1 0x1.11106cp-3f
#define KN_TANH_C2 (-0x1.b9ef7cp-5f)
#define KN_TANH_C3 0x1.6394d8p-6f
#define KN_TANH_C4 (-0x1.0c213ep-7f)
#define KN_TANH_C5 0x1.197b62p-9f

KN_NUMERIC float kn_tanh(float x)
{
    float a = fabsf(x);
    if (a < KN_TANH_SMALL) {
        float z = x * x;
        float p = fmaf(KN_TANH_C5, z, KN_TANH_C4);
        p = fmaf(p, z, KN_TANH_C3);
        p = fmaf(p, z, KN_TANH_C2);
        p = fmaf(p, z, KN_TANH_C1);
        p = fmaf(p, z, KN_TANH_C0);
        return fmaf(x * z, p, x);
    }
    float y = 1.0f - 2.0f / (kn_exp(a + a) + 1.0f);
    return kn_float(kn_bits(y) | (kn_bits(x) & 0x80000000u));
}

KN_NUMERIC float kn_silu(float x)
{
    return x / (1.0f + kn_exp(-x));
}

#define KN_GELU_C1 0x1.988454p+0f /* 2 sqrt(2 / pi) */
#define KN_GELU_C3 0x1.2444f2p-4f /* the same times 0.044715 */

/* The tanh form, as x * sigmoid(2u). */
KN_NUMERIC float kn_gelu(float x)
{
    float u = x * fmaf(KN_GELU_C3, x * x, KN_GELU_C1);
    return x / (1.0f + kn_exp(-u));
}

/* ---- sums ----------------------------------------------------------------------------------- */

/* Halves again and again: v[i] += v[i + w] for w = n/2, n/4, …, 1. n is a power of two. Overwrites
 * v. */
KN_NUMERIC float kn_fold(float *v, int n)
{
    for (int w = n / 2; w > 0; w /= 2) {
        for (int i = 0; i < w; i++) {
            v[i] = v[i] + v[i + w];
        }
    }
    return v[0];
}

/* The eight segments of a contraction: neighbours first, so that a rank's segments are a subtree.
 */
KN_NUMERIC float kn_tree8(const float s[8])
{
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/* First block of segment s. */
KN_NUMERIC int64_t kn_segment(int64_t n_blocks, int s)
{
    return n_blocks * s / 8;
}

/* ---- random numbers ------------------------------------------------------------------------- */

#define KN_PHILOX_M0 0xd2511f53u
#define KN_PHILOX_M1 0xcd9e8d57u
#define KN_PHILOX_W0 0x9e3779b9u
#define KN_PHILOX_W1 0xbb67ae85u

/* Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). */
KN_NUMERIC void kn_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)KN_PHILOX_M0 * c0;
        uint64_t p1 = (uint64_t)KN_PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += KN_PHILOX_W0;
        k1 += KN_PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

#endif

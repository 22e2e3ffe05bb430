/* rope_table.c: the angles of rope, the same bits on every machine.
 *
 * libm's sin, cos and pow differ between versions, so this is our own double arithmetic: + - * /
 * and comparisons alone, each rounded once (no fused operation). NUMERICS.md, "Rope". The error
 * is near 1 ulp of double over angles up to 2^20, so nearly all fp32 results are correctly rounded.
 */
#include <float.h>
#include <math.h>

#include "kernels/kernels.h"

#define ROUND_MAGIC \
    6755399441055744.0 /* 1.5 * 2^52: adding it rounds to an integer, half to even */

/* 1/n! for odd n from 19 down to 3, and for even n from 20 down to 2: a Taylor series is enough. */
static const double sin_c[] = {1.0 / 121645100408832000.0,
                               1.0 / 355687428096000.0,
                               1.0 / 1307674368000.0,
                               1.0 / 6227020800.0,
                               1.0 / 39916800.0,
                               1.0 / 362880.0,
                               1.0 / 5040.0,
                               1.0 / 120.0,
                               1.0 / 6.0};
static const double cos_c[] = {1.0 / 2432902008176640000.0,
                               1.0 / 6402373705728000.0,
                               1.0 / 20922789888000.0,
                               1.0 / 87178291200.0,
                               1.0 / 479001600.0,
                               1.0 / 3628800.0,
                               1.0 / 40320.0,
                               1.0 / 720.0,
                               1.0 / 24.0,
                               1.0 / 2.0};

/* sum of c[i] (-z)^(n-1-i), highest power first. */
static double alternating(const double *c, int n, double z)
{
    double p = c[0];

    for (int i = 1; i < n; i++) {
        p = c[i] - p * z;
    }
    return p;
}

/* An angle that is not within 2^40 of 0 (or NaN) counts as 0. */
static void sin_cos(double angle, double *sin_out, double *cos_out)
{
    if (!(angle < 0x1p+40 && angle > -0x1p+40)) {
        angle = 0.0;
    }
    const double two_over_pi = 0x1.45f306dc9c883p-1;
    const double half_pi_1 = 0x1.921fb544p+0;       /* the first 33 bits of pi/2 */
    const double half_pi_2 = 0x1.0b4611a6p-34;      /* the next 33 */
    const double half_pi_3 = 0x1.3198a2e037073p-69; /* the rest */
    double n = (angle * two_over_pi + ROUND_MAGIC) - ROUND_MAGIC;
    double r = ((angle - n * half_pi_1) - n * half_pi_2) - n * half_pi_3;
    double z = r * r;
    double s = r - r * z * alternating(sin_c, sizeof sin_c / sizeof sin_c[0], z);
    double c = 1.0 - z * alternating(cos_c, sizeof cos_c / sizeof cos_c[0], z);

    switch ((int64_t)n & 3) {
    case 0:
        *sin_out = s, *cos_out = c;
        break;
    case 1:
        *sin_out = c, *cos_out = -s;
        break;
    case 2:
        *sin_out = -s, *cos_out = -c;
        break;
    default:
        *sin_out = -c, *cos_out = s;
    }
}

void kn_rope_fill(const double *inv_freq, int dim, double magnitude, uint32_t pos_begin,
                  uint32_t pos_end, float *cos, float *sin)
{
    int half = dim / 2;

    for (uint32_t pos = pos_begin; pos < pos_end; pos++) {
        for (int i = 0; i < half; i++) {
            double s, c;
            sin_cos((double)pos * inv_freq[i], &s, &c);
            cos[(int64_t)pos * half + i] = (float)(c * magnitude);
            sin[(int64_t)pos * half + i] = (float)(s * magnitude);
        }
    }
}

/* e + log2(m) with m in [sqrt(1/2), sqrt(2)); 0 unless x is positive and finite. */
static double log2_own(double x)
{
    const double over_ln2 = 0x1.71547652b82fep+0;
    int e = 0;

    if (!(x > 0.0 && x <= DBL_MAX)) {
        return 0.0;
    }

    while (x >= 0x1.6a09e667f3bcdp+0) {
        x *= 0.5;
        e++;
    }
    while (x < 0x1.6a09e667f3bcdp-1) {
        x *= 2.0;
        e--;
    }
    double f = (x - 1.0) / (x + 1.0); /* log(x) = 2 (f + f^3/3 + f^5/5 + …), |f| < 0.172 */
    double z = f * f;
    double p = 0.0;
    for (int n = 23; n >= 1; n -= 2) {
        p = p * z + 1.0 / (double)n;
    }
    return (double)e + (2.0 * f * p) * over_ln2;
}

/* |x| below 2048. */
static double exp2_own(double x)
{
    const double ln2 = 0x1.62e42fefa39efp-1;
    double n = (x + ROUND_MAGIC) - ROUND_MAGIC;
    double r = (x - n) * ln2;
    double p = 1.0;

    for (int i = 16; i >= 1; i--) { /* Taylor, as 1 + r/1 (1 + r/2 (1 + …)) */
        p = 1.0 + p * r / (double)i;
    }
    for (int i = (int)n; i < 0; i++) {
        p *= 0.5;
    }
    for (int i = (int)n; i > 0; i--) {
        p *= 2.0;
    }
    return p;
}

void kn_rope_inv_freq(double base, int dim, double *inv_freq)
{
    double log2_base = log2_own(base);

    for (int i = 0; i < dim / 2; i++) {
        inv_freq[i] = exp2_own(-(2.0 * (double)i / (double)dim) * log2_base);
    }
}

/* ---- YaRN ------------------------------------------------------------------------------------ */

/* Towards minus infinity, |x| below 2^51. */
static double floor_own(double x)
{
    double n = (x + ROUND_MAGIC) - ROUND_MAGIC;

    return n > x ? n - 1.0 : n;
}

/* The pair of a head, as a real number, whose angle turns `turns` times in the training context. */
static double pair_of_turns(const struct kn_yarn *y, int dim, double turns)
{
    const double two_pi = 0x1.921fb54442d18p+2;

    return (double)dim * log2_own(y->context / (turns * two_pi)) / (2.0 * log2_own(y->base));
}

void kn_rope_yarn(const struct kn_yarn *y, int dim, double *inv_freq)
{
    double low = floor_own(pair_of_turns(y, dim, y->beta_fast));
    double high = -floor_own(-pair_of_turns(y, dim, y->beta_slow));

    low = low > 0.0 ? low : 0.0;
    high = high < (double)(dim - 1) ? high : (double)(dim - 1);
    double span = high - low > 0.001 ? high - low : 0.001;
    for (int i = 0; i < dim / 2; i++) {
        double slow = ((double)i - low) / span;
        slow = slow < 0.0 ? 0.0 : slow > 1.0 ? 1.0 : slow;
        inv_freq[i] = inv_freq[i] * (1.0 - slow) + inv_freq[i] / y->factor * slow;
    }
}

double kn_rope_yarn_magnitude(double factor, double mscale)
{
    const double ln2 = 0x1.62e42fefa39efp-1;

    return factor <= 1.0 ? 1.0 : 0.1 * mscale * (log2_own(factor) * ln2) + 1.0;
}

double kn_rope_longrope_magnitude(double factor, double context)
{
    return factor <= 1.0 ? 1.0 : sqrt(1.0 + log2_own(factor) / log2_own(context));
}

void kn_rope_llama3(const struct kn_llama3 *r, int dim, double *inv_freq)
{
    const double two_pi = 0x1.921fb54442d18p+2;

    for (int i = 0; i < dim / 2; i++) {
        double wave = two_pi / inv_freq[i], divisor = 1.0;
        if (wave > r->context / r->low) {
            divisor = r->factor;
        } else if (wave >= r->context / r->high) {
            double smooth = (r->context / wave - r->low) / (r->high - r->low);
            divisor = 1.0 / ((1.0 - smooth) / r->factor + smooth);
        }
        inv_freq[i] /= (double)(float)divisor;
    }
}

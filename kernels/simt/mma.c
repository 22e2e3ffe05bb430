/* mma.c: mma.sync, what tensor cores compute. The lanes of a fragment are those of the PTX ISA's
 * figures, "Matrix Fragments for mma.m16n8k32" and "mma.m16n8k16"; in bytes they are the same.
 *
 * Integers are exact. Sums of floats follow the model that P. Xie, Y. Wang and F. Yang found to
 * give the bits of the hardware ("MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix
 * Cores", arXiv:2511.10909): the products, exact, and the accumulator are aligned to the largest
 * exponent among them and cut, toward zero, `fraction` bits below it; they are added exactly; the
 * sum is cut to `kept` bits. Exponents are those of the operands as they are encoded, added:
 * nothing is normalised in between, and a zero has the exponent -126. */
#include <math.h>
#include <string.h>

#include "kernels/numerics.h"
#include "kernels/simt/internal.h"

#define K_BYTES 32 /* of a row of A, a column of B */
#define NAN_BITS 0x7fffffffu
#define ZERO_EXPONENT (-126)

/* Rows of A and columns of B. */
struct operands {
    uint8_t a[16][K_BYTES], b[8][K_BYTES];
};

/* With g = lane / 4 and t = lane % 4, register r of A is bytes 4t + 16 (r / 2) … of row
 * g + 8 (r % 2), register r of B bytes 4t + 16 r … of column g. in: a0 … a3, b0, b1. */
static void gather(const struct simt_thread *lanes, struct operands *o)
{
    for (unsigned l = 0; l < SIMT_WARP; l++) {
        const uint64_t *in = lanes[l].lane->in;
        unsigned g = l / 4, at = 4 * (l % 4);
        for (unsigned r = 0; r < 6; r++) {
            uint32_t word = (uint32_t)in[r];
            memcpy(r < 4 ? &o->a[g + 8 * (r % 2)][at + 16 * (r / 2)] : &o->b[g][at + 16 * (r - 4)],
                   &word, sizeof word);
        }
    }
}

/* Where element i of a lane's accumulator is: C[g][2t], C[g][2t + 1], and the same of row g + 8. */
static unsigned row_of(unsigned lane, unsigned i)
{
    return lane / 4 + 8 * (i / 2);
}

static unsigned col_of(unsigned lane, unsigned i)
{
    return 2 * (lane % 4) + i % 2;
}

/* D (16, 8) = A (16, 32) B (32, 8) + C, int32 wrapping. in: a0 … a3, b0, b1, c0 … c3; out: d0 … d3.
 */
void simt_mma_s8(const struct simt_thread *lanes)
{
    struct operands o;

    gather(lanes, &o);
    for (unsigned l = 0; l < SIMT_WARP; l++) {
        struct simt_lane *lane = lanes[l].lane;
        for (unsigned i = 0; i < 4; i++) {
            const uint8_t *a = o.a[row_of(l, i)], *b = o.b[col_of(l, i)];
            uint32_t sum = (uint32_t)lane->in[6 + i];
            for (unsigned k = 0; k < K_BYTES; k++) {
                sum += (uint32_t)((int8_t)a[k] * (int8_t)b[k]);
            }
            lane->out[i] = sum;
        }
    }
}

/* ---- floats ---------------------------------------------------------------------------------- */

struct format {
    int fraction, bias;
    uint32_t exponents; /* the largest exponent field */
    bool has_inf;       /* e4m3 has numbers there, and one NaN */
};

static const struct format f32 = {23, 127, 255, true}, f16 = {10, 15, 31, true},
                           bf16 = {7, 127, 255, true}, e4m3 = {3, 7, 15, false},
                           e5m2 = {2, 15, 31, true};

enum kind {
    FINITE,
    INFINITE,
    NOT_A_NUMBER,
};

/* significand * 2^(exponent - fraction) */
struct number {
    enum kind kind;
    int32_t significand;
    int exponent, fraction;
};

static struct number decode(const struct format *f, uint32_t bits)
{
    uint32_t fraction = bits & ((1u << f->fraction) - 1);
    uint32_t exponent = bits >> f->fraction & f->exponents;
    bool negative = (bits >> f->fraction & (f->exponents + 1)) != 0,
         last = exponent == f->exponents;
    struct number n = {.fraction = f->fraction};

    if (last && f->has_inf) {
        n.kind = fraction == 0 ? INFINITE : NOT_A_NUMBER;
    } else if (last && fraction == (1u << f->fraction) - 1) {
        n.kind = NOT_A_NUMBER;
    }
    n.significand = (int32_t)(exponent == 0 ? fraction : fraction | 1u << f->fraction);
    n.exponent = n.significand == 0 ? ZERO_EXPONENT : (exponent == 0 ? 1 : (int)exponent) - f->bias;
    n.significand = negative ? -n.significand : n.significand;
    return n;
}

/* A device's sums: of `at_once` products and the accumulator. */
struct tensor_core {
    int fraction, kept;
    unsigned at_once;
};

/* v * 2^(up - down) toward zero, with no branch: there are thousands to a tile. */
static inline int64_t aligned(int64_t v, int up, int down)
{
    const int64_t sign = v >> 63;
    const int64_t magnitude = ((v ^ sign) - sign) << up >> (down < 63 ? down : 63);

    return (magnitude ^ sign) - sign;
}

/* sum * 2^unit as fp32 with `kept` bits of fraction, toward zero; what vanishes is +0. */
static uint32_t rounded(int64_t sum, int unit, int kept)
{
    uint64_t magnitude = (uint64_t)(sum < 0 ? -sum : sum);

    if (magnitude == 0) {
        return 0;
    }
    int exponent = 63 - __builtin_clzll(magnitude) + unit;
    int cut = (exponent < ZERO_EXPONENT ? ZERO_EXPONENT : exponent) - kept - unit;
    if (cut > 0) {
        magnitude = cut > 62 ? 0 : magnitude >> cut;
        unit += cut;
    }
    float v = ldexpf((float)magnitude, unit); /* exact, or infinite */
    return magnitude == 0 ? 0 : kn_bits(sum < 0 ? -v : v);
}

/* What c + the sum of n products is that are not all finite. */
static uint32_t special(const struct number *a, const struct number *b, unsigned n,
                        const struct number *c)
{
    bool plus = c->kind == INFINITE && c->significand > 0;
    bool minus = c->kind == INFINITE && c->significand < 0, nan = c->kind == NOT_A_NUMBER;

    for (unsigned i = 0; i < n; i++) {
        int sign = (a[i].significand > 0) == (b[i].significand > 0) ? 1 : -1;
        bool infinite = a[i].kind == INFINITE || b[i].kind == INFINITE;
        nan = nan || a[i].kind == NOT_A_NUMBER || b[i].kind == NOT_A_NUMBER ||
              (infinite && (a[i].significand == 0 || b[i].significand == 0));
        plus = plus || (infinite && sign > 0);
        minus = minus || (infinite && sign < 0);
    }
    return nan || (plus && minus) ? NAN_BITS : plus ? 0x7f800000u : 0xff800000u;
}

/* c + the sum of n products, in one step of the hardware. */
static uint32_t fused(const struct tensor_core *t, const struct number *a, const struct number *b,
                      unsigned n, uint32_t c)
{
    const struct number last = decode(&f32, c);
    int32_t significand[K_BYTES / 2];
    int exponent[K_BYTES / 2], most = last.exponent;
    unsigned kinds = last.kind;

    for (unsigned i = 0; i < n; i++) {
        significand[i] = a[i].significand * b[i].significand;
        exponent[i] = a[i].exponent + b[i].exponent;
        most = exponent[i] > most ? exponent[i] : most;
        kinds |= a[i].kind | b[i].kind;
    }
    if (kinds != FINITE) {
        return special(a, b, n, &last);
    }
    const int up = t->fraction - a[0].fraction - b[0].fraction, more = t->fraction - f32.fraction;
    int64_t sum = aligned(last.significand, more > 0 ? more : 0,
                          most - last.exponent + (more > 0 ? 0 : -more));
    for (unsigned i = 0; i < n; i++) {
        sum += aligned(significand[i], up, most - exponent[i]);
    }
    return rounded(sum, most - t->fraction, t->kept);
}

/* Of all k, t->at_once after t->at_once. */
static uint32_t dot(const struct tensor_core *t, const struct number *a, const struct number *b,
                    unsigned k, uint32_t c)
{
    for (unsigned i = 0; i < k; i += t->at_once) {
        c = fused(t, a + i, b + i, t->at_once, c);
    }
    return c;
}

/* ptxas for sm_90 (CUDA 13.0) has no fp8 to call: it makes fp16 of the low halves of all registers,
 * of the high halves, multiplies the one and adds the other to it, and then adds C in fp32. What is
 * subnormal in e4m3 has a lower exponent in fp16, but all its bits are within 25 either way. */
static uint32_t dot_as_halves(const struct tensor_core *t, const struct number *a,
                              const struct number *b, uint32_t c)
{
    struct number x[2][K_BYTES / 2], y[2][K_BYTES / 2];

    for (unsigned k = 0; k < K_BYTES; k++) {
        x[k / 2 % 2][k / 4 * 2 + k % 2] = a[k];
        y[k / 2 % 2][k / 4 * 2 + k % 2] = b[k];
    }
    uint32_t sum = dot(t, x[1], y[1], K_BYTES / 2, dot(t, x[0], y[0], K_BYTES / 2, 0));
    float v = kn_float(c) + kn_float(sum);
    return isnan(v) ? NAN_BITS : kn_bits(v);
}

static const struct format *format_of(enum simt_op op)
{
    return op == SIMT_MMA_F16    ? &f16
           : op == SIMT_MMA_BF16 ? &bf16
           : op == SIMT_MMA_E4M3 ? &e4m3
                                 : &e5m2;
}

bool simt_mma_served(enum simt_op op)
{
    return (op != SIMT_MMA_E4M3 && op != SIMT_MMA_E5M2) || simt_sm() >= 89;
}

/* D (16, 8) = A (16, k) B (k, 8) + C, k being 16, of fp8 32; C and D are fp32. in, out as s8. */
void simt_mma_float(const struct simt_thread *lanes, enum simt_op op)
{
    static const struct tensor_core ampere = {24, 23, 8}, hopper = {25, 23, 16},
                                    ada_fp8 = {13, 13, 16};
    const bool fp8 = op == SIMT_MMA_E4M3 || op == SIMT_MMA_E5M2, as_half = fp8 && simt_sm() >= 90;
    const struct tensor_core *t = simt_sm() >= 90 ? &hopper : fp8 ? &ada_fp8 : &ampere;
    const struct format *f = format_of(op);
    const unsigned bytes = fp8 ? 1 : 2, k = K_BYTES / bytes;
    struct operands o;
    struct number a[16][K_BYTES], b[8][K_BYTES];

    gather(lanes, &o);
    for (unsigned i = 0; i < 24; i++) {
        const uint8_t *from = i < 16 ? o.a[i] : o.b[i - 16];
        struct number *to = i < 16 ? a[i] : b[i - 16];
        for (unsigned j = 0; j < k; j++) {
            uint32_t bits = 0;
            memcpy(&bits, from + j * bytes, bytes); /* little-endian, as the device */
            to[j] = decode(f, bits);
        }
    }
    for (unsigned l = 0; l < SIMT_WARP; l++) {
        struct simt_lane *lane = lanes[l].lane;
        for (unsigned i = 0; i < 4; i++) {
            const struct number *x = a[row_of(l, i)], *y = b[col_of(l, i)];
            uint32_t c = (uint32_t)lane->in[6 + i];
            lane->out[i] = as_half ? dot_as_halves(t, x, y, c) : dot(t, x, y, k, c);
        }
    }
}

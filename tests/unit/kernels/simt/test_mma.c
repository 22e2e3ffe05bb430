/* mma.sync of floats: the PTX ISA's layouts, written down here apart from the emulator, and the
 * sums of the model in "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix Cores"
 * (arXiv:2511.10909), written in double as the paper has it. On a GPU the same tests hold layouts
 * and model to the hardware. */
#include <math.h>

#include "kernels/numerics.h"
#include "kernels/simt/probes.h"
#include "kernels/simt/simt.h"
#include "kernels/testing.h"

#define K_MAX 32

/* ---- the types, and what they say ------------------------------------------------------------ */

struct type {
    const char *name;
    int (*probe)(const uint32_t *a, const uint32_t *b, float *c);
    int bits, k;
    int fraction, least; /* bits behind the point; the least exponent of a normal number */
    double (*value)(uint32_t code);
};

/* An IEEE float of 1 + e + f bits; e4m3 has numbers for its last exponent but one. */
static double value_of(uint32_t code, int e, int f, bool is_e4m3)
{
    uint32_t last = (1u << e) - 1, exponent = code >> f & last, fraction = code & ((1u << f) - 1);
    double sign = code >> (e + f) & 1 ? -1.0 : 1.0;
    int bias = (1 << (e - 1)) - 1;

    if (exponent == last && (!is_e4m3 || fraction == (1u << f) - 1)) {
        return fraction == 0 ? sign * (double)INFINITY : (double)NAN;
    }
    return sign * (exponent == 0 ? ldexp(fraction, 1 - bias - f)
                                 : ldexp((1 << f) + (int)fraction, (int)exponent - bias - f));
}

static double f16_value(uint32_t code)
{
    return value_of(code, 5, 10, false);
}

static double bf16_value(uint32_t code)
{
    return value_of(code, 8, 7, false);
}

static double e4m3_value(uint32_t code)
{
    return value_of(code, 4, 3, true);
}

static double e5m2_value(uint32_t code)
{
    return value_of(code, 5, 2, false);
}

static const struct type types[] = {
    {"f16", probe_mma_f16, 16, 16, 10, -14, f16_value},
    {"bf16", probe_mma_bf16, 16, 16, 7, -126, bf16_value},
    {"e4m3", probe_mma_e4m3, 8, 32, 3, -6, e4m3_value},
    {"e5m2", probe_mma_e5m2, 8, 32, 2, -14, e5m2_value},
};
enum { F16, BF16, E4M3, E5M2, TYPES };

/* Of a value that the type has. */
static uint16_t code_of(const struct type *t, double v)
{
    for (uint32_t code = 0; code < 1u << t->bits; code++) {
        if (t->value(code) == v && (signbit(v) != 0) == (code >> (t->bits - 1) != 0)) {
            return (uint16_t)code;
        }
    }
    fail_msg("%s has no %a", t->name, v);
    return 0;
}

/* Whether the next launches are those of a device of this kind: a GPU is what it is. */
static bool is_sm(int sm)
{
    simt_set(&(struct simt_options){.seed = (uint64_t)sm, .sm = sm});
    return simt_sm() == sm;
}

/* Ampere has no fp8. */
static bool has_type(const struct type *t)
{
    return t->bits == 16 || simt_sm() >= 89;
}

/* ---- a product, by the layouts of the PTX ISA ------------------------------------------------ */

struct product {
    uint16_t a[16][K_MAX], b[K_MAX][8]; /* codes */
    float c[16][8];
};

/* "Matrix Fragments for mma.m16n8k16 with floating point type", and "… for mma.m16n8k32": row and
 * column of element i of a lane. */
static void fragment_a(const struct type *t, int lane, int i, int *row, int *col)
{
    int group = lane >> 2, in_group = lane % 4;

    if (t->bits == 16) {
        *row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
        *col = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    } else {
        *row = (0 <= i && i < 4) || (8 <= i && i < 12) ? group : group + 8;
        *col = i < 8 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16;
    }
}

static void fragment_b(const struct type *t, int lane, int i, int *row, int *col)
{
    int group = lane >> 2, in_group = lane % 4;

    if (t->bits == 16) {
        *row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    } else {
        *row = i < 4 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16;
    }
    *col = group;
}

static void fragment_c(int lane, int i, int *row, int *col)
{
    int group = lane >> 2, in_group = lane % 4;

    *row = i < 2 ? group : group + 8;
    *col = in_group * 2 + (i & 1);
}

static void put(void *regs, const struct type *t, int i, uint16_t code)
{
    if (t->bits == 16) {
        ((uint16_t *)regs)[i] = code;
    } else {
        ((uint8_t *)regs)[i] = (uint8_t)code;
    }
}

/* d = a b + c on the device. */
static void multiply(const struct type *t, const struct product *p, float d[16][8])
{
    uint32_t a[32][4], b[32][2];
    float c[32][4];
    int row, col;

    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 128 / t->bits; i++) {
            fragment_a(t, lane, i, &row, &col);
            put(a[lane], t, i, p->a[row][col]);
        }
        for (int i = 0; i < 64 / t->bits; i++) {
            fragment_b(t, lane, i, &row, &col);
            put(b[lane], t, i, p->b[row][col]);
        }
        for (int i = 0; i < 4; i++) {
            fragment_c(lane, i, &row, &col);
            c[lane][i] = p->c[row][col];
        }
    }
    uint32_t *da = simt_malloc(sizeof a, "a"), *db = simt_malloc(sizeof b, "b");
    float *dc = simt_malloc(sizeof c, "c");
    simt_upload(da, a, sizeof a);
    simt_upload(db, b, sizeof b);
    simt_upload(dc, c, sizeof c);
    if (t->probe(da, db, dc) != 0 || !simt_download(c, dc, sizeof c)) {
        fail_msg("%s: %s", t->name, simt_fault());
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            fragment_c(lane, i, &row, &col);
            d[row][col] = c[lane][i];
        }
    }
    simt_free(da);
    simt_free(db);
    simt_free(dc);
}

/* ---- the model, in double -------------------------------------------------------------------- */

/* v = significand 2^exponent, the significand below 2 and, of what is not subnormal, from 1 on. */
static double split(double v, int least, int *exponent)
{
    double significand = 2.0 * frexp(v, exponent);

    *exponent -= 1;
    if (*exponent < least) {
        significand = ldexp(significand, *exponent - least);
        *exponent = least;
    }
    *exponent = v == 0.0 ? -126 : *exponent;
    return significand;
}

/* One fused sum: of n products and c. */
static float fused_sum(const double *a, const double *b, int n, int least, float c, int fraction,
                       int kept)
{
    double significand[K_MAX + 1], sum = 0.0, plain = (double)c;
    int exponent[K_MAX + 1], most, e;

    significand[n] = split((double)c, -126, &exponent[n]);
    most = exponent[n];
    for (int i = 0; i < n; i++) {
        plain += a[i] * b[i];
        significand[i] = split(a[i], least, &exponent[i]) * split(b[i], least, &e);
        exponent[i] += e;
        most = exponent[i] > most ? exponent[i] : most;
    }
    if (isnan(plain) || isinf(plain)) {
        return isnan(plain) ? kn_float(0x7fffffff) : (float)plain;
    }
    for (int i = 0; i <= n; i++) {
        sum += ldexp(trunc(ldexp(significand[i], fraction + exponent[i] - most)), -fraction);
    }
    double s = split(ldexp(sum, most), -126, &e);
    return (float)ldexp(trunc(ldexp(s, kept)), e - kept) + 0.0f;
}

/* Row i of A with column j of B. */
static float model(const struct type *t, const struct product *p, int i, int j)
{
    int sm = simt_sm();
    double a[K_MAX], b[K_MAX];
    bool halves = t->bits == 8 && sm >= 90;
    float c = p->c[i][j];

    for (int k = 0; k < t->k; k++) { /* of fp8 as fp16: the low halves of registers first */
        int at = halves ? k / 2 % 2 * 16 + k / 4 * 2 + k % 2 : k;
        a[at] = t->value(p->a[i][k]);
        b[at] = t->value(p->b[k][j]);
    }
    if (halves) {
        float first = fused_sum(a, b, 16, -14, 0.0f, 25, 23);
        float sum = c + fused_sum(a + 16, b + 16, 16, -14, first, 25, 23);
        return isnan(sum) ? kn_float(0x7fffffff) : sum;
    }
    if (sm >= 90) {
        return fused_sum(a, b, 16, t->least, c, 25, 23);
    }
    int fraction = t->bits == 8 ? 13 : 24, kept = t->bits == 8 ? 13 : 23;
    c = fused_sum(a, b, t->k / 2, t->least, c, fraction, kept);
    return fused_sum(a + t->k / 2, b + t->k / 2, t->k / 2, t->least, c, fraction, kept);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static const int all_sm[] = {80, 89, 90};

/* Small integers: every order has the same sum, so only the layout can be wrong. */
static void test_mma_is_a_matrix_product(void **state)
{
    (void)state;
    struct random r = {1};
    struct product p;
    float d[16][8];

    for (int run = 0; run < 3 * TYPES; run++) {
        const struct type *t = &types[run % TYPES];
        uint16_t codes[9];
        if (!is_sm(all_sm[run / TYPES]) || !has_type(t)) {
            continue;
        }
        for (int v = -4; v <= 4; v++) {
            codes[v + 4] = code_of(t, v);
        }
        for (int i = 0; i < 16 * K_MAX; i++) {
            p.a[i / K_MAX][i % K_MAX] = codes[random_below(&r, 9)];
            p.b[i % K_MAX][i / K_MAX % 8] = codes[random_below(&r, 9)];
            p.c[i % 16][i / 16 % 8] = (float)random_below(&r, 1000);
        }
        multiply(t, &p, d);
        for (int i = 0; i < 16; i++) {
            for (int j = 0; j < 8; j++) {
                double want = (double)p.c[i][j];
                for (int k = 0; k < t->k; k++) {
                    want += t->value(p.a[i][k]) * t->value(p.b[k][j]);
                }
                assert_true((double)d[i][j] == want);
            }
        }
    }
}

/* c + a few products that are named, in element (5, 3). */
struct term {
    int k;
    double a, b;
};

static float sum_of(int type, float c, const struct term *term, int n)
{
    const struct type *t = &types[type];
    struct product p = {0};
    float d[16][8];

    p.c[5][3] = c;
    for (int i = 0; i < n; i++) {
        p.a[5][term[i].k] = code_of(t, term[i].a);
        p.b[term[i].k][3] = code_of(t, term[i].b);
    }
    multiply(t, &p, d);
    return d[5][3];
}
#define SUM(type, c, ...)                               \
    sum_of(type, c, (const struct term[]){__VA_ARGS__}, \
           (int)(sizeof((const struct term[]){__VA_ARGS__}) / sizeof(struct term)))

static void test_bits_below_the_largest_are_cut(void **state)
{
    (void)state;

    if (is_sm(80)) { /* 24 bits: 2^-25 of 1 is nothing, however often */
        assert_true(SUM(F16, 1.0f, {0, 0x1p-12, 0x1p-13}, {1, 0x1p-12, 0x1p-13},
                        {2, 0x1p-12, 0x1p-13}, {3, 0x1p-12, 0x1p-13}) == 1.0f);
        assert_true(SUM(F16, 1.0f, {0, 0x1p-12, 0x1p-12}, {1, 0x1p-12, 0x1p-12}) == 0x1.000002p+0f);
    }
    if (is_sm(90)) { /* 25 bits */
        assert_true(SUM(F16, 1.0f, {0, 0x1p-12, 0x1p-13}, {1, 0x1p-12, 0x1p-13},
                        {2, 0x1p-12, 0x1p-13}, {3, 0x1p-12, 0x1p-13}) == 0x1.000002p+0f);
        assert_true(SUM(F16, 1.0f, {0, 0x1p-13, 0x1p-13}, {1, 0x1p-13, 0x1p-13}) == 1.0f);
    }
    for (int i = 0; i < 3; i++) { /* toward zero, not down */
        if (is_sm(all_sm[i])) {
            assert_true(SUM(BF16, 1.0f, {7, -0x1p-20, 0x1p-6}) == 1.0f);
            assert_true(SUM(BF16, -1.0f, {7, 0x1p-20, 0x1p-6}) == -1.0f);
            /* a zero is not large for what it is multiplied by */
            assert_true(SUM(F16, 0x1p-24f, {7, 0, 0x1p+15}) == 0x1p-24f);
        }
    }
}

static void test_the_sum_is_rounded_toward_zero(void **state)
{
    (void)state;

    for (int i = 0; i < 3; i++) {
        if (is_sm(all_sm[i])) { /* to nearest even the first were 1 + 2^-22 */
            assert_true(SUM(F16, 0x1.000002p+0f, {4, 0x1p-12, 0x1p-12}) == 0x1.000002p+0f);
            assert_true(SUM(F16, -0x1.000002p+0f, {4, -0x1p-12, 0x1p-12}) == -0x1.000002p+0f);
            assert_true(SUM(BF16, 0x1.fffffep+127f, {4, 0x1p+120, 0x1p-17}) == 0x1.fffffep+127f);
            assert_true(SUM(BF16, 0x1.fffffep+127f, {4, 0x1p+120, 0x1p-16}) == INFINITY);
        }
    }
}

/* What is left of 2^10 - 2^10 + 2^-20: on Ampere the last is added to the sum of the first. */
static void test_how_many_are_added_at_once(void **state)
{
    (void)state;

    if (is_sm(80)) {
        assert_true(SUM(F16, 0.0f, {0, 32, 32}, {1, -32, 32}, {8, 0x1p-10, 0x1p-10}) == 0x1p-20f);
        assert_true(SUM(F16, 0.0f, {0, 32, 32}, {1, -32, 32}, {7, 0x1p-10, 0x1p-10}) == 0.0f);
    }
    if (is_sm(90)) {
        assert_true(SUM(F16, 0.0f, {0, 32, 32}, {1, -32, 32}, {8, 0x1p-10, 0x1p-10}) == 0.0f);
    }
}

static void test_fp8_sums_have_13_bits_on_ada_and_go_by_fp16_on_hopper(void **state)
{
    (void)state;

    if (is_sm(89)) {
        assert_true(SUM(E4M3, 1.0f, {0, 0x1p-7, 0x1p-7}, {1, 0x1p-7, 0x1p-7}) == 1.0f);
        assert_true(SUM(E5M2, 1.0f, {0, 0x1p-7, 0x1p-6}) == 0x1.0008p+0f);
    }
    if (is_sm(90)) {
        assert_true(SUM(E4M3, 1.0f, {0, 0x1p-7, 0x1p-7}, {1, 0x1p-7, 0x1p-7}) == 0x1.0008p+0f);
        /* fp32's own sum: to nearest, even */
        assert_true(SUM(E4M3, 128.0f + 0x1p-16f, {0, 0x1p-8, 0x1p-9}) == 128.0f + 0x1p-15f);
        /* k of 2 and 3 in four are added to the sum of the others, and 2^-18 of 2^10 is lost */
        assert_true(SUM(E4M3, 0.0f, {0, 32, 32}, {1, -32, 32}, {2, 0x1p-9, 0x1p-9}) == 0x1p-18f);
        assert_true(SUM(E4M3, 0.0f, {0, 32, 32}, {1, -32, 32}, {29, 0x1p-9, 0x1p-9}) == 0.0f);
    }
}

static void test_what_is_not_finite(void **state)
{
    (void)state;
    const double inf = (double)INFINITY;

    for (int run = 0; run < 3 * TYPES; run++) {
        int t = run % TYPES;
        if (!is_sm(all_sm[run / TYPES]) || !has_type(&types[t]) || t == E4M3) {
            continue;
        }
        assert_true(SUM(t, 1.0f, {3, inf, 2}) == INFINITY);
        assert_true(SUM(t, 1.0f, {3, -inf, 2}) == -INFINITY);
        assert_true(SUM(t, -INFINITY, {3, 1, 2}) == -INFINITY);
        assert_int_equal(kn_bits(SUM(t, 1.0f, {3, inf, 0})), 0x7fffffff);
        assert_int_equal(kn_bits(SUM(t, 1.0f, {3, inf, 1}, {5, -inf, 1})), 0x7fffffff);
        assert_int_equal(kn_bits(SUM(t, -INFINITY, {3, inf, 1})), 0x7fffffff);
        assert_int_equal(kn_bits(SUM(t, -NAN, {3, 1, 1})), 0x7fffffff);
    }
}

/* Random codes, of all exponents or of few; few sums of the first kind are finite. */
static void random_product(struct random *r, const struct type *t, bool wild, struct product *p)
{
    uint16_t small[5];

    for (int v = -2; v <= 2; v++) {
        small[v + 2] = code_of(t, v);
    }
    for (int i = 0; i < 16 * K_MAX; i++) {
        for (int side = 0; side < 2; side++) {
            uint32_t code = random_u32(r) & ((1u << t->bits) - 1);
            double v = t->value(code);
            if (!wild && (isnan(v) || fabs(v) < 0x1p-9 || fabs(v) > 0x1p+6)) {
                code = small[random_below(r, 5)]; /* zeros too */
            }
            *(side ? &p->b[i % K_MAX][i / K_MAX % 8] : &p->a[i / K_MAX][i % K_MAX]) =
                (uint16_t)code;
        }
        float c = kn_float(random_u32(r));
        bool big = isnan(c) || isinf(c) || (!wild && fabsf(c) > 0x1p+20f);
        p->c[i % 16][i / 16 % 8] = big ? random_normal(r) : c;
    }
}

static void test_sums_are_those_of_the_published_model(void **state)
{
    (void)state;
    struct random r = {2};
    struct product p;
    float d[16][8];

    for (int run = 0; run < 3 * TYPES * 16; run++) {
        const struct type *t = &types[run % TYPES];
        if (!is_sm(all_sm[run / TYPES % 3]) || !has_type(t)) {
            continue;
        }
        bool wild = run % 5 == 0;
        random_product(&r, t, wild, &p);
        multiply(t, &p, d);
        for (int i = 0; i < 16; i++) {
            for (int j = 0; j < 8; j++) {
                uint32_t want = kn_bits(model(t, &p, i, j)), got = kn_bits(d[i][j]);
                if (got != want) {
                    fail_msg("%s on sm_%d: %08x, the model has %08x", t->name, simt_sm(), got,
                             want);
                }
                double exact = (double)p.c[i][j], most = fabs(exact), cut;
                for (int k = 0; k < t->k; k++) {
                    double v = t->value(p.a[i][k]) * t->value(p.b[k][j]);
                    exact += v;
                    most = fabs(v) > most ? fabs(v) : most;
                }
                cut = t->bits == 8 && simt_sm() == 89 ? 0x1p-13 : 0x1p-23;
                /* of each of k + 2 terms at most, and of a sum of up to k + 1 of the largest, twice
                 */
                assert_true(wild || fabs((double)d[i][j] - exact) <= (3 * t->k + 4) * cut * most);
            }
        }
    }
}

/* ---- conversions to fp8 ---------------------------------------------------------------------- */

#define CONVERTED 65536

/* The nearest number of the type; of two, the one whose code is even. */
static uint8_t nearest(const struct type *t, double v, uint32_t largest, uint32_t beyond)
{
    uint32_t sign = signbit(v) ? 0x80 : 0, best = 0;

    if (isnan(v)) {
        return 0x7f;
    }
    double past = 2.0 * t->value(largest) - t->value(largest - 1); /* if it had one more */
    v = fabs(v) < past ? fabs(v) : past;
    for (uint32_t code = 1; code <= largest + 1; code++) {
        double low = t->value(best), high = code > largest ? past : t->value(code);
        if (v - low < high - v || (v - low == high - v && code % 2 != 0)) {
            break;
        }
        best = code;
    }
    return (uint8_t)(sign | (best > largest ? beyond : best));
}

/* Every 65,536th float, and beside it those just above, in the middle, and just below the next. */
static void test_fp8_is_the_nearest_number(void **state)
{
    (void)state;
    static const uint32_t beside[] = {0, 1, 0x8000, 0xffff};
    static float x[CONVERTED];
    static uint8_t got[2][CONVERTED];
    float *dx = simt_malloc(sizeof x, "x");
    uint8_t *d[2] = {simt_malloc(CONVERTED, "e4m3"), simt_malloc(CONVERTED, "e5m2")};

    for (int run = 0; run < 8; run++) {
        bool saturates = run < 4;
        for (uint32_t i = 0; i < CONVERTED; i++) {
            x[i] = kn_float(i << 16 | beside[run % 4]);
        }
        simt_upload(dx, x, sizeof x);
        assert_int_equal(probe_fp8(saturates, dx, CONVERTED, d[0], d[1]), 0);
        assert_true(simt_download(got[0], d[0], CONVERTED));
        assert_true(simt_download(got[1], d[1], CONVERTED));
        for (int i = 0; i < CONVERTED; i++) {
            double v = (double)x[i];
            assert_int_equal(got[0][i], nearest(&types[E4M3], v, 0x7e, saturates ? 0x7e : 0x7f));
            assert_int_equal(got[1][i], nearest(&types[E5M2], v, 0x7b, saturates ? 0x7b : 0x7c));
        }
    }
    simt_free(dx);
    simt_free(d[0]);
    simt_free(d[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mma_is_a_matrix_product),
        cmocka_unit_test(test_bits_below_the_largest_are_cut),
        cmocka_unit_test(test_the_sum_is_rounded_toward_zero),
        cmocka_unit_test(test_how_many_are_added_at_once),
        cmocka_unit_test(test_fp8_sums_have_13_bits_on_ada_and_go_by_fp16_on_hopper),
        cmocka_unit_test(test_what_is_not_finite),
        cmocka_unit_test(test_sums_are_those_of_the_published_model),
        cmocka_unit_test(test_fp8_is_the_nearest_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* formats.c: the weight types and their blocks in a GGUF file (formats.h). */
#include "kernels/formats.h"
#include "kernels/numerics.h"
#include "kernels/table.h"

#define COLS_MAX (INT64_C(1) << 24)
#define ROWS_MAX (INT64_C(1) << 31)

static const int8_t codebook_iq4_nl[16] = {KN_CODEBOOK_IQ4_NL};
static const int8_t codebook_mxfp4[16] = {KN_CODEBOOK_MXFP4};

/* type, name, unit, bytes, zero, sub, has_min, low_bits, high_bits, codebook */
static const struct kn_format formats[] = {
    {KN_F32, "F32", 1, 4, 0, 0, false, 0, 0, NULL},
    {KN_F16, "F16", 1, 2, 0, 0, false, 0, 0, NULL},
    {KN_BF16, "BF16", 1, 2, 0, 0, false, 0, 0, NULL},
    {KN_Q4_0, "Q4_0", 32, 18, 8, 0, false, 4, 0, NULL},
    {KN_Q4_1, "Q4_1", 32, 20, 0, 0, true, 4, 0, NULL},
    {KN_Q5_0, "Q5_0", 32, 22, 16, 0, false, 4, 1, NULL},
    {KN_Q5_1, "Q5_1", 32, 24, 0, 0, true, 4, 1, NULL},
    {KN_Q8_0, "Q8_0", 32, 34, 128, 0, false, 8, 0, NULL},
    {KN_Q2_K, "Q2_K", 256, 84, 0, 16, true, 2, 0, NULL},
    {KN_Q3_K, "Q3_K", 256, 110, 4, 16, false, 2, 1, NULL},
    {KN_Q4_K, "Q4_K", 256, 144, 0, 32, true, 4, 0, NULL},
    {KN_Q5_K, "Q5_K", 256, 176, 0, 32, true, 4, 1, NULL},
    {KN_Q6_K, "Q6_K", 256, 210, 32, 16, false, 4, 2, NULL},
    {KN_IQ4_NL, "IQ4_NL", 32, 18, 0, 0, false, 4, 0, codebook_iq4_nl},
    {KN_MXFP4, "MXFP4", 32, 17, 0, 0, false, 4, 0, codebook_mxfp4},
};

const struct kn_format *kn_format_find(int type)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (formats[i].type == type) {
            return &formats[i];
        }
    }
    return NULL;
}

const char *kn_type_name(int type)
{
    const struct kn_format *f = kn_format_find(type);

    return f != NULL ? f->name : "?";
}

int64_t kn_type_block(int type)
{
    const struct kn_format *f = kn_format_find(type);

    return f != NULL ? f->unit : 0;
}

size_t kn_type_block_bytes(int type)
{
    const struct kn_format *f = kn_format_find(type);

    return f != NULL ? f->bytes : 0;
}

bool kn_serves(int type, int64_t rows, int64_t cols)
{
    const struct kn_format *f = kn_format_find(type);

    return f != NULL && rows > 0 && rows <= ROWS_MAX && cols > 0 && cols <= COLS_MAX &&
           cols % f->unit == 0;
}

size_t kn_row_bytes(int type, int64_t cols)
{
    const struct kn_format *f = kn_format_find(type);

    return (size_t)(cols / f->unit) * f->bytes;
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

/* n bytes of nibbles: element i in the low half of byte i, element i + n in the high half. */
static void read_nibbles(const uint8_t *src, int n, uint8_t *q)
{
    for (int i = 0; i < n; i++) {
        q[i] = src[i] & 15;
        q[i + n] = src[i] >> 4;
    }
}

static void read_fifth_bits(const uint8_t *src, uint8_t *q)
{
    for (int i = 0; i < KN_BLOCK; i++) {
        q[i] |= (uint8_t)((src[i / 8] >> i % 8 & 1) << 4);
    }
}

static void read_small(const struct kn_format *f, const uint8_t *src, struct kn_block *b)
{
    size_t at = f->type == KN_MXFP4 ? 1 : f->has_min ? 4 : 2;

    b->m = 0;
    b->d = src[0];
    if (f->type != KN_MXFP4) {
        memcpy(&b->d, src, 2);
    }
    if (f->has_min) {
        memcpy(&b->m, src + 2, 2);
    }
    if (f->low_bits == 8) {
        for (int i = 0; i < KN_BLOCK; i++) {
            b->q[i] = src[at + i] ^ 0x80; /* an int8 plus 128 */
        }
        return;
    }
    read_nibbles(src + at + (f->high_bits != 0 ? 4 : 0), KN_BLOCK / 2, b->q);
    if (f->high_bits != 0) {
        read_fifth_bits(src + at, b->q);
    }
}

/* ---- super-blocks of 256 --------------------------------------------------------------------- */

/* 64 bytes of two bits: byte i of a half holds elements i, i + 32, i + 64 and i + 96 of its 128. */
static void read_pairs(const uint8_t *src, int shift, uint8_t *q)
{
    for (int i = 0; i < 256; i++) {
        uint8_t two = src[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        q[i] = (uint8_t)(shift == 0 ? two : q[i] | two << shift);
    }
}

/* 32 bytes of one bit: bit b of byte i is of element 32 b + i. */
static void read_bits(const uint8_t *src, int shift, uint8_t *q)
{
    for (int i = 0; i < 256; i++) {
        q[i] |= (uint8_t)((src[i % 32] >> i / 32 & 1) << shift);
    }
}

static void read_q2_k(const uint8_t *src, struct kn_block *b)
{
    for (int i = 0; i < 16; i++) {
        b->scale[i] = (int8_t)(src[i] & 15);
        b->min[i] = src[i] >> 4;
    }
    read_pairs(src + 16, 0, b->q);
    memcpy(&b->d, src + 80, 2);
    memcpy(&b->m, src + 82, 2);
}

static void read_q3_k(const uint8_t *src, struct kn_block *b)
{
    const uint8_t *s = src + 96;

    for (int i = 0; i < 16; i++) { /* six bits: four here, two in the last four bytes */
        int low = s[i % 8] >> i / 8 * 4 & 15;
        int high = s[8 + i % 4] >> i / 4 * 2 & 3;
        b->scale[i] = (int8_t)((low | high << 4) - 32);
    }
    read_pairs(src + 32, 0, b->q);
    read_bits(src, 2, b->q);
    memcpy(&b->d, src + 108, 2);
    b->m = 0;
}

/* Q4_K and Q5_K: eight scales and minima of six bits in twelve bytes. */
static void read_q45_k(const struct kn_format *f, const uint8_t *src, struct kn_block *b)
{
    const uint8_t *s = src + 4;
    const uint8_t *quants = src + 16 + (f->high_bits != 0 ? 32 : 0);

    memcpy(&b->d, src, 2);
    memcpy(&b->m, src + 2, 2);
    for (int i = 0; i < 4; i++) {
        b->scale[i] = (int8_t)(s[i] & 63);
        b->min[i] = s[i + 4] & 63;
        b->scale[i + 4] = (int8_t)((s[i + 8] & 15) | (s[i] >> 6 << 4));
        b->min[i + 4] = (uint8_t)((s[i + 8] >> 4) | (s[i + 4] >> 6 << 4));
    }
    for (int i = 0; i < 4; i++) {
        read_nibbles(quants + 32 * i, 32, b->q + 64 * i);
    }
    if (f->high_bits != 0) {
        read_bits(src + 16, 4, b->q);
    }
}

static void read_q6_k(const uint8_t *src, struct kn_block *b)
{
    read_nibbles(src, 64, b->q);
    read_nibbles(src + 64, 64, b->q + 128);
    read_pairs(src + 128, 4, b->q);
    memcpy(b->scale, src + 192, 16);
    memcpy(&b->d, src + 208, 2);
    b->m = 0;
}

void kn_block_read(const struct kn_format *f, const uint8_t *src, struct kn_block *b)
{
    switch (f->type) {
    case KN_Q2_K:
        read_q2_k(src, b);
        break;
    case KN_Q3_K:
        read_q3_k(src, b);
        break;
    case KN_Q4_K:
    case KN_Q5_K:
        read_q45_k(f, src, b);
        break;
    case KN_Q6_K:
        read_q6_k(src, b);
        break;
    default:
        read_small(f, src, b);
        break;
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

float kn_block_scale(const struct kn_format *f, const struct kn_block *b)
{
    return f->type == KN_MXFP4 ? kn_e8m0_half(b->d) : kn_f16_to_f32(b->d);
}

float kn_block_min(const struct kn_format *f, const struct kn_block *b)
{
    float m = kn_f16_to_f32(b->m);

    return f->sub != 0 ? -m : m;
}

void kn_block_dequantize(const struct kn_format *f, const struct kn_block *b, float *dst)
{
    float d = kn_block_scale(f, b), m = kn_block_min(f, b);

    for (int64_t i = 0; i < f->unit; i++) {
        int64_t sub = f->sub != 0 ? i / f->sub : 0;
        float scale = f->sub != 0 ? d * (float)b->scale[sub] : d;
        dst[i] = scale * (float)kn_block_value(f, b->q[i]);
        if (f->has_min) {
            dst[i] = dst[i] + (f->sub != 0 ? m * (float)b->min[sub] : m);
        }
    }
}

static float load_float(int type, const uint8_t *src)
{
    uint16_t half;
    float x;

    if (type == KN_F32) {
        memcpy(&x, src, sizeof x);
        return x;
    }
    memcpy(&half, src, sizeof half);
    return type == KN_F16 ? kn_f16_to_f32(half) : kn_bf16_to_f32(half);
}

void kn_dequantize_row(int type, const void *src, int64_t cols, float *dst)
{
    const struct kn_format *f = kn_format_find(type);
    const uint8_t *from = src;
    struct kn_block b;

    for (int64_t i = 0; i < cols; i += f->unit, from += f->bytes) {
        if (f->unit == 1) {
            dst[i] = load_float(type, from);
        } else {
            kn_block_read(f, from, &b);
            kn_block_dequantize(f, &b, dst + i);
        }
    }
}

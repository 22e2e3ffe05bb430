/* pack_cuda.c: weights of the file to the planes of cuda_layout.h. */
#include <string.h>

#include "kernels/cuda_kernels.h"
#include "kernels/cuda_layout.h"
#include "kernels/formats.h"
#include "kernels/table.h"

bool kn_cuda_serves(int type, int64_t rows, int64_t cols)
{
    return kn_serves(type, rows, cols);
}

size_t kn_cuda_pack_bytes(int type, int64_t rows, int64_t cols)
{
    return kn_cuda_serves(type, rows, cols) ? kn_planes_of(type, rows, cols).bytes : 0;
}

/* ---- quants ---------------------------------------------------------------------------------- */

/* 32 quants, bits [shift, shift + 2) of each. dst (8). */
static void pack_pairs(const uint8_t *q, int shift, uint8_t *dst)
{
    for (int i = 0; i < 8; i++) {
        const uint8_t *of = q + i / 4 * 16 + i % 4;
        dst[i] = 0;
        for (int p = 0; p < 4; p++) {
            dst[i] |= (uint8_t)((of[4 * p] >> shift & 3) << 2 * p);
        }
    }
}

/* dst (4). */
static void pack_bits(const uint8_t *q, int shift, uint8_t *dst)
{
    for (int j = 0; j < 4; j++) {
        dst[j] = 0;
        for (int i = 0; i < 8; i++) {
            dst[j] |= (uint8_t)((q[4 * i + j] >> shift & 1) << i);
        }
    }
}

static void pack_low(const struct kn_format *f, const uint8_t *q, uint8_t *dst)
{
    switch (f->low_bits) {
    case 8:
        for (int i = 0; i < KN_BLOCK; i++) {
            dst[i] = q[i] ^ 0x80; /* q is the int8 plus 128 */
        }
        break;
    case 4:
        for (int i = 0; i < KN_BLOCK / 2; i++) {
            dst[i] = (uint8_t)((q[i] & 15) | (q[i + KN_BLOCK / 2] & 15) << 4);
        }
        break;
    default:
        pack_pairs(q, 0, dst);
        break;
    }
}

static void pack_high(const struct kn_format *f, const uint8_t *q, uint8_t *dst)
{
    if (f->high_bits == 2) {
        pack_pairs(q, f->low_bits, dst);
    } else if (f->high_bits == 1) {
        pack_bits(q, f->low_bits, dst);
    }
}

/* ---- sub-scales ------------------------------------------------------------------------------ */

static uint32_t both_halves(const struct kn_block *b)
{
    return b->d | (uint32_t)b->m << 16;
}

static void pack_sub(const struct kn_format *f, const struct kn_block *b, uint8_t *dst)
{
    uint32_t word[4] = {0};

    switch (f->type) {
    case KN_Q4_K:
    case KN_Q5_K:
        word[0] = both_halves(b);
        for (int i = 0; i < 8; i++) {
            uint32_t sc = (uint8_t)b->scale[i], mn = b->min[i];
            word[1] |= (sc & 15) << 4 * i;
            word[2] |= (mn & 15) << 4 * i;
            word[3] |= sc >> 4 << 2 * i | mn >> 4 << (16 + 2 * i);
        }
        break;
    case KN_Q3_K:
        word[0] = b->d;
        for (int i = 0; i < 16; i++) {
            uint32_t sc = (uint32_t)(b->scale[i] + 32);
            word[1 + i / 8] |= (sc & 15) << i % 8 * 4;
            word[3] |= sc >> 4 << 2 * i;
        }
        break;
    case KN_Q6_K:
        memcpy(word, b->scale, sizeof word);
        break;
    default: /* Q2_K */
        for (int i = 0; i < 16; i++) {
            uint32_t both = (uint32_t)b->scale[i] | (uint32_t)b->min[i] << 4;
            word[i / 4] |= both << i % 4 * 8;
        }
        break;
    }
    memcpy(dst, word, sizeof word);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* What a row has in its tile: element i of a plane is at `at + i * KN_ROW_TILE` sizes. */
struct place {
    uint8_t *dst;
    struct kn_planes planes;
    size_t blocks, units; /* of a row */
    size_t tile, row;     /* row in the tile */
};

/* Item i, `bytes` long, of n items that a row has in the plane. */
static uint8_t *item(const struct place *p, size_t plane, size_t n, size_t i, size_t bytes)
{
    return p->dst + plane + ((p->tile * n + i) * KN_ROW_TILE + p->row) * bytes;
}

/* The bytes of a block's low plane, in pieces. */
static void put_low(const struct place *p, int type, size_t block, const uint8_t *low)
{
    size_t width = (size_t)kn_plane_width(type);
    size_t pieces = (size_t)kn_plane_low(type) / width;

    for (size_t i = 0; i < pieces; i++) {
        memcpy(item(p, 0, p->blocks * pieces, block * pieces + i, width), low + i * width, width);
    }
}

static void pack_float_row(const struct place *p, int type, int64_t cols, const uint8_t *src)
{
    size_t bytes = (size_t)kn_plane_low(type), left = (size_t)cols * kn_type_block_bytes(type);
    uint8_t block[4 * KN_BLOCK];

    for (size_t b = 0; b < p->blocks; b++, src += bytes, left -= bytes) {
        if (left < bytes) { /* the row's last */
            memset(block, 0, sizeof block);
            memcpy(block, src, left);
            put_low(p, type, b, block);
            return;
        }
        put_low(p, type, b, src);
    }
}

static void pack_unit(const struct place *p, const struct kn_format *f, size_t unit,
                      const uint8_t *src)
{
    size_t per_unit = (size_t)kn_plane_unit(f->type), high = (size_t)kn_plane_high(f->type);
    size_t scale = (size_t)kn_plane_scale(f->type);
    struct kn_block b;
    uint8_t low[KN_BLOCK];

    kn_block_read(f, src, &b);
    for (size_t j = 0; j < per_unit; j++) {
        const uint8_t *q = b.q + j * KN_BLOCK;
        pack_low(f, q, low);
        put_low(p, f->type, unit * per_unit + j, low);
        pack_high(f, q, item(p, p->planes.high, p->blocks, unit * per_unit + j, high));
    }
    uint32_t both = both_halves(&b);
    memcpy(item(p, p->planes.scale, p->units, unit, scale), &both, scale);
    if (f->sub != 0) {
        pack_sub(f, &b, item(p, p->planes.sub, p->units, unit, 16));
    }
}

/* The rows that pad the last tile, in every plane. */
static void pad(const struct place *p, int type)
{
    struct place at = *p;
    size_t width = (size_t)kn_plane_width(type), pieces = (size_t)kn_plane_low(type) / width;
    size_t high = (size_t)kn_plane_high(type), scale = (size_t)kn_plane_scale(type);
    size_t sub = (size_t)kn_plane_sub(type);

    for (; at.row < KN_ROW_TILE; at.row++) {
        for (size_t i = 0; i < at.blocks * pieces; i++) {
            memset(item(&at, 0, at.blocks * pieces, i, width), 0, width);
        }
        for (size_t i = 0; i < at.blocks; i++) {
            memset(item(&at, at.planes.high, at.blocks, i, high), 0, high);
        }
        for (size_t i = 0; i < at.units; i++) {
            memset(item(&at, at.planes.scale, at.units, i, scale), 0, scale);
            memset(item(&at, at.planes.sub, at.units, i, sub), 0, sub);
        }
    }
}

void kn_cuda_pack_rows(int type, int64_t rows, int64_t cols, const void *src, void *dst,
                       int64_t row_begin, int64_t row_end)
{
    const struct kn_format *f = kn_format_find(type);
    const uint8_t *from = src;
    struct place p = {.dst = dst, .planes = kn_planes_of(type, rows, cols)};

    p.blocks = (size_t)((cols + KN_BLOCK - 1) / KN_BLOCK);
    p.units = p.blocks / (size_t)kn_plane_unit(type);
    for (int64_t row = row_begin; row < row_end; row++, from += kn_row_bytes(type, cols)) {
        p.tile = (size_t)(row / KN_ROW_TILE);
        p.row = (size_t)(row % KN_ROW_TILE);
        if (f->unit == 1) {
            pack_float_row(&p, type, cols, from);
        }
        for (size_t u = 0; f->unit > 1 && u < p.units; u++) {
            pack_unit(&p, f, u, from + u * f->bytes);
        }
    }
    if (row_end == rows && rows % KN_ROW_TILE != 0) {
        p.row++;
        pad(&p, type);
    }
}

void kn_cuda_pack(int type, int64_t rows, int64_t cols, const void *src, void *dst)
{
    kn_cuda_pack_rows(type, rows, cols, src, dst, 0, rows);
}

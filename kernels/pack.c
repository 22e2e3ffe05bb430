/* pack.c: the packed layout of table.h, from GGUF rows and back. Packing runs once a model; it
 * writes each byte once, four columns of a row at a time. */
#include "kernels/formats.h"
#include "kernels/numerics.h"
#include "kernels/table.h"

#define BLOCK_WORDS (KN_BLOCK / 4) /* a word holds four columns of a row, a byte each */

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

void kn_layout_init(struct kn_layout *l, int type, int64_t cols)
{
    const struct kn_format *f = kn_format_find(type);

    if (f->unit == 1) {
        *l = (struct kn_layout){.quant_bytes = KN_ROW_TILE * f->bytes};
        l->tile = round64((size_t)cols * l->quant_bytes);
        return;
    }
    size_t row_scale_bytes = type == KN_MXFP4 ? 1 : f->has_min ? 4 : 2;
    l->unit_blocks = f->unit / KN_BLOCK;
    l->subs_at = KN_ROW_TILE * row_scale_bytes;
    l->scale_bytes = l->subs_at + (f->sub != 0 ? (size_t)l->unit_blocks * KN_SUB_BYTES : 0);
    l->quant_bytes = KN_ROW_TILE * (size_t)(f->low_bits + f->high_bits) * KN_BLOCK / 8;
    l->scales = round64((size_t)(cols / f->unit) * l->scale_bytes);
    l->tile = round64(l->scales + (size_t)(cols / KN_BLOCK) * l->quant_bytes);
}

size_t kn_pack_bytes(enum kn_isa isa, int type, int64_t rows, int64_t cols)
{
    if (!kn_serves(type, rows, cols)) {
        return 0;
    }
    size_t tiles = ((size_t)rows + KN_ROW_TILE - 1) / KN_ROW_TILE;
    if (isa == KN_ISA_REF) {
        return round64(tiles * KN_ROW_TILE * kn_row_bytes(type, cols));
    }
    struct kn_layout l;
    kn_layout_init(&l, type, cols);
    return tiles * l.tile;
}

/* ---- packing --------------------------------------------------------------------------------- */

/* The first plane: the low bits of the quants. Returns its registers. */
static int pack_low(const struct kn_format *f, const uint32_t q[BLOCK_WORDS],
                    uint32_t p[BLOCK_WORDS])
{
    int per_byte = 8 / f->low_bits, n = BLOCK_WORDS / per_byte;
    uint32_t mask = 0x01010101u * ((1u << f->low_bits) - 1);

    /* Q4: words i and i + 4 share a register; Q2: words 4i to 4i + 3 do. */
    for (int i = 0; i < n; i++) {
        p[i] = 0;
        for (int j = 0; j < per_byte; j++) {
            int word = f->low_bits == 2 ? 4 * i + j : i + n * j;
            p[i] |= (q[word] & mask) << (f->low_bits * j);
        }
    }
    return n;
}

/* The second: the one or two bits above them. */
static int pack_high(const struct kn_format *f, const uint32_t q[BLOCK_WORDS],
                     uint32_t p[BLOCK_WORDS])
{
    int per_byte = 8 / f->high_bits, n = BLOCK_WORDS / per_byte;
    uint32_t mask = 0x01010101u * ((1u << f->high_bits) - 1);

    for (int i = 0; i < n; i++) {
        p[i] = 0;
        for (int j = 0; j < per_byte; j++) {
            p[i] |= (q[per_byte * i + j] >> f->low_bits & mask) << (f->high_bits * j);
        }
    }
    return n;
}

static void pack_quants(const struct kn_format *f, const uint8_t *q, uint8_t *dst, size_t lane)
{
    uint32_t words[BLOCK_WORDS], planes[2 * BLOCK_WORDS];

    memcpy(words, q, sizeof words);
    int n = pack_low(f, words, planes);
    if (f->high_bits != 0) {
        n += pack_high(f, words, planes + n);
    }
    for (int i = 0; i < n; i++) {
        memcpy(dst + 64 * i + 4 * lane, &planes[i], 4);
    }
}

static void pack_scales(const struct kn_format *f, const struct kn_layout *l,
                        const struct kn_block *b, uint8_t *dst, size_t lane)
{
    if (f->type == KN_MXFP4) {
        dst[lane] = (uint8_t)b->d;
        return;
    }
    memcpy(dst + 2 * lane, &b->d, 2);
    if (f->has_min) {
        memcpy(dst + 2 * KN_ROW_TILE + 2 * lane, &b->m, 2);
    }
    dst += l->subs_at;
    for (size_t i = 0; f->sub == 32 && i < 8; i++) {
        dst[KN_SUB_BYTES * i + lane] = (uint8_t)b->scale[i];
        dst[KN_SUB_BYTES * i + KN_ROW_TILE + lane] = b->min[i];
    }
    for (size_t i = 0; f->sub == 16 && i < 16; i++) {
        int min = f->has_min ? b->min[i] << 4 : 0;
        dst[KN_SUB_BYTES * (i / 2) + 2 * lane + i % 2] = (uint8_t)(b->scale[i] | min);
    }
}

static void pack_row(const struct kn_format *f, const struct kn_layout *l, int64_t cols,
                     const uint8_t *src, uint8_t *tile, size_t lane)
{
    size_t n_units = (size_t)(cols / f->unit);
    struct kn_block b;

    for (size_t i = 0; i < n_units; i++, src += f->bytes) {
        if (f->unit == 1) {
            memcpy(tile + i * l->quant_bytes + lane * f->bytes, src, f->bytes);
            continue;
        }
        uint8_t *quants = tile + l->scales + i * (size_t)l->unit_blocks * l->quant_bytes;
        kn_block_read(f, src, &b);
        pack_scales(f, l, &b, tile + i * l->scale_bytes, lane);
        for (int64_t j = 0; j < l->unit_blocks; j++, quants += l->quant_bytes) {
            pack_quants(f, b.q + KN_BLOCK * j, quants, lane);
        }
    }
}

void kn_pack(enum kn_isa isa, int type, int64_t rows, int64_t cols, const void *src, void *dst,
             int64_t row_begin, int64_t row_end)
{
    const uint8_t *from = (const uint8_t *)src + (size_t)row_begin * kn_row_bytes(type, cols);

    kn_pack_rows(isa, type, rows, cols, from, dst, row_begin, row_end);
}

void kn_pack_rows(enum kn_isa isa, int type, int64_t rows, int64_t cols, const void *src, void *dst,
                  int64_t row_begin, int64_t row_end)
{
    const struct kn_format *f = kn_format_find(type);
    size_t row_bytes = kn_row_bytes(type, cols);
    const uint8_t *from = src;
    uint8_t *to = dst;

    if (isa == KN_ISA_REF) {
        memcpy(to + (size_t)row_begin * row_bytes, from, (size_t)(row_end - row_begin) * row_bytes);
        return;
    }
    struct kn_layout l;
    kn_layout_init(&l, type, cols);
    for (int64_t row = row_begin; row < row_end; row++) {
        uint8_t *tile = to + (size_t)(row / KN_ROW_TILE) * l.tile;
        size_t lane = (size_t)(row % KN_ROW_TILE);
        if (lane == 0 && row + KN_ROW_TILE > rows) {
            memset(tile, 0, l.tile); /* the rows that pad the last tile are zeros */
        }
        pack_row(f, &l, cols, from, tile, lane);
        from += row_bytes;
    }
}

/* ---- reading back ---------------------------------------------------------------------------- */

static void unpack_quants(const struct kn_format *f, const uint8_t *src, size_t lane, uint8_t *q)
{
    int low_per_byte = 8 / f->low_bits, n = BLOCK_WORDS / low_per_byte;
    uint32_t low_mask = 0x01010101u * ((1u << f->low_bits) - 1);
    uint32_t high_mask = 0x01010101u * ((1u << f->high_bits) - 1);
    uint32_t words[BLOCK_WORDS], plane;

    for (int i = 0; i < BLOCK_WORDS; i++) {
        int at = f->low_bits == 2 ? i / 4 : i % n, slot = f->low_bits == 2 ? i % 4 : i / n;
        memcpy(&plane, src + 64 * at + 4 * lane, 4);
        words[i] = plane >> (f->low_bits * slot) & low_mask;
        if (f->high_bits != 0) {
            int per_byte = 8 / f->high_bits;
            memcpy(&plane, src + 64 * (n + i / per_byte) + 4 * lane, 4);
            words[i] |= (plane >> (f->high_bits * (i % per_byte)) & high_mask) << f->low_bits;
        }
    }
    memcpy(q, words, sizeof words);
}

static void unpack_scales(const struct kn_format *f, const struct kn_layout *l, const uint8_t *src,
                          size_t lane, struct kn_block *b)
{
    b->m = 0;
    b->d = src[lane]; /* MXFP4 */
    if (f->type != KN_MXFP4) {
        memcpy(&b->d, src + 2 * lane, 2);
    }
    if (f->has_min) {
        memcpy(&b->m, src + 2 * KN_ROW_TILE + 2 * lane, 2);
    }
    src += l->subs_at;
    for (size_t i = 0; f->sub == 32 && i < 8; i++) {
        b->scale[i] = (int8_t)src[KN_SUB_BYTES * i + lane];
        b->min[i] = src[KN_SUB_BYTES * i + KN_ROW_TILE + lane];
    }
    for (size_t i = 0; f->sub == 16 && i < 16; i++) {
        uint8_t both = src[KN_SUB_BYTES * (i / 2) + 2 * lane + i % 2];
        b->scale[i] = (int8_t)(f->has_min ? both & 15 : both);
        b->min[i] = both >> 4;
    }
}

void kn_unpack_row(const struct kn_matrix *w, int64_t row, float *dst)
{
    const struct kn_format *f = kn_format_find(w->type);
    const uint8_t *data = w->data;

    if (w->isa == KN_ISA_REF) {
        kn_dequantize_row(w->type, data + (size_t)row * kn_row_bytes(w->type, w->cols), w->cols,
                          dst);
        return;
    }
    struct kn_layout l;
    kn_layout_init(&l, w->type, w->cols);
    const uint8_t *tile = data + (size_t)(row / KN_ROW_TILE) * l.tile;
    size_t lane = (size_t)(row % KN_ROW_TILE), n_units = (size_t)(w->cols / f->unit);
    struct kn_block b;

    for (size_t i = 0; i < n_units; i++, dst += f->unit) {
        if (f->unit == 1) {
            kn_dequantize_row(w->type, tile + i * l.quant_bytes + lane * f->bytes, 1, dst);
            continue;
        }
        const uint8_t *quants = tile + l.scales + i * (size_t)l.unit_blocks * l.quant_bytes;
        unpack_scales(f, &l, tile + i * l.scale_bytes, lane, &b);
        for (int64_t j = 0; j < l.unit_blocks; j++, quants += l.quant_bytes) {
            unpack_quants(f, quants, lane, b.q + KN_BLOCK * j);
        }
        kn_block_dequantize(f, &b, dst);
    }
}

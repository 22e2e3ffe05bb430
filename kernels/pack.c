/* pack.c: weight types, their blocks in a GGUF file, and the packed layout of table.h.
 * Runs once a model, so it is plain code; it writes each byte once. */
#include "kernels/numerics.h"
#include "kernels/table.h"

#define COLS_MAX (INT64_C(1) << 24)
#define ROWS_MAX (INT64_C(1) << 31)

struct weight_type {
    int type;
    const char *name;
    int64_t block;    /* elements along a row */
    size_t bytes;     /* of a block in the file */
    size_t quants_at; /* where its quants start */
};

static const struct weight_type weight_types[] = {
    {KN_F32, "F32", 1, 4, 0},     {KN_F16, "F16", 1, 2, 0},     {KN_BF16, "BF16", 1, 2, 0},
    {KN_Q4_0, "Q4_0", 32, 18, 2}, {KN_Q4_1, "Q4_1", 32, 20, 4}, {KN_Q8_0, "Q8_0", 32, 34, 2},
};

static const struct weight_type *find_type(int type)
{
    for (size_t i = 0; i < sizeof weight_types / sizeof weight_types[0]; i++) {
        if (weight_types[i].type == type) {
            return &weight_types[i];
        }
    }
    return NULL;
}

const char *kn_type_name(int type)
{
    const struct weight_type *t = find_type(type);

    return t != NULL ? t->name : "?";
}

int64_t kn_type_block(int type)
{
    const struct weight_type *t = find_type(type);

    return t != NULL ? t->block : 0;
}

size_t kn_type_block_bytes(int type)
{
    const struct weight_type *t = find_type(type);

    return t != NULL ? t->bytes : 0;
}

bool kn_serves(int type, int64_t rows, int64_t cols)
{
    const struct weight_type *t = find_type(type);

    return t != NULL && rows > 0 && rows <= ROWS_MAX && cols > 0 && cols <= COLS_MAX &&
           cols % t->block == 0;
}

size_t kn_row_bytes(int type, int64_t cols)
{
    const struct weight_type *t = find_type(type);

    return (size_t)(cols / t->block) * t->bytes;
}

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

void kn_layout_init(struct kn_layout *l, int type, int64_t cols)
{
    const struct weight_type *t = find_type(type);

    if (t->block == 1) {
        l->scale_bytes = 0;
        l->quant_bytes = KN_ROW_TILE * t->bytes;
    } else {
        l->scale_bytes = KN_ROW_TILE * t->quants_at;
        l->quant_bytes = KN_ROW_TILE * (t->bytes - t->quants_at);
    }
    size_t n_blocks = (size_t)(cols / t->block);
    l->scales = round64(n_blocks * l->scale_bytes);
    l->tile = round64(l->scales + n_blocks * l->quant_bytes);
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

/* ---- packing ------------------------------------------------------------------------------------
 */

/* Q8_0 is stored plus 128 (its top bit flipped), as the unsigned operand of vpdpbusd. */
static uint8_t quant_flip(int type)
{
    return type == KN_Q8_0 ? 0x80 : 0;
}

static void pack_block(const struct weight_type *t, const struct kn_layout *l, const uint8_t *src,
                       uint8_t *tile, size_t block, size_t lane)
{
    uint8_t *scales = tile + block * l->scale_bytes;
    uint8_t *quants = tile + l->scales + block * l->quant_bytes;
    uint8_t flip = quant_flip(t->type);

    for (size_t i = 0; i < t->quants_at; i += 2) { /* d, and m if there is one */
        memcpy(scales + i * KN_ROW_TILE + 2 * lane, src + i, 2);
    }
    src += t->quants_at;
    for (size_t i = 0; i < t->bytes - t->quants_at; i++) { /* groups of 4 bytes a row */
        quants[i / 4 * 64 + lane * 4 + i % 4] = src[i] ^ flip;
    }
}

static void pack_row(const struct weight_type *t, const struct kn_layout *l, int64_t cols,
                     const uint8_t *src, uint8_t *tile, size_t lane)
{
    size_t n_blocks = (size_t)(cols / t->block);

    for (size_t b = 0; b < n_blocks; b++) {
        if (t->block == 1) {
            memcpy(tile + b * l->quant_bytes + lane * t->bytes, src + b * t->bytes, t->bytes);
        } else {
            pack_block(t, l, src + b * t->bytes, tile, b, lane);
        }
    }
}

void kn_pack(enum kn_isa isa, int type, int64_t rows, int64_t cols, const void *src, void *dst,
             int64_t row_begin, int64_t row_end)
{
    const struct weight_type *t = find_type(type);
    size_t row_bytes = kn_row_bytes(type, cols);
    const uint8_t *from = (const uint8_t *)src + (size_t)row_begin * row_bytes;
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
        pack_row(t, &l, cols, from, tile, lane);
        from += row_bytes;
    }
}

/* ---- reading back -------------------------------------------------------------------------------
 */

static void dequantize_block(int type, const uint8_t *src, float *dst)
{
    uint16_t half[2];
    memcpy(half, src, sizeof half);
    float d = kn_f16_to_f32(half[0]);
    float m = kn_f16_to_f32(half[1]); /* of Q4_1 alone */

    for (int i = 0; i < KN_BLOCK / 2; i++) {
        if (type == KN_Q4_1) {
            dst[i] = d * (float)(src[4 + i] & 15) + m;
            dst[i + 16] = d * (float)(src[4 + i] >> 4) + m;
        } else if (type == KN_Q4_0) {
            dst[i] = d * (float)((src[2 + i] & 15) - 8);
            dst[i + 16] = d * (float)((src[2 + i] >> 4) - 8);
        } else {
            dst[i] = d * (float)(int8_t)src[2 + i];
            dst[i + 16] = d * (float)(int8_t)src[2 + i + 16];
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
    const struct weight_type *t = find_type(type);
    const uint8_t *from = src;

    for (int64_t i = 0; i < cols; i += t->block, from += t->bytes) {
        if (t->block == 1) {
            dst[i] = load_float(type, from);
        } else {
            dequantize_block(type, from, dst + i);
        }
    }
}

void kn_unpack_row(const struct kn_matrix *w, int64_t row, float *dst)
{
    const struct weight_type *t = find_type(w->type);
    const uint8_t *data = w->data;

    if (w->isa == KN_ISA_REF) {
        kn_dequantize_row(w->type, data + (size_t)row * kn_row_bytes(w->type, w->cols), w->cols,
                          dst);
        return;
    }
    struct kn_layout l;
    kn_layout_init(&l, w->type, w->cols);
    const uint8_t *tile = data + (size_t)(row / KN_ROW_TILE) * l.tile;
    size_t lane = (size_t)(row % KN_ROW_TILE);
    uint8_t block[34] = {0}; /* the largest, of Q8_0 */

    for (int64_t i = 0; i < w->cols; i += t->block) {
        size_t b = (size_t)(i / t->block);
        if (t->block == 1) {
            dst[i] = load_float(w->type, tile + b * l.quant_bytes + lane * t->bytes);
            continue;
        }
        for (size_t j = 0; j < t->quants_at; j += 2) {
            memcpy(block + j, tile + b * l.scale_bytes + j * KN_ROW_TILE + 2 * lane, 2);
        }
        const uint8_t *quants = tile + l.scales + b * l.quant_bytes;
        for (size_t j = 0; j < t->bytes - t->quants_at; j++) {
            block[t->quants_at + j] = quants[j / 4 * 64 + lane * 4 + j % 4] ^ quant_flip(t->type);
        }
        dequantize_block(w->type, block, dst + i);
    }
}

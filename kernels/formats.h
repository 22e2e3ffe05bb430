/* formats.h: the blocks of a GGUF file, taken apart. The only place that knows the file's bits:
 * packing, the reference and dequantisation all start from struct kn_block. Internal to kernels/.
 *
 * A *unit* is what the file calls a block: 32 elements of a row, or 256 (a super-block) for the K
 * formats. A *block* is always KN_BLOCK elements of it. NUMERICS.md, sections 2 and 4. */
#ifndef ARGOSY_KERNELS_FORMATS_H
#define ARGOSY_KERNELS_FORMATS_H

#include "kernels/kernels.h"

#define KN_UNIT_MAX 256
#define KN_SUBS_MAX 16

struct kn_format {
    int type;
    const char *name;
    int64_t unit;           /* elements; 1 for floats */
    size_t bytes;           /* of a unit in the file */
    int zero;               /* what is taken off a quant: its value is q - zero */
    int sub;                /* elements that share a sub-scale: 32, 16, or 0 for none */
    bool has_min;           /* a minimum beside the scale */
    uint8_t low_bits;       /* of a quant in the packed layout: 2, 4 or 8 in the first plane, */
    uint8_t high_bits;      /* 0, 1 or 2 in the second */
    const int8_t *codebook; /* 16 values that the quants stand for, or NULL */
};

struct kn_block {
    uint16_t d, m; /* fp16 as in the file; m is 0 for a type without; MXFP4: d is its e */
    int8_t scale[KN_SUBS_MAX]; /* integer sub-scales, and */
    uint8_t min[KN_SUBS_MAX];  /* sub-minima of the sub-blocks in order; unset for a type without */
    uint8_t q[KN_UNIT_MAX];    /* the quants in order, not yet less `zero` nor looked up */
};

/* The codebooks; E2M1 is doubled. */
#define KN_CODEBOOK_IQ4_NL -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define KN_CODEBOOK_MXFP4 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12

/* NULL for a type that is not served. */
const struct kn_format *kn_format_find(int type);
/* src: a unit of the file, of a type that is not a float. */
void kn_block_read(const struct kn_format *f, const uint8_t *src, struct kn_block *b);
/* The scale and, negated for the K formats (whose minimum is subtracted), the minimum. */
float kn_block_scale(const struct kn_format *f, const struct kn_block *b);
float kn_block_min(const struct kn_format *f, const struct kn_block *b);
/* The integer that quant q stands for. */
static inline int kn_block_value(const struct kn_format *f, uint8_t q)
{
    return f->codebook != NULL ? f->codebook[q] : q - f->zero;
}
/* All of the unit to fp32, as the `gguf` package does. dst (unit). */
void kn_block_dequantize(const struct kn_format *f, const struct kn_block *b, float *dst);

#endif

/* test_batch.h: rows of a few sequences on a GPU, and attention in double, for the parts of the
 * test.
 */
#ifndef ARGOSY_KERNELS_ATTENTION_TEST_BATCH_H
#define ARGOSY_KERNELS_ATTENTION_TEST_BATCH_H

#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

/* Of K (16) and of V (16), of an int8 head. */
float *head_scales(const struct kn_kv *kv, uint32_t page, int h);
/* Everything after the last row's position in its page becomes NaN: it must never be read. */
void spoil_the_future(const struct kn_attn *a);
/* One row and head in double. out (head_dim). */
void softmax_in_double(const struct kn_attn *a, uint32_t row, int head, double *out);

#define SEQUENCES 3
#define BATCH_ROWS_MAX 64

/* Rows of a few sequences, which follow one another in each, in pages of one pool. */
struct batch {
    struct kn_attn a; /* on the host, its span one sequence's after the other */
    uint32_t n;
    uint32_t pos[BATCH_ROWS_MAX], table_at[BATCH_ROWS_MAX];
    uint32_t *table, *sequence_pages; /* page tables; how many entries each has */
    uint32_t n_table;
    uint32_t n_tiles;
    struct kn_cuda_tile tiles[BATCH_ROWS_MAX];
    uint32_t n_pages;
    float *q;
};

struct batch_shape {
    int n_kv, group, head_dim;
    enum kn_kv_type type;
    uint32_t window;
    float softcap;
    uint32_t pos[SEQUENCES], rows[SEQUENCES]; /* no rows: no sequence */
};

void batch_init(struct batch *b, struct random *r, const struct batch_shape *s);
/* Tiles of at most so many rows: at first kn_cuda_attention_rows. */
void batch_tiles(struct batch *b, const struct batch_shape *s, uint32_t most);
void batch_release(struct batch *b);

#define LEFT_ALONE 1234.5f

/* out (n, ldo) of the reference, row by row; what is not of a row is left alone. */
float *batch_reference(const struct batch *b);

struct on_device {
    struct kn_cuda_attn a;
    float *part;
    struct kn_cuda_tile *tiles;
    uint32_t splits_max;
};

struct on_device batch_upload(const struct batch *b, uint32_t more_splits);
void free_on_device(struct on_device *d);

/* The part of the test that is about flash.cu: the number of tests that failed. */
int test_flash(void);

#endif

/* embed/ref.c: x[i][c] = scale * W[ids[i]][c], one rounding after the row is dequantised. */
#include "kernels/table.h"

void kn_embed_ref(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale, float *x)
{
    for (int64_t i = 0; i < n; i++) {
        float *row = x + i * w->cols; /* (cols) */
        kn_unpack_row(w, ids[i], row);
        for (int64_t c = 0; c < w->cols; c++) {
            row[c] = scale * row[c];
        }
    }
}

/* embed/cpu.c: a gather of one row of the packed layout a token. It waits for memory and has
 * nothing that vectors would speed up, so the instruction sets share it. */
#include "kernels/table.h"

void kn_embed_avx2(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale, float *x)
{
    kn_embed_ref(w, ids, n, scale, x);
}

void kn_embed_avx512(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale,
                     float *x)
{
    kn_embed_ref(w, ids, n, scale, x);
}

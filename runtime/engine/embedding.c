#include "runtime/engine/embedding.h"

#include <math.h>
#include <string.h>

int embedding_init(struct embedding *m, enum engine_pooling pooling, uint32_t width,
                   struct arena *a, struct err *e)
{
    *m = (struct embedding){.pooling = pooling, .width = width};
    if (pooling == ENGINE_POOLING_NONE)
        return 0;
    m->sum = arena_calloc(a, width, sizeof(*m->sum));
    m->v = arena_calloc(a, width, sizeof(*m->v));
    return m->sum && m->v ? 0 : err_set(e, ERR_NOMEM, "no memory for an embedding");
}

bool embedding_rows(struct embedding *m, uint32_t row, uint32_t rows, uint32_t position,
                    uint32_t n_prompt, struct pooling *out)
{
    bool mean = m->pooling == ENGINE_POOLING_MEAN;
    if (m->pooling == ENGINE_POOLING_NONE || (!mean && position + rows < n_prompt))
        return false;
    /* Its first rows, for the first time or after it was preempted. */
    if (!mean || position == 0)
        memset(m->sum, 0, m->width * sizeof(*m->sum));
    *out = (struct pooling){
        .row = mean ? row : row + rows - 1, .rows = mean ? rows : 1, .sum = m->sum};
    return true;
}

const float *embedding_finish(struct embedding *m, uint32_t n_prompt)
{
    double n = m->pooling == ENGINE_POOLING_MEAN ? (double)n_prompt : 1;
    bool finite = true;
    for (uint32_t i = 0; i < m->width; i++) {
        m->v[i] = (float)(m->sum[i] / n);
        finite = finite && isfinite(m->v[i]);
    }
    return finite ? m->v : NULL;
}

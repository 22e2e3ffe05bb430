#include "runtime/model/rows.h"

#include <stdlib.h>
#include <string.h>

static const char *row_at(const struct loader_matrix *m, int64_t row)
{
    return (const char *)m->src.data +
           checkpoint_row(&m->src, m->first + (uint64_t)row) * m->src.row_bytes;
}

/* One row at dst as dst's type has it. x: cols floats of scratch. */
static int make_row(const struct loader_matrix *m, int64_t row, size_t row_bytes, float *x,
                    char *dst, struct err *e)
{
    const struct kn_matrix *w = m->dst;
    if (w->type == (int)m->src.type) {
        memcpy(dst, row_at(m, row), row_bytes);
        return 0;
    }
    kn_dequantize_row((int)m->src.type, row_at(m, row), w->cols, x);
    if (!kn_quantize_q8_0(x, w->cols, dst))
        return err_set(e, ERR_FORMAT, "model: tensor '%s': a value is not finite, or too large",
                       m->src.name);
    return 0;
}

/* For rows that lie elsewhere or as another type: gathers them first. */
static int pack_made(const struct loader_matrix *m, void *to, int64_t begin, int64_t end,
                     struct err *e)
{
    const struct kn_matrix *w = m->dst;
    size_t row_bytes = (size_t)(w->cols / kn_type_block(w->type)) * kn_type_block_bytes(w->type);
    char *rows = malloc((size_t)(end - begin) * row_bytes);
    float *x = malloc((size_t)w->cols * sizeof(*x));
    int rc = rows && x ? 0 : err_set(e, ERR_NOMEM, "model: no memory to pack '%s'", m->src.name);
    for (int64_t r = begin; r < end && rc == 0; r++)
        rc = make_row(m, r, row_bytes, x, rows + (size_t)(r - begin) * row_bytes, e);
    if (rc == 0)
        kn_pack_rows(w->isa, w->type, w->rows, w->cols, rows, to, begin, end);
    free(rows);
    free(x);
    return rc;
}

int rows_pack(const struct loader_matrix *m, void *block, int64_t begin, int64_t end, struct err *e)
{
    const struct kn_matrix *w = m->dst;
    void *to = (char *)block + m->offset;
    if (m->src.head_dim || w->type != (int)m->src.type)
        return pack_made(m, to, begin, end, e);
    kn_pack_rows(w->isa, w->type, w->rows, w->cols, row_at(m, begin), to, begin, end);
    return 0;
}

int rows_check_heads(const struct checkpoint_tensor *t, uint32_t rows, struct err *e)
{
    if (t->head_dim % 2 || rows % t->head_dim)
        return err_set(e, ERR_FORMAT, "model: tensor '%s': %u rows are not heads of %u", t->name,
                       rows, t->head_dim);
    return 0;
}

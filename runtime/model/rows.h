/* rows.h: rows of a tensor to their packed form: as the file has them, or in another order, or
 * quantised (kernels/NUMERICS.md, section 2).
 *
 * Internal to runtime/model. Any thread.
 */
#ifndef ARGOSY_MODEL_ROWS_H
#define ARGOSY_MODEL_ROWS_H

#include "runtime/base/err.h"
#include "runtime/model/loader.h"

/* Packs the rows [begin, end) of the matrix into its place in `block`. Takes as much memory as
 * those rows for the time of the call where they cannot be packed from the file. ERR_FORMAT for a
 * value that cannot be quantised. */
int rows_pack(const struct loader_matrix *m, void *block, int64_t begin, int64_t end,
              struct err *e);

/* Whether a tensor of `rows` rows is whole heads of an even number of rows. */
int rows_check_heads(const struct checkpoint_tensor *t, uint32_t rows, struct err *e);

#endif

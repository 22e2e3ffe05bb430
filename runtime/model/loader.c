#include "runtime/model/loader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/model/rows.h"

#define KEY_BYTES 128
#define BLOCK_ALIGN 64u

static void full_key(const struct loader *l, const char *key, char out[KEY_BYTES])
{
    int n = snprintf(out, KEY_BYTES, "%s.%s", l->prefix, key);
    ASSERT(n > 0 && n < KEY_BYTES);
}

int loader_u32(struct loader *l, const char *key, enum gguf_need need, uint32_t min, uint32_t max,
               uint32_t *out, struct err *e)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    int rc = gguf_u32(l->meta, name, need, out, e);
    if (rc == 0 && (*out < min || *out > max))
        rc = err_set(e, ERR_RANGE, "model: %s is %u, wanted %u to %u", name, *out, min, max);
    return rc;
}

int loader_f32(struct loader *l, const char *key, enum gguf_need need, float min, float max,
               float *out, struct err *e)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    int rc = gguf_f32(l->meta, name, need, out, e);
    if (rc == 0 && !(*out >= min && *out <= max))
        rc = err_set(e, ERR_RANGE, "model: %s is %g, wanted %g to %g", name, (double)*out,
                     (double)min, (double)max);
    return rc;
}

int loader_str(struct loader *l, const char *key, enum gguf_need need, struct gguf_str *out,
               struct err *e)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    return gguf_str(l->meta, name, need, out, e);
}

bool loader_has_key(const struct loader *l, const char *key)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    return gguf_has(l->meta, name);
}

bool loader_is_array(const struct loader *l, const char *key)
{
    struct gguf_array found = {.count = 0};
    struct err e;
    char name[KEY_BYTES];
    full_key(l, key, name);
    return gguf_array(l->meta, name, GGUF_REQUIRED, &found, &e) == 0;
}

int loader_array(struct loader *l, const char *key, struct gguf_array *out, struct err *e)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    return gguf_array(l->meta, name, GGUF_REQUIRED, out, e);
}

bool loader_has(const struct loader *l, const char *name)
{
    return checkpoint_has(l->file, name);
}

static int find_tensor(struct loader *l, const char *name, uint32_t matrix,
                       struct checkpoint_tensor *out, struct err *e)
{
    int rc = checkpoint_find(l->file, name, matrix, out, e);
    if (rc < 0)
        return rc;
    if (!out->data || kn_type_block((int)out->type) == 0) {
        const char *type = gguf_tensor_type_name(out->type);
        return err_set(e, ERR_UNSUPPORTED,
                       "model: tensor '%s' has type %s (%u), which is not served", out->name,
                       type ? type : "unknown", out->type);
    }
    l->used[out->index] = true;
    return 0;
}

int loader_rows(struct loader *l, const char *name, uint32_t max, uint32_t *rows, struct err *e)
{
    struct checkpoint_tensor t;
    int rc = find_tensor(l, name, 0, &t, e);
    if (rc < 0)
        return rc;
    if (t.ne[1] > max)
        return err_set(e, ERR_RANGE, "model: tensor '%s' has %llu rows, at most %u are served",
                       name, (unsigned long long)t.ne[1], max);
    *rows = (uint32_t)t.ne[1];
    return 0;
}

static int check_shape(const struct checkpoint_tensor *t, uint32_t rows, uint32_t cols, uint32_t n,
                       struct err *e)
{
    uint32_t together = t->apart ? 1 : n;
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != together || t->ne[3] != 1)
        return err_set(
            e, ERR_FORMAT, "model: tensor '%s' is %llu × %llu × %llu × %llu, wanted %u × %u × %u",
            t->name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
            (unsigned long long)t->ne[2], (unsigned long long)t->ne[3], cols, rows, together);
    return 0;
}

/* Notes a matrix for packing. */
static int note(struct loader *l, const struct loader_matrix *m, size_t bytes, struct err *e)
{
    if (l->n_matrices == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        struct loader_matrix *more = realloc(l->matrices, room * sizeof(*more));
        if (!more)
            return err_set(e, ERR_NOMEM, "model: no memory for %zu matrices", room);
        l->matrices = more;
        l->room = room;
    }
    l->matrices[l->n_matrices] = *m;
    l->matrices[l->n_matrices++].offset = l->block_bytes;
    l->block_bytes += (bytes + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
    return 0;
}

/* What it is packed as. Rows that are no whole blocks stay in floats. */
static int packed_type(const struct checkpoint_tensor *t)
{
    bool is_float = kn_type_block((int)t->type) == 1;
    return t->quantise && is_float && t->ne[0] % KN_BLOCK == 0 ? KN_Q8_0 : (int)t->type;
}

/* The rows `part` of matrix i of the tensor's n into *dst. */
static int take_matrix(struct loader *l, const char *name, uint32_t i, uint32_t n, uint32_t rows,
                       uint32_t cols, struct shard_range part, struct kn_matrix *dst, struct err *e)
{
    uint32_t held = shard_count(part);
    struct loader_matrix m = {.dst = dst, .first = part.begin};
    int rc = find_tensor(l, name, i, &m.src, e);
    if (rc == 0)
        rc = check_shape(&m.src, rows, cols, n, e);
    if (rc == 0 && m.src.head_dim)
        rc = rows_check_heads(&m.src, rows, e);
    if (rc < 0)
        return rc;
    int type = packed_type(&m.src);
    if (!kn_serves(type, rows, cols))
        return err_set(e, ERR_UNSUPPORTED, "model: tensor '%s': %s of %u × %u is not served",
                       m.src.name, kn_type_name(type), cols, rows);
    size_t bytes = held ? kn_pack_bytes(l->model->isa, type, held, cols) : 0;
    if ((bytes == 0 && held > 0) || bytes > SIZE_MAX / 4 - l->block_bytes)
        return err_set(e, ERR_LIMIT, "model: tensor '%s' is too large", m.src.name);
    *dst = (struct kn_matrix){.type = type, .isa = l->model->isa, .rows = held, .cols = cols};
    if (kn_type_block(type) == 1)
        l->model->has_float_matrix = true;
    return note(l, &m, bytes, e);
}

int loader_matrix(struct loader *l, const char *name, uint32_t rows, uint32_t cols,
                  struct shard_range part, struct kn_matrix *dst, struct err *e)
{
    return take_matrix(l, name, 0, 1, rows, cols, part, dst, e);
}

int loader_matrices(struct loader *l, const char *name, uint32_t n, uint32_t rows, uint32_t cols,
                    struct shard_range part, struct kn_matrix **dst, struct err *e)
{
    *dst = arena_calloc(&l->model->arena, n, sizeof(**dst));
    if (!*dst)
        return err_set(e, ERR_NOMEM, "model: no memory for '%s'", name);
    int rc = 0;
    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = take_matrix(l, name, i, n, rows, cols, part, &(*dst)[i], e);
    return rc;
}

int loader_values(struct loader *l, const char *name, uint32_t n, float *dst, struct err *e)
{
    struct checkpoint_tensor t;
    int rc = find_tensor(l, name, 0, &t, e);
    if (rc == 0)
        rc = check_shape(&t, 1, n, 1, e);
    if (rc == 0 && t.head_dim)
        rc = rows_check_heads(&t, n, e);
    if (rc < 0)
        return rc;
    if (t.head_dim == 0)
        kn_dequantize_row((int)t.type, t.data, n, dst);
    for (uint32_t i = 0; i < n && t.head_dim; i++) {
        const char *at = t.data;
        kn_dequantize_row((int)t.type, at + checkpoint_row(&t, i) * (t.row_bytes / n), 1, &dst[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (t.plus != 0) /* adding 0 would lose the sign of -0 */
            dst[i] += t.plus;
        if (!isfinite(dst[i]))
            return err_set(e, ERR_FORMAT, "model: tensor '%s': value %u is not finite", t.name, i);
    }
    return 0;
}

int loader_vector(struct loader *l, const char *name, uint32_t n, const float **out, struct err *e)
{
    float *v = arena_calloc(&l->model->arena, n, sizeof(*v));
    if (!v)
        return err_set(e, ERR_NOMEM, "model: no memory for '%s'", name);
    int rc = loader_values(l, name, n, v, e);
    if (rc == 0)
        *out = v;
    return rc;
}

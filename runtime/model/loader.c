#include "runtime/model/loader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

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
    int rc = gguf_u32(l->gguf, name, need, out, e);
    if (rc == 0 && (*out < min || *out > max))
        rc = err_set(e, ERR_RANGE, "model: %s is %u, wanted %u to %u", name, *out, min, max);
    return rc;
}

int loader_f32(struct loader *l, const char *key, enum gguf_need need, float min, float max,
               float *out, struct err *e)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    int rc = gguf_f32(l->gguf, name, need, out, e);
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
    return gguf_str(l->gguf, name, need, out, e);
}

bool loader_has_key(const struct loader *l, const char *key)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    return gguf_has(l->gguf, name);
}

bool loader_is_array(const struct loader *l, const char *key)
{
    struct gguf_array found = {.count = 0};
    struct err e;
    char name[KEY_BYTES];
    full_key(l, key, name);
    return gguf_array(l->gguf, name, GGUF_REQUIRED, &found, &e) == 0;
}

int loader_array(struct loader *l, const char *key, struct gguf_array *out, struct err *e)
{
    char name[KEY_BYTES];
    full_key(l, key, name);
    return gguf_array(l->gguf, name, GGUF_REQUIRED, out, e);
}

bool loader_has(const struct loader *l, const char *name)
{
    return gguf_find_tensor(l->gguf, name) != NULL;
}

static int find_tensor(struct loader *l, const char *name, const struct gguf_tensor **out,
                       struct err *e)
{
    const struct gguf_tensor *t = gguf_find_tensor(l->gguf, name);
    if (!t)
        return err_set(e, ERR_FORMAT, "model: tensor '%s' is missing", name);
    if (!t->data || kn_type_block((int)t->type) == 0) {
        const char *type = gguf_tensor_type_name(t->type);
        return err_set(e, ERR_UNSUPPORTED,
                       "model: tensor '%s' has type %s (%u), which is not served", name,
                       type ? type : "unknown", t->type);
    }
    l->used[t - gguf_tensor_at(l->gguf, 0)] = true;
    *out = t;
    return 0;
}

int loader_rows(struct loader *l, const char *name, uint32_t max, uint32_t *rows, struct err *e)
{
    const struct gguf_tensor *t;
    int rc = find_tensor(l, name, &t, e);
    if (rc < 0)
        return rc;
    if (t->ne[1] > max)
        return err_set(e, ERR_RANGE, "model: tensor '%s' has %llu rows, at most %u are served",
                       name, (unsigned long long)t->ne[1], max);
    *rows = (uint32_t)t->ne[1];
    return 0;
}

static int check_shape(const struct gguf_tensor *t, const char *name, uint32_t rows, uint32_t cols,
                       uint32_t n, struct err *e)
{
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != n || t->ne[3] != 1)
        return err_set(e, ERR_FORMAT,
                       "model: tensor '%s' is %llu × %llu × %llu × %llu, wanted %u × %u × %u", name,
                       (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                       (unsigned long long)t->ne[2], (unsigned long long)t->ne[3], cols, rows, n);
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

/* The rows `part` of the tensor's n matrices into dst (n). */
static int take_matrices(struct loader *l, const char *name, uint32_t n, uint32_t rows,
                         uint32_t cols, struct shard_range part, struct kn_matrix *dst,
                         struct err *e)
{
    uint32_t held = shard_count(part);
    const struct gguf_tensor *t;
    int rc = find_tensor(l, name, &t, e);
    if (rc == 0)
        rc = check_shape(t, name, rows, cols, n, e);
    if (rc < 0)
        return rc;
    int type = (int)t->type;
    if (!kn_serves(type, rows, cols))
        return err_set(e, ERR_UNSUPPORTED, "model: tensor '%s': %s of %u × %u is not served", name,
                       kn_type_name(type), cols, rows);
    size_t bytes = held ? kn_pack_bytes(l->model->isa, type, held, cols) : 0;
    size_t row_bytes = (size_t)(t->bytes / n / rows);
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        if ((bytes == 0 && held > 0) || bytes > SIZE_MAX / 4 - l->block_bytes)
            return err_set(e, ERR_LIMIT, "model: tensor '%s' is too large", name);
        dst[i] = (struct kn_matrix){.type = type, .isa = l->model->isa, .rows = held, .cols = cols};
        size_t first = (size_t)i * rows + part.begin;
        struct loader_matrix m = {.dst = &dst[i],
                                  .src = (const char *)t->data + first * row_bytes,
                                  .row_bytes = row_bytes};
        rc = note(l, &m, bytes, e);
    }
    if (kn_type_block(type) == 1)
        l->model->has_float_matrix = true;
    return rc;
}

int loader_matrix(struct loader *l, const char *name, uint32_t rows, uint32_t cols,
                  struct shard_range part, struct kn_matrix *dst, struct err *e)
{
    return take_matrices(l, name, 1, rows, cols, part, dst, e);
}

int loader_matrices(struct loader *l, const char *name, uint32_t n, uint32_t rows, uint32_t cols,
                    struct shard_range part, struct kn_matrix **dst, struct err *e)
{
    *dst = arena_calloc(&l->model->arena, n, sizeof(**dst));
    if (!*dst)
        return err_set(e, ERR_NOMEM, "model: no memory for '%s'", name);
    return take_matrices(l, name, n, rows, cols, part, *dst, e);
}

int loader_values(struct loader *l, const char *name, uint32_t n, float *dst, struct err *e)
{
    const struct gguf_tensor *t;
    int rc = find_tensor(l, name, &t, e);
    if (rc == 0)
        rc = check_shape(t, name, 1, n, 1, e);
    if (rc < 0)
        return rc;
    kn_dequantize_row((int)t->type, t->data, n, dst);
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(dst[i]))
            return err_set(e, ERR_FORMAT, "model: tensor '%s': value %u is not finite", name, i);
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

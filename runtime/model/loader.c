#include "runtime/model/loader.h"

#include <math.h>
#include <stdio.h>
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
                       struct err *e)
{
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
        return err_set(e, ERR_FORMAT,
                       "model: tensor '%s' is %llu × %llu × %llu × %llu, wanted %u × %u", name,
                       (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                       (unsigned long long)t->ne[2], (unsigned long long)t->ne[3], cols, rows);
    return 0;
}

int loader_matrix(struct loader *l, const char *name, uint32_t rows, uint32_t cols,
                  struct kn_matrix *dst, struct err *e)
{
    const struct gguf_tensor *t;
    int rc = find_tensor(l, name, &t, e);
    if (rc == 0)
        rc = check_shape(t, name, rows, cols, e);
    if (rc < 0)
        return rc;
    if (!kn_serves((int)t->type, rows, cols))
        return err_set(e, ERR_UNSUPPORTED, "model: tensor '%s': %s of %u × %u is not served", name,
                       kn_type_name((int)t->type), cols, rows);
    size_t bytes = kn_pack_bytes(l->model->isa, (int)t->type, rows, cols);
    if (bytes == 0 || bytes > SIZE_MAX / 4 - l->block_bytes)
        return err_set(e, ERR_LIMIT, "model: tensor '%s' is too large", name);
    *dst =
        (struct kn_matrix){.type = (int)t->type, .isa = l->model->isa, .rows = rows, .cols = cols};
    ASSERT(l->n_matrices < gguf_tensor_count(l->gguf)); /* an architecture asks once for each */
    l->matrices[l->n_matrices++] =
        (struct loader_matrix){.dst = dst, .src = t, .offset = l->block_bytes};
    l->block_bytes += (bytes + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
    if (kn_type_block((int)t->type) == 1)
        l->model->has_float_matrix = true;
    return 0;
}

int loader_values(struct loader *l, const char *name, uint32_t n, float *dst, struct err *e)
{
    const struct gguf_tensor *t;
    int rc = find_tensor(l, name, &t, e);
    if (rc == 0)
        rc = check_shape(t, name, 1, n, e);
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

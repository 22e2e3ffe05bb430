#include "runtime/model/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/memory.h"
#include "runtime/format/peft.h"
#include "runtime/model/model.h"

#define LINE_BYTES 64u

/* Where a module of transformers is in a layer. */
static const struct place {
    const char *module;
    size_t at; /* in struct model_layer */
} places[ADAPTER_PLACES] = {
    {"self_attn.q_proj", offsetof(struct model_layer, q)},
    {"self_attn.k_proj", offsetof(struct model_layer, k)},
    {"self_attn.v_proj", offsetof(struct model_layer, v)},
    {"self_attn.qkv_proj", offsetof(struct model_layer, qkv)},
    {"self_attn.o_proj", offsetof(struct model_layer, o)},
    {"mlp.gate_proj", offsetof(struct model_layer, gate)},
    {"mlp.up_proj", offsetof(struct model_layer, up)},
    {"mlp.down_proj", offsetof(struct model_layer, down)},
};
/* Phi-3's gate and up in one: the model has them as `up`, and no gate. */
#define UP 6
#define FUSED_UP "mlp.gate_up_proj"

/* A tensor's place in the adapter. */
struct part {
    uint32_t layer, place;
    bool is_b;
    const struct kn_matrix *w; /* whose rows and columns it is for */
};

struct loading {
    const struct model *m;
    const struct peft *file;
    struct adapter *out;
};

static const struct kn_matrix *matrix_at(const struct model *m, uint32_t layer, uint32_t place)
{
    return (const struct kn_matrix *)((const char *)&m->layers[layer] + places[place].at);
}

/* ---- names ------------------------------------------------------------------------------------
 */

/* Steps over `word` at *s. */
static bool eat(const char **s, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*s, word, n) != 0)
        return false;
    *s += n;
    return true;
}

static bool eat_number(const char **s, uint32_t *v)
{
    uint64_t n = 0;
    const char *begin = *s;
    for (; **s >= '0' && **s <= '9' && n <= UINT32_MAX; ++*s)
        n = n * 10 + (uint64_t)(**s - '0');
    *v = (uint32_t)n;
    return *s > begin && n <= UINT32_MAX;
}

static bool eat_module(const char **s, const struct model *m, struct part *p)
{
    const struct model_layer *y = &m->layers[p->layer];
    bool fused_up = y->up.data && !y->gate.data;
    p->place = UP;
    if (fused_up && eat(s, FUSED_UP))
        return true;
    for (p->place = 0; p->place < ADAPTER_PLACES; p->place++)
        if (!(fused_up && p->place == UP) && matrix_at(m, p->layer, p->place)->data &&
            eat(s, places[p->place].module))
            return true;
    return false;
}

static int find_place(const struct loading *l, const char *name, struct part *p, struct err *e)
{
    const char *s = name;
    if (!eat(&s, "base_model.model.model.layers.") || !eat_number(&s, &p->layer) ||
        p->layer >= l->m->h.n_layers || !eat(&s, ".") || !eat_module(&s, l->m, p))
        return err_set(e, ERR_UNSUPPORTED,
                       "adapter: no matrix that is served has a tensor '%.200s'", name);
    p->is_b = strcmp(s, ".lora_B.weight") == 0;
    if (!p->is_b && strcmp(s, ".lora_A.weight") != 0)
        return err_set(e, ERR_UNSUPPORTED, "adapter: '%.200s' is not served", name);
    p->w = matrix_at(l->m, p->layer, p->place);
    return 0;
}

static int check_shape(const struct loading *l, const struct safetensors_tensor *t,
                       const struct part *p, struct err *e)
{
    uint64_t rank = l->file->config.rank;
    uint64_t rows = p->is_b ? (uint64_t)p->w->rows : rank;
    uint64_t cols = p->is_b ? rank : (uint64_t)p->w->cols;
    if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != cols)
        return err_set(e, ERR_FORMAT, "adapter: '%.200s' is not (%llu, %llu)", t->name,
                       (unsigned long long)rows, (unsigned long long)cols);
    return 0;
}

static int type_of(const struct safetensors_tensor *t, struct err *e)
{
    switch (t->dtype) {
    case SAFETENSORS_F32:
        return KN_F32;
    case SAFETENSORS_F16:
        return KN_F16;
    case SAFETENSORS_BF16:
        return KN_BF16;
    default:
        return err_set(e, ERR_UNSUPPORTED, "adapter: '%.200s' is %s, wanted F32, F16 or BF16",
                       t->name, t->dtype_name);
    }
}

/* ---- loading ----------------------------------------------------------------------------------
 */

/* Notes the tensor in its matrix: shape and type, no data yet. */
static int note(struct loading *l, const struct safetensors_tensor *t, struct err *e)
{
    struct part p;
    int rc = find_place(l, t->name, &p, e);
    if (rc == 0)
        rc = check_shape(l, t, &p, e);
    if (rc < 0)
        return rc;
    struct adapter_matrix *x = &l->out->matrices[p.layer * ADAPTER_PLACES + p.place];
    struct kn_matrix *to = p.is_b ? &x->b : &x->a;
    int type = type_of(t, e);
    if (type < 0)
        return type;
    *to = (struct kn_matrix){
        .type = type, .isa = l->m->isa, .rows = (int64_t)t->shape[0], .cols = (int64_t)t->shape[1]};
    size_t bytes = kn_pack_bytes(to->isa, type, to->rows, to->cols);
    l->out->block_bytes += (bytes + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
    return 0;
}

static int check_pairs(const struct loading *l, struct err *e)
{
    for (uint32_t i = 0; i < l->m->h.n_layers * ADAPTER_PLACES; i++) {
        const struct adapter_matrix *x = &l->out->matrices[i];
        if ((x->a.rows == 0) != (x->b.rows == 0))
            return err_set(e, ERR_FORMAT, "adapter: layer %u: %s has A or B alone",
                           i / ADAPTER_PLACES, places[i % ADAPTER_PLACES].module);
        l->out->n_matrices += x->a.rows > 0;
    }
    if (l->out->n_matrices == 0)
        return err_set(e, ERR_FORMAT, "adapter: it has no tensors");
    return 0;
}

/* Rows of heads with pairs half a head apart, as transformers has them, to pairs side by side. */
static void pair_rows(const char *from, char *to, int64_t rows, int64_t head_dim, size_t row_bytes)
{
    for (int64_t i = 0; i < rows; i++) {
        int64_t head = i / head_dim, j = i % head_dim;
        int64_t source = head * head_dim + j % 2 * (head_dim / 2) + j / 2;
        memcpy(to + (size_t)i * row_bytes, from + (size_t)source * row_bytes, row_bytes);
    }
}

static int pack(const struct loading *l, const struct safetensors_tensor *t, char **at,
                struct err *e)
{
    struct part p;
    const void *data;
    char *turned = NULL;
    int rc = find_place(l, t->name, &p, e);
    if (rc == 0)
        rc = safetensors_data(t, &data, e);
    if (rc < 0)
        return rc;
    struct adapter_matrix *x = &l->out->matrices[p.layer * ADAPTER_PLACES + p.place];
    struct kn_matrix *to = p.is_b ? &x->b : &x->a;
    const struct model_layer *y = &l->m->layers[p.layer];
    if (p.is_b && l->m->rope.kind == KN_ROPE_NORM && (p.w == &y->q || p.w == &y->k)) {
        turned = malloc(t->bytes);
        if (!turned)
            return err_set(e, ERR_NOMEM, "adapter: no memory for %llu bytes",
                           (unsigned long long)t->bytes);
        pair_rows(data, turned, to->rows, l->m->h.head_dim, t->bytes / (uint64_t)to->rows);
        data = turned;
    }
    kn_pack(to->isa, to->type, to->rows, to->cols, data, *at, 0, to->rows);
    free(turned);
    to->data = *at;
    size_t bytes = kn_pack_bytes(to->isa, to->type, to->rows, to->cols);
    *at += (bytes + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
    return 0;
}

static int load(struct loading *l, struct err *e)
{
    const struct safetensors *s = l->file->tensors;
    int rc = 0;
    l->out->matrices = calloc((size_t)l->m->h.n_layers * ADAPTER_PLACES, sizeof(*l->out->matrices));
    if (!l->out->matrices)
        return err_set(e, ERR_NOMEM, "adapter: no memory");
    for (size_t i = 0; rc == 0 && i < safetensors_count(s); i++)
        rc = note(l, safetensors_at(s, i), e);
    if (rc == 0)
        rc = check_pairs(l, e);
    if (rc < 0)
        return rc;
    l->out->block = memory_map(l->out->block_bytes);
    if (!l->out->block)
        return err_set(e, ERR_NOMEM, "adapter: no memory for %zu bytes", l->out->block_bytes);
    char *at = l->out->block;
    for (size_t i = 0; rc == 0 && i < safetensors_count(s); i++)
        rc = pack(l, safetensors_at(s, i), &at, e);
    return rc;
}

int adapter_load(const struct model *m, const char *name, const char *path, struct adapter *out,
                 struct err *e)
{
    struct peft file = {0};
    *out = (struct adapter){.rank = 0};
    int rc = peft_open(path, &file, e);
    if (rc == 0) {
        struct loading l = {.m = m, .file = &file, .out = out};
        snprintf(out->name, sizeof(out->name), "%s", name);
        memcpy(out->sha256, file.sha256, sizeof(out->sha256));
        out->rank = file.config.rank;
        out->scale = file.config.scale;
        rc = load(&l, e);
    }
    peft_close(&file);
    if (rc < 0)
        adapter_release(out);
    return rc < 0 && e ? err_prefix(e, "%s", path) : rc;
}

void adapter_release(struct adapter *a)
{
    if (a->block)
        memory_unmap(a->block, a->block_bytes);
    free(a->matrices);
    *a = (struct adapter){.rank = 0};
}

const struct adapter_matrix *adapter_find(const struct adapter *a, const struct model *m,
                                          const struct kn_matrix *w)
{
    size_t at = (size_t)((uintptr_t)w - (uintptr_t)m->layers);
    size_t layer = at / sizeof(*m->layers);
    if (layer >= m->h.n_layers)
        return NULL;
    for (uint32_t i = 0; i < ADAPTER_PLACES; i++) {
        const struct adapter_matrix *x = &a->matrices[layer * ADAPTER_PLACES + i];
        if (places[i].at == at % sizeof(*m->layers))
            return x->b.data ? x : NULL;
    }
    return NULL;
}

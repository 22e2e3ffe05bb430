/* test_batch.c: see test_batch.h. */
#include "kernels/attention/test_batch.h"

float *head_scales(const struct kn_kv *kv, uint32_t page, int h)
{
    uint16_t *head = kv->pages + page * kv->page_stride + h * (16 * kv->head_dim + 2 * 32);

    return (float *)(void *)(head + 16 * kv->head_dim);
}

void spoil_the_future(const struct kn_attn *a)
{
    uint32_t last = a->span.pos + a->span.rows - 1;
    int hd = a->kv.head_dim;

    for (int h = 0; h < a->kv.n_kv_heads; h++) {
        uint32_t page = a->span.page_table[last / 16];
        uint16_t *k = a->kv.pages + page * a->kv.page_stride + h * 32 * hd;
        for (uint32_t slot = last % 16 + 1; a->kv.type == KN_KV_INT8 && slot < 16; slot++) {
            head_scales(&a->kv, page, h)[slot] = NAN;
            head_scales(&a->kv, page, h)[16 + slot] = NAN;
        }
        if (a->kv.type == KN_KV_INT8) {
            continue;
        }
        for (uint32_t slot = last % 16 + 1; slot < 16; slot++) {
            for (int d = 0; d < hd; d++) {
                k[d * 16 + (int)slot] = 0x7e00;
                k[hd * 16 + (int)slot * hd + d] = 0x7e00;
            }
        }
    }
}

static double key(const struct kn_attn *a, uint32_t j, int h, int d, bool value)
{
    const uint16_t *page = a->kv.pages + a->span.page_table[j / 16] * a->kv.page_stride;
    int hd = a->kv.head_dim, slot = (int)(j % 16);

    if (a->kv.type == KN_KV_INT8) {
        const float *scale = head_scales(&a->kv, a->span.page_table[j / 16], h);
        const int8_t *q = (const int8_t *)scale - 32 * hd;
        int element = value ? q[16 * hd + slot * hd + d] : q[d * 16 + slot];
        return (double)element * (double)scale[value ? 16 + slot : slot];
    }
    page += h * 2 * hd * 16;
    return (double)kn_f16_to_f32(value ? page[hd * 16 + slot * hd + d] : page[d * 16 + slot]);
}

void softmax_in_double(const struct kn_attn *a, uint32_t row, int head, double *out)
{
    uint32_t pos = a->span.pos + row;
    uint32_t first = a->window != 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
    int kv_head = head / (a->n_heads / a->kv.n_kv_heads), hd = a->kv.head_dim;
    double total = 0.0;

    memset(out, 0, (size_t)hd * sizeof *out);
    for (uint32_t j = first; j <= pos; j++) {
        double s = 0.0;
        for (int d = 0; d < hd; d++) {
            s += (double)a->q[row * a->ldq + head * hd + d] * key(a, j, kv_head, d, false);
        }
        s *= (double)a->scale;
        if (a->softcap > 0.0f) {
            s = (double)a->softcap * tanh(s / (double)a->softcap);
        }
        double w = exp(s);
        total += w;
        for (int d = 0; d < hd; d++) {
            out[d] += w * key(a, j, kv_head, d, true);
        }
    }
    for (int d = 0; d < hd; d++) {
        out[d] /= total;
    }
}

void batch_tiles(struct batch *b, const struct batch_shape *s, uint32_t most)
{
    uint32_t row = 0;

    b->n_tiles = 0;
    for (int i = 0; i < SEQUENCES; i++) {
        for (uint32_t end = row + s->rows[i]; row < end;) {
            uint32_t rows = end - row < most ? end - row : most;
            b->tiles[b->n_tiles++] = (struct kn_cuda_tile){row, rows};
            row += rows;
        }
    }
}

/* A sequence's page table, backwards through the pool; pages that no row sees are in none. Slots
 * behind its last row are NaN. */
static void batch_sequence(struct batch *b, struct random *r, uint32_t pos, uint32_t rows)
{
    struct kn_kv *kv = &b->a.kv;
    uint32_t last = pos + rows - 1, n = last / 16 + 1, at = b->n_table + 1;
    uint32_t low = b->a.window != 0 && pos + 1 > b->a.window ? pos + 1 - b->a.window : 0;

    b->table[at - 1] = UINT32_MAX;
    b->n_table += n + 2;
    b->table[b->n_table - 1] = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        b->table[at + i] = i < low / 16 ? UINT32_MAX : --b->n_pages;
    }
    struct kn_attn a = b->a;
    a.span = (struct kn_span){b->table + at, pos, rows};
    for (uint32_t i = low / 16; i < n; i++) {
        uint16_t *page = kv->pages + b->table[at + i] * kv->page_stride;
        for (int64_t k = 0; k < kv->page_stride; k++) {
            page[k] = kv->type == KN_KV_INT8 ? (uint16_t)random_below(r, 1u << 16)
                                             : kn_f32_to_f16(random_normal(r));
        }
        for (int h = 0; kv->type == KN_KV_INT8 && h < kv->n_kv_heads; h++) {
            random_fill(r, head_scales(kv, b->table[at + i], h), 32, 0.02f);
        }
    }
    spoil_the_future(&a);
    for (uint32_t i = 0; i < rows; i++) {
        b->pos[b->n] = pos + i;
        b->table_at[b->n++] = at;
    }
}

void batch_init(struct batch *b, struct random *r, const struct batch_shape *s)
{
    int64_t elems = kn_kv_page_elems(s->type, s->n_kv, s->head_dim) + 8 * random_below(r, 2);
    int64_t width = (int64_t)s->n_kv * s->group * s->head_dim;
    uint32_t n_pages = 0;

    *b = (struct batch){.a = {.n_heads = s->n_kv * s->group,
                              .scale = 1.0f / sqrtf((float)s->head_dim),
                              .window = s->window,
                              .softcap = s->softcap,
                              .ldq = width + random_below(r, 5),
                              .ldo = width + random_below(r, 5)}};
    for (int i = 0; i < SEQUENCES; i++) {
        n_pages += s->rows[i] != 0 ? (s->pos[i] + s->rows[i] - 1) / 16 + 1 : 0;
    }
    b->n_pages = n_pages;
    b->table = (uint32_t *)get_memory((n_pages + 2 * SEQUENCES) * sizeof(uint32_t));
    b->a.kv = (struct kn_kv){(uint16_t *)get_memory((size_t)(n_pages * elems) * 2), elems, s->n_kv,
                             s->head_dim, s->type};
    for (int i = 0; i < SEQUENCES; i++) {
        if (s->rows[i] != 0) {
            batch_sequence(b, r, s->pos[i], s->rows[i]);
        }
    }
    b->n_pages = n_pages;
    b->q = get_floats(b->n * b->a.ldq);
    random_fill(r, b->q, b->n * b->a.ldq, 1.5f);
    b->a.q = b->q;
    batch_tiles(b, s, kn_cuda_attention_rows(b->a.n_heads, s->n_kv));
}

void batch_release(struct batch *b)
{
    free(b->table);
    free(b->a.kv.pages);
    free(b->q);
}

float *batch_reference(const struct batch *b)
{
    float *out = get_floats(b->n * b->a.ldo);

    for (int64_t i = 0; i < b->n * b->a.ldo; i++) {
        out[i] = LEFT_ALONE;
    }
    for (uint32_t row = 0; row < b->n; row++) {
        struct kn_attn a = b->a;
        a.q = b->q + row * a.ldq;
        a.out = out + row * a.ldo;
        a.span = (struct kn_span){b->table + b->table_at[row], b->pos[row], 1};
        kn_ops(KN_ISA_REF)->attention(&a, 0, 1, 0, a.kv.n_kv_heads);
    }
    return out;
}

struct on_device batch_upload(const struct batch *b, uint32_t more_splits)
{
    uint32_t last = 0;
    int hd = b->a.kv.head_dim;

    for (uint32_t i = 0; i < b->n; i++) {
        last = b->pos[i] > last ? b->pos[i] : last;
    }
    struct on_device d = {.splits_max = last / KN_ATTN_SPLIT + 1 + more_splits};
    d.a = (struct kn_cuda_attn){
        .q = to_device(b->q, (size_t)(b->n * b->a.ldq) * sizeof(float), "q"),
        .ldq = b->a.ldq,
        .ldo = b->a.ldo,
        .kv = b->a.kv,
        .rows = {to_device(b->pos, b->n * sizeof(uint32_t), "pos"),
                 to_device(b->table, b->n_table * sizeof(uint32_t), "page tables"),
                 to_device(b->table_at, b->n * sizeof(uint32_t), "table_at"), b->n},
        .n_heads = b->a.n_heads,
        .scale = b->a.scale,
        .window = b->a.window,
        .softcap = b->a.softcap,
    };
    d.a.kv.pages =
        to_device(b->a.kv.pages, (size_t)(b->n_pages * b->a.kv.page_stride) * 2, "pages");
    d.part =
        simt_malloc(kn_cuda_attention_part_bytes(b->n, b->a.n_heads, hd, d.splits_max), "part");
    d.tiles = to_device(b->tiles, b->n_tiles * sizeof *b->tiles, "tiles");
    return d;
}

void free_on_device(struct on_device *d)
{
    simt_free((void *)(uintptr_t)d->a.q);
    simt_free(d->a.kv.pages);
    simt_free((void *)(uintptr_t)d->a.rows.pos);
    simt_free((void *)(uintptr_t)d->a.rows.table);
    simt_free((void *)(uintptr_t)d->a.rows.table_at);
    simt_free(d->part);
    simt_free(d->tiles);
}

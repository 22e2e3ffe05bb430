/* attention/test.c: against softmax in double, and against the reference bit by bit. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

/* A sequence with its pages; q and out of the rows of a span. */
struct problem {
    struct kn_attn a;
    uint32_t *page_table;
    float *q;
    int64_t width; /* n_heads * head_dim */
};

/* Of K (16) and of V (16), of an int8 head. */
static float *head_scales(const struct kn_kv *kv, uint32_t page, int h)
{
    uint16_t *head = kv->pages + page * kv->page_stride + h * (16 * kv->head_dim + 2 * 32);

    return (float *)(void *)(head + 16 * kv->head_dim);
}

static void problem_init(struct problem *p, struct random *r, uint32_t pos, uint32_t rows)
{
    static const int groups[] = {1, 2, 3, 4, 5, 7, 8, 9};
    static const int dims[] = {8, 16, 24, 64, 64, 64, 72, 80, 128, 256};
    uint32_t n_pages = (pos + rows + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS;
    int n_kv = 1 + (int)random_below(r, 2), hd = dims[random_below(r, 10)];
    enum kn_kv_type type = random_below(r, 2) ? KN_KV_INT8 : KN_KV_F16;
    int64_t elems = kn_kv_page_elems(type, n_kv, hd) + 16 * random_below(r, 2);

    *p = (struct problem){0};
    p->a.n_heads = n_kv * groups[random_below(r, 8)];
    p->width = (int64_t)p->a.n_heads * hd;
    p->a.ldq = p->width + random_below(r, 5);
    p->a.ldo = p->width + random_below(r, 5);
    p->a.scale = 1.0f / sqrtf((float)hd);
    p->a.window = random_below(r, 3) == 0 ? 1 + random_below(r, random_below(r, 2) ? 6 : 300) : 0;
    p->a.softcap = random_below(r, 4) == 0 ? 5.0f : 0.0f;
    p->page_table = (uint32_t *)get_memory(n_pages * sizeof(uint32_t));
    p->a.kv = (struct kn_kv){(uint16_t *)get_memory((size_t)(n_pages * elems) * 2), elems, n_kv, hd,
                             type};
    for (uint32_t i = 0; i < n_pages; i++) {
        p->page_table[i] = n_pages - 1 - i;
    }
    for (int64_t i = 0; i < n_pages * elems; i++) {
        p->a.kv.pages[i] = type == KN_KV_INT8 ? (uint16_t)random_below(r, 1u << 16)
                                              : kn_f32_to_f16(random_normal(r));
    }
    for (uint32_t i = 0; type == KN_KV_INT8 && i < n_pages * (uint32_t)n_kv; i++) {
        random_fill(r, head_scales(&p->a.kv, i / (uint32_t)n_kv, (int)(i % (uint32_t)n_kv)), 32,
                    0.02f);
    }
    p->a.span = (struct kn_span){p->page_table, pos, rows};
    p->q = get_floats(rows * p->a.ldq);
    random_fill(r, p->q, rows * p->a.ldq, 1.5f);
    p->a.q = p->q;
}

/* Everything after the last row's position in its page becomes NaN: it must never be read. */
static void spoil_the_future(struct problem *p)
{
    uint32_t last = p->a.span.pos + p->a.span.rows - 1;
    int hd = p->a.kv.head_dim;

    for (int h = 0; h < p->a.kv.n_kv_heads; h++) {
        uint32_t page = p->page_table[last / 16];
        uint16_t *k = p->a.kv.pages + page * p->a.kv.page_stride + h * 32 * hd;
        for (uint32_t slot = last % 16 + 1; p->a.kv.type == KN_KV_INT8 && slot < 16; slot++) {
            head_scales(&p->a.kv, page, h)[slot] = NAN;
            head_scales(&p->a.kv, page, h)[16 + slot] = NAN;
        }
        if (p->a.kv.type == KN_KV_INT8) {
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

static void problem_release(struct problem *p)
{
    free(p->page_table);
    free(p->a.kv.pages);
    free(p->q);
}

/* out (rows, ldo), computed in ranges of `step` rows. */
static float *solve(const struct problem *p, enum kn_isa isa, uint32_t step)
{
    struct kn_attn a = p->a;
    float *out = get_floats(a.span.rows * a.ldo);

    a.out = out;
    for (uint32_t row = 0; row < a.span.rows; row += step) {
        uint32_t end = row + step < a.span.rows ? row + step : a.span.rows;
        kn_ops(isa)->attention(&a, row, end, 0, 1);
        kn_ops(isa)->attention(&a, row, end, 1, a.kv.n_kv_heads);
    }
    return out;
}

/* The same through the parts, in two shares of splits, row by row. */
static float *solve_in_parts(const struct problem *p, enum kn_isa isa)
{
    struct kn_attn a = p->a;
    float *out = get_floats(a.span.rows * a.ldo);

    a.out = out;
    for (uint32_t row = 0; row < a.span.rows; row++) {
        uint32_t n_splits = (a.span.pos + row) / KN_ATTN_SPLIT + 1, cut = n_splits / 2;
        float *part = get_floats((int64_t)a.n_heads * n_splits * (a.kv.head_dim + 2));
        kn_ops(isa)->attention_part(&a, row, 0, a.kv.n_kv_heads, cut, n_splits, part);
        kn_ops(isa)->attention_part(&a, row, 0, a.kv.n_kv_heads, 0, cut, part);
        kn_ops(isa)->attention_merge(&a, row, 0, a.kv.n_kv_heads, part);
        free(part);
    }
    return out;
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

/* One row and head in double. out (head_dim). */
static void softmax_in_double(const struct kn_attn *a, uint32_t row, int head, double *out)
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

static void test_attention_is_softmax(void **state)
{
    (void)state;
    struct random r = {1};
    for (int round = 0; round < 30; round++) {
        struct problem p;
        problem_init(&p, &r, random_below(&r, 400), 1 + random_below(&r, 3));
        spoil_the_future(&p);
        float *out = solve(&p, KN_ISA_REF, 1);
        for (uint32_t row = 0; row < p.a.span.rows; row++) {
            for (int h = 0; h < p.a.n_heads; h++) {
                double want[256];
                softmax_in_double(&p.a, row, h, want);
                for (int d = 0; d < p.a.kv.head_dim; d++) {
                    float got = out[row * p.a.ldo + h * p.a.kv.head_dim + d];
                    assert_true(fabs((double)got - want[d]) < 1e-5);
                }
            }
        }
        free(out);
        problem_release(&p);
    }
}

static void assert_same_rows(const struct problem *p, const float *got, const float *want,
                             const char *what)
{
    for (uint32_t row = 0; row < p->a.span.rows; row++) {
        assert_same_floats(got + row * p->a.ldo, want + row * p->a.ldo, p->width, what);
    }
}

/* The reference is slow where each of its accesses is checked. */
#if defined(__SANITIZE_ADDRESS__)
#define ROUNDS 12
#else
#define ROUNDS 150
#endif

static void test_attention_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    struct random r = {2};
    for (int round = 0; round < ROUNDS; round++) {
        struct problem p;
        uint32_t pos = round % 4 == 0 ? 0 : random_below(&r, 420);
        problem_init(&p, &r, pos, 1 + random_below(&r, round % 3 == 0 ? 40 : 4));
        spoil_the_future(&p);
        if (round % 25 == 0) {
            p.q[random_below(&r, (uint32_t)p.width)] = round % 2 == 0 ? INFINITY : NAN;
        }
        float *want = solve(&p, KN_ISA_REF, 1);
        float *ref_parts = solve_in_parts(&p, KN_ISA_REF);
        assert_same_rows(&p, ref_parts, want, "reference in parts");
        for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
            float *got = solve(&p, isa, 1 + random_below(&r, 40));
            assert_same_rows(&p, got, want, "rows together");
            float *parts = solve_in_parts(&p, isa);
            assert_same_rows(&p, parts, want, "in parts");
            free(got);
            free(parts);
        }
        free(want);
        free(ref_parts);
        problem_release(&p);
    }
}

/* ---- on a GPU ---------------------------------------------------------------------------------
 */

#define SEQUENCES 3
#define BATCH_ROWS_MAX 64

/* Rows of a few sequences, which follow one another in each, in pages of one pool. */
struct batch {
    struct kn_attn a; /* on the host, its span one sequence's after the other */
    uint32_t n;
    uint32_t pos[BATCH_ROWS_MAX], table_at[BATCH_ROWS_MAX];
    uint32_t *table, *sequence_pages; /* page tables; how many entries each has */
    uint32_t n_table;
    uint32_t n_tiles;
    struct kn_cuda_tile tiles[BATCH_ROWS_MAX];
    uint32_t n_pages;
    float *q;
};

struct batch_shape {
    int n_kv, group, head_dim;
    enum kn_kv_type type;
    uint32_t window;
    float softcap;
    uint32_t pos[SEQUENCES], rows[SEQUENCES]; /* no rows: no sequence */
};

static void batch_tiles(struct batch *b, const struct batch_shape *s)
{
    uint32_t most = kn_cuda_attention_rows(b->a.n_heads, s->n_kv), row = 0;

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
    struct problem p = {.a = b->a, .page_table = b->table + at};
    p.a.span = (struct kn_span){p.page_table, pos, rows};
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
    spoil_the_future(&p);
    for (uint32_t i = 0; i < rows; i++) {
        b->pos[b->n] = pos + i;
        b->table_at[b->n++] = at;
    }
}

static void batch_init(struct batch *b, struct random *r, const struct batch_shape *s)
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
    batch_tiles(b, s);
}

static void batch_release(struct batch *b)
{
    free(b->table);
    free(b->a.kv.pages);
    free(b->q);
}

#define LEFT_ALONE 1234.5f

/* out (n, ldo) of the reference, row by row; what is not of a row is left alone. */
static float *batch_reference(const struct batch *b)
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

struct on_device {
    struct kn_cuda_attn a;
    float *part;
    struct kn_cuda_tile *tiles;
    uint32_t splits_max;
};

static struct on_device batch_upload(const struct batch *b, uint32_t more_splits)
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

static void free_on_device(struct on_device *d)
{
    simt_free((void *)(uintptr_t)d->a.q);
    simt_free(d->a.kv.pages);
    simt_free((void *)(uintptr_t)d->a.rows.pos);
    simt_free((void *)(uintptr_t)d->a.rows.table);
    simt_free((void *)(uintptr_t)d->a.rows.table_at);
    simt_free(d->part);
    simt_free(d->tiles);
}

/* Both ways, all of out; in the second the last tile's rows are left alone. */
static void check_batch(const struct batch *b, uint64_t seed)
{
    float *want = batch_reference(b), *got = get_floats(b->n * b->a.ldo);
    size_t bytes = (size_t)(b->n * b->a.ldo) * sizeof(float);
    struct on_device d = batch_upload(b, (uint32_t)(seed % 3));

    set_schedule(seed);
    for (int prefill = 0; prefill < 2; prefill++) {
        for (int64_t i = 0; i < b->n * b->a.ldo; i++) {
            got[i] = LEFT_ALONE;
        }
        d.a.out = to_device(got, bytes, "out");
        uint32_t rows = b->n;
        if (prefill) {
            rows = b->n_tiles > 1 ? b->tiles[b->n_tiles - 1].row : b->n;
            assert_launched(kn_cuda_attention_prefill(&d.a, d.tiles,
                                                      b->n_tiles > 1 ? b->n_tiles - 1 : 1, NULL));
        } else {
            assert_launched(kn_cuda_attention(&d.a, d.splits_max, d.part, NULL));
        }
        from_device(got, d.a.out, bytes);
        simt_free(d.a.out);
        assert_same_floats(got, want, rows * b->a.ldo, prefill ? "prefill" : "decode");
        for (int64_t i = rows * b->a.ldo; i < b->n * b->a.ldo; i++) {
            assert_true(got[i] == LEFT_ALONE);
        }
    }
    free_on_device(&d);
    free(want);
    free(got);
}

/* What a batch sees, by seed: some rows of few positions, and rows on both sides of a split's end.
 */
static void gpu_shape(struct batch_shape *s, struct random *r, uint32_t seed)
{
    static const struct batch_shape seen[4] = {
        {.pos = {20, 126}, .rows = {2, 3}},
        {.pos = {30, 125, 254}, .rows = {1, 5, 4}, .window = 5},
        {.pos = {40, 255}, .rows = {1, 2}, .window = 150},
        {.pos = {17, 130}, .rows = {4, 1}, .softcap = 5.0f},
    };
    /* Each instance of the kernels (head_dim, queries, type) has a seed; the dear ones small heads.
     */
    static const int dims[3][4] = {{8, 24, 64, 40}, {72, 80, 96, 128}, {136, 136, 192, 256}};
    static const int groups[3][4] = {{1, 3, 4, 2}, {5, 8, 7, 6}, {9, 9, 17, 33}};
    uint32_t i = seed - 1, dim = i % 3, size = i / 3 % 3;

    *s = seen[random_below(r, 4)];
    s->pos[0] -= random_below(r, 17);
    s->pos[1] -= random_below(r, 2);
    s->head_dim = dims[dim][random_below(r, size == 0 ? 4 : 2)];
    s->group = groups[size][random_below(r, dim == 0 ? 4 : 2)];
    s->n_kv = size == 0 && dim < 2 ? 2 : 1;
    s->type = i / 9 % 2 != 0 ? KN_KV_INT8 : KN_KV_F16;
}

static void test_attention_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {7};

    for (uint32_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        struct batch_shape s;
        struct batch b;
        gpu_shape(&s, &r, seed);
        batch_init(&b, &r, &s);
        if (seed % 5 == 0) {
            b.q[random_below(&r, (uint32_t)s.head_dim)] = seed % 10 == 0 ? INFINITY : NAN;
        }
        check_batch(&b, seed);
        batch_release(&b);
    }
}

/* Two rows of 128 positions, and a prompt of 32 rows of 8 tiles: bytes beside the least. */
static void test_attention_reads_k_and_v_once(void **state)
{
    (void)state;
    struct random r = {8};
    struct batch_shape s = {.n_kv = 1, .group = 8, .head_dim = 64, .type = KN_KV_F16};
    struct batch b;

    if (!simt_has_shadow()) {
        skip();
    }
    for (int prefill = 0; prefill < 2; prefill++) {
        s.pos[0] = prefill ? 96 : 127;
        s.pos[1] = 127;
        s.rows[0] = prefill ? 32 : 1;
        s.rows[1] = prefill ? 0 : 1;
        batch_init(&b, &r, &s);
        struct on_device d = batch_upload(&b, 0);
        d.a.out = simt_malloc((size_t)(b.n * b.a.ldo) * sizeof(float), "out");
        assert_launched(prefill ? kn_cuda_attention_prefill(&d.a, d.tiles, b.n_tiles, NULL)
                                : kn_cuda_attention(&d.a, d.splits_max, d.part, NULL));
        const struct simt_stats *stats = simt_last_stats();
        /* K and V of 128 positions a sequence; q and out */
        uint64_t least = (prefill ? 1 : 2) * 128 * 64 * 4 + b.n * 8 * 64 * 8;
        uint64_t got = stats->unique_sectors * 32;
        print_message("%s: %lu bytes of DRAM, least %lu; %lu sectors of L1, least %lu; %lu bank "
                      "conflicts in %lu accesses\n",
                      prefill ? "prefill" : "decode", (unsigned long)got, (unsigned long)least,
                      (unsigned long)stats->sectors, (unsigned long)stats->sectors_min,
                      (unsigned long)stats->bank_conflicts, (unsigned long)stats->shared_accesses);
        assert_true(got >= least && got * 100 < least * 105);
        simt_free(d.a.out);
        free_on_device(&d);
        batch_release(&b);
    }
}

/* More splits than a warp of the merge has lanes. */
static void test_attention_merges_many_splits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {9};
    struct batch_shape s = {.n_kv = 1, .group = 1, .head_dim = 8, .pos = {37 * 128}, .rows = {1}};
    struct batch b;

    batch_init(&b, &r, &s);
    check_batch(&b, 3);
    batch_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_is_softmax),
        cmocka_unit_test(test_attention_has_the_same_bits_everywhere),
        cmocka_unit_test(test_attention_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_attention_merges_many_splits_on_a_gpu),
        cmocka_unit_test(test_attention_reads_k_and_v_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

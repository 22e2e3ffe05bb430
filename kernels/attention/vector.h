/* vector.h: attention in sixteen lanes, as lanes.h says. Lanes are tokens of a page for q·k and for
 * the sum of the weights, and elements of a head for the weighted sum of V. */

/* Queries of a group, those of them in registers at once, and vectors of sums that fit there. */
#define QUERIES (V_ISA == 512 ? ATTN_QUERIES_MAX : 4)
#define AT_ONCE (V_ISA == 512 ? 8 : 4)
#define SUMS (V_ISA == 512 ? 16 : 4)

/* Sixteen elements from p + at, or eight, without their scale. */
V_INLINE VF V(load_kv)(enum kn_kv_type type, const void *p, int64_t at, int n)
{
    return type == KN_KV_INT8 ? V(load8)((const int8_t *)p + at, n)
                              : V(loadh)((const uint16_t *)p + at, n);
}

/* ---- q·k ------------------------------------------------------------------------------------ */

/* Dot products of n queries (q, stride ldq) with the 16 tokens of a page, `at_once` segments of the
 * head side by side. type, n and at_once are constants where this is inlined. */
V_INLINE void V(dot_page)(enum kn_kv_type type, int n, int at_once, const float *const *q,
                          const void *k, int hd, VF *dot)
{
    int len = hd / ATTN_SEGMENTS;
    VF sum[AT_ONCE][ATTN_SEGMENTS];

    for (int s = 0; s < ATTN_SEGMENTS; s += at_once) {
        VF acc[2 * AT_ONCE];
        for (int i = 0; i < n * at_once; i++) {
            acc[i] = V(set1)(0.0f);
        }
        for (int d = 0; d < len; d++) {
            for (int j = 0; j < at_once; j++) {
                int at = (s + j) * len + d;
                VF v = V(load_kv)(type, k, at * KN_PAGE_TOKENS, 16);
                for (int i = 0; i < n; i++) {
                    acc[i * at_once + j] = V(fma)(V(set1)(q[i][at]), v, acc[i * at_once + j]);
                }
            }
        }
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < at_once; j++) {
                sum[i][s + j] = acc[i * at_once + j];
            }
        }
    }
    for (int i = 0; i < n; i++) {
        dot[i] = V(add)(V(add)(sum[i][0], sum[i][1]), V(add)(sum[i][2], sum[i][3]));
        if (type == KN_KV_INT8) {
            dot[i] = V(mul)(dot[i], V(load)(attn_scales(k, hd)));
        }
    }
}

/* n is 1, 2, 3, 4 or AT_ONCE. */
V_INLINE void V(dot_some)(enum kn_kv_type type, int n, const float *const *q, const void *k, int hd,
                          VF *dot)
{
    switch (n) {
    case 1:
        V(dot_page)(type, 1, 4, q, k, hd, dot);
        break;
    case 2:
        V(dot_page)(type, 2, 2, q, k, hd, dot);
        break;
    case 3:
        V(dot_page)(type, 3, V_ISA == 512 ? 2 : 1, q, k, hd, dot);
        break;
    case 4:
        V(dot_page)(type, 4, V_ISA == 512 ? 2 : 1, q, k, hd, dot);
        break;
    default:
        V(dot_page)(type, AT_ONCE, V_ISA == 512 ? 2 : 1, q, k, hd, dot);
    }
}

V_TARGET static void V(dot_queries)(enum kn_kv_type type, int n, const float *const *q,
                                    const void *k, int hd, VF *dot)
{
    if (type == KN_KV_INT8) {
        V(dot_some)(KN_KV_INT8, n, q, k, hd, dot);
    } else {
        V(dot_some)(KN_KV_F16, n, q, k, hd, dot);
    }
}

/* How many of n queries to take at once: what dot_some and sum_some have a case for. */
V_INLINE int V(some_of)(int n)
{
    return n >= AT_ONCE ? AT_ONCE : n < 4 ? n : 4;
}

/* Scores of positions [first, end), which lie in one split, for all queries; whole pages. */
V_TARGET static void V(scores)(const struct kn_attn *a, struct attn_queries *g, uint32_t first,
                               uint32_t end)
{
    int hd = a->kv.head_dim, n = g->rows * g->heads;
    int kv_head = g->head / (a->n_heads / a->kv.n_kv_heads);
    VF scale = V(set1)(a->scale), cap = V(set1)(a->softcap);

    for (uint32_t j = first / KN_PAGE_TOKENS * KN_PAGE_TOKENS; j < end; j += KN_PAGE_TOKENS) {
        const void *k = attn_page(a, j, kv_head); /* (head_dim, 16) */
        for (int i = 0, some; i < n; i += some) {
            const float *q[AT_ONCE];
            VF dot[AT_ONCE];
            some = V(some_of)(n - i);
            for (int x = 0; x < some; x++) {
                q[x] = a->q + (int64_t)(g->row + (uint32_t)((i + x) / g->heads)) * a->ldq +
                       (int64_t)(g->head + (i + x) % g->heads) * hd;
            }
            V(dot_queries)(a->kv.type, some, q, k, hd, dot);
            for (int x = 0; x < some; x++) {
                VF s = V(mul)(scale, dot[x]);
                if (a->softcap > 0.0f) {
                    s = V(mul)(cap, V(tanh)(V(div)(s, cap)));
                }
                V(store)(g->score[i + x] + j % KN_ATTN_SPLIT, s);
            }
        }
    }
}

/* ---- softmax -------------------------------------------------------------------------------- */

/* Lanes `first` to `end` - 1 of v, and `other` in the rest. */
V_INLINE VF V(between)(VF v, int first, int end, VF other)
{
    v = V(select)(V(first)(end), v, other);
    return first <= 0 ? v : V(select)(V(first)(first), other, v);
}

/* Turns the scores [first, end) of query i, counted from the split at `split`, to weights of V's
 * elements; leaves m and l. */
V_TARGET static void V(weights)(const struct kn_attn *a, struct attn_queries *g, int i,
                                uint32_t split, int first, int end)
{
    int kv_head = g->head / (a->n_heads / a->kv.n_kv_heads);
    VF low = V(set1)(-INFINITY), zero = V(set1)(0.0f);
    VF max = low, sum = zero;
    int start = first / 16 * 16;

    for (int j = start; j < end; j += 16) {
        max = V(max)(V(between)(V(load)(g->score[i] + j), first - j, end - j, low), max);
    }
    float m = V(fold_max)(max) + 0.0f;
    for (int j = start; j < end; j += 16) {
        VF e = V(exp)(V(sub)(V(load)(g->score[i] + j), V(set1)(m)));
        VF weight = e;
        if (a->kv.type == KN_KV_INT8) {
            const void *page = attn_page(a, split + (uint32_t)j, kv_head);
            weight = V(mul)(e, V(load)(attn_scales(page, a->kv.head_dim) + KN_PAGE_TOKENS));
        }
        V(store)(g->score[i] + j, weight);
        sum = V(add)(sum, V(between)(e, first - j, end - j, zero));
    }
    g->m[i] = m;
    g->l[i] = V(fold)(sum);
}

/* ---- weighted sum of V ---------------------------------------------------------------------- */

/* o += weights · V over positions [first, end) for queries i … i + n - 1 and elements d … of the
 * head: `chunks` vectors of them. type, n and chunks are constants where this is inlined. */
V_INLINE void V(sum_chunk)(enum kn_kv_type type, int n, int chunks, const struct kn_attn *a,
                           struct attn_queries *g, int i, int d, uint32_t first, uint32_t end)
{
    int hd = a->kv.head_dim;
    int kv_head = g->head / (a->n_heads / a->kv.n_kv_heads);
    VF acc[16];

    for (int x = 0; x < n * chunks; x++) {
        acc[x] = V(load)(g->o[i + x / chunks] + d + x % chunks * 16);
    }
    for (uint32_t j = first; j < end;) {
        const void *page = attn_page(a, j, kv_head); /* K, then V (16, head_dim) */
        uint32_t page_end = (j / KN_PAGE_TOKENS + 1) * KN_PAGE_TOKENS;
        page_end = page_end < end ? page_end : end;
        for (; j < page_end; j++) {
            int64_t row = (int64_t)(KN_PAGE_TOKENS + j % KN_PAGE_TOKENS) * hd + d;
            for (int c = 0; c < chunks; c++) {
                VF value = V(load_kv)(type, page, row + 16 * c, hd - d - 16 * c);
                for (int x = 0; x < n; x++) {
                    VF weight = V(set1)(g->score[i + x][j % KN_ATTN_SPLIT]);
                    acc[x * chunks + c] = V(fma)(weight, value, acc[x * chunks + c]);
                }
            }
        }
    }
    for (int x = 0; x < n * chunks; x++) {
        V(store)(g->o[i + x / chunks] + d + x % chunks * 16, acc[x]);
    }
}

/* The whole head, as wide as the registers allow. */
V_INLINE void V(sum_head)(enum kn_kv_type type, int n, const struct kn_attn *a,
                          struct attn_queries *g, int i, uint32_t first, uint32_t end)
{
    const int wide = SUMS / n >= 4 ? 4 : SUMS / n >= 2 ? 2 : 1;
    int d = 0;

    for (; d + 16 * wide <= a->kv.head_dim; d += 16 * wide) {
        V(sum_chunk)(type, n, wide, a, g, i, d, first, end);
    }
    for (; d < a->kv.head_dim; d += 16) {
        V(sum_chunk)(type, n, 1, a, g, i, d, first, end);
    }
}

V_INLINE void V(sum_some)(enum kn_kv_type type, int n, const struct kn_attn *a,
                          struct attn_queries *g, int i, uint32_t first, uint32_t end)
{
    switch (n) {
    case 1:
        V(sum_head)(type, 1, a, g, i, first, end);
        break;
    case 2:
        V(sum_head)(type, 2, a, g, i, first, end);
        break;
    case 3:
        V(sum_head)(type, 3, a, g, i, first, end);
        break;
    case 4:
        V(sum_head)(type, 4, a, g, i, first, end);
        break;
    default:
        V(sum_head)(type, AT_ONCE, a, g, i, first, end);
    }
}

/* Queries i … i + n - 1, whose weights cover [first, end). */
V_TARGET static void V(sum_values)(const struct kn_attn *a, struct attn_queries *g, int i, int n,
                                   uint32_t first, uint32_t end)
{
    for (int some; first < end && n > 0; i += some, n -= some) {
        some = V(some_of)(n);
        if (a->kv.type == KN_KV_INT8) {
            V(sum_some)(KN_KV_INT8, some, a, g, i, first, end);
        } else {
            V(sum_some)(KN_KV_F16, some, a, g, i, first, end);
        }
    }
}

/* ---- a split, the fold ---------------------------------------------------------------------- */

struct V(range) {
    uint32_t first, end;
};

/* What row `row` of the span sees of the split that starts at `start`. */
V_INLINE struct V(range) V(visible)(const struct kn_attn *a, uint32_t row, uint32_t start)
{
    uint32_t pos = a->span.pos + row, low = attn_first(a, pos);
    struct V(range) r = {start > low ? start : low, start + KN_ATTN_SPLIT};

    if (r.end > pos + 1) {
        r.end = pos + 1;
    }
    return r;
}

/* m, l and o of all queries over the split that starts at `start`, of which every row sees
 * something. */
V_TARGET static void V(split)(const struct kn_attn *a, struct attn_queries *g, uint32_t start)
{
    struct V(range) shared = V(visible)(a, g->row + (uint32_t)g->rows - 1, start);
    struct V(range) all = V(visible)(a, g->row, start);
    uint32_t all_end = shared.end;

    shared.end = all.end; /* the last row begins last, the first one ends first */
    if (shared.first > shared.end) {
        shared.first = shared.end;
    }
    V(scores)(a, g, all.first, all_end);
    memset(g->o, 0, sizeof g->o[0] * (size_t)(g->rows * g->heads));
    for (int r = 0; r < g->rows; r++) {
        struct V(range) own = V(visible)(a, g->row + (uint32_t)r, start);
        for (int i = r * g->heads; i < (r + 1) * g->heads; i++) {
            V(weights)(a, g, i, start, (int)(own.first - start), (int)(own.end - start));
        }
        V(sum_values)(a, g, r * g->heads, g->heads, own.first, shared.first);
    }
    V(sum_values)(a, g, 0, g->rows * g->heads, shared.first, shared.end);
    for (int r = 0; r < g->rows; r++) {
        struct V(range) own = V(visible)(a, g->row + (uint32_t)r, start);
        uint32_t from = own.first > shared.end ? own.first : shared.end;
        V(sum_values)(a, g, r * g->heads, g->heads, from, own.end);
    }
}

/* Adds a split (m, l, o) to the fold (M, L, O). O has room for whole vectors. */
V_INLINE void V(fold_split)(float *M, float *L, float *O, float m, float l, const float *o, int hd)
{
    float max = m > *M ? m : *M;
    float keep = kn_exp(*M - max), add = kn_exp(m - max);
    VF keeps = V(set1)(keep), adds = V(set1)(add);

    *L = __builtin_fmaf(*L, keep, l * add);
    for (int d = 0; d < hd; d += 16) {
        VF v = V(mul)(V(loadn)(o + d, hd - d), adds);
        V(storen)(O + d, V(fma)(V(loadn)(O + d, hd - d), keeps, v), hd - d);
    }
    *M = max;
}

V_INLINE void V(divide)(float *out, const float *O, float L, int hd)
{
    for (int d = 0; d < hd; d += 16) {
        V(storen)(out + d, V(div)(V(loadn)(O + d, hd - d), V(set1)(L)), hd - d);
    }
}

/* ---- the operations ------------------------------------------------------------------------- */

/* All splits of the group's queries; rows of the group may differ in the splits they see. */
V_TARGET static void V(attend)(const struct kn_attn *a, struct attn_queries *g)
{
    int hd = a->kv.head_dim, n = g->rows * g->heads;
    float M[ATTN_QUERIES_MAX], L[ATTN_QUERIES_MAX], O[ATTN_QUERIES_MAX][ATTN_HEAD_DIM_MAX];
    uint32_t pos = a->span.pos + g->row;
    uint32_t first = attn_first(a, pos) / KN_ATTN_SPLIT, last = pos / KN_ATTN_SPLIT;

    for (uint32_t s = first; s <= last; s++) {
        V(split)(a, g, s * KN_ATTN_SPLIT);
        for (int i = 0; i < n; i++) {
            if (s == first) {
                M[i] = g->m[i];
                L[i] = g->l[i];
                memcpy(O[i], g->o[i], (size_t)hd * sizeof(float));
            } else {
                V(fold_split)(&M[i], &L[i], O[i], g->m[i], g->l[i], g->o[i], hd);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        float *out = a->out + (int64_t)(g->row + (uint32_t)(i / g->heads)) * a->ldo;
        V(divide)(out + (int64_t)(g->head + i % g->heads) * hd, O[i], L[i], hd);
    }
}

/* How many rows from `row` on can be one group: they see the same splits. */
V_INLINE int V(rows_together)(const struct kn_attn *a, uint32_t row, uint32_t row_end, int heads)
{
    uint32_t pos = a->span.pos + row;
    int n = 1;

    while (row + (uint32_t)n < row_end && (n + 1) * heads <= QUERIES) {
        uint32_t next = pos + (uint32_t)n;
        if (next / KN_ATTN_SPLIT != pos / KN_ATTN_SPLIT ||
            attn_first(a, next) / KN_ATTN_SPLIT != attn_first(a, pos) / KN_ATTN_SPLIT) {
            break;
        }
        n++;
    }
    return n;
}

V_TARGET void V(kn_attention)(const struct kn_attn *a, uint32_t row_begin, uint32_t row_end,
                              int head_begin, int head_end)
{
    int group = a->n_heads / a->kv.n_kv_heads;
    struct attn_queries g;

    for (int h = head_begin * group; h < head_end * group; h += g.heads) {
        int left = group - h % group;
        g.head = h;
        g.heads = left < QUERIES ? left : QUERIES;
        for (uint32_t row = row_begin; row < row_end; row += (uint32_t)g.rows) {
            g.row = row;
            g.rows = V(rows_together)(a, row, row_end, g.heads);
            V(attend)(a, &g);
        }
    }
}

V_TARGET void V(kn_attention_part)(const struct kn_attn *a, uint32_t row, int head_begin,
                                   int head_end, uint32_t split_begin, uint32_t split_end,
                                   float *part)
{
    uint32_t pos = a->span.pos + row;
    uint32_t low = attn_first(a, pos) / KN_ATTN_SPLIT, last = pos / KN_ATTN_SPLIT;
    int group = a->n_heads / a->kv.n_kv_heads;
    struct attn_queries g;

    g.row = row;
    g.rows = 1;
    for (int h = head_begin * group; h < head_end * group; h += g.heads) {
        int left = group - h % group;
        g.head = h;
        g.heads = left < QUERIES ? left : QUERIES;
        for (uint32_t s = split_begin; s < split_end; s++) {
            if (s < low || s > last) {
                continue;
            }
            V(split)(a, &g, s * KN_ATTN_SPLIT);
            for (int i = 0; i < g.heads; i++) {
                float *to = part + attn_part_at(a, pos, h + i, s);
                to[0] = g.m[i];
                to[1] = g.l[i];
                memcpy(to + 2, g.o[i], (size_t)a->kv.head_dim * sizeof(float));
            }
        }
    }
}

V_TARGET void V(kn_attention_merge)(const struct kn_attn *a, uint32_t row, int head_begin,
                                    int head_end, const float *part)
{
    uint32_t pos = a->span.pos + row;
    uint32_t first = attn_first(a, pos) / KN_ATTN_SPLIT;
    int hd = a->kv.head_dim;
    int group = a->n_heads / a->kv.n_kv_heads;

    for (int h = head_begin * group; h < head_end * group; h++) {
        const float *p = part + attn_part_at(a, pos, h, first);
        float M = p[0], L = p[1], O[ATTN_HEAD_DIM_MAX];
        memcpy(O, p + 2, (size_t)hd * sizeof(float));
        for (uint32_t s = first + 1; s <= pos / KN_ATTN_SPLIT; s++) {
            p = part + attn_part_at(a, pos, h, s);
            V(fold_split)(&M, &L, O, p[0], p[1], p + 2, hd);
        }
        V(divide)(a->out + row * a->ldo + (int64_t)h * hd, O, L, hd);
    }
}

#undef QUERIES
#undef AT_ONCE
#undef SUMS

/* vector.h: rope in sixteen lanes, as lanes.h says. */

V_INLINE void V(turn)(VF *x0, VF *x1, VF c, VF s)
{
    VF minus = V(floats)(V(ixor)(V(bits)(V(mul)(*x1, s)), V(iset1)(INT32_MIN)));
    VF a = V(fma)(*x0, c, minus);

    *x1 = V(fma)(*x0, s, V(mul)(*x1, c));
    *x0 = a;
}

/* One head (head_dim): the first 2 * half elements turn. */
V_INLINE void V(rotate)(float *x, const float *cos, const float *sin, int half, enum kn_rope kind)
{
    for (int i = 0; i < half; i += 16) {
        int n = half - i;
        VF c = V(loadn)(cos + i, n), s = V(loadn)(sin + i, n);
        if (kind == KN_ROPE_NEOX) {
            VF x0 = V(loadn)(x + i, n), x1 = V(loadn)(x + half + i, n);
            V(turn)(&x0, &x1, c, s);
            V(storen)(x + i, x0, n);
            V(storen)(x + half + i, x1, n);
        } else {
            VF a = V(loadn)(x + 2 * i, 2 * n), b = V(set1)(0.0f), x0, x1;
            if (2 * n > 16) {
                b = V(loadn)(x + 2 * i + 16, 2 * n - 16);
            }
            V(unzip)(a, b, &x0, &x1);
            V(turn)(&x0, &x1, c, s);
            V(zip)(x0, x1, &a, &b);
            V(storen)(x + 2 * i, a, 2 * n);
            if (2 * n > 16) {
                V(storen)(x + 2 * i + 16, b, 2 * n - 16);
            }
        }
    }
}

/* k and v of one head (head_dim) to their slot of the page. */
V_INLINE void V(put_kv)(const float *k, const float *v, uint16_t *page_k, int hd, uint32_t slot)
{
    uint16_t *page_v = page_k + hd * KN_PAGE_TOKENS + (int64_t)slot * hd;

    for (int d = 0; d < hd; d += 16) {
        uint16_t column[16];
        int n = hd - d < 16 ? 8 : 16;
        V(storeh)(column, V(loadn)(k + d, n), n);
        for (int i = 0; i < n; i++) {
            page_k[(d + i) * KN_PAGE_TOKENS + slot] = column[i];
        }
        V(storeh)(page_v + d, V(loadn)(v + d, n), n);
    }
}

/* The scale of a head (head_dim), and in *inverse what its elements are multiplied with. */
V_INLINE float V(head_scale)(const float *x, int hd, float *inverse)
{
    VI absolute = V(iset1)(INT32_MAX), most = V(iset1)(0);

    for (int d = 0; d < hd; d += 16) {
        most = V(imax)(most, V(iand)(V(bits)(V(loadn)(x + d, hd - d)), absolute));
    }
    int32_t bits = V(ifold_max)(most);
    float amax = kn_float((uint32_t)bits);
    *inverse = 0.0f;
    if (bits >= QUANTIZE_INF_BITS) {
        return kn_float(QUANTIZE_NAN_BITS);
    }
    if (amax < QUANTIZE_TINY) {
        return 0.0f;
    }
    *inverse = 127.0f / amax;
    return amax / 127.0f;
}

/* A head as int8, `stride` apart; its scale. */
V_INLINE float V(quantize_head)(const float *x, int hd, int8_t *q, int stride)
{
    float inverse, scale = V(head_scale)(x, hd, &inverse);

    for (int d = 0; d < hd; d += 16) {
        int8_t some[16] = {0};
        int n = hd - d < 16 ? 8 : 16;
        if (inverse > 0.0f) {
            V(store8)(some, V(ftoi)(V(mul)(V(loadn)(x + d, n), V(set1)(inverse))));
        }
        for (int i = 0; i < n; i++) {
            q[(d + i) * stride] = some[i];
        }
    }
    return scale;
}

V_INLINE void V(put_kv8)(const float *k, const float *v, int8_t *head, int hd, uint32_t slot)
{
    float *scales = (float *)(void *)(head + 2 * hd * KN_PAGE_TOKENS);

    scales[slot] = V(quantize_head)(k, hd, head + slot, KN_PAGE_TOKENS);
    scales[KN_PAGE_TOKENS + slot] =
        V(quantize_head)(v, hd, head + (int64_t)(KN_PAGE_TOKENS + slot) * hd, 1);
}

V_TARGET void V(kn_rope_kv)(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,
                            const struct kn_span *span, const struct kn_rope_table *table,
                            enum kn_rope kind)
{
    int hd = kv->head_dim, half = table->dim / 2;

    for (uint32_t r = 0; r < span->rows; r++) {
        uint32_t pos = span->pos + r;
        uint16_t *page = kv->pages + span->page_table[pos / KN_PAGE_TOKENS] * kv->page_stride;
        float *head = qkv + r * ld; /* (n_heads + 2 n_kv_heads, head_dim) */

        for (int h = 0; h < n_heads + kv->n_kv_heads; h++) {
            V(rotate)
            (head + (int64_t)h * hd, table->cos + (int64_t)pos * half,
             table->sin + (int64_t)pos * half, half, kind);
        }
        for (int h = 0; h < kv->n_kv_heads; h++) {
            const float *k = head + (int64_t)(n_heads + h) * hd;
            const float *v = k + (int64_t)kv->n_kv_heads * hd;
            uint16_t *page_head = page + h * kn_kv_page_elems(kv->type, 1, hd);
            if (kv->type == KN_KV_INT8) {
                V(put_kv8)(k, v, (int8_t *)page_head, hd, pos % KN_PAGE_TOKENS);
            } else {
                V(put_kv)(k, v, page_head, hd, pos % KN_PAGE_TOKENS);
            }
        }
    }
}

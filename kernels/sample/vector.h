/* vector.h: the passes of sample in sixteen lanes, as lanes.h says. */

V_TARGET static float V(clean)(float *l, uint32_t n)
{
    VF low = V(set1)(-INFINITY), high = V(set1)(FLT_MAX), max = low;

    for (uint32_t i = 0; i < n; i += 16) {
        int64_t left = (int64_t)n - i;
        VF v = V(min)(V(max)(V(loadn)(l + i, left), low), high); /* max gives -inf for NaN */
        V(storen)(l + i, v, left);
        max = V(max)(V(select)(V(first)(left), v, low), max);
    }
    return V(fold_max)(max) + 0.0f;
}

/* Masses of z in lanes, in [0, 2^40]. */
V_INLINE void V(mass16)(VF z, int64_t mass[16])
{
    float m[16];

    V(store)(m, V(mul)(V(exp)(z), V(set1)(SAMPLE_MASS_ONE)));
    for (int i = 0; i < 16; i++) {
        mass[i] = (int64_t)m[i];
    }
}

V_TARGET static uint64_t V(total)(const float *l, uint32_t n, float max)
{
    int64_t sum[16] = {0};
    uint64_t total = 0;

    for (uint32_t i = 0; i < n; i += 16) {
        int64_t left = (int64_t)n - i, mass[16];
        VF v = V(select)(V(first)(left), V(loadn)(l + i, left), V(set1)(-INFINITY));
        V(mass16)(V(sub)(v, V(set1)(max)), mass);
        for (int j = 0; j < 16; j++) {
            sum[j] += mass[j];
        }
    }
    for (int j = 0; j < 16; j++) {
        total += (uint64_t)sum[j];
    }
    return total;
}

V_TARGET static void V(gather)(const float *l, uint32_t n, float max, float temperature,
                               struct candidates *c)
{
    c->n = 0;
    for (uint32_t i = 0; i < n; i += 16) {
        int64_t left = (int64_t)n - i;
        float z[16];
        VF v = V(sub)(V(loadn)(l + i, left), V(set1)(max));
        v = V(add)(V(div)(v, V(set1)(temperature)), V(set1)(0.0f));
        VM in =
            V(less)(V(set1)(SAMPLE_BELOW_FLOOR), V(select)(V(first)(left), v, V(set1)(-INFINITY)));
        uint32_t bits = V(mask_bits)(in);
        V(store)(z, v);
        for (; bits != 0; bits &= bits - 1) {
            uint32_t j = (uint32_t)__builtin_ctz(bits);
            c->z[c->n] = z[j];
            c->id[c->n] = i + j;
            c->n++;
        }
    }
}

V_TARGET static void V(masses)(struct candidates *c)
{
    for (uint32_t i = 0; i < c->n; i += 16) {
        int64_t left = (int64_t)c->n - i, mass[16];
        V(mass16)(V(loadn)(c->z + i, left), mass);
        for (int j = 0; j < 16 && j < left; j++) {
            c->mass[i + (uint32_t)j] = (uint64_t)mass[j];
        }
    }
}

/* kn_philox of sixteen tokens: the word that belongs to each. */
V_INLINE VI V(random)(VI id, uint64_t seed, uint64_t position)
{
    VI c0 = V(iset1)((int32_t)position), c1 = V(iset1)((int32_t)(position >> 32));
    VI c2 = V(shr)(id, 2), c3 = V(iset1)(0), word = V(iand)(id, V(iset1)(3));
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < 10; round++) {
        VI high0, low0, high1, low1;
        V(mulhl)(c0, KN_PHILOX_M0, &high0, &low0);
        V(mulhl)(c2, KN_PHILOX_M1, &high1, &low1);
        c0 = V(ixor)(V(ixor)(high1, c1), V(iset1)((int32_t)k0));
        c1 = low1;
        c2 = V(ixor)(V(ixor)(high0, c3), V(iset1)((int32_t)k1));
        c3 = low0;
        k0 += KN_PHILOX_W0;
        k1 += KN_PHILOX_W1;
    }
    c3 = V(iselect_eq)(word, V(iset1)(2), c2, c3);
    c3 = V(iselect_eq)(word, V(iset1)(1), c1, c3);
    return V(iselect_eq)(word, V(iset1)(0), c0, c3);
}

V_TARGET static uint32_t V(gumbel)(const struct candidates *c, uint64_t seed, uint64_t position)
{
    VF best = V(set1)(-INFINITY);
    VI best_id = V(iset1)(-1), sign = V(iset1)(INT32_MIN);
    float score[16];
    uint32_t ids[16];

    for (uint32_t i = 0; i < c->n; i += 16) {
        int64_t left = (int64_t)c->n - i;
        VI id = V(iload)(c->id + i); /* the array has room for whole vectors */
        VF k = V(itof)(V(shr)(V(random)(id, seed, position), 9));
        VF u = V(mul)(V(add)(k, V(set1)(0.5f)), V(set1)(0x1p-23f));
        VF e = V(floats)(V(ixor)(V(bits)(V(log)(u)), sign));
        VF s = V(sub)(V(loadn)(c->z + i, left), V(log)(e));
        s = V(select)(V(first)(left), s, V(set1)(-INFINITY));
        VM better = V(less)(best, s);
        best = V(select)(better, s, best);
        best_id = V(bits)(V(select)(better, V(floats)(id), V(floats)(best_id)));
    }
    V(store)(score, best);
    V(istore)(ids, best_id);
    int at = 0;
    for (int j = 1; j < 16; j++) {
        if (score[j] > score[at] || (score[j] == score[at] && ids[j] < ids[at])) {
            at = j;
        }
    }
    return ids[at];
}

V_TARGET void V(kn_sample)(float *logits, uint32_t vocab, const struct kn_sampling *p,
                           uint64_t position, void *scratch, struct kn_sampled *out)
{
    static const struct sample_steps steps = {V(clean), V(total), V(gather), V(masses), V(gumbel)};

    kn_sample_run(&steps, logits, vocab, p, position, scratch, out);
}

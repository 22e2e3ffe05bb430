/* vector.h: softcap in sixteen lanes, as lanes.h says. */

V_TARGET void V(kn_softcap)(float *x, int64_t n, float cap)
{
    VF c = V(set1)(cap);

    for (int64_t i = 0; i < n; i += 16) {
        VF v = V(mul)(c, V(tanh)(V(div)(V(loadn)(x + i, n - i), c)));
        V(storen)(x + i, v, n - i);
    }
}

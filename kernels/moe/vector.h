/* vector.h: the weighted sum of experts in sixteen lanes, as lanes.h says. The choice of experts
 * is a few hundred comparisons a row that depend on one another: it stays as the reference has it.
 */

V_TARGET void V(kn_route)(const float *logits, int64_t ld, int64_t n, int n_experts, int n_used,
                          uint32_t *ids, float *weights)
{
    kn_route_ref(logits, ld, n, n_experts, n_used, ids, weights);
}

V_TARGET void V(kn_combine)(const float *y, const uint32_t *rows, const float *weights, int n_used,
                            int64_t d, float *x)
{
    for (int64_t c = 0; c < d; c += 16) {
        VF sum = V(set1)(0.0f);
        for (int i = 0; i < n_used; i++) {
            sum = V(fma)(V(set1)(weights[i]), V(loadn)(y + rows[i] * d + c, d - c), sum);
        }
        V(storen)(x + c, V(add)(V(loadn)(x + c, d - c), sum), d - c);
    }
}

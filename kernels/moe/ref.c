/* moe/ref.c: which experts a row takes and with what weights, and the weighted sum of what they
 * say. */
#include "kernels/numerics.h"
#include "kernels/table.h"

/* Whether logit a is taken before b. NaN comes last; of equals the one that was first stays so. */
static bool before(float a, float b)
{
    return a > b || (b != b && a == a);
}

/* The n_used best of the row in the order logit descending, id ascending. */
static void best_experts(const float *logits, int n_experts, int n_used, uint32_t *ids)
{
    int n = 0;

    for (int id = 0; id < n_experts; id++) {
        int at = n;
        while (at > 0 && before(logits[id], logits[ids[at - 1]])) {
            at--;
        }
        if (at == n_used) {
            continue;
        }
        n += n < n_used;
        for (int i = n - 1; i > at; i--) {
            ids[i] = ids[i - 1];
        }
        ids[at] = (uint32_t)id;
    }
}

static void sort_ascending(uint32_t *ids, int n)
{
    for (int i = 1; i < n; i++) {
        uint32_t id = ids[i];
        int at = i;
        for (; at > 0 && ids[at - 1] > id; at--) {
            ids[at] = ids[at - 1];
        }
        ids[at] = id;
    }
}

void kn_route_ref(const float *logits, int64_t ld, int64_t n, int n_experts, int n_used,
                  uint32_t *ids, float *weights)
{
    for (int64_t r = 0; r < n; r++, logits += ld, ids += n_used, weights += n_used) {
        best_experts(logits, n_experts, n_used, ids);
        float max = logits[ids[0]];
        float sum = 0.0f;
        sort_ascending(ids, n_used);
        for (int i = 0; i < n_used; i++) {
            weights[i] = kn_exp(logits[ids[i]] - max);
            sum = sum + weights[i];
        }
        for (int i = 0; i < n_used; i++) {
            weights[i] = weights[i] / sum;
        }
    }
}

void kn_combine_ref(const float *y, const uint32_t *rows, const float *weights, int n_used,
                    int64_t d, float *x)
{
    for (int64_t c = 0; c < d; c++) {
        float sum = 0.0f;
        for (int i = 0; i < n_used; i++) {
            sum = fmaf(weights[i], y[rows[i] * d + c], sum);
        }
        x[c] = x[c] + sum;
    }
}

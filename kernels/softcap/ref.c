/* softcap/ref.c: x = cap * tanh(x / cap), element by element, as attention caps its scores. */
#include "kernels/numerics.h"
#include "kernels/table.h"

void kn_softcap_ref(float *x, int64_t n, float cap)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = cap * kn_tanh(x[i] / cap);
    }
}

/* quantize_q8_0.c: fp32 weights to GGUF's Q8_0, for models that come in floats. NUMERICS.md,
 * section 2. Runs once a model; plain C for every machine, in a form that compilers vectorise. */
#include <math.h>

#include "kernels/kernels.h"
#include "kernels/numerics.h"

#define SCALE_MIN 0x1p-126f /* below it 1 / d could be infinite; as fp16 it is 0 anyway */
#define SCALE_END 65520.0f  /* fp16 has no finite value for it and above */

static void quantize_block(const float *x, float inverse, int8_t *q)
{
    for (int i = 0; i < KN_BLOCK; i++) {
        float v = x[i] * inverse, a = fabsf(v);
        int n = (int)a;
        n += a - (float)n >= 0.5f; /* half away from zero; a + 0.5f could round up to the next */
        q[i] = (int8_t)(v < 0 ? -n : n);
    }
}

bool kn_quantize_q8_0(const float *x, int64_t cols, void *dst)
{
    uint8_t *out = dst;

    for (int64_t c = 0; c < cols; c += KN_BLOCK, x += KN_BLOCK, out += 2 + KN_BLOCK) {
        uint32_t most = 0; /* magnitudes in the order of their patterns, NaN above all */
        for (int i = 0; i < KN_BLOCK; i++) {
            uint32_t u = kn_bits(x[i]) & 0x7fffffffu;
            most = u > most ? u : most;
        }
        float d = kn_float(most) / 127.0f;
        if (!(d < SCALE_END)) {
            return false;
        }
        uint16_t half = kn_f32_to_f16(d);
        float inverse = d < SCALE_MIN ? 0.0f : 1.0f / d;
        memcpy(out, &half, 2);
        quantize_block(x, inverse, (int8_t *)out + 2);
    }
    return true;
}

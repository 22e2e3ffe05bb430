/* fast.h: fast mode: a GPU's products by cuBLASLt over bf16 or fp8 weights and activations, whose
 * bits are nobody's promise. Off unless it is asked for.
 *
 * A model that runs so has another manifest, so that routers never mix it with exact workers.
 */
#ifndef ARGOSY_ENGINE_FAST_H
#define ARGOSY_ENGINE_FAST_H

#include "runtime/base/err.h"

struct checkpoint;
struct engine_config;
struct gpu;

enum fast_mode { FAST_OFF, FAST_BF16, FAST_FP8 };

/* "off", "bf16", "fp8": as options say it. */
const char *fast_name(enum fast_mode m);
/* Of a name that fast_name gives; others are FAST_OFF. */
enum fast_mode fast_of(const char *name);

/* Before anything is read of `file`: what it has as floats stays so. ERR_CONFIG: config.fast is not
 * served with the rest of the config, on this device, or for such a file. */
int fast_prepare(const struct engine_config *c, const struct gpu *gpu, struct checkpoint *file,
                 struct err *e);

#endif

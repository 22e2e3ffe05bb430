#include "runtime/engine/fast.h"

#include <string.h>

#include "runtime/base/check.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/gpu.h"
#include "runtime/format/checkpoint.h"

static const char *const names[] = {[FAST_OFF] = "off", [FAST_BF16] = "bf16", [FAST_FP8] = "fp8"};

const char *fast_name(enum fast_mode m)
{
    return names[m];
}

enum fast_mode fast_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return (enum fast_mode)i;
    return FAST_OFF;
}

static int refuse(const struct engine_config *c, const char *why, struct err *e)
{
    return err_set(e, ERR_CONFIG, "fast=%s: %s; fast=off serves it exactly", fast_name(c->fast),
                   why);
}

int fast_prepare(const struct engine_config *c, const struct gpu *gpu, struct checkpoint *file,
                 struct err *e)
{
    if (c->fast == FAST_OFF)
        return 0;
    if (!gpu_computes(gpu))
        return refuse(c, "there is no GPU that computes (device=cuda says why)", e);
    if (c->ranks > 1)
        return refuse(c, "several ranks (tp) are not served so", e);
    if (c->n_adapters > 0)
        return refuse(c, "adapters are not served so", e);
    if (!checkpoint_is_folder(file))
        return refuse(c, "it wants a folder of safetensors, not a GGUF file", e);
    checkpoint_keep_floats(file);
    return 0;
}

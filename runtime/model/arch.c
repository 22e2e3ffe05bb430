#include "runtime/model/arch.h"

#include <string.h>

#include "runtime/base/check.h"

static const struct arch *const arches[] = {&arch_gemma3, &arch_llama, &arch_phi3,
                                            &arch_qwen2,  &arch_qwen3, &arch_qwen3moe};

const struct arch *arch_find(const char *name, size_t n)
{
    for (size_t i = 0; i < ARRAY_LEN(arches); i++)
        if (strlen(arches[i]->name) == n && memcmp(arches[i]->name, name, n) == 0)
            return arches[i];
    return NULL;
}

const char *arch_names(void)
{
    return "gemma3, llama, phi3, qwen2, qwen3, qwen3moe";
}

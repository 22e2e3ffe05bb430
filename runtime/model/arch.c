#include "runtime/model/arch.h"

#include <string.h>

#include "runtime/base/check.h"

static const struct arch *const arches[] = {&arch_llama};

const struct arch *arch_find(const char *name, size_t n)
{
    for (size_t i = 0; i < ARRAY_LEN(arches); i++)
        if (strlen(arches[i]->name) == n && memcmp(arches[i]->name, name, n) == 0)
            return arches[i];
    return NULL;
}

const char *arch_names(void)
{
    return "llama";
}

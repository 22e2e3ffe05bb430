/* arch.h: what one architecture is: how its file is read, and its pass.
 *
 * One file an architecture, one entry in arch.c. `load` reads hyperparameters and tensors through
 * loader.h and allocates nothing of its own; `forward` is straight-line calls on a backend's
 * operations (pass.h), the same for every backend.
 */
#ifndef ARGOSY_MODEL_ARCH_H
#define ARGOSY_MODEL_ARCH_H

#include <stddef.h>

#include "runtime/base/err.h"

struct loader;
struct model;
struct pass;

struct arch {
    const char *name; /* general.architecture */
    int (*load)(struct loader *l, struct model *m, struct err *e);
    void (*forward)(const struct model *m, struct pass *p);
};

extern const struct arch arch_gemma3, arch_llama, arch_phi3, arch_qwen2, arch_qwen3, arch_qwen3moe;

/* NULL when there is none of that name (n bytes, any bytes). */
const struct arch *arch_find(const char *name, size_t n);
/* "llama, …": for the error message. */
const char *arch_names(void);

#endif

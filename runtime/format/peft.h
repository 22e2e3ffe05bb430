/* peft.h: a LoRA adapter on disk, as PEFT saves it: a folder of adapter_config.json and
 * adapter_model.safetensors.
 *
 * What the config says is checked by name: what would change the result and is not served is
 * refused (ERR_UNSUPPORTED), a field that nobody knows too, unless it asks for nothing. Which
 * matrices the adapter has is told by its tensors; whether they fit a model is for who loads them
 * (runtime/model/adapter.h). The files are not trusted.
 *
 * Immutable once open: any number of threads may read.
 */
#ifndef ARGOSY_FORMAT_PEFT_H
#define ARGOSY_FORMAT_PEFT_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/format/safetensors.h"

#define PEFT_RANK_MAX 1024u
#define PEFT_CONFIG_BYTES_MAX (1u << 20)

struct peft_config {
    uint32_t rank;
    float scale; /* lora_alpha / r, or / sqrt(r) with use_rslora: in fp64, rounded once */
};

struct peft {
    struct peft_config config;
    struct safetensors *tensors;
    /* Hex: of the manifests of both files (manifest.h). Equal ones give equal bits. */
    char sha256[65];
};

/* The folder `path`. *out is the caller's to peft_close; untouched on failure. */
int peft_open(const char *path, struct peft *out, struct err *e);
void peft_close(struct peft *p);

/* The text of adapter_config.json. */
int peft_config_read(const char *text, size_t n, struct peft_config *out, struct err *e);

#endif

/* hf_names.h: what a Hugging Face folder calls a tensor of GGUF's, and how it lies there.
 *
 * Internal to runtime/format. Any thread.
 */
#ifndef ARGOSY_FORMAT_HF_NAMES_H
#define ARGOSY_FORMAT_HF_NAMES_H

#include "runtime/format/hf_config.h"

#define HF_NAME_MAX 128

struct hf_place {
    char name[HF_NAME_MAX];
    bool apart;        /* one of several tensors that GGUF has as one */
    bool router;       /* of experts: stays in floats */
    uint32_t head_dim; /* not 0: rows of heads in the other order (checkpoint.h) */
    float plus;        /* GGUF has each value with this added */
};

/* The tensor that holds matrix `part` of GGUF's `name`. False when no such one is known. */
bool hf_name(const struct hf_layout *l, const char *name, uint32_t part, struct hf_place *out);
/* Whether a tensor of the folder may be there without use: a copy of the tied head, and the
 * frequencies that old files carry. */
bool hf_name_is_spare(const struct hf_layout *l, const char *name);

#endif

/* hf_config.h: config.json of a Hugging Face folder, told in GGUF's words.
 *
 * What a model's code reads from a GGUF file (metadata, and longrope's factors as tensors) is
 * written as such a file in memory, so that there is one vocabulary behind it. The values are
 * checked where a GGUF file's are; here it is checked that nothing is passed over that would change
 * the tokens.
 *
 * Internal to runtime/format. Thread: the one that opens.
 */
#ifndef ARGOSY_FORMAT_HF_CONFIG_H
#define ARGOSY_FORMAT_HF_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define HF_CONFIG_BYTES_MAX (1u << 20)

struct hf_family {
    const char *model_type; /* of config.json */
    const char *class_name; /* in its architectures */
    const char *arch;       /* general.architecture */
    const char *activation;
    bool permuted; /* GGUF has q and k with the pairs of a head side by side */
    bool tied;     /* unless the file says otherwise */
    bool gemma;
    bool mixtral;
};

/* What the tensors' names and layouts follow from. */
struct hf_layout {
    const struct hf_family *family;
    bool tied;         /* the head is the embedding */
    uint32_t head_dim; /* above 0 */
};

/* Appends the GGUF file to meta. ERR_UNSUPPORTED names what is not served. */
int hf_config_read(const char *json, size_t n, struct hf_layout *layout, struct buf *meta,
                   struct err *e);

#endif

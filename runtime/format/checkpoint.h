/* checkpoint.h: a model on disk: a GGUF file, or a folder of Hugging Face's files.
 *
 * A folder has config.json, tokenizer.json and model.safetensors (or shards and their index), and
 * may have generation_config.json, tokenizer_config.json and chat_template.jinja. It is told in
 * GGUF's words: metadata under GGUF's keys, tensors under GGUF's names, so that what reads a model
 * needs one vocabulary. What it has as floats is quantised by who packs it (kernels/NUMERICS.md,
 * section 2).
 *
 * Nothing in it is trusted. Everything handed out borrows from the checkpoint's mappings and lives
 * until checkpoint_close. Immutable once open: any number of threads may read.
 */
#ifndef ARGOSY_FORMAT_CHECKPOINT_H
#define ARGOSY_FORMAT_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/format/gguf.h"

struct checkpoint;

/* A folder's files beside the weights. */
enum checkpoint_doc {
    CHECKPOINT_CONFIG,
    CHECKPOINT_GENERATION_CONFIG,
    CHECKPOINT_TOKENIZER,
    CHECKPOINT_TOKENIZER_CONFIG,
    CHECKPOINT_CHAT_TEMPLATE,
    CHECKPOINT_DOCS
};

struct checkpoint_text {
    const char *s; /* NULL: not there */
    size_t n;
};

/* path: a file, or a folder. *out is the caller's to checkpoint_close; untouched on failure. */
int checkpoint_open(const char *path, struct checkpoint **out, struct err *e);
/* Over bytes that the caller keeps: a GGUF file, or a folder with its tensors in one file. */
int checkpoint_open_gguf_mem(const void *bytes, size_t n, struct checkpoint **out, struct err *e);
int checkpoint_open_folder_mem(const struct checkpoint_text docs[CHECKPOINT_DOCS],
                               const void *tensors, size_t n, struct checkpoint **out,
                               struct err *e);
/* NULL is fine. */
void checkpoint_close(struct checkpoint *c);

bool checkpoint_is_folder(const struct checkpoint *c);
/* A folder's floats are not to be quantised: for who does not want exact mode's tokens. Before
 * anything is asked of it. */
void checkpoint_keep_floats(struct checkpoint *c);
/* Whether the tensors are mapped files, whose pages may be forgotten (mapping.h). */
bool checkpoint_is_mapped(const struct checkpoint *c);
/* The metadata; of a folder it is what config.json says. */
const struct gguf *checkpoint_meta(const struct checkpoint *c);
/* s NULL where there is none; never any in a GGUF file. */
struct checkpoint_text checkpoint_doc(const struct checkpoint *c, enum checkpoint_doc which);
/* Bytes of the tensors and the metadata together: what bounds the memory of a load. */
uint64_t checkpoint_bytes(const struct checkpoint *c);

/* ---- tensors ----------------------------------------------------------------------------------
 */

/* A vector or a matrix; or, in a GGUF file, ne[2] matrices, of which data is one. */
struct checkpoint_tensor {
    const char *name;           /* as the file calls it */
    uint32_t type;              /* enum gguf_tensor_type, as it lies in the file */
    uint64_t ne[GGUF_DIMS_MAX]; /* ne[0] runs fastest */
    const void *data;           /* NULL when the type's size is not known here */
    size_t row_bytes;           /* of ne[0] elements */
    size_t index;               /* below checkpoint_tensor_count */
    bool apart;                 /* the matrices of this name are tensors of their own */
    bool quantise; /* a matrix of this one is to be quantised, where its type is a float */
    /* Not 0: the rows (of a vector, the elements) are heads of so many, and lie in the file by
     * halves: row 2i + s of a head here is row s * head_dim / 2 + i of it there. */
    uint32_t head_dim;
    float plus; /* to be added to each value of a vector */
};

/* Whether there is a tensor of GGUF's `name`. */
bool checkpoint_has(const struct checkpoint *c, const char *name);
/* Matrix `part` of it (0 of what is one matrix). ERR_FORMAT when it is not there, ERR_UNSUPPORTED
 * for a type that has no number in GGUF. */
int checkpoint_find(const struct checkpoint *c, const char *name, uint32_t part,
                    struct checkpoint_tensor *out, struct err *e);
/* The row of the file that is row `row` here. */
static inline uint64_t checkpoint_row(const struct checkpoint_tensor *t, uint64_t row)
{
    uint64_t d = t->head_dim;
    return d ? row / d * d + row % 2 * (d / 2) + row % d / 2 : row;
}

/* All tensors, to see that none was left out. */
size_t checkpoint_tensor_count(const struct checkpoint *c);
const char *checkpoint_tensor_name(const struct checkpoint *c, size_t index);
/* Whether it may be left out. */
bool checkpoint_tensor_is_spare(const struct checkpoint *c, size_t index);

/* ---- identity ---------------------------------------------------------------------------------
 */

/* The hash of everything that determines a model's tokens, as 64 hex digits and a NUL: of a GGUF
 * file manifest.h's; of a folder, manifest.h's over the text "safetensors-q8_0\n" and then, for
 * each file that is read, in the order of their names, a line of its own such hash, two spaces and
 * its name. Workers and routers with equal manifests produce and expect equal bits. Reads all files
 * once and forgets their pages. */
int checkpoint_manifest(const struct checkpoint *c, char hex[65], struct err *e);

#endif

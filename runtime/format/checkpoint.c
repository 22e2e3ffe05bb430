#include "runtime/format/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/base/mapping.h"
#include "runtime/format/hf_config.h"
#include "runtime/format/hf_names.h"
#include "runtime/format/manifest.h"
#include "runtime/format/safetensors.h"
#include "runtime/format/shown.h"

#define MANIFEST_HEAD "safetensors-q8_0\n"

static const char *const doc_names[CHECKPOINT_DOCS] = {
    [CHECKPOINT_CONFIG] = "config.json",
    [CHECKPOINT_GENERATION_CONFIG] = "generation_config.json",
    [CHECKPOINT_TOKENIZER] = "tokenizer.json",
    [CHECKPOINT_TOKENIZER_CONFIG] = "tokenizer_config.json",
    [CHECKPOINT_CHAT_TEMPLATE] = "chat_template.jinja",
};

struct checkpoint {
    struct gguf *meta; /* the file; of a folder, what config.json says, over meta_bytes */
    struct buf meta_bytes;
    struct safetensors *weights; /* NULL: a GGUF file */
    struct hf_layout layout;
    bool keeps_floats;
    struct mapping maps[CHECKPOINT_DOCS];
    struct checkpoint_text docs[CHECKPOINT_DOCS];
};

/* ---- open and close ---------------------------------------------------------------------------
 */

static struct checkpoint *create(struct err *e)
{
    struct checkpoint *c = calloc(1, sizeof(*c));
    if (c)
        buf_init(&c->meta_bytes, 0);
    else
        err_set(e, ERR_NOMEM, "no memory for a model file");
    return c;
}

static int finish(struct checkpoint *c, int rc, struct checkpoint **out)
{
    if (rc < 0)
        checkpoint_close(c);
    else
        *out = c;
    return rc;
}

static int read_config(struct checkpoint *c, struct err *e)
{
    const struct checkpoint_text *config = &c->docs[CHECKPOINT_CONFIG];
    if (!config->s)
        return err_set(e, ERR_NOT_FOUND, "config.json is missing");
    int rc = hf_config_read(config->s, config->n, &c->layout, &c->meta_bytes, e);
    return rc == 0 ? gguf_open_mem(c->meta_bytes.data, c->meta_bytes.len, &c->meta, e) : rc;
}

static int map_docs(struct checkpoint *c, const char *folder, struct err *e)
{
    struct buf path;
    int rc = 0;
    buf_init(&path, 0);
    for (int i = 0; i < CHECKPOINT_DOCS && rc == 0; i++) {
        buf_clear(&path);
        buf_addf(&path, "%s/%s", folder, doc_names[i]);
        rc = mapping_open(&c->maps[i], buf_str(&path), e);
        if (rc == ERR_NOT_FOUND && i != CHECKPOINT_CONFIG)
            rc = 0;
        c->docs[i] = (struct checkpoint_text){c->maps[i].bytes, c->maps[i].n};
    }
    buf_release(&path);
    return rc;
}

static int open_folder(struct checkpoint *c, const char *folder, struct err *e)
{
    int rc = map_docs(c, folder, e);
    if (rc == 0) {
        rc = read_config(c, e);
        if (rc < 0 && e)
            err_prefix(e, "%s", folder);
    }
    return rc == 0 ? safetensors_open(folder, &c->weights, e) : rc;
}

int checkpoint_open(const char *path, struct checkpoint **out, struct err *e)
{
    struct stat st;
    struct checkpoint *c = create(e);
    if (!c)
        return ERR_NOMEM;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    return finish(c, folder ? open_folder(c, path, e) : gguf_open(path, &c->meta, e), out);
}

int checkpoint_open_gguf_mem(const void *bytes, size_t n, struct checkpoint **out, struct err *e)
{
    struct checkpoint *c = create(e);
    return c ? finish(c, gguf_open_mem(bytes, n, &c->meta, e), out) : ERR_NOMEM;
}

int checkpoint_open_folder_mem(const struct checkpoint_text docs[CHECKPOINT_DOCS],
                               const void *tensors, size_t n, struct checkpoint **out,
                               struct err *e)
{
    struct checkpoint *c = create(e);
    if (!c)
        return ERR_NOMEM;
    memcpy(c->docs, docs, sizeof(c->docs));
    int rc = read_config(c, e);
    if (rc == 0)
        rc = safetensors_open_mem(tensors, n, &c->weights, e);
    return finish(c, rc, out);
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c)
        return;
    gguf_close(c->meta);
    safetensors_close(c->weights);
    buf_release(&c->meta_bytes);
    for (int i = 0; i < CHECKPOINT_DOCS; i++)
        mapping_release(&c->maps[i]);
    free(c);
}

bool checkpoint_is_folder(const struct checkpoint *c)
{
    return c->weights != NULL;
}

void checkpoint_keep_floats(struct checkpoint *c)
{
    c->keeps_floats = true;
}

bool checkpoint_is_mapped(const struct checkpoint *c)
{
    return c->weights ? safetensors_file_count(c->weights) > 0 : gguf_is_mapped(c->meta);
}

const struct gguf *checkpoint_meta(const struct checkpoint *c)
{
    return c->meta;
}

struct checkpoint_text checkpoint_doc(const struct checkpoint *c, enum checkpoint_doc which)
{
    return c->docs[which];
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

/* Stored tensors are counted through: those of the metadata, then those of the folder. */

static void describe_gguf(const struct checkpoint *c, const struct gguf_tensor *t,
                          struct checkpoint_tensor *out)
{
    uint32_t elems = 1, bytes = 0;
    gguf_tensor_type_size(t->type, &elems, &bytes);
    *out = (struct checkpoint_tensor){.name = t->name,
                                      .type = t->type,
                                      .row_bytes = (size_t)(t->ne[0] / elems * bytes),
                                      .index = (size_t)(t - gguf_tensor_at(c->meta, 0))};
    memcpy(out->ne, t->ne, sizeof(out->ne));
    out->data = t->data;
}

static int missing(const char *name, struct err *e)
{
    return err_set(e, ERR_FORMAT, "model: tensor '%s' is missing", name);
}

static int find_gguf(const struct checkpoint *c, const char *name, uint32_t part,
                     struct checkpoint_tensor *out, struct err *e)
{
    const struct gguf_tensor *t = gguf_find_tensor(c->meta, name);
    if (!t)
        return missing(name, e);
    describe_gguf(c, t, out);
    if (part >= out->ne[2])
        return err_set(e, ERR_FORMAT, "model: tensor '%s' has %llu matrices, wanted more", name,
                       (unsigned long long)out->ne[2]);
    if (out->data)
        out->data = (const char *)out->data + part * (size_t)out->ne[1] * out->row_bytes;
    return 0;
}

static int find_folder(const struct checkpoint *c, const char *name, uint32_t part,
                       struct checkpoint_tensor *out, struct err *e)
{
    static const uint32_t types[] = {[SAFETENSORS_F32] = GGUF_TENSOR_F32,
                                     [SAFETENSORS_F16] = GGUF_TENSOR_F16,
                                     [SAFETENSORS_BF16] = GGUF_TENSOR_BF16};
    struct hf_place place;
    if (!hf_name(&c->layout, name, part, &place))
        return missing(name, e);
    const struct safetensors_tensor *t = safetensors_find(c->weights, place.name);
    if (!t)
        return missing(place.name, e);
    *out = (struct checkpoint_tensor){.name = t->name,
                                      .index = (size_t)(gguf_tensor_count(c->meta)) +
                                               (size_t)(t - safetensors_at(c->weights, 0)),
                                      .apart = place.apart,
                                      .quantise = !place.router && !c->keeps_floats,
                                      .head_dim = place.head_dim,
                                      .plus = place.plus,
                                      .ne = {1, 1, 1, 1}};
    int rc = safetensors_data(t, &out->data, e);
    if (rc < 0)
        return rc;
    if (t->n_dims > GGUF_DIMS_MAX || t->bytes == 0)
        return err_set(e, ERR_FORMAT, "model: tensor '%s' has %u dimensions or no elements",
                       SHOWN(t->name), t->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++)
        out->ne[i] = t->shape[t->n_dims - 1 - i];
    out->type = types[t->dtype];
    out->row_bytes = (size_t)out->ne[0] * (t->dtype == SAFETENSORS_F32 ? 4 : 2);
    return 0;
}

int checkpoint_find(const struct checkpoint *c, const char *name, uint32_t part,
                    struct checkpoint_tensor *out, struct err *e)
{
    if (!c->weights || gguf_find_tensor(c->meta, name))
        return find_gguf(c, name, part, out, e);
    return find_folder(c, name, part, out, e);
}

bool checkpoint_has(const struct checkpoint *c, const char *name)
{
    struct hf_place place;
    if (gguf_find_tensor(c->meta, name))
        return true;
    /* An untied head is asked for whether it is there or not: without it there are no logits. */
    return c->weights && hf_name(&c->layout, name, 0, &place) &&
           (safetensors_find(c->weights, place.name) || strcmp(name, "output.weight") == 0);
}

size_t checkpoint_tensor_count(const struct checkpoint *c)
{
    return (size_t)gguf_tensor_count(c->meta) + (c->weights ? safetensors_count(c->weights) : 0);
}

const char *checkpoint_tensor_name(const struct checkpoint *c, size_t index)
{
    size_t n = (size_t)gguf_tensor_count(c->meta);
    return index < n ? gguf_tensor_at(c->meta, index)->name
                     : safetensors_at(c->weights, index - n)->name;
}

bool checkpoint_tensor_is_spare(const struct checkpoint *c, size_t index)
{
    return c->weights && hf_name_is_spare(&c->layout, checkpoint_tensor_name(c, index));
}

/* ---- identity ---------------------------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
    const struct safetensors_file *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* All files of a folder, sorted. *files is the caller's to free. */
static int list_files(const struct checkpoint *c, struct safetensors_file **files, size_t *n,
                      struct err *e)
{
    size_t shards = safetensors_file_count(c->weights);
    *n = 0;
    *files = calloc(shards + CHECKPOINT_DOCS, sizeof(**files));
    if (!*files)
        return err_set(e, ERR_NOMEM, "manifest: no memory");
    for (int i = 0; i < CHECKPOINT_DOCS; i++)
        if (c->docs[i].s)
            (*files)[(*n)++] = (struct safetensors_file){doc_names[i], c->docs[i].s, c->docs[i].n};
    for (size_t i = 0; i < shards; i++)
        (*files)[(*n)++] = safetensors_file_at(c->weights, i);
    qsort(*files, *n, sizeof(**files), by_name);
    return 0;
}

static int folder_manifest(const struct checkpoint *c, char hex[65], struct err *e)
{
    struct safetensors_file *files;
    struct buf lines;
    char one[65];
    size_t n;
    int rc = list_files(c, &files, &n, e);
    buf_init(&lines, 0);
    buf_adds(&lines, MANIFEST_HEAD);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = manifest_of_bytes(files[i].bytes, files[i].n, one, e);
        if (rc == 0)
            buf_addf(&lines, "%s  %s\n", one, files[i].name);
        if (checkpoint_is_mapped(c))
            mapping_forget(files[i].bytes, files[i].n);
    }
    if (rc == 0 && lines.failed)
        rc = err_set(e, ERR_NOMEM, "manifest: no memory");
    if (rc == 0)
        rc = manifest_of_bytes(lines.data, lines.len, hex, e);
    buf_release(&lines);
    free(files);
    return rc;
}

int checkpoint_manifest(const struct checkpoint *c, char hex[65], struct err *e)
{
    size_t n;
    if (c->weights)
        return folder_manifest(c, hex, e);
    const void *bytes = gguf_mapping(c->meta, &n);
    int rc = manifest_of_bytes(bytes, n, hex, e);
    if (gguf_is_mapped(c->meta))
        mapping_forget(bytes, n);
    return rc;
}

uint64_t checkpoint_bytes(const struct checkpoint *c)
{
    size_t n = 0;
    if (!c->weights) {
        gguf_mapping(c->meta, &n);
        return n;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < safetensors_count(c->weights); i++)
        sum += safetensors_at(c->weights, i)->bytes;
    return sum + c->meta_bytes.len;
}

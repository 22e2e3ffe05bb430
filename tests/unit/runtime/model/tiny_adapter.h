/* tiny_adapter.h: a LoRA adapter for a tiny_llama with random values, written as PEFT's folder.
 * What the tests bend: the config's text, one tensor's name or shape. */
#ifndef ARGOSY_TESTS_TINY_ADAPTER_H
#define ARGOSY_TESTS_TINY_ADAPTER_H

#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/buf.h"
#include "tests/unit/runtime/model/tiny_llama.h"

#define TINY_FOLDER_BYTES 64

struct tiny_adapter {
    uint32_t rank;
    bool bf16;
    bool attention_alone;
    uint64_t seed;
    const char *config;   /* NULL: a plain one with lora_alpha 16 */
    const char *renamed;  /* the first tensor is called so */
    const char *left_out; /* a tensor's name ends so: it is not there */
    bool bent;            /* the first tensor has a row more */
    bool odd_dtype;       /* the first tensor is I8 */
};

struct tiny_shape {
    const char *module;
    uint32_t rows, cols;
};

static inline void tiny_adapter_tensor(const struct tiny_adapter *a, struct buf *head,
                                       struct buf *data, struct rng *rng, const char *name,
                                       uint32_t rows, uint32_t cols)
{
    bool first = data->len == 0;
    size_t begin = data->len, n = strlen(name), end = a->left_out ? strlen(a->left_out) : 0;
    if (end > 0 && n >= end && strcmp(name + n - end, a->left_out) == 0)
        return;
    rows += first && a->bent;
    for (uint32_t i = 0; i < rows * cols; i++) {
        float v = 0.3f * ((float)rng_unit(rng) - 0.5f);
        uint32_t bits;
        memcpy(&bits, &v, sizeof(bits));
        uint16_t half = (uint16_t)(bits >> 16);
        if (first && a->odd_dtype)
            buf_addc(data, 1);
        else if (a->bf16)
            buf_add(data, &half, sizeof(half));
        else
            buf_add(data, &v, sizeof(v));
    }
    buf_addf(head, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u,%u],\"data_offsets\":[%zu,%zu]}",
             head->len > 1 ? "," : "", first && a->renamed ? a->renamed : name,
             first && a->odd_dtype ? "I8"
             : a->bf16             ? "BF16"
                                   : "F32",
             rows, cols, begin, data->len);
}

static inline void tiny_file(const char *folder, const char *name, const char *text, size_t n)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, n, f) != n)
        abort();
    fclose(f);
}

/* folder (TINY_FOLDER_BYTES) gets the path of a new folder; tiny_adapter_remove takes it away. */
static inline void tiny_adapter_folder(const struct tiny_adapter *a, const struct tiny_llama *m,
                                       char *folder)
{
    static const char config[] = "{\"peft_type\": \"LORA\", \"r\": %u, \"lora_alpha\": 16, "
                                 "\"bias\": \"none\", \"target_modules\": [\"q_proj\"]}";
    uint32_t kv = m->n_embd / m->n_heads * m->n_kv_heads;
    const struct tiny_shape shapes[] = {
        {"self_attn.q_proj", m->n_embd, m->n_embd}, {"self_attn.k_proj", kv, m->n_embd},
        {"self_attn.v_proj", kv, m->n_embd},        {"self_attn.o_proj", m->n_embd, m->n_embd},
        {"mlp.gate_proj", m->n_ff, m->n_embd},      {"mlp.up_proj", m->n_ff, m->n_embd},
        {"mlp.down_proj", m->n_embd, m->n_ff}};
    struct buf head, data, file;
    struct rng rng;
    char text[512];
    rng_init(&rng, a->seed);
    buf_init(&head, 0);
    buf_init(&data, 0);
    buf_init(&file, 0);
    buf_addc(&head, '{');
    for (uint32_t i = 0; i < m->n_layers * 7; i++) {
        const struct tiny_shape *s = &shapes[i % 7];
        char name[128];
        if (a->attention_alone && i % 7 >= 4)
            continue;
        for (int b = 0; b < 2; b++) {
            snprintf(name, sizeof(name), "base_model.model.model.layers.%u.%s.lora_%c.weight",
                     i / 7, s->module, "AB"[b]);
            tiny_adapter_tensor(a, &head, &data, &rng, name, b ? s->rows : a->rank,
                                b ? a->rank : s->cols);
        }
    }
    buf_addc(&head, '}');
    while (head.len % 8)
        buf_addc(&head, ' ');
    uint64_t n = head.len;
    buf_add(&file, &n, sizeof(n));
    buf_add(&file, head.data, head.len);
    buf_add(&file, data.data, data.len);
    snprintf(folder, TINY_FOLDER_BYTES, "%s", "/tmp/tiny_adapter_XXXXXX");
    if (!mkdtemp(folder))
        abort();
    if (a->config)
        snprintf(text, sizeof(text), "%s", a->config);
    else
        snprintf(text, sizeof(text), config, a->rank);
    tiny_file(folder, "adapter_config.json", text, strlen(text));
    tiny_file(folder, "adapter_model.safetensors", file.data, file.len);
    buf_release(&head);
    buf_release(&data);
    buf_release(&file);
}

static inline void tiny_adapter_remove(const char *folder)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/adapter_config.json", folder);
    unlink(path);
    snprintf(path, sizeof(path), "%s/adapter_model.safetensors", folder);
    unlink(path);
    rmdir(folder);
}

#endif

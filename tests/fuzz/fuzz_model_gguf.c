/* GGUF files of every architecture and kind of tokenizer, right but for a few things that the
 * fuzzer chooses: loaded, computed with and encoded with, or refused. */
#include <string.h>

#include "kernels/kernels.h"
#include "tests/fuzz/model_shapes.h"
#include "tests/fuzz/use_checkpoint.h"

#define THINGS 90u /* keys and tensors of a file, about */
#define DATA_BYTES_MAX (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

struct file {
    struct recipe *r;
    struct shape shape;
    uint32_t type; /* of matrices */
    uint64_t n_kvs, n_tensors;
    struct buf kvs, tensors, data;
};

/* ---- metadata ---------------------------------------------------------------------------------
 */

static void add(struct buf *b, const void *p, size_t n)
{
    buf_add(b, p, n);
}

static void add_u32(struct buf *b, uint32_t v)
{
    add(b, &v, sizeof(v));
}

static void add_u64(struct buf *b, uint64_t v)
{
    add(b, &v, sizeof(v));
}

static void add_str(struct buf *b, const char *s, size_t n)
{
    add_u64(b, n);
    add(b, s, n);
}

static void add_key(struct file *f, const char *key, uint32_t type)
{
    add_str(&f->kvs, key, strlen(key));
    add_u32(&f->kvs, type);
    f->n_kvs++;
}

/* A value of another type under the key. */
static void add_other_type(struct file *f, const char *key, uint32_t choice)
{
    uint32_t type = choice % 14; /* one past the last */
    static const uint32_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8, 0};
    uint64_t v = recipe_number(choice / 14);
    add_key(f, key, type);
    if (type == GGUF_ARRAY) {
        add_u32(&f->kvs, choice / 14 % 13);
        add_u64(&f->kvs, choice & 1);
        add_u64(&f->kvs, 0);
    } else if (type == GGUF_STRING) {
        add_str(&f->kvs, "yarn", 4);
    } else {
        add(&f->kvs, &v, bytes[type]);
    }
}

/* Returns whether the value itself is to be written, and how often by *times. */
static bool begin(struct file *f, const char *key, struct recipe_edit *e, int *times)
{
    *e = recipe_next(f->r);
    *times = e->action == RECIPE_TWICE ? 2 : 1;
    if (e->action == RECIPE_OTHER_TYPE)
        add_other_type(f, key, e->choice);
    return e->action != RECIPE_LEFT_OUT && e->action != RECIPE_OTHER_TYPE;
}

static void put_u64(struct file *f, const char *key, uint64_t v)
{
    struct recipe_edit e;
    int times;
    if (!begin(f, key, &e, &times))
        return;
    for (; times > 0; times--) {
        add_key(f, key, GGUF_U64);
        add_u64(&f->kvs, e.action == RECIPE_OTHER_VALUE ? recipe_number(e.choice) : v);
    }
}

static void put_f32(struct file *f, const char *key, float v)
{
    static const float others[] = {0,      -1,    1e-30f, 1e30f, 1,           0.5f,
                                   1e-45f, 3e38f, -0.0f,  2,     1.0f / 0.0f, 0.0f / 0.0f};
    struct recipe_edit e;
    int times;
    if (!begin(f, key, &e, &times))
        return;
    if (e.action == RECIPE_OTHER_VALUE)
        v = others[e.choice % ARRAY_LEN(others)];
    for (; times > 0; times--) {
        add_key(f, key, GGUF_F32);
        add(&f->kvs, &v, sizeof(v));
    }
}

static void put_str(struct file *f, const char *key, const char *v)
{
    static const char *const others[] = {"",       "llama", "gemma3", "phi3",   "qwen3moe",
                                         "gpt2",   "t5",    "yarn",   "linear", "longrope",
                                         "llama3", "none",  "qwen2"};
    struct recipe_edit e;
    int times;
    if (!begin(f, key, &e, &times))
        return;
    if (e.action == RECIPE_OTHER_VALUE)
        v = others[e.choice % ARRAY_LEN(others)];
    for (; times > 0; times--) {
        add_key(f, key, GGUF_STRING);
        add_str(&f->kvs, v, strlen(v));
    }
}

/* An array's head; with another number of elements than there will be, at times. False: it is left
 * out. */
static bool put_array(struct file *f, const char *key, uint32_t type, uint64_t n)
{
    struct recipe_edit e;
    int times;
    if (!begin(f, key, &e, &times))
        return false;
    add_key(f, key, GGUF_ARRAY);
    add_u32(&f->kvs, type);
    add_u64(&f->kvs, e.action == RECIPE_OTHER_VALUE ? recipe_number(e.choice) : n);
    return true;
}

/* ---- hyperparameters --------------------------------------------------------------------------
 */

static void put_own_u64(struct file *f, const char *key, uint64_t v)
{
    char full[96];
    snprintf(full, sizeof(full), "%s.%s", f->shape.family->arch, key);
    put_u64(f, full, v);
}

static void put_own_f32(struct file *f, const char *key, float v)
{
    char full[96];
    snprintf(full, sizeof(full), "%s.%s", f->shape.family->arch, key);
    put_f32(f, full, v);
}

static void put_rope(struct file *f)
{
    static const char *const types[] = {"none", "linear", "yarn", "longrope", "llama3"};
    uint32_t type = recipe_pick(f->r, ARRAY_LEN(types));
    char full[96];
    snprintf(full, sizeof(full), "%s.rope.scaling.type", f->shape.family->arch);
    put_own_f32(f, "rope.freq_base", 10000);
    if (type == 0)
        return;
    put_str(f, full, types[type]);
    put_own_f32(f, "rope.scaling.factor", 4);
    put_own_u64(f, "rope.scaling.original_context_length", 16);
    if (type == 2)
        put_own_f32(f, "rope.scaling.yarn_beta_fast", 32);
    if (type == 2)
        put_own_f32(f, "rope.scaling.yarn_log_multiplier", 0.1f);
    if (type == 3)
        put_own_f32(f, "rope.scaling.attn_factor", 1.2f);
    if (type == 3)
        put_own_f32(f, "rope.scaling.longrope_factor", 4);
    if (type == 4)
        put_own_f32(f, "rope.scaling.low_freq_factor", 1);
    if (type == 4)
        put_own_f32(f, "rope.scaling.high_freq_factor", 4);
}

static void put_hparams(struct file *f)
{
    const struct shape *s = &f->shape;
    put_str(f, "general.architecture", s->family->arch);
    put_own_u64(f, "block_count", s->layers);
    put_own_u64(f, "embedding_length", s->embd);
    put_own_u64(f, "feed_forward_length", s->ff);
    put_own_u64(f, "context_length", 64);
    put_own_u64(f, "attention.head_count", s->heads);
    put_own_u64(f, "attention.head_count_kv", s->kv_heads);
    put_own_u64(f, "attention.key_length", s->head_dim);
    put_own_u64(f, "attention.value_length", s->head_dim);
    put_own_f32(f, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (recipe_pick(f->r, 2))
        put_own_u64(f, "attention.sliding_window", recipe_pick(f->r, 2) ? 100 : 16);
    if (recipe_pick(f->r, 2))
        put_own_u64(f, "attention.sliding_window_pattern", 2);
    if (recipe_pick(f->r, 4) == 1)
        put_own_f32(f, "final_logit_softcapping", 30);
    if (s->experts) {
        put_own_u64(f, "expert_count", s->experts);
        put_own_u64(f, "expert_used_count", 1);
        put_own_u64(f, "expert_feed_forward_length", s->ff);
    }
    put_rope(f);
}

/* ---- tokenizer --------------------------------------------------------------------------------
 */

/* Letters, pairs of them, and special ones; SentencePiece's with its space. */
static void token_text(uint32_t id, bool sentencepiece, char out[16])
{
    static const char *const special[] = {"<unk>", "<s>", "</s>", "<|im_end|>"};
    if (id < 4)
        snprintf(out, 16, "%s", special[id]);
    else if (id < 30)
        snprintf(out, 16, "%c", 'a' + (int)id - 4);
    else if (id == 30)
        snprintf(out, 16, "%s", sentencepiece ? "\xe2\x96\x81" : "\xc4\xa0");
    else
        snprintf(out, 16, "%c%c", 'a' + (int)id - 31, 'b' + (int)id - 31);
}

static void put_tokens(struct file *f, bool sentencepiece)
{
    char text[16];
    if (put_array(f, "tokenizer.ggml.tokens", GGUF_STRING, SHAPE_VOCAB))
        for (uint32_t i = 0; i < SHAPE_VOCAB; i++) {
            token_text(i, sentencepiece, text);
            add_str(&f->kvs, text, strlen(text));
        }
    if (put_array(f, "tokenizer.ggml.token_type", GGUF_I32, SHAPE_VOCAB))
        for (uint32_t i = 0; i < SHAPE_VOCAB; i++)
            add_u32(&f->kvs, i == 0 ? TOKEN_UNKNOWN : i < 4 ? TOKEN_CONTROL : TOKEN_NORMAL);
    if (sentencepiece && put_array(f, "tokenizer.ggml.scores", GGUF_F32, SHAPE_VOCAB))
        for (uint32_t i = 0; i < SHAPE_VOCAB; i++) {
            float score = -(float)i;
            add(&f->kvs, &score, sizeof(score));
        }
    if (!sentencepiece && put_array(f, "tokenizer.ggml.merges", GGUF_STRING, 2)) {
        add_str(&f->kvs, "a b", 3);
        add_str(&f->kvs, "c d", 3);
    }
}

static void put_tokenizer(struct file *f)
{
    static const char *const models[] = {"gpt2", "llama", "t5"};
    uint32_t model = recipe_pick(f->r, ARRAY_LEN(models));
    put_str(f, "tokenizer.ggml.model", models[model]);
    if (model == 0)
        put_str(f, "tokenizer.ggml.pre", "gpt-2");
    put_tokens(f, model > 0);
    if (model > 0)
        put_u64(f, "tokenizer.ggml.unknown_token_id", 0);
    put_u64(f, "tokenizer.ggml.bos_token_id", 1);
    put_u64(f, "tokenizer.ggml.eos_token_id", 2);
    put_str(f, "tokenizer.chat_template", "{{ messages }}");
    if (model > 0 && recipe_pick(f->r, 4) == 1 &&
        put_array(f, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, 40))
        for (int i = 0; i < 40; i++)
            buf_addc(&f->kvs, (char)recipe_byte(f->r));
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static size_t tensor_bytes(uint32_t type, uint64_t elems)
{
    return (size_t)(elems / (uint64_t)kn_type_block((int)type)) * kn_type_block_bytes((int)type);
}

/* Zeros; ones where they are fp32, which norms want. */
static void put_data(struct file *f, uint32_t type, size_t bytes)
{
    char *p = buf_reserve(&f->data, bytes + 32);
    if (!p)
        return;
    memset(p, 0, bytes + 32);
    const float one = 1;
    for (size_t i = 0; type == KN_F32 && i < bytes && i < 1024; i += sizeof(one))
        memcpy(p + i, &one, sizeof(one));
    for (uint32_t i = recipe_pick(f->r, 2); i > 0 && bytes > 0; i--)
        p[recipe_u16(f->r) % bytes] = (char)recipe_byte(f->r);
    f->data.len += (bytes + 31) & ~(size_t)31;
}

static void put_tensor(void *arg, const char *name, uint32_t rows, uint32_t cols, uint32_t n)
{
    struct file *f = arg;
    struct recipe_edit e = recipe_next(f->r);
    bool is_float = rows == 0 || strstr(name, "ffn_gate_inp");
    uint32_t type = is_float ? (uint32_t)KN_F32 : f->type;
    uint64_t ne[4] = {cols, rows, n, 1}, offset = f->data.len;
    uint32_t n_dims = n ? 3 : rows ? 2 : 1;
    size_t bytes = tensor_bytes(type, (uint64_t)cols * (rows ? rows : 1) * (n ? n : 1));
    if (e.action == RECIPE_LEFT_OUT)
        return;
    if (e.action == RECIPE_OTHER_VALUE && e.choice % 2)
        offset = recipe_number(e.choice / 2);
    else if (e.action == RECIPE_OTHER_VALUE)
        ne[e.choice / 2 % n_dims] = recipe_number(e.choice / 8);
    if (e.action == RECIPE_OTHER_TYPE)
        type = e.choice % 42;
    for (int times = e.action == RECIPE_TWICE ? 2 : 1; times > 0; times--) {
        add_str(&f->tensors, name, strlen(name));
        add_u32(&f->tensors, n_dims);
        add(&f->tensors, ne, n_dims * sizeof(ne[0]));
        add_u32(&f->tensors, type);
        add_u64(&f->tensors, offset);
        f->n_tensors++;
    }
    put_data(f, type, bytes);
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static const uint32_t types[] = {KN_Q8_0, KN_F32,  KN_F16,  KN_BF16,   KN_Q4_0,
                                 KN_Q4_1, KN_Q5_0, KN_Q5_1, KN_Q2_K,   KN_Q3_K,
                                 KN_Q4_K, KN_Q5_K, KN_Q6_K, KN_IQ4_NL, KN_MXFP4};

static void assemble(struct file *f, struct buf *out)
{
    buf_adds(out, "GGUF");
    add_u32(out, 3);
    add_u64(out, f->n_tensors);
    add_u64(out, f->n_kvs);
    add(out, buf_str(&f->kvs), f->kvs.len);
    add(out, buf_str(&f->tensors), f->tensors.len);
    while (out->len % 32)
        buf_addc(out, 0);
    add(out, buf_str(&f->data), f->data.len);
    for (uint32_t i = recipe_pick(f->r, 3); i > 1 && out->len > 0; i--) {
        size_t at = (recipe_u16(f->r) | (size_t)recipe_byte(f->r) << 16) % out->len;
        out->data[at] = (char)recipe_byte(f->r);
    }
    if (recipe_pick(f->r, 16) == 15)
        out->len = (recipe_u16(f->r) | (size_t)recipe_byte(f->r) << 16) % (out->len + 1);
}

static void make(struct recipe *r, struct buf *out)
{
    struct file f = {.r = r};
    buf_init(&f.kvs, 0);
    buf_init(&f.tensors, 0);
    buf_init(&f.data, DATA_BYTES_MAX);
    uint32_t family = recipe_pick(r, SHAPE_FAMILIES);
    f.type = types[recipe_pick(r, ARRAY_LEN(types))];
    shape_choose(&f.shape, family, r, kn_type_block((int)f.type) > 32);
    put_hparams(&f);
    put_tokenizer(&f);
    shape_tensors(&f.shape, put_tensor, &f);
    assemble(&f, out);
    buf_release(&f.kvs);
    buf_release(&f.tensors);
    buf_release(&f.data);
}

static int run(const uint8_t *data, size_t n)
{
    struct recipe r;
    struct buf file;
    struct checkpoint *c = NULL;
    struct err e = {0};
    int used = 0;
    recipe_init(&r, data, n, THINGS);
    buf_init(&file, 0);
    make(&r, &file);
    if (checkpoint_open_gguf_mem(file.data, file.len, &c, &e) < 0)
        ASSERT(!c && e.code < 0 && e.msg[0]);
    else
        used = use_checkpoint(c, data, n);
    checkpoint_close(c);
    buf_release(&file);
    return used;
}

/* Without edits every family, type and tokenizer loads: or the fuzzer would look at nothing. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (uint8_t family = 0; family < SHAPE_FAMILIES; family++)
        for (uint8_t type = 0; type < ARRAY_LEN(types); type++)
            for (uint8_t rest = 0; rest < 3; rest++) {
                /* edits, family, type, layers, kv heads, tied, window, pattern, cap, rope, model */
                const uint8_t plain[] = {0, family, type, rest, rest, rest, 0, 0, 0, rest, rest};
                ASSERT(run(plain, sizeof(plain)) == (USED_LOADED | USED_TOKENIZER));
            }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    run(data, n);
    return 0;
}

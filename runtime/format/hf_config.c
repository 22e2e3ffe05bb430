#include "runtime/format/hf_config.h"

#include <math.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/format/gguf.h"
#include "runtime/format/hf_internal.h"

#define DEPTH_MAX 16
#define ALIGNMENT 32u
#define LAYERS_MAX 1024u
#define GEMMA_PATTERN 6u

/* model_type, class, architecture in GGUF, activation */
#define FAMILY(type, class, arch_name, act) \
    .model_type = (type), .class_name = (class), .arch = (arch_name), .activation = (act)

static const struct hf_family families[] = {
    {FAMILY("llama", "LlamaForCausalLM", "llama", "silu"), .permuted = true},
    {FAMILY("mistral", "MistralForCausalLM", "llama", "silu"), .permuted = true},
    {FAMILY("mixtral", "MixtralForCausalLM", "llama", "silu"), .permuted = true, .mixtral = true},
    {FAMILY("qwen2", "Qwen2ForCausalLM", "qwen2", "silu")},
    {FAMILY("qwen3", "Qwen3ForCausalLM", "qwen3", "silu")},
    {FAMILY("qwen3_moe", "Qwen3MoeForCausalLM", "qwen3moe", "silu")},
    {FAMILY("gemma3_text", "Gemma3ForCausalLM", "gemma3", "gelu_pytorch_tanh"), .tied = true,
     .gemma = true},
    {FAMILY("phi3", "Phi3ForCausalLM", "phi3", "silu")},
};

static bool is_type(const struct hf *h, const char *model_type)
{
    return strcmp(h->layout->family->model_type, model_type) == 0;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

int hf_wrong(struct hf *h, const char *key, const char *kind, struct err *e)
{
    (void)h;
    return err_set(e, ERR_FORMAT, "config.json: %s is not %s", key, kind);
}

int hf_unserved(struct hf *h, const char *what, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "config.json: %s with %s is not served",
                   h->layout->family->model_type, what);
}

bool hf_is_number(struct json_object *v)
{
    return (json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_double)) &&
           isfinite(json_object_get_double(v));
}

/* The value, or NULL when there is none; *rc says whether that is well. */
static struct json_object *look_up(struct json_object *o, const char *key, enum hf_need need,
                                   int *rc, struct err *e)
{
    struct json_object *v = NULL;
    *rc = 0;
    if (o && json_object_object_get_ex(o, key, &v) && v)
        return v;
    if (need == HF_REQUIRED)
        *rc = err_set(e, ERR_FORMAT, "config.json: %s is missing", key);
    return NULL;
}

int hf_u32(struct hf *h, struct json_object *o, const char *key, enum hf_need need, uint32_t *out,
           struct err *e)
{
    int rc;
    struct json_object *v = look_up(o, key, need, &rc, e);
    if (!v)
        return rc;
    int64_t n = json_object_get_int64(v);
    if (!json_object_is_type(v, json_type_int) || n < 0 || n > UINT32_MAX)
        return hf_wrong(h, key, "an integer from 0 to 2^32 - 1", e);
    *out = (uint32_t)n;
    return 1;
}

int hf_number(struct hf *h, struct json_object *o, const char *key, enum hf_need need, double *out,
              struct err *e)
{
    int rc;
    struct json_object *v = look_up(o, key, need, &rc, e);
    if (!v)
        return rc;
    if (!hf_is_number(v))
        return hf_wrong(h, key, "a number", e);
    *out = json_object_get_double(v);
    return 1;
}

int hf_bool(struct hf *h, struct json_object *o, const char *key, bool *out, struct err *e)
{
    int rc;
    struct json_object *v = look_up(o, key, HF_OPTIONAL, &rc, e);
    if (!v)
        return rc;
    if (!json_object_is_type(v, json_type_boolean))
        return hf_wrong(h, key, "true or false", e);
    *out = json_object_get_boolean(v);
    return 1;
}

const char *hf_string(struct json_object *o, const char *key)
{
    struct json_object *v = NULL;
    if (!o || !json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
        return NULL;
    return json_object_get_string(v);
}

struct json_object *hf_object(struct json_object *o, const char *key)
{
    struct json_object *v = NULL;
    if (!o || !json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_object))
        return NULL;
    return v;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static void add_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}

static void add_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof(v));
}

static void add_str(struct buf *b, const char *s)
{
    add_u64(b, strlen(s));
    buf_adds(b, s);
}

/* The key of a value that comes next. */
static void put_key(struct hf *h, const char *key, enum gguf_type type)
{
    const char *arch = h->layout->family->arch;
    add_u64(&h->kvs, strlen(arch) + 1 + strlen(key));
    buf_addf(&h->kvs, "%s.%s", arch, key);
    add_u32(&h->kvs, type);
    h->n_kvs++;
}

void hf_put_u32(struct hf *h, const char *key, uint32_t v)
{
    put_key(h, key, GGUF_U32);
    add_u32(&h->kvs, v);
}

void hf_put_f32(struct hf *h, const char *key, double v)
{
    float f = (float)v;
    put_key(h, key, GGUF_F32);
    buf_add(&h->kvs, &f, sizeof(f));
}

void hf_put_str(struct hf *h, const char *key, const char *v)
{
    put_key(h, key, GGUF_STRING);
    add_str(&h->kvs, v);
}

static uint64_t add_factors(struct buf *b, const char *name, const struct hf_factors *f,
                            uint64_t offset)
{
    add_str(b, name);
    add_u32(b, 1);
    add_u64(b, f->n);
    add_u32(b, GGUF_TENSOR_F32);
    add_u64(b, offset);
    return (offset + sizeof(float) * f->n + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

static void add_padding(struct buf *b, size_t start)
{
    while ((b->len - start) % ALIGNMENT && !b->failed)
        buf_addc(b, 0);
}

static int write_file(const struct hf *h, struct buf *b, struct err *e)
{
    bool factors = h->long_factors.n > 0;
    size_t start = b->len;
    buf_adds(b, "GGUF");
    add_u32(b, 3);
    add_u64(b, factors ? 2 : 0);
    add_u64(b, h->n_kvs + 1);
    add_str(b, "general.architecture");
    add_u32(b, GGUF_STRING);
    add_str(b, h->layout->family->arch);
    buf_add(b, buf_str(&h->kvs), h->kvs.len);
    if (factors) {
        uint64_t at = add_factors(b, "rope_factors_long.weight", &h->long_factors, 0);
        add_factors(b, "rope_factors_short.weight", &h->short_factors, at);
        add_padding(b, start);
        buf_add(b, h->long_factors.at, sizeof(float) * h->long_factors.n);
        add_padding(b, start);
        buf_add(b, h->short_factors.at, sizeof(float) * h->short_factors.n);
    }
    return b->failed || h->kvs.failed ? err_set(e, ERR_NOMEM, "config.json: no memory") : 0;
}

/* ---- what the file says -----------------------------------------------------------------------
 */

/* A number that has another name in GGUF. */
struct renamed {
    const char *from, *to;
};

static int copy_u32s(struct hf *h, const struct renamed *names, size_t n, struct err *e)
{
    uint32_t v;
    int rc = 0;
    for (size_t i = 0; i < n && rc >= 0; i++) {
        rc = hf_u32(h, h->root, names[i].from, HF_REQUIRED, &v, e);
        if (rc > 0)
            hf_put_u32(h, names[i].to, v);
    }
    return rc < 0 ? rc : 0;
}

static int find_family(struct hf *h, struct err *e)
{
    const char *type = hf_string(h->root, "model_type");
    struct json_object *classes = NULL;
    if (!type)
        return hf_wrong(h, "model_type", "a string", e);
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (strcmp(families[i].model_type, type) == 0)
            h->layout->family = &families[i];
    if (!h->layout->family)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: model_type '%.40s' is not served (served: llama, mistral, "
                       "mixtral, qwen2, qwen3, qwen3_moe, gemma3_text, phi3)",
                       type);
    if (!json_object_object_get_ex(h->root, "architectures", &classes) || !classes)
        return 0;
    struct json_object *name = json_object_is_type(classes, json_type_array)
                                   ? json_object_array_get_idx(classes, 0)
                                   : NULL;
    if (!json_object_is_type(name, json_type_string) ||
        strcmp(json_object_get_string(name), h->layout->family->class_name) != 0)
        return err_set(e, ERR_UNSUPPORTED, "config.json: architectures is not [\"%s\"]",
                       h->layout->family->class_name);
    return 0;
}

static int read_sizes(struct hf *h, struct err *e)
{
    static const struct renamed sizes[] = {
        {"num_hidden_layers", "block_count"},
        {"hidden_size", "embedding_length"},
        {"intermediate_size", "feed_forward_length"},
        {"num_attention_heads", "attention.head_count"},
        {"max_position_embeddings", "context_length"},
    };
    uint32_t heads = 0, kv_heads = 0, width = 0, dim = 0;
    double eps = 0;
    bool llama = is_type(h, "llama"); /* before its second version all heads had their own */
    bool own_dim = is_type(h, "qwen3") || h->layout->family->gemma;
    int rc = copy_u32s(h, sizes, ARRAY_LEN(sizes), e);
    if (rc >= 0)
        rc = hf_number(h, h->root, "rms_norm_eps", HF_REQUIRED, &eps, e);
    if (rc >= 0)
        rc = hf_u32(h, h->root, "num_attention_heads", HF_REQUIRED, &heads, e);
    if (rc >= 0)
        rc = hf_u32(h, h->root, "hidden_size", HF_REQUIRED, &width, e);
    if (rc >= 0)
        rc = hf_u32(h, h->root, "max_position_embeddings", HF_REQUIRED, &h->context, e);
    if (rc >= 0)
        rc = hf_u32(h, h->root, "head_dim", own_dim ? HF_REQUIRED : HF_OPTIONAL, &dim, e);
    int has_dim = rc;
    if (rc >= 0)
        rc = hf_u32(h, h->root, "num_key_value_heads", llama ? HF_OPTIONAL : HF_REQUIRED, &kv_heads,
                    e);
    if (rc < 0)
        return rc;
    hf_put_f32(h, "attention.layer_norm_rms_epsilon", eps);
    if (rc > 0)
        hf_put_u32(h, "attention.head_count_kv", kv_heads);
    h->layout->head_dim = has_dim ? dim : heads ? width / heads : 0;
    if (h->layout->head_dim == 0)
        return hf_wrong(h, "head_dim", "above 0", e);
    if (has_dim) {
        hf_put_u32(h, "attention.key_length", dim);
        hf_put_u32(h, "attention.value_length", dim);
    }
    return 0;
}

/* Whether all of layer_types, where there are any, are of that kind. */
static int check_layers(struct hf *h, const char *kind, struct err *e)
{
    struct json_object *list = NULL;
    if (!json_object_object_get_ex(h->root, "layer_types", &list) || !list)
        return 0;
    if (!json_object_is_type(list, json_type_array))
        return hf_wrong(h, "layer_types", "a list", e);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *v = json_object_array_get_idx(list, i);
        if (!json_object_is_type(v, json_type_string) ||
            strcmp(json_object_get_string(v), kind) != 0)
            return hf_unserved(h, "layer_types of another kind", e);
    }
    return 0;
}

static int read_window(struct hf *h, struct err *e)
{
    bool used = !is_type(h, "qwen2") && !is_type(h, "qwen3") && !is_type(h, "qwen3_moe");
    uint32_t window = 0;
    int rc = 0;
    /* Mistral's class has a window of its own where the file has no word on it. */
    if (is_type(h, "mistral") && !json_object_object_get_ex(h->root, "sliding_window", NULL))
        return err_set(e, ERR_FORMAT, "config.json: sliding_window is missing");
    if (!used)
        rc = hf_bool(h, h->root, "use_sliding_window", &used, e);
    if (rc >= 0 && used)
        rc = hf_u32(h, h->root, "sliding_window",
                    h->layout->family->gemma ? HF_REQUIRED : HF_OPTIONAL, &window, e);
    if (rc < 0)
        return rc;
    if (window > 0)
        hf_put_u32(h, "attention.sliding_window", window);
    if (h->layout->family->gemma)
        return 0;
    return check_layers(h, window > 0 ? "sliding_attention" : "full_attention", e);
}

static int read_experts(struct hf *h, struct err *e)
{
    static const struct renamed used[] = {{"num_experts_per_tok", "expert_used_count"}};
    static const struct renamed width[] = {{"moe_intermediate_size", "expert_feed_forward_length"}};
    struct json_object *dense = NULL;
    bool qwen = is_type(h, "qwen3_moe"), normed = false;
    uint32_t n = 0, step = 1;
    if (!qwen && !h->layout->family->mixtral)
        return 0;
    int rc = hf_u32(h, h->root, "num_experts", HF_OPTIONAL, &n, e);
    if (rc == 0)
        rc = hf_u32(h, h->root, "num_local_experts", HF_REQUIRED, &n, e);
    if (rc < 0)
        return rc;
    hf_put_u32(h, "expert_count", n);
    rc = copy_u32s(h, used, 1, e);
    if (rc < 0 || !qwen)
        return rc;
    rc = copy_u32s(h, width, 1, e);
    if (rc >= 0)
        rc = hf_bool(h, h->root, "norm_topk_prob", &normed, e);
    if (rc >= 0)
        rc = hf_u32(h, h->root, "decoder_sparse_step", HF_OPTIONAL, &step, e);
    if (rc < 0)
        return rc;
    json_object_object_get_ex(h->root, "mlp_only_layers", &dense);
    if (!normed)
        return hf_unserved(h, "norm_topk_prob false", e);
    if (step != 1 || (dense && (!json_object_is_type(dense, json_type_array) ||
                                json_object_array_length(dense) > 0)))
        return hf_unserved(h, "layers without experts", e);
    return 0;
}

/* layer_types as a list of whether a layer is local. */
static int put_pattern(struct hf *h, struct json_object *list, struct err *e)
{
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
    if (n == 0 || n > LAYERS_MAX)
        return hf_wrong(h, "layer_types", "a list of the layers", e);
    put_key(h, "attention.sliding_window_pattern", GGUF_ARRAY);
    add_u32(&h->kvs, GGUF_BOOL);
    add_u64(&h->kvs, n);
    for (size_t i = 0; i < n; i++) {
        struct json_object *v = json_object_array_get_idx(list, i);
        const char *kind =
            json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
        bool local = strcmp(kind, "sliding_attention") == 0;
        if (!local && strcmp(kind, "full_attention") != 0)
            return hf_unserved(h, "layer_types of another kind", e);
        buf_addc(&h->kvs, local);
    }
    return 0;
}

static int read_gemma(struct hf *h, struct err *e)
{
    struct json_object *types = NULL;
    double cap = 0, scalar = 0;
    uint32_t every = GEMMA_PATTERN;
    bool both_ways = false;
    int rc = hf_number(h, h->root, "query_pre_attn_scalar", HF_REQUIRED, &scalar, e);
    if (rc >= 0)
        rc = hf_bool(h, h->root, "use_bidirectional_attention", &both_ways, e);
    if (rc >= 0 && both_ways)
        return hf_unserved(h, "use_bidirectional_attention", e);
    /* Rounded as the architecture does where it is the width of a head, else as converters do. */
    bool usual = scalar == (double)h->layout->head_dim;
    if (rc >= 0)
        hf_put_f32(h, "attention.scale",
                   usual ? (double)(1.0f / sqrtf((float)scalar)) : 1 / sqrt(scalar));
    if (rc >= 0)
        rc = hf_number(h, h->root, "attn_logit_softcapping", HF_OPTIONAL, &cap, e);
    if (rc > 0)
        hf_put_f32(h, "attn_logit_softcapping", cap);
    if (rc >= 0)
        rc = hf_number(h, h->root, "final_logit_softcapping", HF_OPTIONAL, &cap, e);
    if (rc > 0)
        hf_put_f32(h, "final_logit_softcapping", cap);
    if (rc >= 0 && json_object_object_get_ex(h->root, "layer_types", &types) && types)
        return put_pattern(h, types, e);
    if (rc >= 0)
        rc = hf_u32(h, h->root, "sliding_window_pattern", HF_OPTIONAL, &every, e);
    if (rc >= 0)
        hf_put_u32(h, "attention.sliding_window_pattern", every);
    return rc < 0 ? rc : 0;
}

/* What is the same in all served models, and what is not served in any. */
static int check_rest(struct hf *h, struct err *e)
{
    static const char *const names[] = {"hidden_act", "hidden_activation"};
    struct json_object *v = NULL;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!json_object_object_get_ex(h->root, names[i], &v) || !v)
            continue;
        if (!json_object_is_type(v, json_type_string) ||
            strcmp(json_object_get_string(v), h->layout->family->activation) != 0)
            return err_set(e, ERR_UNSUPPORTED, "config.json: %s is not '%s'", names[i],
                           h->layout->family->activation);
    }
    if (json_object_object_get_ex(h->root, "quantization_config", &v) && v)
        return hf_unserved(h, "weights that are quantised already", e);
    h->layout->tied = h->layout->family->tied;
    int rc = hf_bool(h, h->root, "tie_word_embeddings", &h->layout->tied, e);
    return rc < 0 ? rc : 0;
}

static int read_all(struct hf *h, struct err *e)
{
    int rc = find_family(h, e);
    if (rc == 0)
        rc = check_rest(h, e);
    if (rc == 0)
        rc = read_sizes(h, e);
    if (rc == 0)
        rc = read_window(h, e);
    if (rc == 0)
        rc = read_experts(h, e);
    if (rc == 0 && h->layout->family->gemma)
        rc = read_gemma(h, e);
    return rc == 0 ? hf_rope_read(h, e) : rc;
}

static int parse(const char *json, size_t n, struct json_object **out, struct err *e)
{
    if (n > HF_CONFIG_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "config.json: %zu bytes; the limit is %u", n,
                       HF_CONFIG_BYTES_MAX);
    struct json_tokener *tok = json_tokener_new_ex(DEPTH_MAX);
    if (!tok)
        return err_set(e, ERR_NOMEM, "config.json: no memory");
    struct json_object *o = json_tokener_parse_ex(tok, json, (int)n);
    enum json_tokener_error fault = json_tokener_get_error(tok);
    json_tokener_free(tok);
    if (!json_object_is_type(o, json_type_object)) {
        json_object_put(o);
        return err_set(e, ERR_FORMAT, "config.json: %s",
                       o                                ? "not an object"
                       : fault == json_tokener_continue ? "the text ends too early"
                                                        : json_tokener_error_desc(fault));
    }
    *out = o;
    return 0;
}

int hf_config_read(const char *json, size_t n, struct hf_layout *layout, struct buf *meta,
                   struct err *e)
{
    struct hf h = {.layout = layout};
    *layout = (struct hf_layout){0};
    int rc = parse(json, n, &h.root, e);
    if (rc < 0)
        return rc;
    buf_init(&h.kvs, 0);
    arena_init(&h.arena, 0);
    rc = read_all(&h, e);
    if (rc == 0)
        rc = write_file(&h, meta, e);
    buf_release(&h.kvs);
    arena_release(&h.arena);
    json_object_put(h.root);
    return rc;
}

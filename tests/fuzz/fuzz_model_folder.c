/* Folders of every model_type, with a tokenizer.json of each kind, right but for a few things that
 * the fuzzer chooses: loaded, computed with and encoded with, or refused. */
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/format/hf_names.h"
#include "tests/fuzz/model_shapes.h"
#include "tests/fuzz/use_checkpoint.h"

#define THINGS 100u /* members and tensors of a folder, about */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* A JSON text of the folder, or the header of its tensors. */
struct doc {
    struct recipe *r;
    struct buf text;
    struct json json;
};

static void doc_init(struct doc *d, struct recipe *r)
{
    d->r = r;
    buf_init(&d->text, 0);
    json_init(&d->json, &d->text);
}

/* ---- members of objects -----------------------------------------------------------------------
 */

static void put_other(struct json *j, uint32_t choice)
{
    static const char *const others[] = {
        "null",
        "true",
        "false",
        "-1",
        "0.5",
        "1e400",
        "-1e308",
        "\"\"",
        "\"x\"",
        "[]",
        "{}",
        "[1,2,3]",
        "[[[]]]",
        "{\"a\":{}}",
        "1e-320",
        "\"default\"",
        "[\"full_attention\"]",
        "99999999999999999999",
        "\"\\u0000\"",
        "[null]",
        "{\"content\":\"</s>\"}",
        "\"yarn\"",
        "\"longrope\"",
        "\"llama3\"",
        "[0]",
    };
    if (choice % 3 == 0)
        json_uint(j, recipe_number(choice / 3));
    else
        json_raw(j, others[choice / 3 % ARRAY_LEN(others)],
                 strlen(others[choice / 3 % ARRAY_LEN(others)]));
}

/* key: value, value being JSON. */
static void put(struct doc *d, const char *key, const char *value)
{
    struct recipe_edit e = recipe_next(d->r);
    if (e.action == RECIPE_LEFT_OUT)
        return;
    for (int times = e.action == RECIPE_TWICE ? 2 : 1; times > 0; times--) {
        json_key(&d->json, key);
        if (e.action == RECIPE_OTHER_VALUE || e.action == RECIPE_OTHER_TYPE)
            put_other(&d->json, e.choice);
        else
            json_raw(&d->json, value, strlen(value));
    }
}

static void put_int(struct doc *d, const char *key, uint64_t v)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
    put(d, key, text);
}

static void put_str(struct doc *d, const char *key, const char *v)
{
    char text[128];
    snprintf(text, sizeof(text), "\"%s\"", v);
    put(d, key, text);
}

/* ---- config.json ------------------------------------------------------------------------------
 */

static const char *const ropes[] = {
    "{\"rope_type\":\"default\",\"rope_theta\":10000.0}",
    "{\"rope_type\":\"linear\",\"rope_theta\":10000.0,\"factor\":2.0}",
    "{\"rope_type\":\"yarn\",\"rope_theta\":1e4,\"factor\":4,\"original_max_position_embeddings\":"
    "16}",
    "{\"rope_type\":\"llama3\",\"rope_theta\":1e4,\"factor\":8,\"low_freq_factor\":1,"
    "\"high_freq_factor\":4,\"original_max_position_embeddings\":16}",
    "{\"rope_type\":\"longrope\",\"rope_theta\":1e4,\"original_max_position_embeddings\":16,"
    "\"short_factor\":[1,1,1,1,1,1,1,1],\"long_factor\":[1,2,3,4,5,6,7,8]}",
};

static void put_rope(struct doc *d, const struct shape *s)
{
    uint32_t type = recipe_pick(d->r, ARRAY_LEN(ropes));
    if (s->family->parts & SHAPE_POST_NORM) /* Gemma 3 */
        put(d, "rope_parameters",
            "{\"full_attention\":{\"rope_theta\":1e6},\"sliding_attention\":{\"rope_theta\":1e4}}");
    else
        put(d, "rope_parameters", ropes[type]);
}

static void write_config(struct doc *d, const struct shape *s)
{
    char classes[64];
    bool gemma = s->family->parts & SHAPE_POST_NORM;
    snprintf(classes, sizeof(classes), "[\"%s\"]", s->family->class_name);
    json_obj(&d->json);
    put_str(d, "model_type", s->family->model_type);
    put(d, "architectures", classes);
    put_int(d, "hidden_size", s->embd);
    put_int(d, "num_hidden_layers", s->layers);
    put_int(d, "intermediate_size", s->ff);
    put_int(d, "num_attention_heads", s->heads);
    put_int(d, "num_key_value_heads", s->kv_heads);
    put_int(d, "head_dim", s->head_dim);
    put_int(d, "max_position_embeddings", 64);
    put(d, "rms_norm_eps", "1e-05");
    put(d, "tie_word_embeddings", s->tied ? "true" : "false");
    put_str(d, gemma ? "hidden_activation" : "hidden_act", gemma ? "gelu_pytorch_tanh" : "silu");
    put(d, "sliding_window", gemma || recipe_pick(d->r, 2) ? "16" : "null");
    put(d, "eos_token_id", "[1, 2]");
    put(d, "bos_token_id", "0");
    put_rope(d, s);
    if (gemma) {
        put(d, "query_pre_attn_scalar", "16");
        put(d, "sliding_window_pattern", "2");
        put(d, "final_logit_softcapping", "30.0");
    }
    if (s->experts) {
        put_int(d, "num_local_experts", s->experts);
        put(d, "num_experts_per_tok", "1");
        put_int(d, "moe_intermediate_size", s->ff);
        put(d, "norm_topk_prob", "true");
        put(d, "mlp_only_layers", "[]");
    }
    json_obj_end(&d->json);
}

/* ---- the tokenizer's files --------------------------------------------------------------------
 */

static const char *const byte_pieces[] = {
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}",
    "{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\",\"continuing_subword_prefix\":null,"
    "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{\"<unk>\":0,"
    "\"<s>\":1,\"</s>\":2,\"a\":3,\"b\":4,\"ab\":5,\"c\":6},\"merges\":[[\"a\",\"b\"]]}",
};
static const char *const unigram_pieces[] = {
    "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"always\",\"split\":"
    "true}",
    "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0.0],[\"<s>\",0.0],[\"</s>\",0.0],"
    "[\"\\u2581\",-1.5],[\"a\",-2.0],[\"ab\",-2.5],[\"b\",-3.0]],\"byte_fallback\":false}",
};

static void write_tokenizer(struct doc *d)
{
    static const char *const normalizers[] = {"null", "{\"type\":\"NFC\"}",
                                              "{\"type\":\"Prepend\",\"prepend\":\"x\"}"};
    const char *const *pieces = recipe_pick(d->r, 2) ? unigram_pieces : byte_pieces;
    json_obj(&d->json);
    put_str(d, "version", "1.0");
    put(d, "truncation", "null");
    put(d, "padding", "null");
    put(d, "added_tokens",
        "[{\"id\":1,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
        "\"normalized\":false,\"special\":true},{\"id\":2,\"content\":\"</"
        "s>\",\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}]");
    put(d, "normalizer", normalizers[recipe_pick(d->r, ARRAY_LEN(normalizers))]);
    put(d, "pre_tokenizer", pieces[0]);
    put(d, "post_processor", "null");
    put(d, "decoder", pieces[0]);
    put(d, "model", pieces[1]);
    json_obj_end(&d->json);
}

static void write_tokenizer_config(struct doc *d)
{
    json_obj(&d->json);
    put_str(d, "bos_token", "<s>");
    put(d, "eos_token", "{\"content\":\"</s>\"}");
    put(d, "chat_template", "[{\"name\":\"default\",\"template\":\"{{ messages }}\"}]");
    json_obj_end(&d->json);
}

static void write_generation_config(struct doc *d)
{
    json_obj(&d->json);
    put(d, "eos_token_id", "[2, 1]");
    put(d, "bos_token_id", "1");
    json_obj_end(&d->json);
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

struct tensors {
    struct doc header;
    struct hf_layout layout;
    struct buf data;
    uint32_t type; /* of matrices: a number of `dtypes` */
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I8", 1}, {"F8_E4M3", 1}, {"F64", 8}, {"", 4}};

static void put_stored(struct tensors *t, const char *name, uint32_t rows, uint32_t cols)
{
    struct recipe_edit e = recipe_next(t->header.r);
    uint32_t type = e.action == RECIPE_OTHER_TYPE ? e.choice % ARRAY_LEN(dtypes) : t->type;
    size_t bytes = dtypes[type].bytes * cols * (rows ? rows : 1), begin = t->data.len;
    char value[200];
    unsigned long long wide = cols, end = begin + bytes;
    if (e.action == RECIPE_LEFT_OUT)
        return;
    if (e.action == RECIPE_OTHER_VALUE)
        *(e.choice % 2 ? &end : &wide) = recipe_number(e.choice / 2);
    char *p = buf_reserve(&t->data, bytes);
    if (!p)
        return;
    memset(p, 0, bytes);
    for (uint32_t i = recipe_pick(t->header.r, 2); i > 0; i--)
        p[recipe_u16(t->header.r) % bytes] = (char)recipe_byte(t->header.r);
    t->data.len += bytes;
    snprintf(value, sizeof(value),
             rows ? "{\"dtype\":\"%s\",\"shape\":[%u,%llu],\"data_offsets\":[%zu,%llu]}"
                  : "{\"dtype\":\"%s\",\"shape\":[%.0u%llu],\"data_offsets\":[%zu,%llu]}",
             dtypes[type].name, rows, wide, begin, end);
    for (int times = e.action == RECIPE_TWICE ? 2 : 1; times > 0; times--) {
        json_key(&t->header.json, name);
        json_raw(&t->header.json, value, strlen(value));
    }
}

static void put_tensor(void *arg, const char *name, uint32_t rows, uint32_t cols, uint32_t n)
{
    struct tensors *t = arg;
    struct hf_place place;
    for (uint32_t i = 0; i < (n ? n : 1); i++)
        if (hf_name(&t->layout, name, i, &place))
            put_stored(t, place.name, rows, cols);
}

static void write_tensors(struct recipe *r, const struct shape *s, const struct hf_layout *layout,
                          struct buf *out)
{
    struct tensors t = {.layout = *layout, .type = recipe_pick(r, 3)};
    doc_init(&t.header, r);
    buf_init(&t.data, 0);
    json_obj(&t.header.json);
    shape_tensors(s, put_tensor, &t);
    json_obj_end(&t.header.json);
    while (t.header.text.len % 8) /* tensors are aligned, as the format's writers do it */
        buf_addc(&t.header.text, ' ');
    uint64_t n = t.header.text.len;
    buf_add(out, &n, sizeof(n));
    buf_add(out, buf_str(&t.header.text), t.header.text.len);
    buf_add(out, buf_str(&t.data), t.data.len);
    buf_release(&t.header.text);
    buf_release(&t.data);
}

/* ---- the folder -------------------------------------------------------------------------------
 */

/* Changes some bytes of a text. */
static void scratch(struct recipe *r, struct buf *b)
{
    for (uint32_t i = recipe_pick(r, 4); i > 2 && b->len > 0; i--)
        b->data[recipe_u16(r) % b->len] = (char)recipe_byte(r);
}

/* The names as the right config.json gives them. */
static void right_layout(const struct shape *s, struct hf_layout *layout)
{
    struct recipe none = {0};
    struct doc config;
    struct buf meta;
    doc_init(&config, &none);
    buf_init(&meta, 0);
    write_config(&config, s);
    ASSERT(hf_config_read(buf_str(&config.text), config.text.len, layout, &meta, NULL) == 0);
    buf_release(&config.text);
    buf_release(&meta);
}

static int run(const uint8_t *data, size_t n)
{
    struct recipe r;
    struct shape shape;
    struct hf_layout layout;
    struct doc docs[CHECKPOINT_DOCS];
    struct checkpoint_text texts[CHECKPOINT_DOCS] = {0};
    struct buf tensors;
    struct checkpoint *c = NULL;
    struct err e = {0};
    int used = 0;
    recipe_init(&r, data, n, THINGS);
    shape_choose(&shape, recipe_pick(&r, SHAPE_FAMILIES), &r, false);
    right_layout(&shape, &layout);
    for (int i = 0; i < CHECKPOINT_DOCS; i++)
        doc_init(&docs[i], &r);
    write_config(&docs[CHECKPOINT_CONFIG], &shape);
    write_tokenizer(&docs[CHECKPOINT_TOKENIZER]);
    write_tokenizer_config(&docs[CHECKPOINT_TOKENIZER_CONFIG]);
    write_generation_config(&docs[CHECKPOINT_GENERATION_CONFIG]);
    buf_adds(&docs[CHECKPOINT_CHAT_TEMPLATE].text, "{{ messages }}");
    buf_init(&tensors, 0);
    write_tensors(&r, &shape, &layout, &tensors);
    for (int i = 0; i < CHECKPOINT_DOCS; i++) {
        scratch(&r, &docs[i].text);
        if (recipe_pick(&r, 16) != 15)
            texts[i] = (struct checkpoint_text){docs[i].text.data, docs[i].text.len};
    }
    scratch(&r, &tensors);
    if (checkpoint_open_folder_mem(texts, tensors.data, tensors.len, &c, &e) < 0)
        ASSERT(!c && e.code < 0 && e.msg[0]);
    else
        used = use_checkpoint(c, data, n);
    checkpoint_close(c);
    for (int i = 0; i < CHECKPOINT_DOCS; i++)
        buf_release(&docs[i].text);
    buf_release(&tensors);
    return used;
}

/* Without edits everything loads: or the fuzzer would look at nothing. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (uint8_t family = 0; family < SHAPE_FAMILIES; family++)
        for (uint8_t rest = 0; rest < 2; rest++) {
            /* edits, family, layers, kv heads, tied, window, rope, tokenizer, normaliser, dtype */
            const uint8_t plain[] = {0, family, rest, rest, rest, 0, rest, rest, rest, rest};
            ASSERT(run(plain, sizeof(plain)) == (USED_LOADED | USED_TOKENIZER));
        }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    run(data, n);
    return 0;
}

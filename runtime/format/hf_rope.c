/* hf_rope.c: how config.json says that positions turn, as GGUF's keys. Older files have rope_theta,
 * rope_scaling and its "type"; newer ones rope_parameters with everything, by kind of layer in
 * Gemma 3's. */
#include <string.h>

#include "runtime/format/hf_internal.h"

#define FACTORS_MAX 1024u

static int read_context(struct hf *h, struct json_object *r, enum hf_need need, struct err *e)
{
    const char *key = "original_max_position_embeddings";
    uint32_t context = 0;
    int found = hf_u32(h, r, key, HF_OPTIONAL, &context, e);
    if (found == 0)
        found = hf_u32(h, h->root, key, need, &context, e);
    if (found > 0)
        hf_put_u32(h, "rope.scaling.original_context_length", context);
    h->first_context = context;
    return found < 0 ? found : 0;
}

/* `to`: the key in GGUF, under the architecture. Returns whether it was there. */
static int copy_number(struct hf *h, struct json_object *r, const char *key, enum hf_need need,
                       const char *to, struct err *e)
{
    double v;
    int found = hf_number(h, r, key, need, &v, e);
    if (found > 0)
        hf_put_f32(h, to, v);
    return found;
}

static int read_yarn(struct hf *h, struct json_object *r, struct err *e)
{
    double mscale = 0, all = 0;
    bool truncate = true;
    int rc = read_context(h, r, HF_REQUIRED, e);
    if (rc >= 0)
        rc = copy_number(h, r, "factor", HF_REQUIRED, "rope.scaling.factor", e);
    if (rc >= 0)
        rc = copy_number(h, r, "beta_fast", HF_OPTIONAL, "rope.scaling.yarn_beta_fast", e);
    if (rc >= 0)
        rc = copy_number(h, r, "beta_slow", HF_OPTIONAL, "rope.scaling.yarn_beta_slow", e);
    if (rc >= 0)
        rc = copy_number(h, r, "attention_factor", HF_OPTIONAL, "rope.scaling.yarn_attn_factor", e);
    int given = rc;
    if (rc >= 0)
        rc = hf_number(h, r, "mscale", HF_OPTIONAL, &mscale, e);
    if (rc >= 0)
        rc = hf_number(h, r, "mscale_all_dim", HF_OPTIONAL, &all, e);
    if (rc >= 0)
        rc = hf_bool(h, r, "truncate", &truncate, e);
    if (rc >= 0 && !truncate)
        return hf_unserved(h, "rope_parameters.truncate false", e);
    if (rc >= 0 && given == 0 && mscale != 0 && all != 0) {
        if (mscale != all)
            return hf_unserved(h, "rope_parameters.mscale beside another mscale_all_dim", e);
        hf_put_f32(h, "rope.scaling.yarn_attn_factor", 1);
    }
    return rc < 0 ? rc : 0;
}

static int read_llama3(struct hf *h, struct json_object *r, struct err *e)
{
    int rc = read_context(h, r, HF_REQUIRED, e);
    if (rc >= 0)
        rc = copy_number(h, r, "factor", HF_REQUIRED, "rope.scaling.factor", e);
    if (rc >= 0)
        rc = copy_number(h, r, "low_freq_factor", HF_REQUIRED, "rope.scaling.low_freq_factor", e);
    if (rc >= 0)
        rc = copy_number(h, r, "high_freq_factor", HF_REQUIRED, "rope.scaling.high_freq_factor", e);
    return rc < 0 ? rc : 0;
}

static int read_factors(struct hf *h, struct json_object *r, const char *key,
                        struct hf_factors *out, struct err *e)
{
    struct json_object *list = NULL;
    if (!json_object_object_get_ex(r, key, &list) || !json_object_is_type(list, json_type_array) ||
        json_object_array_length(list) == 0 || json_object_array_length(list) > FACTORS_MAX)
        return hf_wrong(h, key, "a list of numbers", e);
    out->n = (uint32_t)json_object_array_length(list);
    out->at = arena_calloc(&h->arena, out->n, sizeof(*out->at));
    if (!out->at)
        return err_set(e, ERR_NOMEM, "config.json: no memory");
    for (uint32_t i = 0; i < out->n; i++) {
        struct json_object *v = json_object_array_get_idx(list, i);
        if (!hf_is_number(v))
            return hf_wrong(h, key, "a list of numbers", e);
        out->at[i] = (float)json_object_get_double(v);
    }
    return 0;
}

static int read_longrope(struct hf *h, struct json_object *r, struct err *e)
{
    double factor = 0;
    int rc = read_context(h, r, HF_REQUIRED, e);
    if (rc == 0)
        rc = read_factors(h, r, "long_factor", &h->long_factors, e);
    if (rc == 0)
        rc = read_factors(h, r, "short_factor", &h->short_factors, e);
    if (rc == 0)
        rc = copy_number(h, r, "attention_factor", HF_OPTIONAL, "rope.scaling.attn_factor", e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    /* Not said: it follows from how much longer the context has become. */
    rc = hf_number(h, r, "factor", HF_OPTIONAL, &factor, e);
    if (rc == 0)
        factor = h->first_context ? (double)h->context / (double)h->first_context : 1;
    if (rc >= 0)
        hf_put_f32(h, "rope.scaling.longrope_factor", factor);
    return rc < 0 ? rc : 0;
}

static int read_scaling(struct hf *h, struct json_object *r, struct err *e)
{
    const char *type = hf_string(r, "rope_type");
    if (!type)
        type = hf_string(r, "type");
    if (!type || strcmp(type, "default") == 0)
        return 0;
    bool su = strcmp(type, "su") == 0; /* longrope's first name */
    hf_put_str(h, "rope.scaling.type", su ? "longrope" : type);
    if (strcmp(type, "linear") == 0) {
        int rc = copy_number(h, r, "factor", HF_REQUIRED, "rope.scaling.factor", e);
        return rc < 0 ? rc : 0;
    }
    if (strcmp(type, "llama3") == 0)
        return read_llama3(h, r, e);
    if (strcmp(type, "yarn") == 0)
        return read_yarn(h, r, e);
    if (su || strcmp(type, "longrope") == 0)
        return read_longrope(h, r, e);
    return err_set(e, ERR_UNSUPPORTED, "config.json: rope of type '%.32s' is not served", type);
}

/* The base of what turns by r; rope_theta beside it in older files. */
static int read_base(struct hf *h, struct json_object *r, struct err *e)
{
    /* Llama before 3 did not say it. */
    bool known = strcmp(h->layout->family->model_type, "llama") == 0;
    int found = copy_number(h, r, "rope_theta", HF_OPTIONAL, "rope.freq_base", e);
    if (found == 0)
        found = copy_number(h, h->root, "rope_theta", known ? HF_OPTIONAL : HF_REQUIRED,
                            "rope.freq_base", e);
    return found < 0 ? found : 0;
}

/* Part of a head that turns. */
static int read_part(struct hf *h, struct json_object *r, struct err *e)
{
    double part = 1;
    int found = hf_number(h, r, "partial_rotary_factor", HF_OPTIONAL, &part, e);
    if (found == 0)
        found = hf_number(h, h->root, "partial_rotary_factor", HF_OPTIONAL, &part, e);
    if (found < 0)
        return found;
    if (!(part > 0 && part <= 1))
        return hf_wrong(h, "partial_rotary_factor", "above 0 and at most 1", e);
    if (part < 1)
        hf_put_u32(h, "rope.dimension_count", (uint32_t)((double)h->layout->head_dim * part));
    return 0;
}

static int read_gemma(struct hf *h, struct json_object *r, struct err *e)
{
    struct json_object *local = hf_object(r, "sliding_attention");
    struct json_object *full = hf_object(r, "full_attention");
    const char *type = local ? hf_string(local, "rope_type") : NULL;
    int rc;
    if (type && strcmp(type, "default") != 0)
        return hf_unserved(h, "a scaled rope of local layers", e);
    if (full) {
        rc = copy_number(h, local, "rope_theta", HF_REQUIRED, "rope.freq_base_swa", e);
    } else {
        rc = copy_number(h, h->root, "rope_local_base_freq", HF_REQUIRED, "rope.freq_base_swa", e);
        full = r;
    }
    if (rc >= 0)
        rc = read_base(h, full, e);
    return rc < 0 ? rc : read_scaling(h, full, e);
}

int hf_rope_read(struct hf *h, struct err *e)
{
    struct json_object *r = hf_object(h->root, "rope_parameters");
    if (!r)
        r = hf_object(h->root, "rope_scaling");
    if (h->layout->family->gemma)
        return read_gemma(h, r, e);
    int rc = read_base(h, r, e);
    if (rc == 0)
        rc = read_part(h, r, e);
    return rc < 0 ? rc : read_scaling(h, r, e);
}

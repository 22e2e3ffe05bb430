#include "runtime/model/rope.h"

#include <string.h>

#define FREQS "rope_freqs.weight"
#define FACTORS_LONG "rope_factors_long.weight"
#define FACTORS_SHORT "rope_factors_short.weight"
#define FACTOR_MIN 0x1p-20f
#define FACTOR_MAX 0x1p20f
#define BASE_MAX 0x1p60f

enum scaling { SCALING_NONE, SCALING_LINEAR, SCALING_YARN, SCALING_LLAMA3, SCALING_LONGROPE };

static bool is(const struct gguf_str *s, const char *word)
{
    return s->n == strlen(word) && memcmp(s->s, word, s->n) == 0;
}

static int load_scaling(struct loader *l, enum scaling *out, struct err *e)
{
    struct gguf_str type = {.s = "", .n = 0};
    int rc = loader_str(l, "rope.scaling.type", GGUF_OPTIONAL, &type, e);
    if (rc < 0)
        return rc;
    if (is(&type, "none"))
        *out = SCALING_NONE;
    else if (type.n == 0 || is(&type, "linear")) /* older files have a factor alone */
        *out = SCALING_LINEAR;
    else if (is(&type, "yarn"))
        *out = SCALING_YARN;
    else if (is(&type, "llama3")) /* of a folder: GGUF has the divisors as a tensor */
        *out = SCALING_LLAMA3;
    else if (is(&type, "longrope"))
        *out = SCALING_LONGROPE;
    else
        return err_set(e, ERR_UNSUPPORTED, "model: %s.rope.scaling.type '%.*s' is not served",
                       l->prefix, type.n > 32 ? 32 : (int)type.n, type.s);
    return 0;
}

static int load_factor(struct loader *l, float *factor, struct err *e)
{
    *factor = 1;
    int rc = loader_f32(l, "rope.scale_linear", GGUF_OPTIONAL, FACTOR_MIN, FACTOR_MAX, factor, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.factor", GGUF_OPTIONAL, FACTOR_MIN, FACTOR_MAX, factor, e);
    return rc;
}

/* Frequencies and magnitude. What the file leaves open is the paper's. */
static int scale_yarn(struct loader *l, float base, uint32_t context, struct model_rope *r,
                      struct err *e)
{
    float factor, fast = 32, slow = 1, ext = 1, log_mul = 0, magnitude;
    int rc = load_factor(l, &factor, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.yarn_beta_fast", GGUF_OPTIONAL, FACTOR_MIN, FACTOR_MAX,
                        &fast, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.yarn_beta_slow", GGUF_OPTIONAL, FACTOR_MIN, FACTOR_MAX,
                        &slow, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.yarn_ext_factor", GGUF_OPTIONAL, 1, 1, &ext, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.yarn_log_multiplier", GGUF_OPTIONAL, 0, 16, &log_mul, e);
    if (rc < 0)
        return rc;
    if (!(base > 1))
        return err_set(e, ERR_RANGE, "model: yarn with a base of %g", (double)base);
    const struct kn_yarn y = {.base = (double)base,
                              .factor = (double)factor,
                              .context = (double)context,
                              .beta_fast = (double)fast,
                              .beta_slow = (double)slow};
    kn_rope_yarn(&y, (int)r->dim, r->inv_freq);
    r->magnitude = kn_rope_yarn_magnitude(y.factor, 1);
    if (log_mul > 0)
        r->magnitude /= kn_rope_yarn_magnitude(y.factor, (double)log_mul);
    magnitude = (float)r->magnitude;
    if (loader_has_key(l, "rope.scaling.yarn_attn_factor")) {
        rc = loader_f32(l, "rope.scaling.yarn_attn_factor", GGUF_REQUIRED, FACTOR_MIN, FACTOR_MAX,
                        &magnitude, e);
        r->magnitude = (double)magnitude;
    }
    return rc;
}

static int scale_llama3(struct loader *l, uint32_t context, struct model_rope *r, struct err *e)
{
    float factor, low = 0, high = 0;
    int rc = load_factor(l, &factor, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.low_freq_factor", GGUF_REQUIRED, FACTOR_MIN, FACTOR_MAX,
                        &low, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.high_freq_factor", GGUF_REQUIRED, FACTOR_MIN, FACTOR_MAX,
                        &high, e);
    if (rc == 0 && !(low < high))
        rc = err_set(e, ERR_RANGE, "model: low_freq_factor %g is not below high_freq_factor %g",
                     (double)low, (double)high);
    const struct kn_llama3 scaling = {.factor = (double)factor,
                                      .context = (double)context,
                                      .low = (double)low,
                                      .high = (double)high};
    if (rc == 0)
        kn_rope_llama3(&scaling, (int)r->dim, r->inv_freq);
    return rc;
}

/* A folder says how much longer the context became; a GGUF file what follows from it, as fp32. */
static int load_longrope_magnitude(struct loader *l, uint32_t context, float *magnitude,
                                   struct err *e)
{
    float factor = 1;
    int rc = loader_f32(l, "rope.scaling.longrope_factor", GGUF_OPTIONAL, FACTOR_MIN, FACTOR_MAX,
                        &factor, e);
    if (rc == 0 && factor > 1 && context < 2)
        rc = err_set(e, ERR_RANGE, "model: longrope from a context of %u", context);
    if (rc == 0 && factor > 1)
        *magnitude = (float)kn_rope_longrope_magnitude((double)factor, (double)context);
    return rc;
}

/* Divides each frequency by its factor in the tensor. */
static int divide(struct loader *l, const char *name, bool wanted, struct model_rope *r,
                  struct err *e)
{
    const float *factors;
    int rc = loader_vector(l, name, r->dim / 2, &factors, e);
    for (uint32_t i = 0; rc == 0 && wanted && i < r->dim / 2; i++) {
        if (!(factors[i] >= FACTOR_MIN && factors[i] <= FACTOR_MAX))
            return err_set(e, ERR_RANGE, "model: %s: factor %u is %g", name, i, (double)factors[i]);
        r->inv_freq[i] /= (double)factors[i];
    }
    return rc;
}

static int divide_by_factors(struct loader *l, uint32_t context, enum scaling scaling,
                             struct model_rope *r, struct err *e)
{
    bool is_long = l->model->h.context > context;
    int rc = 0;
    if (loader_has(l, FREQS))
        rc = divide(l, FREQS, true, r, e);
    if (rc == 0 && (scaling == SCALING_LONGROPE || loader_has(l, FACTORS_LONG)))
        rc = divide(l, FACTORS_LONG, is_long, r, e);
    if (rc == 0 && (scaling == SCALING_LONGROPE || loader_has(l, FACTORS_SHORT)))
        rc = divide(l, FACTORS_SHORT, !is_long, r, e);
    return rc;
}

static int take_frequencies(struct loader *l, float base, struct model_rope *r, struct err *e)
{
    r->magnitude = 1;
    r->inv_freq = arena_calloc(&l->model->arena, r->dim / 2, sizeof(*r->inv_freq));
    if (!r->inv_freq)
        return err_set(e, ERR_NOMEM, "model: no memory for the rotation");
    kn_rope_inv_freq((double)base, (int)r->dim, r->inv_freq);
    return 0;
}

int rope_load(struct loader *l, enum kn_rope kind, struct model_rope *r, struct err *e)
{
    const struct hparams *h = &l->model->h;
    enum scaling scaling = SCALING_NONE;
    float base = 10000, factor = 1, magnitude = 1;
    uint32_t context = h->context; /* before an extension */
    *r = (struct model_rope){.kind = kind, .dim = h->head_dim};
    int rc = loader_u32(l, "rope.dimension_count", GGUF_OPTIONAL, 2, h->head_dim, &r->dim, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.freq_base", GGUF_OPTIONAL, 1, BASE_MAX, &base, e);
    if (rc == 0)
        rc = load_scaling(l, &scaling, e);
    if (rc == 0)
        rc = loader_u32(l, "rope.scaling.original_context_length", GGUF_OPTIONAL, 1,
                        MODEL_CONTEXT_MAX, &context, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.attn_factor", GGUF_OPTIONAL, FACTOR_MIN, FACTOR_MAX,
                        &magnitude, e);
    if (rc == 0 && r->dim % 2)
        rc = err_set(e, ERR_RANGE, "model: %u rotated elements: not even", r->dim);
    if (rc == 0)
        rc = take_frequencies(l, base, r, e);
    if (rc == 0 && scaling == SCALING_YARN)
        rc = scale_yarn(l, base, context, r, e);
    if (rc == 0 && scaling == SCALING_LLAMA3)
        rc = scale_llama3(l, context, r, e);
    if (rc == 0 && scaling == SCALING_LONGROPE)
        rc = load_longrope_magnitude(l, context, &magnitude, e);
    if (rc == 0 && (scaling == SCALING_LINEAR || scaling == SCALING_LONGROPE))
        rc = load_factor(l, &factor, e);
    if (rc == 0)
        rc = divide_by_factors(l, context, scaling, r, e);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < r->dim / 2; i++)
        r->inv_freq[i] /= (double)factor;
    r->magnitude *= (double)magnitude;
    return 0;
}

int rope_load_local(struct loader *l, const struct model_rope *like, const char *key, float base,
                    struct model_rope *r, struct err *e)
{
    *r = (struct model_rope){.kind = like->kind, .dim = like->dim};
    int rc = loader_f32(l, key, GGUF_OPTIONAL, 1, BASE_MAX, &base, e);
    return rc == 0 ? take_frequencies(l, base, r, e) : rc;
}

#include "router/pool/rates.h"

#include <math.h>

/* A step's weight halves after about 35 more: a second of decoding on a fast GPU, several on a
 * CPU. */
#define DECODE_KEEP 0.98
/* Per prompt token: a worker that slows down is believed after some 7,000 tokens. */
#define PREFILL_KEEP_PER_TOKEN 0.9999
/* Batches must differ by this much (variance) before a slope is read off them. */
#define BATCH_VARIANCE_MIN 0.25
/* Below it, what is left of a mixed step for prefill is noise. */
#define PREFILL_SHARE_MIN 0.05

static double decode_step_s(const struct policy_rates *known, uint32_t batch)
{
    if (known->step_base_s > 0 || known->step_seq_s > 0)
        return known->step_base_s + known->step_seq_s * batch;
    return known->decode_tokens_per_s > 0 ? batch / known->decode_tokens_per_s : -1;
}

static void add_decode(struct rates *r, double s, double batch, struct policy_rates *out)
{
    r->w = r->w * DECODE_KEEP + 1;
    r->b = r->b * DECODE_KEEP + batch;
    r->t = r->t * DECODE_KEEP + s;
    r->bb = r->bb * DECODE_KEEP + batch * batch;
    r->bt = r->bt * DECODE_KEEP + batch * s;
    out->decode_tokens_per_s = r->b / r->t;
    /* Least squares of s over batch; a flat or impossible line falls back to the mean. */
    double var = r->bb / r->w - (r->b / r->w) * (r->b / r->w);
    double cov = r->bt / r->w - (r->b / r->w) * (r->t / r->w);
    double slope = var > BATCH_VARIANCE_MIN ? cov / var : 0;
    if (slope < 0)
        slope = 0;
    double base = r->t / r->w - slope * r->b / r->w;
    out->step_base_s = base > 0 ? base : 0;
    out->step_seq_s = slope;
}

/* Tokens over seconds, of decayed sums. */
static double add_tokens(double *sum_tokens, double *sum_s, double tokens, double s)
{
    double keep = pow(PREFILL_KEEP_PER_TOKEN, tokens);
    *sum_tokens = *sum_tokens * keep + tokens;
    *sum_s = *sum_s * keep + s;
    return *sum_tokens / *sum_s;
}

void rates_add_step(struct rates *r, uint32_t duration_us, uint32_t prefill_tokens,
                    uint32_t decode_tokens, struct policy_rates *out)
{
    if (duration_us == 0)
        return;
    double s = duration_us / 1e6;
    if (prefill_tokens == 0 && decode_tokens > 0) {
        add_decode(r, s, decode_tokens, out);
    } else if (prefill_tokens > 0) {
        if (decode_tokens > 0)
            out->mixed_tokens_per_s = add_tokens(&r->mixed_tokens, &r->mixed_s, prefill_tokens, s);
        double decode_s = decode_tokens ? decode_step_s(out, decode_tokens) : 0;
        if (decode_s >= 0 && s - decode_s > s * PREFILL_SHARE_MIN)
            out->prefill_tokens_per_s =
                add_tokens(&r->prefill_tokens, &r->prefill_s, prefill_tokens, s - decode_s);
    }
}

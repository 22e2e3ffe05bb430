/* load.c: how loaded a worker is, in seconds, by its own measured rates.
 *
 *     load = (prompt tokens under way + this prompt, less what is cached) / prefill rate
 *          + (output tokens under way + this output) / decode rate
 *          + 0.15 k / (1 - k)                            k: the share of KV pages in use
 *
 * The first two terms count this request too, so that of two idle workers the faster one wins. The
 * third keeps away from workers that are about to preempt (the form and 0.15: the least_load policy
 * of smg, the SGLang model gateway).
 */
#include "router/policy/policy.h"

/* Rates of a worker that nobody has measured, when nobody has been measured at all. Only their
 * ratio matters then: prefill is so much cheaper than decoding almost everywhere. */
#define PREFILL_TOKENS_PER_S_UNKNOWN 1000.0
#define DECODE_TOKENS_PER_S_UNKNOWN 100.0
/* Of outputs that ended, the last ones count: this many, more or less. */
#define OUTPUTS_AVERAGED 64
/* A full pool is bad, not infinitely bad. */
#define KV_SHARE_MAX 0.98

struct policy_rates policy_typical_rates(const struct policy_snapshot *s)
{
    struct policy_rates sum = {0};
    uint32_t n_prefill = 0;
    uint32_t n_decode = 0;
    uint32_t n_step = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct policy_rates *r = &s->workers[i]->rates;
        sum.prefill_tokens_per_s += r->prefill_tokens_per_s;
        sum.decode_tokens_per_s += r->decode_tokens_per_s;
        sum.step_base_s += r->step_base_s;
        sum.step_seq_s += r->step_seq_s;
        n_prefill += r->prefill_tokens_per_s > 0;
        n_decode += r->decode_tokens_per_s > 0;
        n_step += r->step_base_s > 0 || r->step_seq_s > 0;
    }
    return (struct policy_rates){
        .prefill_tokens_per_s =
            n_prefill ? sum.prefill_tokens_per_s / n_prefill : PREFILL_TOKENS_PER_S_UNKNOWN,
        .decode_tokens_per_s =
            n_decode ? sum.decode_tokens_per_s / n_decode : DECODE_TOKENS_PER_S_UNKNOWN,
        .step_base_s = n_step ? sum.step_base_s / n_step : 1 / DECODE_TOKENS_PER_S_UNKNOWN,
        .step_seq_s = n_step ? sum.step_seq_s / n_step : 0,
    };
}

void policy_note_load(struct policy_worker *w, uint32_t running, uint32_t waiting)
{
    uint32_t all = running + waiting < running ? UINT32_MAX : running + waiting;
    w->running = running;
    w->waiting = waiting;
    /* Taken now: this router's own count goes on changing until the worker says more. */
    w->others = all > w->inflight ? all - w->inflight : 0;
}

void policy_note_prefill(struct policy_worker *w, uint32_t tokens)
{
    double left = (double)policy_prefill_left(w);
    double all = left + policy_others_prefill(w);
    double own = all > 0 ? tokens * left / all : 0;
    w->prefill_done_tokens += (uint64_t)(own < left ? own : left);
}

double policy_average(double average, double x)
{
    return average > 0 ? average + (x - average) / OUTPUTS_AVERAGED : x;
}

uint32_t policy_output_guess(const struct policy_snapshot *s, const struct policy_request *r)
{
    double guess = s->output_tokens > 0 ? s->output_tokens : POLICY_OUTPUT_TOKENS_GUESS;
    return r->output_tokens < guess ? r->output_tokens : (uint32_t)guess;
}

double policy_load_s(const struct policy_snapshot *s, uint32_t index,
                     const struct policy_request *r, const struct policy_rates *typical)
{
    const struct policy_worker *w = s->workers[index];
    double prefill_rate = w->rates.prefill_tokens_per_s > 0 ? w->rates.prefill_tokens_per_s
                                                            : typical->prefill_tokens_per_s;
    double decode_rate = w->rates.decode_tokens_per_s > 0 ? w->rates.decode_tokens_per_s
                                                          : typical->decode_tokens_per_s;
    double prefill = (double)policy_prefill_left(w) + policy_uncached_tokens(s, index, r);
    double decode =
        (double)w->inflight_output_tokens + (double)w->others_tokens + policy_output_guess(s, r);
    double k = w->kv_pages ? (double)w->kv_pages_used / w->kv_pages : 0;
    if (k > KV_SHARE_MAX)
        k = KV_SHARE_MAX;
    return prefill / prefill_rate + decode / decode_rate + 0.15 * k / (1 - k);
}

/* predicted.c: the worker where this request is predicted to cost the least, in seconds.
 *
 *     cost = wait for a place + (prompts before it + its own, not cached) / prefill rate + a step
 *          + OWN_WEIGHT * its own tokens' time
 *          + LOST_WEIGHT * what the streams there lose
 *          + WORK_WEIGHT * its prompt, not cached / prefill rate
 *
 * The first line is the time to the first token. Its own tokens take a step each, of one sequence
 * more than there are now. The streams there lose the time of its prompt, each, and then what one
 * sequence more adds to each step. The time of its prompt is also lost for whoever comes next.
 *
 * All rates are the worker's own, measured (router/pool/rates.h); what nobody has measured is taken
 * to be like the others'. So a fast worker gets more, a slow one what it can carry, and none is
 * named. Costs that differ by less than a thousandth are equal, and equals go by lot.
 */
#include "router/policy/policy.h"

/* Found by benchmarks/policy, on its traces; none matters much within a factor of two. A larger
 * LOST_WEIGHT makes first tokens of long prompts later and those of short ones earlier; a larger
 * WORK_WEIGHT gives more hits and the slowest first tokens later. */
#define OWN_WEIGHT 0.1
#define LOST_WEIGHT 0.03
#define WORK_WEIGHT 0.3
#define EQUAL 1.001

static double positive_or(double x, double other)
{
    return x > 0 ? x : other;
}

/* What the worker has to do, and how fast it is. */
struct view {
    double prefill_rate, mixed_rate; /* tokens/s; the second while sequences decode */
    double base_s, seq_s;            /* of a step */
    double streams;                  /* that decode */
    double queue;                    /* requests that wait for a place */
    double prefill_left;             /* tokens */
};

static void see_rates(const struct policy_worker *w, const struct policy_rates *typical,
                      struct view *v)
{
    const struct policy_rates *r = &w->rates;
    v->prefill_rate = positive_or(r->prefill_tokens_per_s, typical->prefill_tokens_per_s);
    v->mixed_rate = positive_or(r->mixed_tokens_per_s, v->prefill_rate);
    if (v->mixed_rate > v->prefill_rate)
        v->mixed_rate = v->prefill_rate;
    bool known = r->step_base_s > 0 || r->step_seq_s > 0;
    v->base_s = known ? r->step_base_s : typical->step_base_s;
    v->seq_s = known ? r->step_seq_s : typical->step_seq_s;
}

static void see(const struct policy_worker *w, const struct policy_rates *typical, struct view *v)
{
    see_rates(w, typical, v);
    double all = (double)w->inflight + w->others;
    double capacity = w->sequences_max ? w->sequences_max : 1;
    v->prefill_left = (double)policy_prefill_left(w) + policy_others_prefill(w);
    v->queue = all > capacity ? all - capacity : 0;
    v->streams = all - w->inflight_prefills;
    if (v->streams > capacity)
        v->streams = capacity;
}

/* Until a sequence ends and leaves its place and its pages: those there are half through, on
 * average. Mostly there is room, and nothing to divide: this runs for every worker. */
static double wait_s(const struct policy_worker *w, uint32_t uncached, double output,
                     const struct view *v)
{
    double capacity = w->sequences_max ? w->sequences_max : 1;
    double life_s = output * (v->base_s + v->seq_s * v->streams);
    double places = v->streams + v->queue + w->inflight_prefills + 1 - capacity;
    double wait = places > 0 ? life_s * places / capacity : 0;
    double free = ((double)w->kv_pages - w->kv_pages_used) * w->page_tokens;
    double missing = uncached + output + v->prefill_left - free; /* tokens */
    if (missing <= 0 || w->kv_pages == 0 || w->page_tokens == 0)
        return wait;
    double share = missing / ((double)w->kv_pages * w->page_tokens);
    double least = 1 / (v->streams + 1); /* a sequence at least must end */
    double for_pages = life_s * (share > least ? share : least);
    return wait > for_pages ? wait : for_pages;
}

static double cost_s(const struct policy_snapshot *s, uint32_t index,
                     const struct policy_request *r, double output,
                     const struct policy_rates *typical)
{
    const struct policy_worker *w = s->workers[index];
    struct view v;
    see(w, typical, &v);
    uint32_t uncached = policy_uncached_tokens(s, index, r);
    double prompt_s = uncached / v.prefill_rate;
    double step_s = v.base_s + v.seq_s * (v.streams + 1);
    double rate = v.streams > 0 ? v.mixed_rate : v.prefill_rate;
    double first_s = wait_s(w, uncached, output, &v) + (v.prefill_left + uncached) / rate + step_s;
    double lost_s = v.streams * (prompt_s + output * v.seq_s);
    return first_s + OWN_WEIGHT * output * step_s + LOST_WEIGHT * lost_s + WORK_WEIGHT * prompt_s;
}

static bool is_measured(const struct policy_rates *r)
{
    return r->prefill_tokens_per_s > 0 && (r->step_base_s > 0 || r->step_seq_s > 0);
}

static uint32_t pick(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng)
{
    (void)state;
    struct policy_rates typical = {0};
    double output = policy_output_guess(s, r);
    uint32_t best = 0;
    double best_s = 0;
    uint32_t n_equal = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        /* What is typical takes a look at all: only when somebody needs it. */
        if (typical.prefill_tokens_per_s == 0 && !is_measured(&s->workers[i]->rates))
            typical = policy_typical_rates(s);
        double c = cost_s(s, i, r, output, &typical);
        if (n_equal > 0 && c > best_s * EQUAL)
            continue;
        n_equal = n_equal == 0 || c * EQUAL < best_s ? 1 : n_equal + 1;
        if (n_equal > 1 && rng_below(rng, n_equal) != 0)
            continue;
        best = i;
        best_s = n_equal == 1 || c < best_s ? c : best_s;
    }
    return best;
}

const struct policy policy_predicted = {
    .name = "predicted",
    .summary = "the least predicted time to the first token, and loss of the streams there",
    .needs = POLICY_NEEDS_CACHED,
    .pick = pick,
};

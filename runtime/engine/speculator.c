#include "runtime/engine/speculator.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"

/* Before anything was seen: half of the guesses are right. These weigh as so many guesses. */
#define RATE_FIRST 0.5
#define WEIGHT_FIRST 8.0
/* What all sequences gave weighs so much beside a sequence's own. */
#define WEIGHT_ALL 4.0
/* What was seen counts for less with every step; for a sequence that guesses nothing, too, so that
 * it is tried again. */
#define KEEP_OF_ALL 0.995
#define KEEP_OF_ONE 0.97
/* The time that a draft took counts for so much of what is known. */
#define TIME_SHARE 0.1
/* One that took longer than so many times the known is somebody else's fault. */
#define TIME_OUTLIER 2.0
/* What is left of it behind a step without guesses: one that was only once slow is tried again. */
#define TIME_KEEP 0.999

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

uint32_t speculator_drafts_max(const struct engine_config *c)
{
    uint64_t most = (uint64_t)c->sequences_max * c->draft_tokens_max;
    if (c->speculate == ENGINE_SPECULATE_OFF && !c->drafter)
        return 0;
    return most < SPECULATOR_DRAFTS_MAX ? (uint32_t)most : SPECULATOR_DRAFTS_MAX;
}

static int choose_drafter(struct speculator *s, const struct engine_config *c,
                          const struct drafter_host *host, struct err *e)
{
    s->owned = c->drafter == NULL;
    s->drafter = c->drafter;
    if (s->drafter)
        return 0;
    if (c->draft_model && c->speculate != ENGINE_SPECULATE_LOOKUP)
        return drafter_model_create(c->draft_model, host, &s->drafter, e);
    return drafter_lookup_create(&s->drafter, e);
}

int speculator_init(struct speculator *s, const struct engine_config *c,
                    const struct drafter_host *host, struct err *e)
{
    *s = (struct speculator){.tokens_max = c->draft_tokens_max,
                             .drafts_max = speculator_drafts_max(c),
                             .adapts = !c->draft_always,
                             .clock_ns = c->clock_ns ? c->clock_ns : clock_mono_ns};
    if (c->draft_tokens_max > SPECULATOR_TOKENS_MAX)
        return err_set(e, ERR_CONFIG, "draft_tokens_max is %u, wanted at most %u",
                       c->draft_tokens_max, SPECULATOR_TOKENS_MAX);
    if (c->speculate == ENGINE_SPECULATE_DRAFT && !c->draft_model)
        return err_set(e, ERR_CONFIG, "draft_model is missing");
    if (s->drafts_max == 0)
        return 0;
    s->of = calloc(c->sequences_max, sizeof(struct sequence *));
    s->order = calloc(s->drafts_max, sizeof(*s->order));
    if (!s->of || !s->order)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    return choose_drafter(s, c, host, e);
}

void speculator_release(struct speculator *s)
{
    if (s->owned)
        drafter_free(s->drafter);
    free(s->of);
    free(s->order);
    *s = (struct speculator){0};
}

void speculator_forget(struct speculator *s, const struct sequence *q)
{
    if (s->drafter && s->drafter->forget)
        s->drafter->forget(s->drafter, q);
}

/* ---- what is believed -------------------------------------------------------------------------
 */

static double rate_of_all(const struct speculator *s)
{
    return (s->all.right + RATE_FIRST * WEIGHT_FIRST) / (s->all.tried + WEIGHT_FIRST);
}

/* How likely a guess is right, where the one before it was. */
static double rate_of(const struct speculator *s, const struct sequence *q)
{
    return (q->drafted.right + rate_of_all(s) * WEIGHT_ALL) / (q->drafted.tried + WEIGHT_ALL);
}

static void note_time(double *known, double seconds)
{
    if (*known > 0 && seconds > *known * TIME_OUTLIER)
        seconds = *known * TIME_OUTLIER;
    *known = *known > 0 ? *known + TIME_SHARE * (seconds - *known) : seconds;
}

/* ---- how many ---------------------------------------------------------------------------------
 */

/* Of those that could guess, the one whose next guess is the most likely to count; n_drafts is how
 * many each has by now. UINT32_MAX: none is left. */
static uint32_t best_next(const struct speculator *s, uint32_t n, const uint32_t *limit,
                          double *worth)
{
    uint32_t best = UINT32_MAX;
    double most = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (s->of[i]->n_drafts == limit[i] || worth[i] <= most)
            continue;
        most = worth[i];
        best = i;
    }
    return best;
}

/* Lowers n_drafts of the n sequences to what gives the most tokens a second. work: a step of all
 * that decode, without guesses. */
static void allot(struct speculator *s, uint32_t n, const struct stepcost *cost,
                  const struct stepcost_work *work)
{
    uint32_t limit[SPECULATOR_SEQUENCES_MAX], best = 0, i, deep = 0;
    double worth[SPECULATOR_SEQUENCES_MAX], tokens = work->rows, rate;
    double top = tokens / stepcost_predict(cost, work);
    struct stepcost_work with = *work;
    for (i = 0; i < n; i++) {
        limit[i] = s->of[i]->n_drafts;
        s->of[i]->n_drafts = 0;
        worth[i] = rate_of(s, s->of[i]);
    }
    for (uint32_t m = 0; m < s->drafts_max; m++) {
        if ((i = best_next(s, n, limit, worth)) == UINT32_MAX)
            break;
        struct sequence *q = s->of[i];
        s->order[m] = i;
        tokens += worth[i];
        worth[i] *= rate_of(s, q);
        q->n_drafts++;
        deep = q->n_drafts > deep ? q->n_drafts : deep;
        with.rows++;
        with.picks++;
        with.seen += q->n_tokens + q->n_drafts;
        rate = tokens / (stepcost_predict(cost, &with) + deep * s->draft_s);
        if (rate > top) {
            top = rate;
            best = m + 1;
        }
    }
    for (i = 0; i < n; i++)
        s->of[i]->n_drafts = 0;
    for (uint32_t m = 0; m < best; m++)
        s->of[s->order[m]]->n_drafts++;
}

/* Keeps those that guess something. */
static uint32_t keep_some(struct speculator *s, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s->of[i]->n_drafts > 0)
            s->of[kept++] = s->of[i];
    return kept;
}

/* The guesses of a step fit; those that go before get theirs. */
static void cap(struct speculator *s, uint32_t n)
{
    uint32_t left = s->drafts_max;
    for (uint32_t i = 0; i < n; i++) {
        s->of[i]->n_drafts = min_u32(s->of[i]->n_drafts, left);
        left -= s->of[i]->n_drafts;
    }
}

/* Fills s->of with those that may guess, n_drafts with how many they may, and adds their rows
 * without guesses to work. *calm: nobody computes a prompt. */
static uint32_t gather(struct speculator *s, const struct scheduler *of, struct stepcost_work *work,
                       bool *calm)
{
    uint32_t n = 0;
    *calm = true;
    for (uint32_t i = 0; i < of->n_running; i++) {
        struct sequence *q = of->running[i];
        q->n_drafts = 0;
        if (!sequence_decodes(q) || q->embedding.pooling != ENGINE_POOLING_NONE) {
            *calm = false;
            continue;
        }
        stepcost_add(work, q->n_computed, 1, 1);
        q->n_drafts = min_u32(s->tokens_max, sequence_drafts_max(q));
        s->of[n++] = q;
    }
    return n;
}

/* Has them guess. Returns how many have something; they come first in s->of. */
static uint32_t make(struct speculator *s, uint32_t n)
{
    uint64_t begin_ns = s->clock_ns();
    uint32_t deep = 0;
    n = keep_some(s, n);
    if (n == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        deep = s->of[i]->n_drafts > deep ? s->of[i]->n_drafts : deep;
    if (s->drafter->draft(s->drafter, s->of, n) && !s->drafter->cheap)
        note_time(&s->draft_s, (double)(s->clock_ns() - begin_ns) / 1e9 / deep);
    return keep_some(s, n);
}

void speculator_draft(struct speculator *s, const struct scheduler *of)
{
    struct stepcost_work work = {0};
    bool calm;
    if (!s->drafter)
        return;
    uint32_t n = gather(s, of, &work, &calm);
    if (s->adapts && (!calm || n > SPECULATOR_SEQUENCES_MAX)) {
        for (uint32_t i = 0; i < n; i++)
            s->of[i]->n_drafts = 0;
        return;
    }
    if (s->adapts && !s->drafter->cheap)
        allot(s, n, &of->cost, &work);
    else if (!s->adapts)
        cap(s, n);
    n = make(s, n);
    if (s->adapts && s->drafter->cheap)
        allot(s, n, &of->cost, &work);
}

/* ---- what came of it --------------------------------------------------------------------------
 */

static void keep(struct draft_record *r, double share)
{
    r->tried *= (float)share;
    r->right *= (float)share;
}

static void learn_of(struct speculator *s, const struct verified *d)
{
    struct sequence *q = d->sequence;
    uint32_t made = d->n_picks - 1, right = q->n_drafts;
    uint32_t tried = right + (right < made && q->finish == ENGINE_GOES_ON);
    s->n_drafted += made;
    s->n_right += right;
    keep(&q->drafted, KEEP_OF_ONE);
    q->drafted.tried += (float)tried;
    q->drafted.right += (float)right;
    s->all.tried += (float)tried;
    s->all.right += (float)right;
}

void speculator_learn(struct speculator *s, const struct verifier *v)
{
    if (!s->drafter)
        return;
    uint64_t drafted = s->n_drafted;
    keep(&s->all, KEEP_OF_ALL);
    for (uint32_t i = 0; i < v->n_of; i++)
        learn_of(s, &v->of[i]);
    if (s->n_drafted == drafted)
        s->draft_s *= TIME_KEEP;
}

/* A request's tokens, logits and logprobs, or its embedding, are the same bits whatever happens
 * around it: random schedules of requests, against each of them alone on one thread.
 *
 *     test_exact [engines [seed]]     of the real model; `make test-exactness` runs many
 *
 * An engine has a random shape: instruction set, threads, requests at once, tokens a step, size of
 * the pool (small ones preempt), prefix cache or not, what prompts may take beside streams by a
 * clock that says anything, what a priority is worth, who guesses tokens and how many; and a number
 * of ranks. It runs some schedules one after the other, so that a cache has something in it. Random
 * in a schedule: when requests join, their priorities, who is cancelled, and who moves, which is:
 * cancelled after some tokens and submitted again with those as its output, or with fewer, as if
 * the last ones were lost on their way. Prompts begin alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/engine/drafter.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/sequence.h"
#include "runtime/engine/speculator.h"
#include "runtime/grammar/grammar.h"
#include "tests/unit/runtime/model/tiny_adapter.h"
#include "tests/unit/runtime/model/tiny_llama.h"

#define SMOLLM2 "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

enum {
    JOBS_MAX = 64,
    STEMS = 3,
    PROMPT_MAX = 150,
    OUTPUT_MAX = 100,
    STOPS = 2,
    EMBD_MAX = 576,
    STEPS_MAX = 100000
};

/* What is right for a model's size. */
struct sizes {
    uint32_t jobs, prompt_max, output_max;
    uint32_t engines, schedules; /* schedules: of each engine */
    bool slow;                   /* too large for the scalar reference */
    uint32_t ranks[6];           /* of the engines in turn */
    uint32_t kv_heads;           /* more ranks than these hold some of them twice */
    const struct engine_adapter *adapters;
    uint32_t n_adapters;
    enum kn_kv_type kv_type;
};

/* Over all schedules. */
struct totals {
    uint64_t schedules, tokens, embeddings, cached, preempted, drafted, right;
    uint64_t bursts[SPECULATOR_TOKENS_MAX + 2]; /* deltas by their number of tokens */
};

static uint64_t real_seed;
static uint32_t real_engines = 10; /* of 5 schedules each */

/* A request, and what it gives alone. */
struct job {
    uint32_t prompt[PROMPT_MAX];
    char stop_text[STOPS][8];
    const char *stop[STOPS];
    uint32_t stop_ids[1];
    uint32_t bias_ids[2];
    float bias_values[2];
    struct grammar_source grammar;
    struct engine_request r;

    uint32_t tokens[OUTPUT_MAX];
    uint64_t digests[OUTPUT_MAX];
    struct kn_sampled sampled[OUTPUT_MAX];
    uint32_t n_tokens;
    float embedding[EMBD_MAX];
    enum engine_finish finish;
};

/* How a job does in a schedule. */
struct life {
    uint32_t join_step;
    uint32_t cancel_at; /* output tokens; UINT32_MAX: never */
    uint32_t move_at;
    uint32_t n_seen;
    bool joined, done;
};

/* ---- requests ---------------------------------------------------------------------------------
 */

static void make_sampling(struct job *j, struct rng *rng, uint32_t vocab)
{
    struct kn_sampling *p = &j->r.sampling;
    *p = (struct kn_sampling){.top_p = 1, .repetition_penalty = 1, .seed = rng_u64(rng)};
    if (rng_below(rng, 4) > 0)
        p->temperature = 0.5f + (float)rng_unit(rng);
    if (rng_below(rng, 3) == 0)
        p->top_p = 0.8f;
    if (rng_below(rng, 3) == 0)
        p->top_k = 1 + (uint32_t)rng_below(rng, 50);
    if (rng_below(rng, 3) == 0)
        p->min_p = 0.05f;
    if (rng_below(rng, 3) == 0)
        p->presence_penalty = 0.7f;
    if (rng_below(rng, 3) == 0)
        p->frequency_penalty = 0.4f;
    if (rng_below(rng, 3) == 0)
        p->repetition_penalty = 1.2f;
    if (rng_below(rng, 3) == 0) {
        j->bias_ids[0] = (uint32_t)rng_below(rng, vocab / 2) + vocab / 2;
        j->bias_ids[1] = (uint32_t)rng_below(rng, vocab / 2);
        j->bias_values[0] = 1.5f;
        j->bias_values[1] = -2.5f;
        p->bias_ids = j->bias_ids;
        p->bias_values = j->bias_values;
        p->n_bias = 2;
    }
    p->want_logprobs = rng_below(rng, 2) == 0;
    p->n_top = p->want_logprobs ? (uint32_t)rng_below(rng, 6) : 0;
}

static const struct grammar_source grammars[] = {
    {GRAMMAR_JSON_OBJECT, GRAMMAR_SPACE_ANY, "", 0},
    {GRAMMAR_REGEX, GRAMMAR_SPACE_NONE, "([a-z]{1,9} ?)*\\.", 0},
    {GRAMMAR_GBNF, GRAMMAR_SPACE_NONE, "root ::= \"(\" root* \")\" | [0-9]+ \";\"", 0},
    {GRAMMAR_JSON_SCHEMA, GRAMMAR_SPACE_ONE,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
     "\"values\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}}},"
     "\"required\":[\"name\",\"values\"],\"additionalProperties\":false}",
     0}};

static void make_job(struct job *j, uint64_t id, struct rng *rng, uint32_t vocab,
                     uint32_t stems[STEMS][PROMPT_MAX], const struct sizes *z)
{
    static const char letters[] = "etaoin ";
    memset(j, 0, sizeof(*j));
    j->r = (struct engine_request){.id = id,
                                   .prompt = j->prompt,
                                   .n_prompt =
                                       1 + (uint32_t)rng_below(rng, id % 2 ? z->prompt_max : 20),
                                   .max_tokens = 1 + (uint32_t)rng_below(rng, z->output_max)};
    for (uint32_t i = 0; i < j->r.n_prompt; i++)
        j->prompt[i] = (uint32_t)rng_below(rng, vocab);
    uint32_t common = (uint32_t)rng_below(rng, j->r.n_prompt + 1);
    memcpy(j->prompt, stems[rng_below(rng, STEMS)], common * sizeof(j->prompt[0]));
    j->r.cache_salt[0] = rng_below(rng, 5) == 0;
    for (uint32_t i = 0; i < STOPS; i++) {
        size_t n = 1 + rng_below(rng, 2);
        for (size_t k = 0; k < n; k++)
            j->stop_text[i][k] = letters[rng_below(rng, sizeof(letters) - 1)];
        j->stop[i] = j->stop_text[i];
    }
    if (rng_below(rng, 3) == 0) {
        j->r.stop = j->stop;
        j->r.n_stop = STOPS;
    }
    if (rng_below(rng, 3) == 0) {
        j->stop_ids[0] = (uint32_t)rng_below(rng, vocab);
        j->r.stop_ids = j->stop_ids;
        j->r.n_stop_ids = 1;
    }
    j->r.ignore_eos = rng_below(rng, 2) == 0;
    if (rng_below(rng, 2) == 0)
        j->r.min_tokens = (uint32_t)rng_below(rng, 12);
    if (rng_below(rng, 3) == 0) {
        j->grammar = grammars[rng_below(rng, ARRAY_LEN(grammars))];
        j->grammar.n = strlen(j->grammar.text);
        j->r.grammar = &j->grammar;
    }
    make_sampling(j, rng, vocab);
    if (z->n_adapters > 0)
        j->r.adapter = (uint32_t)rng_below(rng, z->n_adapters + 1);
    if (id % 8 == 7)
        j->r.pooling = rng_below(rng, 2) ? ENGINE_POOLING_MEAN : ENGINE_POOLING_LAST;
}

/* ---- running ----------------------------------------------------------------------------------
 */

static struct engine *open_engine(struct engine_config *c, const char *path, uint32_t context)
{
    struct engine *g = NULL;
    struct err e;
    c->model_path = path;
    c->context_max = context;
    c->waiting_max = JOBS_MAX;
    c->logits_digests = true;
    if (engine_open(c, &g, &e) < 0)
        fail_msg("%s", e.msg);
    return g;
}

static void submit(struct engine *g, const struct engine_request *r)
{
    struct err e;
    if (engine_submit(g, r, &e) < 0)
        fail_msg("request %llu: %s", (unsigned long long)r->id, e.msg);
}

static void keep_delta(struct engine *g, struct job *j, const struct engine_delta *d)
{
    j->finish = d->finish;
    assert_int_equal(d->index, j->n_tokens);
    assert_int_equal(d->n_tokens, j->r.pooling == ENGINE_POOLING_NONE);
    if (j->r.pooling != ENGINE_POOLING_NONE) {
        assert_true(d->embedding && engine_info(g)->n_embd <= EMBD_MAX);
        memcpy(j->embedding, d->embedding, engine_info(g)->n_embd * sizeof(float));
        return;
    }
    j->tokens[j->n_tokens] = d->tokens[0];
    j->digests[j->n_tokens] = d->logits_digests[0];
    if (d->sampled)
        j->sampled[j->n_tokens] = d->sampled[0];
    j->n_tokens++;
}

static void run_alone(struct engine *g, struct job *j)
{
    struct engine_step s;
    bool more = true;
    submit(g, &j->r);
    while (more) {
        more = engine_step(g, &s);
        for (uint32_t i = 0; i < s.n_deltas; i++)
            keep_delta(g, j, &s.deltas[i]);
    }
    assert_int_not_equal(j->finish, ENGINE_ERROR);
    assert_int_not_equal(j->finish, ENGINE_GOES_ON);
}

static void check_token(const struct job *j, const struct engine_delta *d, uint32_t i)
{
    uint32_t at = d->index + i;
    if (d->tokens[i] != j->tokens[at] || d->logits_digests[i] != j->digests[at])
        fail_msg("request %llu, output %u: token %u here, %u alone; logits %s",
                 (unsigned long long)j->r.id, at, d->tokens[i], j->tokens[at],
                 d->logits_digests[i] == j->digests[at] ? "equal" : "differ");
    if (d->sampled) {
        const struct kn_sampled *a = &d->sampled[i], *b = &j->sampled[at];
        size_t n = j->r.sampling.n_top;
        assert_memory_equal(&a->logprob, &b->logprob, sizeof(a->logprob));
        assert_memory_equal(a->top_ids, b->top_ids, n * sizeof(a->top_ids[0]));
        assert_memory_equal(a->top_logprobs, b->top_logprobs, n * sizeof(a->top_logprobs[0]));
    }
}

static void check_embedding(const struct job *j, struct life *l, const struct engine_delta *d,
                            uint32_t n_embd)
{
    assert_false(l->done);
    assert_int_equal(d->n_tokens, 0);
    assert_non_null(d->embedding);
    if (memcmp(d->embedding, j->embedding, n_embd * sizeof(float)) != 0)
        fail_msg("request %llu: the embedding differs", (unsigned long long)j->r.id);
    assert_int_equal(d->finish, ENGINE_STOP);
    l->done = true;
}

static void check_delta(const struct job *j, struct life *l, const struct engine_delta *d,
                        struct totals *t)
{
    assert_false(l->done);
    assert_int_equal(d->index, l->n_seen);
    assert_true(d->n_tokens >= 1 && d->n_tokens <= SPECULATOR_TOKENS_MAX + 1);
    assert_true(l->n_seen + d->n_tokens <= j->n_tokens);
    assert_int_equal(d->sampled != NULL, j->r.sampling.want_logprobs);
    for (uint32_t i = 0; i < d->n_tokens; i++)
        check_token(j, d, i);
    l->n_seen += d->n_tokens;
    l->done = d->finish != ENGINE_GOES_ON;
    assert_int_equal(d->finish, l->n_seen == j->n_tokens ? j->finish : ENGINE_GOES_ON);
    assert_true(d->cached_tokens < j->r.n_prompt);
    t->cached += d->cached_tokens;
    t->tokens += d->n_tokens;
    t->bursts[d->n_tokens]++;
}

/* A request that moves goes on elsewhere with what has arrived. */
static void move(struct engine *g, const struct job *j, struct life *l, struct rng *rng)
{
    struct engine_request r = j->r;
    l->n_seen -= (uint32_t)rng_below(rng, l->n_seen - l->move_at + 1);
    r.output = j->tokens;
    r.n_output = l->n_seen;
    engine_cancel(g, r.id);
    submit(g, &r);
}

static void join_and_leave(struct engine *g, const struct job *jobs, uint32_t n_jobs,
                           struct life *lives, uint32_t step, struct rng *rng)
{
    for (uint32_t i = 0; i < n_jobs; i++) {
        struct life *l = &lives[i];
        if (!l->joined && l->join_step <= step) {
            submit(g, &jobs[i].r);
            l->joined = true;
        }
        if (l->joined && !l->done && l->n_seen >= l->cancel_at) {
            engine_cancel(g, jobs[i].r.id);
            l->done = true;
        }
        if (l->joined && !l->done && l->n_seen >= l->move_at) {
            move(g, &jobs[i], l, rng);
            l->move_at = UINT32_MAX;
        }
    }
}

static void run_schedule(struct engine *g, struct job *jobs, const struct sizes *z, struct rng *rng,
                         struct totals *t)
{
    struct life lives[JOBS_MAX];
    uint32_t step = 0, n_done = 0;
    for (uint32_t i = 0; i < z->jobs; i++) {
        jobs[i].r.priority = (int32_t)rng_below(rng, 3) - 1;
        lives[i] = (struct life){
            .join_step = (uint32_t)rng_below(rng, 40),
            .cancel_at = rng_below(rng, 5) ? UINT32_MAX : (uint32_t)rng_below(rng, z->output_max),
            .move_at = rng_below(rng, 2) ? UINT32_MAX : (uint32_t)rng_below(rng, z->output_max)};
    }
    while (n_done < z->jobs) {
        struct engine_step s;
        join_and_leave(g, jobs, z->jobs, lives, step, rng);
        engine_step(g, &s);
        for (uint32_t i = 0; i < s.n_deltas; i++) {
            const struct engine_delta *d = &s.deltas[i];
            if (jobs[d->id].r.pooling == ENGINE_POOLING_NONE)
                check_delta(&jobs[d->id], &lives[d->id], d, t);
            else
                check_embedding(&jobs[d->id], &lives[d->id], d, engine_info(g)->n_embd);
            t->embeddings += d->embedding != NULL;
        }
        assert_true(++step < STEPS_MAX);
        n_done = 0;
        for (uint32_t i = 0; i < z->jobs; i++)
            n_done += lives[i].done;
    }
    struct engine_load load = engine_load(g);
    assert_int_equal(load.running + load.waiting + load.kv_pages_used, 0);
    t->schedules++;
}

static const char *random_isa(struct rng *rng, bool slow)
{
    enum kn_isa isa = (enum kn_isa)rng_below(rng, KN_ISA_COUNT);
    return kn_isa_available(isa) && !(slow && isa == KN_ISA_REF) ? kn_isa_name(isa) : "auto";
}

/* ---- who guesses ------------------------------------------------------------------------------
 */

/* Knows what comes. Says the truth for a random number of tokens, then something else: every number
 * of right guesses comes up. */
struct seer {
    struct drafter base;
    const struct job *jobs; /* by the sequence's id */
    struct rng rng;
    uint32_t vocab;
    bool lies; /* from the first token on */
};

static bool see(struct drafter *d, struct sequence *const *sequences, uint32_t n)
{
    struct seer *s = (struct seer *)d;
    for (uint32_t i = 0; i < n; i++) {
        struct sequence *q = sequences[i];
        const struct job *j = &s->jobs[q->id];
        uint32_t at = sequence_output(q), *guesses = q->tokens + q->n_tokens;
        uint32_t right = s->lies ? 0 : (uint32_t)rng_below(&s->rng, q->n_drafts + 1);
        assert_true(q->n_drafts > 0 && q->n_tokens + q->n_drafts < q->tokens_max);
        q->n_drafts -= (uint32_t)rng_below(&s->rng, 8) == 0;
        for (uint32_t k = 0; k < q->n_drafts; k++) {
            guesses[k] = (uint32_t)rng_below(&s->rng, s->vocab);
            if (at + k < j->n_tokens && k < right)
                guesses[k] = j->tokens[at + k];
            else if (at + k < j->n_tokens && guesses[k] == j->tokens[at + k])
                guesses[k] = (guesses[k] + 1) % s->vocab;
        }
    }
    return true;
}

static const char *choose_drafter(struct engine_config *c, struct seer *s, const struct job *jobs,
                                  const char *path, uint32_t vocab, struct rng *rng)
{
    static const char *const names[] = {"nobody", "lookup",         "a seer",
                                        "a liar", "lookup, always", "the model itself"};
    size_t i = rng_below(rng, 6);
    *s = (struct seer){.base = {.draft = see, .cheap = rng_below(rng, 2) == 0},
                       .jobs = jobs,
                       .vocab = vocab,
                       .lies = i == 3};
    rng_init(&s->rng, rng_u64(rng));
    c->draft_tokens_max = 1 + (uint32_t)rng_below(rng, 6);
    c->speculate = i == 0 ? ENGINE_SPECULATE_OFF : ENGINE_SPECULATE_LOOKUP;
    if (i == 5)
        c->speculate = ENGINE_SPECULATE_DRAFT;
    c->draft_model = path;
    c->drafter = i == 2 || i == 3 ? &s->base : NULL;
    c->draft_always = i != 1 && rng_below(rng, 4) > 0;
    return names[i];
}

/* Steps seem to take any time, so prompts are cut anywhere. */
static uint64_t random_clock_ns(void)
{
    static uint64_t now;
    static struct rng rng;
    return now += (uint64_t)1 << (10 + rng_below(&rng, 15));
}

/* An engine of random shape, and its schedules. */
static void run_engine(const char *path, struct job *jobs, const struct engine_info *info,
                       const struct sizes *z, uint32_t ranks, uint64_t seed, struct totals *t)
{
    struct seer seer;
    struct rng rng;
    rng_init(&rng, seed);
    uint32_t context = z->prompt_max + z->output_max + 1, least = z->slow ? 12 : 2;
    uint32_t pages = (context + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS;
    pages += (uint32_t)rng_below(&rng, rng_below(&rng, 4) ? 5 : 4 * pages);
    struct engine_config c = {
        .isa = random_isa(&rng, z->slow),
        .threads = 1 + (uint32_t)rng_below(&rng, 2),
        .ranks = ranks,
        .ranks_patience_ms = 300000,
        .kv_bytes = pages * (info->kv_bytes / info->kv_pages) *
                    (ranks > z->kv_heads ? ranks : z->kv_heads) / z->kv_heads,
        .kv_type = z->kv_type,
        .sequences_max = 2 + (uint32_t)rng_below(&rng, z->jobs - 2),
        .step_tokens_max = least + (uint32_t)rng_below(&rng, rng_below(&rng, 2) ? 8 * least : 60),
        .stall_max = rng_below(&rng, 3) ? 1 + 2 * rng_unit(&rng) : 0,
        .priority_tokens = 1 + (uint32_t)rng_below(&rng, 2000),
        .clock_ns = random_clock_ns,
        .prefix_cache = rng_below(&rng, 3) > 0,
        .adapters = z->adapters,
        .n_adapters = z->n_adapters,
    };
    const char *who = choose_drafter(&c, &seer, jobs, path, info->vocab, &rng);
    struct engine *g = open_engine(&c, path, context);
    struct totals before = *t;
    uint32_t schedules = (z->schedules + ranks - 1) / ranks; /* ranks wait for one another */
    for (uint32_t i = 0; i < schedules; i++)
        run_schedule(g, jobs, z, &rng, t);
    if (!c.prefix_cache)
        assert_int_equal(t->cached, before.cached);
    struct engine_load load = engine_load(g);
    t->preempted += load.preempted;
    t->drafted += load.drafted;
    t->right += load.drafts_right;
    print_message("seed %llx: %s, ranks %u, threads %u, sequences %u, step tokens %u, stall %.2f, "
                  "pages %u; %s "
                  "guesses %u; preempted %llu, cached %llu, guessed %llu, right %llu\n",
                  (unsigned long long)seed, c.isa, ranks, c.threads, c.sequences_max,
                  c.step_tokens_max, c.stall_max, pages, who, c.draft_tokens_max,
                  (unsigned long long)load.preempted,
                  (unsigned long long)(t->cached - before.cached), (unsigned long long)load.drafted,
                  (unsigned long long)load.drafts_right);
    engine_free(g);
}

/* Makes the jobs, and what each of them gives alone. Returns what the engine says. */
static struct engine_info make_jobs(const char *path, struct job *jobs, const struct sizes *z,
                                    struct rng *rng)
{
    struct engine_config c = {.threads = 1,
                              .sequences_max = 1,
                              .step_tokens_max = 4096,
                              .adapters = z->adapters,
                              .n_adapters = z->n_adapters,
                              .kv_type = z->kv_type};
    struct engine *alone = open_engine(&c, path, z->prompt_max + z->output_max + 1);
    struct engine_info info = *engine_info(alone);
    uint32_t stems[STEMS][PROMPT_MAX], vocab = info.vocab;
    for (uint32_t i = 0; i < STEMS * PROMPT_MAX; i++)
        stems[i / PROMPT_MAX][i % PROMPT_MAX] = (uint32_t)rng_below(rng, vocab);
    for (uint32_t i = 0; i < z->jobs; i++) {
        make_job(&jobs[i], i, rng, vocab, stems, z);
        run_alone(alone, &jobs[i]);
    }
    engine_free(alone);
    return info;
}

static void check_model(const char *path, uint64_t seed, const struct sizes *z)
{
    struct rng rng;
    struct totals t = {0};
    clock_t begin = clock();
    struct job *jobs = calloc(z->jobs, sizeof(*jobs));
    rng_init(&rng, seed);
    const struct engine_info info = make_jobs(path, jobs, z, &rng);
    for (uint32_t i = 0; i < z->engines; i++)
        run_engine(path, jobs, &info, z, z->ranks[i % ARRAY_LEN(z->ranks)], rng_u64(&rng), &t);
    free(jobs);
    print_message("%llu schedules of %u requests, %llu tokens and %llu embeddings compared; %llu "
                  "preemptions, %llu prompt tokens from the cache, %llu of %llu guesses right; "
                  "%.0f s of processor "
                  "time\n",
                  (unsigned long long)t.schedules, z->jobs, (unsigned long long)t.tokens,
                  (unsigned long long)t.embeddings, (unsigned long long)t.preempted,
                  (unsigned long long)t.cached, (unsigned long long)t.right,
                  (unsigned long long)t.drafted, (double)(clock() - begin) / CLOCKS_PER_SEC);
    if (z->engines >= 4)
        assert_true(t.preempted > 0 && t.cached > 0 && t.right > 0 && t.right < t.drafted);
}

static void check_tiny(uint32_t type, enum kn_kv_type kv_type, bool untied, uint64_t seed)
{
    struct tiny_llama t = tiny_llama_small;
    char path[TINY_PATH_BYTES];
    t.type = type;
    t.untied = untied;
    t.qkv_bias = untied;
    t.rope_factors = !untied;
    t.seed = seed;
    tiny_llama_file(&t, path);
    const struct sizes z = {.jobs = 16,
                            .prompt_max = PROMPT_MAX,
                            .output_max = OUTPUT_MAX,
                            .engines = SANITIZED ? 4 : 6,
                            .schedules = SANITIZED ? 1 : 2,
                            .ranks = {1, 1, 2, 1, 3, 1},
                            .kv_heads = t.n_kv_heads,
                            .kv_type = kv_type};
    check_model(path, seed, &z);
    unlink(path);
}

static void test_exact_with_q4_1_and_biases(void **state)
{
    (void)state;
    check_tiny(KN_Q4_1, KN_KV_F16, true, 1);
}

static void test_exact_with_q8_0_and_a_tied_head(void **state)
{
    (void)state;
    check_tiny(KN_Q8_0, KN_KV_INT8, false, 2);
}

static void test_exact_with_floats(void **state)
{
    (void)state;
    check_tiny(KN_F16, KN_KV_F16, true, 3);
    check_tiny(KN_F32, KN_KV_INT8, false, 4);
}

/* Fewer KV heads than ranks, as many, more; query heads that don't divide; a rank without heads. */
static void test_exact_over_ranks(void **state)
{
    (void)state;
    static const uint32_t heads[][2] = {{6, 2}, {5, 5}, {8, 1}};
    static const uint32_t ranks[][3] = {{8, 3, 2}, {4, 8, 2}, {2, 4, 8}};
    for (uint32_t i = 0; i < ARRAY_LEN(heads); i++) {
        struct tiny_llama t = {.n_layers = 2,
                               .n_embd = heads[i][0] * 32,
                               .n_ff = 32 * (8 + i),
                               .n_heads = heads[i][0],
                               .n_kv_heads = heads[i][1],
                               .type = i == 1 ? KN_F16 : KN_Q8_0,
                               .untied = i > 0,
                               .qkv_bias = true,
                               .seed = 10 + i};
        struct sizes z = {.jobs = 12,
                          .prompt_max = 80,
                          .output_max = 30,
                          .engines = SANITIZED ? 1 : 3,
                          .schedules = 1,
                          .kv_heads = heads[i][1]};
        memcpy(z.ranks, ranks[i], sizeof(ranks[i]));
        char path[TINY_PATH_BYTES];
        tiny_llama_file(&t, path);
        check_model(path, t.seed, &z);
        unlink(path);
    }
}

/* Rows of three adapters and of none beside one another, over the same prompts. */
static void test_exact_with_adapters(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    struct tiny_adapter adapters[] = {{.rank = 8, .seed = 1},
                                      {.rank = 33, .seed = 2, .bf16 = true},
                                      {.rank = 1, .seed = 3, .attention_alone = true}};
    struct engine_adapter configs[ARRAY_LEN(adapters)];
    char path[TINY_PATH_BYTES], folders[ARRAY_LEN(adapters)][TINY_FOLDER_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(adapters); i++) {
        tiny_adapter_folder(&adapters[i], &t, folders[i]);
        configs[i] = (struct engine_adapter){.name = folders[i], .path = folders[i]};
    }
    tiny_llama_file(&t, path);
    const struct sizes z = {.jobs = 24,
                            .prompt_max = 60,
                            .output_max = 40,
                            .engines = SANITIZED ? 3 : 6,
                            .schedules = SANITIZED ? 1 : 3,
                            .ranks = {1, 1, 1, 1, 1, 1},
                            .kv_heads = t.n_kv_heads,
                            .adapters = configs,
                            .n_adapters = ARRAY_LEN(adapters)};
    check_model(path, 7, &z);
    unlink(path);
    for (size_t i = 0; i < ARRAY_LEN(adapters); i++)
        tiny_adapter_remove(folders[i]);
}

static void test_exact_with_smollm2(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    print_message("SmolLM2 takes minutes under TSan: the tiny models stand for it here\n");
    skip();
#endif
    if (access(SMOLLM2, R_OK) != 0) {
        print_message("!!! %s is missing: exactness on the real model is NOT tested\n", SMOLLM2);
        skip();
    }
    struct sizes z = {.jobs = 64,
                      .prompt_max = 36,
                      .output_max = 8,
                      .engines = real_engines - real_engines / 5,
                      .schedules = 5,
                      .slow = true,
                      .ranks = {1, 2, 1, 4, 1, 8},
                      .kv_heads = 3};
    if (SANITIZED)
        z = (struct sizes){.jobs = 16,
                           .prompt_max = 30,
                           .output_max = 8,
                           .engines = 1,
                           .schedules = 1,
                           .slow = true,
                           .ranks = {2, 1, 1, 1, 1, 1},
                           .kv_heads = 3};
    check_model(SMOLLM2, 5 + 2 * real_seed, &z);
    z.kv_type = KN_KV_INT8;
    z.engines = SANITIZED ? 0 : real_engines / 5;
    if (z.engines > 0)
        check_model(SMOLLM2, 6 + 2 * real_seed, &z);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_with_q4_1_and_biases),
        cmocka_unit_test(test_exact_with_q8_0_and_a_tied_head),
        cmocka_unit_test(test_exact_with_floats),
        cmocka_unit_test(test_exact_over_ranks),
        cmocka_unit_test(test_exact_with_adapters),
        cmocka_unit_test(test_exact_with_smollm2),
    };
    if (argc > 1)
        real_engines = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        real_seed = strtoul(argv[2], NULL, 10);
    log_init("test_exact", LOG_LEVEL_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

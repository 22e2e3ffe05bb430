#include "benchmarks/hash_worker/hash_engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "benchmarks/hash_worker/hash_tokens.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/text/tokenizer.h"

struct hash_seq {
    struct engine_request r; /* its arrays are not ours: only what is copied below is read */
    uint64_t hash;
    uint32_t *stop_ids; /* (r.n_stop_ids) */
    uint32_t n_out;
    uint32_t n_computed; /* of prompt and output: until they are, no token comes */
    uint32_t pages;
    bool complete; /* it was when it came */
};

struct engine {
    const struct hash_model *model;
    struct engine_info info;
    /* In order of arrival: those that run, then those that wait. */
    struct hash_seq **seqs; /* (sequences_max + waiting_max) */
    uint32_t n, n_running;
    uint32_t pages_used;
    uint64_t steps, preempted;
    uint64_t step_end_ns; /* where the last one ended, for the next to begin there */
    /* What a step says. */
    struct engine_delta *deltas; /* (sequences_max + waiting_max) */
    uint32_t *tokens;            /* (sequences_max * step_tokens) */
    struct kn_sampled *sampled;  /* as many */
    uint32_t n_deltas, n_tokens;
};

/* ---- open and free -----------------------------------------------------------------------------
 */

int hash_model_letters(struct hash_model *m, struct err *e)
{
    for (uint32_t i = 0; i < HASH_N_LETTERS; i++) {
        m->letters[i] = tokenizer_find(m->tokenizer, &HASH_LETTERS[i], 1);
        if (m->letters[i] == TOKENIZER_NONE)
            return err_set(e, ERR_UNSUPPORTED, "the vocabulary has no token '%c'", HASH_LETTERS[i]);
    }
    return 0;
}

static const struct hash_model *model_in_use;

void hash_model_use(const struct hash_model *m)
{
    model_in_use = m;
}

int engine_outline(const struct engine_config *config, bool with_manifest,
                   struct engine_outline *out, struct err *e)
{
    const struct hash_model *m = model_in_use;
    (void)config, (void)e;
    *out = (struct engine_outline){.context_tokens = m->context_tokens,
                                   .kv_pages = m->kv_pages,
                                   .page_tokens = m->page_tokens};
    if (with_manifest)
        memcpy(out->manifest_sha256, m->manifest_sha256, strlen(m->manifest_sha256) + 1);
    return 0;
}

int engine_open(const struct engine_config *config, struct engine **out, struct err *e)
{
    const struct hash_model *m = model_in_use;
    (void)config;
    size_t cap = (size_t)m->sequences_max + m->waiting_max;
    size_t tokens = (size_t)m->sequences_max * m->step_tokens;
    struct engine *g = calloc(1, sizeof(*g));
    if (!g)
        return err_set(e, ERR_NOMEM, "no memory for an engine");
    g->model = m;
    g->info = (struct engine_info){.architecture = "hash",
                                   .manifest_sha256 = m->manifest_sha256,
                                   .isa = "none",
                                   .context_tokens = m->context_tokens,
                                   .vocab = tokenizer_vocab_size(m->tokenizer),
                                   .kv_pages = m->kv_pages,
                                   .page_tokens = m->page_tokens,
                                   .sequences_max = m->sequences_max};
    g->seqs = calloc(cap, sizeof(*g->seqs));
    g->deltas = calloc(cap, sizeof(*g->deltas));
    g->tokens = calloc(tokens, sizeof(*g->tokens));
    g->sampled = calloc(tokens, sizeof(*g->sampled));
    if (!g->seqs || !g->deltas || !g->tokens || !g->sampled) {
        engine_free(g);
        return err_set(e, ERR_NOMEM, "no memory for %zu requests", cap);
    }
    *out = g;
    return 0;
}

static void seq_free(struct hash_seq *s)
{
    free(s->stop_ids);
    free(s);
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; g->seqs && i < g->n; i++)
        seq_free(g->seqs[i]);
    free(g->seqs);
    free(g->deltas);
    free(g->tokens);
    free(g->sampled);
    free(g);
}

const struct engine_info *engine_info(const struct engine *g)
{
    return &g->info;
}

const struct tokenizer *engine_tokenizer(const struct engine *g)
{
    return g->model->tokenizer;
}

struct grammar_store *engine_grammars(const struct engine *g)
{
    (void)g;
    return NULL;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

static uint32_t token_at(const struct engine *g, const struct hash_seq *s, uint64_t i)
{
    return g->model->letters[hash_letter(s->hash, i)];
}

static uint32_t pages_of(const struct engine *g, uint32_t tokens)
{
    return (tokens + g->model->page_tokens - 1) / g->model->page_tokens;
}

static int check(const struct engine *g, const struct engine_request *r, struct err *e)
{
    const struct hash_model *m = g->model;
    uint64_t room = (uint64_t)m->kv_pages * m->page_tokens;
    room = room < m->context_tokens ? room : m->context_tokens;
    if (r->pooling != ENGINE_POOLING_NONE || r->grammar)
        return err_set(e, ERR_UNSUPPORTED, "a hash worker has no embeddings and no grammars");
    if ((uint64_t)r->n_prompt + r->n_output >= room)
        return err_set(e, ERR_LIMIT, "%u tokens do not fit into %llu", r->n_prompt + r->n_output,
                       (unsigned long long)room);
    for (uint32_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] >= g->info.vocab)
            return err_set(e, ERR_RANGE, "token %u of a vocabulary of %u", r->prompt[i],
                           g->info.vocab);
    return g->n < m->sequences_max + m->waiting_max
               ? 0
               : err_set(e, ERR_BUSY, "%u requests run and wait", g->n);
}

static bool is_stop(const struct hash_seq *s, uint32_t token, uint32_t n_out)
{
    if (n_out < s->r.min_tokens)
        return false;
    for (uint32_t i = 0; i < s->r.n_stop_ids; i++)
        if (s->stop_ids[i] == token)
            return true;
    return false;
}

/* A stream that moved here must be one that was ours to begin with. */
static int check_output(const struct engine *g, const struct hash_seq *s,
                        const struct engine_request *r, struct err *e)
{
    for (uint32_t i = 0; i < r->n_output; i++)
        if (r->output[i] != token_at(g, s, i))
            return err_set(e, ERR_RANGE, "output token %u is %u: this request gives %u", i,
                           r->output[i], token_at(g, s, i));
    return 0;
}

int engine_submit(struct engine *g, const struct engine_request *r, struct err *e)
{
    int rc = check(g, r, e);
    if (rc < 0)
        return rc;
    struct hash_seq *s = calloc(1, sizeof(*s));
    if (!s || !(s->stop_ids = calloc(r->n_stop_ids + 1, sizeof(*s->stop_ids)))) {
        free(s);
        return err_set(e, ERR_NOMEM, "no memory for a request");
    }
    s->r = *r;
    s->hash = hash_of_request(r->prompt, r->n_prompt, r->sampling.seed);
    s->n_out = r->n_output;
    if (r->n_stop_ids)
        memcpy(s->stop_ids, r->stop_ids, r->n_stop_ids * sizeof(*s->stop_ids));
    rc = check_output(g, s, r, e);
    if (rc < 0) {
        seq_free(s);
        return rc;
    }
    s->complete = r->n_output && is_stop(s, r->output[r->n_output - 1], r->n_output);
    g->seqs[g->n++] = s;
    return 0;
}

static void remove_at(struct engine *g, uint32_t i)
{
    g->pages_used -= g->seqs[i]->pages;
    g->n_running -= i < g->n_running;
    seq_free(g->seqs[i]);
    g->n--;
    memmove(g->seqs + i, g->seqs + i + 1, (g->n - i) * sizeof(*g->seqs));
}

void engine_cancel(struct engine *g, uint64_t id)
{
    for (uint32_t i = 0; i < g->n; i++)
        if (g->seqs[i]->r.id == id) {
            remove_at(g, i);
            return;
        }
}

/* ---- a step ------------------------------------------------------------------------------------
 */

static struct engine_delta *add_delta(struct engine *g, const struct hash_seq *s)
{
    struct engine_delta *d = &g->deltas[g->n_deltas++];
    *d = (struct engine_delta){.id = s->r.id, .index = s->n_out};
    return d;
}

static bool leaves(struct engine *g, struct hash_seq *s, uint64_t now_ms)
{
    if (s->complete) {
        add_delta(g, s)->finish = ENGINE_STOP;
    } else if (s->r.deadline_ms && s->r.deadline_ms <= now_ms) {
        struct engine_delta *d = add_delta(g, s);
        d->finish = ENGINE_ERROR;
        d->error = "the request's deadline has passed";
    } else {
        return false;
    }
    return true;
}

static void let_leave(struct engine *g)
{
    uint64_t now_ms = clock_mono_ms();
    for (uint32_t i = 0; i < g->n;)
        if (leaves(g, g->seqs[i], now_ms))
            remove_at(g, i);
        else
            i++;
}

/* False: there are none left. */
static bool grow(struct engine *g, struct hash_seq *s, uint32_t tokens)
{
    uint32_t need = pages_of(g, tokens);
    uint32_t more = need > s->pages ? need - s->pages : 0;
    if (g->pages_used + more > g->model->kv_pages)
        return false;
    g->pages_used += more;
    s->pages += more;
    return true;
}

static void admit(struct engine *g)
{
    while (g->n_running < g->n && g->n_running < g->model->sequences_max &&
           grow(g, g->seqs[g->n_running],
                g->seqs[g->n_running]->r.n_prompt + g->seqs[g->n_running]->n_out + 1))
        g->n_running++;
}

/* Pages for what this step adds; who came last gives theirs up, and is computed again later. */
static void make_room(struct engine *g)
{
    for (uint32_t i = 0; i < g->n_running; i++) {
        struct hash_seq *s = g->seqs[i];
        while (!grow(g, s, s->r.n_prompt + s->n_out + g->model->step_tokens)) {
            if (g->n_running == i + 1)
                break; /* alone: the last pages of the pool are its own, and its end is near */
            struct hash_seq *last = g->seqs[--g->n_running];
            g->pages_used -= last->pages;
            last->pages = last->n_computed = 0;
            g->preempted++;
        }
    }
}

/* Prompt tokens that this step takes. */
static uint32_t prefill(struct engine *g)
{
    uint32_t left = g->model->prefill_chunk;
    for (uint32_t i = 0; i < g->n_running && left > 0; i++) {
        struct hash_seq *s = g->seqs[i];
        uint32_t want = s->r.n_prompt + s->n_out - s->n_computed;
        uint32_t n = want < left ? want : left;
        s->n_computed += n;
        left -= n;
    }
    return g->model->prefill_chunk - left;
}

static enum engine_finish finish_of(const struct engine *g, const struct hash_seq *s,
                                    uint32_t token)
{
    uint64_t room = (uint64_t)g->model->kv_pages * g->model->page_tokens;
    uint64_t all = (uint64_t)s->r.n_prompt + s->n_out;
    if (is_stop(s, token, s->n_out))
        return ENGINE_STOP;
    return s->n_out >= s->r.max_tokens || all >= g->model->context_tokens || all >= room
               ? ENGINE_LENGTH
               : ENGINE_GOES_ON;
}

static void fill_sampled(struct engine *g, const struct hash_seq *s, uint32_t token,
                         struct kn_sampled *out)
{
    out->id = token;
    out->logprob = -1;
    for (uint32_t i = 0; i < s->r.sampling.n_top; i++) {
        out->top_ids[i] = i ? g->model->letters[i] : token;
        out->top_logprobs[i] = -1 - (float)i;
    }
}

static enum engine_finish tell(struct engine *g, struct hash_seq *s)
{
    struct engine_delta *d = add_delta(g, s);
    d->tokens = g->tokens + g->n_tokens;
    if (s->r.sampling.want_logprobs)
        d->sampled = g->sampled + g->n_tokens;
    for (uint32_t i = 0; i < g->model->step_tokens && d->finish == ENGINE_GOES_ON; i++) {
        uint32_t token = token_at(g, s, s->n_out++);
        g->tokens[g->n_tokens] = token;
        if (d->sampled)
            fill_sampled(g, s, token, &g->sampled[g->n_tokens]);
        g->n_tokens++;
        d->n_tokens++;
        d->finish = finish_of(g, s, token);
    }
    s->n_computed = s->r.n_prompt + s->n_out;
    return d->finish;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

/* Steps that follow each other keep their pace whatever the machine does in between; one that comes
 * too late begins now. */
static void pass_time(struct engine *g, uint64_t from_ns, uint32_t prompt_tokens)
{
    const struct hash_model *m = g->model;
    uint64_t ns = m->step_us * 1000;
    if (m->prefill_rate)
        ns += (uint64_t)prompt_tokens * 1000000000 / m->prefill_rate;
    bool follows = g->step_end_ns && g->step_end_ns + ns >= from_ns;
    uint64_t end_ns = (follows ? g->step_end_ns : from_ns) + ns;
    if (ns)
        sleep_until(end_ns);
    g->step_end_ns = end_ns;
}

bool engine_step(struct engine *g, struct engine_step *out)
{
    uint64_t from_ns = clock_mono_ns();
    g->n_deltas = g->n_tokens = 0;
    let_leave(g);
    admit(g);
    make_room(g);
    uint32_t prompt_tokens = prefill(g);
    if (g->n_running > 0)
        pass_time(g, from_ns, prompt_tokens);
    for (uint32_t i = 0; i < g->n_running;) {
        struct hash_seq *s = g->seqs[i];
        bool first = s->n_out == s->r.n_output;
        if (s->n_computed < s->r.n_prompt + s->n_out) {
            i++;
            continue;
        }
        if (tell(g, s) != ENGINE_GOES_ON)
            remove_at(g, i);
        else
            i++;
        out->decode_tokens += !first;
    }
    g->steps++;
    out->deltas = g->deltas;
    out->n_deltas = g->n_deltas;
    out->prefill_tokens = prompt_tokens;
    out->duration_us = (uint32_t)((clock_mono_ns() - from_ns) / 1000);
    if (g->n == 0)
        g->step_end_ns = 0;
    return g->n > 0;
}

int engine_check(struct engine *g, struct err *e)
{
    (void)g, (void)e;
    return 0;
}

struct engine_load engine_load(const struct engine *g)
{
    return (struct engine_load){.running = g->n_running,
                                .waiting = g->n - g->n_running,
                                .kv_pages_used = g->pages_used,
                                .steps = g->steps,
                                .preempted = g->preempted};
}

void engine_cache_news(struct engine *g, struct engine_cache_news *out)
{
    (void)g;
    *out = (struct engine_cache_news){0};
}

uint32_t engine_cache_blocks(const struct engine *g, uint32_t *cursor, uint64_t *hashes,
                             uint32_t cap)
{
    (void)g, (void)cursor, (void)hashes, (void)cap;
    return 0;
}

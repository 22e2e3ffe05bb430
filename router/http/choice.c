#include "router/http/choice.h"

#include <string.h>

#include "router/http/answer.h"
#include "router/http/auth.h"
#include "router/http/http_internal.h"
#include "runtime/base/clock.h"
#include "runtime/base/rng.h"
#include "runtime/text/chat.h"

static bool ends_by_id(const struct choice *c, uint32_t id)
{
    const struct api_request *api = c->answer->api;
    bool eog = tokenizer_is_eog(api->model->tokenizer, id);
    if (api->has_grammar && eog)
        return true; /* it stands only where the grammar ends */
    if (c->n_tokens < (uint64_t)api->min_tokens)
        return false;
    for (uint32_t i = 0; i < api->n_stop_ids; i++)
        if (api->stop_ids[i] == id)
            return true;
    return !api->ignore_eos && eog;
}

/* A stop string that came before min_tokens is text after all: puts back what the search took
 * away, which is the string itself and what of the piece is behind it. `out_n`: bytes of text that
 * the search let out of `total` (what it held before, and the piece). */
static void pass_over(struct choice *c, const struct buf *piece, size_t out_n, size_t total,
                      struct buf *text)
{
    const char *stop = c->answer->api->stop[c->stop.hit];
    size_t behind = total - out_n - strlen(stop);
    buf_adds(text, stop);
    buf_add(text, buf_str(piece) + piece->len - behind, behind);
    stopmatch_clear(&c->stop);
}

static void feed(struct choice *c, const struct buf *piece, struct buf *text)
{
    if (!c->has_stop) {
        buf_add(text, piece->data, piece->len);
        return;
    }
    size_t total = stopmatch_held_bytes(&c->stop) + piece->len;
    size_t before = text->len;
    if (!stopmatch_feed(&c->stop, buf_str(piece), piece->len, text))
        return;
    if (c->n_tokens < (uint64_t)c->answer->api->min_tokens)
        pass_over(c, piece, text->len - before, total, text);
    else
        c->cut = true;
}

/* Some models' markers are control tokens, which are no text otherwise. */
static bool is_marker(const struct tokenizer *t, uint32_t id)
{
    size_t n;
    const char *bytes = tokenizer_token_bytes(t, id, true, &n);
    return speech_is_marker(bytes, n);
}

/* Everything that one token adds to the text. */
static void take_token(struct choice *c, uint32_t id, const struct gen_logprob *logprob,
                       struct buf *piece, struct buf *text)
{
    if (!c->cut && !ends_by_id(c, id)) {
        if (c->logprobs && logprob)
            logprobs_add(c->logprobs, id, logprob);
        buf_clear(piece);
        c->detok.special = c->speech && is_marker(c->answer->api->model->tokenizer, id);
        detok_feed(&c->detok, c->answer->api->model->tokenizer, id, piece);
        feed(c, piece, text);
    }
    c->n_tokens++;
}

/* Tells apart what it says. A model that may call but once has ended when it has. */
static void hear(struct choice *c, const struct buf *text, bool ends)
{
    if (!c->speech)
        return;
    speech_feed(c->speech, text->data, text->len);
    if (ends)
        speech_end(c->speech);
    if (speech_is_over(c->speech))
        c->cut = true;
}

/* What was held back, now that nothing follows. */
static void take_rest(struct choice *c, struct buf *piece, struct buf *text)
{
    if (c->cut)
        return;
    buf_clear(piece);
    detok_flush(&c->detok, piece);
    feed(c, piece, text);
    if (!c->cut && c->has_stop)
        stopmatch_flush(&c->stop, text);
}

static void set_phase(struct choice *c, enum choice_phase phase)
{
    struct model_metrics *m = c->answer->metrics;
    m->waiting += (phase == CHOICE_WAITING) - (c->phase == CHOICE_WAITING);
    m->running += (phase == CHOICE_RUNNING) - (c->phase == CHOICE_RUNNING);
    c->phase = phase;
}

static void note_times(struct choice *c, uint32_t n)
{
    struct model_metrics *m = c->answer->metrics;
    struct history *past = &c->answer->http->explorer.history;
    uint64_t now_ns = clock_mono_ns();
    if (c->fresh)
        journal_first(&c->answer->request->journal, c->index, now_ns);
    c->fresh = false;
    if (c->last_ns == 0) {
        c->first_ns = now_ns;
        set_phase(c, CHOICE_RUNNING);
        double first_s = (double)(now_ns - c->answer->request->start_ns) / 1e9;
        histogram_add(&m->ttft, first_s);
        history_first(past, first_s);
    } else {
        double each_s = (double)(now_ns - c->last_ns) / 1e9 / n;
        for (uint32_t i = 0; i < n; i++)
            histogram_add(&m->itl, each_s);
        history_each(past, each_s, n);
    }
    c->last_ns = now_ns;
    m->generation_tokens += n;
    history_tokens(past, n);
}

static void complete(struct choice *c, enum gen_finish why, const struct gen_usage *usage)
{
    struct answer *a = c->answer;
    struct http *h = a->http;
    c->gen = NULL;
    set_phase(c, CHOICE_DONE);
    c->finish = why;
    c->usage = *usage;
    buf_clear(&h->text);
    take_rest(c, &h->piece, &h->text);
    hear(c, &h->text, true);
    if (answer_news(a, c, &h->text))
        answer_choice_done(a, c);
}

static void on_tokens(void *ctx, const uint32_t *ids, const struct gen_logprob *logprobs,
                      uint32_t n)
{
    struct choice *c = ctx;
    struct http *h = c->answer->http;
    if (n == 0)
        return;
    if (c->cut) {
        /* The worker did not see the stop string: the text ends here all the same. */
        struct gen_usage usage = {c->prompt->n, c->n_tokens, 0};
        pool_cancel(c->gen);
        complete(c, GEN_STOP, &usage);
        return;
    }
    note_times(c, n);
    buf_clear(&h->text);
    for (uint32_t i = 0; i < n; i++)
        take_token(c, ids[i], logprobs ? &logprobs[i] : NULL, &h->piece, &h->text);
    hear(c, &h->text, false);
    answer_news(c->answer, c, &h->text);
}

static void on_finish(void *ctx, enum gen_finish why, const struct gen_usage *usage)
{
    complete(ctx, why, usage);
}

static void on_fail(void *ctx, enum gen_fault fault, const char *detail, uint32_t retry_after_ms)
{
    struct choice *c = ctx;
    struct api_error e;
    c->gen = NULL;
    api_error_of_fault(&e, fault, detail, retry_after_ms);
    answer_fail(c->answer, &e);
}

static void on_place(void *ctx, const char *worker, bool moved)
{
    struct choice *c = ctx;
    struct journal *j = &c->answer->request->journal;
    c->fresh = worker != NULL;
    if (worker)
        journal_place(j, c->index, worker, clock_mono_ns());
    else
        journal_leave(j, c->index, moved, clock_mono_ns());
}

static void fill_run(struct choice *c, uint64_t seed)
{
    const struct answer *a = c->answer;
    const struct api_request *api = a->api;
    c->run = (struct gen_request){
        .model = api->model->name,
        .prompt = c->prompt->ids,
        .n_prompt = c->prompt->n,
        .max_tokens = (uint32_t)api->max_tokens,
        .min_tokens = (uint32_t)api->min_tokens,
        .ignore_eos = api->ignore_eos,
        .stop = api->stop,
        .n_stop = api->n_stop,
        .stop_ids = api->stop_ids,
        .n_stop_ids = api->n_stop_ids,
        .sampling = {.temperature = (float)api->temperature,
                     .top_k = (uint32_t)api->top_k,
                     .top_p = (float)api->top_p,
                     .min_p = (float)api->min_p,
                     .seed = seed,
                     .presence_penalty = (float)api->presence_penalty,
                     .frequency_penalty = (float)api->frequency_penalty,
                     .repetition_penalty = (float)api->repetition_penalty,
                     .bias_ids = api->bias_ids,
                     .bias_values = api->bias_values,
                     .n_bias = api->n_bias},
        .logprobs = api->want_logprobs,
        .top_logprobs = api->top_logprobs > 0 ? (uint32_t)api->top_logprobs : 0,
        .session_hash = a->session_hash,
        .deadline_ms = answer_deadline_ms(api, a->http->config.deadline_ms),
        .tenant = auth_tenant(a->request),
        .priority = -(int32_t)api->priority, /* ours: higher goes first */
        .traceparent = a->request->traceparent,
        .grammar = api->has_grammar ? &api->grammar : NULL,
        .wants = api->wants,
        .n_wants = api->n_wants,
        .price_max = api->price_max,
    };
    memcpy(c->run.cache_salt, a->cache_salt, sizeof(c->run.cache_salt));
}

static int ready_stop(struct choice *c, struct api_error *e)
{
    const struct api_request *api = c->answer->api;
    const struct http_config *limits = &c->answer->http->config;
    struct stopmatch_limits lim = {limits->stop_max, limits->stop_max * limits->stop_bytes_max};
    size_t *lens = arena_calloc(&c->answer->request->arena, api->n_stop + 1, sizeof(*lens));
    struct err why = {0};
    if (api->n_stop == 0)
        return 0;
    for (uint32_t i = 0; lens && i < api->n_stop; i++)
        lens[i] = strlen(api->stop[i]);
    c->has_stop = lens && stopmatch_init(&c->stop, api->stop, lens, api->n_stop, &lim, &why) == 0;
    if (!c->has_stop)
        return api_error_set(e, 400, "invalid_value", "stop", "%s",
                             lens ? why.msg : "The request takes too much memory.");
    return 0;
}

static int ready_speech(struct choice *c, struct api_error *e)
{
    const struct api_request *api = c->answer->api;
    if (api->kind != API_CHAT)
        return 0;
    struct speech_form form = chat_template_speech(api->model->chat);
    if (api->tools.n == 0 && !form.thinks)
        return 0;
    c->speech = arena_alloc(&c->answer->request->arena, sizeof(*c->speech));
    if (!c->speech)
        return api_error_set(e, 400, NULL, NULL, "The request takes too much memory.");
    speech_init(c->speech, form, api->in_thought, api->tools.names, api->tools.n);
    if (api->tools.one_only)
        c->speech->calls_max = 1;
    if (api->tools.lead)
        speech_feed(c->speech, api->tools.lead, strlen(api->tools.lead));
    return 0;
}

int choice_start(struct choice *c, struct answer *a, uint32_t index, uint64_t seed,
                 struct api_error *e)
{
    static const struct gen_callbacks callbacks = {
        .tokens = on_tokens, .finish = on_finish, .fail = on_fail, .place = on_place};
    struct err why = {0};
    enum gen_fault fault = GEN_FAULT_NO_WORKER;
    c->answer = a;
    c->index = index;
    c->prompt = &a->api->prompts[index / (uint32_t)a->api->n];
    buf_init(&c->text, 0);
    detok_init(&c->detok, false);
    if (ready_stop(c, e) || ready_speech(c, e))
        return -1;
    if (a->api->want_logprobs) {
        c->logprobs = arena_alloc(&a->request->arena, sizeof(*c->logprobs));
        if (!c->logprobs)
            return api_error_set(e, 400, NULL, "logprobs", "The request takes too much memory.");
        logprobs_init(c->logprobs, a->api->model->tokenizer, a->api->kind == API_CHAT,
                      a->api->top_logprobs > 0 ? (uint32_t)a->api->top_logprobs : 0);
    }
    fill_run(c, seed);
    c->gen = pool_start(a->http->pool, &c->run, &callbacks, c, &fault, &why);
    if (!c->gen) {
        api_error_of_fault(e, fault, why.msg, pool_retry_after_ms(a->http->pool));
        return -1;
    }
    set_phase(c, CHOICE_WAITING);
    return 0;
}

/* The prompt counts once it was computed, and once for all choices of it. */
static uint64_t used_tokens(const struct choice *c)
{
    bool first = c->index % (uint32_t)c->answer->api->n == 0;
    return c->n_tokens + (first && c->n_tokens > 0 ? c->prompt->n : 0);
}

void choice_release(struct choice *c)
{
    if (!c->answer)
        return;
    if (c->gen)
        pool_cancel(c->gen);
    c->gen = NULL;
    set_phase(c, CHOICE_DONE);
    c->answer->request->used_tokens += used_tokens(c);
    if (c->has_stop)
        stopmatch_release(&c->stop);
    if (c->logprobs)
        logprobs_release(c->logprobs);
    if (c->speech)
        speech_release(c->speech);
    c->speech = NULL;
    buf_release(&c->text);
}

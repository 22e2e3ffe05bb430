#include "router/http/answer.h"

#include <string.h>

#include "router/http/access.h"
#include "router/http/auth.h"
#include "router/http/http_internal.h"
#include "router/http/route.h"
#include "runtime/base/clock.h"
#include "runtime/base/rng.h"

static void release(struct answer *a)
{
    for (uint32_t i = 0; i < a->n; i++)
        choice_release(&a->choices[i]);
}

/* What those choices have that will not be complete. */
static void note_unfinished(struct answer *a)
{
    struct journal *j = &a->request->journal;
    uint64_t now_ns = clock_mono_ns();
    for (uint32_t i = 0; i < a->n; i++) {
        struct choice *c = &a->choices[i];
        if (!c->answer || c->phase == CHOICE_DONE)
            continue;
        if (i % (uint32_t)a->api->n == 0)
            j->prompt_tokens += c->prompt->n;
        journal_done(j, c->index, c->n_tokens, c->first_ns, c->last_ns, now_ns);
    }
}

static void on_client_gone(void *ctx)
{
    struct answer *a = ctx;
    a->metrics->cancelled += a->n - a->n_done;
    note_unfinished(a);
    release(a);
}

void answer_fail(struct answer *a, const struct api_error *e)
{
    struct request *r = a->request;
    a->metrics->failed += a->n - a->n_done;
    r->journal.error = access_error(e->status);
    note_unfinished(a);
    release(a);
    if (!a->started) {
        request_fail(r, e);
        return;
    }
    struct buf *out = request_stream(r);
    buf_adds(out, "data: ");
    api_error_write(e, out);
    buf_adds(out, "\n\n");
    request_end(r, false);
}

/* ---- while it runs ----------------------------------------------------------------------------
 */

static void note_worker(struct answer *a, const struct choice *c)
{
    const char *id = c->gen ? gen_worker_id(c->gen) : "";
    size_t n = strlen(id);
    if (a->worker[0] || n >= sizeof(a->worker))
        return;
    memcpy(a->worker, id, n + 1);
    if (n)
        request_header(a->request, "X-Argosy-Worker", a->worker);
}

/* Of a choice's first news: the head of the stream, and what comes before any token. */
static void begin_stream(struct answer *a, struct choice *c, struct buf *out)
{
    if (!a->started)
        request_stream_start(a->request, "text/event-stream");
    a->started = true;
    if (c->said_role)
        return;
    c->said_role = true;
    if (a->api->kind == API_CHAT)
        answer_write_role(a, c, out);
    else if (a->api->echo)
        answer_write_delta(a, c, c->prompt->text, c->prompt->text_n, out);
}

static bool keep(struct answer *a, struct choice *c, const struct buf *text)
{
    if (!c->speech)
        buf_add(&c->text, text->data, text->len);
    a->kept_bytes += text->len;
    size_t logprobs = c->logprobs ? logprobs_bytes(c->logprobs) : 0;
    bool failed = c->text.failed || text->failed || (c->speech && speech_failed(c->speech));
    if (!failed && a->kept_bytes + logprobs * a->n <= a->http->config.request_bytes_max)
        return true;
    struct api_error e;
    api_error_set(&e, 500, "answer_too_large", NULL,
                  "The answer is too large to be kept: ask for a stream, or for less.");
    answer_fail(a, &e);
    return false;
}

bool answer_news(struct answer *a, struct choice *c, const struct buf *text)
{
    note_worker(a, c);
    if (!a->api->stream)
        return keep(a, c, text);
    struct buf *out = request_stream(a->request);
    begin_stream(a, c, out);
    if (c->speech) {
        answer_write_speech(a, c, out);
    } else if (text->len || (c->logprobs && !logprobs_empty(c->logprobs))) {
        answer_write_delta(a, c, text->data, text->len, out);
        if (c->logprobs)
            logprobs_clear(c->logprobs);
    }
    request_push(a->request);
    return true;
}

static void note_choice_metrics(struct answer *a, const struct choice *c)
{
    struct model_metrics *m = a->metrics;
    struct journal *j = &a->request->journal;
    m->finished[c->finish == GEN_LENGTH]++;
    *(c->finish == GEN_LENGTH ? &j->n_cut : &j->n_stopped) += 1;
    journal_done(j, c->index, c->n_tokens, c->first_ns, c->last_ns, clock_mono_ns());
    if (c->index % (uint32_t)a->api->n == 0) {
        m->prompt_tokens += c->prompt->n;
        m->cached_tokens += c->usage.cached_tokens;
        j->prompt_tokens += c->prompt->n;
        j->cached_tokens += c->usage.cached_tokens;
    }
}

void answer_choice_done(struct answer *a, struct choice *c)
{
    struct request *r = a->request;
    note_choice_metrics(a, c);
    a->n_done++;
    if (a->api->stream)
        answer_write_finish(a, c, request_stream(r));
    if (a->n_done < a->n)
        return;
    histogram_add(&a->metrics->e2e, (double)(clock_mono_ns() - r->start_ns) / 1e9);
    if (a->api->stream) {
        answer_write_end(a, request_stream(r));
        release(a);
        request_end(r, true);
        return;
    }
    struct buf body;
    buf_init(&body, 0);
    answer_write_whole(a, &body);
    release(a);
    request_reply_json(r, 200, &body);
    buf_release(&body);
}

/* ---- the start --------------------------------------------------------------------------------
 */

/* Choice 0 has the request's own seed, so that n = 1 is the first of n = 3. */
static uint64_t seed_of(uint64_t seed, uint32_t choice)
{
    struct rng rng;
    if (choice == 0)
        return seed;
    rng_init(&rng, seed + choice);
    return rng_u64(&rng);
}

uint64_t answer_session(const struct request *r, const struct api_request *api)
{
    const char *session = api->prompt_cache_key;
    if (!session && !r->session_hash)
        session = api->user;
    uint64_t hash = session ? session_hash_of(session, strlen(session)) : r->session_hash;
    /* Sessions of two keys are two, whatever they are called. */
    return hash && r->tenant ? (hash ^ tenant_hash(r->tenant)) | 1 : hash;
}

/* The client's timeout, at most the router's; 0: the pool's. */
uint32_t answer_deadline_ms(const struct api_request *api, uint32_t configured)
{
    double ms = api->timeout_s * 1000;
    if (ms <= 0 || (configured > 0 && ms >= configured))
        return configured;
    return ms < 1 ? 1 : (uint32_t)ms;
}

static void set_identity(struct answer *a)
{
    const struct api_request *api = a->api;
    a->session_hash = answer_session(a->request, api);
    auth_salt(a->request, api->cache_salt, a->cache_salt);
    a->created_s = clock_wall_s();
    http_make_id(a->http, api->kind == API_CHAT ? "chatcmpl-" : "cmpl-", a->id, sizeof(a->id));
}

static void note_request(struct answer *a)
{
    struct journal *j = &a->request->journal;
    const struct api_request *api = a->api;
    j->operation = api->kind == API_CHAT ? JOURNAL_CHAT : JOURNAL_TEXT;
    j->model = api->model->name;
    j->model_index = (uint32_t)api->model_index;
    j->answer_id = a->id;
    j->n_choices = a->n;
    j->max_tokens = api->max_tokens;
    j->temperature = api->temperature;
    j->top_p = api->top_p;
}

static int start_choices(struct answer *a, struct api_error *e)
{
    uint64_t seed = a->api->seed == API_SEED_NONE ? rng_u64(&a->http->rng) : (uint64_t)a->api->seed;
    for (uint32_t i = 0; i < a->n; i++) {
        uint32_t of_prompt = i % (uint32_t)a->api->n;
        if (choice_start(&a->choices[i], a, i, seed_of(seed, of_prompt), e))
            return -1;
    }
    return 0;
}

void answer_start(struct request *r, struct api_request *api)
{
    struct api_error e;
    uint32_t n = api->n_prompts * (uint32_t)api->n;
    struct answer *a = arena_alloc(&r->arena, sizeof(*a));
    struct choice *choices = arena_calloc(&r->arena, n, sizeof(*choices));
    if (!a || !choices) {
        api_error_set(&e, 400, NULL, NULL, "The request takes too much memory.");
        request_fail(r, &e);
        return;
    }
    a->request = r;
    a->http = r->http;
    a->api = api;
    a->metrics = &r->http->metrics.models[api->model_index];
    a->choices = choices;
    a->n = n;
    set_identity(a);
    note_request(a);
    r->gone = on_client_gone;
    r->ctx = a;
    if (answer_prepare_chunks(a))
        api_error_set(&e, 400, NULL, NULL, "The request takes too much memory.");
    else if (start_choices(a, &e) == 0)
        return;
    answer_fail(a, &e);
}

static void handle(struct request *r, enum api_kind kind)
{
    struct api_error e;
    struct api_context ctx = {&r->http->config, r->http->texts, &r->arena, clock_wall_s(), true};
    struct api_request *api = arena_alloc(&r->arena, sizeof(*api));
    if (!api)
        api_error_set(&e, 503, NULL, NULL, "There is no memory for the request now.");
    if (!api || api_request_read(api, kind, buf_str(&r->body), r->body.len, &ctx, &e)) {
        if (api && api->grammar_pending)
            lobby_add(&r->http->lobby, r, kind == API_CHAT ? chat_handle : completions_handle);
        else
            request_fail(r, &e);
        return;
    }
    request_drop_body(r);
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < api->n_prompts; i++)
        tokens += api->prompts[i].n + (uint64_t)api->n * (uint64_t)api->max_tokens;
    auth_admit(r, api, tokens, answer_start);
}

void chat_handle(struct request *r)
{
    handle(r, API_CHAT);
}

void completions_handle(struct request *r)
{
    handle(r, API_TEXT);
}

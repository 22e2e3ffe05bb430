/* embeddings.c: POST /v1/embeddings: a generation for each input, some at a time.
 *
 *     inputs ─► pool_start, at most INPUTS_RUNNING_MAX ─► vector ─► kept until all are there ─►
 * JSON
 *
 * Everything lies in the request's arena. An input that finds all workers full waits for another
 * one of the same request to end; the request fails only when none of it runs.
 */
#include <math.h>
#include <openssl/evp.h>
#include <string.h>

#include "router/http/answer.h"
#include "router/http/auth.h"
#include "router/http/http_internal.h"
#include "router/http/route.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"

/* So that one request with many inputs leaves room in the workers' queues for others. */
#define INPUTS_RUNNING_MAX 32
/* Of one number of an answer, at most: "-1.2345678e-05," and a third more than four bytes. */
#define FLOAT_BYTES_MAX 15
#define BASE64_BYTES_MAX 6

struct embeddings;

enum input_state { INPUT_NEW, INPUT_RUNNING, INPUT_DONE };

struct input {
    struct embeddings *of;
    enum input_state state;
    struct gen *gen; /* while it runs */
    struct gen_request run;
    float *v; /* (width) once it is done */
};

struct embeddings {
    struct request *request;
    struct http *http;
    const struct api_request *api;
    struct model_metrics *metrics;
    struct input *inputs; /* (n) */
    uint32_t n, n_running, n_done;
    uint32_t next;  /* all before it have been started */
    uint32_t width; /* of a vector; 0: none came yet */
    char worker[65];
};

static void release(struct embeddings *m)
{
    for (uint32_t i = 0; i < m->n; i++)
        if (m->inputs[i].state == INPUT_RUNNING)
            pool_cancel(m->inputs[i].gen);
    m->metrics->running -= m->n_running;
}

static void on_client_gone(void *ctx)
{
    struct embeddings *m = ctx;
    m->metrics->cancelled += m->n - m->n_done;
    release(m);
}

static void fail(struct embeddings *m, const struct api_error *e)
{
    m->metrics->failed += m->n - m->n_done;
    release(m);
    request_fail(m->request, e);
}

/* ---- the answer -------------------------------------------------------------------------------
 */

/* To length 1: NUMERICS.md, "Pooling". A vector of zeros has no direction and stays. */
static void normalize(float *v, uint32_t n)
{
    double square = 0;
    for (uint32_t i = 0; i < n; i++)
        square = square + (double)v[i] * (double)v[i];
    double length = sqrt(square);
    for (uint32_t i = 0; i < n && length != 0; i++)
        v[i] = (float)((double)v[i] / length);
}

/* As numpy reads it: little-endian fp32. */
static void write_base64(const float *v, uint32_t n, struct buf *scratch, struct json *w)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fp32 is sent as it lies in memory");
    size_t bytes = n * sizeof(*v);
    buf_clear(scratch);
    char *text = buf_reserve(scratch, 4 * ((bytes + 2) / 3) + 1);
    if (text)
        json_strn(
            w, text,
            (size_t)EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)v, (int)bytes));
}

static void write_vector(const struct embeddings *m, uint32_t at, struct json *w)
{
    const float *v = m->inputs[at].v;
    json_obj(w);
    json_key(w, "object");
    json_str(w, "embedding");
    json_key(w, "index");
    json_uint(w, at);
    json_key(w, "embedding");
    if (m->api->base64) {
        write_base64(v, m->width, &m->http->piece, w);
    } else {
        json_arr(w);
        for (uint32_t i = 0; i < m->width; i++)
            json_float(w, v[i]);
        json_arr_end(w);
    }
    json_obj_end(w);
}

static uint64_t prompt_tokens(const struct embeddings *m)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < m->n; i++)
        n += m->api->prompts[i].n;
    return n;
}

static void reply(struct embeddings *m)
{
    struct buf body;
    struct json w;
    buf_init(&body, 0);
    json_init(&w, &body);
    json_obj(&w);
    json_key(&w, "object");
    json_str(&w, "list");
    json_key(&w, "data");
    json_arr(&w);
    for (uint32_t i = 0; i < m->n; i++)
        write_vector(m, i, &w);
    json_arr_end(&w);
    json_key(&w, "model");
    json_str(&w, m->api->model->name);
    json_key(&w, "usage");
    json_obj(&w);
    json_key(&w, "prompt_tokens");
    json_uint(&w, prompt_tokens(m));
    json_key(&w, "total_tokens");
    json_uint(&w, prompt_tokens(m));
    json_obj_end(&w);
    json_obj_end(&w);
    request_reply_json(m->request, 200, &body);
    buf_release(&body);
}

/* ---- while it runs ----------------------------------------------------------------------------
 */

static void start_more(struct embeddings *m);

static bool keep(struct input *in, const float *v, uint32_t n, struct api_error *e)
{
    struct embeddings *m = in->of;
    uint64_t each = m->api->base64 ? BASE64_BYTES_MAX : FLOAT_BYTES_MAX;
    if (m->width == 0)
        m->width = n;
    if (n != m->width) {
        api_error_set(e, 502, "worker_failed", NULL, "Vectors of one model differ in length.");
        return false;
    }
    if ((uint64_t)m->n * n * each > m->http->config.request_bytes_max ||
        !(in->v = arena_memdup(&m->request->arena, v, n * sizeof(*v)))) {
        api_error_set(e, 400, "answer_too_large", "input",
                      "The answer is too large to be kept: ask for fewer inputs.");
        return false;
    }
    if (m->api->normalize)
        normalize(in->v, n);
    return true;
}

static void leave(struct input *in, enum input_state state)
{
    in->gen = NULL;
    in->state = state;
    in->of->n_running--;
    in->of->metrics->running--;
}

static void note_worker(struct embeddings *m, const char *id)
{
    size_t n = strlen(id);
    if (m->worker[0] || n == 0 || n >= sizeof(m->worker))
        return;
    memcpy(m->worker, id, n + 1);
    request_header(m->request, "X-Argosy-Worker", m->worker);
}

static void on_embedding(void *ctx, const float *v, uint32_t n, const struct gen_usage *usage)
{
    struct input *in = ctx;
    struct embeddings *m = in->of;
    struct api_error e;
    note_worker(m, gen_worker_id(in->gen));
    leave(in, INPUT_DONE);
    if (!keep(in, v, n, &e)) {
        fail(m, &e);
        return;
    }
    m->n_done++;
    m->request->used_tokens += usage->prompt_tokens;
    m->metrics->finished[GEN_STOP]++;
    m->metrics->prompt_tokens += usage->prompt_tokens;
    m->request->journal.prompt_tokens += usage->prompt_tokens;
    journal_done(&m->request->journal, (uint32_t)(in - m->inputs), 0, 0, 0, clock_mono_ns());
    if (m->n_done < m->n) {
        start_more(m);
        return;
    }
    histogram_add(&m->metrics->e2e, (double)(clock_mono_ns() - m->request->start_ns) / 1e9);
    reply(m);
}

static void on_place(void *ctx, const char *worker, bool moved)
{
    struct input *in = ctx;
    struct journal *j = &in->of->request->journal;
    uint32_t at = (uint32_t)(in - in->of->inputs);
    if (worker)
        journal_place(j, at, worker, clock_mono_ns());
    else
        journal_leave(j, at, moved, clock_mono_ns());
}

static void on_fail(void *ctx, enum gen_fault fault, const char *detail, uint32_t retry_after_ms)
{
    struct input *in = ctx;
    struct embeddings *m = in->of;
    struct api_error e;
    leave(in, INPUT_NEW);
    if (fault == GEN_FAULT_BUSY && m->n_running > 0) {
        uint32_t at = (uint32_t)(in - m->inputs);
        m->next = at < m->next ? at : m->next;
        return;
    }
    api_error_of_fault(&e, fault, detail, retry_after_ms);
    fail(m, &e);
}

static void fill_run(struct input *in)
{
    struct embeddings *m = in->of;
    const struct api_request *api = m->api;
    const struct api_prompt *prompt = &api->prompts[in - m->inputs];
    in->run = (struct gen_request){
        .model = api->model->name,
        .prompt = prompt->ids,
        .n_prompt = prompt->n,
        .max_tokens = 1,
        .sampling = {.top_p = 1, .repetition_penalty = 1},
        .pooling = api->pooling,
        .session_hash = answer_session(m->request, api),
        .deadline_ms = answer_deadline_ms(api, m->http->config.deadline_ms),
        .tenant = auth_tenant(m->request),
        .priority = -(int32_t)api->priority,
        .traceparent = m->request->traceparent,
        .wants = api->wants,
        .n_wants = api->n_wants,
        .price_max = api->price_max,
    };
    auth_salt(m->request, api->cache_salt, in->run.cache_salt);
}

/* 0, or -1 with the error; *full says that another try may do. */
static int start(struct input *in, bool *full, struct api_error *e)
{
    static const struct gen_callbacks callbacks = {
        .embedding = on_embedding, .fail = on_fail, .place = on_place};
    struct embeddings *m = in->of;
    enum gen_fault fault = GEN_FAULT_NO_WORKER;
    struct err why = {0};
    fill_run(in);
    in->gen = pool_start(m->http->pool, &in->run, &callbacks, in, &fault, &why);
    *full = fault == GEN_FAULT_BUSY;
    if (!in->gen) {
        api_error_of_fault(e, fault, why.msg, pool_retry_after_ms(m->http->pool));
        return -1;
    }
    in->state = INPUT_RUNNING;
    m->n_running++;
    m->metrics->running++;
    return 0;
}

static void start_more(struct embeddings *m)
{
    struct api_error e;
    for (; m->next < m->n && m->n_running < INPUTS_RUNNING_MAX; m->next++) {
        bool full;
        if (m->inputs[m->next].state != INPUT_NEW || start(&m->inputs[m->next], &full, &e) == 0)
            continue;
        if (!full || m->n_running == 0)
            fail(m, &e);
        return;
    }
}

static void embeddings_start(struct request *r, struct api_request *api)
{
    struct api_error e;
    struct embeddings *m = arena_alloc(&r->arena, sizeof(*m));
    struct input *inputs = arena_calloc(&r->arena, api->n_prompts, sizeof(*inputs));
    if (!m || !inputs) {
        api_error_set(&e, 400, NULL, NULL, "The request takes too much memory.");
        request_fail(r, &e);
        return;
    }
    *m = (struct embeddings){.request = r,
                             .http = r->http,
                             .api = api,
                             .metrics = &r->http->metrics.models[api->model_index],
                             .inputs = inputs,
                             .n = api->n_prompts};
    for (uint32_t i = 0; i < m->n; i++)
        inputs[i].of = m;
    r->journal.operation = JOURNAL_EMBEDDINGS;
    r->journal.model = api->model->name;
    r->journal.model_index = (uint32_t)api->model_index;
    r->journal.n_choices = m->n;
    r->gone = on_client_gone;
    r->ctx = m;
    start_more(m);
}

void embeddings_handle(struct request *r)
{
    struct api_error e;
    struct api_context ctx = {&r->http->config, r->http->texts, &r->arena, clock_wall_s(), false};
    struct api_request *api = arena_alloc(&r->arena, sizeof(*api));
    if (!api)
        api_error_set(&e, 503, NULL, NULL, "There is no memory for the request now.");
    if (!api || api_request_read(api, API_EMBEDDING, buf_str(&r->body), r->body.len, &ctx, &e)) {
        request_fail(r, &e);
        return;
    }
    request_drop_body(r);
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < api->n_prompts; i++)
        tokens += api->prompts[i].n;
    auth_admit(r, api, tokens, embeddings_start);
}

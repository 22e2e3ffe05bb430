#include "runtime/worker/report.h"

#include "runtime/base/arena.h"

/* Over the largest step that can be: 4,096 sequences with 20 alternatives each take 2 MiB. */
#define FRAME_MEMORY_MAX ((size_t)64 << 20)
/* Embeddings in one frame; a step with more is told in several. */
#define FRAME_VECTORS_MAX ((size_t)512 << 10)

static Argosy__Finish finish_of(enum engine_finish f)
{
    switch (f) {
    case ENGINE_STOP:
        return ARGOSY__FINISH__FINISH_STOP;
    case ENGINE_LENGTH:
        return ARGOSY__FINISH__FINISH_LENGTH;
    case ENGINE_ERROR:
        return ARGOSY__FINISH__FINISH_ERROR;
    default:
        return ARGOSY__FINISH__FINISH_NONE;
    }
}

/* The engine's arrays are borrowed: the frame is packed before the next step. */
static int fill_logprobs(struct arena *mem, const struct engine_delta *in, uint32_t n_top,
                         Argosy__Delta *out)
{
    Argosy__TokenLogprobs *items = arena_calloc(mem, in->n_tokens, sizeof(*items));
    out->logprobs = arena_calloc(mem, in->n_tokens, sizeof(void *));
    if (!items || !out->logprobs)
        return -1;
    for (uint32_t i = 0; i < in->n_tokens; i++) {
        argosy__token_logprobs__init(&items[i]);
        items[i].logprob = in->sampled[i].logprob;
        items[i].top_ids = (uint32_t *)in->sampled[i].top_ids;
        items[i].top_logprobs = (float *)in->sampled[i].top_logprobs;
        items[i].n_top_ids = items[i].n_top_logprobs = n_top;
        out->logprobs[i] = &items[i];
    }
    out->n_logprobs = in->n_tokens;
    return 0;
}

static int fill_delta(struct arena *mem, const struct engine_delta *in, const struct job *job,
                      Argosy__Delta *out)
{
    argosy__delta__init(out);
    out->request = job->request;
    out->index = in->index;
    out->tokens = (uint32_t *)in->tokens;
    out->n_tokens = in->n_tokens;
    out->finish = finish_of(in->finish);
    out->cached_tokens = in->cached_tokens;
    out->embedding = (float *)in->embedding;
    out->n_embedding = in->n_embedding;
    if (in->finish == ENGINE_ERROR && in->error)
        out->error = (char *)in->error;
    out->hopeless = in->hopeless;
    if (in->sampled && in->n_tokens)
        return fill_logprobs(mem, in, job->top_logprobs, out);
    return 0;
}

/* What of a delta could make a frame too large: the rest is bounded by FRAME_MEMORY_MAX. */
static size_t vector_bytes(const struct engine_delta *d)
{
    return d->n_embedding * sizeof(*d->embedding);
}

static void send_step(struct attachment *owner, Argosy__Step *m)
{
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_STEP;
    f.step = m;
    if (m->n_deltas)
        attachment_send(owner, &f);
    /* What follows belongs to the same step, whose times are told already. */
    m->n_deltas = 0;
    m->duration_us = m->prefill_tokens = m->decode_tokens = 0;
}

int report_step(struct attachment *owner, struct jobs *jobs, const struct engine_step *step,
                uint64_t step_number, struct err *e)
{
    Argosy__Step m = ARGOSY__STEP__INIT;
    struct arena mem;
    size_t vectors = 0;
    arena_init(&mem, FRAME_MEMORY_MAX);
    Argosy__Delta *deltas = arena_calloc(&mem, step->n_deltas, sizeof(*deltas));
    m.deltas = arena_calloc(&mem, step->n_deltas, sizeof(void *));
    bool ok = deltas && m.deltas;
    m.step = step_number;
    m.duration_us = step->duration_us;
    m.prefill_tokens = step->prefill_tokens;
    m.decode_tokens = step->decode_tokens;
    for (uint32_t i = 0; ok && i < step->n_deltas; i++) {
        const struct job *job = jobs_by_engine(jobs, step->deltas[i].id);
        if (!job || job->owner != owner)
            continue;
        vectors += vector_bytes(&step->deltas[i]);
        if (vectors > FRAME_VECTORS_MAX) {
            send_step(owner, &m);
            vectors = vector_bytes(&step->deltas[i]);
        }
        ok = fill_delta(&mem, &step->deltas[i], job, &deltas[i]) == 0;
        m.deltas[m.n_deltas++] = &deltas[i];
    }
    if (ok)
        send_step(owner, &m);
    arena_release(&mem);
    return ok ? 0 : err_set(e, ERR_NOMEM, "no memory for a frame of %u deltas", step->n_deltas);
}

void report_retire(struct jobs *jobs, const struct engine_step *step)
{
    for (uint32_t i = 0; i < step->n_deltas; i++) {
        struct job *job = jobs_by_engine(jobs, step->deltas[i].id);
        if (job && step->deltas[i].finish != ENGINE_GOES_ON)
            jobs_remove(jobs, job);
    }
}

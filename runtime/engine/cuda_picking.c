/* cuda_picking.c: tokens are picked on the GPU, so that logits stay there unless the host wants to
 * see them: those of a pick without a sampling, and of one with a digest. A batch whose lists
 * (penalties, bias) are longer than the room for them is picked on the host, with the same bits. */
#include "runtime/base/check.h"
#include "runtime/engine/backend_cuda.h"
#include "runtime/engine/picking.h"

static bool is_wanted(const struct pick *k)
{
    return !k->sampling || k->want_digest;
}

static float *host_row(const struct cuda *c, uint32_t i)
{
    return c->host_logits + (uint64_t)i * c->model->h.vocab;
}

/* The batch's samplings go up. False where they have no room. */
static bool bring_up_samplings(struct cuda *c)
{
    const struct batch *b = c->batch;
    uint32_t vocab = c->model->h.vocab;
    for (uint32_t i = 0; i < b->n_picks; i++)
        c->pick_list[i] = (struct kn_cuda_pick){
            .sampling = b->picks[i].sampling, .position = b->picks[i].position, .row = i};
    size_t bytes = vocab <= KN_CUDA_VOCAB_MAX
                       ? kn_cuda_sampling_bytes(c->pick_list, b->n_picks, vocab)
                       : c->packed_bytes + 1;
    if (bytes > c->packed_bytes)
        return false;
    c->sample_steps = kn_cuda_pack_sampling(c->pick_list, b->n_picks, vocab, c->host_packed);
    return cuda_ok(
        c, cudaMemcpyAsync(c->packed, c->host_packed, bytes, cudaMemcpyHostToDevice, c->stream),
        "copying samplings");
}

void cuda_queue_samplings(struct cuda *c)
{
    c->sample_steps = 0;
    c->picks_there = c->batch->n_picks > 0 && c->failed.code == 0 && bring_up_samplings(c);
}

void cuda_queue_sample(struct cuda *c)
{
    uint32_t n = c->batch->n_picks, vocab = c->model->h.vocab;
    if (!c->picks_there || c->failed.code < 0)
        return;
    if (cuda_ok(c,
                kn_cuda_sample(c->logits, vocab, vocab, c->packed, n, c->sample_steps,
                               c->sample_scratch, c->sampled, c->finite, c->stream),
                "sample")) {
        cuda_bring_down(c, c->host_sampled, c->sampled, n * sizeof(*c->sampled));
        cuda_bring_down(c, c->host_finite, c->finite, n * sizeof(*c->finite));
    }
}

void cuda_queue_logits(struct cuda *c)
{
    uint32_t vocab = c->model->h.vocab;
    for (uint32_t i = 0; i < c->batch->n_picks; i++)
        if (!c->picks_there || is_wanted(&c->batch->picks[i]))
            cuda_bring_down(c, host_row(c, i), c->logits + (uint64_t)i * vocab,
                            vocab * sizeof(float));
}

void cuda_sample_on_host(struct cuda *c, uint32_t i)
{
    struct pick *k = &c->batch->picks[i];
    if (k->sampling && k->finite)
        c->ops->sample(host_row(c, i), c->model->h.vocab, k->sampling, k->position, c->scratch,
                       &k->sampled);
}

void cuda_answer_picks(struct cuda *c)
{
    for (uint32_t i = 0; i < c->batch->n_picks; i++) {
        struct pick *k = &c->batch->picks[i];
        if (!c->picks_there || is_wanted(k))
            picking_examine(k, host_row(c, i), c->model->h.vocab);
        else
            k->finite = c->host_finite[i] != 0;
        if (!c->picks_there)
            cuda_sample_on_host(c, i);
        else if (k->sampling)
            k->sampled = c->host_sampled[i];
    }
}

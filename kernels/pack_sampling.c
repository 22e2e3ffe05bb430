/* pack_sampling.c: the parameters of a batch of picks as one buffer, for a GPU: the structs, one
 * behind another, then their lists, each at a multiple of 4 bytes. */
#include <string.h>

#include "kernels/cuda_kernels.h"

/* What a pick's lists come to: those that change nothing are left out. */
struct lists {
    uint32_t n_context, n_seen, n_bias, mask_words;
};

static struct lists lists_of(const struct kn_sampling *p, uint32_t vocab)
{
    struct lists l = {0};

    if (p == NULL) {
        return l;
    }
    l.n_context = p->repetition_penalty != 1.0f ? p->n_context : 0;
    l.n_seen = p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f ? p->n_seen : 0;
    l.n_bias = p->n_bias;
    l.mask_words = p->mask != NULL ? (vocab + 31) / 32 : 0;
    return l;
}

static size_t struct_bytes(uint32_t n)
{
    return (size_t)n * sizeof(struct kn_cuda_sampling);
}

size_t kn_cuda_sampling_bytes(const struct kn_cuda_pick *picks, uint32_t n, uint32_t vocab)
{
    size_t words = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct lists l = lists_of(picks[i].sampling, vocab);
        words += (size_t)l.n_context + 2 * (size_t)l.n_seen + 2 * (size_t)l.n_bias + l.mask_words;
    }
    return struct_bytes(n) + words * sizeof(uint32_t);
}

/* Copies n words to *at and moves it behind them; returns where they are. */
static uint32_t put(void *dst, uint32_t *at, const void *words, uint32_t n)
{
    uint32_t begin = *at;

    if (n != 0) {
        memcpy((uint32_t *)dst + begin, words, (size_t)n * sizeof(uint32_t));
    }
    *at += n;
    return begin;
}

static unsigned steps_of(const struct kn_cuda_sampling *p)
{
    unsigned steps = p->want_logprobs ? KN_CUDA_SAMPLE_LOGPROBS : 0;

    if (p->temperature > 0.0f) {
        steps |= KN_CUDA_SAMPLE_DRAW;
        steps |= p->top_k != 0 ? KN_CUDA_SAMPLE_TOP_K : 0;
        steps |= p->top_p < 1.0f ? KN_CUDA_SAMPLE_TOP_P : 0;
    }
    return steps;
}

static void pack_one(const struct kn_cuda_pick *pick, uint32_t vocab, void *dst, uint32_t *at,
                     struct kn_cuda_sampling *to)
{
    const struct kn_sampling *p = pick->sampling;
    struct lists l = lists_of(p, vocab);
    uint32_t most = vocab < KN_TOP_LOGPROBS_MAX ? vocab : KN_TOP_LOGPROBS_MAX;

    memset(to, 0, sizeof(*to));
    to->row = pick->row;
    if (p == NULL) {
        return;
    }
    to->want_token = true;
    to->position = pick->position;
    to->seed = p->seed;
    to->temperature = p->temperature;
    to->top_k = p->top_k;
    to->top_p = p->top_p;
    to->min_p = p->min_p;
    to->presence_penalty = p->presence_penalty;
    to->frequency_penalty = p->frequency_penalty;
    to->repetition_penalty = p->repetition_penalty;
    to->want_logprobs = p->want_logprobs;
    if (p->want_logprobs) {
        to->n_top = p->n_top < most ? p->n_top : most;
    }
    to->n_context = l.n_context;
    to->n_seen = l.n_seen;
    to->n_bias = l.n_bias;
    to->context_ids_at = put(dst, at, p->context_ids, l.n_context);
    to->seen_ids_at = put(dst, at, p->seen_ids, l.n_seen);
    to->seen_counts_at = put(dst, at, p->seen_counts, l.n_seen);
    to->bias_ids_at = put(dst, at, p->bias_ids, l.n_bias);
    to->bias_values_at = put(dst, at, p->bias_values, l.n_bias);
    if (p->mask != NULL) {
        to->mask_at = put(dst, at, p->mask, l.mask_words);
    }
}

unsigned kn_cuda_pack_sampling(const struct kn_cuda_pick *picks, uint32_t n, uint32_t vocab,
                               void *dst)
{
    struct kn_cuda_sampling *to = dst;
    uint32_t at = (uint32_t)(struct_bytes(n) / sizeof(uint32_t));
    unsigned steps = 0;

    for (uint32_t i = 0; i < n; i++) {
        pack_one(&picks[i], vocab, dst, &at, &to[i]);
        steps |= steps_of(&to[i]);
    }
    return steps;
}

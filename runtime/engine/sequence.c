#include "runtime/engine/sequence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/model/adapter.h"

static int check_tokens(const char *what, const uint32_t *ids, uint32_t n, uint32_t vocab,
                        struct err *e)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= vocab)
            return err_set(e, ERR_RANGE, "%s: token %u is %u, the vocabulary has %u", what, i,
                           ids[i], vocab);
    return 0;
}

static int check_pooled(const struct engine_request *r, const struct sequence_limits *l,
                        struct err *e)
{
    if (r->pooling != ENGINE_POOLING_MEAN && r->pooling != ENGINE_POOLING_LAST)
        return err_set(e, ERR_UNSUPPORTED, "pooling %d is not served", (int)r->pooling);
    if (r->n_output > 0)
        return err_set(e, ERR_RANGE, "an embedding has no output tokens");
    if (r->n_prompt > l->context)
        return err_set(e, ERR_LIMIT, "the prompt has %u tokens, the context %u", r->n_prompt,
                       l->context);
    return check_tokens("prompt", r->prompt, r->n_prompt, l->model.vocab, e);
}

static int check_request(const struct engine_request *r, const struct sequence_limits *l,
                         struct err *e)
{
    if (r->n_prompt == 0)
        return err_set(e, ERR_RANGE, "the prompt is empty");
    if (r->adapter > l->n_adapters)
        return err_set(e, ERR_RANGE, "there is no adapter %u", r->adapter);
    if (r->pooling != ENGINE_POOLING_NONE)
        return check_pooled(r, l, e);
    if (r->n_prompt >= l->context)
        return err_set(e, ERR_LIMIT,
                       "the prompt has %u tokens, the context of %u has room for %u and an answer",
                       r->n_prompt, l->context, l->context - 1);
    if (r->n_output > l->context - r->n_prompt)
        return err_set(e, ERR_LIMIT, "prompt and output have %u and %u tokens, the context %u",
                       r->n_prompt, r->n_output, l->context);
    if (r->max_tokens == 0)
        return err_set(e, ERR_RANGE, "max_tokens is 0");
    if (r->n_output > r->max_tokens)
        return err_set(e, ERR_RANGE, "%u output tokens, max_tokens is %u", r->n_output,
                       r->max_tokens);
    int rc = check_tokens("prompt", r->prompt, r->n_prompt, l->model.vocab, e);
    return rc == 0 ? check_tokens("output", r->output, r->n_output, l->model.vocab, e) : rc;
}

/* What is cached with an adapter is never found without it, or with another one. */
static void begin_prefix(struct sequence *s, const struct engine_request *r,
                         const struct sequence_limits *l)
{
    char text[2 * 64 + 2];
    const char *manifest = l->manifest;
    if (r->adapter > 0) {
        s->adapter = &l->adapters[r->adapter - 1];
        snprintf(text, sizeof(text), "%s:%s", l->manifest, s->adapter->sha256);
        manifest = text;
    }
    prefix_init(&s->prefix, blockhash_root(manifest, r->cache_salt), r->cache_salt);
    s->prefix.adapter = r->adapter;
}

static int copy_request(struct sequence *s, const struct engine_request *r,
                        const struct sequence_limits *l, struct err *e)
{
    uint32_t room = l->context - r->n_prompt;
    uint32_t output_max = r->max_tokens < room ? r->max_tokens : room;
    if (r->pooling != ENGINE_POOLING_NONE)
        output_max = 0;
    s->id = r->id;
    s->priority = r->priority;
    s->deadline_ms = r->deadline_ms;
    begin_prefix(s, r, l);
    s->n_prompt = r->n_prompt;
    s->n_tokens = r->n_prompt;
    s->tokens_max = r->n_prompt + output_max;
    s->tokens = arena_calloc(&s->arena, s->tokens_max, sizeof(*s->tokens));
    s->pages = arena_calloc(&s->arena, sequence_pages(s->tokens_max), sizeof(*s->pages));
    if (!s->tokens || !s->pages)
        return err_set(e, ERR_NOMEM, "no memory for the request");
    memcpy(s->tokens, r->prompt, r->n_prompt * sizeof(*s->tokens));
    int rc = embedding_init(&s->embedding, r->pooling, l->n_embd, &s->arena, e);
    if (rc < 0 || r->pooling != ENGINE_POOLING_NONE)
        return rc;
    rc = sampler_init(&s->sampler, &l->model, r, output_max, &s->arena, e);
    for (uint32_t i = 0; rc == 0 && i < r->n_output && s->finish == ENGINE_GOES_ON; i++)
        sequence_accept(s, r->output[i]);
    if (rc == 0 && sampler_refusal(&s->sampler))
        rc = err_set(e, ERR_RANGE, "%s", sampler_refusal(&s->sampler));
    return rc;
}

int sequence_create(const struct engine_request *r, const struct sequence_limits *l,
                    struct sequence **out, struct err *e)
{
    int rc = check_request(r, l, e);
    if (rc < 0)
        return rc;
    struct sequence *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ERR_NOMEM, "no memory for the request");
    arena_init(&s->arena, 0); /* every part was bounded: context, vocabulary, limits of sampler.h */
    rc = copy_request(s, r, l, e);
    if (rc < 0)
        sequence_free(s);
    else
        *out = s;
    return rc;
}

void sequence_free(struct sequence *s)
{
    if (!s)
        return;
    ASSERT(s->n_pages == 0);
    sampler_release(&s->sampler);
    arena_release(&s->arena);
    free(s);
}

void sequence_accept(struct sequence *s, uint32_t token)
{
    ASSERT(s->n_tokens < s->tokens_max && s->finish == ENGINE_GOES_ON);
    s->tokens[s->n_tokens++] = token;
    if (sampler_accept(&s->sampler, token))
        s->finish = ENGINE_STOP;
    else if (s->n_tokens == s->tokens_max)
        s->finish = ENGINE_LENGTH;
}

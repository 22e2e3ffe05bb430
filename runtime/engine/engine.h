/* engine.h: runs models: requests in, tokens out, one step at a time.
 *
 * What: continuous batching over paged KV. Requests join and leave at every step; what a request's
 * tokens are never depends on that (kernels/NUMERICS.md).
 *
 * Thread: one thread owns an engine and makes every call; the engine keeps a pool of helper threads
 * for the arithmetic, idle between steps. One thread may open it, another one use it and a third
 * free it, where each hands it on for good, through a mutex. Ranks are child processes (ranks.h):
 * they end with the thread that opened the engine, so that has to outlive it.
 *
 * Memory: weights, KV pages and activations are taken in engine_open; a request takes an arena of
 * its own, bounded by the limits of the config.
 */
#ifndef ARGOSY_ENGINE_ENGINE_H
#define ARGOSY_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "runtime/base/err.h"
#include "runtime/engine/fast.h"

struct drafter;
struct engine;
struct grammar_source;
struct grammar_store;
struct tokenizer;

/* How tokens are guessed ahead, so that a step can give several of them. The tokens are the same.
 */
enum engine_speculation {
    ENGINE_SPECULATE_OFF,
    ENGINE_SPECULATE_LOOKUP, /* what followed the same tokens before */
    ENGINE_SPECULATE_DRAFT,  /* what a smaller model says, draft_model */
    ENGINE_SPECULATE_AUTO,   /* DRAFT where there is a draft_model, else LOOKUP */
};

#define ENGINE_ADAPTERS_MAX 64u

/* A LoRA adapter that requests may ask for. */
struct engine_adapter {
    const char *name;   /* for people */
    const char *path;   /* a folder of PEFT's (runtime/format/peft.h) */
    const char *sha256; /* out, in engine_info: hex, of its files */
};

struct engine_config {
    const char *model_path;     /* a GGUF file, or a folder (checkpoint.h) */
    const char *isa;            /* "auto", "ref", "avx2", "avx512", "amx" */
    const char *device;         /* gpu.h; "cpu", as NULL is here, "auto", "cuda", "cuda:N" */
    uint32_t threads;           /* of each rank; 0: one a core, shared out over the ranks */
    uint32_t ranks;             /* processes that share the model out; 0 or 1: this one alone */
    uint32_t ranks_patience_ms; /* how long a rank may keep the others waiting */
    uint64_t kv_bytes; /* of all ranks, for KV pages; 0: room for 4 contexts, at most a quarter of
                          the memory */
    /* Of a GPU: page-locked memory of the host, for KV pages of the prefix cache that the GPU has
     * no room for; 0: none. The CPU's KV lies on the host anyway, so there it is ignored. */
    uint64_t kv_host_bytes;
    uint64_t memory_bytes;    /* what a quarter of the memory is one of; 0: the machine's */
    enum kn_kv_type kv_type;  /* int8 takes half the memory, changes the tokens and the manifest */
    enum fast_mode fast;      /* not exact: changes the tokens and the manifest */
    uint32_t context_max;     /* tokens of one request; 0: what the model was trained for */
    uint32_t sequences_max;   /* requests that run at once */
    uint32_t waiting_max;     /* requests that wait; one more is refused */
    uint32_t step_tokens_max; /* prompt and output tokens that one step computes at most */
    /* While requests decode, prompts get so much of a step that it takes at most so many times as
     * long as without them; 0: all of step_tokens_max. */
    double stall_max;
    /* A request goes before those of one priority less that came up to so many computed tokens
     * earlier; 0: 65,536. */
    uint32_t priority_tokens;
    uint64_t (*clock_ns)(void); /* that steps are measured with; NULL: clock_mono_ns */
    bool prefix_cache;          /* keep the KV of full blocks for prompts that begin the same */
    enum engine_speculation speculate;
    const char *draft_model;   /* a GGUF file with the same tokens */
    uint32_t draft_tokens_max; /* guesses of one request in one step */
    bool draft_always;         /* also where it does not pay: for tests and measurements */
    struct drafter *drafter;   /* in place of those of `speculate`, borrowed: for tests */
    const struct engine_adapter *adapters; /* (n_adapters), borrowed for engine_open */
    uint32_t n_adapters;
    bool logits_digests; /* fill in engine_delta.logits_digests; costs a pass over the logits */
};

/* What the worker tells the router about the model. Strings live as long as the engine. */
struct engine_info {
    const char *architecture;    /* "llama" */
    const char *manifest_sha256; /* hex: equal manifests give equal bits */
    const char *isa;             /* of the CPU; "cuda" on a GPU */
    uint32_t context_tokens;
    uint32_t vocab;
    uint32_t n_embd;
    uint32_t kv_pages;
    uint32_t kv_host_pages; /* that the host has room for besides */
    uint32_t page_tokens;
    uint32_t sequences_max;
    uint64_t weight_bytes;
    uint64_t kv_bytes;
    const struct engine_adapter *adapters; /* (n_adapters), in the config's order */
    uint32_t n_adapters;
};

/* What engine_open would come to, as far as the file says. Adapters and the drafter not included.
 */
struct engine_outline {
    char manifest_sha256[65]; /* "": not asked for */
    uint32_t context_tokens;
    uint32_t kv_pages;
    uint32_t kv_host_pages;
    uint32_t page_tokens;
    uint64_t weight_bytes; /* of all ranks */
    uint64_t kv_bytes;
};

/* Reads what the file says of the model, and all of it where its manifest is wanted. Any thread;
 * fails as engine_open does. */
int engine_outline(const struct engine_config *config, bool with_manifest,
                   struct engine_outline *out, struct err *e);

int engine_open(const struct engine_config *config, struct engine **out, struct err *e);
void engine_free(struct engine *g);
const struct engine_info *engine_info(const struct engine *g);
const struct tokenizer *engine_tokenizer(const struct engine *g);
/* Grammars over its vocabulary. What was compiled there before costs engine_submit nothing. NULL:
 * none, and engine_submit says so. */
struct grammar_store *engine_grammars(const struct engine *g);

/* A vector of the prompt in place of tokens (kernels/NUMERICS.md, "Pooling"). */
enum engine_pooling { ENGINE_POOLING_NONE, ENGINE_POOLING_MEAN, ENGINE_POOLING_LAST };

/* Everything is borrowed for the call; the engine copies what it keeps. */
struct engine_request {
    uint64_t id; /* the caller's; unique among those that live */
    const uint32_t *prompt;
    uint32_t n_prompt;
    const uint32_t *output; /* tokens that are out already: the stream goes on behind them */
    uint32_t n_output;
    uint32_t max_tokens; /* output tokens in all, n_output included; at least 1 */
    uint32_t min_tokens; /* no end of sequence and no stop before so many */
    bool ignore_eos;
    const char *const *stop;
    uint32_t n_stop;
    const uint32_t *stop_ids;
    uint32_t n_stop_ids;
    /* seen_*, context_* and mask are the engine's to fill; bias_* are the request's, ids in any
     * order. */
    struct kn_sampling sampling;
    uint64_t deadline_ms;   /* clock_mono_ms at which to give up; 0: none */
    int32_t priority;       /* higher first, as far as engine_config.priority_tokens goes */
    uint8_t cache_salt[16]; /* the prefix cache is shared only under equal salts */
    /* Not NONE: n_output is 0, and nothing of sampling, stops and numbers of tokens is read. The
     * prompt may fill the context. */
    enum engine_pooling pooling;
    uint32_t adapter;                     /* 0: none; else 1 + its place in info.adapters */
    const struct grammar_source *grammar; /* what the output follows; NULL: anything */
};

/* Queues the request. ERR_BUSY: the queue is full, or the memory for grammars. ERR_RANGE,
 * ERR_LIMIT, ERR_FORMAT, ERR_UNSUPPORTED: it can never run here (a token outside the vocabulary,
 * longer than the context or the pool, a grammar that can't be compiled); the message is for the
 * client. */
int engine_submit(struct engine *g, const struct engine_request *r, struct err *e);

/* The request is gone at once, its pages are free, nothing more is said of it. Unknown ids are
 * ignored. */
void engine_cancel(struct engine *g, uint64_t id);

enum engine_finish {
    ENGINE_GOES_ON,
    ENGINE_STOP,   /* end of sequence, a stop id or a stop string */
    ENGINE_LENGTH, /* max_tokens, or the context is full */
    ENGINE_ERROR,  /* error says why; the deadline counts here */
};

/* News of one request. The token that ends the output (EOS, a stop id, the last of a stop string)
 * is among the tokens. Without tokens: an embedding, a failure, or a request whose output was
 * complete when it came. */
struct engine_delta {
    uint64_t id;
    uint32_t index;         /* place of the first token among the request's output tokens */
    uint32_t n_tokens;      /* 0 only with a finish */
    const uint32_t *tokens; /* (n_tokens) */
    const struct kn_sampled *sampled; /* (n_tokens) with logprobs, NULL when none were asked for */
    const uint64_t *logits_digests; /* (n_tokens) of what they were picked from; NULL: not wanted */
    uint32_t cached_tokens;         /* prompt tokens that came from the cache; with index 0 */
    enum engine_finish finish;
    const char *error;
    bool hopeless;          /* ENGINE_ERROR: the request's own doing, the same everywhere */
    const float *embedding; /* (n_embedding) with the finish of a request that pools; else NULL */
    uint32_t n_embedding;   /* info.n_embd, or 0 */
};

/* What a step did. Valid until the next call on the engine. */
struct engine_step {
    const struct engine_delta *deltas;
    uint32_t n_deltas;
    uint32_t prefill_tokens;
    uint32_t decode_tokens; /* that came to sequences behind their first */
    uint32_t duration_us;
};

struct engine_load {
    uint32_t running;
    uint32_t waiting;
    uint32_t kv_pages_used; /* by requests */
    uint32_t kv_pages_idle; /* of the prefix cache, in nobody's use: as good as free */
    uint64_t kv_host_bytes_used;
    uint64_t kv_pages_out, kv_pages_in; /* copied to the host and back */
    uint64_t steps;
    uint64_t drafted;      /* tokens that were guessed */
    uint64_t drafts_right; /* those of them that came */
    uint64_t preempted;    /* times that a request lost its pages and was computed again */
};

/* Does one step if there is anything to do. Returns true while requests are left. */
bool engine_step(struct engine *g, struct engine_step *out);

/* 0, or ERR_PEER with the words once a rank is lost: the engine computes nothing any more, and
 * steps have no deltas, because the requests can go on elsewhere. Never waits. */
int engine_check(struct engine *g, struct err *e);
struct engine_load engine_load(const struct engine *g);

/* Hashes of cached blocks (runtime/base/blockhash.h), on the device or the host, that came and went
 * since the last call; at most one for each page, of either, in either list. One that is in both
 * has moved: apply `evicted` first. Valid until the next call. */
struct engine_cache_news {
    const uint64_t *evicted, *stored;
    uint32_t n_evicted, n_stored;
};
void engine_cache_news(struct engine *g, struct engine_cache_news *out);

/* All that the news have told of and that is still so, in parts: fills in up to cap hashes from
 * *cursor (0 at first) on, and moves it. Fewer than cap: that was the end. News in between are
 * simply applied. */
uint32_t engine_cache_blocks(const struct engine *g, uint32_t *cursor, uint64_t *hashes,
                             uint32_t cap);

#endif

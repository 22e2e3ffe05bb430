/* cachefeed.h: tells routers which blocks of prompts are cached here (CacheEvents).
 *
 * News of the engines' prefix caches go to every attached router at once, those of CACHEFEED_GAP_MS
 * together. A router that attached starts from nothing: it is sent all that is cached, in parts,
 * between the news. Within a frame what is evicted goes first, and frames are applied in order, so
 * what a router holds at the end of the news is what the engines held. Hashes of two models differ,
 * since their manifests do (runtime/base/blockhash.h); a model that leaves takes all of its along.
 *
 * Memory: one frame, taken in cachefeed_init. Engine thread only.
 */
#ifndef ARGOSY_WORKER_CACHEFEED_H
#define ARGOSY_WORKER_CACHEFEED_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/engine/engine.h"
#include "runtime/worker/attachment.h"

#define CACHEFEED_GAP_MS 20

struct cachefeed {
    struct roster *roster; /* borrowed */
    uint64_t *part;        /* (FRAME_BLOCKS_MAX): of all that is cached */
    uint64_t sent_at_ms;
    bool stepped; /* since the last news */
};

int cachefeed_init(struct cachefeed *f, struct roster *roster, struct err *e);
void cachefeed_release(struct cachefeed *f);

/* The model's engine is about to go: its blocks are no more. */
void cachefeed_leaves(struct cachefeed *f, const struct offer *o, struct attachment *attachments,
                      size_t n);

/* After every step: there may be news. */
void cachefeed_stepped(struct cachefeed *f);

/* Sends what is due. Returns when it wants to be called again. */
uint64_t cachefeed_tick(struct cachefeed *f, struct attachment *attachments, size_t n,
                        uint64_t now_ms);

#endif

/* frame.h: between bytes of the wire and frames that the rest of the program may trust.
 *
 * frame_unpack_* is the one place where what a peer says is checked: sizes, list lengths, counts
 * that must agree, UTF-8, finite numbers. What it lets through needs no such check again; whether
 * the values make sense for a model is the engine's to say. Any thread, no state.
 *
 * Memory: unpacking takes at most frame_budget(n) bytes for n bytes of wire, whatever they say.
 */
#ifndef ARGOSY_RPC_FRAME_H
#define ARGOSY_RPC_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/err.h"

#include "proto/cluster.pb-c.h"

#define FRAME_TOKENS_MAX (1u << 20)       /* of a prompt, of an output */
#define FRAME_DELTAS_MAX (1u << 16)       /* of a step */
#define FRAME_DELTA_TOKENS_MAX (1u << 12) /* of one request in one step */
#define FRAME_TOP_LOGPROBS_MAX 20
#define FRAME_EMBEDDING_MAX (1u << 16)
#define FRAME_BLOCKS_MAX (1u << 13) /* of either list of CacheEvents */
#define FRAME_STOPS_MAX 64
#define FRAME_STOP_BYTES_MAX 1024
#define FRAME_STOP_IDS_MAX 1024
#define FRAME_BIAS_MAX 4096
#define FRAME_SALT_BYTES_MAX 16
#define FRAME_GRAMMAR_BYTES_MAX (256u << 10)
#define FRAME_MODELS_MAX 64
#define FRAME_ADAPTERS_MAX 256 /* of a model */
#define FRAME_LABELS_MAX 64
#define FRAME_ROUTERS_MAX 256
#define FRAME_NAME_BYTES_MAX 256  /* ids, names, labels, addresses */
#define FRAME_TEXT_BYTES_MAX 1024 /* what a person reads: details, errors */

#define FRAME_LIST_MAX 1024 /* frames of a message */
#define FRAME_HEAD_BYTES_MAX 6

/* A message is FromWorkers or ToWorkers: frames, each behind a head. Writes the head of a frame of
 * n bytes and returns its size. */
size_t frame_head(size_t n, uint8_t out[FRAME_HEAD_BYTES_MAX]);

/* Where a message is read; starts as {.data, .n}. */
struct frame_list {
    const uint8_t *data;
    size_t n;
    size_t at;
    size_t frames; /* found so far */
};

/* The bytes of the next frame. 1: found; 0: there are no more.
 * ERR_FORMAT: not such a message. ERR_RANGE: no frame in it, or too many. */
int frame_next(struct frame_list *l, const uint8_t **frame, size_t *n, struct err *e);

/* The most that unpacking n bytes may allocate: 32 × n + 64 KiB, and never over 32 MiB. The
 * densest honest frame (a step of one-token deltas) expands about elevenfold. */
size_t frame_budget(size_t n);

/* On success *out lies in `memory`, as long as that is not released (argosy__…__free_unpacked must
 * not see it), or is NULL: a kind of frame of a later version, to be ignored. `memory` is
 * initialised here, with that budget, and is the caller's to release whatever comes back.
 * ERR_FORMAT: not protobuf, or it needs more than the budget. ERR_RANGE: a bound is broken. */
int frame_unpack_from_worker(const uint8_t *data, size_t n, struct arena *memory,
                             Argosy__FromWorker **out, struct err *e);
int frame_unpack_to_worker(const uint8_t *data, size_t n, struct arena *memory,
                           Argosy__ToWorker **out, struct err *e);

#endif

/* prefix_index.h: which worker has which blocks of prompts in its cache, as far as is known.
 *
 *     CacheEvents ──store, evict──► hash ──► workers        a prompt's hashes ──look──► depth by
 * worker
 *
 * A worker is a slot here, from prefix_index_join to prefix_index_leave. Leaving takes one step:
 * what the slot has in the table is not seen from then on, and a hand that goes round the table as
 * it is changed cleans it away before the slot is given to another worker.
 *
 * Memory: fixed in prefix_index_open and touched as it fills. When it is full, the hand evicts the
 * next hash that nobody has touched or stored again since it last came by (CLOCK). What is
 * evicted, or was never told, costs a worse guess, never a wrong answer: the worker looks for
 * itself.
 *
 * Hostile workers: a slot holds at most as many hashes as its worker has pages; buckets are seeded.
 *
 * Thread: the pool's.
 */
#ifndef ARGOSY_ROUTER_POOL_PREFIX_INDEX_H
#define ARGOSY_ROUTER_POOL_PREFIX_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define PREFIX_INDEX_NONE UINT32_MAX

struct prefix_index;

/* workers_max: that are here at once. */
int prefix_index_open(size_t bytes_max, uint32_t workers_max, uint64_t seed,
                      struct prefix_index **out, struct err *e);
void prefix_index_free(struct prefix_index *x);

/* A slot for a worker; NONE when those that left are not cleaned away yet: then it is not indexed.
 */
uint32_t prefix_index_join(struct prefix_index *x);
/* How many blocks its worker can have at most: what comes beyond it is not taken. */
void prefix_index_limit(struct prefix_index *x, uint32_t slot, uint32_t blocks_max);
/* NONE is fine, here and below. */
void prefix_index_leave(struct prefix_index *x, uint32_t slot);
void prefix_index_store(struct prefix_index *x, uint32_t slot, const uint64_t *hashes, size_t n);
void prefix_index_evict(struct prefix_index *x, uint32_t slot, const uint64_t *hashes, size_t n);

/* How many leading blocks of a prompt each slot has: (prefix_index_slots), until the next call.
 * hashes: (n), chained (runtime/base/blockhash.h). Whoever has a block is taken to have those
 * before it, as it is in a worker's cache, so few blocks are looked at: about log2(n) for each
 * depth that occurs. */
const uint32_t *prefix_index_look(struct prefix_index *x, const uint64_t *hashes, uint32_t n);
/* The first n blocks are wanted: they are kept when others are not. Does nothing while there is
 * much room. */
void prefix_index_touch(struct prefix_index *x, const uint64_t *hashes, uint32_t n);

uint32_t prefix_index_slots(const struct prefix_index *x);
/* Hashes in the table, and how many fit. */
uint32_t prefix_index_used(const struct prefix_index *x);
uint32_t prefix_index_max(const struct prefix_index *x);

#endif

/* prefix_index.c: nodes in buckets by hash. Few workers of a hash stand in its node, many in a set
 * of bits; a pool of sets is part of the memory. */
#include "router/pool/prefix_index.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

#define NONE PREFIX_INDEX_NONE
#define NODE_SLOTS 6
/* Nodes for each set of bits. */
#define NODES_PER_SET 64
#define NODES_MIN 64
/* Nodes that the hand looks at for each hash that comes, while somebody who left is in the table:
 * with 1,000,000 nodes a slot is free again after 125,000 hashes. */
#define SWEEP_PER_HASH 8
#define HASHES_PER_JOIN 1000 /* as many as that a worker that joins counts for */
#define LEVELS 32            /* of halving a prompt of 2^32 blocks */

struct node {
    uint64_t hash; /* 0: the node is free */
    uint32_t next; /* in its bucket, or among the free ones */
    uint32_t set;  /* NONE: the workers are in slots[] */
    uint16_t slots[NODE_SLOTS];
    uint8_t n;
    bool wanted; /* since the hand was here */
};

enum slot_state { SLOT_FREE, SLOT_LIVE, SLOT_LEFT };

struct slot {
    enum slot_state state;
    uint32_t held, held_max;
    uint64_t left_round; /* x->rounds, when it left */
};

struct prefix_index {
    struct node *nodes;
    uint32_t *buckets; /* node + 1; 0: empty */
    uint64_t *sets;    /* (n_sets, n_words) */
    struct slot *slots;
    uint32_t *depths;  /* (n_slots): prefix_index_look's */
    uint64_t *live;    /* (n_words): slots whose worker is here */
    uint64_t *scratch; /* (LEVELS + 2, n_words) */
    uint64_t seed;
    uint64_t rounds; /* of the hand, since the start */
    uint32_t n_nodes, bucket_bits, n_sets, n_slots, n_words;
    uint32_t n_used, n_fresh, free_node; /* nodes from n_fresh on were never used */
    uint32_t n_sets_fresh, free_set;
    uint32_t hand;
    uint32_t n_left; /* slots to be cleaned away */
};

/* ---- memory --------------------------------------------------------------------------------- */

int prefix_index_open(size_t bytes_max, uint32_t workers_max, uint64_t seed,
                      struct prefix_index **out, struct err *e)
{
    struct prefix_index *x = calloc(1, sizeof(*x));
    *out = NULL;
    if (!x)
        return err_set(e, ERR_NOMEM, "no memory for the prefix index");
    /* A quarter more than there are workers: those that left wait for the hand. */
    uint32_t slots = workers_max + workers_max / 4 + 1;
    x->n_slots = slots < UINT16_MAX ? slots : UINT16_MAX;
    x->n_words = (x->n_slots + 63) / 64;
    size_t set_bytes = x->n_words * sizeof(uint64_t);
    size_t node_bytes = sizeof(struct node) + sizeof(uint32_t) + set_bytes / NODES_PER_SET + 1;
    size_t n = bytes_max / node_bytes;
    x->n_nodes = n > UINT32_MAX / 2 ? UINT32_MAX / 2 : n < NODES_MIN ? NODES_MIN : (uint32_t)n;
    x->n_sets = x->n_nodes / NODES_PER_SET;
    /* A power of two, at most as many as nodes: chains of 1 to 2. */
    while (2ull << x->bucket_bits <= x->n_nodes)
        x->bucket_bits++;
    x->nodes = calloc(x->n_nodes, sizeof(*x->nodes));
    x->buckets = calloc((size_t)1 << x->bucket_bits, sizeof(*x->buckets));
    x->sets = calloc(x->n_sets, set_bytes);
    x->slots = calloc(x->n_slots, sizeof(*x->slots));
    x->depths = calloc(x->n_slots, sizeof(*x->depths));
    x->live = calloc(1, set_bytes);
    x->scratch = calloc(LEVELS + 2, set_bytes);
    x->free_node = x->free_set = NONE;
    x->seed = seed;
    if (!x->nodes || !x->buckets || !x->sets || !x->slots || !x->depths || !x->live ||
        !x->scratch) {
        prefix_index_free(x);
        return err_set(e, ERR_NOMEM, "no memory for a prefix index of %zu bytes", bytes_max);
    }
    *out = x;
    return 0;
}

void prefix_index_free(struct prefix_index *x)
{
    if (!x)
        return;
    free(x->nodes);
    free(x->buckets);
    free(x->sets);
    free(x->slots);
    free(x->depths);
    free(x->live);
    free(x->scratch);
    free(x);
}

static uint64_t *set_of(const struct prefix_index *x, uint32_t set)
{
    return &x->sets[(size_t)set * x->n_words];
}

static uint32_t take_set(struct prefix_index *x)
{
    uint32_t set = x->free_set;
    if (set != NONE)
        x->free_set = (uint32_t)set_of(x, set)[0];
    else if (x->n_sets_fresh < x->n_sets)
        set = x->n_sets_fresh++;
    if (set != NONE)
        memset(set_of(x, set), 0, x->n_words * sizeof(uint64_t));
    return set;
}

static void give_set_back(struct prefix_index *x, uint32_t set)
{
    set_of(x, set)[0] = x->free_set;
    x->free_set = set;
}

/* ---- nodes ---------------------------------------------------------------------------------- */

static uint32_t *bucket_of(const struct prefix_index *x, uint64_t hash)
{
    uint64_t h = (hash ^ x->seed) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32) * 0xff51afd7ed558ccdu;
    return &x->buckets[x->bucket_bits ? h >> (64 - x->bucket_bits) : 0];
}

static struct node *find(const struct prefix_index *x, uint64_t hash)
{
    for (uint32_t at = *bucket_of(x, hash); at; at = x->nodes[at - 1].next)
        if (x->nodes[at - 1].hash == hash)
            return &x->nodes[at - 1];
    return NULL;
}

static bool is_live(const struct prefix_index *x, uint32_t slot)
{
    return x->live[slot / 64] >> (slot % 64) & 1;
}

static void free_node(struct prefix_index *x, struct node *d)
{
    uint32_t index = (uint32_t)(d - x->nodes);
    uint32_t *at = bucket_of(x, d->hash);
    while (*at != index + 1)
        at = &x->nodes[*at - 1].next;
    *at = d->next;
    if (d->set != NONE)
        give_set_back(x, d->set);
    d->hash = 0;
    d->next = x->free_node;
    x->free_node = index;
    x->n_used--;
}

static bool is_empty(const struct prefix_index *x, const struct node *d)
{
    if (d->set == NONE)
        return d->n == 0;
    for (uint32_t i = 0; i < x->n_words; i++)
        if (set_of(x, d->set)[i])
            return false;
    return true;
}

/* Takes out the workers that left; may free the node. */
static void clean(struct prefix_index *x, struct node *d)
{
    uint8_t n = 0;
    for (uint8_t i = 0; d->set == NONE && i < d->n; i++)
        if (is_live(x, d->slots[i]))
            d->slots[n++] = d->slots[i];
    d->n = n;
    for (uint32_t i = 0; d->set != NONE && i < x->n_words; i++)
        set_of(x, d->set)[i] &= x->live[i];
    if (is_empty(x, d))
        free_node(x, d);
}

static void evict_node(struct prefix_index *x, struct node *d)
{
    for (uint8_t i = 0; d->set == NONE && i < d->n; i++)
        x->slots[d->slots[i]].held--;
    for (uint32_t i = 0; d->set != NONE && i < x->n_words; i++)
        for (uint64_t w = set_of(x, d->set)[i]; w; w &= w - 1)
            x->slots[i * 64 + (uint32_t)__builtin_ctzll(w)].held--;
    free_node(x, d);
}

static void free_slots(struct prefix_index *x)
{
    for (uint32_t s = 0; x->n_left > 0 && s < x->n_slots; s++)
        /* The round in which it left was not a whole one. */
        if (x->slots[s].state == SLOT_LEFT && x->rounds >= x->slots[s].left_round + 2) {
            x->slots[s].state = SLOT_FREE;
            x->n_left--;
        }
}

/* The hand goes on by a node, cleans it, and returns it if it holds something still. */
static struct node *step(struct prefix_index *x)
{
    struct node *d = &x->nodes[x->hand];
    if (d->hash && x->n_left > 0)
        clean(x, d);
    /* What was never used holds nothing, and is not touched. */
    if (++x->hand >= x->n_fresh) {
        x->hand = 0;
        x->rounds++;
        free_slots(x);
    }
    return d->hash ? d : NULL;
}

static struct node *take_node(struct prefix_index *x)
{
    while (x->free_node == NONE && x->n_fresh == x->n_nodes) {
        struct node *d = step(x);
        if (d && !d->wanted)
            evict_node(x, d);
        else if (d)
            d->wanted = false;
    }
    uint32_t index = x->free_node;
    if (index != NONE)
        x->free_node = x->nodes[index].next;
    else
        index = x->n_fresh++;
    x->n_used++;
    return &x->nodes[index];
}

static struct node *add_node(struct prefix_index *x, uint64_t hash)
{
    struct node *d = take_node(x);
    uint32_t *bucket = bucket_of(x, hash);
    *d = (struct node){.hash = hash, .next = *bucket, .set = NONE};
    *bucket = (uint32_t)(d - x->nodes) + 1;
    return d;
}

/* ---- workers of a hash ---------------------------------------------------------------------- */

static bool has(const struct prefix_index *x, const struct node *d, uint32_t slot)
{
    if (d->set != NONE)
        return set_of(x, d->set)[slot / 64] >> (slot % 64) & 1;
    for (uint8_t i = 0; i < d->n; i++)
        if (d->slots[i] == slot)
            return true;
    return false;
}

static void add_bit(struct prefix_index *x, uint32_t set, uint32_t slot)
{
    set_of(x, set)[slot / 64] |= 1ull << (slot % 64);
}

/* False: there is no room. */
static bool add_slot(struct prefix_index *x, struct node *d, uint32_t slot)
{
    if (d->set == NONE && d->n < NODE_SLOTS) {
        d->slots[d->n++] = (uint16_t)slot;
        return true;
    }
    if (d->set == NONE) {
        d->set = take_set(x);
        if (d->set == NONE)
            return false;
        for (uint8_t i = 0; i < d->n; i++)
            add_bit(x, d->set, d->slots[i]);
        d->n = 0;
    }
    add_bit(x, d->set, slot);
    return true;
}

static void remove_slot(struct prefix_index *x, struct node *d, uint32_t slot)
{
    if (d->set != NONE)
        set_of(x, d->set)[slot / 64] &= ~(1ull << (slot % 64));
    for (uint8_t i = 0; d->set == NONE && i < d->n; i++)
        if (d->slots[i] == slot)
            d->slots[i--] = d->slots[--d->n];
    if (is_empty(x, d))
        free_node(x, d);
}

static void sweep(struct prefix_index *x, size_t n_hashes)
{
    for (size_t i = 0; i < n_hashes * SWEEP_PER_HASH && x->n_left > 0; i++)
        step(x);
}

static bool is_of_worker(const struct prefix_index *x, uint32_t slot)
{
    return slot < x->n_slots && x->slots[slot].state == SLOT_LIVE;
}

void prefix_index_limit(struct prefix_index *x, uint32_t slot, uint32_t blocks_max)
{
    if (is_of_worker(x, slot))
        x->slots[slot].held_max = blocks_max;
}

uint32_t prefix_index_join(struct prefix_index *x)
{
    sweep(x, HASHES_PER_JOIN);
    for (uint32_t s = 0; s < x->n_slots; s++) {
        if (x->slots[s].state != SLOT_FREE)
            continue;
        x->slots[s] = (struct slot){.state = SLOT_LIVE, .held_max = UINT32_MAX};
        x->live[s / 64] |= 1ull << (s % 64);
        return s;
    }
    return NONE;
}

void prefix_index_leave(struct prefix_index *x, uint32_t slot)
{
    if (!is_of_worker(x, slot))
        return;
    x->live[slot / 64] &= ~(1ull << (slot % 64));
    /* One that holds nothing has nothing to be cleaned away. */
    if (x->slots[slot].held == 0) {
        x->slots[slot].state = SLOT_FREE;
        return;
    }
    x->slots[slot].state = SLOT_LEFT;
    x->slots[slot].left_round = x->rounds;
    x->n_left++;
}

void prefix_index_store(struct prefix_index *x, uint32_t slot, const uint64_t *hashes, size_t n)
{
    if (!is_of_worker(x, slot))
        return;
    sweep(x, n);
    for (size_t i = 0; i < n; i++) {
        struct node *d = hashes[i] ? find(x, hashes[i]) : NULL;
        if (!hashes[i] || x->slots[slot].held >= x->slots[slot].held_max)
            continue;
        /* A hash that comes a second time is worth more than one that nobody has named since. */
        if (d)
            d->wanted = true;
        else
            d = add_node(x, hashes[i]);
        if (!has(x, d, slot))
            x->slots[slot].held += add_slot(x, d, slot);
    }
}

void prefix_index_evict(struct prefix_index *x, uint32_t slot, const uint64_t *hashes, size_t n)
{
    if (!is_of_worker(x, slot))
        return;
    sweep(x, n);
    for (size_t i = 0; i < n; i++) {
        struct node *d = hashes[i] ? find(x, hashes[i]) : NULL;
        if (!d || !has(x, d, slot))
            continue;
        x->slots[slot].held--;
        remove_slot(x, d, slot);
    }
}

/* ---- looking -------------------------------------------------------------------------------- */

/* Those of `among` that have the block. */
static void holders(const struct prefix_index *x, uint64_t hash, const uint64_t *among,
                    uint64_t *out)
{
    const struct node *d = find(x, hash);
    if (d && d->set != NONE) {
        const uint64_t *set = set_of(x, d->set);
        for (uint32_t i = 0; i < x->n_words; i++)
            out[i] = set[i] & among[i];
        return;
    }
    memset(out, 0, x->n_words * sizeof(*out));
    for (uint8_t i = 0; d && i < d->n; i++)
        out[d->slots[i] / 64] |= 1ull << (d->slots[i] % 64) & among[d->slots[i] / 64];
}

static void note_depth(struct prefix_index *x, const uint64_t *shallow, const uint64_t *deep,
                       uint32_t depth)
{
    for (uint32_t i = 0; i < x->n_words; i++)
        for (uint64_t w = shallow[i] & ~deep[i]; w; w &= w - 1)
            x->depths[i * 64 + (uint32_t)__builtin_ctzll(w)] = depth;
}

/* `shallow` has the first lo blocks, `deep`, a part of it, the first hi. Finds who is in between
 * where. `level`: scratch from there on is free. */
static void look_between(struct prefix_index *x, const uint64_t *hashes, uint32_t lo, uint32_t hi,
                         const uint64_t *shallow, const uint64_t *deep, uint32_t level)
{
    size_t bytes = x->n_words * sizeof(uint64_t);
    if (hi - lo <= 1 || memcmp(shallow, deep, bytes) == 0) {
        note_depth(x, shallow, deep, lo);
        return;
    }
    uint32_t mid = lo + (hi - lo) / 2;
    uint64_t *between = &x->scratch[(size_t)level * x->n_words];
    holders(x, hashes[mid - 1], shallow, between);
    for (uint32_t i = 0; i < x->n_words; i++)
        between[i] |= deep[i];
    look_between(x, hashes, lo, mid, shallow, between, level + 1);
    look_between(x, hashes, mid, hi, between, deep, level + 1);
}

const uint32_t *prefix_index_look(struct prefix_index *x, const uint64_t *hashes, uint32_t n)
{
    uint64_t *first = x->scratch;
    uint64_t *last = x->scratch + x->n_words;
    memset(x->depths, 0, x->n_slots * sizeof(*x->depths));
    if (n == 0)
        return x->depths;
    holders(x, hashes[0], x->live, first);
    holders(x, hashes[n - 1], first, last);
    look_between(x, hashes, 1, n, first, last, 2);
    for (uint32_t i = 0; i < x->n_words; i++)
        for (uint64_t w = last[i]; w; w &= w - 1)
            x->depths[i * 64 + (uint32_t)__builtin_ctzll(w)] = n;
    return x->depths;
}

void prefix_index_touch(struct prefix_index *x, const uint64_t *hashes, uint32_t n)
{
    if (x->n_used < x->n_nodes / 4 * 3)
        return;
    for (uint32_t i = 0; i < n; i++) {
        struct node *d = find(x, hashes[i]);
        if (d)
            d->wanted = true;
    }
}

uint32_t prefix_index_slots(const struct prefix_index *x)
{
    return x->n_slots;
}

uint32_t prefix_index_used(const struct prefix_index *x)
{
    return x->n_used;
}

uint32_t prefix_index_max(const struct prefix_index *x)
{
    return x->n_nodes;
}

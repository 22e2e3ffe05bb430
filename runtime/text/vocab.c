#include <stdlib.h>
#include <string.h>

#include "runtime/base/rng.h"
#include "runtime/text/tokenizer_internal.h"

struct vocab_slot {
    uint32_t tag; /* the hash's upper half: most misses end here */
    uint32_t id;  /* TOKENIZER_NONE: empty */
};

static int load_types(const struct gguf *g, uint32_t n, uint8_t *types, struct err *e)
{
    struct gguf_array a = {0};
    int64_t type;
    int rc = gguf_array(g, "tokenizer.ggml.token_type", GGUF_OPTIONAL, &a, e);
    if (rc < 0)
        return rc;
    if (a.count == 0) {
        memset(types, TOKEN_NORMAL, n);
        return 0;
    }
    if (a.count != n)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.token_type has %llu elements for %u tokens",
                       (unsigned long long)a.count, n);
    for (uint32_t i = 0; i < n; i++) {
        if (!gguf_next_i64(&a, &type) || type < TOKEN_NORMAL || type > TOKEN_BYTE)
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.token_type: element %u is no token type",
                           i);
        types[i] = (uint8_t)type;
    }
    return 0;
}

int vocab_build(struct vocab *v, const struct vocab_text *texts, const uint8_t *types, uint32_t n,
                struct arena *a, vocab_decode_fn *decode, struct err *e)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++)
        total += texts[i].n + 1;
    if (total >= UINT32_MAX)
        return err_set(e, ERR_FORMAT, "tokenizer: more than 4 GiB of text in tokens");
    char *bytes = arena_alloc(a, (size_t)total);
    uint32_t *starts = arena_calloc(a, (size_t)n + 1, sizeof(*starts));
    uint8_t *final = arena_memdup(a, types, n);
    if (!bytes || !starts || !final)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %u tokens", n);
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        size_t k = decode(types[i], texts[i].s, texts[i].n, bytes + at);
        if (k == VOCAB_NOT_TEXT) {
            final[i] = TOKEN_UNUSED;
            k = texts[i].n;
            memcpy(bytes + at, texts[i].s, k);
        }
        v->longest = k > v->longest ? (uint32_t)k : v->longest;
        at += (uint32_t)k + 1;
        starts[i + 1] = at;
    }
    v->n = n;
    v->bytes = bytes;
    v->starts = starts;
    v->types = final;
    return 0;
}

int vocab_load(struct vocab *v, const struct gguf *g, struct arena *a, vocab_decode_fn *decode,
               struct err *e)
{
    struct gguf_array tokens = {0};
    struct gguf_str s;
    int rc = gguf_array(g, "tokenizer.ggml.tokens", GGUF_REQUIRED, &tokens, e);
    if (rc < 0)
        return rc;
    if (tokens.type != GGUF_STRING || tokens.count == 0 || tokens.count > TOKENIZER_VOCAB_MAX)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens: wanted 1 to %u strings, found %llu",
                       TOKENIZER_VOCAB_MAX, (unsigned long long)tokens.count);
    uint32_t n = (uint32_t)tokens.count;
    struct vocab_text *texts = calloc(n, sizeof(*texts));
    uint8_t *types = calloc(n, sizeof(*types));
    if (!texts || !types) {
        rc = err_set(e, ERR_NOMEM, "tokenizer: no memory for %u tokens", n);
        goto out;
    }
    for (uint32_t i = 0; i < n && gguf_next_str(&tokens, &s); i++)
        texts[i] = (struct vocab_text){s.s, s.n};
    rc = load_types(g, n, types, e);
    if (rc == 0)
        rc = vocab_build(v, texts, types, n, a, decode, e);
out:
    free(texts);
    free(types);
    return rc;
}

/* Seeded, so that a file cannot be made to collide; the order of ids never depends on it. */
static uint64_t hash(uint64_t seed, const char *bytes, size_t n)
{
    uint64_t h = seed ^ n * 0x9E3779B97F4A7C15u, w;
    for (; n > 8; n -= 8, bytes += 8) {
        memcpy(&w, bytes, 8);
        h = (h ^ w) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    w = 0;
    for (size_t i = 0; i < n; i++)
        w |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
    h = (h ^ w) * 0xD6E8FEB86659FD93u;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 29;
}

/* The slot of these bytes, or the empty one where they belong; *tag is what to write there. */
static struct vocab_slot *slot_of(const struct vocab_map *m, const char *bytes, size_t n,
                                  uint32_t *tag)
{
    uint64_t h = hash(m->seed, bytes, n);
    *tag = (uint32_t)(h >> 32);
    for (uint32_t i = (uint32_t)h & m->mask;; i = (i + 1) & m->mask) {
        struct vocab_slot *s = &m->slots[i];
        size_t k;
        if (s->id == TOKENIZER_NONE)
            return s;
        if (s->tag != *tag)
            continue;
        const char *b = vocab_bytes(m->vocab, s->id, &k);
        if (k == n && memcmp(b, bytes, n) == 0)
            return s;
    }
}

int vocab_map_build(struct vocab_map *m, const struct vocab *v, unsigned types, struct arena *a,
                    struct err *e)
{
    uint32_t cap = 16;
    while (cap < v->n * 2)
        cap *= 2;
    m->vocab = v;
    m->mask = cap - 1;
    rng_entropy(&m->seed, sizeof(m->seed));
    m->slots = arena_calloc(a, cap, sizeof(*m->slots));
    if (!m->slots)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for the map of %u tokens", v->n);
    for (uint32_t i = 0; i < cap; i++)
        m->slots[i].id = TOKENIZER_NONE;
    for (uint32_t id = 0; id < v->n; id++) {
        size_t n;
        const char *bytes = vocab_bytes(v, id, &n);
        uint32_t tag;
        if (n == 0 || !(types >> v->types[id] & 1))
            continue;
        struct vocab_slot *s = slot_of(m, bytes, n, &tag);
        if (s->id == TOKENIZER_NONE)
            *s = (struct vocab_slot){.tag = tag, .id = id};
    }
    return 0;
}

uint32_t vocab_map_find(const struct vocab_map *m, const char *bytes, size_t n)
{
    uint32_t tag;
    return slot_of(m, bytes, n, &tag)->id;
}

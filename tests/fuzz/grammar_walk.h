/* grammar_walk.h: what the three fuzz targets of runtime/grammar do with their text: compile it,
 * and follow what the masks allow. Checks that a token is accepted exactly when its mask held it,
 * and that the same tokens in a second state give the same mask. */
#ifndef ARGOSY_TESTS_FUZZ_GRAMMAR_WALK_H
#define ARGOSY_TESTS_FUZZ_GRAMMAR_WALK_H

#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/grammar/grammar.h"

#define WALK_STEPS 24
#define WALK_TOKENS 270

static const struct token_trie *walk_trie(void)
{
    static const char *const words[] = {"{\"", "\":", "\",\"", "true", "null", "ab",  "a b",
                                        "\"}", "]}",  "--",    "00",   "[[",   "\\u", "\xc3\xa9x"};
    static struct token_trie *trie;
    static char bytes[256];
    struct token_text tokens[WALK_TOKENS + 1];
    struct err e;
    for (uint32_t i = 0; !trie && i < WALK_TOKENS; i++) {
        bytes[i & 255] = (char)(i & 255);
        const char *text = i < 256 ? &bytes[i] : words[i - 256];
        tokens[i] = (struct token_text){text, i < 256 ? 1 : strlen(text), false};
    }
    tokens[WALK_TOKENS] = (struct token_text){"", 0, true};
    if (!trie)
        ASSERT(token_trie_create(tokens, WALK_TOKENS + 1, &trie, &e) == 0);
    return trie;
}

static void walk_steps(struct grammar_state *s, struct grammar_state *twin, uint64_t seed)
{
    uint32_t bits[(WALK_TOKENS + 32) / 32], again[(WALK_TOKENS + 32) / 32];
    struct rng r;
    struct err e;
    rng_init(&r, seed);
    for (int step = 0; step < WALK_STEPS; step++) {
        if (grammar_mask(s, bits, &e) != 0)
            return;
        ASSERT(grammar_mask(twin, again, &e) == 0 && !memcmp(bits, again, sizeof bits));
        uint32_t from = (uint32_t)rng_below(&r, WALK_TOKENS + 1), token = from;
        int rc = grammar_accept(s, from, &e);
        if (rc == ERR_LIMIT)
            return;
        ASSERT((rc == 0) == (bits[from / 32] >> (from % 32) & 1));
        if (rc == 0) {
            ASSERT(grammar_accept(twin, from, &e) == 0);
            continue;
        }
        do
            token = (token + 1) % (WALK_TOKENS + 1);
        while (token != from && !(bits[token / 32] >> (token % 32) & 1));
        if (token == from)
            return;
        rc = grammar_accept(s, token, &e);
        ASSERT((rc == 0 || rc == ERR_LIMIT) && grammar_accept(twin, token, &e) == rc);
        if (rc < 0)
            return;
    }
}

static void grammar_walk(enum grammar_kind kind, int space, uint64_t seed, const char *text,
                         size_t n)
{
    struct grammar_options o;
    struct grammar *g;
    struct grammar_state *s, *twin;
    struct err e;
    grammar_options_default(&o);
    o.space = (enum grammar_space)space;
    o.limits.steps_max = 300000;
    o.limits.states_max = 5000;
    o.limits.stack_max = 200;
    o.limits.mask_steps_max = 100000;
    o.limits.configs_max = 32;
    if (grammar_compile(kind, text, n, walk_trie(), &o, &g, &e) != 0)
        return;
    if (grammar_state_create(g, &s, &e) == 0) {
        if (grammar_state_create(g, &twin, &e) == 0) {
            walk_steps(s, twin, seed);
            grammar_state_free(twin);
        }
        grammar_state_free(s);
    }
    grammar_free(g);
}

#endif

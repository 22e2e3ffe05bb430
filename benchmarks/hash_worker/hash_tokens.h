/* hash_tokens.h: the tokens of the hash worker, for whoever makes or checks them.
 *
 *     h = mix(seed); for each prompt token t: h = mix(h ^ t)
 *     letter i = h >> 6·i & 63 for i in 0..10: the hash itself, six bits a letter, lowest first
 *                mix(h + i) & 63 from there on
 *     mix(x): x += 0x9e3779b97f4a7c15, then the end of splitmix64
 *
 * A letter is one of the 64 below, and the token whose text is that letter alone: so the text of an
 * answer gives its tokens back, and its first 11 letters say what must follow. hash_tokens.py is
 * the same in Python.
 */
#ifndef ARGOSY_BENCHMARKS_HASH_TOKENS_H
#define ARGOSY_BENCHMARKS_HASH_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
#define HASH_N_LETTERS 64u
#define HASH_HEAD 11u /* letters that spell the hash */

static inline uint64_t hash_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t hash_of_request(const uint32_t *prompt, size_t n, uint64_t seed)
{
    uint64_t h = hash_mix(seed);
    for (size_t i = 0; i < n; i++)
        h = hash_mix(h ^ prompt[i]);
    return h;
}

/* Which letter comes at place i of the output. */
static inline uint32_t hash_letter(uint64_t h, uint64_t i)
{
    return (uint32_t)((i < HASH_HEAD ? h >> (6 * i) : hash_mix(h + i)) & 63u);
}

/* Whether a text, whole or cut short anywhere, is one that a hash worker says to some request. */
static inline bool hash_text_is_whole(const char *text, size_t n)
{
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++) {
        const char *at = text[i] ? strchr(HASH_LETTERS, text[i]) : NULL;
        uint64_t letter = at ? (uint64_t)(at - HASH_LETTERS) : HASH_N_LETTERS;
        if (i < HASH_HEAD)
            h |= letter << (6 * i);
        if (letter != hash_letter(h, i)) /* HASH_N_LETTERS never is */
            return false;
    }
    return true;
}

#endif

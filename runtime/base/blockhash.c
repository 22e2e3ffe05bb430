#include "runtime/base/blockhash.h"

#include <stddef.h>
#include <string.h>

#define K 0x9e3779b97f4a7c15u

static uint64_t add_word(uint64_t h, uint64_t word)
{
    h = (h ^ word) * K;
    return h ^ h >> 32;
}

static uint64_t end(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return h ? h : 1;
}

static uint64_t word_of(const unsigned char *bytes, size_t n)
{
    uint64_t word = 0;
    for (size_t i = 0; i < n && i < 8; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

uint64_t blockhash_root(const char *manifest, const uint8_t salt[BLOCKHASH_SALT_BYTES])
{
    size_t n = strlen(manifest);
    uint64_t h = add_word(add_word(0, word_of(salt, 8)), word_of(salt + 8, 8));
    for (size_t i = 0; i < n; i += 8)
        h = add_word(h, word_of((const unsigned char *)manifest + i, n - i));
    return end(add_word(h, n));
}

uint64_t blockhash_next(uint64_t parent, const uint32_t *tokens, uint32_t n)
{
    uint64_t h = K;
    for (uint32_t i = 0; i < n; i++)
        h = add_word(h, tokens[i]);
    return end(add_word(parent, h));
}

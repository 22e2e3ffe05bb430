/* blockhash.h: names for prefixes of prompts, the same in a router and in every worker.
 *
 * A prompt is cut into blocks of page_tokens tokens (Hello.page_tokens). A block's hash covers the
 * model, the adapter, the tenant's salt and every token up to the block's end:
 *
 *     root = H(salt as 2 words, the manifest's text as words, its length)
 *     block i = end(mix(hash of block i - 1, or root; one word: mix(K; its tokens, a word each)))
 *     H(words) = end(mix(0; words))
 *
 *     mix(h; words): for each word w: h = (h ^ w) * K, h ^= h >> 32
 *     end(h): h ^= h >> 33, h *= M1, h ^= h >> 33, h *= M2, h ^= h >> 33 (the end of MurmurHash3 by
 *             Appleby); 0 becomes 1
 *     K = 0x9e3779b97f4a7c15, M1 = 0xff51afd7ed558ccd, M2 = 0xc4ceb9fe1a85ec53
 *
 * The tokens of a block are mixed apart from what is before them, so that a processor can work on
 * several blocks at a time: a router does this for each prompt.
 *
 * Words have 64 bits, little-endian; text is filled up with zeros to whole words.
 *
 * It is a name, not a proof: whoever wants to can make two prompts with one hash. A worker compares
 * the tokens before it trusts it (runtime/engine/prefixcache.h); a router only guesses with it.
 */
#ifndef ARGOSY_BASE_BLOCKHASH_H
#define ARGOSY_BASE_BLOCKHASH_H

#include <stdint.h>

#define BLOCKHASH_SALT_BYTES 16

/* manifest: ModelOffer.manifest_sha256; for requests with an adapter, that, ':' and the adapter's
 * sha256 (ModelOffer.adapters). A salt of zeros is that of requests without one. Never 0.
 */
uint64_t blockhash_root(const char *manifest, const uint8_t salt[BLOCKHASH_SALT_BYTES]);

/* The hash of a block of n tokens behind the block (or root) that has the hash `parent`. Never 0.
 */
uint64_t blockhash_next(uint64_t parent, const uint32_t *tokens, uint32_t n);

#endif

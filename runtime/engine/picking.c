#include "runtime/engine/picking.h"

#include <string.h>

/* An exponent of all ones carries into the sign bit. */
static bool all_finite(const float *v, uint32_t n)
{
    uint32_t carry = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof(bits));
        carry |= (bits & 0x7f800000u) + 0x00800000u;
    }
    return carry >> 31 == 0;
}

/* FNV-1a over words: for comparing runs, not for trust. */
static uint64_t digest_of(const float *v, uint32_t n)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof(bits));
        hash = (hash ^ bits) * UINT64_C(0x100000001b3);
    }
    return hash;
}

void picking_examine(struct pick *k, const float *logits, uint32_t vocab)
{
    k->finite = all_finite(logits, vocab);
    if (k->want_digest)
        k->logits_digest = digest_of(logits, vocab);
}

#include "runtime/base/rng.h"

#include <sys/random.h>

#include "runtime/base/check.h"

__extension__ typedef unsigned __int128 wide;

void rng_init(struct rng *r, uint64_t seed)
{
    r->state = seed;
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    ASSERT(n > 0);
    /* Lemire's method without the rejection: the bias is below n / 2^64. */
    return (uint64_t)(((wide)rng_u64(r) * n) >> 64);
}

double rng_unit(struct rng *r)
{
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

void rng_entropy(void *bytes, size_t n)
{
    char *p = bytes;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        ASSERT(got > 0);
        p += got;
        n -= (size_t)got;
    }
}

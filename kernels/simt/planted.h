/* planted.h: kernels with one classic bug each, and the same kernel without it. For test.c. */
#ifndef ARGOSY_KERNELS_SIMT_PLANTED_H
#define ARGOSY_KERNELS_SIMT_PLANTED_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum planted_found {
    PLANTED_ALWAYS, /* in every build */
    PLANTED_SHADOW, /* with shadow memory */
    PLANTED_BOUNDS, /* with shadow memory; with ASan, which ends the program */
};

struct planted {
    const char *name;
    const char
        *says; /* what the fault must contain; with '|' between, one of them, up to the order */
    enum planted_found found;
    /* Launches it: 0, or -1 and simt_fault(). in: PLANTED_N values; out: PLANTED_N zeros; scratch:
     * PLANTED_N undefined. */
    int (*run)(bool bug, int *out, const int *in, int *scratch);
};
#define PLANTED_N 256

extern const struct planted planted[];
extern const int n_planted;

/* Reads n ints `stride` apart a lane, and as much of shared memory. */
int planted_strided(int stride, int *out, const int *in);

#ifdef __cplusplus
}
#endif

#endif

/* cuda_testing.h: what the tests of kernels for GPUs share. */
#ifndef ARGOSY_KERNELS_CUDA_TESTING_H
#define ARGOSY_KERNELS_CUDA_TESTING_H

#include "kernels/cuda_kernels.h"
#include "kernels/simt/simt.h"
#include "kernels/testing.h"

#define CUDA_SEEDS 20

/* Another order of threads, another filling of memory, other tensor cores. */
static inline void set_schedule(uint64_t seed)
{
    simt_set(&(struct simt_options){
        .seed = seed,
        .preempt = seed % 4 == 0 ? 16 : 0,
        .eager_copies = seed % 2 == 0,
        .sm = seed / 2 % 2 == 0 ? 80 : 90,
    });
}

static inline void *to_device(const void *host, size_t bytes, const char *name)
{
    void *p = simt_malloc(bytes, name);

    simt_upload(p, host, bytes);
    return p;
}

static inline void from_device(void *host, const void *device, size_t bytes)
{
    if (!simt_download(host, device, bytes)) {
        fail_msg("%s", simt_fault());
    }
}

static inline void assert_launched(int status)
{
    if (status != 0) {
        fail_msg("%s", simt_fault());
    }
}

/* The matrix of the file on the device; free m->data by simt_free. */
static inline struct kn_matrix device_matrix(int type, int64_t rows, int64_t cols, const void *src)
{
    size_t bytes = kn_cuda_pack_bytes(type, rows, cols);
    void *packed = get_memory(bytes);

    kn_cuda_pack(type, rows, cols, src, packed);
    struct kn_matrix m = {.type = type, .rows = rows, .cols = cols};
    m.data = to_device(packed, bytes, "weights");
    free(packed);
    return m;
}

/* Activations on the device: nobody has written them. */
static inline struct kn_act device_act(int64_t n, int64_t k)
{
    int64_t n_blocks = (k + KN_BLOCK - 1) / KN_BLOCK;

    return (struct kn_act){
        .f = simt_malloc((size_t)(n * k) * sizeof(float), "act.f"),
        .q = simt_malloc((size_t)(n * n_blocks * KN_BLOCK), "act.q"),
        .d = simt_malloc((size_t)(n * n_blocks) * sizeof(float), "act.d"),
        .s = simt_malloc((size_t)(n * n_blocks) * sizeof(int32_t), "act.s"),
        .h = simt_malloc((size_t)(n * n_blocks) * sizeof(int32_t), "act.h"),
        .k = k,
    };
}

static inline void free_device_act(struct kn_act *a)
{
    simt_free(a->f);
    simt_free(a->q);
    simt_free(a->d);
    simt_free(a->s);
    simt_free(a->h);
}

/* All n rows are there and have the bits of `want`. Frees nothing. */
static inline void assert_device_act(const struct kn_act *device, const struct kn_act *want,
                                     int64_t n)
{
    int64_t n_blocks = (want->k + KN_BLOCK - 1) / KN_BLOCK;
    struct kn_act got = get_act(n, want->k);

    from_device(got.f, device->f, (size_t)(n * want->k) * sizeof(float));
    from_device(got.q, device->q, (size_t)(n * n_blocks * KN_BLOCK));
    from_device(got.d, device->d, (size_t)(n * n_blocks) * sizeof(float));
    from_device(got.s, device->s, (size_t)(n * n_blocks) * sizeof(int32_t));
    from_device(got.h, device->h, (size_t)(n * n_blocks) * sizeof(int32_t));
    assert_same_act(&got, want, n);
    free_act(&got);
}

/* The n bf16 on the device are `want`, each within half a unit in the last place. */
static inline void assert_device_bf16(const uint16_t *device, const double *want, int64_t n)
{
    uint16_t *got = get_memory((size_t)n * sizeof *got);

    from_device(got, device, (size_t)n * sizeof *got);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)got[i] << 16;
        float v;
        int exponent;
        memcpy(&v, &bits, sizeof v);
        (void)frexp(want[i], &exponent);
        double half = ldexp(1.0, exponent - 9); /* of 8 bits; fp32 is a little off before */
        if (!(fabs((double)v - want[i]) <= half * 1.001 + 1e-30)) {
            fail_msg("element %lld is %g, wanted %g", (long long)i, (double)v, want[i]);
        }
    }
    free(got);
}

#endif

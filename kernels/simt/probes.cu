/* probes.cu: one kernel for each instruction of ptx.h that has a layout or an order of its own: a
 * warp's registers in, and out. tests/unit/kernels/simt/test_probes.c holds the emulator to the PTX
 * ISA by them, and a GPU too (`make gpu-check`). */
#include "kernels/simt/probes.h"

#include "kernels/simt/cuda.h"
#include "kernels/simt/ptx.h"

__global__ void mma_probe(const uint32_t *a, const uint32_t *b, int *c)
{
    unsigned t = threadIdx.x;
    uint32_t a4[4], b2[2];
    int c4[4];
    for (int i = 0; i < 4; i++) {
        a4[i] = a[4 * t + i];
        c4[i] = c[4 * t + i];
    }
    b2[0] = b[2 * t];
    b2[1] = b[2 * t + 1];
    ptx_mma_s8(c4, a4, b2);
    for (int i = 0; i < 4; i++) {
        c[4 * t + i] = c4[i];
    }
}

int probe_mma(const uint32_t *a, const uint32_t *b, int *c)
{
    return launch("mma_probe", mma_probe, 1, 32, 0, nullptr, a, b, c);
}

/* The halves of k apart: 16 each. */
__global__ void mma_k16_probe(const uint32_t *a, const uint32_t *b, int *c)
{
    unsigned t = threadIdx.x;
    int c4[4];
    for (int i = 0; i < 4; i++) {
        c4[i] = c[4 * t + i];
    }
    for (int half = 0; half < 2; half++) {
        const uint32_t a2[2] = {a[4 * t + 2 * half], a[4 * t + 2 * half + 1]};
        ptx_mma_s8_k16(c4, a2, b[2 * t + half]);
    }
    for (int i = 0; i < 4; i++) {
        c[4 * t + i] = c4[i];
    }
}

int probe_mma_k16(const uint32_t *a, const uint32_t *b, int *c)
{
    return launch("mma_k16_probe", mma_k16_probe, 1, 32, 0, nullptr, a, b, c);
}

enum { F16, BF16, E4M3, E5M2 };

template <int TYPE> __global__ void mma_float_probe(const uint32_t *a, const uint32_t *b, float *c)
{
    unsigned t = threadIdx.x;
    uint32_t a4[4], b2[2] = {b[2 * t], b[2 * t + 1]};
    float c4[4];
    for (int i = 0; i < 4; i++) {
        a4[i] = a[4 * t + i];
        c4[i] = c[4 * t + i];
    }
    if (TYPE == F16) {
        ptx_mma_f16(c4, a4, b2);
    } else if (TYPE == BF16) {
        ptx_mma_bf16(c4, a4, b2);
    } else if (TYPE == E4M3) {
        ptx_mma_e4m3(c4, a4, b2);
    } else {
        ptx_mma_e5m2(c4, a4, b2);
    }
    for (int i = 0; i < 4; i++) {
        c[4 * t + i] = c4[i];
    }
}

template <int TYPE> static int run_mma(const uint32_t *a, const uint32_t *b, float *c)
{
    return launch("mma_float_probe", mma_float_probe<TYPE>, 1, 32, 0, nullptr, a, b, c);
}

int probe_mma_f16(const uint32_t *a, const uint32_t *b, float *c)
{
    return run_mma<F16>(a, b, c);
}

int probe_mma_bf16(const uint32_t *a, const uint32_t *b, float *c)
{
    return run_mma<BF16>(a, b, c);
}

int probe_mma_e4m3(const uint32_t *a, const uint32_t *b, float *c)
{
    return run_mma<E4M3>(a, b, c);
}

int probe_mma_e5m2(const uint32_t *a, const uint32_t *b, float *c)
{
    return run_mma<E5M2>(a, b, c);
}

__global__ void fp8_probe(int saturates, const float *x, int n, uint8_t *e4m3, uint8_t *e5m2)
{
    for (int i = static_cast<int>(threadIdx.x); i < n; i += 32) {
        const __nv_saturation_t s = saturates ? __NV_SATFINITE : __NV_NOSAT;
        e4m3[i] = __nv_cvt_float_to_fp8(x[i], s, __NV_E4M3);
        e5m2[i] = __nv_cvt_float_to_fp8(x[i], s, __NV_E5M2);
    }
}

int probe_fp8(int saturates, const float *x, int n, uint8_t *e4m3, uint8_t *e5m2)
{
    return launch("fp8_probe", fp8_probe, 1, 32, 0, nullptr, saturates, x, n, e4m3, e5m2);
}

__global__ void ldmatrix_probe(int n, const uint16_t *matrices, uint32_t *out)
{
    __shared__ __align__(16) uint16_t s[4 * 8 * 8];
    unsigned t = threadIdx.x;
    uint32_t m[4] = {0, 0, 0, 0};
    for (int i = 0; i < 8; i++) {
        s[t * 8 + i] = matrices[t * 8 + i];
    }
    __syncthreads();
    if (n == 4) {
        ptx_ldmatrix_x4(m, &s[t * 8]);
    } else if (n == 5) {
        ptx_ldmatrix_x4_trans(m, &s[t * 8]);
    } else if (n == 2) {
        ptx_ldmatrix_x2(m, &s[t % 16 * 8]);
    } else {
        ptx_ldmatrix_x2_trans(m, &s[t % 16 * 8]);
    }
    for (int i = 0; i < 4; i++) {
        out[4 * t + i] = m[i];
    }
}

int probe_ldmatrix(int n, const uint16_t *matrices, uint32_t *out)
{
    return launch("ldmatrix_probe", ldmatrix_probe, 1, 32, 0, nullptr, n, matrices, out);
}

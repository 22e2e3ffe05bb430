/* bench_limits.c: what this machine can do at most, measured on the spot. Not a test.
 *
 *     bench_limits [threads [mebibytes]]
 *
 * One line a limit, all threads at once, the best of several runs:
 *     read_gbs        bytes read from a block of that size, again and again, on huge pages
 *     read_big_gbs    the same from 1 GiB: past every cache
 *     avx2_gmacs      int8 multiply-adds of registers by vpmaddubsw and vpmaddwd, 32 bytes at once
 *     vnni_gmacs      by vpdpbusd, 64 bytes at once
 *     amx_gmacs       by tdpbssd
 * Instruction sets that the CPU has not are left out.
 */
#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "runtime/base/memory.h"
#include "runtime/base/threads.h"

#define RUNS 15
#define LOOPS 400000u /* of 12 instructions or threes: some milliseconds */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_TILEDATA 18

struct job {
    struct threads *threads;
    void (*fn)(struct job *j, uint32_t thread);
    double seconds[THREADS_MAX]; /* of each thread's own processor time */
    const char *bytes;
    size_t n_bytes;
    unsigned times; /* over the bytes */
    _Atomic unsigned sink;
};

static void read_bytes(struct job *j, uint32_t thread)
{
    int64_t begin, end;
    uint64_t seen = 0;
    threads_slice(threads_count(j->threads), thread, (int64_t)(j->n_bytes / 256), &begin, &end);
    for (unsigned t = 0; t < j->times; t++) {
        for (int64_t i = begin; i < end; i++) {
            const __m128i *p = (const __m128i *)(const void *)(j->bytes + i * 256);
            for (int k = 0; k < 4; k++)
                __builtin_prefetch((const char *)p + 4096 + k * 64);
            __m128i x = _mm_or_si128(_mm_load_si128(p), _mm_load_si128(p + 1));
            for (int k = 2; k < 16; k++)
                x = _mm_or_si128(x, _mm_load_si128(p + k));
            seen |= (uint64_t)_mm_cvtsi128_si64(x);
        }
    }
    j->sink |= (unsigned)seen;
}

#define MANY(S) S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7) S(8) S(9) S(10) S(11)

/* Instructions of 12 independent sums, in assembly so that none is folded away. */
__attribute__((target("avx512f,avx512vnni"))) static void multiply_vnni(struct job *j,
                                                                        uint32_t thread)
{
    (void)j;
    (void)thread;
    for (unsigned i = 0; i < LOOPS; i++) {
#define S(n) __asm__ volatile("vpdpbusd %%zmm30, %%zmm31, %%zmm" #n ::: "xmm" #n);
        MANY(S)
#undef S
    }
}

__attribute__((target("avx2"))) static void multiply_avx2(struct job *j, uint32_t thread)
{
    (void)j;
    (void)thread;
    for (unsigned i = 0; i < LOOPS; i++) {
#define S(n)                                                    \
    __asm__ volatile("vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n\t" \
                     "vpmaddwd %%ymm14, %%ymm12, %%ymm12\n\t"   \
                     "vpaddd %%ymm12, %%ymm" #n ", %%ymm" #n :: \
                         : "xmm12", "xmm" #n);
        MANY(S)
#undef S
    }
}

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

__attribute__((target("amx-tile,amx-int8"))) static void multiply_amx(struct job *j,
                                                                      uint32_t thread)
{
    struct tile_config c = {.palette = 1};
    (void)j;
    (void)thread;
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = 64;
        c.rows[i] = 16;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(c));
    for (unsigned i = 0; i < LOOPS / 8; i++)
        __asm__ volatile("tdpbssd %tmm6, %tmm7, %tmm0\n\t"
                         "tdpbssd %tmm6, %tmm7, %tmm1\n\t"
                         "tdpbssd %tmm6, %tmm7, %tmm2\n\t"
                         "tdpbssd %tmm6, %tmm7, %tmm3");
    __asm__ volatile("tilerelease");
}

static bool has_amx(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & d >> 25 & 1))
        return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILEDATA) == 0;
}

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_timed(void *arg, uint32_t thread)
{
    struct job *j = arg;
    double begin = thread_seconds();
    j->fn(j, thread);
    j->seconds[thread] = thread_seconds() - begin;
}

/* Of the slowest thread, in the best run. Processor time: what else the machine does counts less.
 */
static double best_seconds(struct job *j)
{
    double best = 1e9;
    for (int i = 0; i < RUNS; i++) {
        double slowest = 0;
        threads_run(j->threads, run_timed, j);
        for (uint32_t t = 0; t < threads_count(j->threads); t++)
            slowest = j->seconds[t] > slowest ? j->seconds[t] : slowest;
        best = slowest < best ? slowest : best;
    }
    return best;
}

static void bandwidth(struct threads *t, const char *name, size_t bytes)
{
    struct job j = {.threads = t, .fn = read_bytes, .n_bytes = bytes, .times = 1};
    char *p = memory_map(bytes);
    if (!p) {
        fprintf(stderr, "bench_limits: no memory\n");
        exit(1);
    }
    memset(p, 1, bytes);
    j.bytes = p;
    while (j.times * bytes < (size_t)64 << 20)
        j.times++;
    printf("%s %.2f\n", name, 1e-9 * (double)(j.times * bytes) / best_seconds(&j));
    memory_unmap(p, bytes);
}

static void arithmetic(struct threads *t, const char *name,
                       void (*fn)(struct job *j, uint32_t thread), double macs)
{
    struct job j = {.threads = t, .fn = fn};
    printf("%s %.1f\n", name, 1e-9 * macs * threads_count(t) / best_seconds(&j));
}

int main(int argc, char **argv)
{
    uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    size_t mib = argc > 2 ? strtoul(argv[2], NULL, 10) : 128;
    struct threads *t;
    struct err e;
    if (mib < 1 || mib > 65536 || threads_create(n, &t, &e) < 0) {
        fprintf(stderr, "usage: bench_limits [threads [mebibytes]]\n");
        return 2;
    }
    bool amx = has_amx(); /* permission comes before the threads use it, for all of them */
    bandwidth(t, "read_gbs", mib << 20);
    bandwidth(t, "read_big_gbs", (size_t)1 << 30);
    if (kn_isa_available(KN_ISA_AVX2))
        arithmetic(t, "avx2_gmacs", multiply_avx2, 12.0 * 32 * LOOPS);
    if (kn_isa_available(KN_ISA_AVX512))
        arithmetic(t, "vnni_gmacs", multiply_vnni, 12.0 * 64 * LOOPS);
    if (amx)
        arithmetic(t, "amx_gmacs", multiply_amx, 4.0 * 16 * 16 * 64 * (LOOPS / 8));
    threads_free(t);
    return 0;
}

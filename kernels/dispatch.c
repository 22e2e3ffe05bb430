/* dispatch.c: which instruction sets this CPU has, and the table of functions of each. */
#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/table.h"

static const struct kn_ops tables[KN_ISA_COUNT] = {
    [KN_ISA_REF] = KN_TABLE(KN_ISA_REF, ref, ref),
    [KN_ISA_AVX2] = KN_TABLE(KN_ISA_AVX2, avx2, avx2),
    [KN_ISA_AVX512] = KN_TABLE(KN_ISA_AVX512, avx512, avx512),
    [KN_ISA_AMX] = KN_TABLE(KN_ISA_AMX, avx512, amx),
};

const char *kn_isa_name(enum kn_isa isa)
{
    static const char *const names[KN_ISA_COUNT] = {"ref", "avx2", "avx512", "amx"};

    return isa >= 0 && isa < KN_ISA_COUNT ? names[isa] : "?";
}

/* Leave to use the tile registers, whose 8 KiB the system saves for a process only when asked to.
 * The answer does not change, so threads that ask at the same time do no harm. */
static bool ask_for_tiles(void)
{
    static atomic_int answer;                               /* 0: not asked, 1: yes, 2: no */
    const long require_permission = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM */
    int known = atomic_load(&answer);

    if (known == 0) {
        unsigned a = 0, b = 0, c = 0, d = 0;
        bool has = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 24 & 1) != 0 &&
                   (d >> 25 & 1) != 0; /* AMX-TILE, AMX-INT8 */
        known = has && syscall(SYS_arch_prctl, require_permission, tile_data) == 0 ? 1 : 2;
        atomic_store(&answer, known);
    }
    return known == 1;
}

bool kn_isa_available(enum kn_isa isa)
{
    /* libgcc asks the CPU (and whether the system saves the registers) before main. */
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");

    switch (isa) {
    case KN_ISA_REF:
        return true;
    case KN_ISA_AVX2: /* every CPU with AVX2 has F16C */
        return avx2;
    case KN_ISA_AVX512:
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
    case KN_ISA_AMX:
        return kn_isa_available(KN_ISA_AVX512) && ask_for_tiles();
    default:
        return false;
    }
}

enum kn_isa kn_isa_best(void)
{
    enum kn_isa best = KN_ISA_REF;

    for (int i = 0; i < KN_ISA_COUNT; i++) {
        if (kn_isa_available((enum kn_isa)i)) {
            best = (enum kn_isa)i;
        }
    }
    return best;
}

const struct kn_ops *kn_ops(enum kn_isa isa)
{
    return kn_isa_available(isa) ? &tables[isa] : NULL;
}

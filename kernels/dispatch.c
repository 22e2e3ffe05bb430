/* dispatch.c: which instruction sets this CPU has, and the table of functions of each. */
#include "kernels/table.h"

static const struct kn_ops tables[KN_ISA_COUNT] = {
    [KN_ISA_REF] = KN_TABLE(KN_ISA_REF, ref),
    [KN_ISA_AVX2] = KN_TABLE(KN_ISA_AVX2, avx2),
    [KN_ISA_AVX512] = KN_TABLE(KN_ISA_AVX512, avx512),
};

const char *kn_isa_name(enum kn_isa isa)
{
    static const char *const names[KN_ISA_COUNT] = {"ref", "avx2", "avx512"};

    return isa >= 0 && isa < KN_ISA_COUNT ? names[isa] : "?";
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

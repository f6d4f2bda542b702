#include "kernels/cpu/host/isa.h"

#include <cpuid.h>
#include <string.h>

/* What the build was told for this set (Makefile, ISA_avx2): all of it must be there. Clang 14 knows no
 * "f16c" to ask for; the operating system's part is that of AVX2. */
static bool has_avx2(void)
{
    unsigned eax, ebx, ecx, edx;
    bool has_f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
    return has_f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

qd_status qd_cpu_isa_select(const char *name, const struct qd_cpu_kernels **out, char *err, size_t errlen)
{
    if (name == NULL || strcmp(name, "auto") == 0) {
        *out = has_avx2() ? &qd_cpu_kernels_avx2 : &qd_cpu_kernels_portable;
        return QD_OK;
    }
    if (strcmp(name, "portable") == 0) {
        *out = &qd_cpu_kernels_portable;
        return QD_OK;
    }
    if (strcmp(name, "avx2") == 0) {
        *out = &qd_cpu_kernels_avx2;
        if (has_avx2()) return QD_OK;
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen,
                       "instruction set avx2: this processor lacks AVX2, FMA or F16C; use auto or portable");
    }
    return qd_fail(QD_ERR_ARGUMENT, err, errlen, "instruction set \"%s\": it is auto, portable or avx2",
                   name);
}

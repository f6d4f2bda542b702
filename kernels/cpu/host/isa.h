/* Choice of the instruction set at run time. */
#ifndef QD_KERNELS_CPU_HOST_ISA_H
#define QD_KERNELS_CPU_HOST_ISA_H

#include "kernels/cpu/cpu.h"

/* The ops for `name` ("auto" or NULL: the widest that this processor runs). QD_ERR_ARGUMENT for an unknown
 * name, QD_ERR_ENVIRONMENT when the processor lacks the set. */
qd_status qd_cpu_isa_select(const char *name, const struct qd_cpu_kernels **out, char *err, size_t errlen);

#endif

/* Weights of the CPU device: rows as they come from the loader, rearranged in place into the panels that
 * kernels/cpu/cpu.h draws. The arrangement is the same for every instruction set. */
#ifndef QD_KERNELS_CPU_HOST_PACK_H
#define QD_KERNELS_CPU_HOST_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

/* Bytes of an [n_rows][n_cols] bf16 weight in `layout`, the zero rows that fill the last panel included; 0
 * for an empty weight, SIZE_MAX when the count does not fit or a size is negative. */
size_t qd_cpu_weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout);

/* Rearranges data, [n_rows][n_cols] bf16 row-major in a buffer of qd_cpu_weight_bytes(.., QD_LAYOUT_PACKED),
 * into panels of 16 rows, in place; uses one panel of temporary memory. QD_ERR_ARGUMENT for a negative or
 * overflowing size, QD_ERR_NO_MEMORY when the temporary memory is refused. */
qd_status qd_cpu_pack_weight(void *data, int64_t n_rows, int64_t n_cols, char *err, size_t errlen);

#endif

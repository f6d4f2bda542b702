/* Stored values to bf16: round to nearest even, counting finite values that become infinite. */
#ifndef QD_MODELS_CONVERT_H
#define QD_MODELS_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/bf16.h"

/* out[n] from n fp32 values (little-endian, any alignment); returns how many finite ones overflowed. NaN
 * stays NaN, infinities stay infinite. */
uint64_t qd_convert_f32(const void *in, size_t n, qd_bf16 *out);

/* out[n] from n IEEE half values; none can overflow, subnormals are exact or rounded as any other. */
void qd_convert_f16(const void *in, size_t n, qd_bf16 *out);

#endif

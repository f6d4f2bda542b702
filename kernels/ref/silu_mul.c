/* Gated linear unit with SiLU over gate and up columns that are interleaved in groups of 8. */
#include "kernels/ref/ref.h"
#include "kernels/ref/shared.h"
#include "kernels/traffic.h"

void qd_ref_silu_mul(const struct qd_silu_mul_args *args, enum qd_numerics numerics)
{
    for (int64_t row = 0; row < args->m; row++) {
        const qd_bf16 *gate_up = args->gate_up + row * 2 * args->n;
        for (int64_t i = 0; i < args->n; i++) {
            int64_t group, gate = qd_ref_gate_column(i, args->n, &group);
            args->out[row * args->n + i] =
                qd_ref_silu_mul_one((double)qd_bf16_to_f32(gate_up[gate]),
                                    (double)qd_bf16_to_f32(gate_up[gate + group]), numerics);
        }
    }
}

struct qd_traffic qd_traffic_silu_mul(int64_t m, int64_t n)
{
    return (struct qd_traffic){
        .bytes = (uint64_t)(m * n * (4 + 2)),
        .flops = (uint64_t)(4 * m * n), /* exponential, add, divide, multiply */
    };
}

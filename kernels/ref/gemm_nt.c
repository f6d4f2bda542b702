/* out = a * w^T, and what is done to the sums before they are stored. */
#include "kernels/ref/ref.h"
#include "kernels/ref/shared.h"
#include "kernels/traffic.h"

static double dot(const struct qd_gemm_nt_args *args, int64_t row, int64_t column)
{
    const qd_bf16 *a = args->a + row * args->lda;
    const qd_bf16 *w = (const qd_bf16 *)args->w.data + column * args->w.n_cols;
    double sum = 0;
    for (int64_t k = 0; k < args->w.n_cols; k++)
        sum += (double)qd_bf16_to_f32(a[k]) * (double)qd_bf16_to_f32(w[k]);
    return sum;
}

static void store_row(const struct qd_gemm_nt_args *args, int64_t row, enum qd_numerics numerics)
{
    for (int64_t n = 0; n < args->w.n_rows; n++) {
        const float sum = (float)dot(args, row, n);
        if (args->epilogue == QD_EPILOGUE_STORE || args->epilogue == QD_EPILOGUE_PARTIAL)
            ((qd_bf16 *)args->out)[row * args->ldo + n] = qd_bf16_from_f32(sum);
        else
            ((float *)args->out)[row * args->ldo + n] = numerics == QD_NUMERICS_HF ? qd_bf16_round(sum) : sum;
    }
}

static void silu_mul_row(const struct qd_gemm_nt_args *args, int64_t row, enum qd_numerics numerics)
{
    const int64_t n_out = args->w.n_rows / 2;
    for (int64_t i = 0; i < n_out; i++) {
        int64_t group, gate = qd_ref_gate_column(i, n_out, &group);
        ((qd_bf16 *)args->out)[row * args->ldo + i] =
            qd_ref_silu_mul_one(dot(args, row, gate), dot(args, row, gate + group), numerics);
    }
}

void qd_ref_gemm_nt(const struct qd_gemm_nt_args *args, enum qd_numerics numerics)
{
    if (args->epilogue == QD_EPILOGUE_PARTIAL) *args->partial = qd_partial_stored(args->out);
    for (int64_t row = 0; row < args->m; row++) {
        if (args->epilogue == QD_EPILOGUE_SILU_MUL)
            silu_mul_row(args, row, numerics);
        else
            store_row(args, row, numerics);
    }
}

struct qd_traffic qd_traffic_gemm_nt(int64_t m, int64_t n, int64_t k, enum qd_epilogue epilogue)
{
    const int64_t out_bytes = epilogue == QD_EPILOGUE_STORE_F32  ? 4 * n
                              : epilogue == QD_EPILOGUE_SILU_MUL ? 2 * (n / 2)
                                                                 : 2 * n;
    return (struct qd_traffic){
        .bytes = (uint64_t)(2 * n * k + m * (2 * k + out_bytes)),
        .flops = (uint64_t)(2 * m * n * k), /* the epilogue is below 0.1 % of it */
    };
}

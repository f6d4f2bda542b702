/* Random weights of a rank's slice of a tensor. */
#include "kernels/base/random.h"
#include "kernels/ref/ref.h"

void qd_ref_fill_uniform(const struct qd_store_fill *args)
{
    for (int64_t i = 0; i < args->n_rows; i++) {
        int64_t row = args->interleaved ? i / 8 * 16 + i % 8 : i;
        for (int64_t j = 0; j < args->n_slice_cols; j++) {
            int64_t index = (args->row_begin + i) * args->n_cols + args->col_begin + j; /* in the tensor */
            qd_bf16 draws[QD_DRAWS];
            qd_draw_bf16(args->seed, args->tensor, (uint64_t)(index / QD_DRAWS), args->width, draws);
            args->to[row * args->ld + j] = draws[index % QD_DRAWS];
        }
    }
}

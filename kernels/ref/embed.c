/* Token embedding: one table row per token. */
#include <string.h>

#include "kernels/ref/ref.h"
#include "kernels/traffic.h"

void qd_ref_embed(const struct qd_embed_args *args, const int32_t *sampled)
{
    const qd_bf16 *table = args->table.data; /* [vocab][H] */
    const int64_t dim = args->table.n_cols;
    for (int64_t t = 0; t < args->n_tokens; t++) {
        const int32_t source = args->token_source[t];
        const int32_t id = source >= 0 ? source : sampled[-(source + 1)];
        memcpy(args->out + t * dim, table + id * dim, (size_t)dim * sizeof(qd_bf16));
    }
}

struct qd_traffic qd_traffic_embed(int64_t n_tokens, int64_t hidden_dim)
{
    return (struct qd_traffic){.bytes = (uint64_t)(n_tokens * (4 + 2 * hidden_dim + 2 * hidden_dim))};
}

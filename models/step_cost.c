#include "models/step_cost.h"

struct list {
    struct qd_step_op *ops; /* [QD_MAX_STEP_OPS] */
    int n;
};

static void add(struct list *list, const char *name, enum qd_segment segment, int64_t times, int64_t n_rows,
                struct qd_traffic traffic)
{
    QD_ASSERT(list->n < QD_MAX_STEP_OPS);
    list->ops[list->n++] =
        (struct qd_step_op){.name = name, .segment = segment, .times = times, .n_rows = n_rows, .traffic = traffic};
}

/* A residual's sum and norm: with several ranks it reads every rank's part and is a collective. */
static void add_norm(struct list *list, const char *name, int64_t times, int64_t n_rows, int64_t dim, int tp)
{
    add(list, name, tp > 1 ? QD_SEGMENT_COLLECTIVE : QD_SEGMENT_NORM_ROPE, times, n_rows,
        qd_traffic_reduce_add_rmsnorm(n_rows, dim, tp, QD_PARTIAL_BF16));
}

static void add_gemm(struct list *list, const char *name, int64_t times, int64_t m, int64_t n, int64_t k,
                     enum qd_epilogue epilogue)
{
    add(list, name, QD_SEGMENT_LINEAR, times, m, qd_traffic_gemm_nt(m, n, k, epilogue));
}

int qd_model_step_ops(const struct qd_model_config *c, const struct qd_shard *shard,
                      const struct qd_attention_load *load, int64_t n_logit_rows,
                      struct qd_step_op ops[QD_MAX_STEP_OPS])
{
    struct list list = {.ops = ops};
    int64_t m = load->n_tokens, h = c->hidden_dim, layers = c->n_layers;
    int64_t q_dim = (int64_t)shard->n_heads * c->head_dim, kv_dim = (int64_t)shard->n_kv_heads * c->head_dim;
    add(&list, "embed", QD_SEGMENT_NORM_ROPE, 1, m, qd_traffic_embed(m, h));
    add(&list, "rmsnorm", QD_SEGMENT_NORM_ROPE, 1, m, qd_traffic_rmsnorm(m, h));
    add_gemm(&list, "qkv", layers, m, q_dim + 2 * kv_dim, h, QD_EPILOGUE_PARTIAL);
    add(&list, "qk_norm_rope_kv", QD_SEGMENT_NORM_ROPE, layers, m,
        qd_traffic_qk_norm_rope_kv(m, shard->n_heads, shard->n_kv_heads, c->head_dim));
    add(&list, "attention", QD_SEGMENT_ATTENTION, layers, m,
        qd_traffic_attention(load, shard->n_heads, shard->n_kv_heads, c->head_dim));
    add_gemm(&list, "o", layers, m, h, q_dim, QD_EPILOGUE_PARTIAL);
    add_norm(&list, "reduce_add_rmsnorm", 2 * layers - 1, m, h, shard->tp);
    add_gemm(&list, "gate_up", layers, m, 2 * shard->ffn_dim, h, QD_EPILOGUE_SILU_MUL);
    add_gemm(&list, "down", layers, m, h, shard->ffn_dim, QD_EPILOGUE_PARTIAL);
    if (n_logit_rows == 0) return list.n;
    add_norm(&list, "final_norm", 1, n_logit_rows, h, shard->tp);
    if (shard->vocab_count == 0) return list.n;
    add_gemm(&list, "lm_head", 1, n_logit_rows, shard->vocab_count, h, QD_EPILOGUE_STORE_F32);
    add(&list, "sample", QD_SEGMENT_SAMPLING, 1, n_logit_rows, qd_traffic_sample(n_logit_rows, shard->vocab_count));
    return list.n;
}

/* Bytes and operations of each op against numbers worked out by hand. */
#include "kernels/traffic.h"

#include "tests/support/steps.h"
#include "tests/support/test.h"

/* The shape of a published Qwen3 model on one rank. */
struct model {
    int64_t hidden, ffn, vocab, n_layers, q_dim, kv_dim, head_dim;
};
static const struct model qwen3_8b = {4096, 12288, 151936, 36, 4096, 1024, 128};
static const struct model qwen3_06b = {1024, 3072, 151936, 28, 2048, 1024, 128};

static struct qd_traffic linear_layers(const struct model *m, int64_t rows)
{
    const struct qd_traffic parts[] = {
        qd_traffic_gemm_nt(rows, m->q_dim + 2 * m->kv_dim, m->hidden, QD_EPILOGUE_STORE),
        qd_traffic_gemm_nt(rows, m->hidden, m->q_dim, QD_EPILOGUE_STORE),
        qd_traffic_gemm_nt(rows, 2 * m->ffn, m->hidden, QD_EPILOGUE_SILU_MUL),
        qd_traffic_gemm_nt(rows, m->hidden, m->ffn, QD_EPILOGUE_STORE),
    };
    struct qd_traffic sum = {0};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        sum.bytes += (uint64_t)m->n_layers * parts[i].bytes;
        sum.flops += (uint64_t)m->n_layers * parts[i].flops;
    }
    return sum;
}

/* With no rows an op costs its weights alone: 15.137 GB that every decode step of Qwen3-8B reads. */
static void weights_of_a_decode_step(void **state)
{
    (void)state;
    const struct model *m = &qwen3_8b;
    const uint64_t norms =
        (uint64_t)m->n_layers * (qd_traffic_rmsnorm(0, m->hidden).bytes +
                                 qd_traffic_reduce_add_rmsnorm(0, m->hidden, 1, QD_PARTIAL_BF16).bytes +
                                 qd_traffic_qk_norm_rope_kv(0, 32, 8, 128).bytes) +
        qd_traffic_rmsnorm(0, m->hidden).bytes;
    const uint64_t bytes = linear_layers(m, 0).bytes +
                           qd_traffic_gemm_nt(0, m->vocab, m->hidden, QD_EPILOGUE_STORE_F32).bytes + norms;
    assert_int_equal(norms, 36 * (8192 + 8192 + 512) + 8192);
    assert_int_equal(bytes / 1000000, 15136); /* 15 136 810 496 */
    assert_int_equal((bytes + 500000) / 1000000, 15137);
}

static void flops_of_a_token(void **state)
{
    (void)state;
    assert_int_equal(linear_layers(&qwen3_06b, 1).flops, 880803840); /* 2 * 28 * 15 728 640 */
    assert_int_equal(linear_layers(&qwen3_06b, 7).flops, UINT64_C(7) * 880803840);
}

static void gemm_counts_each_operand_once(void **state)
{
    (void)state;
    /* weight 2*3*5, input 2*2*5, output by type */
    assert_int_equal(qd_traffic_gemm_nt(2, 3, 5, QD_EPILOGUE_STORE).bytes, 30 + 20 + 12);
    assert_int_equal(qd_traffic_gemm_nt(2, 3, 5, QD_EPILOGUE_STORE_F32).bytes, 30 + 20 + 24);
    assert_int_equal(qd_traffic_gemm_nt(2, 4, 5, QD_EPILOGUE_SILU_MUL).bytes, 40 + 20 + 8);
    assert_int_equal(qd_traffic_gemm_nt(2, 3, 5, QD_EPILOGUE_STORE).flops, 60);
}

static void small_ops_count_each_operand_once(void **state)
{
    (void)state;
    assert_int_equal(qd_traffic_embed(3, 8).bytes, 3 * (4 + 16 + 16));
    assert_int_equal(qd_traffic_embed(3, 8).flops, 0);
    assert_int_equal(qd_traffic_rmsnorm(3, 8).bytes, 3 * (16 + 16) + 16);
    assert_int_equal(qd_traffic_rmsnorm(3, 8).flops, 4 * 24);
    assert_int_equal(qd_traffic_silu_mul(3, 8).bytes, 3 * (32 + 16));
    assert_int_equal(qd_traffic_silu_mul(3, 8).flops, 4 * 24);
    /* 2 query heads and 1 kv head of 4: 16 values in and out of each token, two weights of 4, id words */
    assert_int_equal(qd_traffic_qk_norm_rope_kv(5, 2, 1, 4).bytes, 5 * (32 + 32 + 12) + 16);
    assert_int_equal(qd_traffic_qk_norm_rope_kv(5, 2, 1, 4).flops, 5 * 12 * 7);
    assert_int_equal(qd_traffic_reduce_add_rmsnorm(3, 8, 1, QD_PARTIAL_BF16).bytes, 24 * 8 + 16);
    assert_int_equal(qd_traffic_reduce_add_rmsnorm(3, 8, 4, QD_PARTIAL_F32).bytes, 24 * (6 + 16) + 16);
    assert_int_equal(qd_traffic_reduce_add_rmsnorm(3, 8, 4, QD_PARTIAL_F32).flops, 24 * 8);
    assert_int_equal(qd_traffic_sample(2, 100).bytes, 2 * 404);
    assert_int_equal(qd_traffic_all_gather(16, 4).bytes, 16 + 64);
    assert_int_equal(qd_traffic_all_reduce(8, 4).bytes, 5 * 16);
    assert_int_equal(qd_traffic_all_reduce(8, 4).flops, 24);
}

static void attention_counts_visible_keys(void **state)
{
    (void)state;
    /* a decode seeing 33 keys; 3 tokens after 4 cached: 5 + 6 + 7; a prefill of 2: 1 + 2 */
    const struct chunk chunks[] = {{0, 32, 1}, {1, 4, 3}, {2, 0, 2}};
    struct page_deal deal = page_deal_init(3, 48, 1);
    struct qd_step *step = new_step(&deal, chunks, 3);
    const struct qd_attention_load load = qd_attention_load(step);
    assert_int_equal(load.n_tokens, 6);
    assert_int_equal(load.n_visible, 33 + 18 + 3);
    assert_int_equal(load.n_kv, 33 + 7 + 2);

    const struct qd_traffic t = qd_traffic_attention(&load, 4, 2, 64);
    assert_int_equal(t.flops, 4 * 256 * 54);
    assert_int_equal(t.bytes, 6 * (512 + 512) + 42 * (256 + 256)); /* q and out; K and V of 2 heads */
    free(step);
    page_deal_free(&deal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_a_decode_step),      cmocka_unit_test(flops_of_a_token),
        cmocka_unit_test(gemm_counts_each_operand_once), cmocka_unit_test(small_ops_count_each_operand_once),
        cmocka_unit_test(attention_counts_visible_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The tensor-parallel plan: what divides, who owns what, and the bytes it takes. */
#include "tests/support/test.h"

#include "models/shard.h"
#include "tests/support/random_model.h"

static struct qd_shard shard_of(const struct qd_model_config *config, int tp, int rank)
{
    struct qd_shard shard;
    char err[QD_ERR_LEN];
    ASSERT_OK(qd_shard_make(config, tp, rank, &shard, err, sizeof err), err);
    return shard;
}

static void test_heads_and_ffn(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true); /* 8 heads, 2 KV heads, ffn 72 */
    struct qd_shard s = shard_of(&config, 2, 1);
    assert_int_equal(s.n_heads, 4);
    assert_int_equal(s.head_begin, 4);
    assert_int_equal(s.n_kv_heads, 1);
    assert_int_equal(s.kv_head_begin, 1);
    assert_int_equal(s.ffn_dim, 36);
    assert_int_equal(s.ffn_begin, 36);
    /* more ranks than KV heads: ranks 0 to 3 share the first, 4 to 7 the second */
    for (int rank = 0; rank < 8; rank++) {
        s = shard_of(&config, 8, rank);
        assert_int_equal(s.n_heads, 1);
        assert_int_equal(s.n_kv_heads, 1);
        assert_int_equal(s.kv_head_begin, rank / 4);
        /* the query head's own KV head, by the grouping of the whole model */
        assert_int_equal(s.kv_head_begin, s.head_begin / 4);
        assert_int_equal(s.ffn_dim, 9);
    }
    struct qd_model_shape shape = qd_shard_shape(&config, &s);
    assert_int_equal(shape.n_heads, 1);
    assert_int_equal(shape.ffn_dim, 9);
    assert_int_equal(shape.vocab_size, 131);
}

static void test_vocabulary_rule(void **state)
{
    (void)state;
    static const struct {
        int64_t vocab;
        int tp;
        int64_t rows, last_count;
    } cases[] = {{131, 1, 192, 131},
                 {131, 2, 128, 3},
                 {131, 4, 64, 0},
                 {515, 8, 128, 0},
                 {512, 8, 64, 64},
                 {1, 8, 64, 0},
                 {151936, 8, 19008, 151936 - 7 * 19008}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qd_model_config config = small_config(true);
        config.vocab_size = cases[i].vocab;
        int64_t next = 0;
        for (int rank = 0; rank < cases[i].tp; rank++) {
            struct qd_shard s = shard_of(&config, cases[i].tp, rank);
            assert_int_equal(s.vocab_rows, cases[i].rows);
            assert_int_equal(s.vocab_begin, next);
            assert_in_range(s.vocab_count, 0, s.vocab_rows);
            if (s.vocab_count > 0) assert_int_equal(s.vocab_begin % 64, 0);
            next += s.vocab_count;
            if (rank == cases[i].tp - 1) assert_int_equal(s.vocab_count, cases[i].last_count);
        }
        assert_int_equal(next, cases[i].vocab);
    }
}

static void refuse(const struct qd_model_config *config, int tp, qd_status expected, const char *why)
{
    struct qd_shard shard;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_shard_make(config, tp, 0, &shard, err, sizeof err), expected);
    ASSERT_CONTAINS(err, why);
    struct qd_memory_need need;
    struct qd_step_limits limits = {1, 1, 1, 1};
    assert_int_equal(qd_memory_need(config, tp, &panel_ops, &limits, &need, err, sizeof err), expected);
}

static void test_refusals_name_the_arithmetic(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    refuse(&config, 0, QD_ERR_ARGUMENT, "1 .. 8");
    refuse(&config, 16, QD_ERR_ARGUMENT, "1 .. 8");
    refuse(&config, 3, QD_ERR_UNSUPPORTED, "8 attention heads do not divide by TP 3");
    config.ffn_dim = 42;
    refuse(&config, 4, QD_ERR_UNSUPPORTED, "intermediate_size 42 does not divide by TP 4");
    config = small_config(true);
    config.n_heads = 6;
    config.n_kv_heads = 3;
    refuse(&config, 2, QD_ERR_UNSUPPORTED, "3 KV heads and TP 2");
    shard_of(&config, 3, 2);
    shard_of(&config, 6, 5);
}

static void test_memory_of_8b(void **state)
{
    (void)state;
    struct qd_model_config config;
    char err[QD_ERR_LEN];
    struct qd_memory_need one, eight;
    struct qd_step_limits limits = {
        .max_tokens = 2048, .max_seqs = 128, .max_blocks = 1, .max_logit_rows = 128};
    ASSERT_OK(qd_model_config_preset("8B", &config, err, sizeof err), err);
    ASSERT_OK(qd_memory_need(&config, 1, &panel_ops, &limits, &one, err, sizeof err), err);
    assert_int_equal(one.weight_bytes + one.embedding_bytes, 2 * qd_model_n_params(&config));
    assert_int_equal(one.embedding_bytes, 2 * 622329856LL);
    assert_int_equal(one.kv_bytes_per_token, 147456);
    /* rows of 4*H + 6144 + 2*4096 + 12288 values, and three vocabularies of logits (the shard's is padded) */
    assert_int_equal(one.activation_bytes, 2048LL * 2 * 43008 + 128LL * 4 * 151936);
    assert_int_equal(one.logit_bytes, 128LL * 4 * 2 * 151936);
    ASSERT_OK(qd_memory_need(&config, 8, &panel_ops, &limits, &eight, err, sizeof err), err);
    assert_int_equal(eight.kv_bytes_per_token, 147456 / 8);
    assert_in_range(eight.weight_bytes, one.weight_bytes / 8, one.weight_bytes / 8 + (1 << 20));

    struct qd_device_ops null_ops = {.executes = false};
    ASSERT_OK(qd_memory_need(&config, 2, &null_ops, &limits, &one, err, sizeof err), err);
    assert_int_equal(one.weight_bytes + one.embedding_bytes + one.activation_bytes, 0);
    assert_int_equal(one.kv_bytes_per_token, 147456 / 2);
}

static void test_memory_of_a_tied_model(void **state)
{
    (void)state;
    struct qd_model_config config;
    char err[QD_ERR_LEN];
    struct qd_memory_need need;
    struct qd_step_limits limits = {1, 1, 1, 1};
    ASSERT_OK(qd_model_config_preset("0.6B", &config, err, sizeof err), err);
    ASSERT_OK(qd_memory_need(&config, 1, &panel_ops, &limits, &need, err, sizeof err), err);
    assert_int_equal(need.weight_bytes, 2 * 440467456LL);
    assert_int_equal(need.embedding_bytes, 2 * 155582464LL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads_and_ffn),
        cmocka_unit_test(test_vocabulary_rule),
        cmocka_unit_test(test_refusals_name_the_arithmetic),
        cmocka_unit_test(test_memory_of_8b),
        cmocka_unit_test(test_memory_of_a_tied_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

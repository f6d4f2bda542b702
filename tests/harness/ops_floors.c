/* Floors of machine profiles against figures worked out by hand from data sheets: Qwen3-8B in bf16, TP 1. */
#include <math.h>

#include "harness/ops/case.h"
#include "harness/ops/machine.h"
#include "tests/support/test.h"

static const struct qd_model_shape qwen3_8b = {.hidden_dim = 4096,
                                               .ffn_dim = 12288,
                                               .vocab_size = 151936,
                                               .n_layers = 36,
                                               .n_heads = 32,
                                               .n_kv_heads = 8,
                                               .head_dim = 128};

/* us: bytes / bandwidth, or operations / peak where that is more. Worked out by hand, to the digits that
 * stand here: qkv 1 token: 2 * 6144 * 4096 + 2 * 4096 + 2 * 6144 = 50 352 128 B; 2048 tokens: 2 * 2048 * 6144
 * * 4096 = 103.1 G. attention, 1 token at 1024 keys: 2 * 2 * 1024 * 1024 + 4 * 4096 B; 64 of them 64 times as
 * much; a prompt of 2048: 4 * 4096 * 2048 * 2049 / 2 = 34.4 G. */
static const struct {
    const char *machine;
    enum qd_op op;
    int32_t n_tokens, context;
    double us, digits;
    bool compute_bound;
} floors[] = {
    {"H100-SXM", QD_OP_QKV, 1, 0, 15.03, 0.005, false},
    {"H100-SXM", QD_OP_QKV, 64, 0, 15.42, 0.005, false},
    {"H100-SXM", QD_OP_QKV, 2048, 0, 104, 0.5, true},
    {"H100-SXM", QD_OP_O, 1, 0, 10.02, 0.005, false},
    {"H100-SXM", QD_OP_DOWN, 64, 0, 30.67, 0.005, false},
    {"H100-SXM", QD_OP_GATE_UP, 1, 0, 60.11, 0.005, false},
    {"H100-SXM", QD_OP_GATE_UP, 2048, 0, 417, 0.5, true},
    {"H100-SXM", QD_OP_LM_HEAD, 1, 0, 372, 0.5, false},
    {"H100-SXM", QD_OP_ATTENTION_DECODE, 1, 1023, 1.26, 0.005, false},
    {"H100-SXM", QD_OP_ATTENTION_DECODE, 64, 1023, 80.44, 0.005, false},
    {"H100-SXM", QD_OP_ATTENTION_PREFILL, 2048, 0, 34.8, 0.05, true},
    {"A100-80G", QD_OP_QKV, 2048, 0, 330, 0.5, true},
    {"A100-80G", QD_OP_ATTENTION_PREFILL, 2048, 0, 110, 0.5, true},
    {"A100-80G", QD_OP_LM_HEAD, 1, 0, 611, 0.5, false},
    {"L40S", QD_OP_QKV, 2048, 0, 285, 0.5, true},
    {"L40S", QD_OP_DOWN, 1, 0, 117, 0.5, false},
    {"RTX-4090", QD_OP_O, 1, 0, 33.30, 0.005, false},        /* 33 570 816 B at 1008 GB/s */
    {"RTX-4090", QD_OP_O, 2048, 0, 416, 0.5, true},          /* 68.7 G at 165.2 TFLOP/s */
    {"RTX-4090", QD_OP_RMSNORM, 2048, 0, 33.3, 0.05, false}, /* 2 * 2 * 2048 * 4096 + 8192 B */
};

static void floors_are_the_data_sheets(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    for (size_t i = 0; i < sizeof floors / sizeof *floors; i++) {
        struct qd_op_machine machine;
        bool compute_bound;
        const struct qd_op_case c = {.op = floors[i].op,
                                     .shape = qwen3_8b,
                                     .tp = 1,
                                     .n_tokens = floors[i].n_tokens,
                                     .context = floors[i].context};
        ASSERT_OK(qd_op_machine_get(floors[i].machine, &machine, err, sizeof err), err);
        double us = qd_op_floor_us(&machine, qd_op_traffic(&c), &compute_bound);
        if (!(fabs(us - floors[i].us) <= floors[i].digits) || compute_bound != floors[i].compute_bound)
            fail_msg("%s, %s of %d tokens: %.4f us, bound by %s", floors[i].machine, qd_op_name(c.op),
                     c.n_tokens, us, compute_bound ? "operations" : "bytes");
    }
}

/* A weight shard at TP 8 is an eighth; the vocabulary's a whole number of 64s. */
static void shards_cost_their_share(void **state)
{
    (void)state;
    const struct qd_op_case c = {.op = QD_OP_LM_HEAD, .shape = qwen3_8b, .tp = 8, .n_tokens = 1};
    assert_int_equal(qd_op_vocab_rows(&c), 19008);
    assert_int_equal(qd_op_vocab_count(&c, 0), 19008);
    assert_int_equal(qd_op_vocab_count(&c, 7), 151936 - 7 * 19008);
    assert_int_equal(qd_op_gemm(&c).n, 19008);
}

static void profile_is_refused(const char *text, const char *reason)
{
    char path[] = "/tmp/qdyno-machine-XXXXXX", name[64], err[QD_ERR_LEN] = "";
    struct qd_op_machine machine;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    snprintf(name, sizeof name, "%s.json", path);
    assert_int_equal(rename(path, name), 0);
    assert_int_equal(qd_op_machine_get(name, &machine, err, sizeof err), QD_ERR_INPUT);
    unlink(name);
    if (strstr(err, name) == NULL || strstr(err, reason) == NULL)
        fail_msg("\"%s\" says not \"%s\"", err, reason);
}

#define FIGURES(memory, peak)                                                                                \
    "{\"schema\": 1, \"name\": \"a\", \"title\": \"b\", \"memory_gbps\": " memory ", \"bf16_gflops\": " peak \
    "}"
#define GOOD "{\"value\": 1, \"source\": \"c\"}"

static void bad_profiles_are_refused_by_field(void **state)
{
    (void)state;
    profile_is_refused("[1]", "it is no object");
    profile_is_refused("{\"schema\": 2}", "schema");
    profile_is_refused("{\"schema\": 1}", "name");
    profile_is_refused("{\"schema\": 1, \"name\": \"\"}", "name: it is empty");
    profile_is_refused(FIGURES("3350", GOOD), "memory_gbps: it is no object");
    profile_is_refused(FIGURES("{\"value\": \"x\", \"source\": \"c\"}", GOOD), "memory_gbps");
    profile_is_refused(FIGURES(GOOD, "{\"value\": -1, \"source\": \"c\"}"), "bf16_gflops: -1 is not above 0");
    profile_is_refused(FIGURES(GOOD, "{\"value\": 1}"), "bf16_gflops: it names no source");
    profile_is_refused("{", "");
}

static void unknown_machines_are_told_which_there_are(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_op_machine machine;
    assert_int_equal(qd_op_machine_get("H100", &machine, err, sizeof err), QD_ERR_NOT_FOUND);
    assert_non_null(strstr(err, "H100-SXM, A100-80G, L40S, RTX-4090"));
    assert_int_equal(qd_op_machine_get("/nowhere/x.json", &machine, err, sizeof err), QD_ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floors_are_the_data_sheets),
        cmocka_unit_test(shards_cost_their_share),
        cmocka_unit_test(bad_profiles_are_refused_by_field),
        cmocka_unit_test(unknown_machines_are_told_which_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Times of kernels alone: read from a file, checked against a run, interpolated, and added up over steps by
 * hand. */
#include "tests/support/test.h"

#include "harness/ops/alone.h"
#include "harness/result/machine.h"
#include "kernels/cpu/host/device.h"
#include "tests/support/files.h"

/* Three layers; V is no multiple of anything. */
static const struct qd_model_config config = {.hidden_dim = 32,
                                              .ffn_dim = 48,
                                              .vocab_size = 101,
                                              .n_layers = 3,
                                              .n_heads = 4,
                                              .n_kv_heads = 2,
                                              .head_dim = 16};

static const struct qd_alone_run run = {.ops = &qd_cpu_ops,
                                        .config = &config,
                                        .numerics = QD_NUMERICS_FUSED,
                                        .tp = 1,
                                        .isa = "portable",
                                        .n_threads_per_rank = 2};

struct fixture {
    struct temp_dir dir;
    cJSON *tree;
};

/* What an op of T tokens behind C keys takes here: its number in the enumeration decides. Linear in both, so
 * that interpolated times are exact. */
static double us_of(enum qd_op op, double rows, double context)
{
    return 10 * (op + 1) + 3 * rows + 0.25 * context;
}

static void add_row(cJSON *rows, enum qd_op op, int32_t tokens, int32_t context)
{
    struct qd_shard shard;
    char err[QD_ERR_LEN], shape[128];
    ASSERT_OK(qd_shard_make(&config, 1, 0, &shard, err, sizeof err), err);
    struct qd_op_case c = {
        .op = op, .shape = qd_shard_shape(&config, &shard), .tp = 1, .n_tokens = tokens, .context = context};
    qd_op_describe(&c, shape, sizeof shape);
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "op", qd_op_name(op));
    cJSON_AddNumberToObject(row, "tp", 1);
    cJSON_AddNumberToObject(row, "tokens", tokens);
    cJSON_AddNumberToObject(row, "context", context);
    cJSON_AddStringToObject(row, "shape", shape);
    cJSON_AddStringToObject(row, "numerics", "fused");
    cJSON_AddStringToObject(row, "status", "passed");
    cJSON_AddNumberToObject(row, "median_us", us_of(op, (double)qd_op_rows(&c), context));
    cJSON_AddItemToArray(rows, row);
}

/* Every op of 1, 2, 8 and 20 tokens, attention behind 0, 16 and 64 keys. */
static int set_up(void **state)
{
    static const int32_t tokens[] = {20, 1, 8, 2}, contexts[] = {16, 0, 64};
    struct fixture *f = calloc(1, sizeof *f);
    struct qd_machine machine;
    f->dir = temp_dir_create();
    f->tree = cJSON_CreateObject();
    qd_machine_read(&machine);
    cJSON_AddNumberToObject(f->tree, "schema", 2);
    cJSON_AddStringToObject(f->tree, "device", "cpu");
    cJSON_AddStringToObject(f->tree, "isa", "portable");
    cJSON_AddNumberToObject(f->tree, "n_threads", 2);
    cJSON_AddItemToObject(f->tree, "machine", qd_machine_to_json(&machine));
    cJSON *rows = cJSON_AddArrayToObject(f->tree, "rows");
    for (int op = 0; op < QD_OP_ALL_REDUCE; op++)
        for (int t = 0; t < 4; t++)
            for (int c = 0; c < (qd_op_is_attention((enum qd_op)op) ? 3 : 1); c++)
                if (op != QD_OP_ATTENTION_PREFILL || tokens[t] > 1)
                    add_row(rows, (enum qd_op)op, tokens[t],
                            qd_op_is_attention((enum qd_op)op) ? contexts[c] : 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    cJSON_Delete(f->tree);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static qd_status read_tree(struct fixture *f, struct qd_alone *out, char *err, size_t errlen)
{
    char *text = cJSON_PrintUnformatted(f->tree);
    write_file(in_dir(&f->dir, "k.json"), text, strlen(text));
    cJSON_free(text);
    return qd_alone_read(in_dir(&f->dir, "k.json"), &run, out, err, errlen);
}

static double time_of(const struct qd_alone *alone, enum qd_op op, double rows, double context)
{
    double us = -1;
    char why[QD_ERR_LEN] = "";
    if (!qd_alone_us(alone, op, rows, context, &us, why, sizeof why)) fail_msg("%s", why);
    return us;
}

static void times_between_rows_are_on_the_lines(void **state)
{
    struct qd_alone alone;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(read_tree(*state, &alone, err, sizeof err), err);
    static const double rows[] = {1, 2, 3, 8, 13.5, 20}, contexts[] = {0, 5, 16, 40.5, 64};
    for (int r = 0; r < 6; r++) {
        assert_within(time_of(&alone, QD_OP_DOWN, rows[r], 0), us_of(QD_OP_DOWN, rows[r], 0), 1e-9);
        for (int c = 0; c < 5; c++)
            assert_within(time_of(&alone, QD_OP_ATTENTION_DECODE, rows[r], contexts[c]),
                          us_of(QD_OP_ATTENTION_DECODE, rows[r], contexts[c]), 1e-9);
    }
    /* A chunk of one token is a decode: 1.5 tokens lie between that and 2 of prefill. */
    double one = us_of(QD_OP_ATTENTION_DECODE, 1, 16), two = us_of(QD_OP_ATTENTION_PREFILL, 2, 16);
    assert_within(time_of(&alone, QD_OP_ATTENTION_PREFILL, 1.5, 16), (one + two) / 2, 1e-9);
    /* A last norm of 1 and of 2 tokens has one row. */
    assert_within(time_of(&alone, QD_OP_FINAL_NORM, 1, 0), us_of(QD_OP_FINAL_NORM, 1, 0), 1e-9);
    qd_alone_free(&alone);
}

/* Of two ways at one size the one that the device chooses counts, wherever it stands. */
static void the_chosen_way_counts(void **state)
{
    struct fixture *f = *state;
    struct qd_alone alone;
    char err[QD_ERR_LEN] = "";
    cJSON *rows = cJSON_GetObjectItemCaseSensitive(f->tree, "rows");
    static const double us[] = {7000, 7001, 7002};
    for (int i = 0; i < 3; i++) {
        add_row(rows, QD_OP_SAMPLE, 19, 0);
        cJSON *row = cJSON_GetArrayItem(rows, cJSON_GetArraySize(rows) - 1);
        cJSON_AddStringToObject(row, "way", i == 0 ? "one-shot" : i == 1 ? "two-shot" : "nccl");
        cJSON_AddNumberToObject(row, "chosen", i == 1);
        cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(row, "median_us"), us[i]);
    }
    ASSERT_OK(read_tree(f, &alone, err, sizeof err), err);
    assert_within(time_of(&alone, QD_OP_SAMPLE, 19, 0), 7001, 0);
    qd_alone_free(&alone);
}

static void nothing_is_known_outside(void **state)
{
    struct qd_alone alone;
    char err[QD_ERR_LEN] = "";
    double us;
    ASSERT_OK(read_tree(*state, &alone, err, sizeof err), err);
    assert_false(qd_alone_us(&alone, QD_OP_QKV, 20.5, 0, &us, err, sizeof err));
    ASSERT_CONTAINS(err, "qkv of 20.5 rows lies outside the 1 to 20 that were measured");
    assert_false(qd_alone_us(&alone, QD_OP_QKV, 0.5, 0, &us, err, sizeof err));
    assert_false(qd_alone_us(&alone, QD_OP_ATTENTION_DECODE, 4, 64.5, &us, err, sizeof err));
    ASSERT_CONTAINS(err, "attention_decode of 4 behind 64.5 keys");
    assert_false(qd_alone_us(&alone, QD_OP_ATTENTION_DECODE, 21, 16, &us, err, sizeof err));
    qd_alone_free(&alone);
}

static const struct qd_step_row mixed = {.n_prefill_tokens = 10,
                                         .n_decode_tokens = 3,
                                         .n_seqs = 5,
                                         .n_prefill_seqs = 2, /* 5 tokens each, behind 7 keys on average */
                                         .n_logit_rows = 4,
                                         .n_kv = 24 + 63, /* 3 decodes behind 20 keys */
                                         .n_prefill_kv = 24};

/* The sum of a step, written out. */
static double mixed_us(void)
{
    double attention = us_of(QD_OP_ATTENTION_DECODE, 3, 20);
    /* 5 tokens: on the line from 2 to 8; all are of prefill. */
    attention += 2 * us_of(QD_OP_ATTENTION_PREFILL, 5, 7);
    double layer = us_of(QD_OP_QKV, 13, 0) + us_of(QD_OP_QK_NORM_ROPE_KV, 13, 0) + attention +
                   us_of(QD_OP_O, 13, 0) + us_of(QD_OP_GATE_UP, 13, 0) + us_of(QD_OP_DOWN, 13, 0);
    return us_of(QD_OP_EMBED, 13, 0) + us_of(QD_OP_RMSNORM, 13, 0) + 3 * layer +
           5 * us_of(QD_OP_REDUCE_ADD_RMSNORM, 13, 0) + us_of(QD_OP_FINAL_NORM, 4, 0) +
           us_of(QD_OP_LM_HEAD, 4, 0) + us_of(QD_OP_SAMPLE, 4, 0);
}

static void a_step_is_the_sum_of_its_ops(void **state)
{
    struct qd_alone alone;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(read_tree(*state, &alone, err, sizeof err), err);
    qd_alone_take(&alone, &mixed);
    qd_alone_take(&alone, &mixed);
    assert_int_equal(alone.sums.n_rows, 2);
    assert_int_equal(alone.sums.n_unknown, 0);
    assert_within(alone.sums.ns, 2e3 * mixed_us(), 1e-6);
    struct qd_step_row large = mixed;
    large.n_prefill_tokens = 18;
    qd_alone_take(&alone, &large);
    assert_int_equal(alone.sums.n_unknown, 1);
    ASSERT_CONTAINS(alone.sums.reason, "embed of 21 rows lies outside");
    assert_within(alone.sums.ns, 2e3 * mixed_us(), 1e-6);
    qd_alone_free(&alone);
}

/* floor + inefficiency = alone; alone + penalty = kernels. */
static void the_penalty_closes_the_waterfall(void **state)
{
    struct qd_ledger_alone alone = {.file = "k.json", .ns = 70000, .n_rows = 2};
    struct qd_replica_stats stats = {.n_steps = 2, .span_ns = 120000};
    struct qd_ledger_rows rows = {.n_rows = 2, .limits.machine = "m", .floor_ns = {30000}};
    const struct qd_metrics no_metrics = {0};
    (void)state;
    stats.device = (struct qd_device_stats){.n_timed_steps = 2, .segment_ns = {80000, 10000}};
    struct qd_waterfall w = qd_ledger_make(&stats, 1, NULL, 0, &no_metrics, &rows, &alone, 0).waterfall;
    assert_within(w.alone, 70000, 0);
    assert_within(w.inefficiency, 40000, 0);
    assert_within(w.in_graph, 20000, 0);
    assert_within(w.floor + w.inefficiency + w.in_graph, w.kernels, 0);
    stats.device.n_timed_steps = 1; /* alone is known, in the step is not */
    w = qd_ledger_make(&stats, 1, NULL, 0, &no_metrics, &rows, &alone, 0).waterfall;
    assert_within(w.inefficiency, 40000, 0);
    assert_true(isnan(w.in_graph));
    stats.device.n_timed_steps = 2;
    alone.n_unknown = 1;
    w = qd_ledger_make(&stats, 1, NULL, 0, &no_metrics, &rows, &alone, 0).waterfall;
    assert_true(isnan(w.alone) && isnan(w.in_graph));
    assert_within(w.inefficiency, 60000, 0);
}

/* Item `key` of the tree, of its first row, or of its machine, replaced. */
static void refuse(void **state, const char *object, const char *key, cJSON *value, const char *expected)
{
    struct fixture *f = *state;
    struct qd_alone alone;
    char err[QD_ERR_LEN] = "";
    cJSON *parent = f->tree;
    if (object != NULL) parent = cJSON_GetObjectItemCaseSensitive(f->tree, object);
    if (cJSON_IsArray(parent)) parent = cJSON_GetArrayItem(parent, 0);
    cJSON *before = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(parent, key), true);
    cJSON_ReplaceItemInObjectCaseSensitive(parent, key, value);
    assert_int_equal(read_tree(f, &alone, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "k.json: ");
    ASSERT_CONTAINS(err, expected);
    cJSON_ReplaceItemInObjectCaseSensitive(parent, key, before);
}

static void what_is_of_another_run_is_refused(void **state)
{
    refuse(state, NULL, "schema", cJSON_CreateNumber(1), "schema");
    refuse(state, NULL, "device", cJSON_CreateString("emu"), "device: \"emu\", but the run's is \"cpu\"");
    refuse(state, NULL, "isa", cJSON_CreateString("avx2"), "isa: \"avx2\"");
    refuse(state, NULL, "isa", cJSON_CreateNull(), "isa");
    refuse(state, NULL, "n_threads", cJSON_CreateNumber(4), "n_threads: 4 of an op alone, but 2 of a rank");
    refuse(state, NULL, "rows", cJSON_CreateNumber(4), "rows: it is no array");
    refuse(state, NULL, "rows", cJSON_CreateArray(), "rows: no time of embed at TP 1");
    refuse(state, NULL, "machine", cJSON_CreateNull(), "no result of qdyno kernels");
    refuse(state, "machine", "cpu_model", cJSON_CreateString("other"), "cpu_model: \"other\"");
    refuse(state, "rows", "op", cJSON_CreateString("fly"), "rows/0: op: it is none");
    refuse(state, "rows", "tokens", cJSON_CreateNumber(0), "rows/0: tokens");
    refuse(state, "rows", "tokens", cJSON_CreateNumber(7), "rows/0: shape: ");
    refuse(state, "rows", "shape", cJSON_CreateString("T 20 H 64"), "but the run's model has \"T 20 H 32\"");
    refuse(state, "rows", "numerics", cJSON_CreateString("hf"), "rows/0: numerics: \"hf\"");
    refuse(state, "rows", "status", cJSON_CreateString("wrong"), "rows/0: status: its kernel did not pass");
    refuse(state, "rows", "median_us", cJSON_CreateNull(), "rows/0: median_us: the device has no times");
    refuse(state, "rows", "median_us", cJSON_CreateNumber(0), "rows/0: median_us: it is no time");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(times_between_rows_are_on_the_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_chosen_way_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_known_outside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_step_is_the_sum_of_its_ops, set_up, tear_down),
        cmocka_unit_test(the_penalty_closes_the_waterfall),
        cmocka_unit_test_setup_teardown(what_is_of_another_run_is_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

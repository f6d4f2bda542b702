/* Rows of ways beside each other, with times that are made up: marks, switches, and how both are written. */
#include "harness/cli/kernels_ways.h"

#include <stdlib.h>

#include "kernels/cuda/device.h"
#include "tests/support/test.h"

enum { HIDDEN = 4096, N_SIZES = 4, N_WAYS = 3, MAX_ROWS = 32 };

static const enum qd_op_way ways[N_WAYS] = {QD_OP_WAY_ONE_SHOT, QD_OP_WAY_TWO_SHOT, QD_OP_WAY_NCCL};
static const int32_t tokens[N_SIZES] = {32, 64, 128, 256}; /* 256 KiB and its doubles */

struct table {
    struct qd_kernels_row rows[MAX_ROWS];
    size_t n;
};

/* us[size][way]; 0: that row was refused. */
static void add_op(struct table *t, enum qd_op op, int tp, const double us[N_SIZES][N_WAYS])
{
    for (int s = 0; s < N_SIZES; s++)
        for (int w = 0; w < N_WAYS; w++)
            t->rows[t->n++] = (struct qd_kernels_row){
                .c = {.op = op,
                      .shape = {.hidden_dim = HIDDEN, .vocab_size = 64},
                      .tp = tp,
                      .n_tokens = tokens[s],
                      .way = ways[w]},
                .is_timed = us[s][w] > 0,
                .timing.median_us = us[s][w],
            };
}

static const double crossing[N_SIZES][N_WAYS] = {{10, 12, 30}, {20, 15, 31}, {40, 25, 32}, {80, 50, 34}};
static const double alone[N_SIZES][N_WAYS] = {{10, 0, 0}, {20, 0, 0}, {40, 0, 0}, {80, 0, 0}};

static void rows_have_nccl_beside(void **state)
{
    (void)state;
    struct table t = {.n = 0};
    add_op(&t, QD_OP_ALL_REDUCE, 4, crossing);
    add_op(&t, QD_OP_ALL_REDUCE, 8, alone);
    qd_kernels_ways_mark(&qd_emu_ops, t.rows, t.n);
    assert_true(t.rows[0].nccl_us == 30 && t.rows[1].nccl_us == 30 && t.rows[2].nccl_us == 0);
    assert_true(t.rows[9].nccl_us == 34 && t.rows[10].nccl_us == 34);
    for (size_t i = 12; i < t.n; i++) assert_true(t.rows[i].nccl_us == 0);
    /* 512 KiB is the limit at TP 4: up to there in one shot, then by NCCL. */
    static const bool chosen[] = {true, false, false, true, false, false, false, false, true};
    for (size_t i = 0; i < sizeof chosen; i++) assert_int_equal(t.rows[i].is_chosen, chosen[i]);
}

/* Two shots are faster from 512 KiB on, which the limit of 512 KiB is too late for; NCCL than what is own
 * (one shot up to 512 KiB, then two) from 2 MiB on, for which it is too early. */
static void switches_are_held_to_the_limits(void **state)
{
    (void)state;
    struct table t = {.n = 0};
    struct qd_kernels_switch *found;
    size_t n;
    char err[QD_ERR_LEN] = "", text[1024] = "";
    add_op(&t, QD_OP_ALL_REDUCE, 4, crossing);
    add_op(&t, QD_OP_ALL_REDUCE, 8, alone);
    ASSERT_OK(qd_kernels_switches_find(&qd_emu_ops, t.rows, t.n, &found, &n, err, sizeof err), err);
    assert_int_equal(n, 2);
    assert_int_equal(found[0].to, QD_OP_WAY_TWO_SHOT);
    assert_int_equal(found[0].found.below, 256 << 10);
    assert_int_equal(found[0].found.from, 512 << 10);
    assert_int_equal(found[1].to, QD_OP_WAY_NCCL);
    assert_int_equal(found[1].found.below, 1 << 20);
    assert_int_equal(found[1].found.from, 2 << 20);
    FILE *stream = fmemopen(text, sizeof text, "w");
    assert_non_null(stream);
    qd_kernels_switches_print(found, n, stream);
    fclose(stream);
    assert_string_equal(
        text, "all_reduce, TP 4: two_shot is faster than one_shot from 524288 bytes on, not at 262144; "
              "the limit compiled in, 524288 bytes, does not agree\n"
              "all_reduce, TP 4: nccl is faster than own from 2097152 bytes on, not at 1048576; "
              "the limit compiled in, 524288 bytes, does not agree\n");
    cJSON *json = qd_kernels_switches_to_json(found, n);
    const cJSON *second = cJSON_GetArrayItem(json, 1);
    assert_string_equal(cJSON_GetObjectItem(second, "to")->valuestring, "nccl");
    assert_int_equal(cJSON_GetObjectItem(second, "from_bytes")->valueint, 2 << 20);
    assert_int_equal(cJSON_GetObjectItem(second, "limit_bytes")->valueint, 512 << 10);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(second, "agrees")));
    cJSON_Delete(json);
    free(found);
}

/* At TP 2 the device never takes two shots. */
static void what_is_never_taken_is_said(void **state)
{
    (void)state;
    struct table t = {.n = 0};
    struct qd_kernels_switch *found;
    size_t n;
    char err[QD_ERR_LEN] = "", text[1024] = "";
    static const double slower[N_SIZES][N_WAYS] = {{10, 12, 0}, {20, 22, 0}, {40, 45, 0}, {80, 90, 0}};
    add_op(&t, QD_OP_REDUCE_ADD_RMSNORM, 2, slower);
    ASSERT_OK(qd_kernels_switches_find(&qd_emu_ops, t.rows, t.n, &found, &n, err, sizeof err), err);
    assert_int_equal(n, 1);
    FILE *stream = fmemopen(text, sizeof text, "w");
    assert_non_null(stream);
    qd_kernels_switches_print(found, n, stream);
    fclose(stream);
    assert_string_equal(
        text, "reduce_add_rmsnorm, TP 2: two_shot is faster than one_shot at none of the sizes up to "
              "2097152 bytes; that the device never takes it agrees\n");
    free(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_nccl_beside),
        cmocka_unit_test(switches_are_held_to_the_limits),
        cmocka_unit_test(what_is_never_taken_is_said),
    };
    return cmocka_run_group_tests_name("cli_kernels_ways", tests, NULL, NULL);
}

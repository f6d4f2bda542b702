/* Ways of ops of several ranks: which a device has, that a case goes the way it says, NCCL's sums held to a
 * tolerance that still finds a missing rank, bandwidths in nccl-tests' terms, and crossovers. */
#include "harness/ops/way.h"

#include <math.h>

#include "harness/ops/count.h"
#include "harness/ops/time.h"
#include "harness/ops/verify.h"
#include "kernels/cuda/device.h"
#include "tests/support/test.h"

static const struct qd_model_shape shape = {256, 96, 515, 1, 4, 2, 64};

static struct qd_op_options options_for(const struct qd_device_ops *ops)
{
    return (struct qd_op_options){.ops = ops, .cpu_isa = "auto", .n_threads = 2, .repeats = 1, .seed = 5};
}

static struct qd_op_case case_of(enum qd_op op, int tp, int32_t n_tokens, enum qd_op_way way)
{
    return (struct qd_op_case){.op = op, .shape = shape, .tp = tp, .n_tokens = n_tokens, .way = way};
}

/* ---- which there are ---- */

static void a_device_without_a_choice_has_one_way(void **state)
{
    (void)state;
    const struct qd_device_ops *cpu = qd_device_find("cpu");
    struct qd_op_case c = case_of(QD_OP_ALL_REDUCE, 2, 4, QD_OP_WAY_AUTO);
    for (int way = 0; way < QD_OP_N_WAYS; way++)
        assert_int_equal(qd_op_has_way(cpu, &c, (enum qd_op_way)way), way == QD_OP_WAY_AUTO);
    assert_int_equal(qd_op_auto_way(cpu, &c), QD_OP_WAY_AUTO);
    c.tp = 1;
    assert_true(qd_op_has_way(&qd_emu_ops, &c, QD_OP_WAY_AUTO));
    c = case_of(QD_OP_SAMPLE, 2, 4, QD_OP_WAY_AUTO);
    assert_true(qd_op_has_way(&qd_emu_ops, &c, QD_OP_WAY_AUTO));
    assert_false(qd_op_has_way(&qd_emu_ops, &c, QD_OP_WAY_NCCL));
}

/* Rows of 512 bytes: limits are 8 MiB at TP 2, 512 KiB at TP 4. */
static void the_device_chooses_by_size(void **state)
{
    (void)state;
    static const struct {
        enum qd_op op;
        int tp;
        int32_t n_tokens;
        enum qd_op_way own, any;
    } cases[] = {
        {QD_OP_ALL_REDUCE, 2, 16384, QD_OP_WAY_ONE_SHOT, QD_OP_WAY_ONE_SHOT},
        {QD_OP_ALL_REDUCE, 2, 16385, QD_OP_WAY_ONE_SHOT, QD_OP_WAY_NCCL},
        {QD_OP_REDUCE_ADD_RMSNORM, 4, 1024, QD_OP_WAY_ONE_SHOT, QD_OP_WAY_ONE_SHOT},
        {QD_OP_REDUCE_ADD_RMSNORM, 4, 1025, QD_OP_WAY_TWO_SHOT, QD_OP_WAY_NCCL},
        {QD_OP_ALL_REDUCE, 8, 513, QD_OP_WAY_TWO_SHOT, QD_OP_WAY_NCCL},
        {QD_OP_ALL_GATHER, 4, 4096, QD_OP_WAY_OWN, QD_OP_WAY_OWN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qd_op_case c = case_of(cases[i].op, cases[i].tp, cases[i].n_tokens, QD_OP_WAY_AUTO);
        assert_int_equal(qd_op_own_way(&qd_emu_ops, &c), cases[i].own);
        assert_int_equal(qd_op_auto_way(&qd_emu_ops, &c), cases[i].any);
        assert_true(qd_op_has_way(&qd_emu_ops, &c, cases[i].any));
    }
}

/* ---- that they are gone ---- */

static struct qd_op_counters counters_of(const struct qd_op_case *c)
{
    char err[QD_ERR_LEN] = "";
    struct qd_op_options options = options_for(&qd_emu_ops);
    struct qd_op_counters counters;
    qd_op_session_t *session;
    ASSERT_OK(qd_op_session_open(&options, c, 1, &session, err, sizeof err), err);
    ASSERT_OK(qd_op_count(session, &counters, err, sizeof err), err);
    qd_op_session_close(session);
    return counters;
}

/* NCCL's sum is a launch of its own before the norm; two shots have a meeting more than one, also of two
 * ranks, where the device never takes them by itself. */
static void a_case_goes_its_way(void **state)
{
    (void)state;
    const int tp = 2;
    struct qd_op_counters one, two, nccl;
    struct qd_op_case c = case_of(QD_OP_REDUCE_ADD_RMSNORM, tp, 3, QD_OP_WAY_ONE_SHOT);
    one = counters_of(&c);
    c.way = QD_OP_WAY_TWO_SHOT;
    two = counters_of(&c);
    c.way = QD_OP_WAY_NCCL;
    nccl = counters_of(&c);
    assert_int_equal(one.launches, tp);
    assert_int_equal(two.launches, tp);
    assert_int_equal(nccl.launches, 2 * tp);
    assert_true(two.barriers > one.barriers);
}

static void every_way_is_right(void **state)
{
    (void)state;
    static const enum qd_op ops[] = {QD_OP_REDUCE_ADD_RMSNORM, QD_OP_ALL_REDUCE, QD_OP_ALL_GATHER};
    static const int32_t tokens[] = {1, 7, 33};
    struct qd_op_options options = options_for(&qd_emu_ops);
    char err[QD_ERR_LEN] = "";
    for (size_t o = 0; o < sizeof ops / sizeof *ops; o++)
        for (int tp = 2; tp <= (IS_SANITIZED ? 2 : 8); tp *= 2)
            for (int way = 0; way < QD_OP_N_WAYS; way++) {
                struct qd_op_case c = case_of(ops[o], tp, tokens[(o + (size_t)tp) % 3], (enum qd_op_way)way);
                struct qd_op_result result;
                if (!qd_op_has_way(&qd_emu_ops, &c, c.way)) continue;
                ASSERT_OK(qd_op_verify(&options, &c, &result, err, sizeof err), err);
                if (result.outcome != QD_OP_PASSED)
                    fail_msg("%s %s, TP %d: %s", qd_op_name(c.op), qd_op_way_name(c.way), tp, result.text);
            }
}

static qd_status all_but_one(void *ctx, const struct qd_all_reduce_args *args)
{
    return qd_emu_ops.all_reduce(ctx, &(struct qd_all_reduce_args){args->data, args->n - 8});
}

/* The last eight values are one rank's own: no tolerance of NCCL's roundings may cover that. */
static void a_sum_that_lacks_ranks_is_found(void **state)
{
    (void)state;
    struct qd_device_ops ops = qd_emu_ops;
    ops.all_reduce = all_but_one;
    struct qd_op_options options = options_for(&ops);
    char err[QD_ERR_LEN] = "";
    for (int tp = 2; tp <= 4; tp *= 2) {
        struct qd_op_result result;
        struct qd_op_case c = case_of(QD_OP_ALL_REDUCE, tp, 3, QD_OP_WAY_NCCL);
        ASSERT_OK(qd_op_verify(&options, &c, &result, err, sizeof err), err);
        assert_int_equal(result.outcome, QD_OP_WRONG);
        ASSERT_CONTAINS(result.text, "data[");
    }
}

/* The path that a GPU takes; the emulator's clock says nothing of its speed. */
static void nccl_is_timed_like_the_rest(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_op_options options = options_for(&qd_emu_ops);
    struct qd_op_case c = case_of(QD_OP_ALL_REDUCE, 2, 3, QD_OP_WAY_NCCL);
    struct qd_op_timing timing;
    qd_op_session_t *session;
    ASSERT_OK(qd_op_session_open(&options, &c, 2, &session, err, sizeof err), err);
    ASSERT_OK(qd_op_time(session, 3, &timing, err, sizeof err), err);
    qd_op_session_close(session);
    assert_true(timing.median_us > 0);
}

/* ---- beside each other ---- */

static void messages_are_those_of_nccl_tests(void **state)
{
    (void)state;
    struct qd_op_case c = case_of(QD_OP_ALL_REDUCE, 4, 10, QD_OP_WAY_NCCL);
    assert_int_equal(qd_op_message_bytes(&c), 10 * 256 * 2);
    assert_true(fabs(qd_op_bus_factor(&c) - 1.5) < 1e-12);
    c.op = QD_OP_REDUCE_ADD_RMSNORM;
    assert_int_equal(qd_op_message_bytes(&c), 10 * 256 * 2);
    c.op = QD_OP_ALL_GATHER; /* shards of 192 ids of 4 bytes; the size is what comes together */
    assert_int_equal(qd_op_message_bytes(&c), 10 * 192 * 4 * 4);
    assert_true(fabs(qd_op_bus_factor(&c) - 0.75) < 1e-12);
    c.op = QD_OP_SAMPLE;
    assert_int_equal(qd_op_message_bytes(&c), 0);
    c = case_of(QD_OP_REDUCE_ADD_RMSNORM, 1, 10, QD_OP_WAY_AUTO);
    assert_int_equal(qd_op_message_bytes(&c), 0);
}

static void crossovers_are_for_good(void **state)
{
    (void)state;
    static const struct {
        double b_us[4]; /* a takes 10 at each of 100, 200, 400, 800 bytes, which come in another order */
        size_t below, from, agrees, disagrees;
    } cases[] = {
        {{20, 20, 5, 5}, 200, 400, 399, 400},
        {{20, 5, 20, 5}, 400, 800, 400, 399}, /* not for good at 200 */
        {{5, 5, 5, 5}, 0, 100, 99, 100},
        {{20, 20, 20, 10}, 800, SIZE_MAX, SIZE_MAX, 799}, /* as fast is not faster */
    };
    static const size_t order[] = {2, 0, 3, 1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qd_op_pair pairs[4];
        for (size_t p = 0; p < 4; p++)
            pairs[p] = (struct qd_op_pair){(size_t)100 << order[p], 10, cases[i].b_us[order[p]]};
        struct qd_op_crossover found = qd_op_crossover_find(pairs, 4);
        assert_int_equal(found.below, cases[i].below);
        assert_int_equal(found.from, cases[i].from);
        assert_true(qd_op_crossover_agrees(found, cases[i].agrees));
        assert_false(qd_op_crossover_agrees(found, cases[i].disagrees));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_without_a_choice_has_one_way),
        cmocka_unit_test(the_device_chooses_by_size),
        cmocka_unit_test(a_case_goes_its_way),
        cmocka_unit_test(every_way_is_right),
        cmocka_unit_test(a_sum_that_lacks_ranks_is_found),
        cmocka_unit_test(nccl_is_timed_like_the_rest),
        cmocka_unit_test(messages_are_those_of_nccl_tests),
        cmocka_unit_test(crossovers_are_for_good),
    };
    return cmocka_run_group_tests_name("ops_way", tests, NULL, NULL);
}

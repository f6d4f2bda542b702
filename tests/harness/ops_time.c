/* Timing and counting of ops: a clock that is known gives known figures, devices are timed on their own
 * clock, ranks that meet make the same calls, and counters are those of one call. */
#include <math.h>
#include <time.h>

#include "harness/ops/count.h"
#include "harness/ops/time.h"
#include "kernels/ref/ref.h"
#include "tests/support/test.h"

static const struct qd_model_shape shape = {256, 512, 515, 1, 8, 2, 128};

static struct qd_op_options options_for(const struct qd_device_ops *ops)
{
    return (struct qd_op_options){.ops = ops, .cpu_isa = "auto", .n_threads = 2, .repeats = 1, .seed = 5};
}

/* ---- a device whose clock the test holds: a call takes 1000 ns, every third sample ten times as long ----
 */

static struct {
    int n_calls, n_begun, n_ended;
    int calls_at_begin;
} fake;

static qd_status fake_rmsnorm(void *ctx, const struct qd_rmsnorm_args *args)
{
    fake.n_calls++;
    return qd_ref_ops.rmsnorm(ctx, args);
}

static qd_status fake_begin(void *ctx)
{
    (void)ctx;
    fake.n_begun++;
    fake.calls_at_begin = fake.n_calls;
    return QD_OK;
}

static qd_status fake_end(void *ctx, int64_t *ns)
{
    (void)ctx;
    fake.n_ended++;
    *ns = 1000 * (int64_t)(fake.n_calls - fake.calls_at_begin) * (fake.n_ended % 3 == 0 ? 10 : 1);
    return QD_OK;
}

static qd_status fake_cache(int first_rank, size_t *out, char *err, size_t errlen)
{
    (void)first_rank, (void)err, (void)errlen;
    *out = 1 << 20;
    return QD_OK;
}

static void a_known_clock_gives_known_figures(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops ops = qd_ref_ops;
    ops.rmsnorm = fake_rmsnorm;
    ops.time_begin = fake_begin;
    ops.time_end = fake_end;
    ops.cache_bytes = fake_cache;
    struct qd_op_options options = options_for(&ops);
    struct qd_op_timing timing;
    qd_op_session_t *session;
    const struct qd_op_case c = {
        .op = QD_OP_RMSNORM, .shape = {64, 64, 64, 1, 1, 1, 64}, .tp = 1, .n_tokens = 1};
    ASSERT_OK(qd_op_session_open(&options, &c, 2, &session, err, sizeof err), err);
    memset(&fake, 0, sizeof fake);
    ASSERT_OK(qd_op_time(session, 9, &timing, err, sizeof err), err);
    qd_op_session_close(session);
    /* Three samples to calibrate, of which one is slow: a call takes 1 us, so 200 make a sample. */
    assert_int_equal(timing.batch, 200);
    assert_int_equal(timing.n_samples, 9);
    assert_int_equal(timing.n_copies, 2);
    assert_int_equal(fake.n_begun, 12);
    assert_int_equal(fake.n_ended, 12);
    assert_true(fake.n_calls >= 200000); /* 200 ms of warm-up */
    assert_true(fabs(timing.median_us - 1) < 1e-9 && fabs(timing.min_us - 1) < 1e-9);
    assert_true(fabs(timing.max_us - 10) < 1e-9 && timing.mad_us == 0);
}

/* Copies exceed three times the cache, unless one does alone or only a part of an operand is touched. */
static void copies_leave_the_cache_cold(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops ops = qd_ref_ops;
    ops.cache_bytes = fake_cache; /* 1 MiB */
    struct qd_op_options options = options_for(&ops);
    int n_copies;
    bool is_cold;
    struct qd_op_case c = {.op = QD_OP_DOWN, .shape = shape, .tp = 1, .n_tokens = 1};
    ASSERT_OK(qd_op_copies(&options, &c, &n_copies, &is_cold, err, sizeof err), err);
    assert_true(is_cold);
    assert_int_equal(n_copies, 3 * 1048576 / 263680 + 1); /* 2 * 256 * 512 + 2 * 512 + 2 * 256 B a call */
    c = (struct qd_op_case){
        .op = QD_OP_LM_HEAD, .shape = {4096, 64, 4096, 1, 8, 2, 128}, .tp = 1, .n_tokens = 1};
    ASSERT_OK(qd_op_copies(&options, &c, &n_copies, &is_cold, err, sizeof err), err);
    assert_true(is_cold && n_copies == 1);
    c.op = QD_OP_EMBED; /* a row of a table of 32 MiB */
    ASSERT_OK(qd_op_copies(&options, &c, &n_copies, &is_cold, err, sizeof err), err);
    assert_true(!is_cold && n_copies == 1);
}

static void every_op_is_timed_on(const struct qd_device_ops *ops, int tp)
{
    char err[QD_ERR_LEN] = "";
    struct qd_op_options options = options_for(ops);
    for (int op = 0; op < QD_N_OPS; op++) {
        struct qd_op_timing timing;
        qd_op_session_t *session;
        struct qd_op_error error = {.output = NULL};
        const struct qd_op_case c = {
            .op = (enum qd_op)op, .shape = {64, 64, 130, 1, 2, 1, 64}, .tp = tp, .n_tokens = 3, .context = 5};
        if (tp > 1 && qd_op_ranks(&c) == 1) continue;
        ASSERT_OK(qd_op_session_open(&options, &c, 2, &session, err, sizeof err), err);
        ASSERT_OK(qd_op_session_verify(session, 1, &error, err, sizeof err), err);
        ASSERT_OK(qd_op_time(session, 3, &timing, err, sizeof err), err);
        qd_op_session_close(session);
        assert_true(timing.min_us > 0 && timing.min_us <= timing.median_us &&
                    timing.median_us <= timing.max_us);
        assert_true(timing.batch >= 1);
    }
}

static void cpu_is_timed(void **state)
{
    (void)state;
    every_op_is_timed_on(qd_device_find("cpu"), 1);
    every_op_is_timed_on(qd_device_find("cpu"), 2);
}

/* On the emulator's clock, by the events that a GPU has. */
static void emu_is_timed_by_its_events(void **state)
{
    (void)state;
    const struct qd_device_ops *emu = qd_device_find("emu");
    size_t bytes;
    char err[QD_ERR_LEN] = "";
    assert_non_null(emu->time_begin);
    ASSERT_OK(emu->cache_bytes(0, &bytes, err, sizeof err), err);
    assert_true(bytes >= 1 << 20);
    every_op_is_timed_on(emu, 1);
    if (!IS_SANITIZED) every_op_is_timed_on(emu, 2);
}

/* What one call of a projection does: a launch, a product for 16 x 16 x 16 values, every weight once. */
static void counters_are_those_of_one_call(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_op_options options = options_for(qd_device_find("emu"));
    struct qd_op_counters counters;
    qd_op_session_t *session;
    const struct qd_op_case c = {.op = QD_OP_DOWN, .shape = shape, .tp = 1, .n_tokens = 7};
    ASSERT_OK(qd_op_session_open(&options, &c, 1, &session, err, sizeof err), err);
    ASSERT_OK(qd_op_count(session, &counters, err, sizeof err), err);
    qd_op_session_close(session);
    assert_int_equal(counters.launches, 1);
    assert_int_equal(counters.mma, 256 / 16 * (512 / 16));
    assert_int_equal(counters.weight_bytes, 2 * 256 * 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_clock_gives_known_figures),
        cmocka_unit_test(copies_leave_the_cache_cold),
        cmocka_unit_test(cpu_is_timed),
        cmocka_unit_test(emu_is_timed_by_its_events),
        cmocka_unit_test(counters_are_those_of_one_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Timing and counting of ops: a clock that is known gives known figures, devices are timed on their own
 * clock, ranks that meet make the same calls, and counters are those of one call. */
#include <math.h>
#include <time.h>

#include "harness/ops/clocks.h"
#include "harness/ops/count.h"
#include "harness/ops/rival.h"
#include "kernels/cuda/device.h"
#include "kernels/nvml.h"
#include "kernels/ref/ref.h"
#include "tests/support/fakes.h"
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
    assert_true(fabs(timing.p10_us - 1) < 1e-9 && fabs(timing.p90_us - 10) < 1e-9);
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
        assert_true(timing.min_us > 0 && timing.min_us <= timing.p10_us && timing.p10_us <= timing.median_us);
        assert_true(timing.median_us <= timing.p90_us && timing.p90_us <= timing.max_us);
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
    assert_int_equal(counters.loaded_bytes, 2 * 256 * 512);
    assert_int_equal(counters.shared_conflicts, 0);
}

/* Every line of what a GPU is measured by; the emulator's figures say nothing but that they are some. */
static void ceilings_are_measured(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ceilings ceilings;
    ASSERT_OK(qd_device_measure_ceilings(qd_device_find("emu"), 0, &ceilings, err, sizeof err), err);
    assert_true(ceilings.copy_gbps > 0 && ceilings.matrix_gflops > 0);
}

static qd_status first_gpu(int first_rank, char *out, size_t len, char *err, size_t errlen)
{
    (void)first_rank, (void)err, (void)errlen;
    snprintf(out, len, "0000:3B:00.0"); /* as CUDA writes it */
    return QD_OK;
}

static qd_status no_gpu(int first_rank, char *out, size_t len, char *err, size_t errlen)
{
    (void)first_rank, (void)err, (void)errlen;
    snprintf(out, len, "0000:77:00.0");
    return QD_OK;
}

/* Against the made-up NVML of tests/fakes. */
static void clocks_are_the_gpus(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops ops = qd_ref_ops;
    struct qd_op_clock clock;
    qd_op_clocks_t *clocks;
    assert_int_equal(qd_op_clocks_open(&ops, &clocks, err, sizeof err), QD_ERR_UNSUPPORTED);
    ops.pci_bus_id = first_gpu;
    ASSERT_OK(qd_op_clocks_open(&ops, &clocks, err, sizeof err), err);
    ASSERT_OK(qd_op_clocks_read(clocks, &clock, err, sizeof err), err);
    assert_int_equal(clock.sm_mhz, 1410);
    assert_int_equal(clock.throttle, QD_NVML_POWER_CAP | QD_NVML_THERMAL);
    qd_op_clocks_close(clocks);
    ops.pci_bus_id = no_gpu;
    assert_int_not_equal(qd_op_clocks_open(&ops, &clocks, err, sizeof err), QD_OK);
    assert_null(clocks);
}

/* Against the made-up cuBLASLt of tests/fakes, which multiplies on the host and proposes three algorithms
 * that work. */
static void cublaslt_runs_beside(void **state)
{
    (void)state;
    static const enum qd_op ops[] = {QD_OP_QKV, QD_OP_O, QD_OP_GATE_UP, QD_OP_DOWN, QD_OP_LM_HEAD};
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops emu = *qd_device_find("emu");
    emu.rival = &qd_cuda_rival;
    struct qd_op_options options = options_for(&emu);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct qd_op_timing timing;
        struct qd_op_rival rival;
        struct qd_op_error error = {.output = NULL};
        qd_op_session_t *session;
        const struct qd_op_case c = {
            .op = ops[i], .shape = {64, 64, 130, 1, 2, 1, 64}, .tp = 1, .n_tokens = 3};
        ASSERT_OK(qd_op_session_open(&options, &c, 2, &session, err, sizeof err), err);
        ASSERT_OK(qd_op_session_verify(session, 1, &error, err, sizeof err), err);
        ASSERT_OK(qd_op_time(session, 2, &timing, err, sizeof err), err);
        ASSERT_OK(qd_op_time_rival(session, &timing, &rival, err, sizeof err), err);
        assert_int_equal(rival.n_algorithms, 3);
        assert_true(rival.algorithm == 70 || rival.algorithm == 72 || rival.algorithm == 73);
        assert_true(rival.median_us > 0 && rival.first_us > 0);
        qd_op_session_close(session);
    }
}

static qd_status wrong_run(void *ctx, int i, const qd_bf16 *a, const qd_bf16 *w, qd_bf16 *out, char *err,
                           size_t errlen)
{
    return qd_cuda_rival.run(ctx, i, a + 1, w, out, err, errlen); /* one column on */
}

/* A wrong product of the other library has no time either; gaps between rows are not its case. */
static void a_wrong_rival_is_found(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_rival_ops wrong = qd_cuda_rival;
    struct qd_device_ops emu = *qd_device_find("emu");
    struct qd_op_timing timing = {.n_samples = 1, .batch = 1};
    struct qd_op_rival rival;
    struct qd_op_error error = {.output = NULL};
    wrong.run = wrong_run;
    emu.rival = &wrong;
    struct qd_op_options options = options_for(&emu);
    qd_op_session_t *session;
    struct qd_op_case c = {.op = QD_OP_O, .shape = {64, 72, 130, 1, 2, 1, 64}, .tp = 1, .n_tokens = 3};
    ASSERT_OK(qd_op_session_open(&options, &c, 1, &session, err, sizeof err), err);
    ASSERT_OK(qd_op_session_verify(session, 1, &error, err, sizeof err), err);
    assert_int_equal(qd_op_time_rival(session, &timing, &rival, err, sizeof err), QD_ERR_INTERNAL);
    assert_non_null(strstr(err, "product["));
    qd_op_session_close(session);
    c.op = QD_OP_DOWN; /* 72 columns in rows of 128 */
    ASSERT_OK(qd_op_session_open(&options, &c, 1, &session, err, sizeof err), err);
    assert_int_equal(qd_op_time_rival(session, &timing, &rival, err, sizeof err), QD_ERR_UNSUPPORTED);
    qd_op_session_close(session);
}

int main(int argc, char **argv)
{
    (void)argc;
    fakes_come_first(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_clock_gives_known_figures),
        cmocka_unit_test(copies_leave_the_cache_cold),
        cmocka_unit_test(cpu_is_timed),
        cmocka_unit_test(emu_is_timed_by_its_events),
        cmocka_unit_test(counters_are_those_of_one_call),
        cmocka_unit_test(ceilings_are_measured),
        cmocka_unit_test(clocks_are_the_gpus),
        cmocka_unit_test(cublaslt_runs_beside),
        cmocka_unit_test(a_wrong_rival_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

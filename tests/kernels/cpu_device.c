#include "tests/support/test.h"

#include <math.h>
#include <sched.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/host/device.h"
#include "kernels/cpu/host/isa.h"
#include "kernels/null/device.h"

static struct qd_device_config make_config(void)
{
    return (struct qd_device_config){
        .n_ranks = 1,
        .shape = {.hidden_dim = 64,
                  .ffn_dim = 96,
                  .vocab_size = 100,
                  .n_layers = 1,
                  .n_heads = 2,
                  .n_kv_heads = 1,
                  .head_dim = 32},
        .limits = {.max_tokens = 8, .max_seqs = 2, .max_blocks = 8, .max_logit_rows = 2},
        .max_model_len = 128,
    };
}

/* Opens one rank on the calling thread. */
static qd_status open_rank(const struct qd_device_config *config, void **ctx, char *err, size_t errlen)
{
    static qd_thread_bootstrap_t *bootstrap;
    if (bootstrap != NULL) qd_thread_bootstrap_destroy(bootstrap);
    assert_int_equal(qd_thread_bootstrap_create(1, &bootstrap, err, errlen), QD_OK);
    struct qd_bootstrap rank = qd_thread_bootstrap_rank(bootstrap, 0);
    qd_status st = qd_cpu_ops.open(config, &rank, ctx, err, errlen);
    if (st != QD_OK) {
        qd_thread_bootstrap_destroy(bootstrap);
        bootstrap = NULL;
    }
    return st;
}

/* What the plan of an instance counts is what open() maps. */
static void working_bytes_are_what_open_takes(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    static const int threads[] = {1, 2, 5};
    for (size_t i = 0; i < 2 * sizeof threads / sizeof *threads; i++) {
        struct qd_device_config config = make_config();
        config.n_threads = threads[i / 2];
        config.numerics = i % 2 ? QD_NUMERICS_HF : QD_NUMERICS_FUSED;
        config.shape.vocab_size = 1000003; /* sampling needs the most */
        size_t bytes;
        void *ctx;
        ASSERT_OK(qd_device_working_bytes(&qd_cpu_ops, &config, &bytes, err, sizeof err), err);
        ASSERT_OK(open_rank(&config, &ctx, err, sizeof err), err);
        const struct qd_cpu *cpu = ctx;
        assert_in_range(cpu->memory.capacity, bytes, bytes + 4095);
        assert_true(bytes >= (size_t)threads[i / 2] * 8 * 1000003);
        qd_cpu_ops.close(ctx);
    }
    struct qd_device_config config = make_config();
    size_t bytes;
    config.cpu_isa = "mmx";
    assert_int_equal(qd_device_working_bytes(&qd_cpu_ops, &config, &bytes, err, sizeof err), QD_ERR_ARGUMENT);
    config = make_config();
    config.n_threads = -1;
    assert_int_equal(qd_device_working_bytes(&qd_cpu_ops, &config, &bytes, err, sizeof err), QD_ERR_ARGUMENT);
    config = make_config();
    config.limits.max_tokens = 0;
    assert_int_equal(qd_device_working_bytes(&qd_cpu_ops, &config, &bytes, err, sizeof err), QD_ERR_ARGUMENT);
}

static void devices_are_found_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(qd_device_find("cpu"), &qd_cpu_ops);
    assert_ptr_equal(qd_device_find("null"), &qd_null_ops);
    assert_null(qd_device_find("CPU"));
    assert_null(qd_device_find(""));
    const struct qd_device_ops *const *list = qd_device_list();
    for (int i = 0; list[i] != NULL; i++) {
        assert_ptr_equal(qd_device_find(list[i]->name), list[i]);
        assert_int_equal(list[i]->abi_version, QD_DEVICE_ABI_VERSION);
    }
}

static void instruction_sets_are_chosen_by_name(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    const struct qd_cpu_kernels *kernels, *automatic;
    ASSERT_OK(qd_cpu_isa_select("portable", &kernels, err, sizeof err), err);
    assert_string_equal(kernels->isa, "portable");
    ASSERT_OK(qd_cpu_isa_select(NULL, &automatic, err, sizeof err), err);
    ASSERT_OK(qd_cpu_isa_select("auto", &kernels, err, sizeof err), err);
    assert_ptr_equal(kernels, automatic);
    bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    assert_string_equal(automatic->isa, has_avx2 ? "avx2" : "portable");
    qd_status st = qd_cpu_isa_select("avx2", &kernels, err, sizeof err);
    assert_int_equal(st, has_avx2 ? QD_OK : QD_ERR_ENVIRONMENT);
    if (has_avx2)
        assert_string_equal(kernels->isa, "avx2");
    else
        ASSERT_CONTAINS(err, "lacks AVX2");
    assert_int_equal(qd_cpu_isa_select("avx512", &kernels, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "\"avx512\": it is auto, portable or avx2");
}

static void unsupported_shapes_have_a_reason(void **state)
{
    (void)state;
    char why[QD_ERR_LEN] = "";
    struct qd_model_shape good = make_config().shape, shape = good;
    assert_true(qd_cpu_ops.supports(&good, 8, QD_NUMERICS_HF, why, sizeof why));
    shape.head_dim = 72;
    assert_false(qd_cpu_ops.supports(&shape, 1, QD_NUMERICS_HF, why, sizeof why));
    ASSERT_CONTAINS(why, "head_dim 72");
    shape = good;
    shape.n_heads = 3, shape.n_kv_heads = 2;
    assert_false(qd_cpu_ops.supports(&shape, 1, QD_NUMERICS_FUSED, why, sizeof why));
    ASSERT_CONTAINS(why, "3 query heads");
    shape = good;
    shape.ffn_dim = 0;
    assert_false(qd_cpu_ops.supports(&shape, 1, QD_NUMERICS_FUSED, why, sizeof why));
    ASSERT_CONTAINS(why, "not positive");
    assert_false(qd_cpu_ops.supports(&good, QD_CPU_MAX_RANKS + 1, QD_NUMERICS_FUSED, why, sizeof why));
    assert_false(qd_cpu_ops.supports(&good, 0, QD_NUMERICS_FUSED, why, sizeof why));
    ASSERT_CONTAINS(why, "0 ranks");
}

static void what_cannot_be_opened_is_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    void *ctx;
    struct qd_device_config config = make_config();
    config.shape.head_dim = 24;
    assert_int_equal(open_rank(&config, &ctx, err, sizeof err), QD_ERR_UNSUPPORTED);
    ASSERT_CONTAINS(err, "head_dim 24");
    config = make_config();
    config.cpu_isa = "mmx";
    assert_int_equal(open_rank(&config, &ctx, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "mmx");
    config = make_config();
    config.n_threads = -3;
    assert_int_equal(open_rank(&config, &ctx, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "-3 threads");
    config = make_config();
    config.limits.max_tokens = 0;
    assert_int_equal(open_rank(&config, &ctx, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "0 tokens");
    assert_null(ctx);
    qd_cpu_ops.close(NULL);
}

static void memory_is_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    void *ctx, *memory;
    struct qd_device_config config = make_config();
    ASSERT_OK(open_rank(&config, &ctx, err, sizeof err), err);
    static const size_t sizes[] = {1, 63, 4096, 3000001, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ASSERT_OK(qd_cpu_ops.alloc(ctx, sizes[i], &memory, err, sizeof err), err);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(((unsigned char *)memory)[k], 0);
        memset(memory, 0xff, sizes[i]);
    }
    assert_int_equal(qd_cpu_ops.alloc(ctx, SIZE_MAX / 2, &memory, err, sizeof err), QD_ERR_NO_MEMORY);
    ASSERT_CONTAINS(err, "cannot map");
    qd_cpu_ops.close(ctx);
}

static void ranks_share_the_cores(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    void *ctx;
    struct qd_device_config config = make_config();
    ASSERT_OK(open_rank(&config, &ctx, err, sizeof err), err);
    assert_int_equal(qd_team_size(((struct qd_cpu *)ctx)->team), CPU_COUNT(&before));
    qd_cpu_ops.close(ctx);
    config.n_threads = 6, config.n_ranks = 4, config.first_rank = 3;
    ASSERT_OK(open_rank(&config, &ctx, err, sizeof err), err);
    assert_int_equal(qd_team_size(((struct qd_cpu *)ctx)->team), 2);
    qd_cpu_ops.close(ctx);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

/* cos and sin of large angles, against the C library in double. */
static void check_angles(enum qd_numerics numerics, float scaling)
{
    static const int32_t positions[] = {0, 1, 17, 1023, 40959, 131071, 1048575};
    enum { N = sizeof positions / sizeof *positions };
    char err[QD_ERR_LEN] = "";
    struct qd_device_config config = make_config();
    int32_t half = config.shape.head_dim / 2;
    float inv_freq[16];
    for (int i = 0; i < half; i++) inv_freq[i] = powf(1e6f, -2.0f * (float)i / (float)config.shape.head_dim);
    config.numerics = numerics;
    void *ctx;
    ASSERT_OK(open_rank(&config, &ctx, err, sizeof err), err);
    struct qd_cpu *cpu = ctx;
    struct qd_step *step = calloc(1, qd_step_capacity(&config.limits));
    assert_non_null(step);
    assert_int_equal(qd_step_begin(step, &config.limits, N, 1, 1, 1), QD_OK);
    for (int t = 0; t < N; t++) qd_step_position(step)[t] = positions[t];
    struct qd_plan_args args = {
        .step = step,
        .rope = {.inv_freq = inv_freq, .attention_scaling = scaling},
        .n_heads = 2,
        .n_kv_heads = 1,
        .head_dim = config.shape.head_dim,
    };
    assert_int_equal(qd_cpu_ops.plan(ctx, &args), QD_OK);
    assert_ptr_equal(cpu->plan.step, step);
    for (int t = 0; t < N; t++) {
        for (int i = 0; i < half; i++) {
            double angle = (double)((float)positions[t] * inv_freq[i]);
            float c = cpu->plan.cos[t * half + i], s = cpu->plan.sin[t * half + i];
            double tolerance =
                numerics == QD_NUMERICS_HF ? 0x1p-8 * (double)scaling : 1.5e-7 * (double)scaling;
            assert_true(fabs((double)c - cos(angle) * (double)scaling) <= tolerance);
            assert_true(fabs((double)s - sin(angle) * (double)scaling) <= tolerance);
            if (numerics == QD_NUMERICS_HF) assert_true(qd_bf16_round(c) == c && qd_bf16_round(s) == s);
        }
    }
    free(step);
    qd_cpu_ops.close(ctx);
}

static void angles_are_exact_at_any_position(void **state)
{
    (void)state;
    check_angles(QD_NUMERICS_FUSED, 1.0f);
    check_angles(QD_NUMERICS_FUSED, 1.1386294f);
    check_angles(QD_NUMERICS_HF, 1.0f);
    check_angles(QD_NUMERICS_HF, 1.1386294f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_are_found_by_name),
        cmocka_unit_test(working_bytes_are_what_open_takes),
        cmocka_unit_test(instruction_sets_are_chosen_by_name),
        cmocka_unit_test(unsupported_shapes_have_a_reason),
        cmocka_unit_test(what_cannot_be_opened_is_refused),
        cmocka_unit_test(memory_is_zeroed_aligned_and_apart),
        cmocka_unit_test(ranks_share_the_cores),
        cmocka_unit_test(angles_are_exact_at_any_position),
    };
    return cmocka_run_group_tests_name("cpu device", tests, NULL, NULL);
}

/* Dummy weights: a value depends on seed, tensor and place alone, with the spread that was asked for. */
#include "tests/support/test.h"

#include <math.h>

#include "models/dummy.h"
#include "tests/support/random_model.h"

static struct qd_tensor_spec spec_of(const struct qd_model_config *config, enum qd_tensor_role role)
{
    for (int i = 0; i < qd_model_n_tensors(config); i++) {
        struct qd_tensor_spec spec = qd_model_tensor(config, i);
        if (spec.role == role) return spec;
    }
    fail_msg("no tensor of role %d", (int)role);
    return (struct qd_tensor_spec){0};
}

static void test_any_part_is_the_same(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct qd_tensor_spec spec = spec_of(&config, QD_TENSOR_UP);
    enum { N = 200 };
    qd_bf16 whole[N], part[N + 1];
    qd_dummy_fill(&config, &spec, 7, 0, N, whole);
    for (int64_t first = 0; first < 20; first++) {
        for (int64_t n = 0; n < 40; n++) {
            part[n] = 0x1234;
            qd_dummy_fill(&config, &spec, 7, first, n, part);
            assert_memory_equal(part, whole + first, (size_t)n * sizeof *part);
            assert_int_equal(part[n], 0x1234);
        }
    }
}

static void test_seed_tensor_and_layer_matter(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct qd_tensor_spec up = spec_of(&config, QD_TENSOR_UP), gate = spec_of(&config, QD_TENSOR_GATE);
    struct qd_tensor_spec later = up;
    later.layer = 1;
    qd_bf16 a[64], b[64];
    qd_dummy_fill(&config, &up, 7, 0, 64, a);
    qd_dummy_fill(&config, &up, 8, 0, 64, b);
    assert_memory_not_equal(a, b, sizeof a);
    qd_dummy_fill(&config, &gate, 7, 0, 64, b);
    assert_memory_not_equal(a, b, sizeof a);
    qd_dummy_fill(&config, &later, 7, 0, 64, b);
    assert_memory_not_equal(a, b, sizeof a);
}

/* Mean, deviation and bounds of a uniform variable; n = 2^16, so 1 % is 4 to 6 standard errors. */
static void check_spread(const struct qd_model_config *config, enum qd_tensor_role role, double deviation)
{
    enum { N = 65536 };
    static qd_bf16 values[N];
    struct qd_tensor_spec spec = spec_of(config, role);
    qd_dummy_fill(config, &spec, 1, 0, N, values);
    double sum = 0, squares = 0, largest = 0;
    for (int i = 0; i < N; i++) {
        double x = (double)qd_bf16_to_f32(values[i]);
        sum += x;
        squares += x * x;
        largest = fmax(largest, fabs(x));
    }
    double measured = sqrt(squares / N);
    if (!(fabs(measured / deviation - 1) < 0.01) || !(fabs(sum / N) < 0.02 * deviation))
        fail_msg("role %d: mean %g, deviation %g", (int)role, sum / N, measured);
    assert_true(largest <= sqrt(3) * deviation * 1.01 && largest > sqrt(3) * deviation * 0.98);
}

static void test_spread(void **state)
{
    (void)state;
    struct qd_model_config tied, untied;
    char err[QD_ERR_LEN];
    ASSERT_OK(qd_model_config_preset("0.6B", &tied, err, sizeof err), err);
    ASSERT_OK(qd_model_config_preset("8B", &untied, err, sizeof err), err);
    check_spread(&tied, QD_TENSOR_Q, 1 / sqrt(1024));
    check_spread(&tied, QD_TENSOR_O, 1 / sqrt(2048));
    check_spread(&tied, QD_TENSOR_DOWN, 1 / sqrt(3072));
    check_spread(&tied, QD_TENSOR_EMBEDDING, 0.02);
    check_spread(&untied, QD_TENSOR_EMBEDDING, 1.0);
    check_spread(&untied, QD_TENSOR_LM_HEAD, 1 / sqrt(4096));
    qd_bf16 norm[40];
    struct qd_tensor_spec spec = spec_of(&tied, QD_TENSOR_Q_NORM);
    qd_dummy_fill(&tied, &spec, 1, 0, 40, norm);
    for (int i = 0; i < 40; i++)
        assert_int_equal(norm[i], 0x3f80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_part_is_the_same),
        cmocka_unit_test(test_seed_tensor_and_layer_matter),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/support/test.h"

#include <cuda_runtime.h>

#include "kernels/cuda/cublaslt.h"
#include "tests/support/fakes.h"
#include "tests/support/memory.h"

static qd_cublaslt_t *open_fake(void)
{
    char err[QD_ERR_LEN] = "";
    qd_cublaslt_t *lt;
    ASSERT_OK(qd_cublaslt_open(&lt, err, sizeof err), err);
    ASSERT_CONTAINS(qd_cublaslt_path(lt), "fakes/libcublasLt.so.12");
    assert_int_equal(qd_cublaslt_version(lt), 120900);
    return lt;
}

static int without_cases(void **state)
{
    (void)state;
    return unsetenv("QD_FAKE_CUBLASLT");
}

/* The fake sums in the order of k, so the bits are those of this loop. */
static void check_product(const qd_bf16 *a, const qd_bf16 *b, const qd_bf16 *c, int64_t m, int64_t n,
                          int64_t k)
{
    for (int64_t row = 0; row < m; row++)
        for (int64_t col = 0; col < n; col++) {
            float sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += qd_bf16_to_f32(a[row * k + i]) * qd_bf16_to_f32(b[col * k + i]);
            assert_int_equal(c[row * n + col], qd_bf16_from_f32(sum));
        }
}

static void check_shape(qd_cublaslt_t *lt, int64_t m, int64_t n, int64_t k)
{
    static const int ids[] = {70, 72, 73};
    char err[QD_ERR_LEN] = "";
    int n_algorithms = -1;
    qd_bf16 *a = new_random_bf16((size_t)(m * k), 1, 1), *b = new_random_bf16((size_t)(n * k), 2, 1);
    ASSERT_OK(qd_cublaslt_prepare(lt, m, n, k, &n_algorithms, err, sizeof err), err);
    assert_int_equal(n_algorithms, 3); /* the one that cannot be run is left out */
    for (int i = 0; i < n_algorithms; i++) {
        struct guarded c = guarded_alloc((size_t)(m * n) * sizeof(qd_bf16));
        assert_int_equal(qd_cublaslt_algorithm(lt, i), ids[i]);
        ASSERT_OK(qd_cublaslt_run(lt, i, a, b, c.data, NULL, err, sizeof err), err);
        check_product(a, b, c.data, m, n, k);
        guarded_free("c", &c);
    }
    free(a);
    free(b);
}

static void products_are_of_row_major_matrices(void **state)
{
    (void)state;
    qd_cublaslt_t *lt = open_fake();
    check_shape(lt, 1, 1, 1);
    check_shape(lt, 3, 5, 7);
    check_shape(lt, 1, 17, 64);
    check_shape(lt, 19, 2, 65);
    qd_cublaslt_close(lt);
    qd_cublaslt_close(NULL);
}

static void wrong_arguments_are_refused(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{0, 1, 1}, {1, -1, 1}, {1, 1, 0}};
    char err[QD_ERR_LEN] = "";
    int n = -1;
    qd_bf16 x = 0;
    qd_cublaslt_t *lt = open_fake();
    assert_int_equal(qd_cublaslt_run(lt, 0, &x, &x, &x, NULL, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "algorithm 0 of 0");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        assert_int_equal(
            qd_cublaslt_prepare(lt, shapes[i][0], shapes[i][1], shapes[i][2], &n, err, sizeof err),
            QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "1 x 1 x 0");
    ASSERT_OK(qd_cublaslt_prepare(lt, 1, 1, 1, &n, err, sizeof err), err);
    assert_int_equal(qd_cublaslt_run(lt, n, &x, &x, &x, NULL, err, sizeof err), QD_ERR_ARGUMENT);
    assert_int_equal(qd_cublaslt_run(lt, -1, &x, &x, &x, NULL, err, sizeof err), QD_ERR_ARGUMENT);
    qd_cublaslt_close(lt);
}

static void a_shape_without_algorithms_is_unsupported(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    int n = -1;
    qd_cublaslt_t *lt = open_fake();
    setenv("QD_FAKE_CUBLASLT", "none", 1);
    assert_int_equal(qd_cublaslt_prepare(lt, 3, 5, 7, &n, err, sizeof err), QD_ERR_UNSUPPORTED);
    ASSERT_CONTAINS(err, "3 x 5 x 7");
    assert_int_equal(n, 0);
    qd_cublaslt_close(lt);
}

static void a_library_that_does_not_start_says_so(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_cublaslt_t *lt;
    setenv("QD_FAKE_CUBLASLT", "broken", 1);
    assert_int_equal(qd_cublaslt_open(&lt, err, sizeof err), QD_ERR_ENVIRONMENT);
    assert_null(lt);
    ASSERT_CONTAINS(err, "starting it: not initialized");
}

int main(int argc, char **argv)
{
    (void)argc;
    fakes_come_first(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(products_are_of_row_major_matrices, without_cases),
        cmocka_unit_test_setup(wrong_arguments_are_refused, without_cases),
        cmocka_unit_test_setup(a_shape_without_algorithms_is_unsupported, without_cases),
        cmocka_unit_test_setup(a_library_that_does_not_start_says_so, without_cases),
    };
    return cmocka_run_group_tests_name("cuda_cublaslt", tests, NULL, NULL);
}

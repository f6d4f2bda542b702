#include "tests/support/test.h"

#include "kernels/cpu/host/cores.h"

static cpu_set_t set_of(int n, const int *cores)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < n; i++) CPU_SET((size_t)cores[i], &set);
    return set;
}

static const int eight[] = {2, 3, 5, 7, 11, 13, 17, 1023};

static void cores_are_shared_evenly_and_once(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    cpu_set_t available = set_of(8, eight);
    for (int n_ranks = 1; n_ranks <= 8; n_ranks++) {
        int next = 0;
        for (int rank = 0; rank < n_ranks; rank++) {
            struct qd_cpu_cores cores;
            ASSERT_OK(qd_cpu_cores_share(&available, 0, rank, n_ranks, &cores, err, sizeof err), err);
            assert_true(cores.own_cores);
            assert_in_range(cores.n_threads, 8 / n_ranks, (8 + n_ranks - 1) / n_ranks);
            for (int i = 0; i < cores.n_threads; i++) assert_int_equal(cores.cores[i], eight[next++]);
        }
        assert_int_equal(next, 8);
    }
}

static void threads_can_be_fewer_than_cores(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    cpu_set_t available = set_of(8, eight);
    struct qd_cpu_cores cores;
    ASSERT_OK(qd_cpu_cores_share(&available, 3, 0, 1, &cores, err, sizeof err), err);
    assert_int_equal(cores.n_threads, 3);
    assert_int_equal(cores.cores[2], 5);
    /* fewer threads than ranks: one each */
    ASSERT_OK(qd_cpu_cores_share(&available, 1, 1, 2, &cores, err, sizeof err), err);
    assert_int_equal(cores.n_threads, 1);
    assert_true(cores.own_cores);
    assert_int_equal(cores.cores[0], 3);
}

static void nobody_owns_a_core_when_there_are_too_few(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    cpu_set_t available = set_of(2, eight);
    struct qd_cpu_cores cores;
    for (int rank = 0; rank < 5; rank++) {
        ASSERT_OK(qd_cpu_cores_share(&available, 0, rank, 5, &cores, err, sizeof err), err);
        assert_int_equal(cores.n_threads, 1);
        assert_false(cores.own_cores);
    }
    ASSERT_OK(qd_cpu_cores_share(&available, 7, 1, 2, &cores, err, sizeof err), err);
    assert_int_equal(cores.n_threads, 4);
    assert_false(cores.own_cores);
}

static void bad_numbers_are_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    cpu_set_t available = set_of(2, eight), none = set_of(0, eight);
    struct qd_cpu_cores cores;
    static const int bad[][3] = {{-1, 0, 1}, {CPU_SETSIZE + 1, 0, 1}, {0, 1, 1}, {0, -1, 1}, {0, 0, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(
            qd_cpu_cores_share(&available, bad[i][0], bad[i][1], bad[i][2], &cores, err, sizeof err),
            QD_ERR_ARGUMENT);
    assert_int_equal(qd_cpu_cores_share(&none, 0, 0, 1, &cores, err, sizeof err), QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "no core");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_are_shared_evenly_and_once),
        cmocka_unit_test(threads_can_be_fewer_than_cores),
        cmocka_unit_test(nobody_owns_a_core_when_there_are_too_few),
        cmocka_unit_test(bad_numbers_are_refused),
    };
    return cmocka_run_group_tests_name("cores", tests, NULL, NULL);
}

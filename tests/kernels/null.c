#include "tests/support/test.h"

#include "kernels/group.h"
#include "kernels/null/device.h"

enum { VOCAB = 1000, ROWS = 64 };

static const struct qd_step_limits limits = {
    .max_tokens = ROWS, .max_seqs = ROWS, .max_blocks = ROWS, .max_logit_rows = ROWS};

static qd_group_t *open_group(int tp, int64_t step_ns, int32_t vocab_size)
{
    char err[QD_ERR_LEN] = "";
    struct qd_group_config config = {
        .ops = &qd_null_ops,
        .tp = tp,
        .device = {.limits = limits},
        .vocab_size = vocab_size,
        .null_step_ns = step_ns,
    };
    qd_group_t *group;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    return group;
}

/* One step of n rows; row i belongs to request seeds[i] and is its output number indices[i]. */
static struct qd_group_result run(qd_group_t *group, int32_t n, const uint64_t *seeds,
                                  const uint64_t *indices)
{
    char err[QD_ERR_LEN] = "";
    struct qd_step *step = calloc(1, qd_step_capacity(&limits));
    assert_non_null(step);
    assert_int_equal(qd_step_begin(step, &limits, n, n, n, n), QD_OK);
    for (int32_t i = 0; i < n; i++)
        qd_step_sampling(step)[i] = (struct qd_sampling){.seed = seeds[i], .output_index = indices[i]};
    struct qd_group_result result;
    ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
    ASSERT_OK(qd_group_wait(group, &result, err, sizeof err), err);
    assert_int_equal(result.n_ids, n);
    assert_null(result.logits);
    free(step);
    return result;
}

static void ids_depend_on_the_request_alone(void **state)
{
    (void)state;
    qd_group_t *one = open_group(1, 0, VOCAB), *eight = open_group(8, 0, VOCAB);
    uint64_t seeds[ROWS], indices[ROWS];
    for (uint64_t i = 0; i < ROWS; i++) seeds[i] = i / 8, indices[i] = i % 8;
    struct qd_group_result all = run(one, ROWS, seeds, indices);
    int n_different = 0;
    for (int32_t i = 0; i < ROWS; i++) {
        assert_in_range(all.ids[i], 0, VOCAB - 1);
        struct qd_group_result alone = run(eight, 1, &seeds[i], &indices[i]);
        assert_int_equal(alone.ids[0], all.ids[i]);
        n_different += all.ids[i] != all.ids[0];
    }
    assert_true(n_different > ROWS / 2);
    qd_group_close(one);
    qd_group_close(eight);
}

static void every_id_of_a_small_vocabulary_occurs(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 2, 7};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        qd_group_t *group = open_group(1, 0, sizes[s]);
        int seen[7] = {0};
        uint64_t seeds[ROWS], indices[ROWS];
        for (uint64_t i = 0; i < ROWS; i++) seeds[i] = 5, indices[i] = i;
        struct qd_group_result result = run(group, ROWS, seeds, indices);
        for (int32_t i = 0; i < ROWS; i++) {
            assert_in_range(result.ids[i], 0, sizes[s] - 1);
            seen[result.ids[i]]++;
        }
        for (int32_t id = 0; id < sizes[s]; id++) assert_true(seen[id] > 0);
        qd_group_close(group);
    }
}

static void a_step_takes_its_virtual_time(void **state)
{
    (void)state;
    uint64_t seed = 1, index = 0;
    for (int64_t step_ns = 0; step_ns <= 3000000000; step_ns += 1000000000) {
        qd_group_t *group = open_group(1, step_ns, VOCAB);
        struct qd_group_result result = run(group, 1, &seed, &index);
        assert_int_equal(result.step_end_ns - result.step_begin_ns, step_ns);
        qd_group_close(group);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_depend_on_the_request_alone),
        cmocka_unit_test(every_id_of_a_small_vocabulary_occurs),
        cmocka_unit_test(a_step_takes_its_virtual_time),
    };
    return cmocka_run_group_tests_name("null", tests, NULL, NULL);
}

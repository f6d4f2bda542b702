/* The machine record: what this machine says of itself, and the arithmetic of shares and marks. */
#include "tests/support/test.h"

#include "harness/result/machine.h"
#include "harness/result/marks.h"

static void test_this_machine(void **state)
{
    (void)state;
    struct qd_machine m;
    qd_machine_read(&m);
    assert_true(m.n_cores >= 1);
    assert_true(m.n_cores_online >= m.n_cores);
    assert_true(m.threads_per_core >= 1);
    assert_true(m.memory_bytes > 1 << 20);
    assert_true(strlen(m.cpu_model) > 0 && strchr(m.cpu_model, '\n') == NULL);
    assert_true(strlen(m.cpu_isa) > 0);
    ASSERT_CONTAINS(m.kernel, "Linux");
    cJSON *json = qd_machine_to_json(&m);
    assert_string_equal(cJSON_GetObjectItem(json, "cpu_model")->valuestring, m.cpu_model);
    cJSON_Delete(json);
}

static void test_own_time_is_seen(void **state)
{
    (void)state;
    struct qd_machine_load before, after;
    qd_machine_load_read(&before);
    volatile uint64_t x = 0;
    for (int i = 0; i < 60000000; i++)
        x = x * 3 + 1;
    qd_machine_load_read(&after);
    assert_true(after.own_ns > before.own_ns);
    assert_true(after.total_ns >= before.total_ns);
    struct qd_machine_shares s = qd_machine_load_between(&before, &after);
    assert_true(s.own >= 0 && s.own <= 1 && s.foreign >= 0 && s.foreign <= 1);
}

/* 4 cores for 2 s: 8 s of processor time. */
static const struct qd_machine FOUR = {.n_cores = 4};
static const struct qd_machine_load ZERO = {0};

static void test_shares(void **state)
{
    (void)state;
    struct qd_machine_load after = {
        .total_ns = 8000000000, .idle_ns = 2000000000, .steal_ns = 1000000000, .own_ns = 4000000000};
    struct qd_machine_shares s = qd_machine_load_between(&ZERO, &after);
    assert_true(s.own == 0.5 && s.idle == 0.25 && s.steal == 0.125 && s.foreign == 0.125);
    assert_int_equal(qd_machine_marks(&FOUR, &ZERO, &after, 4), QD_MARK_SHARED_MACHINE | QD_MARK_STEAL_TIME);
}

static void test_a_quiet_machine_has_no_mark(void **state)
{
    (void)state;
    struct qd_machine_load after = {.total_ns = 8000000000, .idle_ns = 3900000000, .own_ns = 4000000000};
    assert_int_equal(qd_machine_marks(&FOUR, &ZERO, &after, 4), 0);
    assert_int_equal(qd_machine_marks(&FOUR, &ZERO, &after, 5), QD_MARK_MORE_RANKS_THAN_CORES);
}

/* Half a second is too coarse for the kernel's counters, and unknown counters say nothing. */
static void test_short_and_unknown_intervals_have_no_mark(void **state)
{
    (void)state;
    struct qd_machine_load after = {.total_ns = 2000000000, .own_ns = 0};
    assert_int_equal(qd_machine_marks(&FOUR, &ZERO, &after, 1), 0);
    assert_int_equal(qd_machine_marks(&FOUR, &ZERO, &ZERO, 1), 0);
    struct qd_machine_shares s = qd_machine_load_between(&ZERO, &ZERO);
    assert_true(s.own == 0 && s.foreign == 0);
}

static void test_marks_are_found_by_their_text(void **state)
{
    (void)state;
    for (uint32_t mark = 1; qd_mark_text(mark) != NULL; mark <<= 1)
        assert_int_equal(qd_mark_find(qd_mark_text(mark)), mark);
    assert_int_equal(qd_mark_find("a mark of the future"), QD_MARK_UNKNOWN);
    assert_null(qd_mark_text(1u << 30));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_this_machine),
        cmocka_unit_test(test_own_time_is_seen),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_a_quiet_machine_has_no_mark),
        cmocka_unit_test(test_short_and_unknown_intervals_have_no_mark),
        cmocka_unit_test(test_marks_are_found_by_their_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

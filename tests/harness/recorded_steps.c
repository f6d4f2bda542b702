/* Step times from a steps.jsonl: those of both clocks, and everything that is refused. */
#include "tests/support/test.h"

#include <stdio.h>

#include "harness/workload/recorded_steps.h"
#include "tests/support/files.h"

#define REAL(replica, index, begin, wait_begin, wait, output)                                                \
    "{\"replica\":" #replica ",\"index\":" #index ",\"begin_ns\":" #begin ",\"wait_begin_ns\":" #wait_begin  \
    ",\"wait_ns\":" #wait ",\"output_ns\":" #output ",\"virtual_begin_ns\":null,\"span_ns\":5}\n"

static void assert_steps(const struct qd_null_steps *steps, const int64_t *ns, uint64_t n)
{
    assert_int_equal(steps->n, n);
    for (uint64_t i = 0; i < n; i++) assert_int_equal(steps->ns[i], ns[i]);
}

/* From the beginning of scheduling to the output; the time between two steps is nobody's. */
static void real_steps_take_what_they_took(void **state)
{
    (void)state;
    static const char text[] = REAL(1, 0, -3, 10, 5, 2)
        REAL(0, 0, 0, 100, 1000, 10) "\n" REAL(0, 1, 1500, 1600, 0, 0) REAL(1, 1, 20, 20, 0, 0);
    struct qd_recorded_steps steps;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_recorded_steps_parse("f", text, sizeof text - 1, 2, &steps, err, sizeof err), err);
    assert_steps(&steps.replicas[0], (const int64_t[]){1110, 100}, 2);
    assert_steps(&steps.replicas[1], (const int64_t[]){20, 0}, 2);
    assert_string_equal(steps.replicas[0].path, "f");
    qd_recorded_steps_free(&steps);
}

/* With asynchronous scheduling the second was scheduled while the first ran, which ended at 1110. */
static void what_overlaps_counts_once(void **state)
{
    (void)state;
    static const char text[] = REAL(0, 0, 0, 100, 1000, 10) REAL(0, 1, 50, 1110, 900, 10);
    struct qd_recorded_steps steps;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_recorded_steps_parse("f", text, sizeof text - 1, 1, &steps, err, sizeof err), err);
    assert_steps(&steps.replicas[0], (const int64_t[]){1110, 910}, 2);
    qd_recorded_steps_free(&steps);
}

static void virtual_steps_take_their_virtual_time(void **state)
{
    (void)state;
    static const char text[] =
        "{\"replica\": 0, \"index\": 0, \"virtual_begin_ns\": 7, \"virtual_end_ns\": 9, "
        "\"begin_ns\": 0, \"wait_begin_ns\": 1, \"wait_ns\": 1, \"output_ns\": 1}";
    struct qd_recorded_steps steps;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_recorded_steps_parse("f", text, sizeof text - 1, 1, &steps, err, sizeof err), err);
    assert_steps(&steps.replicas[0], (const int64_t[]){2}, 1);
    qd_recorded_steps_free(&steps);
}

/* More than the lists have room for at first. */
static void long_files_are_read_whole(void **state)
{
    (void)state;
    enum { N = 1000, LINE = 96 };
    struct temp_dir dir = temp_dir_create();
    struct qd_recorded_steps steps;
    char err[QD_ERR_LEN] = "", *text = calloc(N, LINE), *at = text;
    assert_non_null(text);
    for (int i = 0; i < N; i++)
        at += snprintf(at, LINE,
                       "{\"replica\":0,\"index\":%d,\"virtual_begin_ns\":0,\"virtual_end_ns\":%d}\n", i, i);
    write_text(in_dir(&dir, "steps.jsonl"), text);
    ASSERT_OK(qd_recorded_steps_read(in_dir(&dir, "steps.jsonl"), 1, &steps, err, sizeof err), err);
    assert_int_equal(steps.replicas[0].n, N);
    for (int i = 0; i < N; i++) assert_int_equal(steps.replicas[0].ns[i], i);
    qd_recorded_steps_free(&steps);
    assert_int_equal(qd_recorded_steps_read(in_dir(&dir, "none"), 1, &steps, err, sizeof err),
                     QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "none: No such file");
    free(text);
    temp_dir_remove(&dir);
}

static void bad_files_are_refused_by_name(void **state)
{
    (void)state;
#define GOOD REAL(0, 0, 0, 100, 1000, 10)
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"", "f: no step of replica 0, but the run has 2"},
        {GOOD, "f: no step of replica 1, but the run has 2"},
        {GOOD "[1]", "f: line 2: no JSON object"},
        {GOOD "{", "f: line 2: "},
        {GOOD "\n\n{}", "f: line 4: replica: missing"},
        {GOOD "{\"replica\": 2}", "f: line 2: replica: 2, but the run has 2"},
        {GOOD "{\"replica\": -1}", "f: line 2: replica: -1 is outside"},
        {GOOD "{\"replica\": 0, \"index\": 2}", "f: line 2: index: 2, expected 1 of replica 0"},
        {GOOD GOOD, "f: line 2: index: 0, expected 1 of replica 0"},
        {GOOD "{\"replica\": 1, \"index\": 0.5}", "f: line 2: index: 0.5 is not an integer"},
        {GOOD "{\"replica\": 1, \"index\": 0}", "f: line 2: begin_ns: missing"},
        {GOOD "{\"replica\": 1, \"index\": 0, \"virtual_begin_ns\": 4}",
         "f: line 2: virtual_end_ns: missing"},
        {GOOD "{\"replica\": 1, \"index\": 0, \"virtual_begin_ns\": \"4\"}", "f: line 2: virtual_begin_ns"},
        {GOOD "{\"replica\": 1, \"index\": 0, \"virtual_begin_ns\": 4, \"virtual_end_ns\": 3}",
         "f: line 2: the step ends at 3 ns and begins at 4 ns"},
        {GOOD REAL(1, 0, 0, 1, -1, 0), "f: line 2: wait_ns: -1 is outside"},
        {GOOD REAL(1, 0, 0, 1, 1e16, 0), "f: line 2: wait_ns: 1e+16 is beyond 2^53"},
        {GOOD REAL(0, 1, 0, 1, 1, 1), "f: line 2: the step ends at 3 ns and begins at 1110 ns"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qd_recorded_steps steps;
        char err[QD_ERR_LEN] = "";
        assert_int_equal(
            qd_recorded_steps_parse("f", cases[i].text, strlen(cases[i].text), 2, &steps, err, sizeof err),
            QD_ERR_INPUT);
        ASSERT_CONTAINS(err, cases[i].reason);
        assert_null(steps.replicas);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_steps_take_what_they_took),        cmocka_unit_test(what_overlaps_counts_once),
        cmocka_unit_test(virtual_steps_take_their_virtual_time), cmocka_unit_test(long_files_are_read_whole),
        cmocka_unit_test(bad_files_are_refused_by_name),
    };
    return cmocka_run_group_tests_name("recorded_steps", tests, NULL, NULL);
}

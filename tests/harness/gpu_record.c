/* What a run keeps of its GPUs, over a made-up NVML (tests/fakes). */
#include "tests/support/test.h"

#include "harness/result/gpu_record.h"
#include "harness/result/marks.h"
#include "tests/support/fakes.h"

static int without_cases(void **state)
{
    (void)state;
    return unsetenv("QD_FAKE_NVML");
}

static struct qd_gpu_records read_twice(const char *const *ids, int n)
{
    struct qd_gpu_records records;
    qd_gpu_records_open_ids(ids, n, &records);
    qd_gpu_records_read(&records, false);
    qd_gpu_records_read(&records, true);
    return records;
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

static void both_readings_are_kept(void **state)
{
    (void)state;
    const char *ids[] = {"0000:3B:00.0"};
    struct qd_gpu_records records = read_twice(ids, 1);
    assert_string_equal(records.reason, "");
    cJSON *list = qd_gpu_records_to_json(&records);
    assert_int_equal(cJSON_GetArraySize(list), 1);
    const cJSON *gpu = cJSON_GetArrayItem(list, 0);
    assert_string_equal(cJSON_GetObjectItem(gpu, "name")->valuestring, "NVIDIA Fake 80GB");
    const char *moments[] = {"before", "after"};
    for (int i = 0; i < 2; i++) {
        const cJSON *reading = cJSON_GetObjectItem(gpu, moments[i]);
        assert_true(number(reading, "sm_mhz") == 1410 && number(reading, "memory_mhz") == 2600);
        assert_true(number(reading, "power_w") == 312.345 && number(reading, "temperature_c") == 61);
        assert_string_equal(cJSON_GetObjectItem(reading, "throttle")->valuestring,
                            "power cap, thermal slowdown");
        assert_true(number(reading, "other_processes") == 1); /* this process is known by its number */
    }
    assert_int_equal(qd_gpu_records_marks(&records), QD_MARK_THROTTLED_GPU | QD_MARK_FOREIGN_GPU);
    cJSON_Delete(list);
    qd_gpu_records_close(&records);
}

/* Of 70 processes none has this one's number, so one of them is it. */
static void a_process_that_is_not_known_is_taken_off(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_gpu second;
    qd_nvml_t *nvml;
    ASSERT_OK(qd_nvml_open(&nvml, err, sizeof err), err);
    ASSERT_OK(qd_nvml_gpu(nvml, 1, &second, err, sizeof err), err);
    qd_nvml_close(nvml);
    const char *ids[] = {second.pci_bus_id};
    struct qd_gpu_records records = read_twice(ids, 1);
    assert_int_equal(records.n, 1);
    assert_int_equal(records.of[0].before.n_others, 69);
    qd_gpu_records_close(&records);
}

static void what_cannot_be_read_says_why(void **state)
{
    (void)state;
    const char *ids[] = {"0000:99:00.0"};
    struct qd_gpu_records records = read_twice(ids, 1);
    assert_int_equal(records.n, 0);
    cJSON *item = qd_gpu_records_to_json(&records);
    assert_true(strlen(cJSON_GetObjectItem(item, "reason")->valuestring) > 0);
    assert_int_equal(qd_gpu_records_marks(&records), 0);
    cJSON_Delete(item);
    qd_gpu_records_close(&records);

    assert_int_equal(setenv("QD_FAKE_NVML", "no_driver", 1), 0);
    records = read_twice(ids, 1);
    item = qd_gpu_records_to_json(&records);
    ASSERT_CONTAINS(cJSON_GetObjectItem(item, "reason")->valuestring, "Driver Not Loaded");
    cJSON_Delete(item);
    qd_gpu_records_close(&records);
}

static void a_device_without_gpus_has_no_record(void **state)
{
    (void)state;
    struct qd_gpu_records records;
    qd_gpu_records_open(qd_device_find("cpu"), 4, 0, &records);
    qd_gpu_records_read(&records, false);
    cJSON *item = qd_gpu_records_to_json(&records);
    assert_true(cJSON_IsNull(item));
    cJSON_Delete(item);
    qd_gpu_records_close(&records);
}

int main(int argc, char **argv)
{
    (void)argc;
    fakes_come_first(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(both_readings_are_kept, without_cases),
        cmocka_unit_test_setup(a_process_that_is_not_known_is_taken_off, without_cases),
        cmocka_unit_test_setup(what_cannot_be_read_says_why, without_cases),
        cmocka_unit_test_setup(a_device_without_gpus_has_no_record, without_cases),
    };
    return cmocka_run_group_tests_name("gpu_record", tests, NULL, NULL);
}

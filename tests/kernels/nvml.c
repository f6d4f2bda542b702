#include "tests/support/test.h"

#include "kernels/nvml.h"
#include "tests/support/fakes.h"

static qd_nvml_t *open_fake(void)
{
    char err[QD_ERR_LEN] = "";
    qd_nvml_t *nvml;
    ASSERT_OK(qd_nvml_open(&nvml, err, sizeof err), err);
    return nvml;
}

static int without_cases(void **state)
{
    (void)state;
    return unsetenv("QD_FAKE_NVML");
}

static void the_system_is_told(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_system system;
    qd_nvml_t *nvml = open_fake();
    ASSERT_OK(qd_nvml_system(nvml, &system, err, sizeof err), err);
    assert_string_equal(system.driver, "580.65.06");
    assert_int_equal(system.cuda_driver, 13000);
    assert_int_equal(system.n_gpus, 2);
    ASSERT_CONTAINS(system.library, "fakes/libnvidia-ml.so.1");
    qd_nvml_close(nvml);
    qd_nvml_close(NULL);
}

static void a_gpu_that_tells_everything(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_gpu gpu;
    qd_nvml_t *nvml = open_fake();
    ASSERT_OK(qd_nvml_gpu(nvml, 0, &gpu, err, sizeof err), err);
    assert_string_equal(gpu.name, "NVIDIA Fake 80GB");
    assert_string_equal(gpu.uuid, "GPU-0000");
    assert_string_equal(gpu.pci_bus_id, "00000000:3B:00.0");
    assert_int_equal(gpu.compute_major, 9);
    assert_int_equal(gpu.compute_minor, 0);
    assert_true(gpu.memory_total_bytes == 85899345920 && gpu.memory_free_bytes == 85000000000);
    assert_int_equal(gpu.sm_mhz, 1410);
    assert_int_equal(gpu.sm_max_mhz, 1980);
    assert_int_equal(gpu.memory_mhz, 2600);
    assert_int_equal(gpu.memory_max_mhz, 2619);
    assert_int_equal(gpu.power_mw, 312345);
    assert_int_equal(gpu.power_limit_mw, 700000);
    assert_int_equal(gpu.temperature_c, 61);
    assert_int_equal(gpu.throttle, QD_NVML_POWER_CAP | QD_NVML_THERMAL);
    assert_int_equal(gpu.ecc, 1);
    assert_int_equal(gpu.mig, 0);
    qd_nvml_close(nvml);
}

static void what_a_gpu_has_not_is_unknown(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_gpu gpu;
    struct qd_nvml_affinity affinity;
    qd_nvml_t *nvml = open_fake();
    ASSERT_OK(qd_nvml_gpu(nvml, 1, &gpu, err, sizeof err), err);
    assert_string_equal(gpu.name, "NVIDIA Fake RTX");
    assert_int_equal(gpu.ecc, QD_NVML_UNKNOWN);
    assert_int_equal(gpu.mig, QD_NVML_UNKNOWN);
    assert_int_equal(gpu.sm_mhz, 1410);
    ASSERT_OK(qd_nvml_affinity(nvml, 1, &affinity, err, sizeof err), err);
    assert_int_equal(affinity.numa_node, QD_NVML_UNKNOWN);
    assert_true(affinity.cpus[0] == 0 && affinity.cpus[1] == 0);
    qd_nvml_close(nvml);
}

static void near_cpus_and_memory(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_affinity affinity;
    qd_nvml_t *nvml = open_fake();
    ASSERT_OK(qd_nvml_affinity(nvml, 0, &affinity, err, sizeof err), err);
    assert_int_equal(affinity.numa_node, 3);
    assert_true(affinity.cpus[0] == 0 && affinity.cpus[1] == 0xff00 && affinity.cpus[2] == 0);
    qd_nvml_close(nvml);
}

static void other_processes_are_found_and_counted(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_process processes[QD_NVML_MAX_PROCESSES];
    int n = -1;
    bool has_own = false;
    qd_nvml_t *nvml = open_fake();
    ASSERT_OK(qd_nvml_processes(nvml, 0, processes, &n, &has_own, err, sizeof err), err);
    assert_int_equal(n, 1);
    assert_true(has_own);
    assert_int_equal(processes[0].pid, 4242);
    assert_int_equal(processes[0].memory_bytes, 123456789);
    ASSERT_OK(qd_nvml_processes(nvml, 1, processes, &n, &has_own, err, sizeof err), err);
    assert_int_equal(n, 70);
    assert_false(has_own);
    qd_nvml_close(nvml);
}

static void the_link_between_two_gpus(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_link link;
    qd_nvml_t *nvml = open_fake();
    ASSERT_OK(qd_nvml_link(nvml, 0, 1, &link, err, sizeof err), err);
    assert_string_equal(link.path, "PCIe host bridge");
    assert_int_equal(link.n_nvlinks, 2);
    assert_int_equal(link.nvlink, 1);
    assert_int_equal(link.can_read, 1);
    assert_int_equal(link.can_write, 0);
    ASSERT_OK(qd_nvml_link(nvml, 1, 0, &link, err, sizeof err), err);
    assert_int_equal(link.n_nvlinks, 0);
    assert_int_equal(link.nvlink, QD_NVML_UNKNOWN);
    qd_nvml_close(nvml);
}

static void gpus_are_found_by_bus_id(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    int gpu = -1;
    qd_nvml_t *nvml = open_fake();
    ASSERT_OK(qd_nvml_find(nvml, "0000:AF:00.0", &gpu, err, sizeof err), err);
    assert_int_equal(gpu, 1);
    assert_int_equal(qd_nvml_find(nvml, "0000:11:00.0", &gpu, err, sizeof err), QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "0000:11:00.0");
    qd_nvml_close(nvml);
}

static void wrong_gpus_are_refused_and_lost_ones_named(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_nvml_gpu gpu;
    qd_nvml_t *nvml = open_fake();
    assert_int_equal(qd_nvml_gpu(nvml, 2, &gpu, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "GPU 2 of 2");
    assert_int_equal(qd_nvml_gpu(nvml, -1, &gpu, err, sizeof err), QD_ERR_ARGUMENT);
    setenv("QD_FAKE_NVML", "lost", 1);
    assert_int_equal(qd_nvml_gpu(nvml, 0, &gpu, err, sizeof err), QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "GPU 0: memory: GPU is lost");
    qd_nvml_close(nvml);
}

static void without_a_driver_it_does_not_open(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_nvml_t *nvml;
    setenv("QD_FAKE_NVML", "no_driver", 1);
    assert_int_equal(qd_nvml_open(&nvml, err, sizeof err), QD_ERR_ENVIRONMENT);
    assert_null(nvml);
    ASSERT_CONTAINS(err, "Driver Not Loaded");
}

static void throttle_reasons_have_names(void **state)
{
    (void)state;
    static const struct {
        int64_t reasons;
        bool is_throttled;
        const char *text;
    } cases[] = {
        {0, false, "none"},
        {QD_NVML_UNKNOWN, false, "unknown"},
        {QD_NVML_IDLE, false, "idle"},
        {QD_NVML_APPLICATION_CLOCKS | QD_NVML_SYNC_BOOST, false, "application clocks, sync boost"},
        {QD_NVML_POWER_CAP, true, "power cap"},
        {QD_NVML_THERMAL | QD_NVML_IDLE, true, "idle, thermal slowdown"},
        {QD_NVML_HW_SLOWDOWN | QD_NVML_HW_THERMAL, true, "hardware slowdown, hardware thermal slowdown"},
        {QD_NVML_HW_POWER_BRAKE, true, "hardware power brake"},
        {QD_NVML_DISPLAY_CLOCKS | 0x1000, false, "display clocks, reason 0x1000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[200];
        qd_nvml_throttle_text(cases[i].reasons, text, sizeof text);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(qd_nvml_is_throttled(cases[i].reasons), cases[i].is_throttled);
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    fakes_come_first(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_system_is_told, without_cases),
        cmocka_unit_test_setup(a_gpu_that_tells_everything, without_cases),
        cmocka_unit_test_setup(what_a_gpu_has_not_is_unknown, without_cases),
        cmocka_unit_test_setup(near_cpus_and_memory, without_cases),
        cmocka_unit_test_setup(other_processes_are_found_and_counted, without_cases),
        cmocka_unit_test_setup(the_link_between_two_gpus, without_cases),
        cmocka_unit_test_setup(gpus_are_found_by_bus_id, without_cases),
        cmocka_unit_test_setup(wrong_gpus_are_refused_and_lost_ones_named, without_cases),
        cmocka_unit_test_setup(without_a_driver_it_does_not_open, without_cases),
        cmocka_unit_test(throttle_reasons_have_names),
    };
    return cmocka_run_group_tests_name("nvml", tests, NULL, NULL);
}

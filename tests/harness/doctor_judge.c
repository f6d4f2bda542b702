/* What `doctor` says is to be fixed first, from facts of machines that are not here. */
#include "harness/cli/doctor_facts.h"
#include "tests/support/test.h"

enum { N_GPUS = 2 };

static const struct qd_device_build build = {.cuda = 13000, .architectures = "80 90"};
static const struct qd_device_ops cuda = {.name = "cuda", .build = &build};
static struct qd_doctor_gpu gpus[N_GPUS];

/* A machine where nothing is to be fixed. */
static struct qd_doctor good(void)
{
    for (int i = 0; i < N_GPUS; i++)
        gpus[i] = (struct qd_doctor_gpu){.is = {.name = "Some GPU", .compute_major = 9, .compute_minor = 0}};
    return (struct qd_doctor){
        .device = "cuda",
        .cuda = &cuda,
        .cuda_memory = {.n_devices = N_GPUS},
        .driver_cuda = 13000,
        .n_gpus = N_GPUS,
        .gpus = gpus,
    };
}

static void expect_fix(const struct qd_doctor *doctor, const char *what)
{
    char why[QD_ERR_LEN] = "";
    assert_false(qd_doctor_judge(doctor, why, sizeof why));
    ASSERT_CONTAINS(why, what);
}

static void expect_ok(const struct qd_doctor *doctor)
{
    char why[QD_ERR_LEN] = "";
    if (!qd_doctor_judge(doctor, why, sizeof why)) fail_msg("%s", why);
}

static void a_good_machine_needs_no_fix(void **state)
{
    (void)state;
    struct qd_doctor doctor = good();
    expect_ok(&doctor);
    doctor.driver_cuda = 13020;
    expect_ok(&doctor);
    doctor.driver_cuda = 0; /* not known: CUDA itself will say */
    expect_ok(&doctor);
}

static void a_missing_object_comes_first(void **state)
{
    (void)state;
    struct qd_doctor doctor = good();
    doctor.cuda = NULL;
    snprintf(doctor.cuda_reason, sizeof doctor.cuda_reason, "the device cuda is not built");
    doctor.libraries[QD_LIBRARY_CUDA].status = QD_ERR_NOT_FOUND;
    expect_fix(&doctor, "the device cuda is not built");
}

static void the_driver_is_named(void **state)
{
    (void)state;
    struct qd_doctor doctor = good();
    doctor.libraries[QD_LIBRARY_CUDA].status = QD_ERR_NOT_FOUND;
    doctor.cuda_memory.n_devices = 0;
    expect_fix(&doctor, "no NVIDIA driver: install driver 580.65.06 or newer");
    doctor.libraries[QD_LIBRARY_CUDA].status = QD_ERR_ENVIRONMENT;
    snprintf(doctor.libraries[QD_LIBRARY_CUDA].reason, QD_DOCTOR_TEXT, "wrong ELF class");
    expect_fix(&doctor, "no NVIDIA driver that works: wrong ELF class: install");
    doctor = good();
    doctor.driver_cuda = 12080;
    expect_fix(&doctor, "it runs CUDA 12.8, this build is of CUDA 13.0: install driver 580.65.06");
}

static void drivers_of_toolkits(void **state)
{
    (void)state;
    assert_string_equal(qd_doctor_driver_for(12090), "525.60.13");
    assert_string_equal(qd_doctor_driver_for(13010), "580.65.06");
    assert_null(qd_doctor_driver_for(14000));
    static const struct qd_device_build later = {.cuda = 14000, .architectures = "90"};
    struct qd_device_ops ops = cuda;
    ops.build = &later;
    struct qd_doctor doctor = good();
    doctor.cuda = &ops;
    expect_fix(&doctor, "install a driver for CUDA 14.0, or build");
}

static void gpus_are_judged_where_all_are_used(void **state)
{
    (void)state;
    struct qd_doctor doctor = good();
    snprintf(gpus[1].reason, sizeof gpus[1].reason, "GPU is lost");
    expect_fix(&doctor, "GPU 1 does not answer: GPU is lost");
    doctor.cuda_memory.n_devices = 1;
    expect_ok(&doctor);
    doctor = good();
    gpus[1].is.compute_major = 7;
    gpus[1].is.compute_minor = 5;
    expect_fix(&doctor, "GPU 1, Some GPU, has compute capability 7.5: 8.0 is the least");
    doctor.cuda_memory.n_devices = 0;
    snprintf(doctor.gpus_reason, sizeof doctor.gpus_reason, "none is visible");
    expect_fix(&doctor, "none is visible");
}

/* PTX of a newer toolkit is no use to an older driver, though the driver runs the rest. */
static void newer_gpus_need_a_driver_that_translates(void **state)
{
    (void)state;
    static const struct qd_device_build later = {.cuda = 13020, .architectures = "80 90"};
    struct qd_device_ops ops = cuda;
    ops.build = &later;
    struct qd_doctor doctor = good();
    doctor.cuda = &ops;
    expect_ok(&doctor);
    gpus[0].is.compute_major = 12;
    expect_fix(&doctor, "newer than this build's code: install a driver for CUDA 13.2 or newer");
    doctor.driver_cuda = 13020;
    expect_ok(&doctor);
}

static void a_wrong_kernel_is_named(void **state)
{
    (void)state;
    struct qd_doctor doctor = good();
    snprintf(doctor.tests[QD_OP_GATE_UP].failure, QD_DOCTOR_TEXT, "wrong, M 1 N 2 K 3");
    expect_fix(&doctor, "the kernel gate_up computes on cuda what it should not: wrong, M 1 N 2 K 3");
    doctor.device = "cpu";
    doctor.cuda = NULL;
    expect_fix(&doctor, "the kernel gate_up computes on cpu");
    doctor.tests[QD_OP_GATE_UP].failure[0] = '\0';
    snprintf(doctor.test_reason, sizeof doctor.test_reason, "no memory");
    expect_fix(&doctor, "the self-test did not end: no memory");
}

/* Nothing of CUDA matters to another device. */
static void other_devices_need_no_driver(void **state)
{
    (void)state;
    struct qd_doctor doctor = {.device = "cpu"};
    doctor.libraries[QD_LIBRARY_CUDA].status = QD_ERR_NOT_FOUND;
    expect_ok(&doctor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_machine_needs_no_fix),
        cmocka_unit_test(a_missing_object_comes_first),
        cmocka_unit_test(the_driver_is_named),
        cmocka_unit_test(drivers_of_toolkits),
        cmocka_unit_test(gpus_are_judged_where_all_are_used),
        cmocka_unit_test(newer_gpus_need_a_driver_that_translates),
        cmocka_unit_test(a_wrong_kernel_is_named),
        cmocka_unit_test(other_devices_need_no_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/doctor_print.h"
#include "harness/cli/version.h"
#include "kernels/cpu/host/isa.h"

static double gib(int64_t bytes)
{
    return (double)bytes / 1073741824.0;
}

static void print_machine(const struct qd_doctor *doctor, const struct qd_options *options)
{
    const struct qd_machine *machine = &doctor->machine;
    printf("qdyno      %s, commit %s\n", qd_version(), qd_commit());
    printf("processor  %s, %d cores for this process (%s)\n", machine->cpu_model, machine->n_cores,
           machine->cpu_isa);
    printf("pinning    %d of %d logical cores, %d NUMA node%s\n", machine->n_cores, machine->n_cores_online,
           doctor->n_numa_nodes, doctor->n_numa_nodes == 1 ? "" : "s");
    printf("memory     %.2f GiB of %.2f GiB usable (%s)\n", gib((int64_t)doctor->memory.bytes),
           gib(machine->memory_bytes), qd_memory_source_name(doctor->memory.source));
    if (doctor->memlock_bytes < 0)
        printf("memlock    unlimited\n");
    else
        printf("memlock    %" PRId64 " KiB may be locked (ulimit -l)\n", doctor->memlock_bytes / 1024);
    const struct qd_cpu_kernels *kernels;
    char why[QD_ERR_LEN];
    bool has_isa = qd_cpu_isa_select(options->cpu_isa, &kernels, why, sizeof why) == QD_OK;
    printf("cpu isa    %s\n", has_isa ? kernels->isa : why);
}

static void print_devices(const struct qd_doctor *doctor)
{
    for (const struct qd_device_ops *const *device = qd_device_list(); *device != NULL; device++)
        printf("device     %s: %s\n", (*device)->name,
               qd_device_has_copies(*device) ? "inference, the CUDA code on emulated GPUs"
               : (*device)->executes         ? "inference"
                                             : "scheduling only, no weights, no tokens of a model");
    if (doctor->cuda == NULL)
        printf("device     cuda: no: %s\n", doctor->cuda_reason);
    else if (doctor->cuda_memory.n_devices == 0)
        printf("device     cuda: no: %s\n", doctor->gpus_reason);
    else
        printf("device     cuda: inference on %d GPUs, the first with %.2f of %.2f GiB free\n",
               doctor->cuda_memory.n_devices, gib((int64_t)doctor->cuda_memory.free_bytes),
               gib((int64_t)doctor->cuda_memory.total_bytes));
}

static void print_driver(const struct qd_doctor *doctor)
{
    char text[16];
    if (doctor->cuda != NULL) {
        const char *driver = qd_doctor_driver_for(doctor->cuda->build->cuda);
        qd_doctor_cuda_text(doctor->cuda->build->cuda, text, sizeof text);
        printf("toolkit    CUDA %s, code for GPUs of capability %s, and PTX for newer ones\n", text,
               doctor->cuda->build->architectures);
        if (driver != NULL) printf("driver     needed: %s or newer\n", driver);
    }
    if (doctor->driver_cuda == 0) {
        printf("driver     found: none\n");
    } else {
        qd_doctor_cuda_text(doctor->driver_cuda, text, sizeof text);
        printf("driver     found: %s, runs CUDA %s\n",
               doctor->driver[0] != '\0' ? doctor->driver : "version not known", text);
    }
}

static void print_libraries(const struct qd_doctor *doctor)
{
    for (int i = 0; i < QD_N_LIBRARIES; i++) {
        const struct qd_doctor_library *library = &doctor->libraries[i];
        if (library->status == QD_OK)
            printf("library    %s%s%s: %s%s%s\n", qd_libraries[i].name,
                   library->version[0] != '\0' ? " " : "", library->version, library->path,
                   library->reason[0] != '\0' ? ", but " : "", library->reason);
        else
            printf("library    %s; without it, %s\n", library->reason, qd_libraries[i].disables);
    }
}

/* "1410", or "?" where it is not told. */
static const char *number(int64_t value, char text[24])
{
    if (value == QD_NVML_UNKNOWN) return "?";
    snprintf(text, 24, "%" PRId64, value);
    return text;
}

static const char *on_off(int value)
{
    return value == 1 ? "on" : value == 0 ? "off" : "not told";
}

static void print_gpu(int index, const struct qd_doctor_gpu *gpu)
{
    const struct qd_nvml_gpu *is = &gpu->is;
    char a[24], b[24], c[24], d[24], throttle[256];
    if (gpu->reason[0] != '\0') {
        printf("gpu %-6d does not answer: %s\n", index, gpu->reason);
        return;
    }
    printf("gpu %-6d %s, sm_%d%d, %s, %.2f of %.2f GiB free, %s other processes\n", index, is->name,
           is->compute_major, is->compute_minor, is->pci_bus_id, gib(is->memory_free_bytes),
           gib(is->memory_total_bytes), number(gpu->n_processes, a));
    printf("           SM %s of %s MHz, memory %s of %s MHz\n", number(is->sm_mhz, a),
           number(is->sm_max_mhz, b), number(is->memory_mhz, c), number(is->memory_max_mhz, d));
    qd_nvml_throttle_text(is->throttle, throttle, sizeof throttle);
    printf("           %s of %s mW, %s C, throttled by: %s\n", number(is->power_mw, a),
           number(is->power_limit_mw, b), number(is->temperature_c, c), throttle);
    printf("           ECC %s, MIG %s, NUMA node %s\n", on_off(is->ecc), on_off(is->mig),
           number(gpu->numa_node, a));
}

static const char *yes_no(int value)
{
    return value == 1 ? "yes" : value == 0 ? "no" : "?";
}

static void print_gpus(const struct qd_doctor *doctor)
{
    for (int i = 0; i < doctor->n_gpus; i++) print_gpu(i, &doctor->gpus[i]);
    for (int i = 0; i < doctor->n_gpus; i++)
        for (int j = i + 1; j < doctor->n_gpus; j++) {
            const struct qd_nvml_link *link = &doctor->links[i * doctor->n_gpus + j];
            char links[24];
            printf("peers      %d and %d: %s; NVLink %s (%s direct links), reads %s, writes %s\n", i, j,
                   link->path, yes_no(link->nvlink), number(link->n_nvlinks, links), yes_no(link->can_read),
                   yes_no(link->can_write));
        }
}

static void print_tests(const struct qd_doctor *doctor)
{
    if (!doctor->is_tested) return;
    printf("\nself-test of every kernel on %s (random data, poisoned outputs, each case repeated)\n",
           doctor->device);
    printf("  %-18s %6s %7s %8s  %s\n", "op", "cases", "passed", "refused", "worst error / tolerance");
    for (int op = 0; op < QD_N_OPS; op++) {
        const struct qd_doctor_test *test = &doctor->tests[op];
        if (test->n_cases == 0) continue;
        printf("  %-18s %6d %7d %8d  %.3f%s%s\n", qd_op_name((enum qd_op)op), test->n_cases, test->n_passed,
               test->n_refused, test->worst, test->failure[0] != '\0' ? "  " : "", test->failure);
    }
    if (doctor->test_reason[0] != '\0') printf("  ended early: %s\n", doctor->test_reason);
    printf("\n");
}

void qd_doctor_print(const struct qd_doctor *doctor, const struct qd_options *options)
{
    print_machine(doctor, options);
    print_devices(doctor);
    print_driver(doctor);
    print_libraries(doctor);
    print_gpus(doctor);
    print_tests(doctor);
}

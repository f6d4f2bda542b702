#include "harness/cli/doctor_facts.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SELF_TEST_REPEATS = 2, MAX_TEST_RANKS = 4, HOST_TEST_RANKS = 2 };

/* ---- libraries ---- */

/* What each says of its own version; the number means something else in each. */
struct version_functions {
    int (*driver)(int *);
    int (*nccl)(int *);
    size_t (*cublaslt)(void);
};

static const struct qd_library_symbol driver_version[] = {
    QD_LIBRARY_SYMBOL(struct version_functions, driver, cuDriverGetVersion)};
static const struct qd_library_symbol nccl_version[] = {
    QD_LIBRARY_SYMBOL(struct version_functions, nccl, ncclGetVersion)};
static const struct qd_library_symbol cublaslt_version[] = {
    QD_LIBRARY_SYMBOL(struct version_functions, cublaslt, cublasLtGetVersion)};

static const struct qd_library_symbol *const version_symbols[QD_N_LIBRARIES] = {
    [QD_LIBRARY_CUDA] = driver_version,
    [QD_LIBRARY_NCCL] = nccl_version,
    [QD_LIBRARY_CUBLASLT] = cublaslt_version,
};

void qd_doctor_cuda_text(int cuda, char *out, size_t len)
{
    snprintf(out, len, "%d.%d", cuda / 1000, cuda % 1000 / 10);
}

/* major * 10000 + minor * 100 + patch */
static void decimal_version(int version, char *out, size_t len)
{
    snprintf(out, len, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

static void read_version(enum qd_library_which which, const struct version_functions *call,
                         struct qd_doctor *doctor)
{
    struct qd_doctor_library *library = &doctor->libraries[which];
    int version = 0;
    if (which == QD_LIBRARY_CUDA && call->driver(&version) == 0) {
        doctor->driver_cuda = version;
        char text[16];
        qd_doctor_cuda_text(version, text, sizeof text);
        snprintf(library->version, sizeof library->version, "CUDA %s", text);
    } else if (which == QD_LIBRARY_NCCL && call->nccl(&version) == 0) {
        decimal_version(version, library->version, sizeof library->version);
    } else if (which == QD_LIBRARY_CUBLASLT) {
        decimal_version((int)call->cublaslt(), library->version, sizeof library->version);
    }
}

static void look_for_libraries(struct qd_doctor *doctor)
{
    for (int i = 0; i < QD_N_LIBRARIES; i++) {
        struct qd_doctor_library *library = &doctor->libraries[i];
        struct version_functions call = {0};
        library->status =
            qd_library_open(&qd_libraries[i], version_symbols[i], version_symbols[i] != NULL, &call,
                            library->path, sizeof library->path, library->reason, sizeof library->reason);
        if (library->status == QD_OK) read_version((enum qd_library_which)i, &call, doctor);
    }
}

/* ---- GPUs ---- */

static void look_at_gpu(qd_nvml_t *nvml, int index, struct qd_doctor_gpu *gpu)
{
    struct qd_nvml_process processes[QD_NVML_MAX_PROCESSES];
    struct qd_nvml_affinity affinity;
    char err[QD_ERR_LEN];
    gpu->n_processes = gpu->numa_node = QD_NVML_UNKNOWN;
    if (qd_nvml_gpu(nvml, index, &gpu->is, gpu->reason, sizeof gpu->reason) != QD_OK) return;
    int n;
    bool has_own;
    if (qd_nvml_processes(nvml, index, processes, &n, &has_own, err, sizeof err) == QD_OK)
        gpu->n_processes = n;
    if (qd_nvml_affinity(nvml, index, &affinity, err, sizeof err) == QD_OK)
        gpu->numa_node = affinity.numa_node;
}

static qd_status look_through_nvml(qd_nvml_t *nvml, struct qd_doctor *doctor, char *err, size_t errlen)
{
    struct qd_nvml_system system;
    char *reason = doctor->libraries[QD_LIBRARY_NVML].reason;
    if (qd_nvml_system(nvml, &system, reason, QD_DOCTOR_TEXT) != QD_OK) return QD_OK;
    snprintf(doctor->driver, sizeof doctor->driver, "%s", system.driver);
    if (doctor->driver_cuda == 0) doctor->driver_cuda = system.cuda_driver;
    const size_t n = (size_t)system.n_gpus;
    doctor->gpus = calloc(n + 1, sizeof *doctor->gpus);
    doctor->links = calloc(n * n + 1, sizeof *doctor->links);
    if (doctor->gpus == NULL || doctor->links == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu GPUs", n);
    doctor->n_gpus = system.n_gpus;
    char unused[QD_ERR_LEN];
    for (int i = 0; i < doctor->n_gpus; i++) {
        look_at_gpu(nvml, i, &doctor->gpus[i]);
        for (int j = i + 1; j < doctor->n_gpus; j++) {
            struct qd_nvml_link *link = &doctor->links[i * doctor->n_gpus + j];
            if (qd_nvml_link(nvml, i, j, link, unused, sizeof unused) != QD_OK)
                *link = (struct qd_nvml_link){"unknown", QD_NVML_UNKNOWN, QD_NVML_UNKNOWN, QD_NVML_UNKNOWN,
                                              QD_NVML_UNKNOWN};
        }
    }
    return QD_OK;
}

/* Before anything of CUDA starts: from then on this process is one of those on a GPU. */
static qd_status look_at_gpus(struct qd_doctor *doctor, char *err, size_t errlen)
{
    struct qd_doctor_library *library = &doctor->libraries[QD_LIBRARY_NVML];
    qd_nvml_t *nvml;
    if (library->status != QD_OK || qd_nvml_open(&nvml, library->reason, sizeof library->reason) != QD_OK)
        return QD_OK;
    qd_status status = look_through_nvml(nvml, doctor, err, errlen);
    qd_nvml_close(nvml);
    return status;
}

static void look_at_cuda(struct qd_doctor *doctor)
{
    if (qd_device_get("cuda", &doctor->cuda, doctor->cuda_reason, sizeof doctor->cuda_reason) != QD_OK) {
        doctor->cuda = NULL;
        return;
    }
    const struct qd_device_config one_rank = {.n_ranks = 1};
    if (doctor->cuda->memory(&one_rank, &doctor->cuda_memory, doctor->gpus_reason,
                             sizeof doctor->gpus_reason) != QD_OK)
        doctor->cuda_memory = (struct qd_device_memory){0};
}

/* ---- the machine ---- */

static void look_at_machine(const struct qd_options *options, struct qd_doctor *doctor)
{
    struct rlimit limit;
    glob_t nodes;
    qd_machine_read(&doctor->machine);
    doctor->memory = qd_memory_available((size_t)options->memory_limit);
    doctor->memlock_bytes = -1;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        doctor->memlock_bytes = (int64_t)limit.rlim_cur;
    if (glob("/sys/devices/system/node/node[0-9]*", 0, NULL, &nodes) == 0)
        doctor->n_numa_nodes = (int)nodes.gl_pathc;
    globfree(&nodes);
}

/* ---- the self-test ---- */

static void note_test(void *user, const struct qd_op_case *c, const struct qd_op_result *result)
{
    struct qd_doctor *doctor = user;
    struct qd_doctor_test *test = &doctor->tests[c->op];
    test->n_cases++;
    if (result->outcome == QD_OP_PASSED) {
        test->n_passed++;
        if (!(result->error.worst <= test->worst)) test->worst = result->error.worst;
    } else if (result->outcome == QD_OP_REFUSED) {
        test->n_refused++;
    } else if (test->failure[0] == '\0') {
        char what[128];
        qd_op_describe(c, what, sizeof what);
        snprintf(test->failure, sizeof test->failure, "%s, %s, TP %d, %s: %.300s",
                 qd_op_outcome_name(result->outcome), what, c->tp,
                 c->numerics == QD_NUMERICS_HF ? "hf" : "fused", result->text);
    }
}

static void test_kernels(const struct qd_options *options, struct qd_doctor *doctor)
{
    struct qd_op_options op_options = {
        .cpu_isa = options->cpu_isa,
        .n_threads = (int)options->threads,
        .repeats = SELF_TEST_REPEATS,
        .seed = (uint64_t)options->seed,
    };
    bool is_cuda = strcmp(doctor->device, "cuda") == 0;
    if (is_cuda && doctor->cuda_memory.n_devices == 0) return;
    if (qd_device_get(doctor->device, &op_options.ops, doctor->test_reason, sizeof doctor->test_reason) !=
        QD_OK)
        return;
    if (!op_options.ops->executes) return;
    int max_tp = is_cuda ? doctor->cuda_memory.n_devices : HOST_TEST_RANKS;
    doctor->is_tested = true;
    /* Why it ended early, if it did, is in test_reason. */
    qd_op_verify_all(&op_options, max_tp < MAX_TEST_RANKS ? max_tp : MAX_TEST_RANKS, note_test, doctor,
                     doctor->test_reason, sizeof doctor->test_reason);
}

qd_status qd_doctor_look(const struct qd_options *options, struct qd_doctor *out, char *err, size_t errlen)
{
    *out = (struct qd_doctor){.device = options->device, .is_default = !qd_options_given(options, "device")};
    if (out->is_default && qd_device_cuda_is_built()) out->device = "cuda";
    look_at_machine(options, out);
    look_for_libraries(out);
    qd_status status = look_at_gpus(out, err, errlen);
    if (status != QD_OK) {
        qd_doctor_free(out);
        return status;
    }
    look_at_cuda(out);
    test_kernels(options, out);
    return QD_OK;
}

void qd_doctor_free(struct qd_doctor *doctor)
{
    free(doctor->gpus);
    free(doctor->links);
    doctor->gpus = NULL;
    doctor->links = NULL;
}

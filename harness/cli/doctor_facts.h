/* What `doctor` finds out before it judges: the machine, libraries, GPUs and how they reach each other, and
 * the self-test of every kernel. Only reads: no clock, power, mode or persistence setting is ever changed.
 */
#ifndef QD_HARNESS_CLI_DOCTOR_FACTS_H
#define QD_HARNESS_CLI_DOCTOR_FACTS_H

#include "harness/cli/options.h"
#include "harness/engine/memory.h"
#include "harness/ops/verify.h"
#include "harness/result/machine.h"
#include "kernels/library.h"
#include "kernels/nvml.h"

enum { QD_DOCTOR_TEXT = 512 };

struct qd_doctor_library {
    qd_status
        status; /* of opening it: QD_ERR_NOT_FOUND, QD_ERR_ENVIRONMENT when it is there and cannot be used */
    char path[QD_DOCTOR_TEXT];
    char version[64];            /* "" when it does not say */
    char reason[QD_DOCTOR_TEXT]; /* why it, or what it is for, cannot be used; "" */
};

struct qd_doctor_gpu {
    struct qd_nvml_gpu is;
    char reason[QD_DOCTOR_TEXT]; /* why it does not answer; "" */
    int n_processes;             /* of others on it; -1: not known */
    int numa_node;               /* -1: not known */
};

/* All cases of one op. */
struct qd_doctor_test {
    int n_cases, n_passed, n_refused;
    double worst;                 /* error as a share of the tolerance, over those that passed */
    char failure[QD_DOCTOR_TEXT]; /* the first case that was wrong or failed, and why; "" */
};

struct qd_doctor {
    const char *device; /* the one that is judged */
    bool is_default;    /* nobody asked for it */
    struct qd_machine machine;
    struct qd_memory_limit memory;
    int64_t memlock_bytes; /* most that this process may lock; -1: no limit */
    int n_numa_nodes;      /* 0: not known */

    const struct qd_device_ops *cuda; /* NULL: cuda_reason */
    char cuda_reason[QD_DOCTOR_TEXT];
    struct qd_device_memory cuda_memory; /* of GPU 0; n_devices 0: gpus_reason */
    char gpus_reason[QD_DOCTOR_TEXT];
    char driver[QD_NVML_TEXT]; /* "580.65.06"; "" where it is not known */
    int driver_cuda;           /* 13000: the newest CUDA that it runs; 0: not known */
    struct qd_doctor_library libraries[QD_N_LIBRARIES];

    int n_gpus; /* of the machine, as NVML tells */
    struct qd_doctor_gpu *gpus;
    struct qd_nvml_link *links; /* [n_gpus][n_gpus]; those of i < j are filled in */

    bool is_tested;
    struct qd_doctor_test tests[QD_N_OPS];
    char test_reason[QD_DOCTOR_TEXT]; /* why the self-test ended early or did not start; "" */
};

/* `options` outlives it. The self-test runs on the device that is judged, where that one executes; it takes
 * seconds. QD_ERR_NO_MEMORY; whatever is missing is a fact, not an error. */
qd_status qd_doctor_look(const struct qd_options *options, struct qd_doctor *out, char *err, size_t errlen);
void qd_doctor_free(struct qd_doctor *doctor);

/* The first thing to fix before the device that is judged can be used: why[why_len]. True when there is none.
 */
bool qd_doctor_judge(const struct qd_doctor *doctor, char *why, size_t why_len);

/* The oldest driver that runs programs built with that CUDA (13000): "580.65.06"; NULL where it is not known.
 */
const char *qd_doctor_driver_for(int cuda);

/* "13.0" of 13000. */
void qd_doctor_cuda_text(int cuda, char *out, size_t len);

#endif

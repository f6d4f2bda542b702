/* What to fix first, if anything. */
#include <stdio.h>
#include <string.h>

#include "harness/cli/doctor_facts.h"

enum { MIN_COMPUTE_MAJOR = 8, LAST_MAJOR_WITH_CODE = 9 };

const char *qd_doctor_driver_for(int cuda)
{
    /* NVIDIA's "CUDA Toolkit Release Notes", minor version compatibility: one driver for all of a major
     * version. */
    switch (cuda / 1000) {
    case 11: return "450.80.02";
    case 12: return "525.60.13";
    case 13: return "580.65.06";
    default: return NULL;
    }
}

/* "driver 580.65.06 or newer" */
static void driver_needed(const struct qd_doctor *doctor, char *out, size_t len)
{
    char cuda[16];
    int built = doctor->cuda->build->cuda;
    const char *driver = qd_doctor_driver_for(built);
    qd_doctor_cuda_text(built, cuda, sizeof cuda);
    if (driver != NULL)
        snprintf(out, len, "driver %s or newer", driver);
    else
        snprintf(out, len, "a driver for CUDA %s", cuda);
}

static bool judge_driver(const struct qd_doctor *doctor, char *why, size_t why_len)
{
    const struct qd_doctor_library *driver = &doctor->libraries[QD_LIBRARY_CUDA];
    char needed[64], built[16], found[16];
    driver_needed(doctor, needed, sizeof needed);
    if (driver->status != QD_OK) {
        bool is_there = driver->status != QD_ERR_NOT_FOUND;
        snprintf(why, why_len,
                 "no NVIDIA driver%s%.300s: install %s (in a container: start it with the host's GPUs)",
                 is_there ? " that works: " : "", is_there ? driver->reason : "", needed);
        return false;
    }
    if (doctor->driver_cuda == 0 || doctor->driver_cuda / 1000 >= doctor->cuda->build->cuda / 1000)
        return true;
    qd_doctor_cuda_text(doctor->cuda->build->cuda, built, sizeof built);
    qd_doctor_cuda_text(doctor->driver_cuda, found, sizeof found);
    snprintf(why, why_len,
             "the NVIDIA driver is too old: it runs CUDA %s, this build is of CUDA %s: install %s, or build "
             "with the "
             "older toolkit (make portable CUDA_HOME=DIR)",
             found, built, needed);
    return false;
}

/* Those that ranks would be dealt over: all of them, or CUDA has been told to leave some out. */
static bool judge_gpus(const struct qd_doctor *doctor, char *why, size_t why_len)
{
    for (int i = 0; i < doctor->n_gpus; i++) {
        const struct qd_doctor_gpu *gpu = &doctor->gpus[i];
        const int major = gpu->is.compute_major;
        if (gpu->reason[0] != '\0') {
            snprintf(why, why_len, "GPU %d does not answer: %.300s", i, gpu->reason);
            return false;
        }
        if (major > 0 && major < MIN_COMPUTE_MAJOR) {
            snprintf(why, why_len, "GPU %d, %s, has compute capability %d.%d: %d.0 is the least", i,
                     gpu->is.name, major, gpu->is.compute_minor, MIN_COMPUTE_MAJOR);
            return false;
        }
        /* Code for these comes from PTX, which only a driver as new as the toolkit translates. */
        if (major > LAST_MAJOR_WITH_CODE && doctor->driver_cuda != 0 &&
            doctor->driver_cuda < doctor->cuda->build->cuda) {
            char built[16];
            qd_doctor_cuda_text(doctor->cuda->build->cuda, built, sizeof built);
            snprintf(why, why_len,
                     "GPU %d, %s, is newer than this build's code: install a driver for CUDA %s or newer", i,
                     gpu->is.name, built);
            return false;
        }
    }
    return true;
}

static bool judge_cuda(const struct qd_doctor *doctor, char *why, size_t why_len)
{
    if (doctor->cuda == NULL) {
        snprintf(why, why_len, "%s", doctor->cuda_reason);
        return false;
    }
    if (!judge_driver(doctor, why, why_len)) return false;
    if (doctor->cuda_memory.n_devices == 0) {
        snprintf(why, why_len, "%s", doctor->gpus_reason);
        return false;
    }
    return doctor->n_gpus != doctor->cuda_memory.n_devices || judge_gpus(doctor, why, why_len);
}

bool qd_doctor_judge(const struct qd_doctor *doctor, char *why, size_t why_len)
{
    if (strcmp(doctor->device, "cuda") == 0 && !judge_cuda(doctor, why, why_len)) return false;
    for (int op = 0; op < QD_N_OPS; op++) {
        if (doctor->tests[op].failure[0] == '\0') continue;
        snprintf(why, why_len, "the kernel %s computes on %s what it should not: %s",
                 qd_op_name((enum qd_op)op), doctor->device, doctor->tests[op].failure);
        return false;
    }
    if (doctor->test_reason[0] == '\0') return true;
    snprintf(why, why_len, "the self-test did not end: %s", doctor->test_reason);
    return false;
}

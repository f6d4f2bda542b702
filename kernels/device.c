#include "kernels/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cpu/host/device.h"
#include "kernels/cuda/device.h"
#include "kernels/null/device.h"

#define CUDA_LIBRARY "libqdyno_cuda.so"
#define CUDA_SYMBOL  "qd_cuda_device_ops"

static const struct qd_device_ops *const devices[] = {&qd_cpu_ops, &qd_emu_ops, &qd_null_ops, NULL};

const struct qd_device_ops *qd_device_find(const char *name)
{
    for (int i = 0; devices[i] != NULL; i++)
        if (strcmp(devices[i]->name, name) == 0) return devices[i];
    return NULL;
}

const struct qd_device_ops *const *qd_device_list(void)
{
    return devices;
}

/* The path of a file beside the running binary. */
static qd_status beside_binary(const char *file, char *out, size_t len, char *err, size_t errlen)
{
    char binary[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", binary, sizeof binary - 1);
    if (n < 0) return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot tell where this binary lies");
    binary[n] = '\0';
    char *slash = strrchr(binary, '/');
    if (slash != NULL) *slash = '\0';
    if (snprintf(out, len, "%s/%s", binary, file) >= (int)len)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "the path of this binary is too long");
    return QD_OK;
}

bool qd_device_cuda_is_built(void)
{
    char path[PATH_MAX], err[QD_ERR_LEN];
    return beside_binary(CUDA_LIBRARY, path, sizeof path, err, sizeof err) == QD_OK &&
           access(path, F_OK) == 0;
}

/* The object stays open: its table is in use until the process ends, and opening it again finds it. */
static qd_status open_cuda(const struct qd_device_ops **out, char *err, size_t errlen)
{
    char path[PATH_MAX];
    QD_TRY(beside_binary(CUDA_LIBRARY, path, sizeof path, err, errlen));
    if (access(path, F_OK) != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "the device cuda is not built: no %s (make cuda)",
                       path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s", dlerror());
    const struct qd_device_ops *(*table)(void);
    void *symbol = dlsym(library, CUDA_SYMBOL);
    if (symbol == NULL) return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s: no %s", path, CUDA_SYMBOL);
    memcpy(&table, &symbol, sizeof table);
    const struct qd_device_ops *ops = table();
    if (ops->abi_version != QD_DEVICE_ABI_VERSION)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen,
                       "%s has version %u of the device table, this binary %d: build both again", path,
                       ops->abi_version, QD_DEVICE_ABI_VERSION);
    *out = ops;
    return QD_OK;
}

qd_status qd_device_get(const char *name, const struct qd_device_ops **out, char *err, size_t errlen)
{
    *out = qd_device_find(name);
    if (*out != NULL) return QD_OK;
    if (strcmp(name, "cuda") == 0) return open_cuda(out, err, errlen);
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "this build has no device \"%s\"", name);
}

const char *qd_segment_name(enum qd_segment segment)
{
    switch (segment) {
    case QD_SEGMENT_LINEAR: return "linear";
    case QD_SEGMENT_ATTENTION: return "attention";
    case QD_SEGMENT_NORM_ROPE: return "norm_rope";
    case QD_SEGMENT_SAMPLING: return "sampling";
    case QD_SEGMENT_COLLECTIVE: return "collective";
    case QD_SEGMENT_GAP: return "gap";
    case QD_N_SEGMENTS: break;
    }
    return "?";
}

struct qd_device_stats qd_device_stats_since(const struct qd_device_stats *now,
                                             const struct qd_device_stats *then)
{
    struct qd_device_stats since = *now;
    since.n_eager_steps -= then->n_eager_steps;
    since.n_replayed_steps -= then->n_replayed_steps;
    since.n_eager_tokens -= then->n_eager_tokens;
    since.n_replayed_tokens -= then->n_replayed_tokens;
    since.n_padded_tokens -= then->n_padded_tokens;
    since.n_timed_steps -= then->n_timed_steps;
    since.span_ns -= then->span_ns;
    since.timed_span_ns -= then->timed_span_ns;
    for (int i = 0; i < QD_N_SEGMENTS; i++) since.segment_ns[i] -= then->segment_ns[i];
    return since;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void qd_device_stats_add(struct qd_device_stats *sum, const struct qd_device_stats *other)
{
    sum->n_graphs += other->n_graphs;
    sum->capture_ns = larger(sum->capture_ns, other->capture_ns);
    sum->graph_bytes += other->graph_bytes;
    if (sum->timing_cost.n_steps == 0) sum->timing_cost = other->timing_cost;
    sum->n_eager_steps += other->n_eager_steps;
    sum->n_replayed_steps += other->n_replayed_steps;
    sum->n_eager_tokens += other->n_eager_tokens;
    sum->n_replayed_tokens += other->n_replayed_tokens;
    sum->n_padded_tokens += other->n_padded_tokens;
    sum->n_timed_steps += other->n_timed_steps;
    sum->span_ns += other->span_ns;
    sum->last_span_ns = larger(sum->last_span_ns, other->last_span_ns);
    sum->timed_span_ns += other->timed_span_ns;
    for (int i = 0; i < QD_N_SEGMENTS; i++) sum->segment_ns[i] += other->segment_ns[i];
}

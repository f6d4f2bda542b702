/* What the ops of steps take alone: the rows of `qdyno kernels --format json`, read back, checked against a
 * run, and asked for every step of it. Between measured neighbours a time is interpolated in tokens and in
 * context; outside of what was measured it is not known.
 */
#ifndef QD_HARNESS_OPS_ALONE_H
#define QD_HARNESS_OPS_ALONE_H

#include "harness/engine/step_row.h"
#include "harness/ops/case.h"
#include "harness/result/ledger.h"
#include "models/shard.h"

/* Whose steps they are. Borrowed. */
struct qd_alone_run {
    const struct qd_device_ops *ops;
    const struct qd_model_config *config;
    enum qd_numerics numerics;
    int tp;
    const char *isa;        /* of the cpu device; NULL elsewhere */
    int n_threads_per_rank; /* of the cpu device; 0 elsewhere */
};

struct qd_alone_point {
    int32_t rows, context; /* rows: sequences of a decode, tokens of a chunk, else of the op's output */
    double us;
};

/* Zero-initialise. */
struct qd_alone {
    struct {
        struct qd_alone_point *points; /* [n] by rows, then by context */
        size_t n;
    } of[QD_N_OPS];
    struct qd_model_config config;
    struct qd_shard shard;
    struct qd_ledger_alone sums; /* of the rows that qd_alone_take was given */
};

/* The GPU of the first rank as its driver names it, or "" where the device has no memory of its own. */
void qd_alone_gpu_name(const struct qd_device_ops *ops, char *out, size_t len);

/* Reads `path`, which stays borrowed. QD_ERR_INPUT names file, field and reason: another schema, device,
 * instruction set, machine, GPU, number of threads or numerics, dimensions of another model, a row that was
 * wrong or has no time, an op of the forward pass without a row at this TP. Also the errors of
 * qd_json_read_file and QD_ERR_NO_MEMORY. */
qd_status qd_alone_read(const char *path, const struct qd_alone_run *run, struct qd_alone *out, char *err,
                        size_t errlen);
void qd_alone_free(struct qd_alone *alone);

/* Microseconds of one call on `rows` rows, and for attention behind `context` keys. False where it is not
 * known; `why` then names the op and what is outside. */
bool qd_alone_us(const struct qd_alone *alone, enum qd_op op, double rows, double context, double *us,
                 char *why, size_t why_len);

/* Adds the ops of one step to the sums: a sink (step_log.h). Its decodes are one call at their mean context,
 * its other chunks as many calls as there are, each at their mean length and context. */
void qd_alone_take(void *alone, const struct qd_step_row *row);

#endif

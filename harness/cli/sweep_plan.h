/* The cells of a sweep: the Cartesian product of the options that were given as lists. */
#ifndef QD_HARNESS_CLI_SWEEP_PLAN_H
#define QD_HARNESS_CLI_SWEEP_PLAN_H

#include "harness/cli/options.h"
#include "harness/result/range.h"

enum { QD_SWEEP_MAX_AXES = 16, QD_SWEEP_MAX_CELLS = 10000 };

struct qd_sweep_axis {
    const char *name;  /* long name of the option */
    const char *label; /* short name, for folders and tables: "tp" */
    struct qd_range range;
};

struct qd_sweep_plan {
    size_t n_axes, n_cells;
    struct qd_sweep_axis axes[QD_SWEEP_MAX_AXES]; /* in the order given; the last varies fastest */
    const struct qd_options *options;             /* as parsed; borrowed */
};

/* QD_ERR_INPUT: more than QD_SWEEP_MAX_CELLS cells. */
qd_status qd_sweep_plan_make(const struct qd_options *options, struct qd_sweep_plan *out, char *err,
                             size_t errlen);
void qd_sweep_plan_free(struct qd_sweep_plan *plan);

/* The value of an axis in a cell. */
const char *qd_sweep_plan_value(const struct qd_sweep_plan *plan, size_t cell, size_t axis);

/* A report's matrix is TP x DP x budget. What the other axes make of it are groups, each with a folder of its own
 * that reports and summaries read: "random-input-len=64", or "" without such axes. */
void qd_sweep_plan_group(const struct qd_sweep_plan *plan, size_t cell, char *name, size_t len);

/* True for one cell of every group. */
bool qd_sweep_plan_begins_group(const struct qd_sweep_plan *plan, size_t cell);

/* The folder of a cell: "tp=1-dp=2-budget=64" ("all" without these axes), in its group's folder. */
void qd_sweep_plan_name(const struct qd_sweep_plan *plan, size_t cell, char *name, size_t len);

/* The words of `qdyno run` for a cell: argv[0] "qdyno", "run", then options; NULL-terminated. `extra` words
 * (NULL-terminated) are added at the end. One allocation, freed by the caller with free(). */
char **qd_sweep_plan_argv(const struct qd_sweep_plan *plan, size_t cell, const char *const *extra);

#endif

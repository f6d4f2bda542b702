/* The cells of a sweep: the Cartesian product of the options that were given as lists, less what --max-gpus
 * leaves out. */
#ifndef QD_HARNESS_CLI_SWEEP_PLAN_H
#define QD_HARNESS_CLI_SWEEP_PLAN_H

#include "harness/cli/options.h"
#include "harness/result/variant.h"

enum { QD_SWEEP_MAX_AXES = QD_MAX_AXES, QD_SWEEP_MAX_CELLS = QD_MAX_VARIANTS };

struct qd_sweep_axis {
    const char *name;  /* long name of the option */
    const char *label; /* short name, for folders and tables: "tp" */
    struct qd_range range;
};

struct qd_sweep_plan {
    size_t n_axes, n_cells;
    struct qd_sweep_axis axes[QD_SWEEP_MAX_AXES]; /* in the order given; the last varies fastest */
    size_t *product;                              /* [n_cells] each cell's place in the whole product */
    const struct qd_options *options;             /* as parsed; borrowed */
};

/* QD_ERR_INPUT: more than QD_SWEEP_MAX_CELLS cells, or none; folder names longer than file systems take.
 * QD_ERR_NO_MEMORY. */
qd_status qd_sweep_plan_make(const struct qd_options *options, struct qd_sweep_plan *out, char *err,
                             size_t errlen);
void qd_sweep_plan_free(struct qd_sweep_plan *plan);

/* The value of an axis in a cell. */
const char *qd_sweep_plan_value(const struct qd_sweep_plan *plan, size_t cell, size_t axis);

/* The folder name of a cell: "tp=1-dp=2-budget=64", or "all" without axes. */
void qd_sweep_plan_name(const struct qd_sweep_plan *plan, size_t cell, char *name, size_t len);

/* The further axes: all but TP, DP and the budget. They borrow the plan's ranges. */
void qd_sweep_plan_further_axes(const struct qd_sweep_plan *plan, struct qd_axes *out);

/* The variant of a cell: its folder name without TP, DP and the budget, or "". */
void qd_sweep_plan_variant(const struct qd_sweep_plan *plan, size_t cell, char variant[QD_VARIANT_LEN]);

/* The words of `qdyno run` for a cell: argv[0] "qdyno", "run", then options; NULL-terminated. `extra` words
 * (NULL-terminated) are added at the end. One allocation, freed by the caller with free(). */
char **qd_sweep_plan_argv(const struct qd_sweep_plan *plan, size_t cell, const char *const *extra);

#endif

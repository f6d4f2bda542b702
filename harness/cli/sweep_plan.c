#include "harness/cli/sweep_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

/* Cells are folders of these names. */
static qd_status check_name_len(const struct qd_sweep_plan *plan, char *err, size_t errlen)
{
    size_t len = 0;
    for (size_t i = 0; i < plan->n_axes; i++)
        len += qd_axis_part_len(plan->axes[i].label, &plan->axes[i].range);
    if (len <= QD_VARIANT_LEN) return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen, "%zu options with lists: names of cells longer than %d bytes",
                   plan->n_axes, QD_VARIANT_LEN - 1);
}

/* The value of an axis at a place in the whole product. */
static const char *product_value(const struct qd_sweep_plan *plan, size_t place, size_t axis)
{
    for (size_t i = plan->n_axes - 1; i > axis; i--) place /= plan->axes[i].range.n;
    return plan->axes[axis].range.values[place % plan->axes[axis].range.n];
}

/* TP x DP there. */
static int64_t n_gpus(const struct qd_sweep_plan *plan, size_t place)
{
    int64_t tp = plan->options->tp, dp = plan->options->dp;
    for (size_t i = 0; i < plan->n_axes; i++) {
        if (strcmp(plan->axes[i].name, "tensor-parallel-size") == 0)
            tp = strtoll(product_value(plan, place, i), NULL, 10);
        if (strcmp(plan->axes[i].name, "data-parallel-size") == 0)
            dp = strtoll(product_value(plan, place, i), NULL, 10);
    }
    return tp * dp;
}

/* The whole product has n_cells places so far. */
static qd_status keep_cells(struct qd_sweep_plan *plan, char *err, size_t errlen)
{
    const int64_t max_gpus = plan->options->max_gpus;
    const size_t n_places = plan->n_cells;
    plan->product = calloc(n_places, sizeof *plan->product);
    if (plan->product == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu cells", n_places);
    plan->n_cells = 0;
    for (size_t place = 0; place < n_places; place++)
        if (max_gpus == 0 || n_gpus(plan, place) <= max_gpus) plan->product[plan->n_cells++] = place;
    if (plan->n_cells > 0) return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen, "--max-gpus %lld leaves no cell", (long long)max_gpus);
}

qd_status qd_sweep_plan_make(const struct qd_options *options, struct qd_sweep_plan *out, char *err,
                             size_t errlen)
{
    *out = (struct qd_sweep_plan){.n_cells = 1, .options = options};
    for (int i = 0; i < options->n_given; i++) {
        const struct qd_given_option *given = &options->given[i];
        if (!given->is_list) continue;
        if (out->n_axes == QD_SWEEP_MAX_AXES) {
            qd_sweep_plan_free(out);
            return qd_fail(QD_ERR_INPUT, err, errlen, "more than %d options with lists", QD_SWEEP_MAX_AXES);
        }
        struct qd_sweep_axis *axis = &out->axes[out->n_axes];
        *axis = (struct qd_sweep_axis){.name = given->name,
                                       .label = given->alias != NULL ? given->alias : given->name};
        qd_status status = qd_range_expand(given->value, &axis->range, err, errlen);
        if (status == QD_OK) {
            out->n_axes++;
            if (!qd_size_mul(out->n_cells, axis->range.n, &out->n_cells) || out->n_cells > QD_SWEEP_MAX_CELLS)
                status = qd_fail(QD_ERR_INPUT, err, errlen, "more than %d cells", QD_SWEEP_MAX_CELLS);
        }
        if (status != QD_OK) {
            qd_sweep_plan_free(out);
            return status;
        }
    }
    qd_status status = check_name_len(out, err, errlen);
    if (status == QD_OK) status = keep_cells(out, err, errlen);
    if (status != QD_OK) qd_sweep_plan_free(out);
    return status;
}

void qd_sweep_plan_free(struct qd_sweep_plan *plan)
{
    for (size_t i = 0; i < plan->n_axes; i++) qd_range_free(&plan->axes[i].range);
    free(plan->product);
    *plan = (struct qd_sweep_plan){0};
}

const char *qd_sweep_plan_value(const struct qd_sweep_plan *plan, size_t cell, size_t axis)
{
    return product_value(plan, plan->product[cell], axis);
}

void qd_sweep_plan_name(const struct qd_sweep_plan *plan, size_t cell, char *name, size_t len)
{
    snprintf(name, len, "%s", plan->n_axes > 0 ? "" : "all");
    for (size_t i = 0; i < plan->n_axes; i++)
        qd_variant_append(name, len, plan->axes[i].label, qd_sweep_plan_value(plan, cell, i));
}

static bool is_of_matrix(const struct qd_sweep_axis *axis)
{
    return strcmp(axis->name, "tensor-parallel-size") == 0 || strcmp(axis->name, "data-parallel-size") == 0 ||
           strcmp(axis->name, "max-num-batched-tokens") == 0;
}

void qd_sweep_plan_further_axes(const struct qd_sweep_plan *plan, struct qd_axes *out)
{
    *out = (struct qd_axes){0};
    for (size_t i = 0; i < plan->n_axes; i++) {
        if (is_of_matrix(&plan->axes[i])) continue;
        struct qd_axis *axis = &out->axis[out->n++];
        snprintf(axis->option, sizeof axis->option, "%s", plan->axes[i].name);
        snprintf(axis->label, sizeof axis->label, "%s", plan->axes[i].label);
        axis->range = plan->axes[i].range;
    }
}

void qd_sweep_plan_variant(const struct qd_sweep_plan *plan, size_t cell, char variant[QD_VARIANT_LEN])
{
    variant[0] = '\0';
    for (size_t i = 0; i < plan->n_axes; i++)
        if (!is_of_matrix(&plan->axes[i]))
            qd_variant_append(variant, QD_VARIANT_LEN, plan->axes[i].label,
                              qd_sweep_plan_value(plan, cell, i));
}

char **qd_sweep_plan_argv(const struct qd_sweep_plan *plan, size_t cell, const char *const *extra)
{
    size_t n_extra = 0, n = 0, axis = 0;
    while (extra[n_extra] != NULL) n_extra++;
    const char **words = calloc(2 + 2 * QD_MAX_GIVEN + n_extra + 1, sizeof *words);
    if (words == NULL) return NULL;
    words[n++] = "qdyno";
    words[n++] = "run";
    for (int i = 0; i < plan->options->n_given; i++) {
        const struct qd_given_option *given = &plan->options->given[i];
        if ((given->group & (QD_GROUP_SWEEP | QD_GROUP_DRY_RUN)) != 0) continue;
        words[n++] = given->word;
        if (given->value != NULL)
            words[n++] = given->is_list ? qd_sweep_plan_value(plan, cell, axis) : given->value;
        axis += given->is_list;
    }
    memcpy(words + n, extra, n_extra * sizeof *words);
    return (char **)(uintptr_t)words;
}

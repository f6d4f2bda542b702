#include "harness/cli/sweep_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

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
    return QD_OK;
}

void qd_sweep_plan_free(struct qd_sweep_plan *plan)
{
    for (size_t i = 0; i < plan->n_axes; i++) qd_range_free(&plan->axes[i].range);
    *plan = (struct qd_sweep_plan){0};
}

static size_t axis_index(const struct qd_sweep_plan *plan, size_t cell, size_t axis)
{
    for (size_t i = plan->n_axes - 1; i > axis; i--) cell /= plan->axes[i].range.n;
    return cell % plan->axes[axis].range.n;
}

const char *qd_sweep_plan_value(const struct qd_sweep_plan *plan, size_t cell, size_t axis)
{
    return plan->axes[axis].range.values[axis_index(plan, cell, axis)];
}

static bool is_of_matrix(const struct qd_sweep_axis *axis)
{
    return strcmp(axis->name, "tensor-parallel-size") == 0 || strcmp(axis->name, "data-parallel-size") == 0 ||
           strcmp(axis->name, "max-num-batched-tokens") == 0;
}

/* Appends "a=1-b=2" over the axes of the matrix, or over the others; `name` stays as it is without any. */
static void append_axes(const struct qd_sweep_plan *plan, size_t cell, bool of_matrix, char *name, size_t len)
{
    const char *dash = "";
    for (size_t i = 0; i < plan->n_axes; i++) {
        if (is_of_matrix(&plan->axes[i]) != of_matrix) continue;
        size_t used = strlen(name);
        snprintf(name + used, len - used, "%s%s=%s", dash, plan->axes[i].label,
                 qd_sweep_plan_value(plan, cell, i));
        dash = "-";
    }
}

void qd_sweep_plan_group(const struct qd_sweep_plan *plan, size_t cell, char *name, size_t len)
{
    name[0] = '\0';
    append_axes(plan, cell, false, name, len);
}

bool qd_sweep_plan_begins_group(const struct qd_sweep_plan *plan, size_t cell)
{
    for (size_t i = 0; i < plan->n_axes; i++)
        if (is_of_matrix(&plan->axes[i]) && axis_index(plan, cell, i) != 0) return false;
    return true;
}

void qd_sweep_plan_name(const struct qd_sweep_plan *plan, size_t cell, char *name, size_t len)
{
    qd_sweep_plan_group(plan, cell, name, len);
    if (name[0] != '\0') snprintf(name + strlen(name), len - strlen(name), "/");
    size_t used = strlen(name);
    append_axes(plan, cell, true, name, len);
    if (name[used] == '\0') snprintf(name + used, len - used, "all");
}

char **qd_sweep_plan_argv(const struct qd_sweep_plan *plan, size_t cell, const char *const *extra)
{
    size_t n_extra = 0, n = 0, axis = 0;
    while (extra[n_extra] != NULL) n_extra++;
    const char **words = calloc(2 + 2 * QD_MAX_OPTIONS + n_extra + 1, sizeof *words);
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

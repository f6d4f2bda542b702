/* What the scheduler costs a step, by number of running and waiting requests. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/engine/sched_bench.h"
#include "harness/result/range.h"

enum { MAX_REQUESTS = 1 << 20 };

static const struct {
    const char *name;
    bool prefix_caching, preempt;
} modes[] = {{"plain", false, false}, {"prefix", true, false}, {"preempt", false, true}};

static qd_status expand(const char *option, const char *text, long least, struct qd_range *out, char *err,
                        size_t errlen)
{
    char reason[QD_ERR_LEN];
    qd_status status = qd_range_expand(text, out, reason, sizeof reason);
    if (status != QD_OK) return qd_fail(status, err, errlen, "--%s: %s", option, reason);
    for (size_t i = 0; i < out->n; i++) {
        char *end;
        long value = strtol(out->values[i], &end, 10);
        if (end == out->values[i] || *end != '\0' || value < least || value > MAX_REQUESTS)
            return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: \"%s\" is no number from %ld to %d", option,
                           out->values[i], least, MAX_REQUESTS);
    }
    return QD_OK;
}

static void print_row(const char *mode, const struct qd_sched_load *load, const struct qd_sched_cost *cost)
{
    printf("%-8s %8" PRId32 " %8" PRId32 " %10.2f %10.2f %8.1f %8.1f %11.3f", mode, load->n_running,
           load->n_waiting, cost->step_ns / 1e3, cost->worst_ns / 1e3, cost->row_ns, cost->rows,
           cost->preemptions);
    if (load->prefix_caching)
        printf(" %6.1f %%\n", 100 * cost->hit_share);
    else
        printf(" %8s\n", "-");
}

static qd_status measure(const struct qd_range *running, const struct qd_range *waiting, int n_steps,
                         char *err, size_t errlen)
{
    printf("mode      running  waiting    step us   worst us   row ns     rows  preempt/st     hits\n");
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
        for (size_t w = 0; w < waiting->n; w++)
            for (size_t r = 0; r < running->n; r++) {
                struct qd_sched_load load = {
                    .n_running = atoi(running->values[r]),
                    .n_waiting = atoi(waiting->values[w]),
                    .prefix_caching = modes[m].prefix_caching,
                    .preempt = modes[m].preempt,
                    .n_steps = n_steps,
                };
                struct qd_sched_cost cost;
                if (load.preempt && load.n_running < QD_SCHED_MIN_PREEMPTING) continue;
                QD_TRY(qd_sched_bench(&load, &cost, err, errlen));
                print_row(modes[m].name, &load, &cost);
            }
    return QD_OK;
}

static int run_sched(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    struct qd_range running = {0}, waiting = {0};
    qd_status status = expand("running", options->running, 1, &running, err, sizeof err);
    if (status == QD_OK) status = expand("waiting", options->waiting, 0, &waiting, err, sizeof err);
    if (status == QD_OK) status = measure(&running, &waiting, (int)options->steps, err, sizeof err);
    qd_range_free(&running);
    qd_range_free(&waiting);
    return status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
}

const struct qd_command qd_command_sched = {
    .name = "sched",
    .summary = "what the scheduler costs a step, plain, with prefix caching and with preemptions",
    .synopsis = "[OPTION...]",
    .groups = QD_GROUP_SCHED,
    .run = run_sched,
};

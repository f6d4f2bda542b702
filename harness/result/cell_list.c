#include "harness/result/cells.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness/result/result.h"
#include "kernels/base/size.h"

static const struct qd_metric_info METRICS[QD_N_METRICS] = {
    [QD_METRIC_OUTPUT_TOK_S] = {"output tok/s", "tok/s", true, "output_tok_s",
                                "qdyno/throughput/output_tok_s",
                                "output tokens of completed requests / wall time of the run"},
    [QD_METRIC_TOK_S_PER_GPU] = {"tok/s/GPU", "tok/s", true, "tok_s_per_gpu",
                                 "qdyno/throughput/tok_s_per_gpu",
                                 "output tok/s / (TP x DP); on a CPU a \"GPU\" is one rank"},
    [QD_METRIC_TOK_S_PER_USER] = {"tok/s/user", "tok/s", true, "tok_s_per_user",
                                  "qdyno/throughput/tok_s_per_user",
                                  "mean over requests of output tokens / end-to-end latency"},
    [QD_METRIC_PER_REQUEST_TOK_S] =
        {"per-request tok/s", "tok/s", true, "overall_throughput_tokens_per_sec", "qdyno/per_request_tok_s",
         "sum of output tokens / sum of request latencies: the speed one request sees, first token included"},
    [QD_METRIC_TTFT_P50] = {"TTFT p50", "ms", false, "ttft_p50_ms", "qdyno/latency_ms/ttft/p50",
                            "time from submission to the first token, median over requests"},
    [QD_METRIC_TTFT_P99] = {"TTFT p99", "ms", false, "ttft_p99_ms", "qdyno/latency_ms/ttft/p99",
                            "the same, 99th percentile"},
    [QD_METRIC_ITL_P50] = {"ITL p50", "ms", false, "inter_token_p50_ms", "qdyno/latency_ms/itl/p50",
                           "gap between consecutive tokens, median over the gaps of all requests"},
    [QD_METRIC_ITL_P99] = {"ITL p99", "ms", false, "inter_token_p99_ms", "qdyno/latency_ms/itl/p99",
                           "the same, 99th percentile"},
    [QD_METRIC_E2EL_P50] = {"E2EL p50", "ms", false, "total_latency_p50_ms", "qdyno/latency_ms/e2el/p50",
                            "time from submission to the last token, median over requests"},
    [QD_METRIC_E2EL_P99] = {"E2EL p99", "ms", false, "total_latency_p99_ms", "qdyno/latency_ms/e2el/p99",
                            "the same, 99th percentile"},
};

const struct qd_metric_info *qd_metric_info(enum qd_metric metric)
{
    return &METRICS[metric];
}

const char *qd_cell_status_name(enum qd_cell_status status)
{
    static const char *const NAMES[] = {"ok", "refused", "crashed", "timeout", "empty", "missing"};
    return NAMES[status];
}

struct qd_metric_value qd_metric_value_of(double *values, int n)
{
    struct qd_distribution d = qd_distribution_of(values, (uint64_t)n);
    return (struct qd_metric_value){
        .n = n,
        .median = d.p50,
        .mean = d.mean,
        .std = n > 1 ? d.std * sqrt((double)n / (n - 1)) : 0,
        .min = d.min,
        .max = d.max,
    };
}

struct qd_cell *qd_cell_list_add(struct qd_cell_list *list)
{
    if (list->n == list->room) {
        size_t room = list->room > 0 ? 2 * list->room : 16, bytes;
        if (!qd_size_mul(room, sizeof *list->cells, &bytes)) return NULL;
        struct qd_cell *grown = realloc(list->cells, bytes);
        if (grown == NULL) return NULL;
        list->cells = grown;
        list->room = room;
    }
    struct qd_cell *cell = &list->cells[list->n++];
    *cell = (struct qd_cell){.n_preemptions = -1};
    return cell;
}

int qd_cell_compare(const struct qd_cell *a, const struct qd_cell *b)
{
    int order = qd_variant_compare(a->variant, b->variant);
    if (order != 0) return order;
    if (a->tp != b->tp) return a->tp < b->tp ? -1 : 1;
    if (a->dp != b->dp) return a->dp < b->dp ? -1 : 1;
    return (a->budget > b->budget) - (a->budget < b->budget);
}

static int compare_cells(const void *a, const void *b)
{
    return qd_cell_compare(a, b);
}

void qd_cell_list_sort(struct qd_cell_list *list)
{
    if (list->n > 1) qsort(list->cells, list->n, sizeof *list->cells, compare_cells);
}

struct qd_cell *qd_cell_list_find(const struct qd_cell_list *list, const char *variant, int64_t tp,
                                  int64_t dp, int64_t budget)
{
    struct qd_cell key = {.tp = tp, .dp = dp, .budget = budget};
    snprintf(key.variant, sizeof key.variant, "%s", variant);
    if (list->n == 0) return NULL;
    return bsearch(&key, list->cells, list->n, sizeof *list->cells, compare_cells);
}

void qd_cell_list_free(struct qd_cell_list *list)
{
    free(list->cells);
    *list = (struct qd_cell_list){0};
}

#include "harness/result/ledger.h"

#include "harness/result/json_put.h"

static void put_waterfall(cJSON *object, const struct qd_waterfall *w, bool *ok)
{
    cJSON *o = qd_json_put_object(object, "waterfall_ns", ok);
    qd_json_put_number(o, "floor", w->floor, ok);
    qd_json_put_number(o, "inefficiency", w->inefficiency, ok);
    qd_json_put_number(o, "alone", w->alone, ok);
    qd_json_put_number(o, "in_graph", w->in_graph, ok);
    qd_json_put_number(o, "kernels", w->kernels, ok);
    qd_json_put_number(o, "gaps", w->gaps, ok);
    qd_json_put_number(o, "above_floor", w->above_floor, ok);
    qd_json_put_number(o, "span", w->span, ok);
    qd_json_put_number(o, "exposed_host", w->exposed_host, ok);
    qd_json_put_number(o, "idle", w->idle, ok);
    qd_json_put_number(o, "unexplained", w->unexplained, ok);
    qd_json_put_number(o, "wall", w->wall, ok);
}

static void put_checks(cJSON *object, const struct qd_ledger_checks *checks, bool *ok)
{
    cJSON *o = qd_json_put_object(object, "checks", ok);
    qd_json_put_number(o, "host_unexplained_share", checks->host_unexplained, ok);
    qd_json_put_number(o, "device_unexplained_share", checks->device_unexplained, ok);
    qd_json_put_number(o, "latency_unexplained_share", checks->latency_unexplained, ok);
    if (checks->n_expected_tokens >= 0)
        qd_json_put_int(o, "n_expected_tokens", checks->n_expected_tokens, ok);
    else
        qd_json_put_null(o, "n_expected_tokens", ok);
    qd_json_put_int(o, "n_computed_tokens", checks->n_computed_tokens, ok);
}

static void put_rows(cJSON *object, const struct qd_ledger_rows *rows, uint64_t n_dropped, bool *ok)
{
    if (rows == NULL) {
        qd_json_put_null(object, "rows", ok);
        return;
    }
    cJSON *o = qd_json_put_object(object, "rows", ok);
    qd_json_put_int(o, "n_rows", (int64_t)rows->n_rows, ok);
    qd_json_put_int(o, "n_dropped", (int64_t)n_dropped, ok);
    qd_json_put_int(o, "n_prefill_tokens", (int64_t)rows->n_prefill_tokens, ok);
    qd_json_put_int(o, "n_decode_tokens", (int64_t)rows->n_decode_tokens, ok);
    qd_json_put_int(o, "host_ns", rows->host_ns, ok);
    qd_json_put_int(o, "span_ns", rows->span_ns, ok);
}

static void put_alone(cJSON *object, const struct qd_ledger_alone *alone, bool *ok)
{
    if (alone == NULL) {
        qd_json_put_null(object, "alone", ok);
        return;
    }
    cJSON *o = qd_json_put_object(object, "alone", ok);
    qd_json_put_text(o, "file", alone->file, ok);
    qd_json_put_int(o, "n_rows", (int64_t)alone->n_rows, ok);
    qd_json_put_int(o, "n_unknown", (int64_t)alone->n_unknown, ok);
    qd_json_put_text(o, "reason", alone->n_unknown > 0 ? alone->reason : NULL, ok);
}

static void put_floor(cJSON *object, const struct qd_ledger_rows *rows,
                      const struct qd_replica_stats *replicas, int dp, bool *ok)
{
    if (rows == NULL || rows->limits.machine == NULL) {
        qd_json_put_null(object, "floor", ok);
        return;
    }
    cJSON *o = qd_json_put_object(object, "floor", ok);
    qd_json_put_text(o, "machine", rows->limits.machine, ok);
    qd_json_put_number(o, "memory_gbps", rows->limits.memory_gbps, ok);
    qd_json_put_number(o, "gflops", rows->limits.gflops, ok);
    qd_json_put_text(o, "bound", qd_ledger_step_bound(rows), ok);
    cJSON *segments = qd_json_put_object(o, "segments", ok);
    for (int i = 0; i < QD_N_SEGMENTS; i++) {
        enum qd_segment segment = (enum qd_segment)i;
        if (!(rows->floor_ns[i] > 0)) continue;
        cJSON *s = qd_json_put_object(segments, qd_segment_name(segment), ok);
        qd_json_put_number(s, "floor_ns", rows->floor_ns[i], ok);
        qd_json_put_text(s, "bound", qd_ledger_bound(rows, segment), ok);
        qd_json_put_number(s, "measured_ns", qd_ledger_measured_ns(replicas, dp, segment), ok);
    }
}

void qd_ledger_put(cJSON *object, const struct qd_ledger *ledger, const struct qd_replica_stats *replicas,
                   int dp, bool *ok)
{
    cJSON *o = qd_json_put_object(object, "ledger", ok);
    qd_json_put_int(o, "n_steps", (int64_t)ledger->n_steps, ok);
    put_waterfall(o, &ledger->waterfall, ok);
    put_floor(o, ledger->rows, replicas, dp, ok);
    put_alone(o, ledger->alone, ok);
    put_checks(o, &ledger->checks, ok);
    put_rows(o, ledger->rows, ledger->n_dropped, ok);
}

#include "harness/result/device_use.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result/json_put.h"

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static double explained_ns(const struct qd_device_stats *stats)
{
    double sum = 0;
    for (int i = 0; i < QD_N_SEGMENTS; i++) sum += (double)stats->segment_ns[i];
    return sum;
}

struct qd_device_use qd_device_use_of(const struct qd_replica_stats *replicas, int dp)
{
    struct qd_device_use use = {0};
    struct qd_device_stats *total = &use.total;
    for (int i = 0; i < dp; i++) qd_device_stats_add(total, &replicas[i].device);
    double replayed = (double)total->n_replayed_tokens, padded = (double)total->n_padded_tokens;
    use.hit_rate_steps =
        share((double)total->n_replayed_steps, (double)(total->n_replayed_steps + total->n_eager_steps));
    use.hit_rate_tokens = share(replayed, replayed + (double)total->n_eager_tokens);
    use.padding_share = share(padded, replayed + padded);
    double span = (double)total->timed_span_ns, missing = span - explained_ns(total);
    use.unexplained_share = share(missing < 0 ? -missing : missing, span);
    return use;
}

static void put_counts(cJSON *o, const struct qd_device_stats *s, bool *ok)
{
    qd_json_put_int(o, "n_replayed_steps", (int64_t)s->n_replayed_steps, ok);
    qd_json_put_int(o, "n_eager_steps", (int64_t)s->n_eager_steps, ok);
    qd_json_put_int(o, "n_replayed_tokens", (int64_t)s->n_replayed_tokens, ok);
    qd_json_put_int(o, "n_eager_tokens", (int64_t)s->n_eager_tokens, ok);
    qd_json_put_int(o, "n_padded_tokens", (int64_t)s->n_padded_tokens, ok);
}

static void put_timing_cost(cJSON *o, const struct qd_timing_cost *cost, bool *ok)
{
    if (cost->n_steps == 0) {
        qd_json_put_null(o, "timing_cost", ok);
        return;
    }
    cJSON *object = qd_json_put_object(o, "timing_cost", ok);
    qd_json_put_int(object, "n_steps", cost->n_steps, ok);
    qd_json_put_int(object, "n_events", cost->n_events, ok);
    qd_json_put_int(object, "span_ns_without", cost->span_ns[QD_WITHOUT_TIMING], ok);
    qd_json_put_int(object, "span_ns_with", cost->span_ns[QD_WITH_TIMING], ok);
    qd_json_put_int(object, "wall_ns_without", cost->wall_ns[QD_WITHOUT_TIMING], ok);
    qd_json_put_int(object, "wall_ns_with", cost->wall_ns[QD_WITH_TIMING], ok);
}

static double more_pct(const int64_t ns[QD_N_TIMING_KINDS])
{
    return 100 * share((double)(ns[QD_WITH_TIMING] - ns[QD_WITHOUT_TIMING]), (double)ns[QD_WITHOUT_TIMING]);
}

void qd_device_use_describe_cost(const struct qd_timing_cost *cost, const char *device, char *text,
                                 size_t len)
{
    text[0] = '\0';
    if (cost->n_steps == 0) return;
    int n = snprintf(text, len, "%d events a step", cost->n_events);
    if (n < 0 || (size_t)n >= len) return;
    text += n;
    len -= (size_t)n;
    if (strcmp(device, "emu") == 0)
        snprintf(text, len, "; what they cost a GPU is not emulated");
    else
        snprintf(text, len,
                 "; a decode of one sequence takes %.3f ms with them and %.3f without (%+.1f %%), on the "
                 "device alone %.3f and %.3f (%+.1f %%)",
                 (double)cost->wall_ns[QD_WITH_TIMING] / 1e6, (double)cost->wall_ns[QD_WITHOUT_TIMING] / 1e6,
                 more_pct(cost->wall_ns), (double)cost->span_ns[QD_WITH_TIMING] / 1e6,
                 (double)cost->span_ns[QD_WITHOUT_TIMING] / 1e6, more_pct(cost->span_ns));
}

static void put_segments(cJSON *o, const struct qd_device_stats *s, bool *ok)
{
    if (s->n_timed_steps == 0) {
        qd_json_put_null(o, "segments_ns", ok);
        return;
    }
    cJSON *segments = qd_json_put_object(o, "segments_ns", ok);
    for (int i = 0; i < QD_N_SEGMENTS; i++)
        qd_json_put_int(segments, qd_segment_name((enum qd_segment)i), s->segment_ns[i], ok);
}

void qd_device_use_put(cJSON *object, const struct qd_device_use *use, bool *ok)
{
    const struct qd_device_stats *total = &use->total;
    if (total->n_graphs == 0) {
        qd_json_put_null(object, "graphs", ok);
    } else {
        cJSON *graphs = qd_json_put_object(object, "graphs", ok);
        qd_json_put_int(graphs, "n_graphs", total->n_graphs, ok);
        qd_json_put_number(graphs, "capture_s", (double)total->capture_ns / 1e9, ok);
        qd_json_put_int(graphs, "bytes", (int64_t)total->graph_bytes, ok);
        qd_json_put_number(graphs, "hit_rate_steps", use->hit_rate_steps, ok);
        qd_json_put_number(graphs, "hit_rate_tokens", use->hit_rate_tokens, ok);
        qd_json_put_number(graphs, "padding_share", use->padding_share, ok);
        put_counts(graphs, total, ok);
    }
    if (total->span_ns == 0) {
        qd_json_put_null(object, "device_time", ok);
        return;
    }
    cJSON *time = qd_json_put_object(object, "device_time", ok);
    qd_json_put_int(time, "span_ns", total->span_ns, ok);
    qd_json_put_int(time, "n_timed_steps", (int64_t)total->n_timed_steps, ok);
    qd_json_put_int(time, "timed_span_ns", total->timed_span_ns, ok);
    put_segments(time, total, ok);
    put_timing_cost(time, &total->timing_cost, ok);
    if (total->n_timed_steps > 0)
        qd_json_put_number(time, "unexplained_share", use->unexplained_share, ok);
    else
        qd_json_put_null(time, "unexplained_share", ok);
}

void qd_device_stats_put(cJSON *object, const struct qd_device_stats *stats, bool *ok)
{
    put_counts(object, stats, ok);
    qd_json_put_int(object, "device_span_ns", stats->span_ns, ok);
}

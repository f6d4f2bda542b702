#include "harness/result/steps_file.h"

#include <inttypes.h>
#include <stdlib.h>

/* Lanes ("threads") of a replica ("process"). */
enum { HOST_LANE = 0, FIRST_RANK_LANE = 1 };

static FILE *begin_event(struct qd_trace_file *trace)
{
    fputs(trace->n_events++ > 0 ? ",\n" : "\n", trace->file.stream);
    return trace->file.stream;
}

/* Nanoseconds as the format's microseconds. */
static void print_us(FILE *out, const char *key, int64_t ns)
{
    imaxdiv_t us = imaxdiv(imaxabs(ns), 1000);
    fprintf(out, ",\"%s\":%s%" PRIdMAX ".%03" PRIdMAX, key, ns < 0 ? "-" : "", us.quot, us.rem);
}

static void print_name(struct qd_trace_file *trace, const char *what, int replica, int lane, const char *name,
                       int number)
{
    fprintf(begin_event(trace), "{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"args\":{\"name\":\"%s",
            replica, lane, what, name);
    if (number >= 0) fprintf(trace->file.stream, " %d", number);
    fprintf(trace->file.stream, "\"}}");
}

qd_status qd_trace_file_open(struct qd_trace_file *trace, const char *path, int64_t origin_ns, int dp,
                             int n_ranks, char *err, size_t errlen)
{
    *trace = (struct qd_trace_file){.origin_ns = origin_ns, .dp = dp};
    trace->rank_end_ns = calloc((size_t)dp, sizeof *trace->rank_end_ns);
    if (trace->rank_end_ns == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: no memory for its lanes", path);
    qd_status st = qd_atomic_file_open(&trace->file, path, err, errlen);
    if (st != QD_OK) {
        free(trace->rank_end_ns);
        trace->rank_end_ns = NULL;
        return st;
    }
    fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[", trace->file.stream);
    for (int replica = 0; replica < dp; replica++) {
        print_name(trace, "process_name", replica, HOST_LANE, "replica", replica);
        print_name(trace, "thread_name", replica, HOST_LANE, "host", -1);
        for (int r = 0; r < n_ranks; r++)
            print_name(trace, "thread_name", replica, FIRST_RANK_LANE + r, "rank", r);
    }
    return QD_OK;
}

/* A slice from begin_ns on; args are added by the caller. */
static FILE *begin_slice(struct qd_trace_file *trace, int replica, int lane, const char *name,
                         int64_t begin_ns, int64_t ns, uint64_t step)
{
    FILE *out = begin_event(trace);
    fprintf(out, "{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\"", replica, lane, name);
    print_us(out, "ts", begin_ns - trace->origin_ns);
    print_us(out, "dur", ns);
    fprintf(out, ",\"args\":{\"step\":%" PRIu64, step);
    return out;
}

/* The next begins where the one before ends. */
static void add_host(struct qd_trace_file *trace, const struct qd_step_row *row, const char *name,
                     int64_t *at_ns, int64_t ns)
{
    if (ns > 0) fputs("}}", begin_slice(trace, row->replica, HOST_LANE, name, *at_ns, ns, row->index));
    *at_ns += ns;
}

static void add_host_segments(struct qd_trace_file *trace, const struct qd_step_row *row)
{
    int64_t at_ns = row->begin_ns - row->idle_ns;
    add_host(trace, row, "idle", &at_ns, row->idle_ns);
    add_host(trace, row, "schedule", &at_ns, row->schedule_ns);
    add_host(trace, row, "prepare", &at_ns, row->prepare_ns);
    add_host(trace, row, "launch", &at_ns, row->launch_ns);
    at_ns = row->wait_begin_ns;
    add_host(trace, row, "wait", &at_ns, row->wait_ns);
    add_host(trace, row, "output", &at_ns, row->output_ns);
}

/* A device that is asked late seems to begin a step before it has ended another: the slice is cut. */
static void add_ranks(struct qd_trace_file *trace, const struct qd_step_row *row)
{
    for (int r = 0; r < row->n_ranks; r++) {
        struct qd_rank_span span = row->ranks[r];
        int64_t *lane_end_ns = &trace->rank_end_ns[row->replica][r];
        if (span.begin_ns < *lane_end_ns) span.begin_ns = *lane_end_ns;
        if (span.end_ns < span.begin_ns) span.end_ns = span.begin_ns;
        *lane_end_ns = span.end_ns;
        FILE *out = begin_slice(trace, row->replica, FIRST_RANK_LANE + r, "step", span.begin_ns,
                                span.end_ns - span.begin_ns, row->index);
        fprintf(out, ",\"prefill_tokens\":%d,\"decode_tokens\":%d,\"sequences\":%d", row->n_prefill_tokens,
                row->n_decode_tokens, row->n_seqs);
        for (int i = 0; r == 0 && row->is_timed && i < QD_N_SEGMENTS; i++)
            fprintf(out, ",\"%s_ns\":%" PRId64, qd_segment_name((enum qd_segment)i), row->segment_ns[i]);
        fputs("}}", out);
    }
}

static FILE *begin_counter(struct qd_trace_file *trace, const struct qd_step_row *row, const char *name)
{
    FILE *out = begin_event(trace);
    fprintf(out, "{\"ph\":\"C\",\"pid\":%d,\"name\":\"%s\"", row->replica, name);
    print_us(out, "ts", row->begin_ns - trace->origin_ns);
    return out;
}

void qd_trace_file_take(void *arg, const struct qd_step_row *row)
{
    struct qd_trace_file *trace = arg;
    add_host_segments(trace, row);
    add_ranks(trace, row);
    fprintf(begin_counter(trace, row, "requests"), ",\"args\":{\"running\":%d,\"waiting\":%d}}",
            row->n_running, row->n_waiting);
    fprintf(begin_counter(trace, row, "KV pages"), ",\"args\":{\"used\":%d}}", row->n_kv_blocks);
    fprintf(begin_counter(trace, row, "tokens per step"), ",\"args\":{\"prefill\":%d,\"decode\":%d}}",
            row->n_prefill_tokens, row->n_decode_tokens);
}

qd_status qd_trace_file_commit(struct qd_trace_file *trace, char *err, size_t errlen)
{
    fputs("\n]}\n", trace->file.stream);
    qd_status st = qd_atomic_file_commit(&trace->file, err, errlen);
    free(trace->rank_end_ns);
    trace->rank_end_ns = NULL;
    return st;
}

void qd_trace_file_discard(struct qd_trace_file *trace)
{
    free(trace->rank_end_ns);
    trace->rank_end_ns = NULL;
    qd_atomic_file_discard(&trace->file);
}

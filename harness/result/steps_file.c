#include "harness/result/steps_file.h"

#include <inttypes.h>

qd_status qd_steps_file_open(struct qd_steps_file *steps, const char *path, int64_t origin_ns,
                             int64_t virtual_origin_ns, char *err, size_t errlen)
{
    steps->origin_ns = origin_ns;
    steps->virtual_origin_ns = virtual_origin_ns;
    return qd_atomic_file_open(&steps->file, path, err, errlen);
}

static void print_host(FILE *out, const struct qd_step_row *row, int64_t origin_ns)
{
    fprintf(out,
            ",\"idle_ns\":%" PRId64 ",\"spare_ns\":%" PRId64 ",\"begin_ns\":%" PRId64
            ",\"schedule_ns\":%" PRId64 ",\"prepare_ns\":%" PRId64 ",\"launch_ns\":%" PRId64
            ",\"wait_begin_ns\":%" PRId64 ",\"wait_ns\":%" PRId64 ",\"output_ns\":%" PRId64,
            row->idle_ns, row->spare_ns, row->begin_ns - origin_ns, row->schedule_ns, row->prepare_ns,
            row->launch_ns, row->wait_begin_ns - origin_ns, row->wait_ns, row->output_ns);
}

static void print_device(FILE *out, const struct qd_step_row *row, int64_t origin_ns)
{
    if (row->n_ranks == 0) {
        fprintf(out, ",\"span_ns\":null,\"ranks\":null,\"segments_ns\":null");
        return;
    }
    fprintf(out, ",\"span_ns\":%" PRId64 ",\"ranks\":[", qd_step_row_span_ns(row));
    for (int r = 0; r < row->n_ranks; r++)
        fprintf(out, "%s[%" PRId64 ",%" PRId64 "]", r > 0 ? "," : "", row->ranks[r].begin_ns - origin_ns,
                row->ranks[r].end_ns - origin_ns);
    if (!row->is_timed) {
        fprintf(out, "],\"segments_ns\":null");
        return;
    }
    fprintf(out, "],\"segments_ns\":{");
    for (int i = 0; i < QD_N_SEGMENTS; i++)
        fprintf(out, "%s\"%s\":%" PRId64, i > 0 ? "," : "", qd_segment_name((enum qd_segment)i),
                row->segment_ns[i]);
    fprintf(out, "}");
}

static void print_virtual(FILE *out, const struct qd_step_row *row, int64_t origin_ns)
{
    if (origin_ns == 0)
        fputs(",\"virtual_begin_ns\":null,\"virtual_end_ns\":null", out);
    else
        fprintf(out, ",\"virtual_begin_ns\":%" PRId64 ",\"virtual_end_ns\":%" PRId64,
                row->virtual_begin_ns - origin_ns, row->virtual_end_ns - origin_ns);
}

void qd_steps_file_take(void *arg, const struct qd_step_row *row)
{
    struct qd_steps_file *steps = arg;
    FILE *out = steps->file.stream;
    fprintf(out, "{\"replica\":%d,\"index\":%" PRIu64, row->replica, row->index);
    print_host(out, row, steps->origin_ns);
    print_virtual(out, row, steps->virtual_origin_ns);
    print_device(out, row, steps->origin_ns);
    fprintf(out,
            ",\"n_prefill_tokens\":%d,\"n_decode_tokens\":%d,\"n_recomputed_tokens\":%d,\"n_seqs\":%d,\"n_"
            "logit_rows\":%d"
            ",\"n_prefill_seqs\":%d,\"n_running\":%d,\"n_waiting\":%d,\"n_kv_blocks\":%d,\"n_admitted\":%d"
            ",\"n_preempted\":%d,\"n_hit_tokens\":%d,\"n_visible\":%" PRId64 ",\"n_kv\":%" PRId64 "}\n",
            row->n_prefill_tokens, row->n_decode_tokens, row->n_recomputed_tokens, row->n_seqs,
            row->n_logit_rows, row->n_prefill_seqs, row->n_running, row->n_waiting, row->n_kv_blocks,
            row->n_admitted, row->n_preempted, row->n_hit_tokens, row->n_visible, row->n_kv);
}

qd_status qd_steps_file_commit(struct qd_steps_file *steps, char *err, size_t errlen)
{
    return qd_atomic_file_commit(&steps->file, err, errlen);
}

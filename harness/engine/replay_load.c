#include "harness/engine/replay.h"

#include <stdlib.h>

static qd_status count_steps(struct qd_step_file *file, struct qd_replay *replay, uint64_t *n_all, char *err,
                             size_t errlen)
{
    struct qd_recorded_step step;
    uint64_t n_measured = 0;
    *n_all = 0;
    for (;;) {
        QD_TRY(qd_step_file_next(file, &step, err, errlen));
        if (step.step == NULL) break;
        struct qd_replay_replica *replica = &replay->replicas[step.replica];
        if (!step.is_measured && replica->n_steps > replica->n_warmup_steps)
            return qd_fail(QD_ERR_INPUT, err, errlen,
                           "%s: record %llu: flags: a warm-up behind measured steps", file->path,
                           (unsigned long long)*n_all);
        replica->n_warmup_steps += !step.is_measured;
        replica->n_steps++;
        n_measured += step.is_measured;
        (*n_all)++;
    }
    qd_step_file_rewind(file);
    return n_measured > 0 ? QD_OK
                          : qd_fail(QD_ERR_INPUT, err, errlen, "%s: no step was measured", file->path);
}

static struct qd_step_row row_of(const struct qd_recorded_step *recorded, uint64_t index)
{
    const struct qd_step *step = recorded->step;
    const int32_t *begin = qd_step_cu_seqlens_q(step), *kv_len = qd_step_kv_len(step);
    struct qd_step_row row = {.replica = recorded->replica,
                              .index = index,
                              .n_seqs = step->n_seqs,
                              .n_logit_rows = step->n_logit_rows,
                              .n_running = step->n_seqs,
                              .n_kv_blocks = qd_step_block_offset(step)[step->n_seqs]};
    for (int32_t s = 0; s < step->n_seqs; s++) {
        int32_t n = begin[s + 1] - begin[s], before = kv_len[s] - n;
        bool is_decode = n == 1 && before > 0;
        row.n_decode_tokens += is_decode;
        row.n_prefill_tokens += is_decode ? 0 : n;
        row.n_prefill_seqs += !is_decode;
        row.n_kv += kv_len[s];
        row.n_prefill_kv += is_decode ? 0 : kv_len[s];
        row.n_visible += (int64_t)n * (before + kv_len[s] + 1) / 2;
    }
    return row;
}

static void add_to_stats(const struct qd_step_row *row, struct qd_replica_stats *stats)
{
    stats->n_steps++;
    stats->n_decode_tokens += (uint64_t)row->n_decode_tokens;
    stats->n_prefill_tokens += (uint64_t)row->n_prefill_tokens;
    stats->n_prefill_steps += row->n_prefill_seqs > 0;
    stats->n_prefill_requests += (uint64_t)row->n_prefill_seqs;
    if (row->n_running > stats->peak_running) stats->peak_running = row->n_running;
    if (row->n_kv_blocks > stats->peak_kv_blocks) stats->peak_kv_blocks = row->n_kv_blocks;
}

/* Room for all, in the order of the replicas; n_steps of each was counted. */
static qd_status share_room(struct qd_replay *replay, uint64_t n_all, char *err, size_t errlen)
{
    replay->steps = calloc((size_t)n_all, sizeof *replay->steps);
    replay->rows = calloc((size_t)n_all, sizeof *replay->rows);
    if (replay->steps == NULL || replay->rows == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %llu recorded steps",
                       (unsigned long long)n_all);
    uint64_t at = 0;
    for (int r = 0; r < replay->dp; r++) {
        replay->replicas[r].steps = replay->steps + at;
        replay->replicas[r].rows = replay->rows + at;
        at += replay->replicas[r].n_steps;
    }
    return QD_OK;
}

static qd_status sort_steps(struct qd_step_file *file, struct qd_replay *replay, char *err, size_t errlen)
{
    uint64_t at[QD_STEP_FILE_MAX_REPLICAS] = {0};
    for (;;) {
        struct qd_recorded_step step;
        QD_TRY(qd_step_file_next(file, &step, err, errlen));
        if (step.step == NULL) return QD_OK;
        struct qd_replay_replica *replica = &replay->replicas[step.replica];
        uint64_t i = at[step.replica]++;
        replay->steps[(size_t)(replica->steps - replay->steps) + i] = step;
        replica->rows[i] = row_of(&step, step.is_measured ? i - replica->n_warmup_steps : i);
        if (!step.is_measured) continue;
        add_to_stats(&replica->rows[i], &replica->stats);
        replica->recorded_span_ns += step.span_ns;
    }
}

qd_status qd_replay_load(struct qd_step_file *file, struct qd_replay *out, char *err, size_t errlen)
{
    uint64_t n_all;
    *out = (struct qd_replay){.dp = file->header.n_replicas};
    out->replicas = calloc((size_t)out->dp, sizeof *out->replicas);
    if (out->replicas == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a replay");
    QD_TRY(count_steps(file, out, &n_all, err, errlen));
    QD_TRY(share_room(out, n_all, err, errlen));
    return sort_steps(file, out, err, errlen);
}

void qd_replay_free(struct qd_replay *replay)
{
    free(replay->rows);
    free(replay->steps);
    free(replay->replicas);
    *replay = (struct qd_replay){0};
}

/* What the ledger knows of one step of a replica: a row of steps.jsonl (bench/METRICS.md).
 */
#ifndef QD_HARNESS_ENGINE_STEP_ROW_H
#define QD_HARNESS_ENGINE_STEP_ROW_H

#include "kernels/group.h"
#include "models/config.h"

/* Host segments are of the replica's thread. With asynchronous scheduling the next step's schedule, prepare
 * and launch lie between this one's launch and wait. */
struct qd_step_row {
    int32_t replica;
    int32_t n_ranks;  /* of `ranks`; 0 where nothing executes */
    uint64_t index;   /* of the replica since the last reset */
    int64_t idle_ns;  /* the thread slept for commands, since the step before was launched */
    int64_t spare_ns; /* passes that launched nothing since then */
    int64_t begin_ns; /* scheduling began (monotonic clock); prepare and launch follow at once */
    int64_t schedule_ns, prepare_ns, launch_ns;
    int64_t wait_begin_ns; /* monotonic clock; output follows at once */
    int64_t wait_ns, output_ns;
    int64_t virtual_begin_ns, virtual_end_ns; /* on the device, in virtual time; both 0: real time */
    struct qd_rank_span ranks[QD_MAX_TP];
    bool is_timed;                     /* its device segments were measured */
    int64_t segment_ns[QD_N_SEGMENTS]; /* of rank 0; their sum is its span but for what is unexplained */
    int32_t n_prefill_tokens, n_decode_tokens;
    int32_t n_recomputed_tokens;     /* of the prefill tokens */
    int32_t n_seqs, n_logit_rows;    /* of the step */
    int32_t n_prefill_seqs;          /* requests with prefill tokens in it */
    int32_t n_running, n_waiting;    /* requests, after scheduling */
    int32_t n_kv_blocks;             /* pages in use, after scheduling */
    int32_t n_admitted, n_preempted; /* requests, by scheduling; also preempted: in passes without a launch */
    int32_t n_hit_tokens;            /* found in the prefix cache, at first admissions and later */
    int64_t n_visible, n_kv;         /* as in struct qd_attention_load */
    int64_t n_prefill_kv;            /* of n_kv: keys of the requests with prefill tokens */
};

/* What the device says of the step that has ended: spans, and segments where it was timed. `device` is its
 * reading after the step before, and becomes that after this one. */
void qd_step_row_note_device(struct qd_step_row *row, const struct qd_group_result *result,
                             struct qd_device_stats *device);

/* From first to last of rank 0; 0 where nothing executes. */
static inline int64_t qd_step_row_span_ns(const struct qd_step_row *row)
{
    return row->n_ranks > 0 ? row->ranks[0].end_ns - row->ranks[0].begin_ns : 0;
}

#endif

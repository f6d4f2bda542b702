#include "harness/engine/prepare.h"

#include <string.h>

#include "harness/engine/request.h"
#include "kernels/base/size.h"

struct qd_step_limits qd_prepare_limits(const struct qd_scheduler_config *config)
{
    int64_t max_blocks = (int64_t)config->max_num_seqs * qd_div_up(config->max_model_len, QD_KV_BLOCK_SIZE);
    int64_t most =
        config->prefix_caching ? INT32_MAX : config->n_kv_blocks; /* shared pages count for each sharer */
    return (struct qd_step_limits){
        .max_tokens = config->max_num_batched_tokens,
        .max_seqs = config->max_num_seqs,
        .max_blocks = (int32_t)(max_blocks < most ? max_blocks : most),
        .max_logit_rows = config->max_num_seqs,
    };
}

static void fill_tokens(const struct qd_sched_entry *entry, int32_t first, struct qd_step *step)
{
    const struct qd_live_request *request = qd_live_request_of(entry->request);
    int32_t *position = qd_step_position(step) + first;
    int64_t *slot_mapping = qd_step_slot_mapping(step) + first;
    int32_t *source = qd_step_token_source(step) + first;
    int32_t n_sampled =
        qd_sched_n_sampled(&request->sched) - entry->begin; /* what comes after is still to be sampled */
    if (n_sampled > entry->n_tokens) n_sampled = entry->n_tokens;
    memcpy(source, request->tokens + entry->begin, (size_t)n_sampled * sizeof *source);
    for (int32_t i = n_sampled; i < entry->n_tokens; i++) source[i] = -(request->sched.slot + 1);
    for (int32_t i = 0; i < entry->n_tokens; i++) {
        int32_t at = entry->begin + i;
        position[i] = at;
        slot_mapping[i] =
            (int64_t)request->sched.blocks[at / QD_KV_BLOCK_SIZE] * QD_KV_BLOCK_SIZE + at % QD_KV_BLOCK_SIZE;
    }
}

static struct qd_sampling sampling_of(const struct qd_live_request *request)
{
    struct qd_sampling sampling = request->sampling;
    sampling.slot = request->sched.slot;
    sampling.output_index = (uint64_t)(request->sched.n_known - 1 - request->sched.n_prompt);
    return sampling;
}

qd_status qd_prepare_step(const struct qd_schedule *schedule, const struct qd_step_limits *limits,
                          struct qd_step *step)
{
    int32_t n_rows = 0, n_tokens = 0, n_blocks = 0;
    for (int32_t i = 0; i < schedule->n_entries; i++) n_rows += schedule->entries[i].samples;
    QD_TRY(qd_step_begin(step, limits, schedule->n_tokens, schedule->n_entries, schedule->n_blocks, n_rows));

    int32_t *cu_seqlens_q = qd_step_cu_seqlens_q(step), *block_offset = qd_step_block_offset(step);
    cu_seqlens_q[0] = block_offset[0] = 0;
    n_rows = 0;
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        const struct qd_sched_entry *entry = &schedule->entries[i];
        const struct qd_live_request *request = qd_live_request_of(entry->request);
        fill_tokens(entry, n_tokens, step);
        memcpy(qd_step_block_table(step) + n_blocks, request->sched.blocks,
               (size_t)request->sched.n_blocks * sizeof(int32_t));
        n_tokens += entry->n_tokens;
        n_blocks += request->sched.n_blocks;
        cu_seqlens_q[i + 1] = n_tokens;
        block_offset[i + 1] = n_blocks;
        qd_step_kv_len(step)[i] = entry->begin + entry->n_tokens;
        if (!entry->samples) continue;
        qd_step_logit_row(step)[n_rows] = n_tokens - 1;
        qd_step_sampling(step)[n_rows++] = sampling_of(request);
    }
    return QD_OK;
}

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cuda/host.h"
#include "kernels/cuda/step_unpack.h"

/* Where the step begins in the upload: behind the table of parts. */
enum { STEP_AT = QD_CUDA_MAX_PARTS * sizeof(struct qd_cuda_unpack_part) };
_Static_assert((int)STEP_AT % 16 == 0, "the step's arrays are 16-byte aligned");
_Static_assert(sizeof(struct qd_sampling) == QD_CUDA_MAX_PATTERN * sizeof(uint32_t),
               "a padded row's sampling is one pattern");

/* Padded rows: token 0 at position 0, kept nowhere; greedy, kept in no slot. */
static const struct qd_sampling nobody = {.top_p = 1, .slot = -1};

static qd_status init_slot(struct qd_cuda *cuda, struct qd_cuda_step_slot *slot, char *err, size_t errlen)
{
    void *memory;
    size_t bytes = STEP_AT + cuda->step.step_bytes + cuda->step.plan_bytes;
    QD_TRY(qd_cuda_memory_alloc_host(cuda, bytes, &memory, err, errlen));
    slot->staging = memory;
    slot->launched = (struct qd_step *)(void *)(slot->staging + STEP_AT);
    bytes = (size_t)cuda->config.limits.max_logit_rows * sizeof *slot->host_ids;
    QD_TRY(qd_cuda_memory_alloc_host(cuda, bytes, &memory, err, errlen));
    slot->host_ids = memory;
    QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&slot->begin, cudaEventDefault)));
    return QD_CUDA(cudaEventCreateWithFlags(&slot->end, cudaEventDefault));
}

qd_status qd_cuda_step_init(struct qd_cuda *cuda, char *err, size_t errlen)
{
    void *memory;
    cuda->step.slot = &cuda->step.slots[0];
    for (int i = 0; i < QD_CUDA_STEPS_IN_FLIGHT; i++)
        QD_TRY(init_slot(cuda, &cuda->step.slots[i], err, errlen));
    /* Mapped into every GPU at its own address; a kernel that waits sees a write without any call of CUDA,
     * which a rank that hangs in one could keep waiting. */
    QD_TRY(qd_cuda_memory_alloc_host(cuda, sizeof *cuda->abandoned, &memory, err, errlen));
    cuda->abandoned = memory;
    cuda->peers.abandoned = memory;
    return QD_OK;
}

void qd_cuda_step_free(struct qd_cuda *cuda)
{
    for (int i = 0; i < QD_CUDA_STEPS_IN_FLIGHT; i++) {
        struct qd_cuda_step_slot *slot = &cuda->step.slots[i];
        if (slot->begin != NULL) cudaEventDestroy(slot->begin);
        if (slot->end != NULL) cudaEventDestroy(slot->end);
        slot->begin = slot->end = NULL;
    }
}

/* cos and sin of every position, by the rule of qd_ref_rope (kernels/ref/qk_norm_rope_kv.c): the angle is
 * rounded to fp32. */
static void fill_rope(const struct qd_cuda *cuda, const struct qd_rope *rope, float *cos_out, float *sin_out)
{
    int64_t half = cuda->config.shape.head_dim / 2;
    bool rounded = cuda->config.numerics == QD_NUMERICS_HF;
    for (int64_t position = 0; position < cuda->config.max_model_len; position++) {
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)position * rope->inv_freq[i];
            float c = (float)cos((double)angle) * rope->attention_scaling;
            float s = (float)sin((double)angle) * rope->attention_scaling;
            cos_out[position * half + i] = rounded ? qd_bf16_round(c) : c;
            sin_out[position * half + i] = rounded ? qd_bf16_round(s) : s;
        }
    }
}

/* The table is the model's, which the device meets with the first step. */
static qd_status upload_rope(struct qd_cuda *cuda, const struct qd_rope *rope, char *err, size_t errlen)
{
    size_t n = (size_t)cuda->config.max_model_len * (size_t)cuda->config.shape.head_dim / 2;
    float *table = calloc(2 * n, sizeof *table);
    if (table == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the rotary table");
    fill_rope(cuda, rope, table, table + n);
    qd_status st = qd_cuda_memory_upload(cuda, cuda->step.cos, table, n * sizeof *table, err, errlen);
    if (st == QD_OK)
        st = qd_cuda_memory_upload(cuda, cuda->step.sin, table + n, n * sizeof *table, err, errlen);
    free(table);
    cuda->step.has_rope = st == QD_OK;
    return st;
}

/* The table of parts while it is filled. */
struct parts {
    struct qd_cuda_unpack_part *part;
    int32_t n;
    uint64_t max_words;
};

/* An array of n elements of the step, padded to n_padded with `pattern`; NULL: with each word's own index. */
static void add_part(struct parts *parts, uint64_t from, void *to, int32_t n, int32_t n_padded,
                     size_t element_bytes, const void *pattern)
{
    uint64_t words = element_bytes / sizeof(uint32_t);
    struct qd_cuda_unpack_part *part = &parts->part[parts->n++];
    *part = (struct qd_cuda_unpack_part){
        .from = from, .to = to, .n_words = words * (uint64_t)n, .n_padded = words * (uint64_t)n_padded};
    if (pattern != NULL) {
        part->n_pattern = (uint32_t)words;
        memcpy(part->pattern, pattern, element_bytes);
    }
    if (part->n_padded > parts->max_words) parts->max_words = part->n_padded;
}

static void list_parts(const struct qd_cuda *cuda, const struct qd_step *step,
                       const struct qd_cuda_attention_plan *plan, int32_t n_padded_rows, struct parts *parts)
{
    const struct qd_cuda_step_arrays *at = &cuda->step.at;
    const int32_t zero = 0, t = step->n_tokens, s = step->n_seqs, r = step->n_logit_rows;
    const int32_t t_padded = cuda->step.slot->launched->n_tokens, n_blocks = qd_step_block_offset(step)[s];
    const int64_t nowhere = -1;
    add_part(parts, STEP_AT + step->token_source, at->token_source, t, t_padded, sizeof zero, &zero);
    add_part(parts, STEP_AT + step->position, at->position, t, t_padded, sizeof zero, &zero);
    add_part(parts, STEP_AT + step->slot_mapping, at->slot_mapping, t, t_padded, sizeof nowhere, &nowhere);
    add_part(parts, STEP_AT + step->cu_seqlens_q, at->cu_seqlens_q, s + 1, s + 1, sizeof zero, &zero);
    add_part(parts, STEP_AT + step->kv_len, at->kv_len, s, s, sizeof zero, &zero);
    add_part(parts, STEP_AT + step->block_offset, at->block_offset, s + 1, s + 1, sizeof zero, &zero);
    add_part(parts, STEP_AT + step->block_table, at->block_table, n_blocks, n_blocks, sizeof zero, &zero);
    /* A padded row is the padded token of the same index. */
    add_part(parts, STEP_AT + step->logit_row, at->logit_row, r, n_padded_rows, sizeof zero, NULL);
    add_part(parts, STEP_AT + step->sampling, at->sampling, r, n_padded_rows, sizeof nobody, &nobody);
    add_part(parts, STEP_AT + step->used_bytes, at->plan, (int32_t)(plan->used_bytes / sizeof zero),
             (int32_t)(plan->used_bytes / sizeof zero), sizeof zero, &zero);
}

/* Grids of this step's attention: its own counts, or when it is recorded, replayed or the run before these,
 * which has to launch the same kernels, what any step of so many decodes may need. */
static struct qd_cuda_attention_limits
attention_grids(const struct qd_cuda *cuda, const struct qd_cuda_attention_plan *plan, int32_t n_padded)
{
    if (cuda->graphs.current < 0)
        return (struct qd_cuda_attention_limits){plan->n_prefill, plan->n_decode, plan->n_merge,
                                                 plan->n_parts};
    struct qd_step_limits limits = cuda->config.limits;
    limits.max_tokens = limits.max_seqs = limits.max_logit_rows = n_padded;
    struct qd_cuda_attention_limits grids = qd_cuda_attention_capacity(&cuda->attention, &limits);
    if (!cuda->config.batch_invariant) grids.max_prefill_items = 0;
    QD_ASSERT(plan->n_prefill <= grids.max_prefill_items && plan->n_decode <= grids.max_decode_items &&
              plan->n_merge <= grids.max_merge_items); /* items beyond the grids would not run */
    return grids;
}

static qd_status check_positions(const struct qd_cuda *cuda, const struct qd_step *step, char *err,
                                 size_t errlen)
{
    for (int32_t i = 0; i < step->n_seqs; i++)
        if (qd_step_kv_len(step)[i] > cuda->config.max_model_len)
            return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a sequence of %d tokens on a device opened for %d",
                           qd_step_kv_len(step)[i], cuda->config.max_model_len);
    return QD_OK;
}

static qd_status first_step(struct qd_cuda *cuda, const struct qd_rope *rope, char *err, size_t errlen)
{
    QD_TRY(qd_cuda_memory_exchange(cuda, err, errlen));
    QD_TRY(qd_cuda_comm_connect(cuda, err, errlen));
    return upload_rope(cuda, rope, err, errlen);
}

static qd_status upload_step(struct qd_cuda *cuda, const struct qd_step *host,
                             const struct qd_cuda_attention_plan *plan, char *err, size_t errlen)
{
    const struct qd_cuda_step_slot *slot = cuda->step.slot;
    unsigned char *upload = cuda->step.upload;
    struct parts parts = {.part = (void *)slot->staging};
    list_parts(cuda, host, plan, slot->launched->n_logit_rows, &parts);
    size_t bytes = STEP_AT + host->used_bytes + plan->used_bytes;
    QD_TRY(QD_CUDA(cudaEventRecord(slot->begin, cuda->stream)));
    QD_TRY(QD_CUDA(cudaMemcpyAsync(upload, slot->staging, bytes, cudaMemcpyHostToDevice, cuda->stream)));
    return qd_cuda_step_unpack(upload, parts.n, parts.max_words, cuda->stream, err, errlen);
}

qd_status qd_cuda_step_plan(struct qd_cuda *cuda, const struct qd_plan_args *args)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    struct qd_cuda_step *step = &cuda->step;
    const struct qd_step *host = args->step;
    if (step->n_submitted - step->n_finished >= QD_CUDA_STEPS_IN_FLIGHT)
        return qd_fail(QD_ERR_FULL, err, errlen, "%d steps are in flight", QD_CUDA_STEPS_IN_FLIGHT);
    QD_TRY(check_positions(cuda, host, err, errlen));
    if (!step->has_rope) QD_TRY(first_step(cuda, &args->rope, err, errlen));

    struct qd_cuda_step_slot *slot = &step->slots[step->n_submitted % QD_CUDA_STEPS_IN_FLIGHT];
    struct qd_cuda_attention_plan *plan = (void *)(slot->staging + STEP_AT + host->used_bytes);
    int32_t n_padded;
    step->slot = slot;
    QD_TRY(qd_cuda_attention_plan(&cuda->attention, &cuda->attention_capacity, host, plan, err, errlen));
    qd_cuda_graph_choose(cuda, host, &n_padded);
    qd_cuda_timing_begin_step(cuda);
    memcpy(slot->launched, host, host->used_bytes);
    if (n_padded > host->n_tokens) slot->launched->n_tokens = slot->launched->n_logit_rows = n_padded;
    slot->n_tokens = host->n_tokens;
    slot->n_logit_rows = host->n_logit_rows;
    slot->runs = cuda->graphs.mode == QD_CUDA_EAGER || cuda->graphs.mode == QD_CUDA_REPLAY;
    step->limits = attention_grids(cuda, plan, n_padded);
    cuda->n_partials = 0;
    return slot->runs ? upload_step(cuda, host, plan, err, errlen) : QD_OK;
}

static void count_step(struct qd_cuda *cuda, const struct qd_cuda_step_slot *slot)
{
    uint64_t n_tokens = (uint64_t)slot->n_tokens;
    struct qd_device_stats *stats = &cuda->stats;
    if (cuda->graphs.mode == QD_CUDA_REPLAY) {
        stats->n_replayed_steps++;
        stats->n_replayed_tokens += n_tokens;
        stats->n_padded_tokens += (uint64_t)slot->launched->n_tokens - n_tokens;
    } else {
        stats->n_eager_steps++;
        stats->n_eager_tokens += n_tokens;
    }
}

static size_t id_bytes(const struct qd_cuda_step_slot *slot)
{
    return (size_t)slot->n_logit_rows * sizeof *slot->host_ids;
}

/* Where ops are timed, the next step would record their events anew: this one is waited for at once. */
qd_status qd_cuda_step_submit(struct qd_cuda *cuda)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    struct qd_cuda_step *step = &cuda->step;
    struct qd_cuda_step_slot *slot = step->slot;
    if (slot->runs) {
        size_t bytes = id_bytes(slot);
        if (bytes > 0)
            QD_TRY(QD_CUDA(
                cudaMemcpyAsync(slot->host_ids, step->ids, bytes, cudaMemcpyDeviceToHost, cuda->stream)));
        QD_TRY(QD_CUDA(cudaEventRecord(slot->end, cuda->stream)));
        count_step(cuda, slot);
        if (qd_cuda_timing_is_on(cuda)) {
            QD_TRY(qd_cuda_step_wait(cuda, slot->end));
            QD_TRY(qd_cuda_timing_add_step(cuda, slot, err, errlen));
        }
    }
    step->n_submitted++;
    return QD_OK;
}

qd_status qd_cuda_step_wait(struct qd_cuda *cuda, cudaEvent_t event)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    atomic_store(&cuda->waits_for, "its GPU");
    qd_status st = qd_cuda_collectives_wait(cuda, event);
    cudaError_t error = event != NULL ? cudaEventSynchronize(event) : cudaStreamSynchronize(cuda->stream);
    atomic_store(&cuda->waits_for, NULL);
    QD_TRY(st);
    QD_TRY(qd_cuda_check(error, "waiting for the step", __FILE__, __LINE__, err, errlen));
    if (atomic_load(cuda->abandoned) != 0)
        return qd_fail(QD_ERR_RANK, err, errlen, "given up, since another rank of the replica has failed");
    return QD_OK;
}

qd_status qd_cuda_step_finish(struct qd_cuda *cuda, int32_t *ids)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    struct qd_cuda_step *step = &cuda->step;
    if (step->n_finished == step->n_submitted)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "no step is in flight");
    struct qd_cuda_step_slot *slot = &step->slots[step->n_finished % QD_CUDA_STEPS_IN_FLIGHT];
    step->n_finished++;
    if (!slot->runs) return QD_OK;
    QD_TRY(qd_cuda_step_wait(cuda, slot->end));
    memcpy(ids, slot->host_ids, id_bytes(slot));
    if (!qd_cuda_timing_is_on(cuda)) QD_TRY(qd_cuda_timing_add_step(cuda, slot, err, errlen));
    cuda->stats.last_span_ns = slot->span_ns;
    return QD_OK;
}

bool qd_cuda_step_ended(void *ctx)
{
    const struct qd_cuda_step *step = &((struct qd_cuda *)ctx)->step;
    const struct qd_cuda_step_slot *slot = &step->slots[step->n_finished % QD_CUDA_STEPS_IN_FLIGHT];
    if (step->n_finished == step->n_submitted || !slot->runs) return true;
    if (cudaEventQuery(slot->end) != cudaErrorNotReady) return true;
    cudaGetLastError(); /* that it is not ready is no error */
    return false;
}

const int32_t *qd_cuda_step_array(const struct qd_cuda *cuda, const int32_t *host)
{
    const struct qd_step *step = cuda->step.slot->launched;
    if (host == NULL) return NULL;
    if (host == qd_step_token_source(step)) return cuda->step.at.token_source;
    QD_ASSERT(host == qd_step_logit_row(step)); /* nothing else of a step is an argument by itself */
    return cuda->step.at.logit_row;
}

/* Causal attention over paged keys and values, split over (sequence, KV head, block of query rows).
 *
 * fused numerics: online softmax (Milakov and Gimelshein 2018) over tiles of 64 keys aligned to position 0:
 *   m' = max(m, max_j s_j)   p_j = e^(s_j - m')   l' = l e^(m - m') + sum_j p_j   o' = o e^(m - m') + sum_j
 * p_j v_j with s_j = (q . k_j) * hd^-0.5, and out = r(o / l) at the end; all in fp32. The tiles and the order
 * inside them depend on positions alone, so chunking, batching and threads change no bit.
 *
 * Constraints: head_dim a multiple of 16, kv_len at most max_model_len. Measured numbers are in README.md.
 */
#include <math.h>

#include "kernels/base/size.h"
#include "kernels/cpu/attention_tile.h"

enum {
    HF_SCORE_BYTES = 2 << 20, /* of score rows a thread holds in hf numerics, unless 6 rows need more */
    HF_MIN_ROWS = 6,
    SCORE_PAD = 16, /* keeps score rows off each other's cache sets */
    TILE_VECTORS = QD_CPU_TILE_KEYS / VF_LANES,
};

/* Memory of one member. */
struct layout {
    int n_rows;           /* of a block */
    int64_t score_stride; /* elements */
    size_t bytes;
};

static struct layout layout_of(const struct qd_device_config *config)
{
    struct layout layout = {.n_rows = QD_CPU_BLOCK_ROWS, .score_stride = QD_CPU_TILE_KEYS};
    if (config->numerics == QD_NUMERICS_HF) {
        layout.score_stride =
            qd_div_up(config->max_model_len, QD_CPU_TILE_KEYS) * QD_CPU_TILE_KEYS + SCORE_PAD;
        int64_t fit = HF_SCORE_BYTES / (layout.score_stride * (int64_t)sizeof(float));
        layout.n_rows = fit > QD_CPU_BLOCK_ROWS ? QD_CPU_BLOCK_ROWS
                        : fit < HF_MIN_ROWS     ? HF_MIN_ROWS
                                                : (int)fit;
    }
    size_t row = 2 * (size_t)config->shape.head_dim + (size_t)layout.score_stride;
    size_t tile = (size_t)config->shape.head_dim * QD_CPU_TILE_KEYS;
    layout.bytes = ((size_t)layout.n_rows * row + tile) * sizeof(float);
    return layout;
}

size_t QD_CPU_FN(qd_cpu_attention_scratch)(const struct qd_device_config *config)
{
    return layout_of(config).bytes;
}

/* Running maximum and sum of fused numerics. */
struct softmax {
    float max[QD_CPU_BLOCK_ROWS];
    float sum[QD_CPU_BLOCK_ROWS];
};

static void multiply_row(float *x, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i += VF_LANES) vf_store(x + i, vf_mul(vf_load(x + i), vf_set1(factor)));
}

/* Turns a row's scores of a tile into e^(s - m') and brings its maximum, sum and output up to date. */
static void softmax_row(struct qd_cpu_attention_block *block, int row, int32_t first_key,
                        struct softmax *softmax)
{
    float *scores = block->scores + row * block->score_stride;
    for (int32_t key = block->visible[row] - first_key; key < QD_CPU_TILE_KEYS; key++)
        scores[key] = -INFINITY;

    const vf scale = vf_set1(block->scale);
    vf s[TILE_VECTORS], max = vf_set1(softmax->max[row]), sum = vf_zero();
    VF_UNROLL
    for (int i = 0; i < TILE_VECTORS; i++) {
        s[i] = vf_mul(vf_load(scores + i * VF_LANES), scale);
        max = vf_max(max, s[i]);
    }
    float new_max = vf_max_lane(max);
    /* -inf - -inf is NaN: while every score is -inf, any finite base gives the wanted zeros */
    const vf base = vf_set1(new_max == -INFINITY ? 0.0f : new_max);
    VF_UNROLL
    for (int i = 0; i < TILE_VECTORS; i++) {
        s[i] = vf_exp(vf_sub(s[i], base));
        vf_store(scores + i * VF_LANES, s[i]);
        sum = vf_add(sum, s[i]);
    }
    if (new_max == softmax->max[row]) {
        softmax->sum[row] += vf_sum(sum);
        return;
    }
    float factor = vf_max_lane(vf_exp(vf_sub(vf_set1(softmax->max[row]), base)));
    softmax->sum[row] = softmax->sum[row] * factor + vf_sum(sum);
    softmax->max[row] = new_max;
    multiply_row(block->out + row * block->head_dim, block->head_dim, factor);
}

static void attend_fused(struct qd_cpu_attention_block *block)
{
    const struct qd_cpu_attention_keys *keys = &block->keys;
    struct softmax softmax;
    for (int row = 0; row < block->n_rows; row++) {
        softmax.max[row] = -INFINITY;
        softmax.sum[row] = 0.0f;
    }
    for (int32_t key = 0; key < block->visible[block->n_rows - 1]; key += QD_CPU_TILE_KEYS) {
        while (block->visible[block->first_row] <= key) block->first_row++;
        struct qd_cpu_attention_tile k = qd_cpu_attention_tile_at(block, keys->k, key, keys->v, key);
        struct qd_cpu_attention_tile v =
            qd_cpu_attention_tile_at(block, keys->v, key, keys->k, key + QD_CPU_TILE_KEYS);
        QD_CPU_FN(qd_cpu_attention_scores)(block, &k, block->scores);
        for (int row = block->first_row; row < block->n_rows; row++) softmax_row(block, row, key, &softmax);
        QD_CPU_FN(qd_cpu_attention_values)(block, &v, block->scores);
    }
    for (int row = 0; row < block->n_rows; row++) {
        float *out = block->out + row * block->head_dim;
        for (int64_t i = 0; i < block->head_dim; i += VF_LANES)
            vf_store(out + i, vf_div(vf_load(out + i), vf_set1(softmax.sum[row])));
    }
}

/* What all members share. */
struct job {
    struct qd_cpu *cpu;
    const struct qd_attention_args *args;
    struct layout layout;
    int64_t total_cost;
};

/* Query rows [first, first + n) of one sequence and KV head; a row is token * group + head. */
struct item {
    int32_t seq, kv_head;
    int64_t first, n;
};

static int64_t query_rows(const struct job *job, int32_t seq)
{
    const int32_t *cu = qd_step_cu_seqlens_q(job->args->step);
    return (int64_t)(cu[seq + 1] - cu[seq]) * (job->args->n_heads / job->args->n_kv_heads);
}

static int32_t visible_keys(const struct job *job, int32_t seq, int64_t row)
{
    const int32_t *cu = qd_step_cu_seqlens_q(job->args->step);
    int32_t before = qd_step_kv_len(job->args->step)[seq] - (cu[seq + 1] - cu[seq]);
    return before + (int32_t)(row / (job->args->n_heads / job->args->n_kv_heads)) + 1;
}

/* Moves to the next item of sequence, KV head, block; false at the end. */
static bool next_item(const struct job *job, struct item *item)
{
    item->first += item->n;
    while (item->seq < job->args->step->n_seqs) {
        int64_t left = query_rows(job, item->seq) - item->first;
        if (left > 0) {
            item->n = left < job->layout.n_rows ? left : job->layout.n_rows;
            return true;
        }
        item->first = 0;
        if (++item->kv_head == job->args->n_kv_heads) {
            item->kv_head = 0;
            item->seq++;
        }
    }
    return false;
}

/* Keys read and multiplied; a row costs little beside the first ones, which pay for reading the keys. */
static int64_t cost_of(const struct job *job, const struct item *item)
{
    return (item->n + HF_MIN_ROWS) * visible_keys(job, item->seq, item->first + item->n - 1);
}

/* Elements of head `row % group` of token `row / group` in q and out. */
static int64_t row_offset(const struct job *job, const struct item *item, int64_t row)
{
    const struct qd_attention_args *args = job->args;
    int64_t group = args->n_heads / args->n_kv_heads;
    int64_t token = qd_step_cu_seqlens_q(args->step)[item->seq] + row / group;
    return (token * args->n_heads + item->kv_head * group + row % group) * args->head_dim;
}

static struct qd_cpu_attention_block block_of(const struct job *job, const struct item *item, float *scratch)
{
    const struct qd_attention_args *args = job->args;
    const struct qd_kv_layer *kv = &args->kv;
    const int64_t head_dim = args->head_dim, head = item->kv_head * QD_KV_BLOCK_SIZE * head_dim;
    const int64_t page_stride = kv->n_kv_heads * QD_KV_BLOCK_SIZE * head_dim;
    float *out = scratch + job->layout.n_rows * head_dim, *wide = out + job->layout.n_rows * head_dim;
    struct qd_cpu_attention_block block = {
        .keys = {.k = kv->data + head,
                 .v = kv->data + kv->n_blocks * page_stride + head,
                 .page_stride = page_stride,
                 .block_table =
                     qd_step_block_table(args->step) + qd_step_block_offset(args->step)[item->seq]},
        .head_dim = args->head_dim,
        .n_rows = (int)item->n,
        .scale = 1.0f / sqrtf((float)args->head_dim),
        .score_stride = job->layout.score_stride,
        .q = scratch,
        .out = out,
        .wide = wide,
        .scores = wide + head_dim * QD_CPU_TILE_KEYS,
    };
    memset(out, 0, (size_t)(item->n * head_dim) * sizeof *out);
    for (int row = 0; row < block.n_rows; row++) {
        const qd_bf16 *q = args->q + row_offset(job, item, item->first + row);
        for (int64_t i = 0; i < head_dim; i += VF_LANES)
            vf_store(block.q + row * head_dim + i, vf_load_bf16(q + i));
        block.visible[row] = visible_keys(job, item->seq, item->first + row);
    }
    return block;
}

static void run_item(const struct job *job, const struct item *item, float *scratch)
{
    struct qd_cpu_attention_block block = block_of(job, item, scratch);
    if (job->cpu->config.numerics == QD_NUMERICS_HF)
        QD_CPU_FN(qd_cpu_attention_hf)(&block);
    else
        attend_fused(&block);
    for (int row = 0; row < block.n_rows; row++) {
        qd_bf16 *out = job->args->out + row_offset(job, item, item->first + row);
        for (int64_t i = 0; i < block.head_dim; i += VF_LANES)
            vf_store_bf16(out + i, vf_load(block.out + row * block.head_dim + i));
    }
}

/* A member takes the items whose middle lies in its share of the total cost: contiguous, so that it keeps to
 * one KV head's keys. */
static void run_member(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    float *scratch = (float *)(void *)job->cpu->scratch[member];
    int64_t before = 0;
    for (struct item item = {0}; next_item(job, &item);) {
        int64_t cost = cost_of(job, &item);
        if ((2 * before + cost) * n_members / (2 * job->total_cost) == member) run_item(job, &item, scratch);
        before += cost;
    }
}

qd_status QD_CPU_FN(qd_cpu_attention)(struct qd_cpu *cpu, const struct qd_attention_args *args)
{
    struct job job = {.cpu = cpu, .args = args, .layout = layout_of(&cpu->config)};
    if (args->head_dim % QD_KV_BLOCK_SIZE != 0 || job.layout.bytes > cpu->scratch_bytes)
        return QD_ERR_UNSUPPORTED;
    for (int32_t seq = 0; seq < args->step->n_seqs; seq++)
        if (qd_step_kv_len(args->step)[seq] > cpu->config.max_model_len) return QD_ERR_TOO_LARGE;
    for (struct item item = {0}; next_item(&job, &item);) job.total_cost += cost_of(&job, &item);
    if (job.total_cost > 0) qd_team_run(cpu->team, run_member, &job);
    return QD_OK;
}

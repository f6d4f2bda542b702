/* The forward pass of dense Qwen3, once, against the device table. Per layer:
 *
 *     normed -> qkv -> q/k norm, RoPE, pages -> attention -> o -> + residual, norm
 *            -> gate and up, SiLU -> down -> + residual, norm of the next layer
 *
 * Shapes as in models/shard.h; source: Hugging Face transformers, modeling_qwen3.py. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "models/model.h"
#include "models/weights.h"

/* What all ranks of all groups share. */
struct program {
    const qd_model_t *model;
    struct qd_program_options options;
};

/* One rank. T, R: the largest step's tokens and logit rows; the others as in kernels/ops.h. */
struct rank {
    const struct qd_model_config *config;
    const struct qd_shard *shard;
    struct qd_rank_weights weights; /* where the device reads them */
    struct qd_program_options options;
    struct qd_rope rope;
    struct qd_device device;
    size_t step_capacity; /* bytes of a step buffer */

    qd_bf16 *kv;            /* [n_layers][2][n_blocks][Hkv][16][hd] */
    qd_bf16 *residual;      /* [T][H] */
    qd_bf16 *normed;        /* [T][H] */
    qd_bf16 *qkv;           /* [T][(Hq + 2*Hkv)*hd] */
    qd_bf16 *q;             /* [T][Hq*hd] after norm and RoPE */
    qd_bf16 *attention;     /* [T][Hq*hd] */
    qd_bf16 *o_partial;     /* [T][H] */
    qd_bf16 *down_partial;  /* [T][H] apart from o_partial: other ranks may still read that one */
    qd_bf16 *activated;     /* [T][I padded with zeros to whole 64s] silu(gate) * up */
    float *shard_logits;    /* [R][S] */
    float *gathered_logits; /* [tp][R][S] on rank 0, else NULL */
    float *logits[2];       /* [R][V] on the host, of rank 0, else NULL; by parity of the step */
};

/* *out = a * b * element_bytes. */
static bool count_bytes(int64_t a, int64_t b, size_t element_bytes, size_t *out)
{
    return qd_size_mul((size_t)a, (size_t)b, out) && qd_size_mul(*out, element_bytes, out);
}

static qd_status allocate(struct rank *r, char *err, size_t errlen)
{
    const struct qd_shard *shard = r->shard;
    int64_t tokens = r->options.limits.max_tokens, rows = r->options.limits.max_logit_rows;
    int64_t hidden = r->config->hidden_dim, hd = r->config->head_dim, q_dim = shard->n_heads * hd;
    int64_t kv_layer = 2 * (int64_t)r->options.n_kv_blocks * QD_KV_BLOCK_SIZE;
    int64_t kv_dim = r->config->n_layers * shard->n_kv_heads * hd;
    int64_t want = shard->rank == 0 && !r->options.no_logits ? rows : 0, vocab = r->config->vocab_size;
    const struct {
        const char *name;
        void *where; /* of the pointer to fill */
        int64_t n, dim;
        size_t element_bytes;
        bool on_host;
    } parts[] = {
        {"KV pages", &r->kv, kv_layer, kv_dim, sizeof(qd_bf16), false},
        {"residual stream", &r->residual, tokens, hidden, sizeof(qd_bf16), false},
        {"normalised hidden states", &r->normed, tokens, hidden, sizeof(qd_bf16), false},
        {"q, k and v", &r->qkv, tokens, q_dim + 2 * shard->n_kv_heads * hd, sizeof(qd_bf16), false},
        {"queries", &r->q, tokens, q_dim, sizeof(qd_bf16), false},
        {"attention's output", &r->attention, tokens, q_dim, sizeof(qd_bf16), false},
        {"o's output", &r->o_partial, tokens, hidden, sizeof(qd_bf16), false},
        {"down's output", &r->down_partial, tokens, hidden, sizeof(qd_bf16), false},
        {"activations", &r->activated, tokens, qd_shard_activated_dim(shard), sizeof(qd_bf16), false},
        {"logits", &r->shard_logits, rows, shard->vocab_rows, sizeof(float), false},
        /* Of rank 0 alone, so after all that every rank has: peers find each other's memory by its order. */
        {"gathered logits", &r->gathered_logits, shard->tp > 1 ? want : 0, shard->tp * shard->vocab_rows,
         sizeof(float), false},
        {"logits handed out", &r->logits[0], want, vocab, sizeof(float), true},
        {"logits handed out", &r->logits[1], want, vocab, sizeof(float), true},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t bytes;
        void *memory;
        char why[QD_ERR_LEN] = "";
        if (!count_bytes(parts[i].n, parts[i].dim, parts[i].element_bytes, &bytes))
            return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: %lld x %lld values", parts[i].name,
                           (long long)parts[i].n, (long long)parts[i].dim);
        if (bytes == 0) continue;
        qd_status st = parts[i].on_host ? qd_device_alloc_host(r->device, bytes, &memory, why, sizeof why)
                                        : qd_device_alloc(r->device, bytes, &memory, why, sizeof why);
        if (st != QD_OK) return qd_fail(st, err, errlen, "%s: %s", parts[i].name, why);
        memcpy(parts[i].where, &memory, sizeof memory);
    }
    return QD_OK;
}

static void rank_close(void *state)
{
    struct rank *r = state;
    if (r == NULL) return;
    free(r); /* buffers belong to the device */
}

/* out [m][...] = a [m][K] * w^T, rows of `a` without a gap; rows of `out` are ldo apart. */
static qd_status project(const struct rank *r, const qd_bf16 *a, int64_t m, const struct qd_weight *w,
                         enum qd_epilogue epilogue, void *out, int64_t ldo)
{
    const struct qd_gemm_nt_args args = {
        .a = a, .m = m, .lda = w->n_cols, .w = *w, .epilogue = epilogue, .out = out, .ldo = ldo};
    return qd_device_gemm_nt(r->device, &args);
}

/* The same for a reader that takes a partial: it is in `out` [m][N], or where the device has put its slices.
 * Rows of `a` are lda apart. */
static qd_status project_partial(const struct rank *r, const qd_bf16 *a, int64_t m, int64_t lda,
                                 const struct qd_weight *w, qd_bf16 *out, struct qd_partial *partial)
{
    const struct qd_gemm_nt_args args = {.a = a,
                                         .m = m,
                                         .lda = lda,
                                         .w = *w,
                                         .epilogue = QD_EPILOGUE_PARTIAL,
                                         .out = out,
                                         .ldo = w->n_rows,
                                         .partial = partial};
    return qd_device_gemm_nt(r->device, &args);
}

/* Adds a projection's output, summed over ranks, to the residual stream and normalises it: all tokens, or
 * with `rows` those alone. */
static qd_status add_and_norm(const struct rank *r, struct qd_partial partial, const qd_bf16 *norm,
                              const int32_t *rows, int64_t n_rows)
{
    partial.cross_rank = r->shard->tp > 1;
    const struct qd_reduce_add_rmsnorm_args args = {
        .residual = r->residual,
        .partial = partial,
        .weight = norm,
        .rows = rows,
        .n_rows = n_rows,
        .dim = r->config->hidden_dim,
        .eps = (float)r->config->rms_norm_eps,
        .out = r->normed,
    };
    return qd_device_reduce_add_rmsnorm(r->device, &args);
}

static struct qd_kv_layer kv_layer(const struct rank *r, int32_t layer)
{
    int64_t blocks = r->options.n_kv_blocks;
    int64_t stride = 2 * blocks * r->shard->n_kv_heads * QD_KV_BLOCK_SIZE * r->config->head_dim;
    return (struct qd_kv_layer){
        .data = r->kv + layer * stride,
        .n_blocks = blocks,
        .n_kv_heads = r->shard->n_kv_heads,
        .head_dim = r->config->head_dim,
    };
}

/* normed -> o, the output of the o projection. */
static qd_status attend(const struct rank *r, const struct qd_step *step, int32_t layer, struct qd_partial *o)
{
    const struct qd_layer_weights *w = &r->weights.layers[layer];
    const struct qd_shard *shard = r->shard;
    int32_t hd = r->config->head_dim;
    struct qd_partial qkv;
    QD_TRY(project_partial(r, r->normed, step->n_tokens, w->qkv.n_cols, &w->qkv, r->qkv, &qkv));
    const struct qd_qk_norm_rope_kv_args rope = {
        .step = step,
        .qkv = qkv,
        .q_norm_weight = w->q_norm,
        .k_norm_weight = w->k_norm,
        .eps = (float)r->config->rms_norm_eps,
        .n_heads = shard->n_heads,
        .n_kv_heads = shard->n_kv_heads,
        .head_dim = hd,
        .kv = kv_layer(r, layer),
        .q_out = r->q,
    };
    QD_TRY(qd_device_qk_norm_rope_kv(r->device, &rope));
    const struct qd_attention_args attention = {
        .step = step,
        .q = r->q,
        .n_heads = shard->n_heads,
        .n_kv_heads = shard->n_kv_heads,
        .head_dim = hd,
        .kv = kv_layer(r, layer),
        .out = r->attention,
    };
    QD_TRY(qd_device_attention(r->device, &attention));
    return project_partial(r, r->attention, step->n_tokens, w->o.n_cols, &w->o, r->o_partial, o);
}

/* normed -> down, the output of the down projection. */
static qd_status feed_forward(const struct rank *r, int64_t n_tokens, int32_t layer, struct qd_partial *down)
{
    const struct qd_layer_weights *w = &r->weights.layers[layer];
    int64_t ld = qd_shard_activated_dim(r->shard);
    QD_TRY(project(r, r->normed, n_tokens, &w->gate_up, QD_EPILOGUE_SILU_MUL, r->activated, ld));
    return project_partial(r, r->activated, n_tokens, ld, &w->down, r->down_partial, down);
}

/* Token ids -> normed [R][H], the normalised hidden states of the logit rows. */
static qd_status run_layers(const struct rank *r, const struct qd_step *step)
{
    int32_t n_layers = r->config->n_layers;
    const struct qd_layer_weights *layers = r->weights.layers;
    struct qd_partial o, down;
    const struct qd_embed_args embed = {
        .table = r->weights.embedding,
        .token_source = qd_step_token_source(step),
        .n_tokens = step->n_tokens,
        .out = r->residual,
    };
    QD_TRY(qd_device_embed(r->device, &embed));
    const struct qd_rmsnorm_args first_norm = {
        .x = r->residual,
        .weight = layers[0].input_norm,
        .n_rows = step->n_tokens,
        .dim = r->config->hidden_dim,
        .eps = (float)r->config->rms_norm_eps,
        .out = r->normed,
    };
    QD_TRY(qd_device_rmsnorm(r->device, &first_norm));
    for (int32_t layer = 0; layer < n_layers; layer++) {
        QD_TRY(attend(r, step, layer, &o));
        QD_TRY(add_and_norm(r, o, layers[layer].post_norm, NULL, step->n_tokens));
        QD_TRY(feed_forward(r, step->n_tokens, layer, &down));
        if (layer + 1 < n_layers)
            QD_TRY(add_and_norm(r, down, layers[layer + 1].input_norm, NULL, step->n_tokens));
    }
    /* Also without logit rows: ranks must meet here before the next step writes to o_partial. */
    return add_and_norm(r, down, r->weights.final_norm, qd_step_logit_row(step),
                        step->n_logit_rows);
}

/* Brings the shards of all ranks to rank 0 and puts their ids in order, without the padding. */
static qd_status collect_logits(const struct rank *r, const struct qd_step *step, struct qd_step_output *out)
{
    size_t n_rows = (size_t)step->n_logit_rows, tp = (size_t)r->shard->tp;
    size_t shard_rows = (size_t)r->shard->vocab_rows, vocab = (size_t)r->config->vocab_size;
    const float *from = r->shard_logits;
    if (tp > 1) {
        const struct qd_all_gather_args gather = {
            .in = r->shard_logits,
            .bytes = n_rows * shard_rows * sizeof(float),
            .out = r->gathered_logits,
        };
        QD_TRY(qd_device_all_gather(r->device, &gather));
        from = r->gathered_logits;
    }
    if (r->shard->rank != 0) return QD_OK;
    float *to = r->logits[step->step_index % 2];
    for (size_t p = 0; p < tp && p * shard_rows < vocab; p++) {
        size_t begin = p * shard_rows, count = vocab - begin < shard_rows ? vocab - begin : shard_rows;
        const struct qd_copy_to_host_args copy = {
            .host = to + begin,
            .data = from + p * n_rows * shard_rows,
            .n_rows = n_rows,
            .row_bytes = count * sizeof(float),
            .host_stride = vocab * sizeof(float),
            .stride = shard_rows * sizeof(float),
        };
        QD_TRY(qd_device_copy_to_host(r->device, &copy));
    }
    out->logits = to;
    return QD_OK;
}

/* normed [R][H] -> logits and sampled ids. */
static qd_status predict(const struct rank *r, const struct qd_step *step, struct qd_step_output *out)
{
    int64_t ld = r->shard->vocab_rows;
    if (r->shard->vocab_count > 0)
        QD_TRY(project(r, r->normed, step->n_logit_rows, &r->weights.lm_head, QD_EPILOGUE_STORE_F32,
                       r->shard_logits, ld));
    const struct qd_sample_args sample = {
        .step = step,
        .logits = r->shard_logits,
        .ld = ld,
        .vocab_begin = r->shard->vocab_begin,
        .n_vocab = r->shard->vocab_count,
        .vocab_size = r->config->vocab_size,
        .ids = out->ids,
    };
    QD_TRY(qd_device_sample(r->device, &sample));
    return (step->flags & QD_STEP_WANT_LOGITS) != 0 ? collect_logits(r, step, out) : QD_OK;
}

/* Plan, ops, end. A device may run the ops as a recording of an earlier step's. */
static qd_status run_step(const struct rank *r, const struct qd_step *step, struct qd_step_output *out)
{
    const struct qd_plan_args plan = {
        .step = step,
        .rope = r->rope,
        .n_heads = r->shard->n_heads,
        .n_kv_heads = r->shard->n_kv_heads,
        .head_dim = r->config->head_dim,
    };
    QD_TRY(qd_device_plan(r->device, &plan));
    const struct qd_step *launched = step;
    QD_TRY(qd_device_begin_step(r->device, &launched));
    if (launched != NULL) {
        QD_TRY(run_layers(r, launched));
        if (launched->n_logit_rows > 0) QD_TRY(predict(r, launched, out));
    }
    return qd_device_end_step(r->device);
}

/* What the device wants to have met before the first step. */
static qd_status warm_up(const struct rank *r, char *err, size_t errlen)
{
    struct qd_step *step = calloc(1, r->step_capacity);
    struct qd_step_output out = {.ids =
                                     calloc((size_t)r->options.limits.max_logit_rows + 1, sizeof *out.ids)};
    qd_status st = QD_OK;
    if (step == NULL || out.ids == NULL)
        st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the steps of the warm-up");
    for (int i = 0; st == QD_OK && qd_device_warm_up_step(r->device, i, step); i++) {
        st = run_step(r, step, &out);
        if (st == QD_OK) st = qd_device_finish_step(r->device, out.ids);
        if (st != QD_OK) qd_fail(st, err, errlen, "warm-up: step %d: %s", i, qd_device_error_text(r->device));
    }
    free(out.ids);
    free(step);
    return st;
}

static qd_status rank_open(void *user, int index, struct qd_device device, void **state, char *err,
                           size_t errlen)
{
    struct program *program = user;
    if (index >= qd_model_get_tp(program->model))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "the model was loaded for %d ranks",
                       qd_model_get_tp(program->model));
    struct rank *r = calloc(1, sizeof *r);
    if (r == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a rank");
    r->config = qd_model_get_config(program->model);
    r->shard = qd_model_shard(program->model, index);
    r->rope = qd_model_get_rope(program->model);
    r->options = program->options;
    r->device = device;
    r->step_capacity = qd_step_capacity(&r->options.limits);
    r->weights = *qd_model_rank_weights(program->model, program->options.first_rank + index);
    qd_status st = allocate(r, err, errlen);
    if (st == QD_OK) st = warm_up(r, err, errlen);
    if (st != QD_OK) {
        rank_close(r);
        return st;
    }
    *state = r;
    return QD_OK;
}

static qd_status rank_step(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                           size_t errlen)
{
    const struct rank *r = state;
    QD_TRY(qd_step_validate(step, r->step_capacity, r->options.n_kv_blocks, (int32_t)r->config->vocab_size,
                            r->options.limits.max_seqs, err, errlen));
    if ((step->flags & QD_STEP_WANT_LOGITS) != 0 && r->options.no_logits)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "logits are wanted, and the program was opened without");
    qd_status st = run_step(r, step, out);
    return st == QD_OK ? st : qd_fail(st, err, errlen, "%s", qd_device_error_text(r->device));
}

static qd_status rank_finish(void *state, struct qd_step_output *out, char *err, size_t errlen)
{
    const struct rank *r = state;
    qd_status st = qd_device_finish_step(r->device, out->ids);
    return st == QD_OK ? st : qd_fail(st, err, errlen, "%s", qd_device_error_text(r->device));
}

qd_status qd_model_program(qd_model_t *model, const struct qd_program_options *options,
                           struct qd_program *out, char *err, size_t errlen)
{
    *out = (struct qd_program){0};
    if (qd_model_rank_weights(model, 0) == NULL)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "the model was loaded without weights");
    if (options->n_kv_blocks < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a pool of %d pages", options->n_kv_blocks);
    if (qd_step_capacity(&options->limits) == 0 || options->limits.max_tokens < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "limits of %d tokens a step",
                       options->limits.max_tokens);
    struct program *program = malloc(sizeof *program);
    if (program == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a program");
    *program = (struct program){.model = model, .options = *options};
    *out = (struct qd_program){
        .user = program,
        .rank_open = rank_open,
        .rank_step = rank_step,
        .rank_finish = rank_finish,
        .rank_close = rank_close,
    };
    return QD_OK;
}

void qd_model_program_free(struct qd_program *program)
{
    free(program->user);
    *program = (struct qd_program){0};
}

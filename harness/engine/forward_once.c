#include "harness/engine/forward_once.h"

#include <stdlib.h>

#include "kernels/base/size.h"

/* Tokens [begin, end) of the sequence; the positions from `row` on want logits. */
struct chunk {
    int32_t begin, end, row;
};

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t max_i32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* The chunk that starts at `begin`, cut where its logit rows would be too many. */
static struct chunk cut_chunk(const struct qd_forward *args, const struct qd_step_limits *limits,
                              int32_t begin)
{
    int32_t end = begin + min_i32(args->chunk, args->n_tokens - begin);
    int32_t row = min_i32(max_i32(begin, args->first_row), end);
    return (struct chunk){.begin = begin, .end = min_i32(end, row + limits->max_logit_rows), .row = row};
}

static qd_status fill_step(struct qd_step *step, const struct qd_step_limits *limits, const int32_t *tokens,
                           const struct chunk *c)
{
    int32_t n = c->end - c->begin, n_blocks = (int32_t)qd_div_up(c->end, QD_KV_BLOCK_SIZE);
    int32_t n_rows = c->end - c->row;
    QD_TRY(qd_step_begin(step, limits, n, 1, n_blocks, n_rows));
    step->flags = QD_STEP_WANT_LOGITS;
    for (int32_t i = 0; i < n; i++) {
        qd_step_token_source(step)[i] = tokens[c->begin + i];
        qd_step_position(step)[i] = c->begin + i;
        qd_step_slot_mapping(step)[i] = c->begin + i; /* page p holds positions 16p .. 16p+15 */
    }
    qd_step_cu_seqlens_q(step)[0] = 0;
    qd_step_cu_seqlens_q(step)[1] = n;
    qd_step_kv_len(step)[0] = c->end;
    qd_step_block_offset(step)[0] = 0;
    qd_step_block_offset(step)[1] = n_blocks;
    for (int32_t b = 0; b < n_blocks; b++) qd_step_block_table(step)[b] = b;
    for (int32_t i = 0; i < n_rows; i++) {
        qd_step_logit_row(step)[i] = c->row - c->begin + i;
        qd_step_sampling(step)[i] = (struct qd_sampling){.top_p = 1.0f, .slot = -1};
    }
    return QD_OK;
}

static qd_status check(const struct qd_step_limits *limits, const struct qd_forward *args, char *err,
                       size_t errlen)
{
    if (args->n_cached < 0 || args->n_tokens <= args->n_cached)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "%d tokens of which %d are cached", args->n_tokens,
                       args->n_cached);
    if (args->first_row < args->n_cached || args->first_row >= args->n_tokens)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "logits from position %d of %d", args->first_row,
                       args->n_tokens);
    if (args->chunk < 1 || args->chunk > limits->max_tokens || limits->max_logit_rows < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen,
                       "chunks of %d tokens and %d logit rows (a step holds %d tokens)", args->chunk,
                       limits->max_logit_rows, limits->max_tokens);
    if (qd_div_up(args->n_tokens, QD_KV_BLOCK_SIZE) > limits->max_blocks)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "%d tokens: a step holds %d pages", args->n_tokens,
                       limits->max_blocks);
    return QD_OK;
}

qd_status qd_forward_once(qd_group_t *group, const struct qd_step_limits *limits,
                          const struct qd_forward *args, char *err, size_t errlen)
{
    QD_TRY(check(limits, args, err, errlen));
    struct qd_step *step = calloc(1, qd_step_capacity(limits));
    if (step == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a step");
    qd_status st = QD_OK;
    for (struct chunk c = {.end = args->n_cached}; c.end < args->n_tokens;) {
        c = cut_chunk(args, limits, c.end);
        QD_TRY_GOTO(fill_step(step, limits, args->tokens, &c), st, done);
        QD_TRY_GOTO(qd_group_launch(group, step, err, errlen), st, done);
        struct qd_group_result result;
        QD_TRY_GOTO(qd_group_wait(group, &result, err, errlen), st, done);
        size_t vocab = (size_t)result.vocab_size;
        for (int32_t i = 0; i < result.n_ids; i++)
            args->row(args->arg, c.row + i, result.ids[i],
                      result.logits != NULL ? result.logits + (size_t)i * vocab : NULL);
    }
done:
    free(step);
    return st;
}

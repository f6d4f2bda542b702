#include "harness/ops/way.h"

#include <stdint.h>
#include <stdlib.h>

const char *qd_op_way_name(enum qd_op_way way)
{
    static const char *const names[QD_OP_N_WAYS] = {[QD_OP_WAY_AUTO] = "",
                                                    [QD_OP_WAY_ONE_SHOT] = "one_shot",
                                                    [QD_OP_WAY_TWO_SHOT] = "two_shot",
                                                    [QD_OP_WAY_OWN] = "own",
                                                    [QD_OP_WAY_NCCL] = "nccl"};
    return names[way];
}

static bool is_sum(const struct qd_op_case *c)
{
    return c->op == QD_OP_ALL_REDUCE || c->op == QD_OP_REDUCE_ADD_RMSNORM;
}

static bool has_choice(const struct qd_device_ops *ops, const struct qd_op_case *c)
{
    return ops->sum_limits != NULL && c->tp > 1 && (is_sum(c) || c->op == QD_OP_ALL_GATHER);
}

bool qd_op_has_way(const struct qd_device_ops *ops, const struct qd_op_case *c, enum qd_op_way way)
{
    if (!has_choice(ops, c)) return way == QD_OP_WAY_AUTO;
    switch (way) {
    case QD_OP_WAY_ONE_SHOT:
    case QD_OP_WAY_TWO_SHOT: return is_sum(c);
    case QD_OP_WAY_OWN: return c->op == QD_OP_ALL_GATHER;
    case QD_OP_WAY_NCCL: return true;
    default: return false;
    }
}

enum qd_op_way qd_op_own_way(const struct qd_device_ops *ops, const struct qd_op_case *c)
{
    if (!has_choice(ops, c)) return QD_OP_WAY_AUTO;
    if (!is_sum(c)) return QD_OP_WAY_OWN;
    return qd_op_message_bytes(c) > ops->sum_limits(c->tp).one_shot_bytes ? QD_OP_WAY_TWO_SHOT
                                                                          : QD_OP_WAY_ONE_SHOT;
}

enum qd_op_way qd_op_auto_way(const struct qd_device_ops *ops, const struct qd_op_case *c)
{
    bool by_nccl =
        has_choice(ops, c) && is_sum(c) && qd_op_message_bytes(c) > ops->sum_limits(c->tp).own_bytes;
    return by_nccl ? QD_OP_WAY_NCCL : qd_op_own_way(ops, c);
}

void qd_op_way_configure(enum qd_op_way way, struct qd_device_config *config)
{
    if (way != QD_OP_WAY_AUTO)
        config->collectives = way == QD_OP_WAY_NCCL ? QD_COLLECTIVES_NCCL : QD_COLLECTIVES_OWN;
    if (way == QD_OP_WAY_ONE_SHOT) config->shots = QD_SHOTS_ONE;
    if (way == QD_OP_WAY_TWO_SHOT) config->shots = QD_SHOTS_TWO;
}

/* ---- beside each other ---- */

size_t qd_op_message_bytes(const struct qd_op_case *c)
{
    size_t tokens = (size_t)c->n_tokens;
    if (c->tp == 1) return 0;
    if (is_sum(c)) return tokens * (size_t)c->shape.hidden_dim * sizeof(qd_bf16);
    if (c->op != QD_OP_ALL_GATHER) return 0;
    return tokens * (size_t)qd_op_vocab_rows(c) * sizeof(float) * (size_t)c->tp;
}

double qd_op_bus_factor(const struct qd_op_case *c)
{
    return (is_sum(c) ? 2.0 : 1.0) * (c->tp - 1) / c->tp;
}

static int compare_sizes(const void *a, const void *b)
{
    size_t x = ((const struct qd_op_pair *)a)->bytes, y = ((const struct qd_op_pair *)b)->bytes;
    return (x > y) - (x < y);
}

struct qd_op_crossover qd_op_crossover_find(struct qd_op_pair *pairs, size_t n)
{
    size_t i = n;
    qsort(pairs, n, sizeof *pairs, compare_sizes);
    while (i > 0 && pairs[i - 1].b_us < pairs[i - 1].a_us) i--;
    return (struct qd_op_crossover){.below = i > 0 ? pairs[i - 1].bytes : 0,
                                    .from = i < n ? pairs[i].bytes : SIZE_MAX};
}

bool qd_op_crossover_agrees(struct qd_op_crossover crossover, size_t limit)
{
    return limit >= crossover.below && (crossover.from == SIZE_MAX || limit < crossover.from);
}

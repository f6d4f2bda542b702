/* Groups of ranks over a device and a program that a test made up. */
#ifndef QD_TESTS_SUPPORT_GROUP_CONFIG_H
#define QD_TESTS_SUPPORT_GROUP_CONFIG_H

#include "kernels/group.h"

/* tp ranks of replica 3, with a vocabulary of 100. */
static inline struct qd_group_config group_config_of(const struct qd_device_ops *ops, int tp,
                                                     const struct qd_step_limits *limits,
                                                     const struct qd_program *program)
{
    return (struct qd_group_config){
        .ops = ops,
        .tp = tp,
        .device = {.replica = 3, .n_ranks = tp, .limits = *limits},
        .vocab_size = 100,
        .program = *program,
    };
}

#endif

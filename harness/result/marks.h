/* Marks: what makes a run less than a clean measurement. A mark never hides a number; the report prints it
 * beside the number and draws fewer conclusions. */
#ifndef QD_HARNESS_RESULT_MARKS_H
#define QD_HARNESS_RESULT_MARKS_H

#include <stdint.h>

/* X(name, bit, text): texts are what result.json holds and what readers compare. */
#define QD_MARK_LIST(X)                                                                                      \
    X(QD_MARK_MORE_RANKS_THAN_CORES, 0, "more ranks than cores: no TP or DP conclusion")                     \
    X(QD_MARK_FAILED_REQUESTS, 1, "requests failed: numbers are over the completed ones")                    \
    X(QD_MARK_SHARED_MACHINE, 2, "shared machine: other processes took more than 5 % of the cores")          \
    X(QD_MARK_STEAL_TIME, 3, "steal time: the hypervisor took more than 2 % of the cores")                   \
    X(QD_MARK_SHARED_GPUS, 4, "ranks shared a GPU: not comparable")                                          \
    X(QD_MARK_THROTTLED_GPU, 5, "throttled GPU: power, heat or hardware held it down at the end of the run") \
    X(QD_MARK_FOREIGN_GPU, 6, "foreign processes on a GPU of the run")                                       \
    X(QD_MARK_VIRTUAL_TIME, 7, "virtual time: steps took what they were told to, nothing was measured")      \
    X(QD_MARK_UNKNOWN, 8, "a mark this version does not know: see the run's file")

enum {
#define QD_MARK_ENUM(name, bit, text) name = 1 << bit,
    QD_MARK_LIST(QD_MARK_ENUM)
#undef QD_MARK_ENUM
};

/* Text of a single mark; NULL when `mark` is not one of the list. */
const char *qd_mark_text(uint32_t mark);

/* The mark with exactly that text, or QD_MARK_UNKNOWN. */
uint32_t qd_mark_find(const char *text);

#endif

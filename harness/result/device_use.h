/* What a run's devices did: graphs that were replayed, and where the steps' time on the device went.
 * bench/METRICS.md defines every figure.
 */
#ifndef QD_HARNESS_RESULT_DEVICE_USE_H
#define QD_HARNESS_RESULT_DEVICE_USE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "harness/engine/engine.h"

/* Over the replicas; every share is 0 where nothing is counted. */
struct qd_device_use {
    struct qd_device_stats total; /* times of opening and of the last step: the longest */
    double hit_rate_steps;        /* replayed / all steps */
    double hit_rate_tokens;       /* of the tokens, without padding */
    double padding_share;         /* of the tokens that replays computed */
    double unexplained_share;     /* of the timed steps' span: what no segment accounts for */
};

struct qd_device_use qd_device_use_of(const struct qd_replica_stats *replicas, int dp);

/* `graphs` and `device_time` of result.json, null where the device has no graphs or measures no time. */
void qd_device_use_put(cJSON *object, const struct qd_device_use *use, bool *ok);

/* What timing the ops costs a step, in words; of the device "emu" only how many events there are, for its
 * clock says nothing of a GPU's. "" where it was not measured. */
void qd_device_use_describe_cost(const struct qd_timing_cost *cost, const char *device, char *text,
                                 size_t len);

/* The counts and times of one replica, into its own object. */
void qd_device_stats_put(cJSON *object, const struct qd_device_stats *stats, bool *ok);

#endif

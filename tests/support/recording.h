/* The steps of one replica in memory, as `run --record` writes them, and executed again without an engine:
 * the same ids must come, and the logits behind them are seen, which an engine does not ask for.
 */
#ifndef QD_TESTS_SUPPORT_RECORDING_H
#define QD_TESTS_SUPPORT_RECORDING_H

#include <stdio.h>

#include "harness/engine/instance.h"

struct recording {
    FILE *stream;
    char *bytes; /* a step file, whole once the stream is closed */
    size_t n_bytes;
};

/* Options of one replica then record its steps into `recording`, which outlives the instance. */
void recording_begin(struct recording *recording, struct qd_instance_options *options);

/* Once the instance is closed: executes all steps, the oldest first, on a fresh one of the same options and
 * calls row(arg, sampling, logits [vocab]) for every id that was sampled. Fails the test when another id is
 * sampled than was recorded. Empties the recording. */
void recording_replay(struct recording *recording, const struct qd_instance_options *options,
                      void (*row)(void *arg, const struct qd_sampling *sampling, const float *logits,
                                  int32_t vocab_size),
                      void *arg);

#endif

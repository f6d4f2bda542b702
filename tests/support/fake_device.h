/* A device whose model is a hash: every step is checked and carried out on a KV pool that remembers token
 * ids, so that a wrong page, position, order or token source changes the tokens, and what a request should
 * get can be computed without an engine.
 */
#ifndef QD_TESTS_SUPPORT_FAKE_DEVICE_H
#define QD_TESTS_SUPPORT_FAKE_DEVICE_H

#include <stdatomic.h>
#include <stdint.h>

#include "kernels/group.h"

enum { FAKE_MAX_RECORDED = 4096 };

struct fake_device {
    /* set by the test before opening */
    struct qd_step_limits limits;
    int32_t n_kv_blocks, vocab_size;
    int64_t step_us;   /* a step takes this long */
    int64_t fail_step; /* this step fails; -1: none */
    int64_t bad_step;  /* this step samples an id outside the vocabulary; -1: none */

    /* what rank 0 saw; read it when the engine is closed or idle */
    _Atomic int n_steps;
    int n_tokens[FAKE_MAX_RECORDED], n_seqs[FAKE_MAX_RECORDED]; /* of the first steps */
};

/* Opens a group of tp ranks over `device`, which outlives it. */
qd_status fake_group_open(struct fake_device *device, int replica, int tp, qd_group_t **out, char *err,
                          size_t errlen);

/* The id that follows tokens[n] when it is sampled as the output_index-th of a request with this seed. */
int32_t fake_next_id(const int32_t *tokens, int32_t n, uint64_t seed, uint64_t output_index,
                     int32_t vocab_size);

#endif

/* An engine over fake devices (or `null`), and readers of its events, for the engine's tests. */
#ifndef QD_TESTS_SUPPORT_FAKE_ENGINE_H
#define QD_TESTS_SUPPORT_FAKE_ENGINE_H

#include "harness/engine/engine.h"
#include "tests/support/fake_device.h"
#include "tests/support/replies.h"

enum { FAKE_MAX_DP = 4 };

/* Zero-initialise, set what differs, open. */
struct fake_engine {
    struct qd_engine_config config; /* defaults where 0: dp 1, budget 64, 8 sequences, length 64, 33 pages,
                                     * vocabulary 97, 4096 requests */
    bool null_device;               /* `null` instead of the fake, which executes */
    int64_t null_step_ns;           /* there */
    struct qd_null_steps null_steps[FAKE_MAX_DP]; /* likewise */
    /* Of a reader that reads no further, as at a stop string: it aborts the request. NULL: never. */
    bool (*gives_up)(const struct qd_event *event);
    struct fake_device devices[FAKE_MAX_DP];
    qd_group_t *groups[FAKE_MAX_DP];
    qd_engine_t *engine;
};

/* Fails the test when it cannot. fail_step and bad_step are set to none before `configure` (may be NULL). */
void fake_engine_open(struct fake_engine *fake, void (*configure)(struct fake_engine *fake));
void fake_engine_close(struct fake_engine *fake);

/* Polls until n requests have ended, sorting events into replies[id - first_id] (n_replies of them, each with
 * room for max_tokens); checks the order of every request's events. Fails the test after 30 s without one. */
void fake_engine_collect(struct fake_engine *fake, size_t n_ends, struct reply *replies, size_t n_replies,
                         uint64_t first_id, int32_t max_tokens);

/* A request of n_prompt ids made from `seed`; the prompt's memory is the caller's [n_prompt]. */
struct qd_request fake_request(int32_t *prompt, int32_t n_prompt, int32_t max_tokens, uint64_t seed,
                               int32_t vocab_size);

/* Fails the test unless the reply is what the fake model says, token by token. */
void assert_reply_is_right(const struct reply *reply, const struct qd_request *request, int32_t vocab_size);

#endif

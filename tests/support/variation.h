/* The same requests served in another way: other budgets, company, replicas, pools. What a request gets is to
 * be the same, which the tests of batch invariance judge; that each way is what its name says is judged here.
 */
#ifndef QD_TESTS_SUPPORT_VARIATION_H
#define QD_TESTS_SUPPORT_VARIATION_H

#include "harness/engine/instance.h"
#include "tests/support/replies.h"

/* What is 0 stays as the options have it. */
struct variation {
    const char *name;
    int64_t budget, seqs;
    int64_t n_kv_blocks; /* too few for all: some must be preempted, otherwise none may be */
    int dp, n_threads;
    size_t n_at_once;  /* 0: all in the same step */
    int64_t threshold; /* long_prefill_token_threshold */
    bool async, eager;
    bool prefix_caching; /* the same requests were served before, and must be hit */
};

/* Options with what the variation changes. */
struct qd_instance_options variation_options(const struct variation *v, struct qd_instance_options options);

/* Opens an instance of these options, serves the requests and closes it. Free with replies_free. */
struct reply *variation_serve(const struct variation *v, const struct qd_instance_options *options,
                              const struct qd_request *requests, size_t n);

enum { MAX_HASHED_REQUESTS = 16, MAX_HASHED_TOKENS = 64 };

/* Hashes of the logits behind every token of every request; 0: not seen yet. Zero-initialise. */
struct logit_hashes {
    uint64_t of[MAX_HASHED_REQUESTS][MAX_HASHED_TOKENS];
};

/* As variation_serve by one replica, and then its steps once more without an engine: the same ids must be
 * sampled, from logits that are, bit for bit, those of `hashes`, where those of the first variation are kept.
 * Requests have the seeds requests[0].seed + i. */
struct reply *variation_replay(const struct variation *v, const struct qd_instance_options *options,
                               const struct qd_request *requests, size_t n, struct logit_hashes *hashes);

/* Fails the test, naming `what`, the variation and the request, unless the tokens and the ends are equal. */
void assert_same_replies(const char *what, const struct variation *v, const struct qd_request *requests,
                         const struct reply *expected, const struct reply *replies, size_t n);

#endif

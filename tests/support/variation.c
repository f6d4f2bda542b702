#include "tests/support/variation.h"

#include "kernels/base/hash.h"
#include "tests/support/recording.h"
#include "tests/support/test.h"
#include "tests/support/tiny.h"
#include "tests/support/tokenizer.h"

struct qd_instance_options variation_options(const struct variation *v, struct qd_instance_options options)
{
    options.dp = v->dp > 0 ? v->dp : 1;
    options.n_threads = v->n_threads;
    options.max_num_batched_tokens = v->budget;
    if (v->seqs > 0) options.max_num_seqs = v->seqs;
    if (v->n_kv_blocks > 0) options.n_kv_blocks = v->n_kv_blocks;
    options.prefix_caching = v->prefix_caching;
    options.async_scheduling = v->async;
    options.enforce_eager = v->eager;
    options.long_prefill_token_threshold = v->threshold;
    return options;
}

static void check_stats(const struct variation *v, qd_engine_t *engine, int dp, const struct reply *replies,
                        size_t n)
{
    uint64_t n_preemptions = 0, n_recomputed = 0, n_hits = 0, n_noticed = 0;
    for (int i = 0; i < dp; i++) {
        struct qd_replica_stats stats = qd_engine_stats(engine, i);
        n_preemptions += stats.n_preemptions;
        n_recomputed += stats.n_recomputed_tokens;
        n_hits += stats.n_hit_tokens + stats.n_rehit_tokens;
    }
    for (size_t i = 0; i < n; i++) {
        n_noticed += (uint64_t)replies[i].preemptions;
        assert_int_equal(replies[i].replica, i % (size_t)dp);
    }
    assert_int_equal(n_preemptions, n_noticed);
    assert_int_equal(n_hits > 0, v->prefix_caching);
    if (v->n_kv_blocks > 0 ? n_preemptions < 2 || n_recomputed == 0 : n_preemptions > 0)
        fail_msg("%s: %llu preemptions, %llu tokens recomputed", v->name, (unsigned long long)n_preemptions,
                 (unsigned long long)n_recomputed);
}

struct reply *variation_serve(const struct variation *v, const struct qd_instance_options *options,
                              const struct qd_request *requests, size_t n)
{
    qd_instance_t *instance = open_instance(options);
    qd_engine_t *engine = qd_instance_engine(instance);
    if (v->prefix_caching) {
        replies_free(serve(engine, requests, n, v->n_at_once));
        qd_engine_reset_stats(engine);
    }
    struct reply *replies = serve(engine, requests, n, v->n_at_once);
    check_stats(v, engine, options->dp, replies, n);
    qd_instance_close(instance);
    return replies;
}

/* Of one replay. */
struct judging {
    const struct variation *v;
    uint64_t first_seed;
    size_t n_requests, n_rows;
    struct logit_hashes *hashes;
};

static void judge_row(void *arg, const struct qd_sampling *sampling, const float *logits, int32_t vocab_size)
{
    struct judging *judging = arg;
    uint64_t request = sampling->seed - judging->first_seed, index = sampling->output_index;
    assert_true(request < judging->n_requests && index < MAX_HASHED_TOKENS);
    uint64_t hash = qd_hash(QD_HASH_START, logits, (size_t)vocab_size * sizeof *logits);
    uint64_t *expected = &judging->hashes->of[request][index];
    if (*expected == 0) *expected = hash;
    if (*expected != hash)
        fail_msg("%s: request %llu: the logits of output %llu differ", judging->v->name,
                 (unsigned long long)request, (unsigned long long)index);
    judging->n_rows++;
}

struct reply *variation_replay(const struct variation *v, const struct qd_instance_options *options,
                               const struct qd_request *requests, size_t n, struct logit_hashes *hashes)
{
    struct qd_instance_options recorded = *options;
    struct recording recording;
    struct judging judging = {.v = v, .first_seed = requests[0].seed, .n_requests = n, .hashes = hashes};
    size_t n_tokens = 0;
    assert_true(n <= MAX_HASHED_REQUESTS);
    recording_begin(&recording, &recorded);
    struct reply *replies = variation_serve(v, &recorded, requests, n);
    recording_replay(&recording, &recorded, judge_row, &judging);
    for (size_t i = 0; i < n; i++) n_tokens += (size_t)replies[i].n_tokens;
    assert_true(judging.n_rows >= n_tokens);
    return replies;
}

void assert_same_replies(const char *what, const struct variation *v, const struct qd_request *requests,
                         const struct reply *expected, const struct reply *replies, size_t n)
{
    char where[128];
    for (size_t i = 0; i < n; i++) {
        snprintf(where, sizeof where, "%s, %s: request %zu of %d tokens", what, v->name, i,
                 requests[i].n_prompt);
        assert_same_ids(replies[i].tokens, (size_t)replies[i].n_tokens, expected[i].tokens,
                        (size_t)expected[i].n_tokens, where);
        if (replies[i].finish != expected[i].finish) fail_msg("%s ended otherwise", where);
    }
}

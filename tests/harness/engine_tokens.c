/* What a request gets does not depend on how it was batched, and ends where it should. */
#include "tests/support/test.h"

#include "tests/support/fake_engine.h"

enum { N_REQUESTS = 40, MAX_TOKENS = 30, MAX_PROMPT = 33 };

struct workload {
    int32_t prompts[N_REQUESTS][MAX_PROMPT];
    struct qd_request requests[N_REQUESTS];
    uint64_t ids[N_REQUESTS];
};

static void make_workload(struct workload *w, int32_t vocab_size)
{
    for (int i = 0; i < N_REQUESTS; i++)
        w->requests[i] = fake_request(w->prompts[i], 1 + (i * 7) % MAX_PROMPT, 1 + (i * 11) % MAX_TOKENS,
                                      (uint64_t)i, vocab_size);
}

/* Runs the workload and checks every token; returns the engine's preemptions. */
static uint64_t run_in_mode(bool async, int dp, int32_t budget, int32_t n_seqs, int32_t n_kv_blocks)
{
    struct workload w;
    struct fake_engine fake = {
        .config = {
            .dp = dp, .max_num_batched_tokens = budget, .max_num_seqs = n_seqs, .n_kv_blocks = n_kv_blocks,
            .async_scheduling = async}};
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    make_workload(&w, fake.config.vocab_size);
    struct reply *replies = replies_make(N_REQUESTS, MAX_TOKENS);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, w.requests, N_REQUESTS, w.ids, err, sizeof err), err);
    fake_engine_collect(&fake, N_REQUESTS, replies, N_REQUESTS, 0, MAX_TOKENS);

    uint64_t n_prompt = 0, n_output = 0, n_preemptions = 0, reply_preemptions = 0;
    for (int i = 0; i < N_REQUESTS; i++) {
        assert_int_equal(w.ids[i], i);
        assert_int_equal(replies[i].finish, QD_FINISH_LENGTH);
        assert_int_equal(replies[i].replica, i % dp);
        assert_int_equal(replies[i].n_tokens, w.requests[i].max_tokens);
        assert_reply_is_right(&replies[i], &w.requests[i], fake.config.vocab_size);
        n_prompt += (uint64_t)w.requests[i].n_prompt;
        n_output += (uint64_t)replies[i].n_tokens;
        reply_preemptions += (uint64_t)replies[i].preemptions;
    }
    uint64_t n_decode = 0, n_prefill = 0, n_recomputed = 0, n_finished = 0;
    for (int r = 0; r < dp; r++) {
        struct qd_replica_stats stats = qd_engine_stats(fake.engine, r);
        n_decode += stats.n_decode_tokens;
        n_prefill += stats.n_prefill_tokens;
        n_recomputed += stats.n_recomputed_tokens;
        n_preemptions += stats.n_preemptions;
        n_finished += stats.n_finished;
        assert_in_range(stats.peak_running, 1, n_seqs);
        assert_in_range(stats.peak_kv_blocks, 1, n_kv_blocks - 1);
        assert_int_equal(stats.n_steps, atomic_load(&fake.devices[r].n_steps));
    }
    /* The last token of a request is sampled but never computed. */
    assert_int_equal(n_decode, n_output - N_REQUESTS);
    assert_int_equal(n_prefill, n_prompt + n_recomputed);
    assert_int_equal(n_finished, N_REQUESTS);
    assert_int_equal(n_preemptions, reply_preemptions);
    assert_int_equal(n_recomputed > 0, n_preemptions > 0);
    fake_engine_close(&fake);
    replies_free(replies);
    return n_preemptions;
}

/* Both ways of scheduling; the preemptions of the one that had fewer. */
static uint64_t run_workload(int dp, int32_t budget, int32_t n_seqs, int32_t n_kv_blocks)
{
    uint64_t sync = run_in_mode(false, dp, budget, n_seqs, n_kv_blocks);
    uint64_t async = run_in_mode(true, dp, budget, n_seqs, n_kv_blocks);
    return sync < async ? sync : async;
}

static void tokens_do_not_depend_on_batching(void **state)
{
    (void)state;
    const int32_t budgets[] = {1, 7, 16, 64, 1000};
    for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++)
        assert_int_equal(run_workload(1, budgets[i], 8, 33), 0);
    run_workload(1, 64, 1, 33);
    for (int dp = 2; dp <= FAKE_MAX_DP; dp++) run_workload(dp, 32, 5, 33);
}

static void tokens_survive_preemption(void **state)
{
    (void)state;
    /* 4 pages hold one longest request and little more. */
    assert_true(run_workload(1, 64, 8, 5) > 0);
    assert_true(run_workload(1, 9, 8, 6) > 0);
    assert_true(run_workload(2, 16, 4, 6) > 0);
}

static struct reply *run_one(struct fake_engine *fake, const struct qd_request *request)
{
    struct reply *reply = replies_make(1, 64);
    uint64_t id;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_engine_submit(fake->engine, request, &id, err, sizeof err), err);
    fake_engine_collect(fake, 1, reply, 1, id, 64);
    return reply;
}

static int32_t eos_id;

static void set_eos(struct fake_engine *fake)
{
    fake->config.n_eos = 1;
    fake->config.eos_ids = &eos_id;
}

static void stop_ids_end_a_request_and_are_delivered(void **state)
{
    struct fake_engine fake = {.config = {.async_scheduling = *(bool *)*state}};
    int32_t prompt[5];
    fake_engine_open(&fake, NULL);
    struct qd_request request = fake_request(prompt, 5, 12, 77, fake.config.vocab_size);
    struct reply *whole = run_one(&fake, &request);
    assert_int_equal(whole->finish, QD_FINISH_LENGTH);
    assert_int_equal(whole->n_tokens, 12);

    int32_t stops[2] = {-5, whole->tokens[4]};
    int expected = 0;
    while (whole->tokens[expected] != stops[1]) expected++;
    request.stop_ids = stops;
    request.n_stop_ids = 2;
    struct reply *stopped = run_one(&fake, &request);
    assert_int_equal(stopped->finish, QD_FINISH_STOP);
    assert_int_equal(stopped->n_tokens, expected + 1);
    assert_memory_equal(stopped->tokens, whole->tokens, (size_t)(expected + 1) * sizeof(int32_t));

    /* A stop id as the very last token is a stop, as in vLLM. */
    request.max_tokens = expected + 1;
    struct reply *both = run_one(&fake, &request);
    assert_int_equal(both->finish, QD_FINISH_STOP);
    fake_engine_close(&fake);
    replies_free(both);
    replies_free(stopped);
    replies_free(whole);
}

static void eos_ends_a_request_unless_ignored(void **state)
{
    struct fake_engine fake = {.config = {.async_scheduling = *(bool *)*state}};
    int32_t prompt[5];
    /* The third token of this request becomes the EOS id. */
    struct qd_request request = fake_request(prompt, 5, 12, 77, 97);
    int32_t sequence[8];
    memcpy(sequence, prompt, sizeof prompt);
    for (int32_t i = 0; i < 3; i++) sequence[5 + i] = fake_next_id(sequence, 5 + i, 77, (uint64_t)i, 97);
    eos_id = sequence[7];
    fake_engine_open(&fake, set_eos);
    struct reply *stopped = run_one(&fake, &request);
    assert_int_equal(stopped->finish, QD_FINISH_STOP);
    assert_in_range(stopped->n_tokens, 1, 3);
    assert_int_equal(stopped->tokens[stopped->n_tokens - 1], eos_id);
    request.ignore_eos = true;
    struct reply *whole = run_one(&fake, &request);
    assert_int_equal(whole->finish, QD_FINISH_LENGTH);
    assert_int_equal(whole->n_tokens, 12);
    fake_engine_close(&fake);
    replies_free(whole);
    replies_free(stopped);
}

static void a_device_that_does_not_execute_has_no_eos(void **state)
{
    (void)state;
    /* With a vocabulary of one id, every token is the EOS id. */
    struct fake_engine fake = {.null_device = true, .config = {.vocab_size = 1}};
    int32_t prompt[3];
    eos_id = 0;
    fake_engine_open(&fake, set_eos);
    struct qd_request request = fake_request(prompt, 3, 9, 1, 1);
    struct reply *reply = run_one(&fake, &request);
    assert_int_equal(reply->finish, QD_FINISH_LENGTH);
    assert_int_equal(reply->n_tokens, 9);
    fake_engine_close(&fake);
    replies_free(reply);
}

static void output_is_cut_at_max_model_len(void **state)
{
    struct fake_engine fake = {.config = {.async_scheduling = *(bool *)*state}};
    int32_t prompt[63];
    fake_engine_open(&fake, NULL);
    struct qd_request request = fake_request(prompt, 50, 1000000, 5, fake.config.vocab_size);
    struct reply *reply = run_one(&fake, &request);
    assert_int_equal(reply->finish, QD_FINISH_LENGTH);
    assert_int_equal(reply->n_tokens, 14);
    assert_reply_is_right(reply, &request, fake.config.vocab_size);
    replies_free(reply);
    request = fake_request(prompt, 63, INT32_MAX, 5, fake.config.vocab_size);
    reply = run_one(&fake, &request);
    assert_int_equal(reply->n_tokens, 1);
    fake_engine_close(&fake);
    replies_free(reply);
}

static bool modes[] = {false, true};
#define BOTH_MODES(test) {#test, test, NULL, NULL, &modes[0]}, {#test " (async)", test, NULL, NULL, &modes[1]}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_do_not_depend_on_batching),
        cmocka_unit_test(tokens_survive_preemption),
        BOTH_MODES(stop_ids_end_a_request_and_are_delivered),
        BOTH_MODES(eos_ends_a_request_unless_ignored),
        cmocka_unit_test(a_device_that_does_not_execute_has_no_eos),
        BOTH_MODES(output_is_cut_at_max_model_len),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

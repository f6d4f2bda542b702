#include "tests/support/fake_engine.h"

#include "harness/engine/prepare.h"
#include "kernels/base/clock.h"
#include "tests/support/test.h"

enum { POLL_MAX = 256 };

static void set_default(int32_t *field, int32_t value)
{
    if (*field == 0) *field = value;
}

void fake_engine_open(struct fake_engine *fake, void (*configure)(struct fake_engine *fake))
{
    struct qd_engine_config *config = &fake->config;
    char err[QD_ERR_LEN] = "";
    if (config->dp == 0) config->dp = 1;
    set_default(&config->max_num_batched_tokens, 64);
    set_default(&config->max_num_seqs, 8);
    set_default(&config->max_model_len, 64);
    set_default(&config->n_kv_blocks, 33);
    set_default(&config->vocab_size, 97);
    if (config->max_requests == 0) config->max_requests = 4096;
    config->executes = !fake->null_device;
    const struct qd_scheduler_config scheduler = {.max_num_batched_tokens = config->max_num_batched_tokens,
                                                  .max_num_seqs = config->max_num_seqs,
                                                  .max_model_len = config->max_model_len,
                                                  .n_kv_blocks = config->n_kv_blocks};
    for (int i = 0; i < config->dp; i++) {
        fake->devices[i].limits = qd_prepare_limits(&scheduler);
        fake->devices[i].n_kv_blocks = config->n_kv_blocks;
        fake->devices[i].vocab_size = config->vocab_size;
        fake->devices[i].fail_step = fake->devices[i].bad_step = -1;
    }
    if (configure != NULL) configure(fake);
    for (int i = 0; i < config->dp; i++) {
        const struct qd_group_config null_group = {
            .ops = qd_device_find("null"),
            .tp = 1,
            .device = {.replica = i, .n_ranks = 1, .limits = fake->devices[i].limits},
            .vocab_size = config->vocab_size,
            .null_step_ns = fake->null_step_ns,
            .null_steps = fake->null_steps[i],
        };
        if (fake->null_device)
            ASSERT_OK(qd_group_open(&null_group, &fake->groups[i], err, sizeof err), err);
        else
            ASSERT_OK(fake_group_open(&fake->devices[i], i, 1, &fake->groups[i], err, sizeof err), err);
    }
    config->groups = fake->groups;
    ASSERT_OK(qd_engine_open(config, &fake->engine, err, sizeof err), err);
}

void fake_engine_close(struct fake_engine *fake)
{
    qd_engine_close(fake->engine);
    for (int i = 0; i < fake->config.dp; i++) qd_group_close(fake->groups[i]);
}

void fake_engine_collect(struct fake_engine *fake, size_t n_ends, struct reply *replies, size_t n_replies,
                         uint64_t first_id, int32_t max_tokens)
{
    struct qd_event events[POLL_MAX];
    while (n_ends > 0) {
        size_t n = qd_engine_poll_events(fake->engine, events, POLL_MAX, INT64_C(30000000000));
        if (n == 0) fail_msg("no event within 30 s; %zu requests have not ended", n_ends);
        for (size_t i = 0; i < n; i++) {
            assert_in_range(events[i].request, first_id, first_id + n_replies - 1);
            reply_take(&replies[events[i].request - first_id], &events[i], max_tokens);
            n_ends -= events[i].finish != QD_FINISH_NONE;
            if (fake->gives_up != NULL && fake->gives_up(&events[i]))
                qd_engine_abort(fake->engine, events[i].request);
        }
    }
}

struct qd_request fake_request(int32_t *prompt, int32_t n_prompt, int32_t max_tokens, uint64_t seed,
                               int32_t vocab_size)
{
    for (int32_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)((seed * 7919 + (uint64_t)i * (seed + 3)) % (uint64_t)vocab_size);
    return (struct qd_request){
        .prompt = prompt, .n_prompt = n_prompt, .max_tokens = max_tokens, .top_p = 1.0f, .seed = seed};
}

void assert_reply_is_right(const struct reply *reply, const struct qd_request *request, int32_t vocab_size)
{
    size_t room = (size_t)request->n_prompt + (size_t)reply->n_tokens;
    int32_t *sequence = calloc(room, sizeof *sequence);
    assert_non_null(sequence);
    memcpy(sequence, request->prompt, (size_t)request->n_prompt * sizeof *sequence);
    for (int32_t i = 0; i < reply->n_tokens; i++) {
        int32_t n = request->n_prompt + i;
        sequence[n] = fake_next_id(sequence, n, request->seed, (uint64_t)i, vocab_size);
        if (sequence[n] != reply->tokens[i])
            fail_msg("output %d is %d, expected %d", i, reply->tokens[i], sequence[n]);
    }
    free(sequence);
}

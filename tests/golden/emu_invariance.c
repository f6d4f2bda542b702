/* On emulated GPUs with batch_invariant a request's tokens and the logits behind them do not depend on what
 * it was batched with, bit by bit: the whole stack over a random model as small as these devices take.
 * Recorded steps are replayed op by op, so graphs are compared with that, too.
 */
#include "tests/support/test.h"

#include "kernels/base/random.h"
#include "tests/support/files.h"
#include "tests/support/random_model.h"
#include "tests/support/tiny.h"
#include "tests/support/variation.h"

enum { N_REQUESTS = 6, MAX_PROMPT = 48, VOCAB = 127, TINY_POOL = 5 };

/* Prompts of 1 token, of whole pages and of one less, which soon need another page, shorter and longer than
 * the budgets. */
static const int32_t prompt_lens[N_REQUESTS] = {16, 31, 15, 1, 47, 32};

static const struct variation alone = {"alone", .budget = 64, .n_at_once = 1};

static const struct variation variations[] = {
    {"budget 8", .budget = 8, .eager = true},
    {"budget 64", .budget = 64},
    {"two at a time", .budget = 17, .n_at_once = 2},
    {"DP 2", .budget = 64, .dp = 2},
    {"DP 3, async", .budget = 17, .dp = 3, .async = true},
    {"DP 4", .budget = 17, .dp = 4},
    {"tiny pool", .budget = 64, .n_kv_blocks = TINY_POOL},
    {"prefix caching", .budget = 64, .prefix_caching = true},
    {"async, prefix caching, tiny pool", .budget = 17, .n_kv_blocks = TINY_POOL, .prefix_caching = true,
     .async = true},
    {"async, long prefill threshold", .budget = 64, .threshold = 19, .async = true},
};
enum { N_VARIATIONS = sizeof variations / sizeof *variations };

struct fixture {
    struct temp_dir dir;
    int32_t prompts[N_REQUESTS][MAX_PROMPT];
    struct qd_request requests[N_REQUESTS];
};

/* Greedy and sampled requests in turn. */
static void make_requests(struct fixture *f)
{
    for (int i = 0; i < N_REQUESTS; i++) {
        for (int t = 0; t < prompt_lens[i]; t++)
            f->prompts[i][t] = (int32_t)(qd_philox(7, (uint64_t)i, (uint64_t)t).word[0] % VOCAB);
        f->requests[i] = (struct qd_request){
            .prompt = f->prompts[i],
            .n_prompt = prompt_lens[i],
            .max_tokens = 4 + i * 5 % 3,
            .temperature = i % 2 == 0 ? 0.0f : 4.0f,
            .top_p = i % 2 == 0 ? 1.0f : 0.9f,
            .top_k = i % 4 == 1 ? 20 : 0,
            .seed = 300 + (uint64_t)i,
        };
    }
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    struct qd_model_config config = small_config(true);
    config.hidden_dim = config.ffn_dim = config.head_dim = 64;
    config.n_layers = 1;
    config.n_heads = 2;
    config.n_kv_heads = 1;
    config.vocab_size = VOCAB;
    config.max_position_embeddings = 64;
    f->dir = temp_dir_create();
    write_model(f->dir.path, &config, &(struct model_files){.dtype = "BF16"});
    make_requests(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static struct qd_instance_options options_of(const struct fixture *f, const struct variation *v, int tp)
{
    return variation_options(v, (struct qd_instance_options){.model = f->dir.path,
                                                             .device = "emu",
                                                             .tp = tp,
                                                             .max_num_seqs = 4,
                                                             .n_kv_blocks = 65,
                                                             .memory_utilization = 0.9,
                                                             .batch_invariant = true,
                                                             .max_requests = 64});
}

/* Every `stride`-th variation against each request alone. */
static void check(const struct fixture *f, int tp, int stride)
{
    struct logit_hashes hashes = {0};
    struct qd_instance_options options = options_of(f, &alone, tp);
    struct reply *expected = variation_replay(&alone, &options, f->requests, N_REQUESTS, &hashes);
    for (int i = 0; i < N_VARIATIONS; i += stride) {
        const struct variation *v = &variations[i];
        options = options_of(f, v, tp);
        struct reply *replies = v->dp > 1 ? variation_serve(v, &options, f->requests, N_REQUESTS)
                                          : variation_replay(v, &options, f->requests, N_REQUESTS, &hashes);
        assert_same_replies("emu", v, f->requests, expected, replies, N_REQUESTS);
        replies_free(replies);
    }
    replies_free(expected);
}

static void one_rank(void **state)
{
    check(*state, 1, IS_SANITIZED ? 8 : 1);
}

static void two_ranks(void **state)
{
    check(*state, 2, IS_SANITIZED ? N_VARIATIONS : 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_rank, setup, teardown),
        cmocka_unit_test_setup_teardown(two_ranks, setup, teardown),
    };
    return cmocka_run_group_tests_name("emu invariance", tests, NULL, NULL);
}

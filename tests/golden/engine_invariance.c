/* A request's tokens do not depend on what it was batched with: the whole stack over the trained tiny model, its
 * own held-out text as prompts, bit by bit within one instruction set and number of ranks. */
#include "tests/support/test.h"

#include <math.h>

#include "harness/engine/forward_once.h"
#include "harness/workload/workload.h"
#include "tests/support/devices.h"
#include "tests/support/tiny.h"
#include "tests/support/tokenizer.h"
#include "tests/support/variation.h"

enum { N_REQUESTS = 12, N_CHATS = 8, TINY_POOL = 14, MAX_TEXT = 256 };

/* Prompts of 1 token, of whole pages, of one more and one less, shorter and longer than the budgets. */
static const int32_t prompt_lens[N_REQUESTS] = {31, 1, 16, 17, 2, 33, 15, 64, 65, 70, 160, 127};

/* More than twice what a logit differs by between one rank and two (0.088 was seen, with both instruction sets). */
static const float MARGIN = 0.25f;

/* Each request alone, its prompt in one piece. */
static const struct variation alone = {"alone", .budget = 4096, .n_at_once = 1};

static const struct variation variations[] = {
    {"budget 16", .budget = 16},
    {"budget 17", .budget = 17},
    {"budget 64", .budget = 64},
    {"budget 256", .budget = 256},
    {"budget 4096", .budget = 4096},
    {"one at a time in chunks", .budget = 16, .n_at_once = 1},
    {"three at a time", .budget = 64, .n_at_once = 3},
    {"three at a time, budget 17", .budget = 17, .n_at_once = 3},
    {"three sequences", .budget = 256, .seqs = 3},
    {"DP 2", .budget = 64, .dp = 2},
    {"DP 3", .budget = 4096, .dp = 3},
    {"DP 4", .budget = 16, .dp = 4, .n_at_once = 6},
    {"one thread", .budget = 256, .n_threads = 1},
    {"two threads", .budget = 256, .n_threads = 2},
    {"five threads", .budget = 17, .n_threads = 5},
    {"tiny pool", .budget = 16, .n_kv_blocks = TINY_POOL},
    {"tiny pool, budget 256", .budget = 256, .n_kv_blocks = TINY_POOL, .n_threads = 1},
    {"tiny pool, budget 4096", .budget = 4096, .n_kv_blocks = TINY_POOL},
    {"tiny pool, DP 2", .budget = 64, .dp = 2, .n_kv_blocks = TINY_POOL},
    {"prefix caching", .budget = 4096, .prefix_caching = true},
    {"prefix caching, budget 17", .budget = 17, .n_at_once = 3, .prefix_caching = true},
    {"prefix caching, tiny pool", .budget = 64, .n_kv_blocks = TINY_POOL, .prefix_caching = true},
    {"prefix caching, DP 2", .budget = 64, .dp = 2, .prefix_caching = true},
    {"async", .budget = 64, .async = true},
    {"async, budget 17, DP 2", .budget = 17, .dp = 2, .n_at_once = 3, .async = true},
    {"async, prefix caching, tiny pool",
     .budget = 64, .n_kv_blocks = TINY_POOL, .prefix_caching = true, .async = true},
    {"long prefill threshold", .budget = 64, .threshold = 19},
};
enum { N_VARIATIONS = sizeof variations / sizeof *variations };

struct requests {
    int32_t *text; /* the held-out ids that prompts are cut from */
    struct qd_request of[N_REQUESTS];
};

/* Greedy and sampled requests in turn, half of those with a top-k. */
static void requests_init(struct requests *r)
{
    cJSON *eval = tiny_eval();
    size_t n_text;
    r->text = ids_of(cJSON_GetObjectItem(eval, "token_ids"), &n_text);
    cJSON_Delete(eval);
    for (int i = 0; i < N_REQUESTS; i++) {
        assert_true((size_t)(i * 500 + prompt_lens[i]) <= n_text);
        r->of[i] = (struct qd_request){
            .prompt = r->text + i * 500,
            .n_prompt = prompt_lens[i],
            .max_tokens = 17 + i * 11 % 31,
            .temperature = i % 2 == 0 ? 0.0f : 0.8f,
            .top_p = i % 2 == 0 ? 1.0f : 0.9f,
            .top_k = i % 4 == 1 ? 20 : 0,
            .seed = 1000 + (uint64_t)i,
        };
    }
}

static struct qd_instance_options options_of(const struct variation *v, const char *isa, int tp,
                                             enum qd_numerics numerics)
{
    struct qd_instance_options options = tiny_options(isa);
    options.tp = tp;
    options.numerics = numerics;
    return variation_options(v, options);
}

/* Equality of texts that say nothing would prove nothing. */
static void assert_lively(const struct reply *replies)
{
    bool seen[TINY_VOCAB] = {false};
    int n_distinct = 0, n_tokens = 0;
    for (int i = 0; i < N_REQUESTS; i++) {
        for (int32_t t = 0; t < replies[i].n_tokens; t++) {
            n_distinct += !seen[replies[i].tokens[t]];
            seen[replies[i].tokens[t]] = true;
        }
        n_tokens += replies[i].n_tokens;
    }
    assert_true(n_tokens > 200 && n_distinct > 100);
}

/* Every `stride`-th variation against each request alone. */
static void check(const char *isa, int tp, enum qd_numerics numerics, int stride)
{
    struct requests r;
    requests_init(&r);
    struct qd_instance_options options = options_of(&alone, isa, tp, numerics);
    struct reply *expected = variation_serve(&alone, &options, r.of, N_REQUESTS);
    assert_lively(expected);
    for (int i = 0; i < N_VARIATIONS; i += stride) {
        options = options_of(&variations[i], isa, tp, numerics);
        struct reply *replies = variation_serve(&variations[i], &options, r.of, N_REQUESTS);
        assert_same_replies(isa, &variations[i], r.of, expected, replies, N_REQUESTS);
        replies_free(replies);
    }
    replies_free(expected);
    free(r.text);
}

/* Portable code is several times slower: it gets every third variation of those that AVX2 gets. */
static int stride_of(const char *isa)
{
    if (IS_SANITIZED) return 5;
    return strcmp(isa, "portable") == 0 ? 3 : 1;
}

static void one_rank(void **state)
{
    need_isa_for_model(*state);
    check(*state, 1, QD_NUMERICS_FUSED, stride_of(*state));
}

static void two_ranks(void **state)
{
    need_isa_for_model(*state);
    check(*state, 2, QD_NUMERICS_FUSED, 2 * stride_of(*state));
}

static void one_rank_as_hugging_face(void **state)
{
    need_isa_for_model(*state);
    check(*state, 1, QD_NUMERICS_HF, 2 * stride_of(*state));
}

/* Every `stride`-th way to be served by one replica: the logits, too, and once more without an engine. */
static void replays_have_the_same_logits(void **state)
{
    need_isa_for_model(*state);
    struct requests r;
    requests_init(&r);
    struct logit_hashes hashes = {0};
    struct qd_instance_options options = options_of(&alone, *state, 1, QD_NUMERICS_FUSED);
    replies_free(variation_replay(&alone, &options, r.of, N_REQUESTS, &hashes));
    for (int i = 1; i < N_VARIATIONS; i += 4 * stride_of(*state)) {
        if (variations[i].dp > 1) continue;
        options = options_of(&variations[i], *state, 1, QD_NUMERICS_FUSED);
        replies_free(variation_replay(&variations[i], &options, r.of, N_REQUESTS, &hashes));
    }
    free(r.text);
}

/* What one rank said about a text, and how two ranks compare. */
struct ranks {
    float logits[MAX_TEXT][TINY_VOCAB]; /* of one rank */
    int32_t best[MAX_TEXT];
    float margin[MAX_TEXT]; /* of the best to the next */
    double max_error;       /* of a logit */
    int n_judged, n_positions;
};

static void keep_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct ranks *ranks = arg;
    float next = -INFINITY;
    for (int32_t i = 0; i < TINY_VOCAB; i++)
        if (i != id && logits[i] > next) next = logits[i];
    memcpy(ranks->logits[position], logits, sizeof ranks->logits[position]);
    ranks->best[position] = id;
    ranks->margin[position] = logits[id] - next;
}

static void compare_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct ranks *ranks = arg;
    for (int32_t i = 0; i < TINY_VOCAB; i++)
        ranks->max_error = fmax(ranks->max_error, fabs((double)logits[i] - (double)ranks->logits[position][i]));
    ranks->n_positions++;
    if (ranks->margin[position] < MARGIN) return;
    ranks->n_judged++;
    assert_int_equal(id, ranks->best[position]);
}

/* All positions of a prompt and its answer under both; then the two greedy answers, as far as they have a
 * margin. */
static void compare_ranks(struct ranks *ranks, qd_instance_t *const *instances, const struct qd_request *request,
                          const struct reply *one, const struct reply *two)
{
    int32_t tokens[MAX_TEXT], n = request->n_prompt;
    assert_true(n + one->n_tokens <= MAX_TEXT);
    memcpy(tokens, request->prompt, (size_t)n * sizeof *tokens);
    memcpy(tokens + n, one->tokens, (size_t)one->n_tokens * sizeof *tokens);
    struct qd_forward forward = {
        .tokens = tokens, .n_tokens = n + one->n_tokens - 1, .chunk = 64, .row = keep_row, .arg = ranks};
    forward_tokens(instances[0], &forward);
    forward.row = compare_row;
    forward_tokens(instances[1], &forward);
    bool certain = true;
    for (int32_t t = 0; t < one->n_tokens; t++) {
        assert_int_equal(one->tokens[t], ranks->best[n - 1 + t]); /* engine and eval see the same bits */
        certain = certain && ranks->margin[n - 1 + t] >= MARGIN;
        if (certain) assert_int_equal(two->tokens[t], one->tokens[t]);
    }
}

static void ranks_change_no_token_with_a_margin(void **state)
{
    need_isa_for_model(*state);
    struct requests r;
    requests_init(&r);
    struct ranks *ranks = calloc(1, sizeof *ranks);
    assert_non_null(ranks);
    struct reply *replies[2];
    qd_instance_t *instances[2];
    for (int i = 0; i < 2; i++) {
        struct qd_instance_options options = options_of(&alone, *state, 1 + i, QD_NUMERICS_FUSED);
        options.max_logit_rows = 64;
        instances[i] = open_instance(&options);
        replies[i] = serve(qd_instance_engine(instances[i]), r.of, N_REQUESTS, 1);
    }
    for (int i = 0; i < N_REQUESTS; i += 2) /* the greedy ones */
        compare_ranks(ranks, instances, &r.of[i], &replies[0][i], &replies[1][i]);
    printf("TP 2 against TP 1: %d of %d positions judged, largest error %.3f\n", ranks->n_judged,
           ranks->n_positions, ranks->max_error);
    assert_true(ranks->max_error > 0 && 2 * ranks->max_error < (double)MARGIN);
    assert_true(ranks->n_judged > ranks->n_positions / 2);
    for (int i = 0; i < 2; i++) {
        replies_free(replies[i]);
        qd_instance_close(instances[i]);
    }
    free(ranks);
    free(r.text);
}

/* The chats of prompts.jsonl, which end by themselves: a workload that owns nothing but its list. */
static struct qd_workload chats_of(const struct qd_workload *all, int32_t start_id)
{
    struct qd_workload chats = {.requests = calloc(all->n, sizeof *chats.requests)};
    assert_non_null(chats.requests);
    for (size_t i = 0; i < all->n && chats.n < N_CHATS; i++)
        if (all->requests[i].prompt[0] == start_id && all->requests[i].n_prompt < 150)
            chats.requests[chats.n++] = all->requests[i];
    for (size_t i = 0; i < chats.n; i++) chats.requests[i].max_tokens = 60;
    return chats;
}

/* Drives the chats and compares what the records tell with what the engine gave a plain client. */
static void drive(const struct qd_workload *chats, const struct qd_drive_options *how,
                  const struct qd_instance_options *options, const struct reply *expected)
{
    char err[QD_ERR_LEN] = "";
    double duration_s;
    struct qd_request_record *records;
    qd_instance_t *instance = open_instance(options);
    ASSERT_OK(qd_records_create(chats, &records, err, sizeof err), err);
    ASSERT_OK(qd_workload_drive(qd_instance_engine(instance), chats, how, records, &duration_s, err, sizeof err),
              err);
    for (size_t i = 0; i < chats->n; i++) {
        assert_true(records[i].success);
        assert_int_equal(records[i].output_len, expected[i].n_tokens);
        assert_string_equal(records[i].finish, expected[i].finish == QD_FINISH_STOP ? "stop" : "length");
    }
    qd_records_free(records, chats->n);
    qd_instance_close(instance);
}

/* Lengths of texts that end by themselves tell whether a single token was another one. */
static void a_driven_workload_gets_the_same(void **state)
{
    need_isa_for_model(*state);
    char err[QD_ERR_LEN] = "";
    qd_tokenizer_t *tokenizer = load_tokenizer(TINY_DIR);
    struct qd_custom_spec spec = {.path = TINY_DIR "/prompts.jsonl", .tokenizer = tokenizer};
    struct qd_workload all;
    ASSERT_OK(qd_workload_custom(&spec, &all, err, sizeof err), err);
    struct qd_workload chats = chats_of(&all, qd_tokenizer_find_added(tokenizer, "<|im_start|>"));
    assert_int_equal(chats.n, N_CHATS);

    struct qd_drive_options how = {.temperature = 0.7f, .top_p = 0.9f, .top_k = 50, .seed = 77};
    struct qd_request requests[N_CHATS];
    for (size_t i = 0; i < chats.n; i++)
        requests[i] = (struct qd_request){.prompt = chats.requests[i].prompt,
                                          .n_prompt = chats.requests[i].n_prompt,
                                          .max_tokens = chats.requests[i].max_tokens,
                                          .temperature = how.temperature,
                                          .top_p = how.top_p,
                                          .top_k = how.top_k,
                                          .seed = how.seed + i};
    struct qd_instance_options options = options_of(&alone, *state, 1, QD_NUMERICS_FUSED);
    qd_instance_t *instance = open_instance(&options);
    struct reply *expected = serve(qd_instance_engine(instance), requests, chats.n, 1);
    qd_instance_close(instance);
    int n_stopped = 0;
    for (size_t i = 0; i < chats.n; i++) n_stopped += expected[i].finish == QD_FINISH_STOP;
    assert_in_range(n_stopped, 3, N_CHATS - 1);

    options.max_num_batched_tokens = 64;
    drive(&chats, &how, &options, expected); /* burst */
    how.pacing = QD_PACING_CLOSED;
    how.max_concurrency = 3;
    options.dp = 2;
    options.max_num_batched_tokens = 17;
    drive(&chats, &how, &options, expected);
    replies_free(expected);
    free(chats.requests);
    qd_workload_free(&all);
    qd_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_ISA(one_rank),
        EVERY_ISA(two_ranks),
        EVERY_ISA(one_rank_as_hugging_face),
        EVERY_ISA(replays_have_the_same_logits),
        EVERY_ISA(ranks_change_no_token_with_a_margin),
        EVERY_ISA(a_driven_workload_gets_the_same),
    };
    return cmocka_run_group_tests_name("engine invariance", tests, NULL, NULL);
}

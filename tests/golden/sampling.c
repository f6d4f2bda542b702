/* Sampling through the engine: what many seeds draw is what the logits of `eval` say, every token is drawn with
 * the key of its request and place, and the ranks change it only where they change the logits. */
#include "tests/support/test.h"

#include <math.h>

#include "harness/engine/forward_once.h"
#include "kernels/ref/ref.h"
#include "tests/support/devices.h"
#include "tests/support/replies.h"
#include "tests/support/tiny.h"

enum { N_PROMPT = 2, N_SEEDS = IS_SANITIZED ? 600 : 3000, N_TEXTS = 24, N_TOKENS = 10 };

/* The id that ends a text, then one that begins one: many continuations are possible. */
static const int32_t prompt[N_PROMPT] = {2025, 1159};

static struct qd_request request_of(const struct qd_sampling *sampling, uint64_t seed, int32_t max_tokens)
{
    return (struct qd_request){.prompt = prompt,
                               .n_prompt = N_PROMPT,
                               .max_tokens = max_tokens,
                               .ignore_eos = true,
                               .temperature = sampling->temperature,
                               .top_p = sampling->top_p,
                               .top_k = sampling->top_k,
                               .seed = seed};
}

static qd_instance_t *open_ranks(const char *isa, int tp)
{
    struct qd_instance_options options = tiny_options(isa);
    options.max_logit_rows = 1; /* the forward pass alone is looked at, too */
    options.tp = tp;
    return open_instance(&options);
}

static void copy_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    (void)position, (void)id;
    memcpy(arg, logits, TINY_VOCAB * sizeof *logits);
}

/* The logits after the last of n tokens. */
static void logits_after(qd_instance_t *instance, const int32_t *tokens, int32_t n, float *logits)
{
    struct qd_forward forward = {
        .tokens = tokens, .n_tokens = n, .chunk = n, .first_row = n - 1, .row = copy_row, .arg = logits};
    forward_tokens(instance, &forward);
}

static const float *compared; /* of qsort, which has no context */

static int by_falling_logit(const void *a, const void *b)
{
    float x = compared[*(const int32_t *)a], y = compared[*(const int32_t *)b];
    return x < y ? 1 : x > y ? -1 : *(const int32_t *)a - *(const int32_t *)b;
}

/* The definition in the test's own words: the k most likely, of those the fewest that hold top_p together. */
static void probabilities(const float *logits, const struct qd_sampling *s, double *p)
{
    int32_t order[TINY_VOCAB], n = s->top_k > 0 ? s->top_k : TINY_VOCAB, kept = 0;
    for (int32_t i = 0; i < TINY_VOCAB; i++) {
        order[i] = i;
        p[i] = 0;
    }
    compared = logits;
    qsort(order, TINY_VOCAB, sizeof *order, by_falling_logit);
    double total = 0, held = 0;
    for (int32_t i = 0; i < n; i++)
        total += exp(((double)logits[order[i]] - (double)logits[order[0]]) / (double)s->temperature);
    while (kept < n && (kept == 0 || held < (double)s->top_p * total)) {
        int32_t id = order[kept++];
        p[id] = exp(((double)logits[id] - (double)logits[order[0]]) / (double)s->temperature);
        held += p[id];
    }
    for (int32_t i = 0; i < TINY_VOCAB; i++) p[i] /= held;
}

/* Pearson's statistic over ids that are expected at least five times, and the others together; it is near the
 * degrees of freedom, with a deviation of the root of twice that. */
static double chi_square(const int *count, const double *p, int n, int *n_bins)
{
    double statistic = 0, rest_expected = 0, rest = 0;
    *n_bins = 0;
    for (int32_t i = 0; i < TINY_VOCAB; i++) {
        double expected = p[i] * n;
        if (expected < 5) {
            rest_expected += expected;
            rest += count[i];
            continue;
        }
        statistic += (count[i] - expected) * (count[i] - expected) / expected;
        ++*n_bins;
    }
    if (rest_expected >= 5) {
        statistic += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
        ++*n_bins;
    }
    return statistic;
}

static void check_distribution(qd_instance_t *instance, const struct qd_sampling *sampling)
{
    float logits[TINY_VOCAB];
    double p[TINY_VOCAB];
    int count[TINY_VOCAB] = {0}, n_bins;
    struct qd_request *requests = calloc(N_SEEDS, sizeof *requests);
    assert_non_null(requests);
    for (uint64_t i = 0; i < N_SEEDS; i++) requests[i] = request_of(sampling, 5000 + i, 1);
    logits_after(instance, prompt, N_PROMPT, logits);
    probabilities(logits, sampling, p);
    struct reply *replies = serve(qd_instance_engine(instance), requests, N_SEEDS, 0);
    for (int i = 0; i < N_SEEDS; i++) {
        int32_t id = replies[i].tokens[0];
        count[id]++;
        if (!(p[id] > 0)) fail_msg("id %d was drawn, which top-k and top-p exclude", id);
    }
    double statistic = chi_square(count, p, N_SEEDS, &n_bins);
    printf("temperature %.1f, top-p %.2f, top-k %d: chi-square %.1f over %d bins\n", (double)sampling->temperature,
           (double)sampling->top_p, sampling->top_k, statistic, n_bins);
    assert_true(n_bins >= 8);
    assert_true(statistic < n_bins - 1 + 4 * sqrt(2.0 * (n_bins - 1)));
    replies_free(replies);
    free(requests);
}

static void many_seeds_draw_the_distribution(void **state)
{
    (void)state;
    static const struct qd_sampling settings[] = {
        {.temperature = 1.0f, .top_p = 1.0f},
        {.temperature = 0.8f, .top_p = 1.0f, .top_k = 20},
        {.temperature = 1.2f, .top_p = 0.7f, .top_k = 100},
    };
    qd_instance_t *instance = open_ranks("auto", 1);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) check_distribution(instance, &settings[i]);
    qd_instance_close(instance);
}

/* Serves N_TEXTS texts of N_TOKENS, text i with seed i. */
static struct reply *serve_texts(qd_instance_t *instance, const struct qd_sampling *sampling)
{
    struct qd_request requests[N_TEXTS];
    for (uint64_t i = 0; i < N_TEXTS; i++) requests[i] = request_of(sampling, i, N_TOKENS);
    return serve(qd_instance_engine(instance), requests, N_TEXTS, 0);
}

/* A text under comparison with what the specification draws from the logits before each of its tokens. */
struct drawn {
    struct qd_sampling key;
    const struct reply *text;
    int n_other;
};

static void draw_again(void *arg, int32_t position, int32_t id, const float *logits)
{
    (void)id;
    struct drawn *d = arg;
    d->key.output_index = (uint64_t)(position + 1 - N_PROMPT);
    d->n_other += qd_ref_sample_row(logits, TINY_VOCAB, &d->key) != d->text->tokens[d->key.output_index];
}

static int count_other(qd_instance_t *instance, const struct qd_sampling *sampling, const struct reply *text,
                       uint64_t seed)
{
    int32_t tokens[N_PROMPT + N_TOKENS];
    struct drawn drawn = {.key = *sampling, .text = text};
    drawn.key.seed = seed;
    assert_int_equal(text->n_tokens, N_TOKENS);
    memcpy(tokens, prompt, sizeof prompt);
    memcpy(tokens + N_PROMPT, text->tokens, N_TOKENS * sizeof *tokens);
    struct qd_forward forward = {.tokens = tokens,
                                 .n_tokens = N_PROMPT + N_TOKENS - 1,
                                 .chunk = N_PROMPT + N_TOKENS - 1,
                                 .first_row = N_PROMPT - 1,
                                 .row = draw_again,
                                 .arg = &drawn};
    forward_tokens(instance, &forward);
    return drawn.n_other;
}

/* The specification sums in double and the device in part in float: they may part where the uniform falls on a
 * boundary (observed: never in 240 draws). */
static void every_token_is_drawn_with_its_own_key(void **state)
{
    need_isa_for_model(*state);
    static const struct qd_sampling sampling = {.temperature = 0.9f, .top_p = 0.95f, .top_k = 200};
    qd_instance_t *instance = open_ranks(*state, 1);
    struct reply *texts = serve_texts(instance, &sampling);
    int n_other = 0;
    for (int i = 0; i < N_TEXTS; i++) n_other += count_other(instance, &sampling, &texts[i], (uint64_t)i);
    printf("%d of %d tokens are not the specification's\n", n_other, N_TEXTS * N_TOKENS);
    assert_true(n_other <= 2);
    replies_free(texts);
    qd_instance_close(instance);
}

/* Temperature 0 is the largest logit; so are a top-k of one and a temperature that leaves nothing to others. */
static void without_chance_the_largest_logit_wins(void **state)
{
    need_isa_for_model(*state);
    static const struct qd_sampling settings[] = {
        {.temperature = 0.0f, .top_p = 1.0f},
        {.temperature = 0.0f, .top_p = 0.1f, .top_k = 7},
        {.temperature = 1.0f, .top_p = 1.0f, .top_k = 1},
        {.temperature = 2.0f, .top_p = 1e-6f},
        {.temperature = 1e-6f, .top_p = 1.0f},
    };
    enum { N = sizeof settings / sizeof *settings, MANY = 20 };
    struct qd_request requests[N];
    qd_instance_t *instance = open_ranks(*state, 1);
    for (uint64_t i = 0; i < N; i++) requests[i] = request_of(&settings[i], i, MANY);
    struct reply *replies = serve(qd_instance_engine(instance), requests, N, 0);
    int32_t tokens[N_PROMPT + MANY];
    memcpy(tokens, prompt, sizeof prompt);
    for (int32_t t = 0; t < MANY; t++) {
        float logits[TINY_VOCAB];
        int32_t best = 0;
        logits_after(instance, tokens, N_PROMPT + t, logits);
        for (int32_t i = 1; i < TINY_VOCAB; i++)
            if (logits[i] > logits[best]) best = i;
        for (int i = 0; i < N; i++)
            if (replies[i].tokens[t] != best)
                fail_msg("setting %d, token %d is %d, the largest logit is that of %d", i, t, replies[i].tokens[t],
                         best);
        tokens[N_PROMPT + t] = best;
    }
    replies_free(replies);
    qd_instance_close(instance);
}

/* Two ranks have other bits in their logits, but the same uniform: both draw what the specification draws from
 * their own logits, and so the same token but where the uniform falls between their two sums at a boundary
 * (observed: 18 of 400). */
static void two_ranks_draw_with_the_same_uniform(void **state)
{
    need_isa_for_model(*state);
    static const struct qd_sampling sampling = {.temperature = 0.8f, .top_p = 1.0f};
    enum { N = 400 };
    struct qd_request requests[N];
    struct reply *replies[2];
    float logits[2][TINY_VOCAB];
    int n_unspecified = 0, n_other = 0;
    for (uint64_t i = 0; i < N; i++) requests[i] = request_of(&sampling, i, 1);
    for (int r = 0; r < 2; r++) {
        qd_instance_t *instance = open_ranks(*state, 1 + r);
        logits_after(instance, prompt, N_PROMPT, logits[r]);
        replies[r] = serve(qd_instance_engine(instance), requests, N, 0);
        qd_instance_close(instance);
    }
    for (int i = 0; i < N; i++) {
        struct qd_sampling key = sampling;
        key.seed = (uint64_t)i;
        for (int r = 0; r < 2; r++)
            n_unspecified += replies[r][i].tokens[0] != qd_ref_sample_row(logits[r], TINY_VOCAB, &key);
        n_other += replies[0][i].tokens[0] != replies[1][i].tokens[0];
    }
    printf("TP 2 against TP 1: %d of %d first tokens differ; %d are not the specification's\n", n_other, N,
           n_unspecified);
    assert_true(memcmp(logits[0], logits[1], sizeof logits[0]) != 0);
    assert_true(n_unspecified <= 2);
    assert_true(n_other <= N / 10);
    for (int r = 0; r < 2; r++) replies_free(replies[r]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_seeds_draw_the_distribution),
        EVERY_ISA(every_token_is_drawn_with_its_own_key),
        EVERY_ISA(without_chance_the_largest_logit_wins),
        EVERY_ISA(two_ranks_draw_with_the_same_uniform),
    };
    return cmocka_run_group_tests_name("sampling", tests, NULL, NULL);
}

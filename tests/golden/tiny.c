/* The trained tiny model against Hugging Face: likelihood of held-out text, greedy continuations with their
 * margins, ends, and the way from a chat's text to text. */
#include "tests/support/test.h"

#include <math.h>

#include "harness/engine/forward_once.h"
#include "models/chat.h"
#include "tests/support/devices.h"
#include "tests/support/replies.h"
#include "tests/support/tiny.h"
#include "tests/support/tokenizer.h"

enum { N_WINDOWS = 4, MAX_ROWS = 128, IM_END = 2027 };

/* Numerics with the variant of eval.json that they are compared with, and how far they may be from it. In bf16
 * logits come in steps of up to 0.0625, so a margin moves by two of them easily. */
struct reference {
    enum qd_numerics numerics;
    const char *variant;
    double nll;      /* of a window, a token (observed, both instruction sets: bf16 0.0013, fp32 0.0004) */
    double margin;   /* of a greedy token (observed: bf16 0.125, fp32 0.055); beyond it a token is certain */
    double equal;    /* share of the engine's own greedy tokens (observed: bf16 0.75, fp32 0.96) */
};
static const struct reference references[] = {
    {QD_NUMERICS_HF, "bf16", 0.004, 0.1875, 0.5},
    {QD_NUMERICS_FUSED, "fp32", 0.0015, 0.085, 0.8},
};
enum { N_REFERENCES = sizeof references / sizeof *references };

static qd_instance_t *open_for(const struct reference *reference, const char *isa)
{
    struct qd_instance_options options = tiny_options(isa);
    options.numerics = reference->numerics;
    options.max_logit_rows = MAX_ROWS;
    return open_instance(&options);
}

struct likelihood {
    const int32_t *tokens;
    int32_t n_tokens;
    double nll;
    float largest_unused; /* logit of an id without a token */
};

static void add_likelihood(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct likelihood *l = arg;
    double sum = 0;
    for (int32_t i = 0; i < TINY_VOCAB; i++) sum += exp((double)logits[i] - (double)logits[id]);
    if (position + 1 < l->n_tokens)
        l->nll += (double)logits[id] + log(sum) - (double)logits[l->tokens[position + 1]];
    for (int32_t i = TINY_N_TOKENS; i < TINY_VOCAB; i++)
        if (logits[i] > l->largest_unused) l->largest_unused = logits[i];
}

/* The first n windows of one size; *largest_unused over all of them. */
static void check_windows(qd_instance_t *instance, const struct reference *reference, const cJSON *eval,
                          int which, int n, float *largest_unused)
{
    const cJSON *windows = cJSON_GetArrayItem(cJSON_GetObjectItem(eval, "windows"), which);
    const cJSON *expected = cJSON_GetObjectItem(cJSON_GetObjectItem(windows, reference->variant), "window_nll");
    int32_t size = (int32_t)number_of(windows, "window");
    size_t n_ids;
    int32_t *ids = ids_of(cJSON_GetObjectItem(eval, "token_ids"), &n_ids);
    assert_true((size_t)(n * size) <= n_ids && n <= cJSON_GetArraySize(expected));
    double worst = 0, sum = 0, expected_sum = 0;
    for (int w = 0; w < n; w++) {
        struct likelihood l = {ids + w * size, size, 0, *largest_unused};
        struct qd_forward forward = {
            .tokens = l.tokens, .n_tokens = size, .chunk = 200, .row = add_likelihood, .arg = &l};
        forward_tokens(instance, &forward);
        double hf = cJSON_GetArrayItem(expected, w)->valuedouble;
        worst = fmax(worst, fabs(l.nll - hf) / (size - 1));
        sum += l.nll;
        expected_sum += hf;
        *largest_unused = l.largest_unused;
    }
    double scored = (double)n * (size - 1);
    printf("%s, windows of %d: perplexity %.4f, Hugging Face %.4f; worst window %.6f a token\n",
           reference->variant, size, exp(sum / scored), exp(expected_sum / scored), worst);
    free(ids);
    assert_true(worst <= reference->nll);
}

/* Portable code is several times slower and gets less of everything. */
static bool is_slow(const char *isa)
{
    return IS_SANITIZED || strcmp(isa, "portable") == 0;
}

static void held_out_text_is_as_likely(void **state)
{
    need_isa_for_model(*state);
    cJSON *eval = tiny_eval();
    for (size_t i = 0; i < N_REFERENCES; i++) {
        float largest_unused = -INFINITY;
        qd_instance_t *instance = open_for(&references[i], *state);
        check_windows(instance, &references[i], eval, 0, 1, &largest_unused);
        /* Ids without a token are never likely: the model's README gives -2.63 for the first window. */
        assert_true(fabs((double)largest_unused + 2.63) < 0.06);
        if (!is_slow(*state)) {
            check_windows(instance, &references[i], eval, 0, N_WINDOWS, &largest_unused);
            check_windows(instance, &references[i], eval, 1, 1, &largest_unused);
        }
        qd_instance_close(instance);
    }
    cJSON_Delete(eval);
}

/* One prompt with the continuation that Hugging Face gives it. */
struct greedy {
    int32_t *prompt, *output;
    size_t n_prompt, n_output;
    double *margins; /* [n_output] */
};

static void greedy_init(struct greedy *g, const cJSON *entry, const char *variant)
{
    const cJSON *expected = cJSON_GetObjectItem(entry, variant), *margin;
    size_t n = 0;
    g->prompt = ids_of(cJSON_GetObjectItem(entry, "prompt_ids"), &g->n_prompt);
    g->output = ids_of(cJSON_GetObjectItem(expected, "output_ids"), &g->n_output);
    g->margins = calloc(g->n_output, sizeof *g->margins);
    assert_non_null(g->margins);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(expected, "margins")), g->n_output);
    cJSON_ArrayForEach(margin, cJSON_GetObjectItem(expected, "margins")) g->margins[n++] = margin->valuedouble;
}

static void greedy_free(struct greedy *g)
{
    free(g->prompt);
    free(g->output);
    free(g->margins);
}

/* Margins of Hugging Face's tokens in our logits. */
struct margins {
    const struct greedy *greedy;
    double worst;
};

static void compare_margin(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct margins *m = arg;
    size_t t = (size_t)position + 1 - m->greedy->n_prompt;
    int32_t chosen = m->greedy->output[t];
    float next = -INFINITY;
    for (int32_t i = 0; i < TINY_VOCAB; i++)
        if (i != chosen && logits[i] > next) next = logits[i];
    double margin = (double)logits[chosen] - (double)next;
    m->worst = fmax(m->worst, fabs(margin - m->greedy->margins[t]));
    if (margin > 0) assert_int_equal(id, chosen);
}

static double worst_margin(qd_instance_t *instance, const struct greedy *g)
{
    size_t n = g->n_prompt + g->n_output - 1;
    int32_t *text = calloc(n, sizeof *text);
    struct margins margins = {.greedy = g};
    assert_non_null(text);
    memcpy(text, g->prompt, g->n_prompt * sizeof *text);
    memcpy(text + g->n_prompt, g->output, (g->n_output - 1) * sizeof *text);
    struct qd_forward forward = {.tokens = text,
                                 .n_tokens = (int32_t)n,
                                 .chunk = 256,
                                 .first_row = (int32_t)g->n_prompt - 1,
                                 .row = compare_margin,
                                 .arg = &margins};
    forward_tokens(instance, &forward);
    free(text);
    return margins.worst;
}

static struct qd_request greedy_request(const struct greedy *g, int32_t max_tokens)
{
    return (struct qd_request){
        .prompt = g->prompt, .n_prompt = (int32_t)g->n_prompt, .max_tokens = max_tokens, .top_p = 1.0f};
}

/* The engine's own continuation: equal up to the first token that is not certain. Returns how many were. */
static int check_continuation(qd_instance_t *instance, const struct greedy *g, double certain, int *n_equal)
{
    struct qd_request request = greedy_request(g, (int32_t)g->n_output);
    struct reply *reply = serve(qd_instance_engine(instance), &request, 1, 0);
    size_t n = (size_t)reply->n_tokens, n_certain = 0, n_same = 0;
    while (n_certain < g->n_output && g->margins[n_certain] > certain) n_certain++;
    while (n_same < n && reply->tokens[n_same] == g->output[n_same]) n_same++;
    if (n_same < n_certain)
        fail_msg("token %zu is %d, expected %d with a margin of %g", n_same,
                 n_same < n ? reply->tokens[n_same] : -1, g->output[n_same], g->margins[n_same]);
    for (size_t t = 0; t < n; t++) assert_in_range(reply->tokens[t], 0, TINY_N_TOKENS - 1);
    *n_equal += (int)n_same;
    replies_free(reply);
    return (int)n_certain;
}

static void check_greedy(const char *isa, const struct reference *reference, const cJSON *eval)
{
    double worst = 0;
    int n_certain = 0, n_equal = 0, n = 0;
    qd_instance_t *instance = open_for(reference, isa);
    const cJSON *entry;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(eval, "greedy"))
    {
        struct greedy g;
        greedy_init(&g, entry, reference->variant);
        if (!is_slow(isa) || g.n_prompt + g.n_output < 140) {
            n_certain += check_continuation(instance, &g, reference->margin, &n_equal);
            worst = fmax(worst, worst_margin(instance, &g));
            n += (int)g.n_output;
        }
        greedy_free(&g);
    }
    printf("%s: %d greedy tokens, equal %d, certain %d; worst margin error %.4f\n", reference->variant, n, n_equal,
           n_certain, worst);
    assert_true(worst <= reference->margin);
    assert_true(n_certain > 0 && n_equal >= reference->equal * n);
    qd_instance_close(instance);
}

static void greedy_continuations(void **state)
{
    need_isa_for_model(*state);
    cJSON *eval = tiny_eval();
    for (size_t i = 0; i < N_REFERENCES; i++) check_greedy(*state, &references[i], eval);
    cJSON_Delete(eval);
}

/* Hugging Face's chat that ends: what came before its end makes the end certain. */
static void a_chat_ends_by_itself(void **state)
{
    need_isa_for_model(*state);
    cJSON *eval = tiny_eval();
    qd_instance_t *instance = open_for(&references[0], *state);
    const cJSON *entry;
    int n_ended = 0;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(eval, "greedy"))
    {
        if (!cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetObjectItem(entry, "bf16"), "ended"))) continue;
        struct greedy g;
        greedy_init(&g, entry, "bf16");
        assert_int_equal(g.output[g.n_output - 1], IM_END);
        assert_true(g.margins[g.n_output - 1] > references[0].margin);
        size_t n = g.n_prompt + g.n_output - 1;
        g.prompt = realloc(g.prompt, n * sizeof *g.prompt);
        assert_non_null(g.prompt);
        memcpy(g.prompt + g.n_prompt, g.output, (g.n_output - 1) * sizeof *g.prompt);
        g.n_prompt = n;
        struct qd_request requests[2] = {greedy_request(&g, 5), greedy_request(&g, 5)};
        requests[1].ignore_eos = true;
        struct reply *replies = serve(qd_instance_engine(instance), requests, 2, 0);
        assert_int_equal(replies[0].n_tokens, 1);
        assert_int_equal(replies[0].finish, QD_FINISH_STOP);
        assert_int_equal(replies[0].tokens[0], IM_END);
        assert_int_equal(replies[1].n_tokens, 5);
        assert_int_equal(replies[1].tokens[0], IM_END);
        assert_int_equal(replies[1].finish, QD_FINISH_LENGTH);
        replies_free(replies);
        greedy_free(&g);
        n_ended++;
    }
    assert_int_equal(n_ended, 1);
    qd_instance_close(instance);
    cJSON_Delete(eval);
}

/* The prompts of eval.json are the ids of their texts, the outputs the texts of their ids; a chat's text comes
 * from its question. */
static void texts_and_ids_of_the_evaluation(void **state)
{
    (void)state;
    static const char open[] = "<|im_start|>user\n", close[] = "<|im_end|>\n<|im_start|>assistant\n";
    char err[QD_ERR_LEN] = "", *text;
    cJSON *eval = tiny_eval();
    qd_tokenizer_t *tokenizer = load_tokenizer(TINY_DIR);
    size_t n_ids, len;
    int n_chats = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(eval, "greedy"))
    {
        struct greedy g;
        const char *prompt = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "prompt"));
        int32_t *ids;
        greedy_init(&g, entry, "bf16");
        ASSERT_OK(qd_tokenizer_encode(tokenizer, prompt, strlen(prompt), &ids, &n_ids, err, sizeof err), err);
        assert_same_ids(ids, n_ids, g.prompt, g.n_prompt, "a prompt of eval.json");
        free(ids);
        ASSERT_OK(qd_tokenizer_decode(tokenizer, g.output, g.n_output, false, &text, &len, err, sizeof err), err);
        assert_string_equal(text, cJSON_GetStringValue(
                                      cJSON_GetObjectItem(cJSON_GetObjectItem(entry, "bf16"), "output")));
        free(text);
        greedy_free(&g);
        const char *end = strstr(prompt, close);
        if (end == NULL) continue;
        const char *question = prompt + strlen(open);
        const char *thinking = end[strlen(close)] == '\0' ? "true" : "false";
        ASSERT_OK(qd_chat_single(TINY_DIR, question, (size_t)(end - question), thinking, &text, &len, err,
                                 sizeof err),
                  err);
        assert_string_equal(text, prompt);
        free(text);
        n_chats++;
    }
    assert_int_equal(n_chats, 3);
    qd_tokenizer_free(tokenizer);
    cJSON_Delete(eval);
}

enum { N_STORIES = IS_SANITIZED ? 4 : 12, MAX_STORY = 150 };

/* What `generate --chat` does with the answer: tokens to text as they come. */
static void check_story(const qd_tokenizer_t *tokenizer, const struct reply *reply)
{
    char err[QD_ERR_LEN] = "", streamed[4096] = "", *whole;
    struct qd_detokenizer stream;
    const char *piece;
    size_t len;
    qd_detokenizer_init(&stream, tokenizer, true);
    for (int32_t t = 0; t < reply->n_tokens; t++) {
        assert_in_range(reply->tokens[t], 0, TINY_N_TOKENS - 1);
        assert_int_equal(reply->tokens[t] == IM_END, reply->finish == QD_FINISH_STOP && t == reply->n_tokens - 1);
        ASSERT_OK(qd_detokenizer_push(&stream, reply->tokens[t], &piece, &len, err, sizeof err), err);
        strncat(streamed, piece, len);
    }
    ASSERT_OK(qd_detokenizer_finish(&stream, &piece, &len, err, sizeof err), err);
    strncat(streamed, piece, len);
    ASSERT_OK(qd_tokenizer_decode(tokenizer, reply->tokens, (size_t)reply->n_tokens, true, &whole, &len, err,
                                  sizeof err),
              err);
    assert_string_equal(streamed, whole);
    assert_true(len > 10 && strstr(whole, "<|im_end|>") == NULL && strstr(whole, "\xef\xbf\xbd") == NULL);
    free(whole);
    qd_detokenizer_free(&stream);
}

static void stories_are_told_and_end(void **state)
{
    need_isa_for_model(*state);
    static const char question[] = "Tell me a story about Dorothy.";
    char err[QD_ERR_LEN] = "", *text;
    qd_tokenizer_t *tokenizer = load_tokenizer(TINY_DIR);
    qd_instance_t *instance = open_for(&references[1], *state);
    struct qd_request requests[N_STORIES];
    int32_t *ids;
    size_t n_ids, len;
    ASSERT_OK(qd_chat_single(TINY_DIR, question, strlen(question), "false", &text, &len, err, sizeof err), err);
    ASSERT_OK(qd_tokenizer_encode(tokenizer, text, len, &ids, &n_ids, err, sizeof err), err);
    for (uint64_t i = 0; i < N_STORIES; i++)
        requests[i] = (struct qd_request){.prompt = ids,
                                          .n_prompt = (int32_t)n_ids,
                                          .max_tokens = MAX_STORY,
                                          .temperature = 0.7f,
                                          .top_p = 0.9f,
                                          .seed = i};
    struct reply *replies = serve(qd_instance_engine(instance), requests, N_STORIES, 0);
    int n_ended = 0;
    for (int i = 0; i < N_STORIES; i++) {
        check_story(tokenizer, &replies[i]);
        n_ended += replies[i].finish == QD_FINISH_STOP;
    }
    printf("%d of %d stories ended within %d tokens\n", n_ended, N_STORIES, MAX_STORY);
    assert_in_range(n_ended, N_STORIES / 3, N_STORIES);
    replies_free(replies);
    free(ids);
    free(text);
    qd_instance_close(instance);
    qd_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_ISA(held_out_text_is_as_likely),
        EVERY_ISA(greedy_continuations),
        EVERY_ISA(a_chat_ends_by_itself),
        cmocka_unit_test(texts_and_ids_of_the_evaluation),
        EVERY_ISA(stories_are_told_and_end),
    };
    return cmocka_run_group_tests_name("tiny", tests, NULL, NULL);
}

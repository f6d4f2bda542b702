#include "tests/support/golden.h"

#include <math.h>

#include "tests/support/model_run.h"

static const cJSON *member(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (item == NULL) fail_msg("golden.json lacks \"%s\"", key);
    return item;
}

static double number(const cJSON *object, const char *key)
{
    return cJSON_GetNumberValue(member(object, key));
}

static cJSON *parse_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    assert_true(size > 0);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    text[size] = '\0';
    fclose(file);
    cJSON *root = cJSON_Parse(text);
    free(text);
    if (root == NULL) fail_msg("%s is not JSON", path);
    return root;
}

void golden_load(struct golden *golden, const char *dir)
{
    char path[512];
    const char *slash = strrchr(dir, '/');
    *golden = (struct golden){0};
    snprintf(golden->name, sizeof golden->name, "%s", slash != NULL ? slash + 1 : dir);
    snprintf(path, sizeof path, "%s/golden.json", dir);
    golden->root = parse_file(path);
    golden->vocab_size = (int32_t)number(member(golden->root, "shape"), "vocab");
    const cJSON *prompts = member(golden->root, "prompts"), *prompt, *id;
    golden->n_prompts = cJSON_GetArraySize(prompts);
    assert_true(golden->n_prompts > 0);
    golden->prompts = calloc((size_t)golden->n_prompts, sizeof *golden->prompts);
    golden->lengths = calloc((size_t)golden->n_prompts, sizeof *golden->lengths);
    assert_true(golden->prompts != NULL && golden->lengths != NULL);
    int p = 0;
    cJSON_ArrayForEach (prompt, prompts) {
        int32_t *ids = calloc((size_t)cJSON_GetArraySize(prompt), sizeof *ids);
        assert_non_null(ids);
        golden->prompts[p] = ids;
        cJSON_ArrayForEach (id, prompt) ids[golden->lengths[p]++] = id->valueint;
        p++;
    }
}

void golden_free(struct golden *golden)
{
    for (int p = 0; p < golden->n_prompts; p++) free(golden->prompts[p]);
    free(golden->prompts);
    free(golden->lengths);
    cJSON_Delete(golden->root);
    *golden = (struct golden){0};
}

void judge_begin(struct judge *judge, const struct golden *golden, const char *kind)
{
    char key[64];
    const cJSON *tolerance = member(golden->root, "tolerance");
    *judge = (struct judge){.golden = golden, .kind = kind};
    judge->target = member(golden->root, cJSON_GetStringValue(member(member(golden->root, "kinds"), kind)));
    judge->margin_threshold = number(member(golden->root, "margin_threshold"), kind);
    judge->tolerance = number(tolerance, kind);
    snprintf(key, sizeof key, "%s_lse", kind);
    judge->lse_tolerance = number(tolerance, key);
    snprintf(key, sizeof key, "%s_rms", kind);
    judge->rms_tolerance = number(tolerance, key);
}

void judge_prompt(struct judge *judge, int prompt)
{
    judge->prompt = prompt;
    judge->nll = 0.0;
}

static void note_failure(struct judge *judge, int32_t position, const char *what, double found,
                         double expected)
{
    if (judge->first_failure[0] != '\0') return;
    snprintf(judge->first_failure, sizeof judge->first_failure,
             "prompt %d position %d: %s %.6g, expected %.6g", judge->prompt, position, what, found, expected);
}

/* Keeps the worst share of a limit; a share that is no number breaks it. */
static void note_share(struct judge *judge, double *worst, double error, double limit, int32_t position,
                       const char *what, double found, double expected)
{
    double share = fabs(error) / limit;
    if (!(share <= *worst)) *worst = share;
    if (!(share <= 1.0)) note_failure(judge, position, what, found, expected);
}

static double log_sum_exp(const float *logits, int32_t n, float largest)
{
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)largest);
    return (double)largest + log(sum);
}

static void judge_top(struct judge *judge, const cJSON *entry, int32_t position, const float *logits)
{
    int32_t index = position - (int32_t)number(entry, "top_from");
    if (index < 0) return;
    const cJSON *ids = cJSON_GetArrayItem(member(entry, "top_ids"), index);
    const cJSON *expected = cJSON_GetArrayItem(member(entry, "top_logits"), index);
    assert_true(cJSON_GetArraySize(ids) > 0 && cJSON_GetArraySize(ids) == cJSON_GetArraySize(expected));
    const cJSON *value = expected->child;
    for (const cJSON *id = ids->child; id != NULL; id = id->next, value = value->next) {
        double error = (double)logits[id->valueint] - value->valuedouble;
        judge->sum_of_squares += error * error;
        judge->n_top++;
        note_share(judge, &judge->top, error, judge->tolerance, position, "a top logit is",
                   (double)logits[id->valueint], value->valuedouble);
    }
}

void judge_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct judge *judge = arg;
    const struct golden *golden = judge->golden;
    const cJSON *entry = cJSON_GetArrayItem(judge->target, judge->prompt);
    int32_t best = 0;
    for (int32_t i = 1; i < golden->vocab_size; i++)
        if (logits[i] > logits[best]) best = i;
    if (id != best) note_failure(judge, position, "the sampled id is", id, best);

    int32_t argmax = cJSON_GetArrayItem(member(entry, "argmax"), position)->valueint;
    double margin = cJSON_GetArrayItem(member(entry, "margin"), position)->valuedouble;
    if (margin > judge->margin_threshold) {
        judge->n_judged_argmax++;
        judge->n_wrong_argmax += best != argmax;
        if (best != argmax) note_failure(judge, position, "argmax", best, argmax);
    }
    double lse = log_sum_exp(logits, golden->vocab_size, logits[best]);
    double expected_lse = cJSON_GetArrayItem(member(entry, "logsumexp"), position)->valuedouble;
    note_share(judge, &judge->lse, lse - expected_lse, judge->lse_tolerance, position, "logsumexp", lse,
               expected_lse);
    judge_top(judge, entry, position, logits);
    if (position + 1 < golden->lengths[judge->prompt])
        judge->nll += lse - (double)logits[golden->prompts[judge->prompt][position + 1]];
}

void judge_prompt_end(struct judge *judge)
{
    int32_t n = judge->golden->lengths[judge->prompt];
    double expected = number(cJSON_GetArrayItem(judge->target, judge->prompt), "nll");
    double allowed = (n - 1) * (judge->lse_tolerance + judge->tolerance);
    if (n > 1)
        note_share(judge, &judge->nll_share, judge->nll - expected, allowed, n - 1, "nll", judge->nll,
                   expected);
}

void judge_end(const struct judge *judge, const char *what)
{
    double rms = sqrt(judge->sum_of_squares / judge->n_top) / judge->rms_tolerance;
    printf("%s, %s, %s: argmax %d of %d; of the limits: top %.2f, lse %.2f, rms %.2f, nll %.2f\n",
           judge->golden->name, what, judge->kind, judge->n_judged_argmax - judge->n_wrong_argmax,
           judge->n_judged_argmax, judge->top, judge->lse, rms, judge->nll_share);
    fflush(stdout);
    if (judge->first_failure[0] != '\0')
        fail_msg("%s, %s, %s: %s", judge->golden->name, what, judge->kind, judge->first_failure);
    if (!(rms <= 1.0))
        fail_msg("%s, %s, %s: rms is %.3f of its limit", judge->golden->name, what, judge->kind, rms);
    assert_true(judge->n_judged_argmax > 0);
}

void judge_prompts(struct model_run *run, const struct golden *golden, int32_t max_len, const char *kind,
                   const char *what)
{
    enum { SANITIZED_LEN = 120 };
    struct judge judge;
    judge_begin(&judge, golden, kind);
    for (int p = 0; p < golden->n_prompts; p++) {
        if (golden->lengths[p] > max_len || (IS_SANITIZED && golden->lengths[p] > SANITIZED_LEN)) continue;
        judge_prompt(&judge, p);
        struct qd_forward forward = {
            .tokens = golden->prompts[p],
            .n_tokens = golden->lengths[p],
            .chunk = GOLDEN_MAX_CHUNK,
            .row = judge_row,
            .arg = &judge,
        };
        model_run_forward(run, &forward);
        judge_prompt_end(&judge);
    }
    judge_end(&judge, what);
}

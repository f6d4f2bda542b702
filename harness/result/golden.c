#include "harness/result/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/json.h"

enum { MAX_FILE_BYTES = 256 << 20, MAX_VOCAB = 1 << 24, MAX_TOP = 1000 };

/* ---- reading ---- */

static const cJSON *get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* A list of `n` ids below `limit`. */
static bool read_ids(const cJSON *list, int32_t n, int32_t limit, int32_t *out)
{
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n) return false;
    const cJSON *item;
    cJSON_ArrayForEach (item, list) {
        double value = cJSON_IsNumber(item) ? item->valuedouble : -1.0;
        if (!(value >= 0 && value < (double)limit) || value != floor(value)) return false;
        *out++ = (int32_t)value;
    }
    return true;
}

static bool read_numbers(const cJSON *list, int32_t n, double *out)
{
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n) return false;
    const cJSON *item;
    cJSON_ArrayForEach (item, list) {
        if (!cJSON_IsNumber(item)) return false;
        *out++ = item->valuedouble;
    }
    return true;
}

static qd_status read_prompts(struct qd_golden *golden, char *err, size_t errlen)
{
    const cJSON *prompts = get(golden->root, "prompts"), *prompt;
    int n = cJSON_IsArray(prompts) ? cJSON_GetArraySize(prompts) : 0;
    if (n < 1) return qd_fail(QD_ERR_INPUT, err, errlen, "no list \"prompts\"");
    golden->prompts = calloc((size_t)n, sizeof *golden->prompts);
    golden->lengths = calloc((size_t)n, sizeof *golden->lengths);
    if (golden->prompts == NULL || golden->lengths == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%d prompts", n);
    cJSON_ArrayForEach (prompt, prompts) {
        int p = golden->n_prompts, length = cJSON_IsArray(prompt) ? cJSON_GetArraySize(prompt) : 0;
        if (length < 1) return qd_fail(QD_ERR_INPUT, err, errlen, "prompts[%d]: no list of ids", p);
        golden->prompts[p] = calloc((size_t)length, sizeof **golden->prompts);
        if (golden->prompts[p] == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%d ids", length);
        golden->lengths[p] = length;
        golden->n_prompts++;
        if (!read_ids(prompt, length, golden->vocab_size, golden->prompts[p]))
            return qd_fail(QD_ERR_INPUT, err, errlen, "prompts[%d]: not ids of a vocabulary of %d", p,
                           golden->vocab_size);
    }
    return QD_OK;
}

static qd_status read_fields(struct qd_golden *golden, char *err, size_t errlen)
{
    int64_t vocab_size;
    char reason[QD_ERR_LEN];
    QD_TRY(qd_json_get_string(golden->root, "model", &golden->name, err, errlen));
    qd_status status = qd_json_get_int(get(golden->root, "shape"), "vocab", 1, MAX_VOCAB, &vocab_size, reason,
                                       sizeof reason);
    if (status != QD_OK) return qd_fail(status, err, errlen, "shape: %s", reason);
    golden->vocab_size = (int32_t)vocab_size;
    return read_prompts(golden, err, errlen);
}

qd_status qd_golden_read(const char *path, struct qd_golden *out, char *err, size_t errlen)
{
    char reason[QD_ERR_LEN];
    *out = (struct qd_golden){0};
    QD_TRY(qd_json_read_file(path, MAX_FILE_BYTES, &out->root, err, errlen));
    qd_status status = read_fields(out, reason, sizeof reason);
    if (status == QD_OK) return QD_OK;
    qd_golden_free(out);
    return qd_fail(status == QD_ERR_NOT_FOUND ? QD_ERR_INPUT : status, err, errlen, "%s: %s", path, reason);
}

void qd_golden_free(struct qd_golden *golden)
{
    for (int p = 0; p < golden->n_prompts; p++) free(golden->prompts[p]);
    free(golden->prompts);
    free(golden->lengths);
    cJSON_Delete(golden->root);
    *golden = (struct qd_golden){0};
}

/* ---- what is expected ---- */

static qd_status alloc_expected(struct qd_golden_expected *out, int32_t n, char *err, size_t errlen)
{
    const size_t n_tops = (size_t)(n - out->top_from) * (size_t)out->n_top;
    out->argmax = calloc((size_t)n, sizeof *out->argmax);
    out->margin = calloc((size_t)n, sizeof *out->margin);
    out->lse = calloc((size_t)n, sizeof *out->lse);
    out->top_ids = calloc(n_tops + 1, sizeof *out->top_ids);
    out->top_logits = calloc(n_tops + 1, sizeof *out->top_logits);
    bool is_complete = out->argmax != NULL && out->margin != NULL && out->lse != NULL &&
                       out->top_ids != NULL && out->top_logits != NULL;
    return is_complete ? QD_OK : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%d positions", n);
}

static bool read_tops(const cJSON *entry, int32_t n_rows, int32_t vocab_size, struct qd_golden_expected *out)
{
    const cJSON *ids = get(entry, "top_ids"), *logits = get(entry, "top_logits");
    if (cJSON_GetArraySize(ids) != n_rows || cJSON_GetArraySize(logits) != n_rows) return false;
    const cJSON *row_ids = ids->child, *row_logits = logits->child;
    for (int32_t row = 0; row < n_rows; row++, row_ids = row_ids->next, row_logits = row_logits->next) {
        if (!read_ids(row_ids, out->n_top, vocab_size, out->top_ids + row * out->n_top)) return false;
        if (!read_numbers(row_logits, out->n_top, out->top_logits + row * out->n_top)) return false;
    }
    return true;
}

/* One entry of a compute, for a prompt of n tokens. */
static qd_status read_expected(const cJSON *entry, int32_t n, int32_t vocab_size,
                               struct qd_golden_expected *out, char *err, size_t errlen)
{
    int64_t top_from;
    QD_TRY(qd_json_get_number(entry, "nll", &out->nll, err, errlen));
    QD_TRY(qd_json_get_int(entry, "top_from", 0, n - 1, &top_from, err, errlen));
    out->top_from = (int32_t)top_from;
    out->n_top = cJSON_GetArraySize(cJSON_GetArrayItem(get(entry, "top_ids"), 0));
    if (out->n_top < 1 || out->n_top > MAX_TOP)
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"top_ids\" does not hold lists of ids");
    QD_TRY(alloc_expected(out, n, err, errlen));
    if (!read_ids(get(entry, "argmax"), n, vocab_size, out->argmax))
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"argmax\" is not %d ids", n);
    if (!read_numbers(get(entry, "margin"), n, out->margin))
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"margin\" is not %d numbers", n);
    if (!read_numbers(get(entry, "logsumexp"), n, out->lse))
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"logsumexp\" is not %d numbers", n);
    if (!read_tops(entry, n - out->top_from, vocab_size, out))
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "\"top_ids\" and \"top_logits\" are not %d lists of %d ids and logits",
                       n - out->top_from, out->n_top);
    return QD_OK;
}

/* tolerance[kind + suffix]: a limit above 0. */
static qd_status read_limit(const struct qd_golden *golden, const char *object, const char *kind,
                            const char *suffix, double *out, char *err, size_t errlen)
{
    char key[64], reason[QD_ERR_LEN];
    snprintf(key, sizeof key, "%s%s", kind, suffix);
    qd_status status = qd_json_get_number(get(golden->root, object), key, out, reason, sizeof reason);
    if (status != QD_OK) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s", object, reason);
    if (!(*out > 0))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: \"%s\" is %g: it must be above 0", object, key, *out);
    return QD_OK;
}

static qd_status read_limits(struct qd_golden_judge *judge, char *err, size_t errlen)
{
    const struct qd_golden *golden = judge->golden;
    const char *kind = judge->kind;
    QD_TRY(read_limit(golden, "margin_threshold", kind, "", &judge->margin_threshold, err, errlen));
    QD_TRY(read_limit(golden, "tolerance", kind, "", &judge->tolerance, err, errlen));
    QD_TRY(read_limit(golden, "tolerance", kind, "_lse", &judge->lse_tolerance, err, errlen));
    return read_limit(golden, "tolerance", kind, "_rms", &judge->rms_tolerance, err, errlen);
}

static qd_status read_target(struct qd_golden_judge *judge, char *err, size_t errlen)
{
    const struct qd_golden *golden = judge->golden;
    const char *compute;
    char reason[QD_ERR_LEN];
    qd_status status =
        qd_json_get_string(get(golden->root, "kinds"), judge->kind, &compute, reason, sizeof reason);
    if (status != QD_OK) return qd_fail(QD_ERR_INPUT, err, errlen, "kinds: %s", reason);
    const cJSON *target = get(golden->root, compute);
    if (!cJSON_IsArray(target) || cJSON_GetArraySize(target) != golden->n_prompts)
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"%s\" is not a list of %d prompts", compute,
                       golden->n_prompts);
    judge->expected = calloc((size_t)golden->n_prompts, sizeof *judge->expected);
    if (judge->expected == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%d prompts", golden->n_prompts);
    int p = 0;
    const cJSON *entry;
    cJSON_ArrayForEach (entry, target) {
        status = read_expected(entry, golden->lengths[p], golden->vocab_size, &judge->expected[p], reason,
                               sizeof reason);
        if (status == QD_ERR_NOT_FOUND) status = QD_ERR_INPUT;
        if (status != QD_OK) return qd_fail(status, err, errlen, "%s[%d]: %s", compute, p, reason);
        p++;
    }
    return QD_OK;
}

qd_status qd_golden_judge_init(struct qd_golden_judge *judge, const struct qd_golden *golden,
                               const char *kind, char *err, size_t errlen)
{
    *judge = (struct qd_golden_judge){.golden = golden, .kind = kind};
    qd_status status = read_limits(judge, err, errlen);
    if (status == QD_OK) status = read_target(judge, err, errlen);
    if (status != QD_OK) qd_golden_judge_free(judge);
    return status;
}

void qd_golden_judge_free(struct qd_golden_judge *judge)
{
    for (int p = 0; judge->expected != NULL && p < judge->golden->n_prompts; p++) {
        free(judge->expected[p].argmax);
        free(judge->expected[p].margin);
        free(judge->expected[p].lse);
        free(judge->expected[p].top_ids);
        free(judge->expected[p].top_logits);
    }
    free(judge->expected);
    judge->expected = NULL;
}

/* ---- judging ---- */

void qd_golden_judge_prompt(struct qd_golden_judge *judge, int prompt)
{
    judge->prompt = prompt;
    judge->nll = 0.0;
}

static void note_failure(struct qd_golden_judge *judge, int32_t position, const char *what, double found,
                         double expected)
{
    if (judge->first_failure[0] != '\0') return;
    snprintf(judge->first_failure, sizeof judge->first_failure,
             "prompt %d position %d: %s %.6g, expected %.6g", judge->prompt, position, what, found, expected);
}

/* Keeps the worst share of a limit; a share that is no number breaks it, and stays the worst. */
static void note_share(struct qd_golden_judge *judge, double *worst, double limit, int32_t position,
                       const char *what, double found, double expected)
{
    double share = fabs(found - expected) / limit;
    if (!(share <= *worst) && !isnan(*worst)) *worst = share;
    if (!(share <= 1.0)) note_failure(judge, position, what, found, expected);
}

static double log_sum_exp(const float *logits, int32_t n, float largest)
{
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)largest);
    return (double)largest + log(sum);
}

static void judge_argmax(struct qd_golden_judge *judge, const struct qd_golden_expected *expected,
                         int32_t position, int32_t best)
{
    if (!(expected->margin[position] > judge->margin_threshold)) return;
    judge->n_judged_argmax++;
    if (best == expected->argmax[position]) return;
    judge->n_wrong_argmax++;
    note_failure(judge, position, "argmax", best, expected->argmax[position]);
}

static void judge_top(struct qd_golden_judge *judge, const struct qd_golden_expected *expected,
                      int32_t position, const float *logits)
{
    if (position < expected->top_from) return;
    const int32_t first = (position - expected->top_from) * expected->n_top;
    for (int32_t i = first; i < first + expected->n_top; i++) {
        double found = (double)logits[expected->top_ids[i]], error = found - expected->top_logits[i];
        judge->sum_of_squares += error * error;
        judge->n_top++;
        note_share(judge, &judge->top, judge->tolerance, position, "a top logit is", found,
                   expected->top_logits[i]);
    }
}

void qd_golden_judge_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct qd_golden_judge *judge = arg;
    const struct qd_golden *golden = judge->golden;
    const struct qd_golden_expected *expected = &judge->expected[judge->prompt];
    int32_t best = 0;
    for (int32_t i = 1; i < golden->vocab_size; i++)
        if (logits[i] > logits[best]) best = i;
    judge->n_positions++;
    if (id != best) note_failure(judge, position, "the sampled id is", id, best);
    judge_argmax(judge, expected, position, best);
    double lse = log_sum_exp(logits, golden->vocab_size, logits[best]);
    note_share(judge, &judge->lse, judge->lse_tolerance, position, "logsumexp", lse, expected->lse[position]);
    judge_top(judge, expected, position, logits);
    if (position + 1 < golden->lengths[judge->prompt])
        judge->nll += lse - (double)logits[golden->prompts[judge->prompt][position + 1]];
}

void qd_golden_judge_prompt_end(struct qd_golden_judge *judge)
{
    int32_t n = judge->golden->lengths[judge->prompt];
    double allowed = (n - 1) * (judge->lse_tolerance + judge->tolerance);
    if (n > 1)
        note_share(judge, &judge->nll_share, allowed, n - 1, "nll", judge->nll,
                   judge->expected[judge->prompt].nll);
}

double qd_golden_judge_rms(const struct qd_golden_judge *judge)
{
    return sqrt(judge->sum_of_squares / (double)judge->n_top) / judge->rms_tolerance;
}

bool qd_golden_judge_passes(const struct qd_golden_judge *judge, char *why, size_t why_len)
{
    qd_status status = QD_OK;
    double rms = qd_golden_judge_rms(judge);
    if (judge->first_failure[0] != '\0')
        status = qd_fail(QD_ERR_INTERNAL, why, why_len, "%s", judge->first_failure);
    else if (judge->n_judged_argmax == 0)
        status =
            qd_fail(QD_ERR_INTERNAL, why, why_len, "no position was judged whose largest logit has a margin");
    else if (!(rms <= 1.0))
        status =
            qd_fail(QD_ERR_INTERNAL, why, why_len, "the root mean square error is %.3f of its limit", rms);
    return status == QD_OK;
}

/* qdyno eval: token ids in; argmax, margin, log-sum-exp, largest logits and negative log likelihood per
 * position out, a JSON line a prompt. Proves numerics on the user's own machine; --expect judges them. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/eval_expect.h"
#include "harness/cli/session.h"
#include "harness/cli/stream.h"
#include "harness/engine/forward_once.h"
#include "models/json.h"

enum { MAX_FILE_BYTES = 1 << 30, MAX_LOGIT_ROWS = 64 };

struct logit {
    int32_t id;
    float value;
};

/* What the rows of one prompt are printed from. */
struct eval_row {
    const int32_t *tokens;
    int32_t n_tokens;
    int64_t vocab_size;
    int32_t first_printed; /* position */
    int top;
    struct logit *best; /* [top + 1] falling; ties by rising id */
    double nll;
    FILE *positions;
};

/* The `n` largest logits, falling, ties by rising id: insertion into a short sorted list. */
static int find_top(const float *logits, int64_t vocab_size, int n, struct logit *best)
{
    int found = 0;
    for (int64_t id = 0; id < vocab_size; id++) {
        float value = logits[id];
        if (isnan(value) || (found == n && !(value > best[n - 1].value))) continue;
        int at = found < n ? found++ : n - 1;
        for (; at > 0 && best[at - 1].value < value; at--) best[at] = best[at - 1];
        best[at] = (struct logit){(int32_t)id, value};
    }
    return found;
}

static double log_sum_exp(const float *logits, int64_t vocab_size, double largest)
{
    double sum = 0;
    for (int64_t id = 0; id < vocab_size; id++) sum += exp((double)logits[id] - largest);
    return largest + log(sum);
}

/* JSON has no infinity and no NaN (weights that overflow bf16 lead to them): null. */
static void print_number(FILE *out, int digits, double value)
{
    if (isfinite(value))
        fprintf(out, "%.*g", digits, value);
    else
        fputs("null", out);
}

static void print_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct eval_row *row = arg;
    (void)id; /* what was sampled is the largest logit; it is found again with its rivals */
    int want = row->top < 2 ? 2 : row->top; /* the margin needs two */
    int n = find_top(logits, row->vocab_size, want, row->best);
    double largest = n > 0 ? (double)row->best[0].value : NAN;
    double lse = log_sum_exp(logits, row->vocab_size, largest);
    if (position + 1 < row->n_tokens) row->nll += lse - (double)logits[row->tokens[position + 1]];
    if (position < row->first_printed) return;
    fprintf(row->positions, "%s{\"id\":%" PRId32 ",\"margin\":", position > row->first_printed ? "," : "",
            n > 0 ? row->best[0].id : -1);
    print_number(row->positions, 9, n > 1 ? largest - (double)row->best[1].value : 0.0);
    fputs(",\"lse\":", row->positions);
    print_number(row->positions, 12, lse);
    fputs(",\"top\":[", row->positions);
    for (int i = 0; i < n && i < row->top; i++) {
        fprintf(row->positions, "%s[%" PRId32 ",", i > 0 ? "," : "", row->best[i].id);
        print_number(row->positions, 9, (double)row->best[i].value);
        putc(']', row->positions);
    }
    fputs("]}", row->positions);
}

/* One prompt's ids; *tokens is freed by the caller. */
static qd_status read_prompt(const cJSON *list, int64_t vocab_size, int32_t max_model_len, int32_t **tokens,
                             int32_t *n_tokens, char *err, size_t errlen)
{
    if (!cJSON_IsArray(list)) return qd_fail(QD_ERR_INPUT, err, errlen, "no list of ids");
    int n = cJSON_GetArraySize(list);
    if (n < 1 || n > max_model_len)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%d ids, but 1 .. %" PRId32 " fit max_model_len", n,
                       max_model_len);
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    if (ids == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%d ids", n);
    int i = 0;
    const cJSON *item;
    cJSON_ArrayForEach (item, list) {
        double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(value >= 0 && value < (double)vocab_size) || value != floor(value)) {
            free(ids);
            return qd_fail(QD_ERR_INPUT, err, errlen, "item %d is no id of the vocabulary (0 .. %" PRId64 ")",
                           i, vocab_size - 1);
        }
        ids[i++] = (int32_t)value;
    }
    *tokens = ids;
    *n_tokens = n;
    return QD_OK;
}

static qd_status eval_prompt(qd_instance_t *instance, const struct qd_options *options, const int32_t *tokens,
                             int32_t n_tokens, char *err, size_t errlen)
{
    const struct qd_instance_plan *plan = qd_instance_get_plan(instance);
    char *positions = NULL;
    size_t positions_len;
    struct eval_row row = {
        .tokens = tokens,
        .n_tokens = n_tokens,
        .vocab_size = qd_instance_config(instance)->vocab_size,
        .first_printed =
            options->last > 0 && options->last < n_tokens ? n_tokens - (int32_t)options->last : 0,
        .top = (int)options->top,
        .best = calloc((size_t)options->top + 2, sizeof *row.best),
        .positions = open_memstream(&positions, &positions_len),
    };
    qd_status status = QD_OK;
    if (row.best == NULL || row.positions == NULL) {
        status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "rows of a prompt");
        goto cleanup;
    }
    struct qd_forward forward = {
        .tokens = tokens,
        .n_tokens = n_tokens,
        .chunk = plan->limits.max_tokens < n_tokens ? plan->limits.max_tokens : n_tokens,
        .row = print_row,
        .arg = &row,
    };
    QD_TRY_GOTO(qd_forward_once(qd_instance_group(instance, 0), &plan->limits, &forward, err, errlen), status,
                cleanup);
    fflush(row.positions);
    printf("{\"n_tokens\":%" PRId32 ",\"nll\":", n_tokens);
    print_number(stdout, 12, row.nll);
    printf(",\"positions\":[%s]}\n", positions);

cleanup:
    if (row.positions != NULL) fclose(row.positions);
    free(positions);
    free(row.best);
    return status;
}

/* A file, or standard input whatever it is. */
static qd_status read_tokens_file(const char *path, cJSON **out, char *err, size_t errlen)
{
    char reason[QD_ERR_LEN], *text;
    size_t len;
    if (strcmp(path, "-") != 0) return qd_json_read_file(path, MAX_FILE_BYTES, out, err, errlen);
    QD_TRY(qd_stream_read(stdin, MAX_FILE_BYTES, &text, &len, err, errlen));
    qd_status status = qd_json_parse(text, len, NULL, out, reason, sizeof reason);
    free(text);
    return status == QD_OK ? QD_OK : qd_fail(status, err, errlen, "standard input: %s", reason);
}

/* Reads every prompt, and evaluates each when `evaluate` is set. */
static qd_status visit_prompts(qd_instance_t *instance, const struct qd_options *options,
                               const cJSON *prompts, bool evaluate, char *err, size_t errlen)
{
    int index = 0;
    const cJSON *prompt;
    cJSON_ArrayForEach (prompt, prompts) {
        char reason[QD_ERR_LEN] = "";
        int32_t *tokens = NULL, n_tokens = 0;
        qd_status status = read_prompt(prompt, qd_instance_config(instance)->vocab_size,
                                       qd_instance_get_plan(instance)->max_model_len, &tokens, &n_tokens,
                                       reason, sizeof reason);
        if (status == QD_OK && evaluate)
            status = eval_prompt(instance, options, tokens, n_tokens, reason, sizeof reason);
        free(tokens);
        if (status != QD_OK)
            return qd_fail(status, err, errlen, "%s: prompts[%d]: %s", options->tokens, index, reason);
        index++;
    }
    return QD_OK;
}

/* A bad prompt is refused before the first line goes out. */
static qd_status eval_all(qd_instance_t *instance, const struct qd_options *options, const cJSON *prompts,
                          char *err, size_t errlen)
{
    QD_TRY(visit_prompts(instance, options, prompts, false, err, errlen));
    return visit_prompts(instance, options, prompts, true, err, errlen);
}

/* An instance whose device has logits. */
static qd_status open_instance(const struct qd_options *options, qd_instance_t **out, char *err,
                               size_t errlen)
{
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    instance_options.max_logit_rows = MAX_LOGIT_ROWS;
    instance_options.enforce_eager = true; /* steps that want logits are never replayed */
    QD_TRY(qd_session_open(&instance_options, out, err, errlen));
    if (!qd_instance_get_plan(*out)->ops->executes)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "the device %s has no logits", options->device);
    return QD_OK;
}

static qd_status eval_tokens(const struct qd_options *options, qd_instance_t **instance, char *err,
                             size_t errlen)
{
    cJSON *file = NULL;
    QD_TRY(read_tokens_file(options->tokens, &file, err, errlen));
    const cJSON *prompts = cJSON_GetObjectItemCaseSensitive(file, "prompts");
    qd_status status = cJSON_IsArray(prompts)
                           ? open_instance(options, instance, err, errlen)
                           : qd_fail(QD_ERR_INPUT, err, errlen, "%s: no list \"prompts\"", options->tokens);
    if (status == QD_OK) status = eval_all(*instance, options, prompts, err, errlen);
    cJSON_Delete(file);
    return status;
}

static qd_status eval_expect(const struct qd_options *options, qd_instance_t **instance, bool *passes,
                             char *err, size_t errlen)
{
    QD_TRY(open_instance(options, instance, err, errlen));
    return qd_eval_expect(*instance, options->expect, qd_session_instance_options(options).numerics, passes,
                          err, errlen);
}

static int run_eval(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    bool passes = true;
    qd_instance_t *instance = NULL;
    if ((options->tokens == NULL) == (options->expect == NULL))
        return qd_command_fail(command, QD_ERR_INPUT, "either --tokens or --expect is needed");
    qd_status status = options->expect != NULL ? eval_expect(options, &instance, &passes, err, sizeof err)
                                               : eval_tokens(options, &instance, err, sizeof err);
    int exit_code = passes ? QD_EXIT_OK : QD_EXIT_FAILED_CHECK;
    if (status != QD_OK) exit_code = qd_command_fail(command, status, err);
    return qd_session_close(command, instance, exit_code);
}

const struct qd_command qd_command_eval = {
    .name = "eval",
    .summary = "token ids in; logits, margins and likelihood per position out (JSON lines)",
    .synopsis =
        "--model DIR (--tokens FILE | --expect FILE) [--numerics hf] [--top K] [--last N] [OPTION...]",
    .groups = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE | QD_GROUP_EVAL,
    .run = run_eval,
};

#include <stdlib.h>

#include "harness/workload/build.h"
#include "models/json.h"

/* vLLM's filter. */
enum { MIN_TURNS = 2, MIN_TOKENS = 4, MAX_PROMPT = 1024, MAX_BOTH = 2048 };

/* The value of a turn as ids, owned by the caller. */
static qd_status encode_turn(const qd_tokenizer_t *tokenizer, const cJSON *turns, int index, int32_t **ids,
                             size_t *n, char *err, size_t errlen)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(turns, index), "value");
    if (!cJSON_IsString(value))
        return qd_fail(QD_ERR_INPUT, err, errlen, "conversations[%d]: \"value\" is no text", index);
    char *text;
    size_t len;
    QD_TRY(qd_json_text(value, &text, &len));
    qd_status status = qd_tokenizer_encode(tokenizer, text, len, ids, n, err, errlen);
    free(text);
    return status;
}

/* A length that was asked for may be shorter than an answer of the data set. */
static bool is_kept(const struct qd_sharegpt_spec *spec, size_t n_prompt, size_t n_output)
{
    if (n_prompt < MIN_TOKENS || n_prompt > MAX_PROMPT || n_prompt + n_output > MAX_BOTH) return false;
    return spec->output_len > 0 || n_output >= MIN_TOKENS;
}

/* Appends the conversation, unless the rules leave it out. */
static qd_status take(const struct qd_sharegpt_spec *spec, const cJSON *conversation, struct qd_workload *out,
                      char *err, size_t errlen)
{
    const cJSON *turns = cJSON_GetObjectItemCaseSensitive(conversation, "conversations");
    if (!cJSON_IsArray(turns)) return qd_fail(QD_ERR_INPUT, err, errlen, "\"conversations\" is no list");
    if (cJSON_GetArraySize(turns) < MIN_TURNS) return QD_OK;
    int32_t *prompt = NULL, *answer = NULL;
    size_t n_prompt = 0, n_answer = 0;
    qd_status status = encode_turn(spec->tokenizer, turns, 0, &prompt, &n_prompt, err, errlen);
    if (status == QD_OK) status = encode_turn(spec->tokenizer, turns, 1, &answer, &n_answer, err, errlen);
    free(answer);
    size_t n_output = spec->output_len > 0 ? (size_t)spec->output_len : n_answer;
    if (status != QD_OK || !is_kept(spec, n_prompt, n_output)) {
        free(prompt);
        return status;
    }
    struct qd_workload_request *request = qd_workload_append(out);
    if (request == NULL) {
        free(prompt);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    }
    *request = (struct qd_workload_request){
        .prompt = prompt,
        .n_prompt = (int32_t)n_prompt,
        .max_tokens = (int32_t)n_output,
    };
    return QD_OK;
}

/* Fisher and Yates. */
static void shuffle(const cJSON **items, int n, uint64_t seed)
{
    for (int i = n - 1; i > 0; i--) {
        int j = (int)qd_workload_draw(seed, QD_STREAM_SHUFFLE, (uint64_t)i, 0, i);
        const cJSON *item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}

static qd_status take_all(const struct qd_sharegpt_spec *spec, const cJSON *root, struct qd_workload *out,
                          char *err, size_t errlen)
{
    int n = cJSON_GetArraySize(root), i = 0;
    if (!cJSON_IsArray(root))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: no list of conversations", spec->path);
    const cJSON **items = calloc((size_t)n + 1, sizeof *items);
    if (items == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", spec->path);
    const cJSON *item;
    cJSON_ArrayForEach (item, root) items[i++] = item;
    shuffle(items, n, spec->seed);
    qd_status status = QD_OK;
    for (i = 0; i < n && status == QD_OK && (spec->n == 0 || out->n < (size_t)spec->n); i++) {
        char reason[QD_ERR_LEN] = "";
        status = take(spec, items[i], out, reason, sizeof reason);
        if (status != QD_OK) {
            const cJSON *id = cJSON_GetObjectItemCaseSensitive(items[i], "id");
            qd_fail(status, err, errlen, "%s: conversation \"%s\": %s", spec->path,
                    cJSON_IsString(id) ? id->valuestring : "?", reason);
        }
    }
    free(items);
    return status;
}

qd_status qd_workload_sharegpt(const struct qd_sharegpt_spec *spec, struct qd_workload *out, char *err,
                               size_t errlen)
{
    *out = (struct qd_workload){.ignore_eos = spec->ignore_eos};
    cJSON *root;
    QD_TRY(qd_json_read_file(spec->path, QD_WORKLOAD_MAX_BYTES, &root, err, errlen));
    qd_status status = take_all(spec, root, out, err, errlen);
    cJSON_Delete(root);
    return qd_workload_finish(spec->path, spec->n, status, out, err, errlen);
}

#include "harness/cli/eval_expect.h"

#include <inttypes.h>
#include <stdio.h>

#include "harness/engine/forward_once.h"
#include "harness/result/golden.h"
#include "harness/result/json_put.h"

/* Which of golden.json's limits hold. Devices with memory of their own keep attention's probabilities
 * un-normalised, and never round as the bf16 kinds do. */
static const char *kind_of(const struct qd_instance_plan *plan, enum qd_numerics numerics)
{
    if (numerics != QD_NUMERICS_HF || qd_device_has_copies(plan->ops)) return "fused";
    return plan->tp > 1 ? "bf16_tp" : "bf16";
}

static qd_status judge_prompt(qd_instance_t *instance, struct qd_golden_judge *judge, int prompt, char *err,
                              size_t errlen)
{
    const struct qd_step_limits *limits = &qd_instance_get_plan(instance)->limits;
    const int32_t n = judge->golden->lengths[prompt];
    struct qd_forward forward = {
        .tokens = judge->golden->prompts[prompt],
        .n_tokens = n,
        .chunk = limits->max_tokens < n ? limits->max_tokens : n,
        .row = qd_golden_judge_row,
        .arg = judge,
    };
    qd_golden_judge_prompt(judge, prompt);
    QD_TRY(qd_forward_once(qd_instance_group(instance, 0), limits, &forward, err, errlen));
    qd_golden_judge_prompt_end(judge);
    return QD_OK;
}

static qd_status print_verdict(const struct qd_golden_judge *judge, int n_skipped, bool passes,
                               const char *why)
{
    bool ok = true;
    cJSON *out = cJSON_CreateObject();
    if (out == NULL) return QD_ERR_NO_MEMORY;
    qd_json_put_text(out, "model", judge->golden->name, &ok);
    qd_json_put_text(out, "kind", judge->kind, &ok);
    qd_json_put_bool(out, "passes", passes, &ok);
    qd_json_put_text(out, "reason", passes ? NULL : why, &ok);
    qd_json_put_int(out, "prompts", judge->golden->n_prompts - n_skipped, &ok);
    qd_json_put_int(out, "prompts_too_long", n_skipped, &ok);
    qd_json_put_int(out, "positions", judge->n_positions, &ok);
    qd_json_put_int(out, "argmax_judged", judge->n_judged_argmax, &ok);
    qd_json_put_int(out, "argmax_wrong", judge->n_wrong_argmax, &ok);
    qd_json_put_number(out, "top_share", judge->top, &ok);
    qd_json_put_number(out, "lse_share", judge->lse, &ok);
    qd_json_put_number(out, "rms_share", qd_golden_judge_rms(judge), &ok);
    qd_json_put_number(out, "nll_share", judge->nll_share, &ok);
    char *text = ok ? cJSON_PrintUnformatted(out) : NULL;
    if (text != NULL) puts(text);
    cJSON_free(text);
    cJSON_Delete(out);
    return text != NULL ? QD_OK : QD_ERR_NO_MEMORY;
}

static qd_status judge_all(qd_instance_t *instance, struct qd_golden_judge *judge, bool *passes, char *err,
                           size_t errlen)
{
    char why[QD_ERR_LEN] = "";
    int n_skipped = 0;
    for (int p = 0; p < judge->golden->n_prompts; p++) {
        if (judge->golden->lengths[p] > qd_instance_get_plan(instance)->max_model_len)
            n_skipped++;
        else
            QD_TRY(judge_prompt(instance, judge, p, err, errlen));
    }
    *passes = qd_golden_judge_passes(judge, why, sizeof why);
    if (print_verdict(judge, n_skipped, *passes, why) != QD_OK)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "a line of JSON");
    return QD_OK;
}

qd_status qd_eval_expect(qd_instance_t *instance, const char *path, enum qd_numerics numerics, bool *passes,
                         char *err, size_t errlen)
{
    struct qd_golden golden;
    struct qd_golden_judge judge;
    char reason[QD_ERR_LEN];
    const int64_t vocab_size = qd_instance_config(instance)->vocab_size;
    *passes = false;
    QD_TRY(qd_golden_read(path, &golden, err, errlen));
    const char *kind = kind_of(qd_instance_get_plan(instance), numerics);
    qd_status status = qd_golden_judge_init(&judge, &golden, kind, reason, sizeof reason);
    if (status != QD_OK) {
        qd_fail(status, err, errlen, "%s: %s", path, reason);
    } else if (golden.vocab_size != vocab_size) {
        status = qd_fail(QD_ERR_INPUT, err, errlen,
                         "%s: it is of a vocabulary of %" PRId32 " ids, the model has %" PRId64, path,
                         golden.vocab_size, vocab_size);
    } else {
        status = judge_all(instance, &judge, passes, err, errlen);
    }
    qd_golden_judge_free(&judge);
    qd_golden_free(&golden);
    return status;
}

#include "tests/support/golden.h"

#include "tests/support/model_run.h"

void golden_load(struct qd_golden *golden, const char *dir)
{
    char path[512], err[QD_ERR_LEN] = "";
    snprintf(path, sizeof path, "%s/golden.json", dir);
    ASSERT_OK(qd_golden_read(path, golden, err, sizeof err), err);
}

static void judge_end(const struct qd_golden_judge *judge, const char *what)
{
    char why[QD_ERR_LEN];
    printf("%s, %s, %s: argmax %d of %d; of the limits: top %.2f, lse %.2f, rms %.2f, nll %.2f\n",
           judge->golden->name, what, judge->kind, (int)(judge->n_judged_argmax - judge->n_wrong_argmax),
           (int)judge->n_judged_argmax, judge->top, judge->lse, qd_golden_judge_rms(judge), judge->nll_share);
    fflush(stdout);
    if (!qd_golden_judge_passes(judge, why, sizeof why))
        fail_msg("%s, %s, %s: %s", judge->golden->name, what, judge->kind, why);
}

void judge_prompts(struct model_run *run, const struct qd_golden *golden, int32_t max_len, const char *kind,
                   const char *what)
{
    enum { SANITIZED_LEN = 120 };
    struct qd_golden_judge judge;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_golden_judge_init(&judge, golden, kind, err, sizeof err), err);
    for (int p = 0; p < golden->n_prompts; p++) {
        if (golden->lengths[p] > max_len || (IS_SANITIZED && golden->lengths[p] > SANITIZED_LEN)) continue;
        qd_golden_judge_prompt(&judge, p);
        struct qd_forward forward = {
            .tokens = golden->prompts[p],
            .n_tokens = golden->lengths[p],
            .chunk = GOLDEN_MAX_CHUNK,
            .row = qd_golden_judge_row,
            .arg = &judge,
        };
        model_run_forward(run, &forward);
        qd_golden_judge_prompt_end(&judge);
    }
    judge_end(&judge, what);
    qd_golden_judge_free(&judge);
}

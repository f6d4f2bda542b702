/* Hugging Face's results on a small model (golden.json), and the rules by which logits are judged against
 * them: what `eval --expect` does on the user's machine and what the golden tests do. The format, the rules
 * and where the limits come from are in tests/data/goldens/README.md.
 */
#ifndef QD_HARNESS_RESULT_GOLDEN_H
#define QD_HARNESS_RESULT_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* golden.json of one model. */
struct qd_golden {
    cJSON *root;
    const char *name; /* of the model; inside root */
    int n_prompts;
    int32_t **prompts; /* [n_prompts][lengths[p]] */
    int32_t *lengths;  /* [n_prompts], 1 or more */
    int32_t vocab_size;
};

/* QD_ERR_INPUT with path, field and reason; also the errors of qd_json_read_file. */
qd_status qd_golden_read(const char *path, struct qd_golden *out, char *err, size_t errlen);
void qd_golden_free(struct qd_golden *golden);

/* What is expected of one prompt of n tokens. */
struct qd_golden_expected {
    int32_t *argmax;      /* [n] */
    double *margin, *lse; /* [n] largest logit less the next; log of the sum of exponentials */
    double nll;           /* sum over positions but the last */
    int32_t top_from;     /* first position with top logits */
    int32_t n_top;
    int32_t *top_ids;   /* [n - top_from][n_top] */
    double *top_logits; /* [n - top_from][n_top] */
};

/* One kind of implementation ("bf16", "bf16_tp", "fused") under judgement, over some prompts of a model. */
struct qd_golden_judge {
    const struct qd_golden *golden;
    const char *kind;
    struct qd_golden_expected *expected; /* [n_prompts] */
    double margin_threshold, tolerance, lse_tolerance, rms_tolerance;
    /* of the present prompt */
    int prompt;
    double nll;
    /* worst so far, as a share of what is allowed; counts */
    double top, lse, nll_share;
    double sum_of_squares;
    int64_t n_top, n_positions, n_judged_argmax, n_wrong_argmax;
    char first_failure[QD_ERR_LEN]; /* empty: none */
};

/* `golden` and `kind` must outlive the judge. QD_ERR_INPUT names the field. */
qd_status qd_golden_judge_init(struct qd_golden_judge *judge, const struct qd_golden *golden,
                               const char *kind, char *err, size_t errlen);
void qd_golden_judge_free(struct qd_golden_judge *judge);

/* The rows of `prompt` come next, all of them, in order. */
void qd_golden_judge_prompt(struct qd_golden_judge *judge, int prompt);
/* The row callback of qd_forward: logits [vocab_size] after token `position` of the present prompt, of which
 * `id` was sampled; arg is the judge. */
void qd_golden_judge_row(void *arg, int32_t position, int32_t id, const float *logits);
void qd_golden_judge_prompt_end(struct qd_golden_judge *judge);

/* Root mean square error of the top logits, as a share of what is allowed; NaN when none was judged. */
double qd_golden_judge_rms(const struct qd_golden_judge *judge);
/* False, with the first rule that was broken; also when no argmax with a margin was judged. */
bool qd_golden_judge_passes(const struct qd_golden_judge *judge, char *why, size_t why_len);

#ifdef __cplusplus
}
#endif

#endif

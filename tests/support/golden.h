/* Hugging Face's results on a small model (golden.json) and the rules by which logits are judged against
 * them; the rules and where the limits come from are in the goldens' README. */
#ifndef QD_TESTS_SUPPORT_GOLDEN_H
#define QD_TESTS_SUPPORT_GOLDEN_H

#include <cjson/cJSON.h>

#include "tests/support/test.h"

struct model_run;

/* Where the models are: in this repository, and beside it. */
#define GOLDEN_COMMITTED "tests/data/goldens/models/"
#define GOLDEN_SHARED    SHARED_DATA "goldens/models/"

/* What a run of any golden prompt needs. */
enum { GOLDEN_MAX_LEN = 768, GOLDEN_MAX_CHUNK = 384 };

/* golden.json of one model. */
struct golden {
    cJSON *root;
    char name[128];
    int n_prompts;
    int32_t **prompts; /* [n_prompts][lengths[p]] */
    int32_t *lengths;
    int32_t vocab_size;
};

/* Fails the running test when DIR/golden.json cannot be used. */
void golden_load(struct golden *golden, const char *dir);
void golden_free(struct golden *golden);

/* One kind of implementation ("bf16", "bf16_tp", "fused") under judgement, over all prompts of a model. */
struct judge {
    const struct golden *golden;
    const char *kind;
    const cJSON *target; /* the compute it is compared with */
    double margin_threshold, tolerance, lse_tolerance, rms_tolerance;
    /* of the present prompt */
    int prompt;
    double nll;
    /* worst so far, as a share of what is allowed; argmax counts */
    double top, lse, nll_share;
    double sum_of_squares, n_top;
    int n_judged_argmax, n_wrong_argmax;
    char first_failure[512]; /* empty: none */
};

void judge_begin(struct judge *judge, const struct golden *golden, const char *kind);
void judge_prompt(struct judge *judge, int prompt);
/* The row callback of qd_forward: logits after token `position` of the present prompt; arg is the judge. */
void judge_row(void *arg, int32_t position, int32_t id, const float *logits);
void judge_prompt_end(struct judge *judge);
/* Prints the worst shares; fails the running test when a rule was broken. `what` names the implementation. */
void judge_end(const struct judge *judge, const char *what);

/* All of it for every prompt of up to max_len tokens (fewer under sanitizers), run in chunks. */
void judge_prompts(struct model_run *run, const struct golden *golden, int32_t max_len, const char *kind,
                   const char *what);

#endif

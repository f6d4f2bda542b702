/* Golden models (harness/result/golden.h) in tests: where they are, and a group of ranks judged against one.
 */
#ifndef QD_TESTS_SUPPORT_GOLDEN_H
#define QD_TESTS_SUPPORT_GOLDEN_H

#include "harness/result/golden.h"
#include "tests/support/test.h"

struct model_run;

/* Where the models are: in this repository, and beside it. */
#define GOLDEN_COMMITTED "tests/data/goldens/models/"
#define GOLDEN_SHARED    SHARED_DATA "goldens/models/"

/* What a run of any golden prompt needs. */
enum { GOLDEN_MAX_LEN = 768, GOLDEN_MAX_CHUNK = 384 };

/* Fails the running test when DIR/golden.json cannot be used. */
void golden_load(struct qd_golden *golden, const char *dir);

/* Runs every prompt of up to max_len tokens (fewer under sanitizers) in chunks, prints the worst shares of
 * what is allowed, and fails the running test when a rule was broken. `what` names the implementation. */
void judge_prompts(struct model_run *run, const struct qd_golden *golden, int32_t max_len, const char *kind,
                   const char *what);

#endif

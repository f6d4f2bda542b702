/* The judge of golden models: every rule breaks on its own, and a file that is not what it should be is
 * refused by field. */
#include "harness/result/golden.h"

#include <math.h>

#include "tests/support/files.h"
#include "tests/support/test.h"

/* Two prompts over four ids. Every row of logits that is right is {2, 0, 0, 0}: logsumexp ln(e^2 + 3),
 * margin 2. The last position of the first prompt has no margin. */
#define GOLDEN                                                                                               \
    "{\"model\":\"hand-made\",\"shape\":{\"vocab\":4},\"kinds\":{\"fused\":\"float64\"},"                    \
    "\"tolerance\":{\"fused\":0.2,\"fused_lse\":0.3,\"fused_rms\":0.1},\"margin_threshold\":{\"fused\":1},"  \
    "\"prompts\":[[1,0],[3]],\"float64\":["                                                                  \
    "{\"nll\":0.340753,\"argmax\":[0,0],\"margin\":[2,0.5],\"logsumexp\":[2.340753,2.340753],"               \
    "\"top_from\":1,\"top_ids\":[[0,2]],\"top_logits\":[[2,0]]},"                                            \
    "{\"nll\":0,\"argmax\":[0],\"margin\":[2],\"logsumexp\":[2.340753],\"top_from\":0,\"top_ids\":[[0,2]],"  \
    "\"top_logits\":[[2,0]]}]}"

static struct temp_dir folder;

/* GOLDEN in a file, with the first `from` replaced. */
static const char *write_golden(const char *from, const char *to)
{
    char text[2048];
    const char *at = strstr(GOLDEN, from), *path = in_dir(&folder, "golden.json");
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - GOLDEN), GOLDEN, to, at + strlen(from));
    write_text(path, text);
    return path;
}

struct fixture {
    struct qd_golden golden;
    struct qd_golden_judge judge;
    float rows[3][4]; /* of both prompts, in order */
    char why[QD_ERR_LEN];
};

static void fixture_init(struct fixture *f, const char *from, const char *to)
{
    char err[QD_ERR_LEN] = "";
    memset(f, 0, sizeof *f);
    ASSERT_OK(qd_golden_read(write_golden(from, to), &f->golden, err, sizeof err), err);
    ASSERT_OK(qd_golden_judge_init(&f->judge, &f->golden, "fused", err, sizeof err), err);
    for (int row = 0; row < 3; row++) f->rows[row][0] = 2.0f;
}

static bool judge(struct fixture *f, int32_t sampled)
{
    qd_golden_judge_prompt(&f->judge, 0);
    qd_golden_judge_row(&f->judge, 0, sampled, f->rows[0]);
    qd_golden_judge_row(&f->judge, 1, 0, f->rows[1]);
    qd_golden_judge_prompt_end(&f->judge);
    qd_golden_judge_prompt(&f->judge, 1);
    qd_golden_judge_row(&f->judge, 0, 0, f->rows[2]);
    qd_golden_judge_prompt_end(&f->judge);
    return qd_golden_judge_passes(&f->judge, f->why, sizeof f->why);
}

static void fixture_free(struct fixture *f)
{
    qd_golden_judge_free(&f->judge);
    qd_golden_free(&f->golden);
}

/* Judges the right logits with one of them moved, and with `sampled` as the first row's id. */
static void expect_failure(int row, int id, float logit, int32_t sampled, const char *why)
{
    struct fixture f;
    fixture_init(&f, "", "");
    f.rows[row][id] = logit;
    assert_false(judge(&f, sampled));
    if (strstr(f.why, why) == NULL) fail_msg("\"%s\" does not say \"%s\"", f.why, why);
    fixture_free(&f);
}

static void right_logits_pass(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "", "");
    assert_true(judge(&f, 0));
    assert_int_equal(f.judge.n_positions, 3);
    assert_int_equal(f.judge.n_judged_argmax, 2);
    assert_int_equal(f.judge.n_top, 4);
    assert_true(f.judge.lse < 1e-4 && f.judge.top < 1e-4 && f.judge.nll_share < 1e-4);
    fixture_free(&f);
}

static void every_rule_breaks_on_its_own(void **state)
{
    (void)state;
    expect_failure(0, 1, 2.05f, 1, "argmax 1, expected 0");
    expect_failure(0, 0, 2.0f, 3, "the sampled id is 3, expected 0");
    expect_failure(0, 0, 2.5f, 0, "prompt 0 position 0: logsumexp");
    expect_failure(1, 2, -0.25f, 0, "prompt 0 position 1: a top logit is -0.25, expected 0");
    expect_failure(2, 2, -0.25f, 0, "prompt 1 position 0: a top logit");
    expect_failure(0, 0, NAN, 0, "nan");
    expect_failure(2, 0, NAN, 0, "nan");
    expect_failure(1, 3, INFINITY, 0, "prompt 0 position 1");
    /* One of four top logits off by 0.19: each within 0.2, their root mean square 0.095, then 0.134 with two.
     */
    struct fixture f;
    fixture_init(&f, "", "");
    f.rows[1][2] = f.rows[2][2] = 0.19f;
    assert_false(judge(&f, 0));
    assert_non_null(strstr(f.why, "root mean square error is 1.34"));
    fixture_free(&f);
    fixture_init(&f, "", "");
    f.rows[1][2] = 0.19f;
    assert_true(judge(&f, 0));
    fixture_free(&f);
}

static void a_likelihood_far_off_is_no_pass(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "\"nll\":0.340753", "\"nll\":0.85");
    assert_false(judge(&f, 0));
    assert_non_null(strstr(f.why, "nll 0.340"));
    fixture_free(&f);
}

/* Without a margin the largest logit may be another. */
static void small_margins_are_not_judged(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "", "");
    f.rows[1][1] = 2.0f; /* ties with id 0, which is first */
    f.rows[1][0] = 1.99f;
    qd_golden_judge_prompt(&f.judge, 0);
    f.judge.lse_tolerance = 10;
    qd_golden_judge_row(&f.judge, 0, 0, f.rows[0]);
    qd_golden_judge_row(&f.judge, 1, 1, f.rows[1]);
    qd_golden_judge_prompt_end(&f.judge);
    assert_true(qd_golden_judge_passes(&f.judge, f.why, sizeof f.why));
    assert_int_equal(f.judge.n_judged_argmax, 1);
    fixture_free(&f);
}

static void nothing_judged_is_no_pass(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "", "");
    assert_false(qd_golden_judge_passes(&f.judge, f.why, sizeof f.why));
    assert_non_null(strstr(f.why, "no position was judged"));
    fixture_free(&f);
}

static void expect_refusal(const char *from, const char *to, const char *what)
{
    char err[QD_ERR_LEN] = "";
    struct qd_golden golden;
    struct qd_golden_judge judge;
    qd_status status = qd_golden_read(write_golden(from, to), &golden, err, sizeof err);
    if (status == QD_OK) {
        status = qd_golden_judge_init(&judge, &golden, "fused", err, sizeof err);
        if (status == QD_OK) fail_msg("taken: %s", to);
        qd_golden_free(&golden);
    }
    assert_int_equal(status, QD_ERR_INPUT);
    if (strstr(err, what) == NULL) fail_msg("\"%s\" does not say \"%s\"", err, what);
}

static void files_are_refused_by_field(void **state)
{
    (void)state;
    expect_refusal("\"model\"", "\"name\"", "model");
    expect_refusal("\"vocab\":4", "\"vocab\":0", "shape: ");
    expect_refusal("\"shape\":{\"vocab\":4}", "\"shape\":[]", "shape: ");
    expect_refusal("\"prompts\":[[1,0],[3]]", "\"prompts\":[]", "prompts");
    expect_refusal("[[1,0],[3]]", "[[1,0],[]]", "prompts[1]");
    expect_refusal("[[1,0],[3]]", "[[1,4],[3]]", "prompts[0]: not ids of a vocabulary of 4");
    expect_refusal("[[1,0],[3]]", "[[1,0.5],[3]]", "prompts[0]");
    expect_refusal("[[1,0],[3]]", "[[1,0]]", "\"float64\" is not a list of 1 prompts");
    expect_refusal("\"fused\":\"float64\"", "\"bf16\":\"float64\"", "kinds: ");
    expect_refusal("\"fused\":\"float64\"", "\"fused\":\"float32\"", "\"float32\" is not a list");
    expect_refusal("\"fused\":0.2", "\"fused\":0", "tolerance: \"fused\" is 0");
    expect_refusal("\"fused_lse\":0.3,", "", "tolerance: ");
    expect_refusal("\"margin_threshold\":{\"fused\":1}", "\"margin_threshold\":{}", "margin_threshold: ");
    expect_refusal("\"nll\":0.340753,", "", "float64[0]: ");
    expect_refusal("\"argmax\":[0,0]", "\"argmax\":[0]", "float64[0]: \"argmax\" is not 2 ids");
    expect_refusal("\"margin\":[2,0.5]", "\"margin\":[2,\"x\"]", "float64[0]: \"margin\"");
    expect_refusal("\"logsumexp\":[2.340753,2.340753]", "\"logsumexp\":{}", "float64[0]: \"logsumexp\"");
    expect_refusal("\"top_from\":1", "\"top_from\":2", "float64[0]: ");
    expect_refusal("\"top_from\":1", "\"top_from\":0",
                   "float64[0]: \"top_ids\" and \"top_logits\" are not 2 lists of 2");
    expect_refusal("\"top_ids\":[[0,2]]", "\"top_ids\":[[0,9]]", "float64[0]: \"top_ids\"");
    expect_refusal("\"top_ids\":[[0,2]]", "\"top_ids\":3", "float64[0]: \"top_ids\"");
    expect_refusal("\"top_logits\":[[2,0]]", "\"top_logits\":[[2]]",
                   "float64[0]: \"top_ids\" and \"top_logits\"");
}

static int make_folder(void **state)
{
    (void)state;
    folder = temp_dir_create();
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temp_dir_remove(&folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_logits_pass),
        cmocka_unit_test(every_rule_breaks_on_its_own),
        cmocka_unit_test(a_likelihood_far_off_is_no_pass),
        cmocka_unit_test(small_margins_are_not_judged),
        cmocka_unit_test(nothing_judged_is_no_pass),
        cmocka_unit_test(files_are_refused_by_field),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

#include "tests/support/test.h"

#include "harness/engine/forward_once.h"
#include "kernels/base/size.h"
#include "kernels/null/device.h"

enum { VOCAB = 1000, MAX_N = 70, MAX_TOKENS = 32, N_BLOCKS = 5 };

/* A program that checks every step and remembers which tokens it has seen at which position: its "logits" are
 * the position and the token found there through the block table. */
struct pages {
    int32_t held[N_BLOCKS * QD_KV_BLOCK_SIZE]; /* token by slot; -1: none */
    float logits[2][MAX_N * VOCAB];
    struct qd_step_limits limits;
    int n_steps, n_rows;
};

static struct pages pages;

static qd_status fake_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                           void **ctx, char *err, size_t errlen)
{
    (void)config, (void)bootstrap, (void)err, (void)errlen;
    *ctx = &pages;
    return QD_OK;
}

static void fake_close(void *ctx)
{
    (void)ctx;
}

static qd_status program_open(void *user, int rank, struct qd_device device, void **state, char *err,
                              size_t errlen)
{
    (void)rank, (void)device, (void)err, (void)errlen;
    *state = user;
    return QD_OK;
}

static qd_status program_step(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                              size_t errlen)
{
    struct pages *p = state;
    QD_TRY(qd_step_validate(step, qd_step_capacity(&p->limits), N_BLOCKS, VOCAB, 1, err, errlen));
    for (int32_t t = 0; t < step->n_tokens; t++)
        p->held[qd_step_slot_mapping(step)[t]] = qd_step_token_source(step)[t];
    float *logits = p->logits[step->step_index % 2];
    for (int32_t i = 0; i < step->n_logit_rows; i++) {
        int32_t position = qd_step_position(step)[qd_step_logit_row(step)[i]];
        int32_t block = qd_step_block_table(step)[position / QD_KV_BLOCK_SIZE];
        logits[i * VOCAB] = (float)position;
        logits[i * VOCAB + 1] = (float)p->held[block * QD_KV_BLOCK_SIZE + position % QD_KV_BLOCK_SIZE];
        out->ids[i] = position;
    }
    out->logits = logits;
    p->n_steps++;
    p->n_rows += step->n_logit_rows;
    return QD_OK;
}

static void program_close(void *state)
{
    (void)state;
}

static const struct qd_device_ops fake_ops = {.executes = true, .open = fake_open, .close = fake_close};

static qd_group_t *open_group(const struct qd_device_ops *ops, const struct qd_step_limits *limits)
{
    char err[QD_ERR_LEN] = "";
    struct qd_group_config config = {
        .ops = ops,
        .tp = 1,
        .device = {.n_ranks = 1, .limits = *limits},
        .vocab_size = VOCAB,
        .program = {.user = &pages,
                    .rank_open = program_open,
                    .rank_step = program_step,
                    .rank_close = program_close},
    };
    pages.limits = *limits;
    pages.n_steps = pages.n_rows = 0;
    memset(pages.held, 0xff, sizeof pages.held);
    qd_group_t *group;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    return group;
}

struct expectation {
    int32_t next; /* position */
    bool has_logits;
};

static void check_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    struct expectation *expected = arg;
    assert_int_equal(position, expected->next);
    expected->next++;
    if (!expected->has_logits) {
        assert_null(logits);
        return;
    }
    assert_int_equal(id, position);
    assert_true(logits[0] == (float)position);
    assert_true(logits[1] == (float)(position + 100)); /* the token of that position */
}

static const struct qd_step_limits wide = {
    .max_tokens = MAX_TOKENS, .max_seqs = 1, .max_blocks = N_BLOCKS, .max_logit_rows = MAX_TOKENS};

/* Computes [0, n_first) and then the rest, with logits from first_row on. */
static void check(const struct qd_step_limits *limits, int32_t n, int32_t n_first, int32_t chunk,
                  int32_t first_row)
{
    char err[QD_ERR_LEN] = "";
    int32_t tokens[MAX_N];
    for (int32_t i = 0; i < n; i++) tokens[i] = i + 100;
    qd_group_t *group = open_group(&fake_ops, limits);
    struct expectation expected = {.has_logits = true};
    struct qd_forward forward = {
        .tokens = tokens, .n_tokens = n_first, .chunk = chunk, .row = check_row, .arg = &expected};
    if (n_first > 0) ASSERT_OK(qd_forward_once(group, limits, &forward, err, sizeof err), err);
    assert_int_equal(expected.next, n_first);
    pages.n_steps = pages.n_rows = 0;
    forward.n_cached = n_first;
    forward.n_tokens = n;
    forward.first_row = expected.next = first_row;
    ASSERT_OK(qd_forward_once(group, limits, &forward, err, sizeof err), err);
    assert_int_equal(expected.next, n);
    assert_int_equal(pages.n_rows, n - first_row); /* nothing is computed that nobody wants */
    if (limits->max_logit_rows >= chunk) assert_int_equal(pages.n_steps, qd_div_up(n - n_first, chunk));
    qd_group_close(group);
}

static void every_wanted_position_comes_once_and_in_order(void **state)
{
    (void)state;
    for (int32_t n = 1; n <= MAX_N; n += 23)
        for (int32_t chunk = 1; chunk <= MAX_TOKENS; chunk += 5)
            for (int32_t first_row = 0; first_row < n; first_row += 11) check(&wide, n, 0, chunk, first_row);
    check(&wide, MAX_N, 0, MAX_TOKENS, MAX_N - 1);
}

static void tokens_in_the_pool_are_not_computed_again(void **state)
{
    (void)state;
    check(&wide, MAX_N, 33, 7, 33);
    check(&wide, MAX_N, MAX_N - 1, 7, MAX_N - 1);
    check(&wide, 17, 16, 1, 16);
    check(&wide, 48, 1, MAX_TOKENS, 40);
}

static void few_logit_rows_cut_the_chunks(void **state)
{
    (void)state;
    struct qd_step_limits narrow = wide;
    for (narrow.max_logit_rows = 1; narrow.max_logit_rows < 9; narrow.max_logit_rows += 3) {
        check(&narrow, MAX_N, 0, MAX_TOKENS, 0);
        check(&narrow, MAX_N, 0, MAX_TOKENS, 40);
        check(&narrow, MAX_N, 5, 10, 41);
    }
}

static void the_null_device_gives_ids_without_logits(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    int32_t tokens[MAX_N] = {0};
    qd_group_t *group = open_group(&qd_null_ops, &wide);
    struct expectation expected = {0};
    struct qd_forward forward = {
        .tokens = tokens, .n_tokens = MAX_N, .chunk = 9, .row = check_row, .arg = &expected};
    ASSERT_OK(qd_forward_once(group, &wide, &forward, err, sizeof err), err);
    assert_int_equal(expected.next, MAX_N);
    qd_group_close(group);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    static const struct {
        int32_t n_tokens, n_cached, chunk, first_row;
        const char *why;
    } cases[] = {
        {0, 0, 1, 0, "0 tokens"},
        {5, 5, 1, 5, "5 are cached"},
        {5, -1, 1, 0, "-1 are cached"},
        {5, 2, 1, 1, "position 1 of 5"},
        {5, 0, 1, 5, "position 5 of 5"},
        {5, 0, 0, 0, "chunks of 0"},
        {5, 0, MAX_TOKENS + 1, 0, "chunks of 33"},
        {N_BLOCKS * QD_KV_BLOCK_SIZE + 1, 0, 1, 0, "5 pages"},
    };
    int32_t tokens[N_BLOCKS * QD_KV_BLOCK_SIZE + 1] = {0};
    qd_group_t *group = open_group(&fake_ops, &wide);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[QD_ERR_LEN] = "";
        struct expectation expected = {0};
        struct qd_forward forward = {
            .tokens = tokens,
            .n_tokens = cases[i].n_tokens,
            .n_cached = cases[i].n_cached,
            .chunk = cases[i].chunk,
            .first_row = cases[i].first_row,
            .row = check_row,
            .arg = &expected,
        };
        assert_int_equal(qd_forward_once(group, &wide, &forward, err, sizeof err), QD_ERR_ARGUMENT);
        ASSERT_CONTAINS(err, cases[i].why);
    }
    char err[QD_ERR_LEN] = "";
    tokens[3] = VOCAB;
    struct qd_forward forward = {.tokens = tokens, .n_tokens = 5, .chunk = 5, .row = check_row};
    assert_int_equal(qd_forward_once(group, &wide, &forward, err, sizeof err), QD_ERR_RANK);
    ASSERT_CONTAINS(err, "1000");
    qd_group_close(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_wanted_position_comes_once_and_in_order),
        cmocka_unit_test(tokens_in_the_pool_are_not_computed_again),
        cmocka_unit_test(few_logit_rows_cut_the_chunks),
        cmocka_unit_test(the_null_device_gives_ids_without_logits),
        cmocka_unit_test(bad_arguments_are_refused),
    };
    return cmocka_run_group_tests_name("forward_once", tests, NULL, NULL);
}

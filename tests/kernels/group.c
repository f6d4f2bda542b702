#include "tests/support/test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "tests/support/group_config.h"

enum { MAX_TP = 8, N_ROWS = 3 };

/* A device and a program that do nothing but meet: what is tested is how ranks start, step, fail and end. */
struct world {
    _Atomic int n_open_devices, n_open_programs; /* both back to 0 when all is released */
    _Atomic int n_closed_early;                  /* ranks that saw another one's device closed in a step */
    int fail_open_rank, fail_program_rank;       /* -1: none */
    int fail_step_rank;
    uint64_t fail_step;
    bool silent;      /* fail without a text */
    int64_t step_us;  /* how long a step takes */
    _Atomic int n_begun, n_may_end; /* of a program with rank_finish: steps begun, and allowed to end */
    int64_t *written; /* [MAX_TP] by rank before the barrier of a step, read by all after it */
};

struct fake_rank {
    struct world *world;
    struct qd_bootstrap bootstrap;
    int32_t made_of; /* first_rank of the device's configuration */
    float logits[2][N_ROWS];
    int n_ended; /* of a program with rank_finish */
    struct {
        int32_t n_rows, first_id;
    } begun[2];
};

static struct world *current; /* a device's open has no user pointer */

static qd_status fake_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                           void **ctx, char *err, size_t errlen)
{
    struct world *world = current;
    if (bootstrap->rank == world->fail_open_rank)
        return world->silent ? QD_ERR_NO_MEMORY : qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "head_dim 7");
    struct fake_rank *rank = calloc(1, sizeof *rank);
    assert_non_null(rank);
    rank->world = world;
    rank->bootstrap = *bootstrap;
    rank->made_of = config->first_rank;
    atomic_fetch_add(&world->n_open_devices, 1);
    *ctx = rank;
    return QD_OK;
}

static void fake_close(void *ctx)
{
    struct fake_rank *rank = ctx;
    atomic_fetch_sub(&rank->world->n_open_devices, 1);
    free(rank);
}

static const struct qd_device_ops fake_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "fake",
    .executes = true,
    .open = fake_open,
    .close = fake_close,
};

static qd_status program_open(void *user, int index, struct qd_device device, void **state, char *err,
                              size_t errlen)
{
    struct world *world = user;
    struct fake_rank *rank = device.ctx;
    struct qd_bootstrap *b = &rank->bootstrap;
    if (index == world->fail_program_rank) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no pool");
    QD_TRY(b->barrier(b->ctx, b->rank, err, errlen));
    atomic_fetch_add(&world->n_open_programs, 1);
    *state = rank;
    return QD_OK;
}

static qd_status program_step(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                              size_t errlen)
{
    struct fake_rank *rank = state;
    struct world *world = rank->world;
    struct qd_bootstrap *b = &rank->bootstrap;
    if (world->step_us > 0) usleep((useconds_t)world->step_us);
    if (b->rank == world->fail_step_rank && step->step_index == world->fail_step)
        return qd_fail(QD_ERR_INTERNAL, err, errlen, "the reason");
    if (world->fail_step_rank >= 0 && step->step_index == world->fail_step) {
        usleep(3000); /* this rank may still read the memory of the one that has failed by now */
        if (world->n_open_devices != b->world) atomic_fetch_add(&world->n_closed_early, 1);
    }
    world->written[b->rank] = (int64_t)step->step_index;
    QD_TRY(b->barrier(b->ctx, b->rank, err, errlen));
    for (int r = 0; r < b->world; r++)
        if (world->written[r] != (int64_t)step->step_index) return QD_ERR_INTERNAL;
    QD_TRY(b->barrier(b->ctx, b->rank, err, errlen));
    for (int32_t i = 0; i < step->n_logit_rows; i++)
        out->ids[i] = (int32_t)step->step_index * 10 + i + qd_step_token_source(step)[0];
    rank->logits[step->step_index % 2][0] = (float)step->step_index;
    out->logits = rank->logits[step->step_index % 2];
    return QD_OK;
}

/* The same in two parts: ids come with the second, once the world lets the step end. */
static qd_status program_begin(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                               size_t errlen)
{
    struct fake_rank *rank = state;
    if (rank->bootstrap.rank == rank->world->fail_step_rank && step->step_index == rank->world->fail_step)
        return qd_fail(QD_ERR_INTERNAL, err, errlen, "the reason");
    rank->begun[step->step_index % 2].n_rows = step->n_logit_rows;
    rank->begun[step->step_index % 2].first_id =
        (int32_t)step->step_index * 10 + qd_step_token_source(step)[0];
    rank->logits[step->step_index % 2][0] = (float)step->step_index;
    out->logits = rank->logits[step->step_index % 2];
    atomic_fetch_add(&rank->world->n_begun, 1);
    return QD_OK;
}

static bool program_ended(void *ctx)
{
    struct fake_rank *rank = ctx;
    return rank->world->n_may_end > rank->n_ended;
}

static qd_status program_end(void *state, struct qd_step_output *out, char *err, size_t errlen)
{
    (void)err, (void)errlen;
    struct fake_rank *rank = state;
    while (!program_ended(rank)) usleep(100);
    int slot = rank->n_ended++ % 2;
    for (int32_t i = 0; i < rank->begun[slot].n_rows; i++) out->ids[i] = rank->begun[slot].first_id + i;
    return QD_OK;
}

static void program_close(void *state)
{
    if (state == NULL) return;
    atomic_fetch_sub(&((struct fake_rank *)state)->world->n_open_programs, 1);
}

static const struct qd_step_limits limits = {
    .max_tokens = 8, .max_seqs = 4, .max_blocks = 8, .max_logit_rows = N_ROWS};
static int64_t written[MAX_TP];

static struct world make_world(void)
{
    return (struct world){
        .fail_open_rank = -1, .fail_program_rank = -1, .fail_step_rank = -1, .written = written};
}

static struct qd_group_config make_config(struct world *world, int tp)
{
    const struct qd_program program = {
        .user = world, .rank_open = program_open, .rank_step = program_step, .rank_close = program_close};
    current = world;
    return group_config_of(&fake_ops, tp, &limits, &program);
}

static struct qd_step *make_step(uint64_t index, int32_t first_token, int32_t n_rows)
{
    struct qd_step *step = calloc(1, qd_step_capacity(&limits));
    assert_non_null(step);
    assert_int_equal(qd_step_begin(step, &limits, 4, 3, 3, n_rows), QD_OK);
    step->step_index = index;
    qd_step_token_source(step)[0] = first_token;
    return step;
}

static void assert_all_released(struct world *world)
{
    assert_int_equal(world->n_open_devices, 0);
    assert_int_equal(world->n_open_programs, 0);
}

static void check_steps(int tp, bool two_in_flight)
{
    char err[QD_ERR_LEN] = "";
    struct world world = make_world();
    struct qd_group_config config = make_config(&world, tp);
    qd_group_t *group;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    assert_int_equal(world.n_open_programs, tp);
    const uint64_t n_steps = 100;
    uint64_t launched = 0;
    for (uint64_t waited = 0; waited < n_steps; waited++) {
        while (launched < n_steps && launched < waited + 1 + two_in_flight) {
            struct qd_step *step = make_step(launched, 7, N_ROWS);
            ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
            memset(step, 0xff, sizeof *step); /* it was copied */
            free(step);
            launched++;
        }
        struct qd_group_result result;
        ASSERT_OK(qd_group_wait(group, &result, err, sizeof err), err);
        assert_int_equal(result.n_ids, N_ROWS);
        for (int32_t i = 0; i < N_ROWS; i++) assert_int_equal(result.ids[i], (int32_t)waited * 10 + i + 7);
        assert_true(result.logits[0] == (float)waited);
        assert_true(result.step_begin_ns > 0 && result.step_end_ns >= result.step_begin_ns);
    }
    qd_group_close(group);
    assert_all_released(&world);
}

static void steps_run_in_order_on_every_rank(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, MAX_TP};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_steps(sizes[i], false);
        check_steps(sizes[i], true);
    }
}

static void a_third_step_in_flight_is_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct world world = make_world();
    world.step_us = 2000;
    struct qd_group_config config = make_config(&world, 2);
    qd_group_t *group;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    struct qd_group_result result;
    assert_int_equal(qd_group_wait(group, &result, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "no step is in flight");
    struct qd_step *step = make_step(0, 0, 1);
    ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
    step->step_index = 1;
    ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
    assert_int_equal(qd_group_launch(group, step, err, sizeof err), QD_ERR_FULL);
    ASSERT_CONTAINS(err, "2 steps are in flight");
    ASSERT_OK(qd_group_wait(group, &result, err, sizeof err), err);
    assert_int_equal(result.ids[0], 0);
    free(step);
    qd_group_close(group); /* with a step nobody waited for */
    assert_all_released(&world);
}

static void unusable_steps_are_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct world world = make_world();
    struct qd_group_config config = make_config(&world, 1);
    qd_group_t *group;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    struct qd_step *step = make_step(0, 0, 1);
    step->magic++;
    assert_int_equal(qd_group_launch(group, step, err, sizeof err), QD_ERR_ARGUMENT);
    step->magic--;
    step->used_bytes = qd_step_capacity(&limits) + 1;
    assert_int_equal(qd_group_launch(group, step, err, sizeof err), QD_ERR_FULL);
    free(step);
    step = make_step(0, 0, 1);
    step->n_logit_rows = N_ROWS + 1;
    assert_int_equal(qd_group_launch(group, step, err, sizeof err), QD_ERR_FULL);
    free(step);
    qd_group_close(group);
}

static void a_rank_that_fails_to_open_ends_all(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_group_t *group;
    for (int tp = 1; tp <= 5; tp += 2) {
        struct world world = make_world();
        world.fail_open_rank = tp / 2;
        struct qd_group_config config = make_config(&world, tp);
        char expected[64];
        snprintf(expected, sizeof expected, "replica 3 rank %d: open device: head_dim 7", tp / 2);
        assert_int_equal(qd_group_open(&config, &group, err, sizeof err), QD_ERR_UNSUPPORTED);
        assert_string_equal(err, expected);
        assert_null(group);
        assert_all_released(&world);

        world.silent = true;
        snprintf(expected, sizeof expected, "rank %d: open device: out of memory", tp / 2);
        assert_int_equal(qd_group_open(&config, &group, err, sizeof err), QD_ERR_NO_MEMORY);
        ASSERT_CONTAINS(err, expected);
        assert_all_released(&world);

        world.fail_open_rank = -1;
        world.fail_program_rank = tp - 1;
        snprintf(expected, sizeof expected, "replica 3 rank %d: open model: no pool", tp - 1);
        assert_int_equal(qd_group_open(&config, &group, err, sizeof err), QD_ERR_NO_MEMORY);
        assert_string_equal(err, expected);
        assert_all_released(&world);
    }
}

static void a_rank_that_fails_in_a_step_ends_all(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    for (int tp = 1; tp <= 5; tp += 2) {
        struct world world = make_world();
        world.fail_step_rank = tp - 1;
        world.fail_step = 1;
        struct qd_group_config config = make_config(&world, tp);
        qd_group_t *group;
        ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
        struct qd_group_result result;
        struct qd_step *step = make_step(0, 0, 1);
        ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
        ASSERT_OK(qd_group_wait(group, &result, err, sizeof err), err);
        step->step_index = 1;
        ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
        char expected[64];
        snprintf(expected, sizeof expected, "replica 3 rank %d: step 1: the reason", tp - 1);
        for (int i = 0; i < 2; i++) {
            err[0] = '\0';
            assert_int_equal(qd_group_wait(group, &result, err, sizeof err), QD_ERR_RANK);
            assert_string_equal(err, expected);
            err[0] = '\0';
            assert_int_equal(qd_group_launch(group, step, err, sizeof err), QD_ERR_RANK);
            assert_string_equal(err, expected);
        }
        free(step);
        qd_group_close(group);
        assert_all_released(&world);
        assert_int_equal(world.n_closed_early, 0);
    }
}

/* A group of one rank, with a core, whose steps end when the test lets them. */
static qd_group_t *open_overlapping(struct world *world, struct qd_device_ops *ops)
{
    char err[QD_ERR_LEN] = "";
    qd_group_t *group;
    struct qd_group_config config = make_config(world, 1);
    *ops = fake_ops;
    ops->step_ended = program_ended;
    config.ops = ops;
    config.device.n_threads = 1;
    config.program.rank_step = program_begin;
    config.program.rank_finish = program_end;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    return group;
}

static void launch_numbered(qd_group_t *group, uint64_t index)
{
    char err[QD_ERR_LEN] = "";
    struct qd_step *step = make_step(index, (int32_t)index, 2);
    ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
    free(step);
}

static void expect_numbered(qd_group_t *group, uint64_t index)
{
    char err[QD_ERR_LEN] = "";
    struct qd_group_result result;
    ASSERT_OK(qd_group_wait(group, &result, err, sizeof err), err);
    assert_int_equal(result.n_ids, 2);
    for (int32_t i = 0; i < 2; i++) assert_int_equal(result.ids[i], (int32_t)index * 11 + i);
    assert_true(result.logits[0] == (float)index);
}

static void wait_until_begun(const struct world *world, int n)
{
    for (int tries = 0; world->n_begun < n; tries++) {
        if (tries > 100000) fail_msg("step %d does not begin", n - 1);
        usleep(100);
    }
}

/* The next step begins while the one before has not ended, whenever it is launched. */
static void steps_overlap(void **state)
{
    (void)state;
    enum { N_STEPS = 7 };
    struct world world = make_world();
    struct qd_device_ops ops;
    qd_group_t *group = open_overlapping(&world, &ops);
    launch_numbered(group, 0);
    wait_until_begun(&world, 1);
    for (int i = 1; i < N_STEPS; i++) {
        launch_numbered(group, (uint64_t)i);
        wait_until_begun(&world, i + 1);
        assert_int_equal(world.n_may_end, i - 1);
        world.n_may_end = i;
        expect_numbered(group, (uint64_t)i - 1);
    }
    world.n_may_end = N_STEPS;
    expect_numbered(group, N_STEPS - 1);
    qd_group_close(group);
    assert_all_released(&world);
}

/* Where nobody looks out for it, the next step waits, and nothing is lost. */
static void steps_follow_without_polling(void **state)
{
    (void)state;
    struct world world = make_world();
    struct qd_device_ops ops;
    qd_group_t *group = open_overlapping(&world, &ops);
    ops.step_ended = NULL;
    launch_numbered(group, 0);
    wait_until_begun(&world, 1);
    launch_numbered(group, 1);
    world.n_may_end = 2;
    expect_numbered(group, 0);
    expect_numbered(group, 1);
    qd_group_close(group);
    assert_all_released(&world);
}

/* A step that was begun before another failed is handed out. */
static void a_failure_leaves_the_step_before(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_group_result result;
    struct world world = make_world();
    world.fail_step_rank = 0;
    world.fail_step = 1;
    struct qd_device_ops ops;
    qd_group_t *group = open_overlapping(&world, &ops);
    launch_numbered(group, 0);
    wait_until_begun(&world, 1);
    launch_numbered(group, 1);
    usleep(2000);
    world.n_may_end = 1;
    expect_numbered(group, 0);
    assert_int_equal(qd_group_wait(group, &result, err, sizeof err), QD_ERR_RANK);
    assert_string_equal(err, "replica 3 rank 0: step 1: the reason");
    qd_group_close(group);
    assert_all_released(&world);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct world world = make_world();
    qd_group_t *group;
    struct qd_group_config config = make_config(&world, 0);
    assert_int_equal(qd_group_open(&config, &group, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "0 ranks");
    config = make_config(&world, 1);
    config.vocab_size = 0;
    assert_int_equal(qd_group_open(&config, &group, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "vocabulary");
    config = make_config(&world, 1);
    config.device.limits.max_tokens = -1;
    assert_int_equal(qd_group_open(&config, &group, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "limits");
    assert_null(group);
    qd_group_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_run_in_order_on_every_rank),
        cmocka_unit_test(a_third_step_in_flight_is_refused),
        cmocka_unit_test(unusable_steps_are_refused),
        cmocka_unit_test(a_rank_that_fails_to_open_ends_all),
        cmocka_unit_test(a_rank_that_fails_in_a_step_ends_all),
        cmocka_unit_test(steps_overlap),
        cmocka_unit_test(steps_follow_without_polling),
        cmocka_unit_test(a_failure_leaves_the_step_before),
        cmocka_unit_test(bad_configurations_are_refused),
    };
    return cmocka_run_group_tests_name("group", tests, NULL, NULL);
}

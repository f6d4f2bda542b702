/* Ranks that hang: the watchdog of a group names the one at fault, the others are told to wait no more, and
 * who waits for the group's end is not kept by a rank that does not end. */
#include "tests/support/test.h"

#include <stdatomic.h>

#include "kernels/base/clock.h"
#include "tests/support/group_config.h"

enum { MAX_TP = 8 };
static const int64_t WATCHDOG_NS = 200 * INT64_C(1000000);
static const int64_t SOON_NS = 5 * INT64_C(1000000000); /* on a machine that does other work */

/* What a rank does in the step in which it or another one hangs. */
enum manner { MEETS, WAITS_FOR_DEVICE };

struct world {
    int hanging_rank; /* -1: none */
    bool in_open;     /* it hangs when it opens its device, otherwise in step 1 */
    enum manner others;
    _Atomic bool let_go; /* what hangs goes on */
    _Atomic int n_open, n_hanging;
    _Atomic int n_abandoned; /* contexts that were told to wait no more */
};

struct fake_rank {
    struct world *world;
    struct qd_bootstrap bootstrap;
    _Atomic bool abandoned;
    _Atomic(const char *) waits_for;
};

static struct world *current; /* a device's open has no user pointer */

static void hang(struct world *world)
{
    atomic_fetch_add(&world->n_hanging, 1);
    while (!atomic_load(&world->let_go)) usleep(1000);
    atomic_fetch_sub(&world->n_hanging, 1);
}

static qd_status fake_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                           void **ctx, char *err, size_t errlen)
{
    (void)config;
    struct world *world = current;
    if (world->in_open && bootstrap->rank == world->hanging_rank) hang(world);
    QD_TRY(bootstrap->barrier(bootstrap->ctx, bootstrap->rank, err, errlen));
    struct fake_rank *rank = calloc(1, sizeof *rank);
    assert_non_null(rank);
    rank->world = world;
    rank->bootstrap = *bootstrap;
    atomic_fetch_add(&world->n_open, 1);
    *ctx = rank;
    return QD_OK;
}

static void fake_close(void *ctx)
{
    struct world *world = ((struct fake_rank *)ctx)->world;
    free(ctx);
    atomic_fetch_sub(&world->n_open, 1);
}

static void fake_abandon(void *ctx)
{
    struct fake_rank *rank = ctx;
    if (!atomic_exchange(&rank->abandoned, true)) atomic_fetch_add(&rank->world->n_abandoned, 1);
}

static const char *fake_waits_for(void *ctx)
{
    return atomic_load(&((struct fake_rank *)ctx)->waits_for);
}

static const struct qd_device_ops fake_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "fake",
    .executes = true,
    .open = fake_open,
    .close = fake_close,
    .abandon = fake_abandon,
    .waits_for = fake_waits_for,
};

static qd_status program_open(void *user, int index, struct qd_device device, void **state, char *err,
                              size_t errlen)
{
    (void)user, (void)index, (void)err, (void)errlen;
    *state = device.ctx;
    return QD_OK;
}

/* As on a GPU: until the kernel's peers come or it is told that they will not. */
static qd_status wait_for_device(struct fake_rank *rank, char *err, size_t errlen)
{
    atomic_store(&rank->waits_for, "its GPU");
    while (!atomic_load(&rank->abandoned)) usleep(1000);
    atomic_store(&rank->waits_for, NULL);
    return qd_fail(QD_ERR_RANK, err, errlen, "given up");
}

static qd_status program_step(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                              size_t errlen)
{
    struct fake_rank *rank = state;
    struct world *world = rank->world;
    struct qd_bootstrap *b = &rank->bootstrap;
    (void)out;
    if (!world->in_open && world->hanging_rank >= 0 && step->step_index == 1) {
        if (b->rank == world->hanging_rank)
            hang(world);
        else if (world->others == WAITS_FOR_DEVICE)
            return wait_for_device(rank, err, errlen);
    }
    return b->barrier(b->ctx, b->rank, err, errlen);
}

static void program_close(void *state)
{
    (void)state;
}

static const struct qd_step_limits limits = {
    .max_tokens = 8, .max_seqs = 4, .max_blocks = 8, .max_logit_rows = 1};

static struct qd_group_config make_config(struct world *world, int tp, int64_t watchdog_ns)
{
    const struct qd_program program = {
        .user = world, .rank_open = program_open, .rank_step = program_step, .rank_close = program_close};
    struct qd_group_config config = group_config_of(&fake_ops, tp, &limits, &program);
    current = world;
    config.watchdog_ns = watchdog_ns;
    return config;
}

static qd_status run_step(qd_group_t *group, char *err, size_t errlen)
{
    struct qd_step *step = calloc(1, qd_step_capacity(&limits));
    struct qd_group_result result;
    assert_non_null(step);
    assert_int_equal(qd_step_begin(step, &limits, 1, 1, 1, 1), QD_OK);
    qd_status st = qd_group_launch(group, step, err, errlen);
    free(step);
    return st == QD_OK ? qd_group_wait(group, &result, err, errlen) : st;
}

/* Whoever still runs frees what it has, long after the group's owner left. */
static void let_go(struct world *world)
{
    int64_t begin_ns = qd_clock_now_ns();
    atomic_store(&world->let_go, true);
    while (atomic_load(&world->n_open) + atomic_load(&world->n_hanging) > 0 &&
           qd_clock_now_ns() - begin_ns < SOON_NS)
        usleep(1000);
    assert_int_equal(world->n_open + world->n_hanging, 0);
    usleep(20000); /* the last rank releases the group */
}

static void expect_named(int tp, int hanging_rank, enum manner others)
{
    char err[QD_ERR_LEN] = "", expected[80];
    struct world world = {.hanging_rank = hanging_rank, .others = others};
    struct qd_group_config config = make_config(&world, tp, WATCHDOG_NS);
    qd_group_t *group;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    ASSERT_OK(run_step(group, err, sizeof err), err);
    int64_t begin_ns = qd_clock_now_ns();
    snprintf(expected, sizeof expected, "replica 3 rank %d: step 1: no progress for 0.2 s", hanging_rank);
    assert_int_equal(run_step(group, err, sizeof err), QD_ERR_RANK);
    assert_string_equal(err, expected);
    assert_int_equal(world.n_abandoned, tp);
    assert_int_equal(run_step(group, err, sizeof err), QD_ERR_RANK);
    assert_int_equal(qd_group_end(group, err, sizeof err), QD_ERR_TIMEOUT);
    snprintf(expected, sizeof expected, "replica 3 rank %d: end: it does not stop", hanging_rank);
    assert_string_equal(err, expected);
    qd_group_close(group);
    int64_t took_ns = qd_clock_now_ns() - begin_ns;
    assert_true(took_ns >= 2 * WATCHDOG_NS && took_ns < SOON_NS);
    let_go(&world);
}

static void the_rank_that_hangs_is_named(void **state)
{
    (void)state;
    expect_named(1, 0, MEETS);
    for (int others = MEETS; others <= WAITS_FOR_DEVICE; others++) {
        expect_named(2, 1, (enum manner)others);
        expect_named(3, 1, (enum manner)others);
        expect_named(MAX_TP, 0, (enum manner)others);
    }
}

/* A rank whose device does not answer: it waits for it as those do that wait for a rank. */
static void a_device_that_hangs_is_named(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct world world = {.hanging_rank = MAX_TP, .others = WAITS_FOR_DEVICE};
    struct qd_group_config config = make_config(&world, 2, WATCHDOG_NS);
    qd_group_t *group;
    ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
    ASSERT_OK(run_step(group, err, sizeof err), err);
    assert_int_equal(run_step(group, err, sizeof err), QD_ERR_RANK);
    assert_string_equal(err, "replica 3 rank 0: step 1: no progress for 0.2 s, waiting for its GPU");
    ASSERT_OK(qd_group_end(group, err, sizeof err), err); /* told to give up, it does */
    qd_group_close(group);
    assert_int_equal(world.n_open, 0);
}

static void a_rank_that_hangs_in_opening_is_named(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    for (int tp = 1; tp <= 4; tp++) {
        struct world world = {.hanging_rank = tp / 2, .in_open = true};
        struct qd_group_config config = make_config(&world, tp, WATCHDOG_NS);
        char expected[80];
        qd_group_t *group;
        snprintf(expected, sizeof expected, "replica 3 rank %d: open device: no progress for 0.2 s", tp / 2);
        assert_int_equal(qd_group_open(&config, &group, err, sizeof err), QD_ERR_TIMEOUT);
        assert_string_equal(err, expected);
        assert_null(group);
        let_go(&world);
    }
}

/* What has its time is left alone; so is what hangs where there is no watchdog. */
static void without_a_hang_nothing_is_said(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    for (int i = 0; i < 2; i++) {
        struct world world = {.hanging_rank = -1};
        struct qd_group_config config = make_config(&world, 2, i == 0 ? 5 * WATCHDOG_NS : 0);
        qd_group_t *group;
        ASSERT_OK(qd_group_open(&config, &group, err, sizeof err), err);
        usleep((useconds_t)(6 * WATCHDOG_NS / 1000)); /* idle for longer than the watchdog's time */
        for (int step = 0; step < 3; step++) ASSERT_OK(run_step(group, err, sizeof err), err);
        assert_int_equal(world.n_abandoned, 0);
        ASSERT_OK(qd_group_end(group, err, sizeof err), err);
        qd_group_close(group);
        assert_int_equal(world.n_open, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rank_that_hangs_is_named),
        cmocka_unit_test(a_device_that_hangs_is_named),
        cmocka_unit_test(a_rank_that_hangs_in_opening_is_named),
        cmocka_unit_test(without_a_hang_nothing_is_said),
    };
    return cmocka_run_group_tests_name("group_watchdog", tests, NULL, NULL);
}

#include "tests/support/test.h"

#include <pthread.h>

#include "kernels/bootstrap.h"

enum { MAX_WORLD = 8, ROUNDS = 300 };

struct rank {
    struct qd_bootstrap bootstrap;
    pthread_t thread;
    int64_t *shared; /* [world] written by its rank before each barrier; plain, so TSan sees a broken one */
    qd_status status;
    char err[QD_ERR_LEN];
    int errors;
};

static void run_ranks(int world, bool may_spin, void *(*fn)(void *), struct rank *ranks)
{
    char err[QD_ERR_LEN] = "";
    qd_thread_bootstrap_t *shared;
    ASSERT_OK(qd_thread_bootstrap_create(world, &shared, err, sizeof err), err);
    qd_thread_bootstrap_set_spin(shared, may_spin);
    int64_t values[MAX_WORLD] = {0};
    for (int r = 0; r < world; r++) {
        ranks[r] = (struct rank){.bootstrap = qd_thread_bootstrap_rank(shared, r), .shared = values};
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, fn, &ranks[r]), 0);
    }
    for (int r = 0; r < world; r++) assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
    qd_thread_bootstrap_destroy(shared);
}

static void *meet_often(void *arg)
{
    struct rank *rank = arg;
    struct qd_bootstrap *b = &rank->bootstrap;
    for (int64_t round = 1; round <= ROUNDS; round++) {
        rank->shared[b->rank] = round;
        if (b->barrier(b->ctx, b->rank, rank->err, sizeof rank->err) != QD_OK) rank->errors++;
        for (int r = 0; r < b->world; r++) rank->errors += rank->shared[r] != round;
        if (b->barrier(b->ctx, b->rank, rank->err, sizeof rank->err) != QD_OK) rank->errors++;
    }
    return NULL;
}

static void *gather_often(void *arg)
{
    struct rank *rank = arg;
    struct qd_bootstrap *b = &rank->bootstrap;
    for (int32_t round = 0; round < ROUNDS; round++) {
        int32_t mine[3] = {b->rank, round, b->rank * round}, all[MAX_WORLD][3];
        if (b->all_gather(b->ctx, b->rank, mine, sizeof mine, all, rank->err, sizeof rank->err) != QD_OK)
            rank->errors++;
        memset(mine, 0xff, sizeof mine); /* allowed as soon as the call is over */
        for (int32_t r = 0; r < b->world; r++)
            rank->errors += all[r][0] != r || all[r][1] != round || all[r][2] != r * round;
    }
    return NULL;
}

static void *last_rank_gives_up(void *arg)
{
    struct rank *rank = arg;
    struct qd_bootstrap *b = &rank->bootstrap;
    rank->status = b->barrier(b->ctx, b->rank, rank->err, sizeof rank->err);
    if (b->rank == b->world - 1) {
        usleep(5000); /* the others are asleep by then */
        b->abort(b->ctx, b->rank, "open device", "no cores left");
        b->abort(b->ctx, b->rank, "close", "a later failure is not the reason");
    }
    char byte = 0, all[MAX_WORLD];
    for (int i = 0; i < 3 && rank->status == QD_OK; i++)
        rank->errors += b->barrier(b->ctx, b->rank, rank->err, sizeof rank->err) != QD_ERR_RANK;
    rank->status = b->all_gather(b->ctx, b->rank, &byte, 1, all, rank->err, sizeof rank->err);
    return NULL;
}

static void barriers_hold(void **state)
{
    (void)state;
    static const int worlds[] = {1, 2, 3, MAX_WORLD};
    struct rank ranks[MAX_WORLD];
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
        for (int spin = 0; spin < 2; spin++) {
            if (spin && worlds[i] > 2) continue;
            run_ranks(worlds[i], spin, meet_often, ranks);
            for (int r = 0; r < worlds[i]; r++) assert_int_equal(ranks[r].errors, 0);
        }
    }
}

static void gathers_are_in_rank_order(void **state)
{
    (void)state;
    static const int worlds[] = {1, 2, 5};
    struct rank ranks[MAX_WORLD];
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
        run_ranks(worlds[i], false, gather_often, ranks);
        for (int r = 0; r < worlds[i]; r++) assert_int_equal(ranks[r].errors, 0);
    }
}

static void an_abort_wakes_everybody_for_good(void **state)
{
    (void)state;
    struct rank ranks[MAX_WORLD];
    for (int world = 1; world <= 5; world += 2) {
        run_ranks(world, world == 1, last_rank_gives_up, ranks);
        for (int r = 0; r < world; r++) {
            char expected[64];
            snprintf(expected, sizeof expected, "rank %d: open device: no cores left", world - 1);
            assert_int_equal(ranks[r].errors, 0);
            assert_int_equal(ranks[r].status, QD_ERR_RANK);
            assert_string_equal(ranks[r].err, expected);
        }
    }
}

static void an_empty_world_is_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_thread_bootstrap_t *shared;
    assert_int_equal(qd_thread_bootstrap_create(0, &shared, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "0 ranks");
    qd_thread_bootstrap_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_hold),
        cmocka_unit_test(gathers_are_in_rank_order),
        cmocka_unit_test(an_abort_wakes_everybody_for_good),
        cmocka_unit_test(an_empty_world_is_refused),
    };
    return cmocka_run_group_tests_name("bootstrap", tests, NULL, NULL);
}

#include "tests/support/test.h"

#include <pthread.h>

#include "kernels/cpu/host/comm.h"

enum { MAX_WORLD = 5, MAX_N = 1000, ROUNDS = 200 };

struct rank {
    struct qd_cpu cpu;
    pthread_t thread;
    int64_t n;
    qd_bf16 data[MAX_N];
    int errors;
    qd_status status;
};

static struct rank ranks[MAX_WORLD];

static void run_ranks(int world, int64_t n, void *(*fn)(void *))
{
    char err[QD_ERR_LEN] = "";
    qd_thread_bootstrap_t *bootstrap;
    ASSERT_OK(qd_thread_bootstrap_create(world, &bootstrap, err, sizeof err), err);
    for (int r = 0; r < world; r++) {
        ranks[r] = (struct rank){.cpu.bootstrap = qd_thread_bootstrap_rank(bootstrap, r), .n = n};
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, fn, &ranks[r]), 0);
    }
    for (int r = 0; r < world; r++) assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
    for (int r = 0; r < world; r++) qd_cpu_comm_close(&ranks[r].cpu);
    qd_thread_bootstrap_destroy(bootstrap);
    for (int r = 0; r < world; r++) assert_int_equal(ranks[r].errors, 0);
}

/* Two buffers in turn and no barrier in between, as o and down do: each may be written again once the other
 * has been published. TSan sees it when that is not so. */
static void *publish_in_turn(void *arg)
{
    struct rank *rank = arg;
    struct qd_cpu *cpu = &rank->cpu;
    int64_t values[2];
    rank->errors += qd_cpu_comm_open(cpu, NULL, 0) != QD_OK;
    for (int64_t round = 0; round < ROUNDS; round++) {
        const void *all[QD_CPU_MAX_RANKS];
        values[round % 2] = round * 100 + cpu->bootstrap.rank;
        rank->errors += qd_cpu_comm_publish(cpu, &values[round % 2], all) != QD_OK;
        for (int r = 0; r < cpu->bootstrap.world; r++)
            rank->errors += *(const int64_t *)all[r] != round * 100 + r;
    }
    rank->errors += qd_cpu_comm_barrier(cpu) != QD_OK; /* values live on this stack */
    return NULL;
}

static void *gather(void *arg)
{
    struct rank *rank = arg;
    struct qd_cpu *cpu = &rank->cpu;
    rank->errors += qd_cpu_comm_open(cpu, NULL, 0) != QD_OK;
    for (int32_t round = 0; round < ROUNDS; round++) {
        int32_t mine[3] = {cpu->bootstrap.rank, round, -1}, all[MAX_WORLD][3];
        bool wanted = (cpu->bootstrap.rank + round) % 2 == 0;
        struct qd_all_gather_args args = {.in = mine, .bytes = sizeof mine, .out = wanted ? all : NULL};
        rank->errors += qd_cpu_all_gather(cpu, &args) != QD_OK;
        memset(mine, 0xff, sizeof mine);
        for (int32_t r = 0; r < cpu->bootstrap.world && wanted; r++)
            rank->errors += all[r][0] != r || all[r][1] != round || all[r][2] != -1;
    }
    return NULL;
}

static float term(int rank, int64_t i)
{
    return (float)((rank * 37 + (int)i * 11) % 101 - 50) * (rank % 2 ? 0.01f : 1.0f);
}

static void *reduce(void *arg)
{
    struct rank *rank = arg;
    struct qd_cpu *cpu = &rank->cpu;
    rank->errors += qd_cpu_comm_open(cpu, NULL, 0) != QD_OK;
    for (int round = 0; round < 5; round++) {
        for (int64_t i = 0; i < rank->n; i++) rank->data[i] = qd_bf16_from_f32(term(cpu->bootstrap.rank, i));
        struct qd_all_reduce_args args = {.data = rank->data, .n = rank->n};
        rank->errors += qd_cpu_all_reduce(cpu, &args) != QD_OK;
        for (int64_t i = 0; i < rank->n; i++) {
            float sum = 0.0f;
            for (int r = 0; r < cpu->bootstrap.world; r++) sum += qd_bf16_round(term(r, i));
            rank->errors += rank->data[i] != qd_bf16_from_f32(sum);
        }
    }
    return NULL;
}

static void *fail_on_rank_0(void *arg)
{
    struct rank *rank = arg;
    struct qd_cpu *cpu = &rank->cpu;
    const void *all[QD_CPU_MAX_RANKS];
    qd_status st = qd_cpu_comm_open(cpu, NULL, 0);
    if (cpu->bootstrap.rank == 0) {
        rank->errors += st != QD_OK;
        cpu->bootstrap.abort(cpu->bootstrap.ctx, 0, "step 3", "reason");
        return NULL;
    }
    /* The failure may come before this rank has left the opening. */
    if (st == QD_OK) st = qd_cpu_comm_publish(cpu, rank->data, all);
    rank->errors += st != QD_ERR_RANK;
    return NULL;
}

static void published_data_is_seen_in_time(void **state)
{
    (void)state;
    for (int world = 1; world <= MAX_WORLD; world += 2) run_ranks(world, 0, publish_in_turn);
    run_ranks(2, 0, publish_in_turn);
}

static void gathers_leave_out_who_does_not_want_them(void **state)
{
    (void)state;
    for (int world = 1; world <= MAX_WORLD; world++) run_ranks(world, 0, gather);
}

static void sums_are_in_rank_order_on_every_rank(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 31, 32, 33, 97, MAX_N};
    for (int world = 1; world <= MAX_WORLD; world++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) run_ranks(world, sizes[i], reduce);
}

static void a_failed_rank_ends_the_others(void **state)
{
    (void)state;
    run_ranks(3, 0, fail_on_rank_0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_data_is_seen_in_time),
        cmocka_unit_test(gathers_leave_out_who_does_not_want_them),
        cmocka_unit_test(sums_are_in_rank_order_on_every_rank),
        cmocka_unit_test(a_failed_rank_ends_the_others),
    };
    return cmocka_run_group_tests_name("collectives", tests, NULL, NULL);
}

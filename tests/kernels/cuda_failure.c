/* A rank that fails or hangs in a step while its peers' kernels wait for it: they end, their steps report a
 * failure, and the group ends with the rank and its phase. On emulated GPUs op by op and recorded, and on
 * `cpu`. Without that the emulator would find a livelock after half a minute, and a GPU nothing at all.
 */
#include "tests/support/test.h"

#include <stdatomic.h>

#include "kernels/base/clock.h"
#include "kernels/cpu/host/device.h"
#include "kernels/cuda/device.h"
#include "tests/support/model_run.h"

enum { MAX_TP = 8, FAILING_STEP = 4 /* the prompt, two decodes before they replay, one replay */ };
static const int64_t SOON_NS = 20 * INT64_C(1000000000); /* a livelock is found after 30 s */

enum fault { FAILS, HANGS };

/* The program of a model in which one rank does not do its part of one step. */
struct faulty {
    struct qd_program of_model;
    enum fault fault;
    int rank;
    _Atomic bool let_go;
    _Atomic int n_peers_failed; /* steps that reported a failure on the other ranks */
    char peer_text[QD_ERR_LEN]; /* of one of them */
    _Atomic bool has_text;
};

struct faulty_rank {
    struct faulty *faulty;
    int rank;
    void *state; /* of the model's program */
};

static qd_status faulty_open(void *user, int index, struct qd_device device, void **state, char *err,
                             size_t errlen)
{
    struct faulty *faulty = user;
    struct faulty_rank *rank = calloc(1, sizeof *rank);
    assert_non_null(rank);
    *rank = (struct faulty_rank){.faulty = faulty, .rank = index};
    *state = rank;
    return faulty->of_model.rank_open(faulty->of_model.user, index, device, &rank->state, err, errlen);
}

static qd_status note_peer(struct faulty *faulty, qd_status st, const char *err)
{
    if (st == QD_OK) return st;
    atomic_fetch_add(&faulty->n_peers_failed, 1);
    if (!atomic_exchange(&faulty->has_text, true))
        snprintf(faulty->peer_text, sizeof faulty->peer_text, "%s", err);
    return st;
}

static qd_status faulty_finish(void *state, struct qd_step_output *out, char *err, size_t errlen)
{
    struct faulty_rank *rank = state;
    return note_peer(rank->faulty, rank->faulty->of_model.rank_finish(rank->state, out, err, errlen), err);
}

static qd_status faulty_step(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                             size_t errlen)
{
    struct faulty_rank *rank = state;
    struct faulty *faulty = rank->faulty;
    if (step->step_index == FAILING_STEP && rank->rank == faulty->rank) {
        if (faulty->fault == FAILS) {
            usleep(20000); /* the peers' kernels wait by now */
            return qd_fail(QD_ERR_INTERNAL, err, errlen, "the reason");
        }
        while (!atomic_load(&faulty->let_go)) usleep(1000);
        return QD_ERR_RANK;
    }
    return note_peer(faulty, faulty->of_model.rank_step(rank->state, step, out, err, errlen), err);
}

static void faulty_close(void *state)
{
    struct faulty_rank *rank = state;
    if (rank == NULL) return;
    rank->faulty->of_model.rank_close(rank->state);
    free(rank);
}

/* A prompt of one token, and then the decodes of its sequence. */
static struct qd_step *make_step(const struct qd_step_limits *limits, int index)
{
    struct qd_step *step = calloc(1, qd_step_capacity(limits));
    assert_non_null(step);
    assert_int_equal(qd_step_begin(step, limits, 1, 1, 1, 1), QD_OK);
    qd_step_token_source(step)[0] = 7 + index;
    qd_step_position(step)[0] = index;
    qd_step_slot_mapping(step)[0] = QD_KV_BLOCK_SIZE + index;
    qd_step_cu_seqlens_q(step)[1] = 1;
    qd_step_kv_len(step)[0] = index + 1;
    qd_step_block_offset(step)[1] = 1;
    qd_step_block_table(step)[0] = 1;
    qd_step_sampling(step)[0] = (struct qd_sampling){.top_p = 1, .slot = 0};
    return step;
}

struct scene {
    const struct qd_device_ops *ops;
    int tp;
    bool enforce_eager;
    enum fault fault;
    enum qd_collectives collectives;
};

static void open_group(const struct scene *scene, struct model_run *run, struct faulty *faulty,
                       qd_model_t *model)
{
    char err[QD_ERR_LEN] = "";
    const struct run_options options = {.isa = "auto",
                                        .n_threads = scene->tp,
                                        .max_tokens = 8,
                                        .max_logit_rows = 8,
                                        .max_model_len = 64,
                                        .enforce_eager = scene->enforce_eager,
                                        .collectives = scene->collectives};
    struct qd_group_config group;
    model_run_configure(run, model, scene->ops, &options, &group);
    faulty->of_model = run->program;
    group.program = (struct qd_program){.user = faulty,
                                        .rank_open = faulty_open,
                                        .rank_step = faulty_step,
                                        .rank_finish = faulty_finish,
                                        .rank_close = faulty_close};
    group.watchdog_ns = scene->fault == HANGS ? 2 * INT64_C(1000000000) : 0;
    ASSERT_OK(qd_group_open(&group, &run->group, err, sizeof err), err);
}

static void expect_end(const struct scene *scene)
{
    char err[QD_ERR_LEN] = "", expected[80];
    struct faulty faulty = {.fault = scene->fault, .rank = scene->tp - 1};
    struct model_run run;
    struct qd_group_result result;
    qd_model_t *model = make_model("micro", scene->ops, scene->tp);
    open_group(scene, &run, &faulty, model);
    qd_group_t *group = run.group;
    int64_t begin_ns = 0;
    for (int i = 0; i <= FAILING_STEP; i++) {
        struct qd_step *step = make_step(&run.limits, i);
        begin_ns = qd_clock_now_ns();
        ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
        free(step);
        qd_status st = qd_group_wait(group, &result, err, sizeof err);
        if (i < FAILING_STEP)
            ASSERT_OK(st, err);
        else
            assert_int_equal(st, QD_ERR_RANK);
    }
    snprintf(expected, sizeof expected, "replica 0 rank %d: step %d: %s", scene->tp - 1, FAILING_STEP,
             scene->fault == FAILS ? "the reason" : "no progress for 2 s");
    assert_string_equal(err, expected);
    atomic_store(&faulty.let_go, true);
    ASSERT_OK(qd_group_end(group, err, sizeof err), err);
    assert_true(qd_clock_now_ns() - begin_ns < SOON_NS);
    assert_int_equal(faulty.n_peers_failed, scene->tp - 1);
    if (scene->ops == &qd_emu_ops)
        ASSERT_CONTAINS(faulty.peer_text, "another rank of the replica has failed");
    model_run_close(&run);
    qd_model_free(model);
}

static void test_scene(void **state)
{
    expect_end(*state);
}

#define OWN  QD_COLLECTIVES_OWN
#define NCCL QD_COLLECTIVES_NCCL

static struct scene scenes[] = {
    {&qd_emu_ops, 2, true, FAILS, OWN},  {&qd_emu_ops, 4, true, FAILS, OWN},
    {&qd_emu_ops, 2, false, FAILS, OWN}, {&qd_emu_ops, 4, false, FAILS, OWN},
    {&qd_emu_ops, 2, true, HANGS, OWN},  {&qd_emu_ops, 4, false, HANGS, OWN},
    {&qd_cpu_ops, 2, true, FAILS, OWN},  {&qd_cpu_ops, 4, true, FAILS, OWN},
    {&qd_cpu_ops, 2, true, HANGS, OWN},  {&qd_emu_ops, 2, true, FAILS, NCCL},
    {&qd_emu_ops, 4, false, FAILS, NCCL}, {&qd_emu_ops, 4, false, HANGS, NCCL},
};

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"a_rank_fails_emu_tp2_eager", test_scene, NULL, NULL, &scenes[0]},
        {"a_rank_fails_emu_tp4_eager", test_scene, NULL, NULL, &scenes[1]},
        {"a_rank_fails_emu_tp2_recorded", test_scene, NULL, NULL, &scenes[2]},
        {"a_rank_fails_emu_tp4_recorded", test_scene, NULL, NULL, &scenes[3]},
        {"a_rank_hangs_emu_tp2_eager", test_scene, NULL, NULL, &scenes[4]},
        {"a_rank_hangs_emu_tp4_recorded", test_scene, NULL, NULL, &scenes[5]},
        {"a_rank_fails_cpu_tp2", test_scene, NULL, NULL, &scenes[6]},
        {"a_rank_fails_cpu_tp4", test_scene, NULL, NULL, &scenes[7]},
        {"a_rank_hangs_cpu_tp2", test_scene, NULL, NULL, &scenes[8]},
        {"a_rank_fails_nccl_tp2_eager", test_scene, NULL, NULL, &scenes[9]},
        {"a_rank_fails_nccl_tp4_recorded", test_scene, NULL, NULL, &scenes[10]},
        {"a_rank_hangs_nccl_tp4_recorded", test_scene, NULL, NULL, &scenes[11]},
    };
    return cmocka_run_group_tests_name("cuda_failure", tests, NULL, NULL);
}

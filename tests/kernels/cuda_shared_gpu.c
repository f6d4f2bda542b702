/* Ranks that share an emulated GPU: with as many blocks as their part of its SMs their kernels meet whatever
 * the order in which they come; with more they would wait for blocks that find no SM. The GPU here holds one
 * block an SM.
 */
#include "tests/support/test.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/host.h"
#include "kernels/emu/mode.h"
#include "tests/support/model_run.h"

enum { N_TOKENS = 21, VOCAB = 515, STALL_MS = 1000, BLOCK_VALUES = 512 * 8 };

static void set_mode(enum qd_emu_schedule schedule, uint64_t seed, unsigned stall_ms)
{
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.schedule = schedule;
    mode.seed = seed;
    mode.resident_blocks = QD_EMU_N_SMS;
    mode.stall_ms = stall_ms;
    qd_emu_set_mode(&mode);
}

static void set_gpus(int n)
{
    qd_emu_shutdown();
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.n = n}), 0);
}

static int teardown(void **state)
{
    (void)state;
    const struct qd_emu_mode mode = qd_emu_default_mode();
    set_gpus(QD_EMU_DEFAULT_DEVICES);
    qd_emu_set_mode(&mode);
    return 0;
}

/* ---- two all-reduces on one GPU ---- */

enum { N_RANKS = 2, N_VALUES = QD_EMU_N_SMS * BLOCK_VALUES };

static cudaError_t allocate(void **data, size_t bytes)
{
    cudaError_t error = cudaMalloc(data, bytes);
    return error == cudaSuccess ? cudaMemset(*data, 0, bytes) : error;
}

/* Until every block of rank 0 waits: each has told rank 1's memory, which is the host's, that it came. */
static void wait_for_blocks(uint32_t *flags_of_1, int n_blocks)
{
    int tries = 20000;
    for (int block = 0; block < n_blocks; block++)
        while (__atomic_load_n(&flags_of_1[block * QD_CUDA_MAX_RANKS], __ATOMIC_RELAXED) == 0) {
            assert_true(tries-- > 0);
            usleep(1000);
        }
}

/* The second rank's kernel comes when the first one's has taken all SMs that it can. */
static cudaError_t reduce(int n_blocks)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cuda_all_reduce_args args[N_RANKS] = {{.n = N_VALUES}, {.n = N_VALUES}};
    cudaStream_t streams[N_RANKS];
    void *data;
    for (int rank = 0; rank < N_RANKS; rank++) {
        args[rank].peers = (struct qd_cuda_peers){.rank = rank, .n_ranks = N_RANKS, .n_blocks = n_blocks};
        assert_int_equal(cudaStreamCreateWithFlags(&streams[rank], cudaStreamNonBlocking), cudaSuccess);
        assert_int_equal(allocate(&data, QD_CUDA_PEER_BLOCKS * sizeof(uint32_t)), cudaSuccess);
        args[rank].peers.epoch = data;
        assert_int_equal(allocate(&data, N_VALUES * sizeof(qd_bf16)), cudaSuccess);
        args[rank].out = data;
        assert_int_equal(allocate(&data, N_VALUES * sizeof(qd_bf16)), cudaSuccess);
        args[0].parts[rank] = args[1].parts[rank] = data;
        assert_int_equal(allocate(&data, QD_CUDA_PEER_BLOCKS * QD_CUDA_MAX_RANKS * sizeof(uint32_t)),
                         cudaSuccess);
        args[0].peers.flags[rank] = data;
    }
    memcpy(args[1].peers.flags, args[0].peers.flags, sizeof args[0].peers.flags);
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    for (int rank = 0; rank < N_RANKS; rank++) {
        ASSERT_OK(qd_cuda_all_reduce(&args[rank], streams[rank], err, sizeof err), err);
        if (rank == 0) wait_for_blocks(args[0].peers.flags[1], n_blocks);
    }
    return cudaDeviceSynchronize();
}

static void blocks_of_ones_part_of_the_gpu_meet(void **state)
{
    (void)state;
    set_gpus(1);
    set_mode(QD_EMU_SCHEDULE_FIXED, 0, 20 * STALL_MS);
    assert_int_equal(reduce(QD_EMU_N_SMS / N_RANKS), cudaSuccess);
    set_mode(QD_EMU_SCHEDULE_RANDOM, 7, 20 * STALL_MS);
    assert_int_equal(reduce(QD_EMU_N_SMS / N_RANKS), cudaSuccess);
}

static void as_many_blocks_as_sms_each_wait_forever(void **state)
{
    (void)state;
    set_gpus(1);
    set_mode(QD_EMU_SCHEDULE_FIXED, 0, STALL_MS);
    assert_int_equal(reduce(QD_EMU_N_SMS), cudaErrorLaunchFailure);
    ASSERT_CONTAINS(cudaGetErrorString(cudaErrorLaunchFailure), "livelock");
}

/* ---- models ---- */

static float *logits(int tp, int n_gpus, int ranks_per_gpu)
{
    int32_t tokens[N_TOKENS];
    for (int32_t i = 0; i < N_TOKENS; i++) tokens[i] = (101 * i + 7) % VOCAB;
    set_gpus(n_gpus);
    const struct run_options options = {
        .max_tokens = 16, .max_logit_rows = 16, .max_model_len = 32, .ranks_per_gpu = ranks_per_gpu};
    struct model_run run;
    qd_model_t *model = make_model_on("micro", &qd_emu_ops, tp, ranks_per_gpu);
    model_run_open(&run, model, &qd_emu_ops, &options);
    float *out = model_run_logits(&run, tokens, N_TOKENS, 12, VOCAB);
    model_run_close(&run);
    qd_model_free(model);
    return out;
}

static void shared_gpus_give_the_same_bits(void **state)
{
    static const struct {
        int tp, n_gpus, ranks_per_gpu;
    } cases[] = {{2, 1, 2}, {4, 1, 4}, {4, 2, 2}, {8, 1, 8}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_mode(QD_EMU_SCHEDULE_FIXED, 0, 20 * STALL_MS);
        float *want = logits(cases[i].tp, cases[i].tp, 1);
        set_mode(i % 2 == 0 ? QD_EMU_SCHEDULE_FIXED : QD_EMU_SCHEDULE_RANDOM, i, 20 * STALL_MS);
        float *got = logits(cases[i].tp, cases[i].n_gpus, cases[i].ranks_per_gpu);
        assert_memory_equal(got, want, N_TOKENS * VOCAB * sizeof *got);
        free(got);
        free(want);
    }
}

/* Twice as many ranks as SMs: no block is left for half of them. */
static void more_ranks_than_sms_are_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    set_gpus(1);
    qd_model_t *model = make_model_on("micro", &qd_emu_ops, 2, 2 * QD_EMU_N_SMS);
    struct model_run run;
    struct qd_group_config group;
    const struct run_options options = {
        .max_tokens = 16, .max_logit_rows = 16, .max_model_len = 32, .ranks_per_gpu = 2 * QD_EMU_N_SMS};
    model_run_configure(&run, model, &qd_emu_ops, &options, &group);
    assert_int_equal(qd_group_open(&group, &run.group, err, sizeof err), QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "16 ranks on a GPU of 8 SMs");
    qd_model_program_free(&run.program);
    qd_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(blocks_of_ones_part_of_the_gpu_meet, teardown),
        cmocka_unit_test_teardown(as_many_blocks_as_sms_each_wait_forever, teardown),
        cmocka_unit_test_teardown(shared_gpus_give_the_same_bits, teardown),
        cmocka_unit_test_teardown(more_ranks_than_sms_are_refused, teardown),
    };
    return cmocka_run_group_tests_name("cuda_shared_gpu", tests, NULL, NULL);
}

/* The interface to NCCL over the emulated twin: sums, gathering, capture and replay; and that the twin finds
 * each mistake between ranks that real NCCL answers with a hang or nonsense. */
#include "tests/support/test.h"

#include <pthread.h>

#include <cuda_runtime.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/nccl.h"
#include "kernels/emu/mode.h"
#include "kernels/emu_nccl/nccl.h"
#include "tests/support/memory.h"

enum { MAX_WORLD = 8, N = 203, N_ROWS = 3, ROW_BYTES = 20 };

struct rank {
    struct qd_bootstrap bootstrap;
    pthread_t thread;
    struct qd_nccl nccl;
    cudaStream_t stream;
    qd_bf16 *in, *out;              /* [N] of this rank's GPU */
    unsigned char *rows, *gathered; /* [N_ROWS][ROW_BYTES]; of every rank */
    qd_status status;
    char err[QD_ERR_LEN];
};

static struct rank ranks[MAX_WORLD];

static qd_bf16 term(int rank, int i)
{
    return qd_bf16_from_f32((float)((rank + 1) * (i % 7) - 3));
}

static qd_status open_rank(struct rank *r, int gpu)
{
    char *err = r->err;
    const size_t errlen = sizeof r->err;
    size_t row_bytes = (size_t)N_ROWS * ROW_BYTES;
    QD_TRY(QD_CUDA(cudaSetDevice(gpu)));
    QD_TRY(QD_CUDA(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking)));
    QD_TRY(QD_CUDA(cudaMalloc((void **)&r->in, N * sizeof(qd_bf16))));
    QD_TRY(QD_CUDA(cudaMalloc((void **)&r->out, N * sizeof(qd_bf16))));
    QD_TRY(QD_CUDA(cudaMalloc((void **)&r->rows, row_bytes)));
    QD_TRY(QD_CUDA(cudaMalloc((void **)&r->gathered, row_bytes * (size_t)r->bootstrap.world)));
    QD_TRY(QD_CUDA(cudaDeviceSynchronize()));
    for (int i = 0; i < N; i++) r->in[i] = term(r->bootstrap.rank, i); /* emulated memory is the host's */
    for (size_t i = 0; i < row_bytes; i++) r->rows[i] = (unsigned char)(r->bootstrap.rank * 100 + (int)i);
    QD_TRY(qd_nccl_load(&r->nccl, err, errlen));
    return qd_nccl_open(&r->nccl, &r->bootstrap, err, errlen);
}

static qd_status wait_for(struct rank *r)
{
    char *err = r->err;
    const size_t errlen = sizeof r->err;
    QD_TRY(QD_CUDA(cudaStreamSynchronize(r->stream)));
    return qd_nccl_check(&r->nccl, err, errlen);
}

static qd_status reduce(struct rank *r, int64_t n)
{
    return qd_nccl_all_reduce(&r->nccl, r->in, r->out, n, r->stream, r->err, sizeof r->err);
}

/* One thread a rank on a GPU of its own; what is left of a test is freed with the GPUs. */
static void run_ranks(int world, void *(*fn)(void *))
{
    char err[QD_ERR_LEN] = "";
    qd_thread_bootstrap_t *bootstrap;
    ASSERT_OK(qd_thread_bootstrap_create(world, &bootstrap, err, sizeof err), err);
    for (int r = 0; r < world; r++) {
        ranks[r] = (struct rank){.bootstrap = qd_thread_bootstrap_rank(bootstrap, r)};
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, fn, &ranks[r]), 0);
    }
    for (int r = 0; r < world; r++) assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
    qd_thread_bootstrap_destroy(bootstrap);
}

static int shut_down(void **state)
{
    (void)state;
    qd_emu_set_gpus((struct qd_emu_gpus){0});
    qd_emu_nccl_set_present(true);
    qd_emu_shutdown();
    return 0;
}

/* ---- what it does ---- */

static void check_sum(const struct rank *r, const qd_bf16 *sum)
{
    for (int i = 0; i < N; i++) {
        float want = 0; /* small whole numbers: exact in every order */
        for (int rank = 0; rank < r->bootstrap.world; rank++) want += qd_bf16_to_f32(term(rank, i));
        assert_true(qd_bf16_to_f32(sum[i]) == want);
    }
}

static void *sum_and_gather(void *arg)
{
    struct rank *r = arg;
    r->status = open_rank(r, r->bootstrap.rank);
    if (r->status == QD_OK) r->status = reduce(r, N);
    if (r->status == QD_OK)
        r->status = qd_nccl_all_gather(&r->nccl, r->rows, N_ROWS, ROW_BYTES, r->gathered, r->stream, r->err,
                                       sizeof r->err);
    if (r->status == QD_OK)
        r->status = qd_nccl_all_reduce(&r->nccl, r->in, r->in, N, r->stream, r->err, sizeof r->err);
    if (r->status == QD_OK) r->status = wait_for(r);
    qd_nccl_close(&r->nccl);
    qd_nccl_close(&r->nccl); /* nothing is left to close */
    return NULL;
}

static void check_gathered(const struct rank *r)
{
    int world = r->bootstrap.world;
    for (int i = 0; i < N_ROWS * world * ROW_BYTES; i++) {
        int row = i / (world * ROW_BYTES), rank = i / ROW_BYTES % world;
        assert_int_equal(r->gathered[i], (unsigned char)(rank * 100 + row * ROW_BYTES + i % ROW_BYTES));
    }
}

static void sums_and_rows_are_right_on_every_rank(void **state)
{
    (void)state;
    static const int worlds[] = {1, 2, 3, 8};
    for (size_t w = 0; w < sizeof worlds / sizeof worlds[0]; w++) {
        run_ranks(worlds[w], sum_and_gather);
        for (int r = 0; r < worlds[w]; r++) {
            ASSERT_OK(ranks[r].status, ranks[r].err);
            assert_int_equal(ranks[r].nccl.version, 22809);
            check_sum(&ranks[r], ranks[r].out);
            check_sum(&ranks[r], ranks[r].in);
            check_gathered(&ranks[r]);
        }
        shut_down(state);
    }
}

/* Terms that bf16 cannot add exactly: the ranks agree all the same. */
static void *sum_of_fractions(void *arg)
{
    struct rank *r = arg;
    r->status = open_rank(r, r->bootstrap.rank);
    random_bf16(r->in, N, (uint64_t)r->bootstrap.rank, 1);
    if (r->status == QD_OK) r->status = reduce(r, N);
    if (r->status == QD_OK) r->status = wait_for(r);
    qd_nccl_close(&r->nccl);
    return NULL;
}

static void ranks_get_the_same_bits_in_an_order_of_its_own(void **state)
{
    (void)state;
    int n_other = 0;
    run_ranks(4, sum_of_fractions);
    for (int r = 0; r < 4; r++) {
        ASSERT_OK(ranks[r].status, ranks[r].err);
        assert_memory_equal(ranks[r].out, ranks[0].out, N * sizeof(qd_bf16));
    }
    for (int i = 0; i < N; i++) {
        float sum = 0, got = qd_bf16_to_f32(ranks[0].out[i]);
        for (int r = 0; r < 4; r++) sum += qd_bf16_to_f32(ranks[r].in[i]);
        assert_true(got > sum - 0.03f &&
                    got < sum + 0.03f); /* three roundings of values up to 4; seen: 0.012 */
        n_other += ranks[0].out[i] != qd_bf16_from_f32(sum);
    }
    assert_true(n_other > 0); /* as on hardware, not what the own kernels give */
}

static void *capture_and_replay(void *arg)
{
    struct rank *r = arg;
    char *err = r->err;
    const size_t errlen = sizeof r->err;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    r->status = open_rank(r, r->bootstrap.rank);
    if (r->status == QD_OK)
        r->status = QD_CUDA(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal));
    if (r->status == QD_OK) r->status = reduce(r, N);
    if (r->status == QD_OK) r->status = QD_CUDA(cudaStreamEndCapture(r->stream, &graph));
    if (r->status == QD_OK) r->status = QD_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3 && r->status == QD_OK; i++) {
        memset(r->out, 0xff, N * sizeof *r->out);
        r->status = QD_CUDA(cudaGraphLaunch(exec, r->stream));
        if (r->status == QD_OK) r->status = wait_for(r);
    }
    if (exec != NULL) cudaGraphExecDestroy(exec);
    if (graph != NULL) cudaGraphDestroy(graph);
    qd_nccl_close(&r->nccl);
    return NULL;
}

static void a_captured_sum_is_replayed(void **state)
{
    (void)state;
    run_ranks(2, capture_and_replay);
    for (int r = 0; r < 2; r++) {
        ASSERT_OK(ranks[r].status, ranks[r].err);
        check_sum(&ranks[r], ranks[r].out);
    }
}

/* ---- mistakes ---- */

/* The second call of every rank, but rank 1 does something else. */
enum mistake { OTHER_KIND, OTHER_COUNT, OTHER_ORDER, CAPTURED, OTHER_STREAM, LEAVES, HANGS };

static enum mistake mistake;

static qd_status gather_row(struct rank *r)
{
    return qd_nccl_all_gather(&r->nccl, r->rows, 1, ROW_BYTES, r->gathered, r->stream, r->err, sizeof r->err);
}

static qd_status reduce_captured(struct rank *r)
{
    char *err = r->err;
    const size_t errlen = sizeof r->err;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    QD_TRY(QD_CUDA(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal)));
    QD_TRY(reduce(r, N));
    QD_TRY(QD_CUDA(cudaStreamEndCapture(r->stream, &graph)));
    QD_TRY(QD_CUDA(cudaGraphInstantiate(&exec, graph, 0)));
    qd_status st = QD_CUDA(cudaGraphLaunch(exec, r->stream));
    if (st == QD_OK) st = wait_for(r);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    return st;
}

static qd_status reduce_elsewhere(struct rank *r)
{
    char *err = r->err;
    const size_t errlen = sizeof r->err;
    cudaStream_t other;
    QD_TRY(QD_CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking)));
    return qd_nccl_all_reduce(&r->nccl, r->in, r->out, N, other, r->err, sizeof r->err);
}

static qd_status make_mistake(struct rank *r)
{
    switch (mistake) {
    case OTHER_KIND: return gather_row(r);
    case OTHER_COUNT: return reduce(r, N - 8);
    case OTHER_ORDER: QD_TRY(gather_row(r)); return reduce(r, N);
    case CAPTURED: return reduce_captured(r);
    case OTHER_STREAM: return reduce_elsewhere(r);
    case LEAVES:
    case HANGS: break;
    }
    return QD_OK;
}

static qd_status do_right(struct rank *r)
{
    QD_TRY(reduce(r, N));
    return mistake == OTHER_ORDER ? gather_row(r) : QD_OK;
}

static void *one_is_wrong(void *arg)
{
    struct rank *r = arg;
    r->status = open_rank(r, r->bootstrap.rank);
    if (r->status == QD_OK) r->status = reduce(r, N);
    if (r->status == QD_OK) r->status = r->bootstrap.rank == 1 ? make_mistake(r) : do_right(r);
    /* What waits for a rank that never comes is freed by its own thread alone. */
    bool gives_up = r->status != QD_OK || mistake == OTHER_STREAM || mistake == HANGS;
    if (!gives_up) r->status = wait_for(r);
    if (gives_up)
        qd_nccl_abort(&r->nccl);
    else
        qd_nccl_close(&r->nccl);
    return NULL;
}

static void run_mistake(enum mistake which, int world)
{
    mistake = which;
    run_ranks(world, one_is_wrong);
}

static void expect_failure(int rank, const char *text)
{
    assert_int_equal(ranks[rank].status, QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(ranks[rank].err, text);
}

static void another_kind_of_call_is_found(void **state)
{
    (void)state;
    run_mistake(OTHER_KIND, 2);
    expect_failure(0, "call 2 of rank 0 is nccl_all_reduce of 203, type 9, operation 0, that of rank 1 is "
                      "nccl_all_gather of 20, type 1");
    expect_failure(1, "call 2 of rank 1 is nccl_all_gather");
}

static void another_count_is_found(void **state)
{
    (void)state;
    run_mistake(OTHER_COUNT, 3);
    expect_failure(2, "call 2 of rank 2 is nccl_all_reduce of 203, type 9, operation 0, that of rank 1 is "
                      "nccl_all_reduce of 195");
}

static void another_order_is_found(void **state)
{
    (void)state;
    run_mistake(OTHER_ORDER, 2);
    expect_failure(1, "call 2 of rank 1 is nccl_all_gather of 20");
}

static void capture_by_one_rank_alone_is_found(void **state)
{
    (void)state;
    run_mistake(CAPTURED, 2);
    expect_failure(0, "that of rank 1 is nccl_all_reduce (captured) of 203");
}

static void another_stream_is_refused(void **state)
{
    (void)state;
    run_mistake(OTHER_STREAM, 2);
    expect_failure(1, "invalid usage: call 2 of rank 1 is on another stream");
    ASSERT_OK(ranks[0].status, ranks[0].err);
}

static void a_rank_that_leaves_is_named(void **state)
{
    (void)state;
    run_mistake(LEAVES, 2);
    ASSERT_OK(ranks[1].status, ranks[1].err);
    expect_failure(0, "call 2 of rank 0 waits for rank 1, which left after 1 calls");
}

/* Rank 0 waits in its kernel for rank 1, which never comes: abort ends it without harm to the GPU. */
static void abort_frees_a_kernel_that_waits(void **state)
{
    (void)state;
    run_mistake(HANGS, 2);
    ASSERT_OK(ranks[0].status, ranks[0].err);
    int free_gpu = 0;
    assert_int_equal(cudaSetDevice(free_gpu), cudaSuccess);
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

static void *share_a_gpu(void *arg)
{
    struct rank *r = arg;
    r->status = open_rank(r, 0);
    return NULL;
}

static void two_ranks_on_one_gpu_are_refused(void **state)
{
    (void)state;
    run_ranks(2, share_a_gpu);
    for (int r = 0; r < 2; r++) expect_failure(r, "shares GPU 0 with another one");
}

static void without_nccl_loading_says_so(void **state)
{
    (void)state;
    struct qd_nccl nccl;
    char err[QD_ERR_LEN] = "";
    qd_emu_nccl_set_present(false);
    assert_int_equal(qd_nccl_load(&nccl, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "NCCL is not here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(sums_and_rows_are_right_on_every_rank, shut_down),
        cmocka_unit_test_teardown(ranks_get_the_same_bits_in_an_order_of_its_own, shut_down),
        cmocka_unit_test_teardown(a_captured_sum_is_replayed, shut_down),
        cmocka_unit_test_teardown(another_kind_of_call_is_found, shut_down),
        cmocka_unit_test_teardown(another_count_is_found, shut_down),
        cmocka_unit_test_teardown(another_order_is_found, shut_down),
        cmocka_unit_test_teardown(capture_by_one_rank_alone_is_found, shut_down),
        cmocka_unit_test_teardown(another_stream_is_refused, shut_down),
        cmocka_unit_test_teardown(a_rank_that_leaves_is_named, shut_down),
        cmocka_unit_test_teardown(abort_frees_a_kernel_that_waits, shut_down),
        cmocka_unit_test_teardown(two_ranks_on_one_gpu_are_refused, shut_down),
        cmocka_unit_test_teardown(without_nccl_loading_says_so, shut_down),
    };
    return cmocka_run_group_tests_name("cuda_nccl", tests, NULL, NULL);
}

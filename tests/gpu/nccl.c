/* NCCL at world size 1, which is all that one GPU can do of it: joining, sums and gathering, capture, replay,
 * leaving. In the emulator its twin runs instead, which tests/kernels/cuda_nccl.c tests with several ranks.
 */
#include <cuda_runtime.h>

#include "kernels/cuda/nccl.h"
#include "tests/gpu/runner.h"

enum { N = 4099, N_ROWS = 3, ROW_BYTES = 24, N_REPLAYS = 3 };

static char err[QD_ERR_LEN];

static qd_status gather_alone(void *ctx, int rank, const void *in, size_t bytes, void *out, char *text,
                              size_t text_len)
{
    (void)ctx, (void)rank, (void)text, (void)text_len;
    memcpy(out, in, bytes);
    return QD_OK;
}

static const struct qd_bootstrap alone = {.world = 1, .all_gather = gather_alone};

static void expect_ok(qd_status st)
{
    GPU_EXPECT(st == QD_OK, "%s", err);
}

static void expect_success(cudaError_t error, const char *what)
{
    GPU_EXPECT(error == cudaSuccess, "%s: %s", what, cudaGetErrorString(error));
}

static void open_alone(struct qd_nccl *nccl)
{
    qd_status st = qd_nccl_load(nccl, err, sizeof err);
    if (st == QD_ERR_NOT_FOUND) gpu_skip(err);
    expect_ok(st);
    expect_ok(qd_nccl_open(nccl, &alone, err, sizeof err));
}

/* The sum over one rank, from `in` to `out`. */
static void reduce(struct qd_nccl *nccl, const qd_bf16 *in, qd_bf16 *out)
{
    expect_ok(qd_nccl_all_reduce(nccl, in, out, N, gpu_stream(), err, sizeof err));
}

static void expect_terms(struct qd_nccl *nccl, const char *what, const qd_bf16 *out, const qd_bf16 *terms)
{
    qd_bf16 *got = gpu_host_alloc(N * sizeof *got);
    gpu_synchronize();
    expect_ok(qd_nccl_check(nccl, err, sizeof err));
    gpu_download(got, out, N * sizeof *got);
    gpu_expect_equal(what, got, terms, N * sizeof *got);
}

static void test_collectives(void)
{
    struct qd_nccl nccl;
    qd_bf16 *terms = gpu_host_alloc(N * sizeof *terms), *out = gpu_alloc(N * sizeof *out);
    unsigned char rows[N_ROWS * ROW_BYTES], gathered[sizeof rows], *rows_out = gpu_alloc(sizeof rows);
    gpu_random_bf16(terms, N, 100, 1);
    for (size_t i = 0; i < sizeof rows; i++) rows[i] = (unsigned char)(i * 37);
    qd_bf16 *in = gpu_upload(terms, N * sizeof *terms);
    void *rows_in = gpu_upload(rows, sizeof rows);
    open_alone(&nccl);
    reduce(&nccl, in, out);
    expect_terms(&nccl, "sum", out, terms);
    reduce(&nccl, in, in);
    expect_terms(&nccl, "sum in place", in, terms);
    expect_ok(qd_nccl_all_gather(&nccl, rows_in, N_ROWS, ROW_BYTES, rows_out, gpu_stream(), err, sizeof err));
    gpu_synchronize();
    gpu_download(gathered, rows_out, sizeof gathered);
    gpu_expect_equal("gathered rows", gathered, rows, sizeof rows);
    qd_nccl_close(&nccl);
}

/* Two sums of one graph, replayed over other terms than it was captured with; without any sum before. */
static void test_capture(void)
{
    struct qd_nccl nccl;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    qd_bf16 *terms = gpu_host_alloc(N * sizeof *terms);
    qd_bf16 *in = gpu_alloc(N * sizeof *in), *between = gpu_alloc(N * sizeof *in),
            *out = gpu_alloc(N * sizeof *in);
    open_alone(&nccl);
    expect_success(cudaStreamBeginCapture(gpu_stream(), cudaStreamCaptureModeThreadLocal), "begin capture");
    reduce(&nccl, in, between);
    reduce(&nccl, between, out);
    expect_success(cudaStreamEndCapture(gpu_stream(), &graph), "end capture");
    expect_success(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    for (int i = 0; i < N_REPLAYS; i++) {
        gpu_random_bf16(terms, N, 100, (uint64_t)(2 + i));
        gpu_write(in, terms, N * sizeof *terms);
        expect_success(cudaGraphLaunch(exec, gpu_stream()), "launch");
        expect_terms(&nccl, "replayed sum", out, terms);
    }
    reduce(&nccl, in, between); /* and outside of it again */
    expect_terms(&nccl, "sum behind replays", between, terms);
    expect_success(cudaGraphExecDestroy(exec), "destroy");
    expect_success(cudaGraphDestroy(graph), "destroy");
    qd_nccl_close(&nccl);
}

static void test_abort(void)
{
    struct qd_nccl nccl;
    qd_bf16 *terms = gpu_host_alloc(N * sizeof *terms), *out = gpu_alloc(N * sizeof *out);
    gpu_random_bf16(terms, N, 100, 9);
    qd_bf16 *in = gpu_upload(terms, N * sizeof *terms);
    open_alone(&nccl);
    reduce(&nccl, in, out);
    gpu_synchronize();
    qd_nccl_abort(&nccl);
    open_alone(&nccl); /* a new one works */
    reduce(&nccl, in, out);
    expect_terms(&nccl, "sum after an abort", out, terms);
    qd_nccl_close(&nccl);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"collectives", test_collectives}, {"capture", test_capture}, {"abort", test_abort}};
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

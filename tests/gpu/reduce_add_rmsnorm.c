/* reduce_add_rmsnorm.cu: bf16 and fp32 slices, selected rows, and the parts of several ranks. */
#include "kernels/cuda/kernels.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/partials.h"
#include "tests/gpu/ranks.h"
#include "tests/gpu/runner.h"

static const float EPS = 1e-6f;
/* The residual is exact: sums of fp32 in a given order, rounded. The norm: as in tests/gpu/rmsnorm.c; in the
 * emulator all elements had the same bits. */
static const float RTOL[] = {[QD_NUMERICS_FUSED] = 0x1p-7f, [QD_NUMERICS_HF] = 0x1p-6f};
static const double OTHER_BITS = 0.01;

struct shape {
    int64_t dim, n_tokens;
    const int32_t *rows; /* [n_rows] or NULL: all */
    int64_t n_rows;
    enum qd_partial_dtype dtype;
    int n_slices, n_ranks;
};

/* One step's inputs and what the specification makes of them. */
struct expected {
    qd_bf16 *residual, *weight; /* before */
    struct test_partial parts[QD_CUDA_MAX_RANKS];
    qd_bf16 *residual_after, *out;
};

static size_t n_elements(const struct shape *s)
{
    return (size_t)(s->n_tokens * s->dim);
}

static qd_bf16 *copy_of(const qd_bf16 *from, size_t n)
{
    qd_bf16 *copy = gpu_host_alloc(n * sizeof *copy);
    memcpy(copy, from, n * sizeof *copy);
    return copy;
}

static struct expected expect(const struct shape *s, enum qd_numerics numerics, uint64_t seed)
{
    const size_t n = n_elements(s), n_out = (size_t)(s->n_rows * s->dim);
    struct expected e = {.residual = gpu_host_alloc(n * 2), .weight = gpu_host_alloc((size_t)s->dim * 2)};
    const void *rounded[QD_CUDA_MAX_RANKS]; /* what each rank's GEMM would have stored without slices */
    gpu_random_bf16(e.residual, n, 2.0f, 20 + 1000 * seed);
    gpu_random_bf16(e.weight, (size_t)s->dim, 2.0f, 21);
    for (int r = 0; r < s->n_ranks; r++) {
        gpu_set_rank(r); /* whose memory holds the part */
        e.parts[r] = new_partial(n, s->dtype, s->n_slices, 1.0f, 30 + 10 * (uint64_t)r + 1000 * seed);
        rounded[r] = rounded_sum(&e.parts[r], n);
    }
    e.residual_after = copy_of(e.residual, n);
    e.out = gpu_host_alloc(n_out * 2);
    qd_ref_reduce_add_rmsnorm(
        &(struct qd_reduce_add_rmsnorm_args){.residual = e.residual_after,
                                             .partial = {.dtype = QD_PARTIAL_BF16, .n_slices = 1},
                                             .weight = e.weight,
                                             .rows = s->rows,
                                             .n_rows = s->n_rows,
                                             .dim = s->dim,
                                             .eps = EPS,
                                             .out = e.out},
        rounded, s->n_ranks, numerics);
    return e;
}

/* Arguments of the only rank: with more, set the peers. */
static struct qd_cuda_reduce_add_rmsnorm_args new_args(const struct shape *s, const struct expected *e,
                                                       enum qd_numerics numerics)
{
    struct qd_cuda_reduce_add_rmsnorm_args args = {
        .residual = gpu_write_once(gpu_upload(e->residual, n_elements(s) * 2), n_elements(s) * 2),
        .dtype = s->dtype,
        .n_slices = s->n_slices,
        .slice_stride = e->parts[0].device.stride,
        .peers = {.n_ranks = 1},
        .weight = gpu_upload(e->weight, (size_t)s->dim * 2),
        .rows = s->rows != NULL ? gpu_upload(s->rows, (size_t)s->n_rows * 4) : NULL,
        .n_rows = s->n_rows,
        .dim = s->dim,
        .eps = EPS,
        .numerics = numerics,
        .out = gpu_alloc_output((size_t)(s->n_rows * s->dim) * 2),
    };
    for (int r = 0; r < s->n_ranks; r++) args.partials[r] = e->parts[r].device.data;
    return args;
}

/* Compares what a launch left; unselected rows of the residual must be as they were. */
static void check_results(const struct shape *s, const struct expected *e,
                          const struct qd_cuda_reduce_add_rmsnorm_args *args)
{
    const size_t n = n_elements(s), n_out = (size_t)(s->n_rows * s->dim);
    qd_bf16 *residual = gpu_host_alloc(n * 2), *out = gpu_host_alloc(n_out * 2);
    gpu_download(residual, args->residual, n * 2);
    gpu_download(out, args->out, n_out * 2);
    gpu_expect_equal("residual", residual, e->residual_after, n * 2);
    gpu_expect_rounded_bf16("out", out, e->out, n_out, RTOL[args->numerics], 0, OTHER_BITS);
    gpu_expect_same_bits("out", out, n_out * 2);
}

static void check_one_rank(const struct shape *s, enum qd_numerics numerics)
{
    const struct expected e = expect(s, numerics, 0);
    const struct qd_cuda_reduce_add_rmsnorm_args args = new_args(s, &e, numerics);
    GPU_LAUNCH(qd_cuda_reduce_add_rmsnorm, &args);
    check_results(s, &e, &args);
}

static void matches_reference(enum qd_numerics numerics)
{
    static const int64_t dims[] = {8, 40, 248, 256, 264, 1000, 1024, 2048, 2560, 4096, 5120, 8184, 8192};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        struct shape s = {.dim = dims[i], .n_tokens = 3, .n_rows = 3, .n_slices = 1, .n_ranks = 1};
        check_one_rank(&s, numerics);
        s.dtype = QD_PARTIAL_F32;
        s.n_slices = 1 + (int)i % 8;
        check_one_rank(&s, numerics);
    }
    static const int64_t tokens[] = {1, 2, 131};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        const struct shape s = {
            .dim = 64, .n_tokens = tokens[i], .n_rows = tokens[i], .n_slices = 1, .n_ranks = 1};
        check_one_rank(&s, numerics);
    }
}

static void fused(void)
{
    matches_reference(QD_NUMERICS_FUSED);
}

static void hf(void)
{
    matches_reference(QD_NUMERICS_HF);
}

static void sums_every_number_of_slices(void)
{
    for (int n_slices = 1; n_slices <= 8; n_slices++) {
        const struct shape s = {.dim = 1024,
                                .n_tokens = 5,
                                .n_rows = 5,
                                .dtype = QD_PARTIAL_F32,
                                .n_slices = n_slices,
                                .n_ranks = 1};
        check_one_rank(&s, n_slices % 2 == 0 ? QD_NUMERICS_FUSED : QD_NUMERICS_HF);
    }
}

static void updates_selected_rows_only(void)
{
    static const int32_t rows[] = {8, 0, 5};
    for (int n_slices = 1; n_slices <= 3; n_slices += 2) {
        const struct shape s = {.dim = 2560,
                                .n_tokens = 11,
                                .rows = rows,
                                .n_rows = 3,
                                .dtype = n_slices == 1 ? QD_PARTIAL_BF16 : QD_PARTIAL_F32,
                                .n_slices = n_slices,
                                .n_ranks = 1};
        check_one_rank(&s, QD_NUMERICS_FUSED);
    }
}

static void does_nothing_without_rows(void)
{
    struct qd_cuda_reduce_add_rmsnorm_args args = {.dim = 64, .n_slices = 1, .peers = {.n_ranks = 1}};
    GPU_LAUNCH(qd_cuda_reduce_add_rmsnorm, &args);
}

/* A row in company has the bits of the row alone. */
static void a_row_is_the_same_anywhere(void)
{
    enum { DIM = 1024, N = 5 };
    static qd_bf16 together[N * DIM], alone[DIM];
    const struct shape s = {
        .dim = DIM, .n_tokens = N, .n_rows = N, .dtype = QD_PARTIAL_F32, .n_slices = 3, .n_ranks = 1};
    const struct expected e = expect(&s, QD_NUMERICS_FUSED, 0);
    struct qd_cuda_reduce_add_rmsnorm_args args = new_args(&s, &e, QD_NUMERICS_FUSED);
    GPU_LAUNCH(qd_cuda_reduce_add_rmsnorm, &args);
    gpu_download(together, args.out, sizeof together);
    for (int32_t i = 0; i < N; i++) {
        args = new_args(&s, &e, QD_NUMERICS_FUSED);
        args.rows = gpu_upload(&i, sizeof i);
        args.n_rows = 1;
        GPU_LAUNCH(qd_cuda_reduce_add_rmsnorm, &args);
        gpu_download(alone, args.out, sizeof alone);
        gpu_expect_equal("row", alone, together + i * DIM, sizeof alone);
    }
}

/* Block b of every rank has met its twins so often, if there are rows for it. */
static void expect_meetings(const struct shape *s, const struct qd_cuda_peers *peers, uint32_t n_meetings)
{
    uint32_t epoch[QD_CUDA_PEER_BLOCKS];
    for (int rank = 0; rank < s->n_ranks; rank++) {
        gpu_download(epoch, peers[rank].epoch, sizeof epoch);
        for (int block = 0; block < QD_CUDA_PEER_BLOCKS; block++) {
            const uint32_t want = block < s->n_rows ? n_meetings : 0;
            GPU_EXPECT(epoch[block] == want, "rank %d block %d: %u meetings", rank, block, epoch[block]);
        }
    }
}

/* In the place of the GEMM before: copies a rank's bf16 part to where all ranks read it, which is NaN until
 * then. */
static struct qd_cuda_embed_args new_producer(const struct shape *s, const struct test_partial *part)
{
    int32_t *row = gpu_host_alloc((size_t)s->n_tokens * sizeof *row);
    for (int32_t t = 0; t < s->n_tokens; t++) row[t] = t;
    return (struct qd_cuda_embed_args){.table = part->device.data,
                                       .n_ids = s->n_tokens,
                                       .hidden_dim = s->dim,
                                       .token_source = gpu_upload(row, (size_t)s->n_tokens * sizeof *row),
                                       .n_tokens = s->n_tokens,
                                       .out = gpu_alloc_output(n_elements(s) * sizeof(qd_bf16))};
}

enum { N_STEPS = 2 };

/* All ranks' launches of the steps, without a pause between them; o and down write to two buffers in turn, so
 * every step has parts of its own. */
struct steps {
    struct qd_cuda_peers peers[QD_CUDA_MAX_RANKS];
    struct expected expected[N_STEPS];
    struct qd_cuda_embed_args producer[N_STEPS][QD_CUDA_MAX_RANKS]; /* bf16 parts only */
    struct qd_cuda_reduce_add_rmsnorm_args args[N_STEPS][QD_CUDA_MAX_RANKS];
};

static void prepare_step(struct steps *steps, int step, const struct shape *s, enum qd_numerics numerics)
{
    const void *parts[QD_CUDA_MAX_RANKS];
    const struct expected *e = &steps->expected[step];
    steps->expected[step] = expect(s, numerics, (uint64_t)step);
    for (int rank = 0; rank < s->n_ranks; rank++) {
        gpu_set_rank(rank);
        steps->args[step][rank] = new_args(s, e, numerics);
        steps->args[step][rank].peers = steps->peers[rank];
        parts[rank] = e->parts[rank].device.data;
        if (s->dtype != QD_PARTIAL_BF16) continue;
        steps->producer[step][rank] = new_producer(s, &e->parts[rank]);
        parts[rank] = steps->producer[step][rank].out;
    }
    for (int rank = 0; rank < s->n_ranks; rank++)
        memcpy(steps->args[step][rank].partials, parts, (size_t)s->n_ranks * sizeof *parts);
}

/* The same pieces for all steps. */
static void add_pieces(struct steps *steps, const struct shape *s)
{
    const struct qd_cuda_pieces pieces =
        ranks_new_pieces(s->n_ranks, qd_cuda_reduce_add_rmsnorm_piece_bytes(s->n_rows, s->dim, s->n_ranks));
    for (int step = 0; step < N_STEPS; step++)
        for (int rank = 0; rank < s->n_ranks; rank++) steps->args[step][rank].pieces = pieces;
}

/* The launches of a step run together and must give the same bits on all ranks, and the bits that are in
 * `want` where that is not the first way. */
static void check_ranks_by(const struct shape *s, enum qd_numerics numerics, bool two_shot, qd_bf16 *want)
{
    struct steps *steps = gpu_host_alloc(sizeof *steps);
    const size_t out_bytes = (size_t)(s->n_rows * s->dim) * 2;
    qd_bf16 *first = gpu_host_alloc(out_bytes), *other = gpu_host_alloc(out_bytes);
    ranks_open(steps->peers, s->n_ranks, 0);
    for (int step = 0; step < N_STEPS; step++) prepare_step(steps, step, s, numerics);
    if (two_shot) add_pieces(steps, s);
    for (int step = 0; step < N_STEPS; step++) {
        for (int rank = 0; rank < s->n_ranks; rank++) {
            gpu_set_rank(rank);
            if (s->dtype == QD_PARTIAL_BF16) GPU_ISSUE(qd_cuda_embed, &steps->producer[step][rank]);
            GPU_ISSUE(qd_cuda_reduce_add_rmsnorm, &steps->args[step][rank]);
        }
    }
    for (int step = 0; step < N_STEPS; step++) {
        gpu_download(first, steps->args[step][0].out, out_bytes);
        for (int rank = 0; rank < s->n_ranks; rank++) {
            check_results(s, &steps->expected[step], &steps->args[step][rank]);
            gpu_download(other, steps->args[step][rank].out, out_bytes);
            gpu_expect_equal("another rank's out", other, first, out_bytes);
        }
    }
    if (two_shot) gpu_expect_equal("the other way's out", first, want, out_bytes);
    memcpy(want, first, out_bytes);
    expect_meetings(s, steps->peers, two_shot ? 2 * N_STEPS : N_STEPS);
}

static void check_ranks(const struct shape *s, enum qd_numerics numerics)
{
    qd_bf16 *want = gpu_host_alloc((size_t)(s->n_rows * s->dim) * sizeof *want);
    check_ranks_by(s, numerics, false, want);
    check_ranks_by(s, numerics, true, want);
}

/* 2 to 8 ranks; fewer rows than blocks, as many, and some blocks with a row more. */
static void sums_over_ranks(void)
{
    static const int ranks[] = {2, 3, 4, 8};
    static const int64_t tokens[] = {1, 5, QD_CUDA_PEER_BLOCKS, 2 * QD_CUDA_PEER_BLOCKS + 3};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        struct shape s = {.dim = 264, .n_tokens = tokens[i], .n_rows = tokens[i], .n_slices = 1};
        s.n_ranks = ranks[i];
        check_ranks(&s, i % 2 == 0 ? QD_NUMERICS_FUSED : QD_NUMERICS_HF);
        s.dtype = QD_PARTIAL_F32;
        s.n_slices = 2;
        s.n_tokens = s.n_rows = 3;
        check_ranks(&s, i % 2 == 0 ? QD_NUMERICS_HF : QD_NUMERICS_FUSED);
    }
    static const int32_t rows[] = {34, 2};
    const struct shape some = {
        .dim = 1024, .n_tokens = 35, .rows = rows, .n_rows = 2, .n_slices = 1, .n_ranks = 2};
    check_ranks(&some, QD_NUMERICS_FUSED);
    /* More ranks than chunks of a row: some have no columns. */
    const struct shape narrow = {.dim = 40, .n_tokens = 37, .n_rows = 37, .n_slices = 1, .n_ranks = 8};
    check_ranks(&narrow, QD_NUMERICS_FUSED);
}

/* The last row of tensors of more than 2^31 elements, the second slice as far again. */
static void reaches_far_rows(void)
{
    enum { DIM = 8192 };
    const int64_t far = INT64_C(0x80000000) / DIM + 1;
    const int32_t row = (int32_t)far;
    const struct shape s = {
        .dim = DIM, .n_tokens = 1, .n_rows = 1, .dtype = QD_PARTIAL_F32, .n_slices = 2, .n_ranks = 1};
    const struct expected e = expect(&s, QD_NUMERICS_FUSED, 0);
    struct qd_cuda_reduce_add_rmsnorm_args args = new_args(&s, &e, QD_NUMERICS_FUSED);
    const size_t n_far = (size_t)(far + 1) * DIM;
    qd_bf16 *residual = gpu_alloc_sparse(n_far * sizeof *residual), got[DIM];
    float *slices = gpu_alloc_sparse(2 * n_far * sizeof *slices), slice[DIM];
    gpu_write(residual + far * DIM, e.residual, sizeof got);
    for (int i = 0; i < 2; i++) {
        gpu_download(slice, (const float *)e.parts[0].device.data + i * e.parts[0].device.stride,
                     sizeof slice);
        gpu_write(slices + (size_t)i * n_far + (size_t)far * DIM, slice, sizeof slice);
    }
    args.residual = residual;
    args.partials[0] = slices;
    args.slice_stride = (int64_t)n_far;
    args.rows = gpu_upload(&row, sizeof row);
    GPU_LAUNCH(qd_cuda_reduce_add_rmsnorm, &args);
    gpu_download(got, residual + far * DIM, sizeof got);
    gpu_expect_equal("residual", got, e.residual_after, sizeof got);
    gpu_download(got, args.out, sizeof got);
    gpu_expect_rounded_bf16("out", got, e.out, DIM, RTOL[QD_NUMERICS_FUSED], 0, OTHER_BITS);
}

static void refuses(void)
{
    const struct qd_cuda_reduce_add_rmsnorm_args good = {
        .dim = 64, .n_rows = 1, .n_slices = 1, .peers = {.n_ranks = 1}};
    struct qd_cuda_reduce_add_rmsnorm_args args = good;
    args.dim = 12;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "dim 12");
    args.dim = 8200;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "dim 8200");
    args = good;
    args.n_rows = -1;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "-1 rows");
    args = good;
    args.n_slices = 2;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "2 bf16 slices");
    args.dtype = QD_PARTIAL_F32;
    args.slice_stride = 68;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "stride of 68");
    args.n_slices = 0;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "0 fp32 slices");
    args = good;
    args.peers.n_ranks = QD_CUDA_MAX_RANKS + 1;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "rank 0 of 9");
    args.peers.n_ranks = 0;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "rank 0 of 0");
    args.peers.n_ranks = 2;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "0 blocks that wait");
    args.peers.n_blocks = QD_CUDA_PEER_BLOCKS + 1;
    GPU_REFUSED(qd_cuda_reduce_add_rmsnorm, &args, "33 blocks that wait");
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"fused", fused},
        {"hf", hf},
        {"sums_every_number_of_slices", sums_every_number_of_slices},
        {"updates_selected_rows_only", updates_selected_rows_only},
        {"does_nothing_without_rows", does_nothing_without_rows},
        {"a_row_is_the_same_anywhere", a_row_is_the_same_anywhere},
        {"sums_over_ranks", sums_over_ranks},
        {"reaches_far_rows", reaches_far_rows},
        {"refuses", refuses},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

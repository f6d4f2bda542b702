/* Which GEMM kernel and how many slices of K a shape gets, and the launcher that checks and dispatches. */
#include "kernels/cuda/gemm.h"

enum {
    K_STEP = 64,              /* every kernel takes K in steps of this */
    MAX_SLICES = 8,           /* more only add to what the consumer reads */
    MIN_SLICE_K = 256,        /* below, filling a kernel's pipeline costs as much as the slice */
    MAX_SLICED_TOKENS = 1024, /* bounds the memory that slices take */
    PIECE = 8,                /* elements of a 16-byte access: rows start at multiples of it */
    /* Row indices are 32-bit in the kernels, and may exceed M and N by a tile. */
    MAX_DIM = INT32_MAX - 256,
};

/* ---- choice ---- */

#define ANY_NUMBER INT64_MAX
/* A split has to promise this much, for the consumer that reads slices is slower than an epilogue. */
static const double SPLIT_GAIN = 0.8;

/* Time is counted in units of one column and one k of a 128-token tile: 128 multiply-adds, 1/8 cycle of an
 * SM. Reading 2 bytes of weights at an SM's share of global memory (13 to 15 bytes a cycle on A100 and H100)
 * takes about as long, so a column and k of a skinny block costs one unit too. From data sheets: no hardware
 * has confirmed it. */
static const struct candidate {
    enum qd_cuda_gemm_kernel kernel;
    int64_t max_tokens;
    int tile_m, tile_n; /* tokens and columns of a block */
    double unit_cost;   /* the 128 tile reads L2 more often for the same work */
} candidates[] = {
    {QD_CUDA_GEMM_SKINNY_DIRECT, QD_CUDA_GEMM_DIRECT_TOKENS, QD_CUDA_GEMM_DIRECT_TOKENS, 64, 1.0},
    {QD_CUDA_GEMM_SKINNY_RING, QD_CUDA_GEMM_RING_TOKENS, QD_CUDA_GEMM_RING_TOKENS, 128, 1.0},
    {QD_CUDA_GEMM_TILE_128X256, ANY_NUMBER, 128, 256, 1.0},
    {QD_CUDA_GEMM_TILE_128X128, ANY_NUMBER, 128, 128, 1.2},
    {QD_CUDA_GEMM_TILE_128X128_3_STAGES, ANY_NUMBER, 128, 128,
     1.2}, /* equal costs: taken where the one above does not fit */
};
enum { N_CANDIDATES = sizeof candidates / sizeof candidates[0] };

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

size_t qd_cuda_gemm_shared_bytes(enum qd_cuda_gemm_kernel kernel, int64_t m)
{
    const bool is_skinny = kernel == QD_CUDA_GEMM_SKINNY_DIRECT || kernel == QD_CUDA_GEMM_SKINNY_RING;
    return is_skinny ? qd_cuda_gemm_skinny_shared_bytes(kernel, m) : qd_cuda_gemm_tile_shared_bytes(kernel);
}

static bool fits(enum qd_cuda_gemm_kernel kernel, int64_t m, struct qd_cuda_gpu_size gpu)
{
    return qd_cuda_gemm_shared_bytes(kernel, m) <= (size_t)gpu.shared_bytes;
}

static bool may_split(int64_t k, int n_slices)
{
    return n_slices == 1 || (k / K_STEP % n_slices == 0 && k / n_slices >= MIN_SLICE_K);
}

/* Waves of blocks, plus writing fp32 slices and reading them back (through L2: half of global memory's
 * price). */
static double estimated_cost(const struct candidate *c, int64_t m, int64_t n, int64_t k, int n_slices,
                             int n_sms)
{
    const int64_t blocks = ceil_div(m, c->tile_m) * ceil_div(n, c->tile_n) * n_slices;
    const double products =
        (double)ceil_div(blocks, n_sms) * c->tile_n * ((double)k / n_slices) * c->unit_cost;
    if (n_slices == 1) return products;
    const double bytes_per_unit = 2, slice_bytes = 2.0 * 4.0 * (double)m * (double)n * n_slices;
    return products + slice_bytes / 2 / bytes_per_unit / n_sms;
}

/* One kernel and one split for every M: two slices where 128 columns a block leave most SMs without work,
 * which by the estimate above costs long prompts a tenth and saves single tokens near half. */
static struct qd_cuda_gemm_plan choose_invariant(int64_t n, int64_t k, bool may_slice,
                                                 struct qd_cuda_gpu_size gpu)
{
    enum { FEW_TILES = 64 };
    const bool split = may_slice && ceil_div(n, 128) < FEW_TILES && may_split(k, 2);
    const enum qd_cuda_gemm_kernel kernel = fits(QD_CUDA_GEMM_TILE_128X128, 1, gpu)
                                                ? QD_CUDA_GEMM_TILE_128X128
                                                : QD_CUDA_GEMM_TILE_128X128_3_STAGES;
    return (struct qd_cuda_gemm_plan){kernel, split ? 2 : 1};
}

/* One slice, or more where each larger number beats the one taken before by SPLIT_GAIN; the cost in *cost. */
static int choose_slices(const struct candidate *c, int64_t m, int64_t n, int64_t k, int max_slices,
                         int n_sms, double *cost)
{
    int n_slices = 1;
    *cost = estimated_cost(c, m, n, k, 1, n_sms);
    for (int s = 2; s <= max_slices; s++) {
        if (!may_split(k, s)) continue;
        const double split_cost = estimated_cost(c, m, n, k, s, n_sms);
        if (split_cost >= SPLIT_GAIN * *cost) continue;
        n_slices = s;
        *cost = split_cost;
    }
    return n_slices;
}

struct qd_cuda_gemm_plan qd_cuda_gemm_choose(int64_t m, int64_t n, int64_t k, bool may_slice,
                                             struct qd_cuda_gpu_size gpu, bool batch_invariant)
{
    if (batch_invariant) return choose_invariant(n, k, may_slice, gpu);
    const int max_slices = may_slice && m <= MAX_SLICED_TOKENS ? MAX_SLICES : 1;
    struct qd_cuda_gemm_plan best = {QD_CUDA_GEMM_TILE_128X128_3_STAGES, 1};
    double best_cost = 0;
    for (int i = 0; i < N_CANDIDATES; i++) {
        const struct candidate *c = &candidates[i];
        if (m > c->max_tokens || !fits(c->kernel, m, gpu)) continue;
        double cost;
        const int n_slices = choose_slices(c, m, n, k, max_slices, gpu.n_sms, &cost);
        if (best_cost == 0 || cost < best_cost) {
            best = (struct qd_cuda_gemm_plan){c->kernel, n_slices};
            best_cost = cost;
        }
        if (c->max_tokens != ANY_NUMBER) break; /* the first skinny kernel that takes all tokens is the one */
    }
    return best;
}

/* ---- launch ---- */

static qd_status check_shape(const struct qd_cuda_gemm_args *args, char *err, size_t errlen)
{
    const int64_t m = args->m, n = args->n, k = args->k;
    const int group = args->epilogue == QD_EPILOGUE_SILU_MUL ? 16 : 8;
    if (m < 0 || m > MAX_DIM) return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: M %lld", (long long)m);
    if (n < 1 || n > MAX_DIM || n % group != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: N %lld is not a multiple of %d", (long long)n,
                       group);
    if (k < 1 || k > MAX_DIM || k % K_STEP != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: K %lld is not a multiple of %d", (long long)k,
                       K_STEP);
    return QD_OK;
}

static qd_status check_layout(const struct qd_cuda_gemm_args *args, char *err, size_t errlen)
{
    const int64_t n_out = args->epilogue == QD_EPILOGUE_SILU_MUL ? args->n / 2 : args->n;
    if (args->lda < args->k || args->lda % PIECE != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: lda %lld for K %lld", (long long)args->lda,
                       (long long)args->k);
    if (args->ldo < n_out || args->ldo % PIECE != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: ldo %lld for %lld columns",
                       (long long)args->ldo, (long long)n_out);
    if (((uintptr_t)args->a | (uintptr_t)args->w | (uintptr_t)args->out) % 16 != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: a pointer is not 16-byte aligned");
    return QD_OK;
}

static qd_status check_slices(const struct qd_cuda_gemm_args *args, char *err, size_t errlen)
{
    const int32_t n_slices = args->plan.n_slices;
    if (n_slices < 1 || args->k / K_STEP % n_slices != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: %d slices of K %lld", n_slices,
                       (long long)args->k);
    if (n_slices == 1) return QD_OK;
    if (args->epilogue != QD_EPILOGUE_STORE)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: %d slices, but not a plain store", n_slices);
    if (args->slice_stride % PIECE != 0 || args->slice_stride < (args->m - 1) * args->ldo + args->n)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: slice stride %lld",
                       (long long)args->slice_stride);
    return QD_OK;
}

static qd_status check_tokens(int64_t m, int64_t max_tokens, char *err, size_t errlen)
{
    if (m <= max_tokens) return QD_OK;
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: %lld tokens, the kernel takes %lld", (long long)m,
                   (long long)max_tokens);
}

qd_status qd_cuda_gemm(const struct qd_cuda_gemm_args *args, struct CUstream_st *stream, char *err,
                       size_t errlen)
{
    QD_TRY(check_shape(args, err, errlen));
    QD_TRY(check_layout(args, err, errlen));
    QD_TRY(check_slices(args, err, errlen));
    if (args->m == 0) return QD_OK;
    switch (args->plan.kernel) {
    case QD_CUDA_GEMM_TILE_128X256:
    case QD_CUDA_GEMM_TILE_128X128:
    case QD_CUDA_GEMM_TILE_128X128_3_STAGES: return qd_cuda_gemm_tile(args, stream, err, errlen);
    case QD_CUDA_GEMM_SKINNY_DIRECT:
        QD_TRY(check_tokens(args->m, QD_CUDA_GEMM_DIRECT_TOKENS, err, errlen));
        return qd_cuda_gemm_skinny(args, stream, err, errlen);
    case QD_CUDA_GEMM_SKINNY_RING:
        QD_TRY(check_tokens(args->m, QD_CUDA_GEMM_RING_TOKENS, err, errlen));
        return qd_cuda_gemm_skinny(args, stream, err, errlen);
    }
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "gemm: kernel %d", (int)args->plan.kernel);
}

/* The all-reduces, one-shot and two-shot: equal bits on all ranks, the fp32 sum in rank order; launch after
 * launch. */
#include <unistd.h>

#include "tests/gpu/ranks.h"

enum shots { ONE_SHOT = 1, TWO_SHOTS };

enum { PASS = QD_CUDA_PEER_BLOCKS * 512 * 8 }; /* elements that one pass of all threads covers */

struct reduction {
    int n_ranks;
    int64_t n;
    qd_bf16 *parts[QD_CUDA_MAX_RANKS]; /* [n] on the host */
    qd_bf16 *want, *got;               /* [n] */
    struct qd_cuda_all_reduce_args args[QD_CUDA_MAX_RANKS];
};

/* New parts, and the sum that they must give. */
static void fill(struct reduction *r, uint64_t seed)
{
    for (int rank = 0; rank < r->n_ranks; rank++)
        gpu_random_bf16(r->parts[rank], (size_t)r->n, rank % 2 == 0 ? 100 : 3, seed * 100 + (uint64_t)rank);
    for (int rank = 0; rank < r->n_ranks && rank < 2; rank++)
        r->parts[rank][0] = qd_bf16_from_f32(3e38f); /* their sum overflows */
    for (int64_t i = 0; i < r->n; i++) {
        float sum = qd_bf16_to_f32(r->parts[0][i]);
        for (int rank = 1; rank < r->n_ranks; rank++) sum += qd_bf16_to_f32(r->parts[rank][i]);
        r->want[i] = qd_bf16_from_f32(sum);
    }
}

static struct reduction new_reduction(enum shots shots, int n_ranks, int64_t n, uint32_t start)
{
    struct reduction r = {.n_ranks = n_ranks, .n = n};
    struct qd_cuda_peers peers[QD_CUDA_MAX_RANKS];
    const qd_bf16 *device[QD_CUDA_MAX_RANKS] = {NULL};
    const size_t bytes = (size_t)n * sizeof(qd_bf16);
    ranks_open(peers, n_ranks, start);
    r.want = gpu_host_alloc(bytes);
    r.got = gpu_host_alloc(bytes);
    for (int rank = 0; rank < n_ranks; rank++) {
        r.parts[rank] = gpu_host_alloc(bytes);
        gpu_set_rank(rank);
        device[rank] = gpu_alloc(bytes);
        r.args[rank] =
            (struct qd_cuda_all_reduce_args){.n = n, .peers = peers[rank], .out = gpu_alloc_output(bytes)};
    }
    struct qd_cuda_pieces pieces = {{NULL}};
    if (shots == TWO_SHOTS) pieces = ranks_new_pieces(n_ranks, qd_cuda_all_reduce_piece_bytes(n, n_ranks));
    for (int rank = 0; rank < n_ranks; rank++) {
        memcpy(r.args[rank].parts, device, sizeof device);
        r.args[rank].pieces = pieces;
    }
    return r;
}

/* One launch on every rank, from rank `first` downwards and around, each `late_us` after the one before; and
 * what each of them got. */
static void reduce_late_and_check(struct reduction *r, uint64_t seed, int first, useconds_t late_us)
{
    const size_t bytes = (size_t)r->n * sizeof(qd_bf16);
    fill(r, seed);
    for (int rank = 0; rank < r->n_ranks; rank++)
        gpu_write((void *)(uintptr_t)r->args[0].parts[rank], r->parts[rank], bytes);
    for (int i = 0; i < r->n_ranks; i++) {
        const int rank = (first + r->n_ranks - i) % r->n_ranks;
        if (i > 0 && late_us > 0) usleep(late_us);
        gpu_set_rank(rank);
        GPU_ISSUE(qd_cuda_all_reduce, &r->args[rank]);
    }
    gpu_synchronize();
    for (int rank = 0; rank < r->n_ranks; rank++) {
        gpu_download(r->got, r->args[rank].out, bytes);
        for (int64_t i = 0; i < r->n; i++)
            GPU_EXPECT(r->got[i] == r->want[i], "%d ranks, n %lld: rank %d [%lld]: 0x%04x, not 0x%04x",
                       r->n_ranks, (long long)r->n, rank, (long long)i, r->got[i], r->want[i]);
    }
}

static void reduce_and_check(struct reduction *r, uint64_t seed)
{
    reduce_late_and_check(r, seed, r->n_ranks - 1, 0);
}

static void test_one_rank(void)
{
    struct reduction two_shots = new_reduction(TWO_SHOTS, 1, 4096 + 8, 0);
    reduce_and_check(&two_shots, 2);
    struct reduction r = new_reduction(ONE_SHOT, 1, PASS + 8, 0);
    reduce_and_check(&r, 1);
    ranks_expect_meetings(&r.args[0].peers, 1, QD_CUDA_PEER_BLOCKS, 0);
}

/* Sizes around a vector, a block, a tile of the ranks, a pass. */
static void expect_sums(int n_ranks)
{
    const int64_t tile = (int64_t)n_ranks * 4096;
    const int64_t sizes[] = {8, 24, 8 * 521, 4096 - 8, 4096 + 8, tile - 8, tile + 8, PASS + 8};
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
        for (int shots = ONE_SHOT; shots <= TWO_SHOTS; shots++) {
            struct reduction r = new_reduction((enum shots)shots, n_ranks, sizes[i], 0);
            reduce_and_check(&r, (uint64_t)(n_ranks * 10 + i));
        }
    }
}
static void test_2_ranks(void)
{
    expect_sums(2);
}
static void test_3_ranks(void)
{
    expect_sums(3);
}
static void test_4_ranks(void)
{
    expect_sums(4);
}
static void test_8_ranks(void)
{
    expect_sums(8);
}

/* The arguments stay, the memory's contents change: counts of meetings grow through their overflow. */
static void test_replays(void)
{
    const uint32_t start = UINT32_MAX - 4;
    for (int shots = ONE_SHOT; shots <= TWO_SHOTS; shots++) {
        struct reduction r = new_reduction((enum shots)shots, 4, 520, start);
        struct qd_cuda_peers peers[QD_CUDA_MAX_RANKS];
        for (int launch = 0; launch < 5; launch++) reduce_and_check(&r, (uint64_t)(1000 + launch));
        for (int rank = 0; rank < 4; rank++) peers[rank] = r.args[rank].peers;
        ranks_expect_meetings(peers, 4, 1, start + 10);
    }
}

/* Whoever comes first waits, in every order of coming; more than one pass of the blocks. */
static void test_late_ranks(void)
{
    for (int shots = ONE_SHOT; shots <= TWO_SHOTS; shots++) {
        struct reduction r = new_reduction((enum shots)shots, 3, 3 * 4096 * 5 + 40, 0);
        for (int rank = 0; rank < 3; rank++) r.args[rank].peers.n_blocks = 3;
        for (int first = 0; first < 3; first++)
            reduce_late_and_check(&r, (uint64_t)(70 + first), first, 3000);
    }
}

/* Launches that are issued without waiting for the one before, the sums of one the parts of the next; `start`
 * meetings lie behind them. */
static void expect_chain(enum shots shots, uint32_t start)
{
    enum { N = 264, N_RANKS = 4, N_LAUNCHES = 3 };
    struct reduction r = new_reduction(shots, N_RANKS, N, start);
    struct qd_cuda_all_reduce_args back[N_RANKS];
    for (int rank = 0; rank < N_RANKS; rank++) {
        back[rank] = r.args[rank];
        back[rank].out = (qd_bf16 *)(uintptr_t)r.args[0].parts[rank];
        for (int peer = 0; peer < N_RANKS; peer++) back[rank].parts[peer] = r.args[peer].out;
        for (int i = 0; i < N; i++) r.parts[rank][i] = qd_bf16_from_f32((float)(i % 7 + rank));
        gpu_write(back[rank].out, r.parts[rank], N * sizeof(qd_bf16));
    }
    for (int launch = 0; launch < N_LAUNCHES; launch++) {
        for (int rank = 0; rank < N_RANKS; rank++) {
            gpu_set_rank(rank);
            GPU_ISSUE(qd_cuda_all_reduce, launch % 2 == 0 ? &r.args[rank] : &back[rank]);
        }
    }
    gpu_synchronize();
    for (int rank = 0; rank < N_RANKS; rank++) {
        gpu_download(r.got, r.args[rank].out, N * sizeof(qd_bf16));
        for (int i = 0; i < N;
             i++) { /* small integers are exact; after the first sum four equal parts are added */
            const float want = (float)((4 * (i % 7) + 6) * 4 * 4);
            GPU_EXPECT(qd_bf16_to_f32(r.got[i]) == want, "start %u: rank %d [%d]: %g, not %g", start, rank, i,
                       (double)qd_bf16_to_f32(r.got[i]), (double)want);
        }
    }
}

/* Each of the first meetings is once the one at which the count overflows. */
static void test_back_to_back(void)
{
    for (int shots = ONE_SHOT; shots <= TWO_SHOTS; shots++) {
        expect_chain((enum shots)shots, 0);
        for (uint32_t before = 0; before < 4; before++) expect_chain((enum shots)shots, UINT32_MAX - before);
    }
}

/* Ranks whose peer never comes, told so: their kernels end. */
static void test_abandoned(void)
{
    const uint32_t abandoned = 1;
    for (int shots = ONE_SHOT; shots <= TWO_SHOTS; shots++) {
        struct reduction r = new_reduction((enum shots)shots, 2, PASS + 8, 0);
        gpu_set_rank(0);
        r.args[0].peers.abandoned = gpu_upload(&abandoned, sizeof abandoned);
        for (int launch = 0; launch < 2; launch++) GPU_LAUNCH(qd_cuda_all_reduce, &r.args[0]);
    }
}

static void test_refusals(void)
{
    struct reduction r = new_reduction(ONE_SHOT, 1, 16, 0);
    struct qd_cuda_all_reduce_args args = r.args[0];
    args.n = 12;
    GPU_REFUSED(qd_cuda_all_reduce, &args, "12 elements");
    args.n = -8;
    GPU_REFUSED(qd_cuda_all_reduce, &args, "-8 elements");
    args.n = 16;
    args.peers.n_ranks = 9;
    GPU_REFUSED(qd_cuda_all_reduce, &args, "rank 0 of 9");
    args.peers = (struct qd_cuda_peers){.n_ranks = 2};
    GPU_REFUSED(qd_cuda_all_reduce, &args, "0 blocks that wait");
    args.peers = (struct qd_cuda_peers){.rank = 2, .n_ranks = 2};
    GPU_REFUSED(qd_cuda_all_reduce, &args, "rank 2 of 2");
    args.peers.rank = -1;
    GPU_REFUSED(qd_cuda_all_reduce, &args, "rank -1 of 2");
    args.peers.rank = 0;
    args.peers.n_blocks = 1;
    args.n = 0; /* nothing to do, nobody to meet */
    GPU_LAUNCH(qd_cuda_all_reduce, &args);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"one_rank", test_one_rank},     {"2_ranks", test_2_ranks},           {"3_ranks", test_3_ranks},
        {"4_ranks", test_4_ranks},       {"8_ranks", test_8_ranks},           {"replays", test_replays},
        {"refusals", test_refusals},     {"back_to_back", test_back_to_back}, {"abandoned", test_abandoned},
        {"late_ranks", test_late_ranks},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

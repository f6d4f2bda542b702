/* Sampling over vocabulary shards: every rank gets the ids that one rank gets from the whole vocabulary, and
 * those are the reference's. Short and empty shards, launch after launch.
 */
#include "tests/gpu/ranks.h"
#include "tests/gpu/sample_rows.h"

enum { N_ROWS = QD_CUDA_PEER_BLOCKS + 2, N_SLOTS = N_ROWS + 3 };

struct shards {
    int n_ranks;
    int64_t n, shard_rows, ld;
    float *whole; /* [N_ROWS][n] on the host */
    float *part;  /* [N_ROWS][ld] of one rank, +inf behind its ids */
    struct qd_sampling sampling[N_ROWS];
    float *logits[QD_CUDA_MAX_RANKS]; /* [N_ROWS][ld] of each rank, on the device */
    struct qd_cuda_sample_args args[QD_CUDA_MAX_RANKS];
};

/* Rows of every kind, one of four drawn and the others greedy; other seeds, other combinations. */
static void fill(struct shards *s, uint64_t seed)
{
    const float temperatures[] = {1, 0.7f, 3}, top_ps[] = {1, 0.9f, 0.3f, 0.6f};
    const int32_t top_ks[] = {0, 20, 2, 100, 1};
    for (int row = 0; row < N_ROWS; row++) {
        const uint64_t turn = seed + (uint64_t)row;
        const bool drawn = row % 4 == 0 || row >= QD_CUDA_PEER_BLOCKS;
        sample_fill(s->whole + row * s->n, s->n, (enum sample_logits)(turn % SAMPLE_N_KINDS),
                    seed * 1000 + turn);
        s->sampling[row] = (struct qd_sampling){
            .temperature = drawn ? temperatures[turn / 4 % 3] : 0,
            .top_p = top_ps[turn / 12 % 4],
            .top_k = top_ks[turn / 4 % 5],
            .slot = row % 7 == 0 ? -1 : row + 3,
            .seed = seed,
            .output_index = (uint64_t)row,
        };
    }
}

/* Cuts the rows into shards, and writes them to the device. */
static void write_shards(struct shards *s)
{
    for (int rank = 0; rank < s->n_ranks; rank++) {
        const int64_t begin = rank * s->shard_rows;
        for (int64_t i = 0; i < N_ROWS * s->ld; i++) {
            const int64_t row = i / s->ld, column = i % s->ld;
            const bool id = column < s->shard_rows && begin + column < s->n;
            s->part[i] = id ? s->whole[row * s->n + begin + column] : INFINITY;
        }
        gpu_write(s->logits[rank], s->part, (size_t)(N_ROWS * s->ld) * sizeof(float));
        gpu_write((void *)(uintptr_t)s->args[rank].sampling, s->sampling, sizeof s->sampling);
    }
}

static struct shards new_shards(int n_ranks, int64_t n, int64_t shard_rows, uint32_t start)
{
    struct shards s = {.n_ranks = n_ranks, .n = n, .shard_rows = shard_rows, .ld = shard_rows + 4};
    struct qd_cuda_peers peers[QD_CUDA_MAX_RANKS];
    void *scratch[QD_CUDA_MAX_RANKS] = {NULL};
    const size_t scratch_bytes = qd_cuda_sample_scratch_bytes(N_ROWS);
    unsigned char *zeros = gpu_host_alloc(scratch_bytes);
    memset(zeros, 0, scratch_bytes);
    ranks_open(peers, n_ranks, start);
    s.whole = gpu_host_alloc((size_t)(N_ROWS * n) * sizeof(float));
    s.part = gpu_host_alloc((size_t)(N_ROWS * s.ld) * sizeof(float));
    for (int rank = 0; rank < n_ranks; rank++) {
        gpu_set_rank(rank);
        scratch[rank] = gpu_upload(zeros, scratch_bytes);
        s.logits[rank] = gpu_alloc((size_t)(N_ROWS * s.ld) * sizeof(float));
        s.args[rank] = (struct qd_cuda_sample_args){
            .ld = s.ld,
            .shard_rows = shard_rows,
            .vocab_size = n,
            .n_rows = N_ROWS,
            .sampling = gpu_alloc(sizeof s.sampling),
            .peers = peers[rank],
            .sampled = gpu_alloc(N_SLOTS * sizeof(int32_t)),
            .ids = gpu_alloc_output(N_ROWS * sizeof(int32_t)),
        };
    }
    for (int rank = 0; rank < n_ranks; rank++) {
        memcpy(s.args[rank].scratch, scratch, sizeof scratch);
        memcpy(s.args[rank].logits, s.logits, sizeof s.logits);
    }
    return s;
}

/* The ids of a launch on one rank that has the whole vocabulary. */
static void sample_on_one_rank(const struct shards *s, int32_t *ids)
{
    const int64_t ld = (s->n + 3) / 4 * 4;
    float *rows = gpu_host_alloc((size_t)(N_ROWS * ld) * sizeof *rows);
    for (int64_t i = 0; i < N_ROWS * ld; i++)
        rows[i] = i % ld < s->n ? s->whole[i / ld * s->n + i % ld] : INFINITY;
    gpu_set_rank(0);
    struct qd_cuda_sample_args args = s->args[0];
    args.logits[0] = gpu_upload(rows, (size_t)(N_ROWS * ld) * sizeof *rows);
    args.ld = ld;
    args.shard_rows = s->n;
    args.peers.n_ranks = 1;
    args.ids = gpu_alloc_output(N_ROWS * sizeof(int32_t));
    args.sampled = gpu_alloc(N_SLOTS * sizeof(int32_t));
    GPU_LAUNCH(qd_cuda_sample, &args);
    gpu_download(ids, args.ids, N_ROWS * sizeof *ids);
}

/* One launch on every rank and all its results; how many ids are not the reference's own. */
static int sample_and_check(struct shards *s, const char *what)
{
    int32_t want[N_ROWS], ids[N_ROWS], sampled[N_SLOTS];
    int n_near = 0;
    write_shards(s);
    sample_on_one_rank(s, want);
    gpu_expect_same_bits(what, want, sizeof want);
    for (int row = 0; row < N_ROWS; row++)
        n_near += sample_check_row(what, row, s->whole + row * s->n, s->n, &s->sampling[row], want[row]);
    for (int rank = 0; rank < s->n_ranks; rank++) {
        gpu_set_rank(rank);
        GPU_ISSUE(qd_cuda_sample, &s->args[rank]);
    }
    gpu_synchronize();
    for (int rank = 0; rank < s->n_ranks; rank++) {
        gpu_download(ids, s->args[rank].ids, sizeof ids);
        gpu_download(sampled, s->args[rank].sampled, sizeof sampled);
        for (int row = 0; row < N_ROWS; row++) {
            GPU_EXPECT(ids[row] == want[row], "%s: rank %d row %d: %d, one rank gives %d", what, rank, row,
                       ids[row], want[row]);
            GPU_EXPECT(sampled[row + 3] == (row % 7 == 0 ? -1 : ids[row]), "%s: rank %d slot %d: %d", what,
                       rank, row + 3, sampled[row + 3]);
        }
    }
    return n_near;
}

static void expect_ids(int n_ranks, int64_t n, int64_t shard_rows)
{
    char what[64];
    snprintf(what, sizeof what, "%d ranks, %lld ids in shards of %lld", n_ranks, (long long)n,
             (long long)shard_rows);
    struct shards s = new_shards(n_ranks, n, shard_rows, 0);
    fill(&s, (uint64_t)(n + n_ranks));
    const int n_near = sample_and_check(&s, what);
    GPU_EXPECT(n_near <= 1, "%s: %d of %d rows near a boundary", what, n_near, N_ROWS);
}

static void test_2_ranks(void)
{
    expect_ids(2, 1000, 512);
    expect_ids(2, 64, 64); /* the second shard is empty */
    expect_ids(2, 1, 4);
}
static void test_3_ranks(void)
{
    expect_ids(3, 1021, 384);
}
static void test_4_ranks(void)
{
    expect_ids(4, 4099, 64 * 17);
}
/* 515 ids in shards of 64 * ceil(515 / 512): three shards are empty, one has 3 ids. */
static void test_8_ranks(void)
{
    expect_ids(8, 515, 128);
    expect_ids(8, 4096, 512);
}

static void test_replays(void)
{
    const uint32_t start = UINT32_MAX - 2;
    struct shards s = new_shards(4, 515, 192, start);
    struct qd_cuda_peers peers[QD_CUDA_MAX_RANKS];
    for (int launch = 0; launch < 3; launch++) {
        char what[32];
        snprintf(what, sizeof what, "launch %d", launch);
        fill(&s, (uint64_t)(50 + launch));
        sample_and_check(&s, what);
    }
    for (int rank = 0; rank < 4; rank++) peers[rank] = s.args[rank].peers;
    ranks_expect_meetings(peers, 4, QD_CUDA_PEER_BLOCKS, start + 6);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"2_ranks", test_2_ranks}, {"3_ranks", test_3_ranks}, {"4_ranks", test_4_ranks},
        {"8_ranks", test_8_ranks}, {"replays", test_replays},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

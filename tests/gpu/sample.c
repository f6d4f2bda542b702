/* Sampling on one rank against the reference: every kind of row, greedy and drawn, at vocabularies around
 * every tile; slots; frequencies; refusals.
 */
#include "kernels/cuda/kernels.h"
#include "tests/gpu/sample_rows.h"

enum { N_ROWS = 40, N_SLOTS = 100 };

struct rows {
    int64_t n, ld, n_rows;
    float *logits;                /* [n_rows][ld] on the host, +inf behind the ids */
    struct qd_sampling *sampling; /* [n_rows] */
    int32_t *ids;                 /* [n_rows] */
    struct qd_cuda_sample_args args;
};

/* Host rows of the kinds from `first` on; every row another seed. */
static struct rows new_rows(int64_t n, int64_t n_rows, enum sample_logits first, int n_kinds)
{
    struct rows r = {.n = n, .ld = (n + 3) / 4 * 4 + 4, .n_rows = n_rows};
    r.logits = gpu_host_alloc((size_t)(n_rows * r.ld) * sizeof *r.logits);
    r.sampling = gpu_host_alloc((size_t)n_rows * sizeof *r.sampling);
    r.ids = gpu_host_alloc((size_t)n_rows * sizeof *r.ids);
    for (int64_t row = 0; row < n_rows; row++) {
        const int kind =
            (int)first + (int)((row + row / 4 + row / 24) % n_kinds); /* against every sampling */
        sample_fill(r.logits + row * r.ld, n, (enum sample_logits)kind, (uint64_t)(row + 1000 * n));
        for (int64_t i = n; i < r.ld; i++) r.logits[row * r.ld + i] = INFINITY;
        r.sampling[row] = (struct qd_sampling){.top_p = 1, .slot = -1, .seed = 77 + (uint64_t)n};
        r.sampling[row].output_index = (uint64_t)row + (UINT64_C(5) << 32);
    }
    return r;
}

/* The 120 combinations of temperature, top-k and top-p, from `first` on. */
static void set_sampling(struct rows *r, size_t first)
{
    const float temperatures[] = {0.7f, 1e-3f, 1, 100}, top_ps[] = {1, 0.01f, 0.5f, 0.9f, 0.999f};
    const int32_t top_ks[] = {0, 1, 2, 50, (int32_t)r->n, (int32_t)r->n + 5};
    for (int64_t row = 0; row < r->n_rows; row++) {
        const size_t i = first + (size_t)row;
        r->sampling[row].temperature = temperatures[i % 4];
        r->sampling[row].top_k = top_ks[i / 4 % 6];
        r->sampling[row].top_p = top_ps[i / 24 % 5];
    }
}

static void upload(struct rows *r)
{
    const size_t scratch_bytes = qd_cuda_sample_scratch_bytes(r->n_rows);
    void *scratch = gpu_host_alloc(scratch_bytes);
    memset(scratch, 0, scratch_bytes);
    r->args = (struct qd_cuda_sample_args){
        .logits = {gpu_upload(r->logits, (size_t)(r->n_rows * r->ld) * sizeof *r->logits)},
        .ld = r->ld,
        .shard_rows = r->n,
        .vocab_size = r->n,
        .n_rows = r->n_rows,
        .sampling = gpu_upload(r->sampling, (size_t)r->n_rows * sizeof *r->sampling),
        .peers = {.n_ranks = 1},
        .scratch = {gpu_upload(scratch, scratch_bytes)},
        .sampled = gpu_alloc(N_SLOTS * sizeof(int32_t)),
        .ids = gpu_alloc_output((size_t)r->n_rows * sizeof(int32_t)),
    };
}

/* Samples all rows and judges them; how many are not the reference's own. */
static int sample_and_check(struct rows *r, const char *what)
{
    GPU_LAUNCH(qd_cuda_sample, &r->args);
    gpu_download(r->ids, r->args.ids, (size_t)r->n_rows * sizeof *r->ids);
    gpu_expect_same_bits(what, r->ids, (size_t)r->n_rows * sizeof *r->ids);
    int n_near = 0;
    for (int64_t row = 0; row < r->n_rows; row++)
        n_near += sample_check_row(what, row, r->logits + row * r->ld, r->n, &r->sampling[row], r->ids[row]);
    return n_near;
}

static void expect_rarely_near(int n_near, int n_rows)
{
    printf("%d of %d rows near a boundary\n", n_near, n_rows);
    GPU_EXPECT(n_near * 100 <= n_rows, "%d of %d rows near a boundary", n_near, n_rows);
}

static const int64_t VOCABS[] = {1, 2, 31, 32, 33, 515, 1023, 1024, 1025, 4099};
enum { N_VOCABS = sizeof VOCABS / sizeof *VOCABS };

static void test_greedy(void)
{
    for (int v = 0; v < N_VOCABS; v++) {
        struct rows r = new_rows(VOCABS[v], 2 * SAMPLE_N_KINDS, SAMPLE_SPREAD, SAMPLE_N_KINDS);
        upload(&r);
        char what[64];
        snprintf(what, sizeof what, "greedy n %lld", (long long)r.n);
        sample_and_check(&r, what);
    }
}

/* The largest logit twice, in different chunks; the largest at the very end. */
static void test_greedy_whole_vocabulary(void)
{
    struct rows r = new_rows(151936, 2, SAMPLE_COARSE, 1);
    r.logits[100000] = r.logits[150001] = r.logits[r.ld + 151935] = 50;
    upload(&r);
    sample_and_check(&r, "greedy n 151936");
    GPU_EXPECT(r.ids[0] == 100000 && r.ids[1] == 151935, "ids %d, %d", r.ids[0], r.ids[1]);
}

static void test_vocabularies(void)
{
    int n_near = 0;
    for (int v = 0; v < N_VOCABS; v++) {
        struct rows r = new_rows(VOCABS[v], N_ROWS, SAMPLE_SPREAD, 2);
        set_sampling(&r, (size_t)v * N_ROWS);
        upload(&r);
        char what[64];
        snprintf(what, sizeof what, "n %lld", (long long)r.n);
        n_near += sample_and_check(&r, what);
    }
    expect_rarely_near(n_near, N_VOCABS * N_ROWS);
}

static void test_kinds_of_rows(void)
{
    int n_near = 0;
    for (int kind = SAMPLE_EQUAL; kind < SAMPLE_N_KINDS; kind++) {
        struct rows r = new_rows(kind == SAMPLE_CLOSE ? 4099 : 515, N_ROWS, (enum sample_logits)kind, 1);
        set_sampling(&r, (size_t)kind * N_ROWS);
        upload(&r);
        char what[64];
        snprintf(what, sizeof what, "kind %d", kind);
        n_near += sample_and_check(&r, what);
    }
    expect_rarely_near(n_near, (SAMPLE_N_KINDS - SAMPLE_EQUAL) * N_ROWS);
}

static void test_whole_vocabulary(void)
{
    struct rows r = new_rows(151936, 3, SAMPLE_SPREAD, 1);
    set_sampling(&r, 24 * 3 + 4 * 3); /* top-k 50, top-p 0.9 */
    r.sampling[1].top_k = r.sampling[2].top_k = 0;
    r.sampling[1].temperature = r.sampling[2].temperature = 1;
    r.sampling[2].top_p = 1;
    upload(&r);
    sample_and_check(&r, "n 151936");
}

/* Shares of less than a unit of weight: the first id stays, the smaller of two. */
static void test_least_top_p(void)
{
    const float top_ps[] = {0, 1e-44f, 1e-30f, 1e-7f};
    struct rows r = new_rows(515, 8, SAMPLE_SPREAD, 2);
    for (int row = 0; row < 8; row++) {
        r.sampling[row].temperature = 2;
        r.sampling[row].top_p = top_ps[row / 2];
    }
    upload(&r);
    sample_and_check(&r, "least top-p");
}

/* Kept ids go to their slots and nowhere else; a second launch finds its scratch as the first did. */
static void test_slots_and_replay(void)
{
    struct rows r = new_rows(9001, 5, SAMPLE_SPREAD, 1);
    set_sampling(&r, 0);
    for (int row = 0; row < 5; row++) r.sampling[row].slot = row % 2 == 0 ? 17 * row : -1;
    r.sampling[3].temperature = 0;
    upload(&r);
    for (int launch = 0; launch < 3; launch++) {
        for (int row = 0; row < 5; row++) r.sampling[row].output_index++;
        r.args.sampling = gpu_upload(r.sampling, 5 * sizeof *r.sampling);
        char what[64];
        snprintf(what, sizeof what, "launch %d", launch);
        sample_and_check(&r, what);
        int32_t sampled[N_SLOTS];
        gpu_download(sampled, r.args.sampled, sizeof sampled);
        for (int slot = 0; slot < N_SLOTS; slot++) {
            const bool kept = slot % 34 == 0 && slot <= 17 * 4;
            GPU_EXPECT(sampled[slot] == (kept ? r.ids[slot / 17] : -1), "slot %d: %d", slot, sampled[slot]);
        }
    }
}

/* What was drawn for many output indices, against the probabilities: the chi-square statistic of d degrees of
 * freedom has mean d and deviation sqrt(2d). Seeds are fixed, so the verdict is too. */
static void expect_frequencies(int n_draws, float temperature, int32_t top_k, float top_p)
{
    enum { N = 24 };
    struct rows r = new_rows(N, n_draws, SAMPLE_SPREAD, 1);
    for (int row = 0; row < n_draws; row++) {
        memcpy(r.logits + row * r.ld, r.logits, N * sizeof *r.logits);
        r.sampling[row].temperature = temperature;
        r.sampling[row].top_k = top_k;
        r.sampling[row].top_p = top_p;
    }
    upload(&r);
    GPU_LAUNCH(qd_cuda_sample, &r.args);
    gpu_download(r.ids, r.args.ids, (size_t)n_draws * sizeof *r.ids);
    double probs[N], chi_square = 0;
    const double freedom = (double)qd_ref_sample_probabilities(r.logits, N, r.sampling, probs) - 1;
    int count[N] = {0};
    for (int row = 0; row < n_draws; row++) {
        GPU_EXPECT(r.ids[row] >= 0 && r.ids[row] < N, "id %d", r.ids[row]);
        count[r.ids[row]]++;
    }
    for (int i = 0; i < N; i++) {
        const double want = n_draws * probs[i];
        GPU_EXPECT(want > 0 || count[i] == 0, "id %d was cut and yet drawn", i);
        if (want > 0) chi_square += (count[i] - want) * (count[i] - want) / want;
    }
    printf("chi-square %.1f of %.0f degrees of freedom\n", chi_square, freedom);
    GPU_EXPECT(chi_square < freedom + 4 * sqrt(2 * freedom), "chi-square %g of %g", chi_square, freedom);
}

static void test_frequencies(void)
{
    expect_frequencies(300, 4, 0, 1);
    expect_frequencies(120, 2, 12, 0.9f);
}

/* Two ids whose boundary lies a hair to either side of the uniform: the id shows the weight to 2^-19 or so.
 */
static void test_weights(void)
{
    enum { ROWS = 240 };
    struct rows r = new_rows(2, ROWS, SAMPLE_SPREAD, 1);
    const float temperatures[] = {1, 0.7f, 1e-3f, 100};
    for (int row = 0; row < ROWS; row++) {
        struct qd_sampling *s = &r.sampling[row];
        s->temperature = temperatures[row / 2 % 4];
        s->output_index = (uint64_t)(row / 2);
        const double u = (double)qd_uniform_open(qd_philox(s->seed, 0, s->output_index).word[0]);
        const double boundary =
            row % 2 == 0 ? u + 5e-7 : u - 5e-7; /* the weights' errors move it by 2e-7 at most */
        const double distance = (double)s->temperature * log(boundary / (1 - boundary));
        r.logits[row * r.ld] = (float)(distance > 0 ? 0 : distance);
        r.logits[row * r.ld + 1] = (float)(distance > 0 ? -distance : 0);
    }
    upload(&r);
    GPU_LAUNCH(qd_cuda_sample, &r.args);
    gpu_download(r.ids, r.args.ids, ROWS * sizeof *r.ids);
    for (int row = 0; row < ROWS; row++)
        GPU_EXPECT(r.ids[row] == row % 2, "row %d, logits %.9g, %.9g: %d", row, (double)r.logits[row * r.ld],
                   (double)r.logits[row * r.ld + 1], r.ids[row]);
}

static void test_refusals(void)
{
    struct rows r = new_rows(64, 1, SAMPLE_SPREAD, 1);
    upload(&r);
    struct qd_cuda_sample_args args = r.args;
    args.vocab_size = 0;
    GPU_REFUSED(qd_cuda_sample, &args, "0 ids");
    args = r.args;
    args.vocab_size = args.shard_rows = (1 << 20) + 1;
    GPU_REFUSED(qd_cuda_sample, &args, "1048577 ids");
    args = r.args;
    args.shard_rows = 63;
    GPU_REFUSED(qd_cuda_sample, &args, "1 shards of 63 ids for 64 ids");
    args = r.args;
    args.ld = 66;
    GPU_REFUSED(qd_cuda_sample, &args, "66 apart");
    args.ld = 60;
    GPU_REFUSED(qd_cuda_sample, &args, "60 apart");
    args = r.args;
    args.peers.n_ranks = 2;
    args.peers.n_blocks = 1;
    args.shard_rows = 34;
    GPU_REFUSED(qd_cuda_sample, &args, "2 shards of 34 ids");
    args.peers.n_ranks = 9;
    GPU_REFUSED(qd_cuda_sample, &args, "rank 0 of 9");
    args = r.args;
    args.peers.rank = 1;
    GPU_REFUSED(qd_cuda_sample, &args, "rank 1 of 1");
    args = r.args;
    args.n_rows = -1;
    GPU_REFUSED(qd_cuda_sample, &args, "-1 rows");
    args.n_rows = 0;
    args.logits[0] = NULL;
    GPU_LAUNCH(qd_cuda_sample, &args);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"greedy", test_greedy},
        {"greedy_whole_vocabulary", test_greedy_whole_vocabulary},
        {"vocabularies", test_vocabularies},
        {"kinds_of_rows", test_kinds_of_rows},
        {"whole_vocabulary", test_whole_vocabulary},
        {"least_top_p", test_least_top_p},
        {"slots_and_replay", test_slots_and_replay},
        {"frequencies", test_frequencies},
        {"weights", test_weights},
        {"refusals", test_refusals},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

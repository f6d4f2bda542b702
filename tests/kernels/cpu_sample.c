/* sample of the cpu device against the specification, id for id, and the slots it keeps. */
#include <math.h>

#include "kernels/ref/ref.h"
#include "tests/support/compare.h"
#include "tests/support/devices.h"
#include "tests/support/memory.h"
#include "tests/support/steps.h"
#include "tests/support/test.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
enum { MAX_ROWS = 64 };

static struct qd_device open_cpu(const char *isa, int n_threads)
{
    return device_open(qd_device_find("cpu"), (struct setting){isa, n_threads, QD_NUMERICS_FUSED},
                       test_shape(2, 1, 64));
}

static void sample(struct qd_device device, const struct qd_sampling *sampling, int32_t n_rows,
                   const float *logits, int64_t ld, int64_t n_vocab, int32_t *ids)
{
    struct qd_step *step = new_sampling_step(sampling, n_rows);
    struct guarded out = guarded_alloc((size_t)n_rows * sizeof *ids);
    assert_int_equal(
        qd_device_sample(device, &(struct qd_sample_args){step, logits, ld, 0, n_vocab, n_vocab, out.data}),
        QD_OK);
    memcpy(ids, out.data, (size_t)n_rows * sizeof *ids);
    guarded_free("sample", &out);
    free(step);
}

/* Ties, NaN and infinities, where a vector loop may slip: at both ends, in the tail, across lanes. */
static void greedy(void **state)
{
    static const int64_t vocabs[] = {1, 2, 7, 8, 9, 31, 64, 515, 1031};
    need_isa(*state);
    struct qd_device device = open_cpu(*state, 2);
    for (size_t v = 0; v < COUNT(vocabs); v++) {
        const int64_t n = vocabs[v], ld = n + 5;
        float *logits = malloc((size_t)(MAX_ROWS * ld) * sizeof *logits);
        struct qd_sampling sampling[MAX_ROWS];
        int32_t ids[MAX_ROWS];
        random_f32(logits, (size_t)(MAX_ROWS * ld), v, 4);
        for (int32_t r = 0; r < MAX_ROWS; r++) {
            float *row = logits + r * ld;
            sampling[r] = (struct qd_sampling){.top_p = 0.3f, .top_k = 2, .slot = -1};
            for (int64_t i = 0; i < n; i++) {
                if (r % 4 == 1) row[i] = roundf(row[i]); /* many ties */
                if (r % 4 == 2 && random_below((uint64_t)r, (uint64_t)i, 3) > 0) row[i] = NAN;
                if (r % 4 == 3) row[i] = -INFINITY;
            }
            if (r % 8 == 3) row[n - 1] = -1e30f;
            for (int64_t i = n; i < ld; i++) row[i] = 1e30f; /* behind the shard: not logits */
        }
        sample(device, sampling, MAX_ROWS, logits, ld, n, ids);
        for (int32_t r = 0; r < MAX_ROWS; r++) {
            const int32_t want = qd_ref_sample_row(logits + r * ld, n, &sampling[r]);
            if (ids[r] != want) fail_msg("vocabulary %d, row %d: got %d, want %d", (int)n, r, ids[r], want);
        }
        free(logits);
    }
    device_close(&device);
}

/* How near the row's uniform is to where the drawn id changes: there fp32 sums may decide otherwise. */
static bool near_boundary(const double *probs, int64_t n, int32_t got, int32_t want)
{
    double between = 0;
    for (int64_t i = (got < want ? got : want) + 1; i < (got < want ? want : got); i++) between += probs[i];
    return probs[got] > 0 && between < 1e-5 && n > 0;
}

static void draws(void **state)
{
    static const struct qd_sampling kinds[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20},
        {.temperature = 0.7f, .top_p = 0.8f},
        {.temperature = 1.5f, .top_p = 1, .top_k = 3},
        {.temperature = 2, .top_p = 0.05f},
        {.temperature = 0.01f, .top_p = 1},
        {.temperature = 1, .top_p = 1, .top_k = 1},
        {.temperature = 1, .top_p = 0.5f, .top_k = 100000},
        {.temperature = 100, .top_p = 0.999f},
    };
    static const int64_t vocabs[] = {1, 7, 16, 515, 1031};
    need_isa(*state);
    struct qd_device device = open_cpu(*state, 1);
    double probs[1031];
    int n_draws = 0, n_other = 0;
    for (size_t c = 0; c < COUNT(vocabs) * COUNT(kinds); c++) {
        const int64_t n = vocabs[c / COUNT(kinds)];
        float *logits = malloc((size_t)(MAX_ROWS * n) * sizeof *logits);
        struct qd_sampling sampling[MAX_ROWS];
        int32_t ids[MAX_ROWS];
        random_f32(logits, (size_t)(MAX_ROWS * n), c, 6);
        for (int32_t r = 0; r < MAX_ROWS; r++) {
            sampling[r] = kinds[c % COUNT(kinds)];
            sampling[r].slot = -1;
            sampling[r].seed = (uint64_t)r * UINT64_C(0x9e3779b97f4a7c15);
            sampling[r].output_index = c;
            for (int64_t i = 0; i < n && r % 3 == 0; i++) logits[r * n + i] = roundf(logits[r * n + i]);
            if (r % 5 == 0 && n > 1) logits[r * n + (int64_t)random_below(1, (uint64_t)r, (uint32_t)n)] = NAN;
        }
        sample(device, sampling, MAX_ROWS, logits, n, n, ids);
        for (int32_t r = 0; r < MAX_ROWS; r++, n_draws++) {
            const float *row = logits + r * n;
            const int32_t want = qd_ref_sample_row(row, n, &sampling[r]);
            if (ids[r] == want) continue;
            n_other++;
            qd_ref_sample_probabilities(row, n, &sampling[r], probs);
            assert_in_range(ids[r], 0, n - 1);
            if (!near_boundary(probs, n, ids[r], want))
                fail_msg("vocabulary %d, kind %d, row %d: got %d (probability %g), want %d (%g)", (int)n,
                         (int)(c % COUNT(kinds)), r, ids[r], probs[ids[r]], want, probs[want]);
        }
        free(logits);
    }
    printf("%d of %d draws fell on the other side of a boundary\n", n_other, n_draws);
    assert_true(n_other <= n_draws / 500);
    device_close(&device);
}

/* Draws follow the probabilities: chi-square with 11 degrees of freedom is below 31.3 in 99.9 % of all seeds;
 * the seed is fixed. Observed: 14.6. */
static void draws_follow_the_probabilities(void **state)
{
    enum { N = 12, STEPS = 200 };
    need_isa(*state);
    struct qd_device device = open_cpu(*state, 1);
    float logits[MAX_ROWS * N];
    struct qd_sampling sampling[MAX_ROWS];
    int32_t ids[MAX_ROWS], counts[N] = {0};
    double probs[N], chi = 0;
    random_f32(logits, N, 3, 2);
    for (int r = 1; r < MAX_ROWS; r++) memcpy(logits + r * N, logits, N * sizeof *logits);
    for (uint64_t s = 0; s < STEPS; s++) {
        for (uint64_t r = 0; r < MAX_ROWS; r++)
            sampling[r] =
                (struct qd_sampling){.temperature = 1, .top_p = 1, .slot = -1, .seed = r, .output_index = s};
        sample(device, sampling, MAX_ROWS, logits, N, N, ids);
        for (int r = 0; r < MAX_ROWS; r++) counts[ids[r]]++;
    }
    qd_ref_sample_probabilities(logits, N, &sampling[0], probs);
    for (int i = 0; i < N; i++)
        chi += pow(counts[i] - MAX_ROWS * STEPS * probs[i], 2) / (MAX_ROWS * STEPS * probs[i]);
    printf("chi-square %.1f\n", chi);
    assert_true(chi < 31.3);
    device_close(&device);
}

/* A draw is the same alone and among others, and on any number of threads. */
static void rows_and_threads_do_not_matter(void **state)
{
    enum { N = 515, ROWS = 17 };
    need_isa(*state);
    float *logits = malloc(ROWS * N * sizeof *logits);
    struct qd_sampling sampling[ROWS];
    int32_t whole[ROWS], got[ROWS];
    random_f32(logits, ROWS * N, 8, 5);
    for (uint64_t r = 0; r < ROWS; r++)
        sampling[r] = (struct qd_sampling){
            .temperature = 0.9f, .top_p = r % 2 ? 0.9f : 1, .slot = -1, .seed = r, .output_index = 7};
    for (int n_threads = 1; n_threads <= 4; n_threads++) {
        struct qd_device device = open_cpu(*state, n_threads);
        sample(device, sampling, ROWS, logits, N, N, n_threads == 1 ? whole : got);
        if (n_threads > 1) assert_memory_equal(got, whole, sizeof whole);
        for (int r = 0; r < ROWS; r++) {
            sample(device, &sampling[r], 1, logits + r * N, N, N, got);
            assert_int_equal(got[0], whole[r]);
        }
        device_close(&device);
    }
    free(logits);
}

/* What a slot sampled is the next step's token. */
static void slots_feed_the_next_step(void **state)
{
    enum { N = 40, DIM = 16 };
    need_isa(*state);
    struct qd_device device = open_cpu(*state, 2);
    const struct qd_sampling sampling[] = {
        {.top_p = 1, .slot = 5}, {.top_p = 1, .slot = -1}, {.top_p = 1, .slot = 127}};
    float logits[3 * N] = {0};
    int32_t ids[3];
    logits[7] = logits[N + 8] = logits[2 * N + 39] = 1;
    sample(device, sampling, 3, logits, N, N, ids);
    assert_int_equal(ids[0], 7);
    assert_int_equal(ids[1], 8);
    assert_int_equal(ids[2], 39);

    qd_bf16 *table = new_random_bf16(N * DIM, 1, 1), got[3 * DIM], want[3 * DIM];
    const int32_t source[] = {-6, -128, 3}, plain[] = {7, 39, 3};
    struct qd_embed_args args = {device_weight(device, table, N, DIM), source, 3, got};
    assert_int_equal(qd_device_embed(device, &args), QD_OK);
    qd_ref_embed(&(struct qd_embed_args){{table, N, DIM, QD_LAYOUT_ROWS}, plain, 3, want}, NULL);
    compare_same_bf16("embed of slots", got, want, 3 * DIM);
    free(table);
    device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_ISA(greedy),
        EVERY_ISA(draws),
        EVERY_ISA(draws_follow_the_probabilities),
        EVERY_ISA(rows_and_threads_do_not_matter),
        EVERY_ISA(slots_feed_the_next_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

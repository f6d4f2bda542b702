/* Sampling of the specification: Hugging Face's distributions, ties, broken logits, and that draws follow the
 * probabilities. */
#include <math.h>

#include "kernels/ref/ref.h"
#include "tests/support/memory.h"
#include "tests/support/test.h"
#include "tests/support/trace.h"

enum { MAX_VECTORS = 16, MAX_LINE = 1 << 17 };

struct vectors {
    float *values[MAX_VECTORS];
    int n[MAX_VECTORS];
};

static cJSON *read_line(FILE *file, char *line)
{
    if (fgets(line, MAX_LINE, file) == NULL) return NULL;
    cJSON *json = cJSON_Parse(line);
    if (json == NULL) fail_msg("not JSON: %.60s", line);
    return json;
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("no number %s", key);
    return item->valuedouble;
}

static void read_vectors(struct vectors *v, char *line)
{
    FILE *file = fopen("tests/data/sampling/logits.jsonl", "r");
    assert_non_null(file);
    cJSON *json;
    while ((json = read_line(file, line)) != NULL) {
        const int at = (int)number(json, "logits");
        const cJSON *values = cJSON_GetObjectItemCaseSensitive(json, "values"), *value;
        assert_in_range(at, 0, MAX_VECTORS - 1);
        v->values[at] = malloc((size_t)cJSON_GetArraySize(values) * sizeof(float));
        cJSON_ArrayForEach(value, values) v->values[at][v->n[at]++] =
            cJSON_IsNull(value) ? -INFINITY : (float)value->valuedouble;
        cJSON_Delete(json);
    }
    fclose(file);
}

/* 2e-5 relative, 1e-30 absolute: the tolerance of the cases' README. Observed: 1.4e-6
 * relative, from temperatures held in fp32. */
static void check_probability(int line, int id, double got, double want, double *worst)
{
    if (!(fabs(got - want) <= fmax(2e-5 * want, 1e-30)))
        fail_msg("case %d: id %d: got %.9g, want %.9g", line, id, got, want);
    if (want > 1e-30) *worst = fmax(*worst, fabs(got - want) / want);
}

static void check_case(int line, const cJSON *json, const float *logits, int n, double *probs, double *worst)
{
    const struct qd_sampling sampling = {.temperature = (float)number(json, "temperature"),
                                         .top_p = (float)number(json, "top_p"),
                                         .top_k = (int32_t)number(json, "top_k")};
    const cJSON *kept = cJSON_GetObjectItemCaseSensitive(json, "kept");
    const cJSON *want = cJSON_GetObjectItemCaseSensitive(json, "probs");
    const cJSON *tied = cJSON_GetObjectItemCaseSensitive(json, "tied"), *id;
    const int64_t count = qd_ref_sample_probabilities(logits, n, &sampling, probs);
    int nonzero = 0;
    for (int i = 0; i < n; i++) nonzero += probs[i] > 0;
    if (count != (int64_t)number(json, "count") || nonzero != count)
        fail_msg("case %d: kept %lld (%d above 0), want %g", line, (long long)count, nonzero,
                 number(json, "count"));

    const cJSON *value = want->child;
    cJSON_ArrayForEach(id, kept)
    {
        check_probability(line, id->valueint, probs[id->valueint], value->valuedouble, worst);
        value = value->next;
    }
    if (tied == NULL) return;
    int left = (int)number(json, "tied_kept");
    cJSON_ArrayForEach(id, tied)
    { /* the smaller ids of a tie stay */
        if (left-- > 0)
            check_probability(line, id->valueint, probs[id->valueint], value->valuedouble, worst);
        else
            assert_true(probs[id->valueint] == 0);
    }
}

static void distributions_of_hugging_face(void **state)
{
    (void)state;
    struct vectors v = {0};
    char *line = malloc(MAX_LINE);
    double *probs = malloc(4096 * sizeof *probs), worst = 0;
    read_vectors(&v, line);
    FILE *file = fopen("tests/data/sampling/cases.jsonl", "r");
    assert_non_null(file);
    cJSON *json;
    int n_cases = 0;
    while ((json = read_line(file, line)) != NULL) {
        const int at = (int)number(json, "logits");
        assert_in_range(v.n[at], 1, 4096);
        check_case(++n_cases, json, v.values[at], v.n[at], probs, &worst);
        cJSON_Delete(json);
    }
    fclose(file);
    assert_int_equal(n_cases, 678);
    printf("largest relative deviation %.2g\n", worst);
    for (int i = 0; i < MAX_VECTORS; i++) free(v.values[i]);
    free(probs);
    free(line);
}

static void greedy_takes_the_largest_and_the_smallest_id(void **state)
{
    (void)state;
    const struct qd_sampling greedy = {.top_p = 1};
    assert_int_equal(qd_ref_sample_row((const float[]){1, 3, 2, 3}, 4, &greedy), 1);
    assert_int_equal(qd_ref_sample_row((const float[]){NAN, -5, NAN, -5}, 4, &greedy), 1);
    assert_int_equal(qd_ref_sample_row((const float[]){NAN, -INFINITY, NAN}, 3, &greedy), 0);
    assert_int_equal(qd_ref_sample_row((const float[]){5, INFINITY, NAN}, 3, &greedy), 1);
    assert_int_equal(qd_ref_sample_row((const float[]){-0.0f, 0.0f}, 2, &greedy), 0);
    assert_int_equal(qd_ref_sample_row((const float[]){-7}, 1, &greedy), 0);
}

static void nan_and_infinities_when_drawing(void **state)
{
    (void)state;
    const float logits[] = {NAN, 2, -INFINITY, 2, INFINITY};
    double probs[5];
    const struct qd_sampling warm = {.temperature = 0.7f, .top_p = 1};
    assert_int_equal(qd_ref_sample_probabilities(logits, 4, &warm, probs), 2);
    assert_true(probs[0] == 0 && probs[2] == 0);
    assert_true(probs[1] == 0.5);
    assert_int_equal(qd_ref_sample_probabilities(logits, 5, &warm, probs), 1);
    assert_true(probs[4] == 1);
    for (uint64_t i = 0; i < 50; i++) {
        struct qd_sampling s = warm;
        s.output_index = i;
        assert_int_not_equal(qd_ref_sample_row(logits, 4, &s) % 2, 0);
    }
}

/* Draws over many output indices follow the probabilities: chi-square with 19 degrees of freedom is below
 * 43.8 in 99.9 % of all seeds; the seeds here are fixed. Observed: 16.0 and 15.6. */
static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    enum { N = 20, DRAWS = 20000 };
    float logits[N];
    random_f32(logits, N, 11, 2);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct qd_sampling s = {.temperature = 0.8f, .top_p = 1, .seed = seed};
        double probs[N], chi = 0;
        int counts[N] = {0};
        assert_int_equal(qd_ref_sample_probabilities(logits, N, &s, probs), N);
        for (s.output_index = 0; s.output_index < DRAWS; s.output_index++)
            counts[qd_ref_sample_row(logits, N, &s)]++;
        for (int i = 0; i < N; i++) chi += pow(counts[i] - DRAWS * probs[i], 2) / (DRAWS * probs[i]);
        printf("chi-square %.1f\n", chi);
        assert_true(chi < 43.8);
    }
}

static void draws_stay_inside_the_kept_set(void **state)
{
    (void)state;
    enum { N = 50 };
    float logits[N];
    random_f32(logits, N, 12, 4);
    struct qd_sampling s = {.temperature = 1.3f, .top_p = 0.8f, .top_k = 7, .seed = 99};
    double probs[N];
    int seen = 0;
    bool hit[N] = {false};
    const int64_t count = qd_ref_sample_probabilities(logits, N, &s, probs);
    assert_in_range(count, 2, 7);
    for (s.output_index = 0; s.output_index < 2000; s.output_index++) {
        const int32_t id = qd_ref_sample_row(logits, N, &s);
        assert_true(probs[id] > 0);
        seen += !hit[id];
        hit[id] = true;
    }
    assert_int_equal(seen, count);
}

/* The same (seed, output index) draws the same id, whatever else is asked; another one draws anew. */
static void draws_are_keyed_by_seed_and_index(void **state)
{
    (void)state;
    enum { N = 1000 };
    float logits[N] = {0};
    const struct qd_sampling a = {.temperature = 1, .top_p = 1, .seed = UINT64_C(1) << 40, .output_index = 3};
    struct qd_sampling b = a, c = a, d = a;
    b.slot = 5;
    c.seed++;
    d.output_index = UINT64_C(1) << 33 | 3;
    assert_int_equal(qd_ref_sample_row(logits, N, &a), qd_ref_sample_row(logits, N, &b));
    assert_int_not_equal(qd_ref_sample_row(logits, N, &a), qd_ref_sample_row(logits, N, &c));
    assert_int_not_equal(qd_ref_sample_row(logits, N, &a), qd_ref_sample_row(logits, N, &d));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distributions_of_hugging_face),
        cmocka_unit_test(greedy_takes_the_largest_and_the_smallest_id),
        cmocka_unit_test(nan_and_infinities_when_drawing),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(draws_stay_inside_the_kept_set),
        cmocka_unit_test(draws_are_keyed_by_seed_and_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

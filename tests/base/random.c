#include "tests/support/test.h"

#include "kernels/base/random.h"

/* Philox4x32-10 known answers of Random123's kat_vectors. */
static void philox_gives_the_published_answers(void **state)
{
    (void)state;
    static const struct {
        uint64_t key, hi, lo;
        uint32_t word[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
        {~0ull, ~0ull, ~0ull, {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
        {0x299f31d0a4093822ull,
         0x0370734413198a2eull,
         0x85a308d3243f6a88ull,
         {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qd_philox_block block = qd_philox(cases[i].key, cases[i].hi, cases[i].lo);
        for (int k = 0; k < 4; k++) assert_int_equal(block.word[k], cases[i].word[k]);
    }
}

static void uniforms_stay_inside_the_open_interval(void **state)
{
    (void)state;
    assert_true(qd_uniform_open(0) == 0x1p-24f);
    assert_true(qd_uniform_open(0xffffffffu) == 1.0f - 0x1p-24f);
    assert_true(qd_uniform_open(0x80000000u) == 0.5f + 0x1p-24f);
}

static void uniforms_are_even(void **state)
{
    (void)state;
    enum { N = 40000, BINS = 10 };
    int bins[BINS] = {0};
    double sum = 0.0;
    for (uint64_t i = 0; i < N / 4; i++) {
        struct qd_philox_block block = qd_philox(7, 0, i);
        for (int k = 0; k < 4; k++) {
            float u = qd_uniform_open(block.word[k]);
            sum += (double)u;
            bins[(int)(u * BINS)]++;
        }
    }
    assert_true(sum / N > 0.495 && sum / N < 0.505); /* observed 0.4998; sd of the mean 0.0014 */
    for (int b = 0; b < BINS; b++) assert_in_range(bins[b], N / BINS - 300, N / BINS + 300); /* sd 60 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(uniforms_stay_inside_the_open_interval),
        cmocka_unit_test(uniforms_are_even),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}

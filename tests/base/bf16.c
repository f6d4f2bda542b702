#include "tests/support/test.h"

#include <math.h>

#include "kernels/base/bf16.h"

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void every_bf16_survives_the_way_there_and_back(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits <= 0xffff; bits++) {
        float wide = qd_bf16_to_f32((qd_bf16)bits);
        if (isnan(wide))
            assert_int_equal(qd_bf16_from_f32(wide), bits | 0x40u);
        else
            assert_int_equal(qd_bf16_from_f32(wide), bits);
    }
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        uint32_t bits;
        qd_bf16 expected;
    } cases[] = {
        {0x3f800000, 0x3f80},                       /* 1 */
        {0x3f808000, 0x3f80},                       /* half way, even below */
        {0x3f808001, 0x3f81},                       /* just above half way */
        {0x3f818000, 0x3f82},                       /* half way, even above */
        {0x3f817fff, 0x3f81},                       /* just below half way */
        {0xbf818000, 0xbf82},                       /* the same below zero */
        {0x7f7fffff, 0x7f80},                       /* the largest float becomes infinity */
        {0x7f7f7fff, 0x7f7f},                       /* the largest that does not */
        {0xff800000, 0xff80},                       /* -infinity */
        {0x7f800001, 0x7fc0},                       /* a signalling NaN whose payload would be lost */
        {0x00008000, 0x0000},                       /* subnormals round alike */
        {0x00018000, 0x0002}, {0x80000000, 0x8000}, /* -0 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(qd_bf16_from_f32(from_bits(cases[i].bits)), cases[i].expected);
    assert_true(qd_bf16_round(1.00390625f + 0x1p-9f) == 1.0078125f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bf16_survives_the_way_there_and_back),
        cmocka_unit_test(rounding_is_to_nearest_even),
    };
    return cmocka_run_group_tests_name("bf16", tests, NULL, NULL);
}

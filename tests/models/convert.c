/* F16 and F32 to bf16: every half, rounding, overflow, NaN. */
#include "tests/support/test.h"

#include <math.h>

#include "kernels/base/random.h"
#include "models/convert.h"

/* What a half stands for, from the definition. */
static double half_value(uint16_t half)
{
    int sign = half >> 15, exponent = half >> 10 & 31, fraction = half & 1023;
    double magnitude = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return sign != 0 ? -magnitude : magnitude;
}

static void test_every_half(void **state)
{
    (void)state;
    static uint16_t in[65536];
    static qd_bf16 out[65536];
    for (int i = 0; i < 65536; i++)
        in[i] = (uint16_t)i;
    qd_convert_f16(in, 65536, out);
    for (int i = 0; i < 65536; i++) {
        bool finite = (i >> 10 & 31) != 31;
        float got = qd_bf16_to_f32(out[i]);
        if (finite && out[i] != qd_bf16_from_f32((float)half_value(in[i])))
            fail_msg("half %04x: %a", (unsigned)i, (double)got);
        if (!finite && (i & 1023) == 0 && got != (i >> 15 != 0 ? -INFINITY : INFINITY))
            fail_msg("half %04x: %a", (unsigned)i, (double)got);
        if (!finite && (i & 1023) != 0 && !isnan(got)) fail_msg("half %04x: %a", (unsigned)i, (double)got);
    }
}

static uint64_t convert(const uint32_t *bits, size_t n, qd_bf16 *out)
{
    /* From an odd address: file offsets align nothing. */
    unsigned char *odd = malloc(4 * n + 1);
    assert_non_null(odd);
    memcpy(odd + 1, bits, 4 * n);
    uint64_t n_overflowed = qd_convert_f32(odd + 1, n, out);
    free(odd);
    return n_overflowed;
}

static void test_f32_rounding(void **state)
{
    (void)state;
    static const struct {
        uint32_t in;
        uint16_t out;
        int overflows;
    } cases[] = {
        {0x00000000, 0x0000, 0}, {0x80000000, 0x8000, 0}, {0x3f800000, 0x3f80, 0},
        {0x3f808000, 0x3f80, 0}, /* half way: to even */
        {0x3f818000, 0x3f82, 0}, {0x3f808001, 0x3f81, 0}, {0x00000001, 0x0000, 0},
        {0x00008001, 0x0001, 0}, {0x7f7f0000, 0x7f7f, 0}, {0x7f7f7fff, 0x7f7f, 0},
        {0x7f7f8000, 0x7f80, 1}, /* finite, becomes infinite */
        {0x7f7fffff, 0x7f80, 1}, {0xff7fffff, 0xff80, 1}, {0x7f800000, 0x7f80, 0},
        {0xff800000, 0xff80, 0}, {0x7f800001, 0x7fc0, 0}, {0xffc00000, 0xffc0, 0},
        {0x7fffffff, 0x7fff, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qd_bf16 out;
        uint64_t n_overflowed = convert(&cases[i].in, 1, &out);
        if (out != cases[i].out || n_overflowed != (uint64_t)cases[i].overflows)
            fail_msg("%08x: %04x, %d overflows", cases[i].in, out, (int)n_overflowed);
    }
}

static void test_f32_any_length(void **state)
{
    (void)state;
    uint32_t in[300];
    qd_bf16 out[301];
    for (uint32_t i = 0; i < 300; i++)
        in[i] = qd_philox(5, 0, i).word[0];
    for (size_t n = 0; n <= 300; n += n < 70 ? 1 : 23) {
        uint64_t expected = 0;
        out[n] = 0x1234;
        uint64_t n_overflowed = convert(in, n, out);
        for (size_t i = 0; i < n; i++) {
            float value;
            memcpy(&value, &in[i], sizeof value);
            assert_int_equal(out[i], qd_bf16_from_f32(value));
            if (isfinite(value) && isinf(qd_bf16_to_f32(out[i]))) expected++;
        }
        assert_int_equal(n_overflowed, expected);
        assert_int_equal(out[n], 0x1234);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half),
        cmocka_unit_test(test_f32_rounding),
        cmocka_unit_test(test_f32_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The device's random numbers against the host's (tests/base/random.c judges those). */
#include "kernels/base/random.h"
#include "tests/gpu/philox_kernel.h"
#include "tests/gpu/runner.h"

enum { N = 1000 };

static void expect_host_blocks(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, int32_t n)
{
    uint32_t got[N][4];
    const size_t bytes = (size_t)n * sizeof *got;
    const struct philox_test_args args = {key, counter_hi, counter_lo, n, gpu_alloc(bytes)};
    GPU_LAUNCH(philox_test_launch, &args);
    gpu_download(got, args.out, bytes);
    for (int32_t i = 0; i < n; i++) {
        const struct qd_philox_block want = qd_philox(key, counter_hi, counter_lo + (uint64_t)i);
        for (int j = 0; j < 4; j++)
            GPU_EXPECT(got[i][j] == want.word[j], "block %d word %d: %08x, not %08x", i, j, got[i][j],
                       want.word[j]);
    }
}

static void test_counters(void)
{
    expect_host_blocks(0x0123456789abcdef, 0, 0xfffffe00, N); /* the counter's low word overflows inside */
}

/* Corners of 32 and 64 bits. */
static void test_corners(void)
{
    const uint64_t corners[] = {0, 1, 0xffffffff, 0x100000000, 0x123456789abcdef0, UINT64_MAX};
    enum { N_CORNERS = sizeof corners / sizeof *corners };
    for (int key = 0; key < N_CORNERS; key++)
        for (int hi = 0; hi < N_CORNERS; hi++)
            expect_host_blocks(corners[key], corners[hi], corners[(key + hi) % N_CORNERS], 3);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"counters", test_counters},
        {"corners", test_corners},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

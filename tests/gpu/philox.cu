/* The device's random numbers against the host's (tests/base/random.c judges those). */
#include "kernels/base/random.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/philox.cuh"
#include "tests/gpu/runner.h"

namespace {
constexpr int N = 1000;
/* Corners of 32 and 64 bits, and what lies between. */
const uint64_t CORNERS[] = {0, 1, 0xffffffffu, 0x100000000u, 0x123456789abcdef0u, ~0ull};
constexpr int N_CORNERS = sizeof CORNERS / sizeof *CORNERS;
} // namespace

namespace philox_test {

/* out[i] = the block of (key, counter_hi, counter_lo + i). */
__global__ void philox_kernel(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, int n, uint32_t *out)
{
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    const struct philox_block block = philox(key, counter_hi, counter_lo + static_cast<uint64_t>(i));
    for (int j = 0; j < 4; j++) out[4 * i + j] = block.word[j];
}

} // namespace philox_test

static void expect_host_blocks(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, int n)
{
    uint32_t *out = static_cast<uint32_t *>(gpu_alloc(sizeof(uint32_t) * 4 * n)), got[4 * N];
    char err[QD_ERR_LEN] = "";
    const struct launch_shape shape = {dim3((n + 63) / 64), dim3(64), 0, gpu_stream()};
    const qd_status status = launch("philox", philox_test::philox_kernel, shape, err, sizeof err, key,
                                    counter_hi, counter_lo, n, out);
    GPU_EXPECT(status == QD_OK, "%s", err);
    gpu_download(got, out, sizeof(uint32_t) * 4 * n);
    for (int i = 0; i < n; i++) {
        const struct qd_philox_block want = qd_philox(key, counter_hi, counter_lo + static_cast<uint64_t>(i));
        for (int j = 0; j < 4; j++)
            GPU_EXPECT(got[4 * i + j] == want.word[j], "block %d word %d: %08x, not %08x", i, j,
                       got[4 * i + j], want.word[j]);
    }
}

static void test_counters(void)
{
    expect_host_blocks(0x0123456789abcdefu, 0, 0xfffffe00u, N); /* the counter's low word overflows inside */
}

static void test_corners(void)
{
    for (int key = 0; key < N_CORNERS; key++)
        for (int hi = 0; hi < N_CORNERS; hi++)
            expect_host_blocks(CORNERS[key], CORNERS[hi], CORNERS[(key + hi) % N_CORNERS], 3);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {{"counters", test_counters}, {"corners", test_corners}};
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

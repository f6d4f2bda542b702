/* The PTX front end takes over launches of the program's kernels, and sees what the source front end cannot.
 */
#include "tests/emu/ptx_rig.h"

#include "tests/emu/ptx_module.h"
#include "tests/emu/ptx_planted.h"

#include <cuda_runtime.h>

#include "kernels/base/bf16.h"
#include "kernels/emu/mode.h"

static int end(void **state)
{
    (void)state;
    qd_emu_ptx_unload_all();
    qd_emu_shutdown();
    return 0;
}

/* ---- whose launch it is ---- */

/* A kernel; its PTX writes 2. */
__attribute__((noinline)) void ptx_kernels_exported(uint64_t *out);
void ptx_kernels_exported(uint64_t *out)
{
    *out = 1;
}

static void call_exported(void *const *args, const void *kernel)
{
    (void)kernel;
    ptx_kernels_exported(*(uint64_t *const *)args[0]);
}

#define EXPORTED_PTX(name, type)                                                                               \
    PTX_HEADER ".visible .entry " name "(.param ." type " to)\n.maxntid 64, 1, 1\n{\n.reg .b64 %rd<3>;\n"    \
               "ld.param." type " %rd1, [to]; mov.u64 %rd2, 2; st.global.u64 [%rd1], %rd2; ret;\n}\n"

/* What the kernel wrote; 0 when the launch failed, with the text in err. */
static uint64_t launch_exported(unsigned threads)
{
    const void *kernel = (const void *)(uintptr_t)ptx_kernels_exported;
    uint64_t *device, result = 0;
    qd_emu_register_kernel(kernel, "exported", call_exported, (unsigned[]){sizeof device}, 1);
    assert_int_equal(cudaMalloc((void **)&device, sizeof result), cudaSuccess);
    cudaError_t error =
        cudaLaunchKernel(kernel, (dim3){1, 1, 1}, (dim3){threads, 1, 1}, (void *[]){&device}, 0, NULL);
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error == cudaSuccess) error = cudaMemcpy(&result, device, sizeof result, cudaMemcpyDeviceToHost);
    if (error != cudaSuccess) snprintf(err, sizeof err, "%s", cudaGetErrorString(error));
    return result;
}

static void assert_counts(uint64_t interpreted, uint64_t called)
{
    const struct qd_emu_ptx_counts counts = qd_emu_ptx_read_counts();
    assert_int_equal(counts.interpreted, interpreted);
    assert_int_equal(counts.called, called);
}

static void a_launch_is_interpreted_while_a_module_has_its_kernel(void **state)
{
    (void)state;
    assert_int_equal(launch_exported(1), 1);
    assert_counts(0, 0);
    ptx_assert_loads(EXPORTED_PTX("another", "u64"));
    assert_int_equal(launch_exported(1), 1);
    assert_counts(0, 1);
    ptx_assert_loads(EXPORTED_PTX("ptx_kernels_exported", "u64"));
    assert_int_equal(launch_exported(1), 2);
    assert_counts(1, 1);
    qd_emu_ptx_unload_all();
    assert_int_equal(launch_exported(1), 1);
    assert_counts(0, 0);
}

static void a_launch_that_does_not_fit_fails(void **state)
{
    (void)state;
    ptx_assert_loads(EXPORTED_PTX("ptx_kernels_exported", "u32"));
    assert_int_equal(launch_exported(1), 0);
    ASSERT_CONTAINS(err, "kernel exported: argument 0 of 8 bytes for a parameter of 4");
    end(state);
    ptx_assert_loads(EXPORTED_PTX("ptx_kernels_exported", "u64"));
    assert_int_equal(launch_exported(65), 0);
    ASSERT_CONTAINS(err, "a block of 65 threads, compiled for at most 64");
}

/* ---- what only PTX shows ---- */

static void *device_copy(const void *host, size_t bytes)
{
    void *p;
    assert_int_equal(cudaMalloc(&p, bytes), cudaSuccess);
    assert_int_equal(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
}

/* Small integers: every order of the sum is exact. */
static bool product_is_right(bool is_swapped)
{
    uint16_t a[PLANTED_M][PLANTED_K], b[PLANTED_K][PLANTED_N];
    float d[PLANTED_M][PLANTED_N] = {{0}};
    for (int m = 0; m < PLANTED_M; m++)
        for (int k = 0; k < PLANTED_K; k++) a[m][k] = qd_bf16_from_f32((float)((5 * m + 3 * k) % 11 - 5));
    for (int k = 0; k < PLANTED_K; k++)
        for (int n = 0; n < PLANTED_N; n++) b[k][n] = qd_bf16_from_f32((float)((7 * k + n) % 13 - 6));
    const struct ptx_planted_product args = {device_copy(a, sizeof a), device_copy(b, sizeof b),
                                             device_copy(d, sizeof d)};
    if (ptx_planted_product(&args, is_swapped, NULL, err, sizeof err) != QD_OK) fail_msg("%s", err);
    assert_int_equal(cudaMemcpy(d, args.d, sizeof d, cudaMemcpyDeviceToHost), cudaSuccess);
    bool right = true;
    for (int m = 0; m < PLANTED_M; m++) {
        for (int n = 0; n < PLANTED_N; n++) {
            int want = 0;
            for (int k = 0; k < PLANTED_K; k++) want += ((5 * m + 3 * k) % 11 - 5) * ((7 * k + n) % 13 - 6);
            right &= d[m][n] == (float)want;
        }
    }
    return right;
}

static void swapped_operands_in_an_asm_string_are_seen_in_ptx_only(void **state)
{
    (void)state;
    char path[4096];
    ptx_find_module("ptx_planted", path, sizeof path);
    if (access(path, R_OK) != 0) SKIP("no nvcc made %s", path);
    assert_true(product_is_right(false));
    assert_true(product_is_right(true));
    if (qd_emu_ptx_load(path, err, sizeof err) != 0) fail_msg("%s", err);
    assert_true(product_is_right(false));
    assert_false(product_is_right(true));
    assert_counts(2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_launch_is_interpreted_while_a_module_has_its_kernel, end),
        cmocka_unit_test_teardown(a_launch_that_does_not_fit_fails, end),
        cmocka_unit_test_teardown(swapped_operands_in_an_asm_string_are_seen_in_ptx_only, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

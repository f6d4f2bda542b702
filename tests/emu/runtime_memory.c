#include "tests/emu/runtime_kernels.h"

#include "kernels/emu/sanitize.h"

static void memory_is_filled_with_nan_and_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 15, 16, 17, 4095, 4096, 4097, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *p;
        OK(cudaMalloc(&p, sizes[i]));
        assert_int_equal((uintptr_t)p % 16, 0);
        unsigned char *copy = malloc(sizes[i]);
        assert_non_null(copy);
        OK(cudaMemcpy(copy, p, sizes[i], cudaMemcpyDeviceToHost));
        for (size_t b = 0; b < sizes[i]; b++) assert_int_equal(copy[b], 0xff);
        free(copy);
        OK(cudaFree(p));
    }
    void *none = &none;
    OK(cudaMalloc(&none, 0));
    assert_null(none);
    OK(cudaFree(NULL));
    OK(cudaFreeHost(NULL));
}

static void copies_go_all_ways(void **state)
{
    (void)state;
    int from[3] = {1, 2, 3}, to[3] = {0};
    int *a = alloc_ints(3), *b = alloc_ints(3);
    OK(cudaMemcpy(a, from, sizeof from, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(b, a, sizeof from, cudaMemcpyDeviceToDevice));
    OK(cudaMemcpy(to, b, sizeof to, cudaMemcpyDefault));
    assert_memory_equal(from, to, sizeof from);
    OK(cudaMemset(a + 1, 0, sizeof(int)));
    OK(cudaMemcpy(to, a, sizeof to, cudaMemcpyDeviceToHost));
    assert_int_equal(to[0], 1);
    assert_int_equal(to[1], 0);
    assert_int_equal(to[2], 3);
    OK(cudaFree(a));
    OK(cudaFree(b));
}

/* Rows of three words, five and four apart: what lies between them stays. */
static void rows_are_copied_with_their_strides(void **state)
{
    (void)state;
    enum { ROWS = 3, WIDTH = 3 * sizeof(int) };
    int from[ROWS * 4], to[ROWS * 5];
    for (int i = 0; i < ROWS * 4; i++) from[i] = i + 1;
    int *device = alloc_ints(ROWS * 5);
    OK(cudaMemset(device, 0, sizeof to));
    OK(cudaMemcpy2DAsync(device, 5 * sizeof(int), from, 4 * sizeof(int), WIDTH, ROWS, cudaMemcpyHostToDevice,
                         NULL));
    memset(from, 0, sizeof from); /* pageable: done with */
    OK(cudaMemcpy(to, device, sizeof to, cudaMemcpyDeviceToHost));
    for (int i = 0; i < ROWS * 5; i++) assert_int_equal(to[i], i % 5 < 3 ? i / 5 * 4 + i % 5 + 1 : 0);
    OK(cudaMemcpy2DAsync(from, WIDTH, device, 5 * sizeof(int), WIDTH, ROWS, cudaMemcpyDeviceToHost, NULL));
    for (int i = 0; i < ROWS * 3; i++) assert_int_equal(from[i], i / 3 * 4 + i % 3 + 1);
    assert_int_equal(from[ROWS * 3], 0);
    OK(cudaMemcpy2DAsync(device, 8, from, 8, 8, 0, cudaMemcpyHostToDevice, NULL)); /* nothing */
    /* The last row need not have its whole stride. */
    OK(cudaMemcpy2DAsync(device + 2, 5 * sizeof(int), from, WIDTH, WIDTH, ROWS, cudaMemcpyHostToDevice,
                         NULL));
    REFUSED(cudaMemcpy2DAsync(device + 3, 5 * sizeof(int), from, WIDTH, WIDTH, ROWS, cudaMemcpyHostToDevice,
                              NULL),
            cudaErrorInvalidValue, "ends 4 bytes beyond");
    REFUSED(cudaMemcpy2DAsync(device, WIDTH - 1, from, WIDTH, WIDTH, ROWS, cudaMemcpyHostToDevice, NULL),
            cudaErrorInvalidPitchValue, "rows of 12 bytes, 11 and 12 apart");
    OK(cudaFree(device));
}

static void copies_are_checked_against_allocations(void **state)
{
    (void)state;
    int host[4] = {0}, *device = alloc_ints(4);
    uint32_t *pinned = alloc_flag();
    REFUSED(cudaMemcpy(device, host, sizeof host + 1, cudaMemcpyHostToDevice), cudaErrorInvalidValue,
            "ends 1 bytes beyond");
    REFUSED(cudaMemcpy(host, device + 1, sizeof host, cudaMemcpyDeviceToHost), cudaErrorInvalidValue,
            "source of 16 bytes ends 4 bytes beyond");
    REFUSED(cudaMemcpy(device, pinned, 8, cudaMemcpyHostToDevice), cudaErrorInvalidValue,
            "ends 4 bytes beyond");
    REFUSED(cudaMemset(device, 0, 17), cudaErrorInvalidValue, "ends 1 bytes beyond");
    REFUSED(cudaMemset(host, 0, 4), cudaErrorInvalidValue, "is not memory of a GPU");
    REFUSED(cudaMemcpy(NULL, device, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue, "is NULL");
    OK(cudaFreeHost(pinned));
    OK(cudaFree(device));
}

static void directions_must_fit_the_addresses(void **state)
{
    (void)state;
    int host[4] = {0}, *device = alloc_ints(4);
    uint32_t *pinned = alloc_flag();
    REFUSED(cudaMemcpy(device, host, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue,
            "from host to device memory");
    REFUSED(cudaMemcpy(host, device, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue,
            "from device to host memory");
    REFUSED(cudaMemcpy(device, host, 4, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue,
            "from host to device memory");
    REFUSED(cudaMemcpy(device, pinned, 4, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue,
            "from host to device memory");
    REFUSED(cudaMemcpy(device, device, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue,
            "from device to device memory");
    OK(cudaFreeHost(pinned));
    OK(cudaFree(device));
}

static void wrong_addresses_are_not_freed(void **state)
{
    (void)state;
    int host = 0, *device = alloc_ints(4);
    uint32_t *pinned = alloc_flag();
    REFUSED(cudaFree(&host), cudaErrorInvalidValue, "was not allocated");
    REFUSED(cudaFree(device + 1), cudaErrorInvalidValue, "is inside an allocation");
    REFUSED(cudaFree(pinned), cudaErrorInvalidValue, "is host memory");
    REFUSED(cudaFreeHost(device), cudaErrorInvalidValue, "is device memory");
    OK(cudaFree(device));
    REFUSED(cudaFree(device), cudaErrorInvalidValue, "or was freed");
    OK(cudaFreeHost(pinned));
}

static void memory_is_limited_and_counted(void **state)
{
    (void)state;
    struct cudaDeviceProp prop;
    size_t free_bytes, total_bytes;
    OK(cudaGetDeviceProperties(&prop, 0));
    assert_true(prop.totalGlobalMem > 1u << 30);
    qd_emu_set_gpus((struct qd_emu_gpus){.memory_bytes = 1000});
    OK(cudaGetDeviceProperties(&prop, 0));
    assert_int_equal(prop.totalGlobalMem, 1000);
    void *p, *q;
    REFUSED(cudaMalloc(&p, 1001), cudaErrorMemoryAllocation, "1001 bytes beside 0 of 1000");
    assert_null(p);
    OK(cudaMalloc(&p, 600));
    OK(cudaMemGetInfo(&free_bytes, &total_bytes));
    assert_int_equal(free_bytes, 400);
    assert_int_equal(total_bytes, 1000);
    REFUSED(cudaMalloc(&q, 401), cudaErrorMemoryAllocation, "401 bytes beside 600 of 1000");
    OK(cudaSetDevice(1)); /* has its own */
    OK(cudaMalloc(&q, 1000));
    OK(cudaFree(q));
    OK(cudaSetDevice(0));
    OK(cudaMalloc(&q, 400));
    OK(cudaFree(p));
    OK(cudaMemGetInfo(&free_bytes, &total_bytes));
    assert_int_equal(free_bytes, 600);
    OK(cudaFree(q));
    REFUSED(cudaMalloc(&p, SIZE_MAX), cudaErrorMemoryAllocation, "of 1000");
    REFUSED(cudaMallocHost(&p, SIZE_MAX), cudaErrorMemoryAllocation, "no memory");
}

static void sparse_memory_has_far_ends(void **state)
{
    (void)state;
    const size_t bytes = 100ull << 30;
    void *p;
    qd_emu_set_gpus((struct qd_emu_gpus){.memory_bytes = 1 << 20});
    assert_int_equal(qd_emu_malloc_sparse(&p, bytes), cudaSuccess);
    int *ints = p;
    uint64_t last = bytes / sizeof(int) - 1;
    OK(launch_write_at(ints, last, 7, NULL));
    assert_int_equal(read_int(ints + last), 7);
    assert_int_equal(read_int(ints + last - 1), 0);
    size_t free_bytes, total_bytes;
    OK(cudaMemGetInfo(&free_bytes, &total_bytes));
    assert_int_equal(free_bytes, total_bytes);
    OK(cudaFree(p));
}

/* Under AddressSanitizer such a store ends the process with its report. */
static void a_store_beyond_the_end_fails_the_kernel(void **state)
{
    (void)state;
    if (IS_SANITIZED) SKIP("a sanitizer catches the fault itself");
    int *p = alloc_ints(4);
    OK(launch_write_at(p, 3, 1, NULL));
    OK(cudaDeviceSynchronize());
    OK(launch_write_at(p, 4, 1, NULL));
    EXPECT(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    EXPECT(cudaFree(p), cudaErrorLaunchFailure); /* and yet it is freed */
}

static void a_sanitizer_sees_where_memory_begins_and_ends(void **state)
{
    (void)state;
#ifdef QD_EMU_ASAN
    for (size_t bytes = 1; bytes < 40; bytes++) {
        void *p;
        OK(cudaMalloc(&p, bytes));
        char *begin = p;
        assert_null(__asan_region_is_poisoned(p, bytes));
        assert_true(__asan_address_is_poisoned(begin - 1));
        assert_true(__asan_address_is_poisoned(begin + bytes));
        assert_true(__asan_address_is_poisoned(begin + bytes + 100));
        OK(cudaFree(p));
        assert_false(__asan_address_is_poisoned(begin - 1)); /* whoever gets the addresses next */
    }
#else
    SKIP("needs AddressSanitizer");
#endif
}

static void shutdown_frees_what_is_left(void **state)
{
    (void)state;
    void *p, *host;
    cudaStream_t stream;
    OK(cudaSetDevice(2));
    OK(cudaMalloc(&p, 100));
    char text[64];
    OK(cudaMallocHost(&host, 50));
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamDefault));
    assert_int_equal(qd_emu_leaks(text, sizeof text), 3);
    assert_string_equal(text, "2 allocations, 1 streams");
    qd_emu_shutdown();
    REFUSED(cudaFree(p), cudaErrorInvalidValue, "or was freed");
    REFUSED(cudaFreeHost(host), cudaErrorInvalidValue, "or was freed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(memory_is_filled_with_nan_and_aligned),
        RUNTIME_TEST(copies_go_all_ways),
        RUNTIME_TEST(rows_are_copied_with_their_strides),
        RUNTIME_TEST(copies_are_checked_against_allocations),
        RUNTIME_TEST(directions_must_fit_the_addresses),
        RUNTIME_TEST(wrong_addresses_are_not_freed),
        RUNTIME_TEST(memory_is_limited_and_counted),
        RUNTIME_TEST(sparse_memory_has_far_ends),
        RUNTIME_TEST(a_store_beyond_the_end_fails_the_kernel),
        RUNTIME_TEST(a_sanitizer_sees_where_memory_begins_and_ends),
        RUNTIME_TEST(shutdown_frees_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

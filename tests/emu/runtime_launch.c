#include <pthread.h>

#include "tests/emu/runtime_kernels.h"

static cudaError_t launch_shape(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz)
{
    static int value = 1, n = 0;
    static int *nothing;
    dim3 grid = {gx, gy, gz}, block = {bx, by, bz};
    return cudaLaunchKernel(runtime_kernel(RUNTIME_FILL), grid, block, (void *[]){&nothing, &n, &value}, 0,
                            NULL);
}

static void shapes_beyond_the_limits_are_refused(void **state)
{
    (void)state;
    REFUSED(launch_shape(1, 1, 1, 1025, 1, 1), cudaErrorInvalidConfiguration, "blocks of 1025 x 1 x 1");
    REFUSED(launch_shape(1, 1, 1, 32, 33, 1), cudaErrorInvalidConfiguration, "blocks of 32 x 33 x 1");
    REFUSED(launch_shape(1, 1, 1, 1, 1, 65), cudaErrorInvalidConfiguration, "blocks of 1 x 1 x 65");
    REFUSED(launch_shape(1, 1, 1, 0, 1, 1), cudaErrorInvalidConfiguration, "blocks of 0 x");
    REFUSED(launch_shape(0, 1, 1, 1, 1, 1), cudaErrorInvalidConfiguration, "a grid of 0 x");
    REFUSED(launch_shape(0x80000000u, 1, 1, 1, 1, 1), cudaErrorInvalidConfiguration, "a grid of 2147483648");
    REFUSED(launch_shape(1, 65536, 1, 1, 1, 1), cudaErrorInvalidConfiguration, "a grid of 1 x 65536");
    REFUSED(launch_shape(1, 1, 65536, 1, 1, 1), cudaErrorInvalidConfiguration, "a grid of 1 x 1 x 65536");
    OK(launch_shape(2, 2, 2, 32, 8, 4));
    OK(cudaDeviceSynchronize());
}

static cudaError_t launch_shared(int *out, uint64_t bytes)
{
    return launch_one(RUNTIME_SHARED, (void *[]){&out, &bytes}, bytes, NULL);
}

static void shared_memory_above_48_kib_must_be_asked_for(void **state)
{
    (void)state;
    const void *kernel = runtime_kernel(RUNTIME_SHARED);
    int *out = alloc_ints(1);
    OK(launch_shared(out, 48 * 1024));
    REFUSED(launch_shared(out, 48 * 1024 + 1), cudaErrorInvalidValue, "49153 bytes of dynamic shared memory");
    OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 163 * 1024));
    OK(launch_shared(out, 163 * 1024));
    assert_int_equal(read_int(out), 42);
    REFUSED(launch_shared(out, 163 * 1024 + 1), cudaErrorInvalidValue, "166912 are allowed");
    REFUSED(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 163 * 1024 + 1),
            cudaErrorInvalidValue, "at most 166912");
    REFUSED(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, -1),
            cudaErrorInvalidValue, "-1 bytes");
    OK(cudaSetDevice(1)); /* each GPU is asked for itself */
    int *other = alloc_ints(1);
    REFUSED(launch_shared(other, 48 * 1024 + 1), cudaErrorInvalidValue, "49152 are allowed");
    OK(cudaFree(other));
    OK(cudaFree(out));
}

/* Static memory, of which the launch does not know, counts when the kernel runs. */
static void static_shared_memory_counts_against_the_limit(void **state)
{
    (void)state;
    enum { LIMIT = 99 * 1024 };
    uint64_t bytes = LIMIT - 4096;
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.shared_bytes = LIMIT}), 0);
    int *out = alloc_ints(1);
    OK(cudaFuncSetAttribute(runtime_kernel(RUNTIME_SHARED_BESIDE),
                            cudaFuncAttributeMaxDynamicSharedMemorySize, LIMIT));
    OK(launch_one(RUNTIME_SHARED_BESIDE, (void *[]){&out, &bytes}, bytes, NULL));
    assert_int_equal(read_int(out), 42);
    bytes++;
    OK(launch_one(RUNTIME_SHARED_BESIDE, (void *[]){&out, &bytes}, bytes, NULL));
    EXPECT(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    ASSERT_CONTAINS(cudaGetErrorString(cudaErrorLaunchFailure), "shared memory beyond 101376 bytes");
    qd_emu_shutdown();
}

/* What was asked for before counts no longer, and the GPU says what it has. */
static void a_smaller_limit_of_shared_memory_holds(void **state)
{
    (void)state;
    enum { LIMIT = 99 * 1024 };
    const void *kernel = runtime_kernel(RUNTIME_SHARED);
    struct cudaDeviceProp prop;
    OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 163 * 1024));
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.shared_bytes = LIMIT}), 0);
    int *out = alloc_ints(1), value = 0;
    REFUSED(launch_shared(out, LIMIT + 1), cudaErrorInvalidValue, "101376 are allowed");
    REFUSED(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, LIMIT + 1),
            cudaErrorInvalidValue, "at most 101376");
    OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, LIMIT));
    OK(launch_shared(out, LIMIT));
    assert_int_equal(read_int(out), 42);
    OK(cudaGetDeviceProperties(&prop, 0));
    assert_int_equal(prop.sharedMemPerBlockOptin, LIMIT);
    assert_int_equal(prop.sharedMemPerMultiprocessor, 100 * 1024);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(value, LIMIT);

    OK(cudaFree(out));
    qd_emu_shutdown();
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.shared_bytes = 48 * 1024 - 1}), -1);
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.shared_bytes = 163 * 1024 + 1}), -1);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(value, LIMIT); /* stays */
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){0}), 0);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(value, 163 * 1024);
}

static void unknown_kernels_are_refused(void **state)
{
    (void)state;
    static const char no_kernel;
    dim3 one = {1, 1, 1};
    REFUSED(cudaLaunchKernel(&no_kernel, one, one, NULL, 0, NULL), cudaErrorInvalidDeviceFunction,
            "no kernel");
    REFUSED(cudaFuncSetAttribute(&no_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 0),
            cudaErrorInvalidDeviceFunction, "no kernel");
}

static void launches_return_before_the_kernel_ends(void **state)
{
    (void)state;
    uint32_t *flag = alloc_flag();
    cudaStream_t stream = create_stream();
    OK(launch_hold(flag, stream)); /* would never return if it waited */
    REFUSED(cudaStreamQuery(stream), cudaErrorNotReady, "has work to do");
    set_flag(flag);
    OK(cudaStreamSynchronize(stream));
    OK(cudaStreamQuery(stream));
    OK(cudaStreamDestroy(stream));
    OK(cudaFreeHost(flag));
}

static void arguments_are_copied_at_the_launch(void **state)
{
    (void)state;
    uint32_t *flag = alloc_flag();
    int *out = alloc_ints(2), n = 1, value = 5;
    cudaStream_t stream = create_stream();
    OK(launch_hold(flag, stream));
    OK(launch_one(RUNTIME_FILL, (void *[]){&out, &n, &value}, 0, stream));
    n = 2, value = 6; /* too late for the launch, which has not run */
    set_flag(flag);
    OK(cudaStreamSynchronize(stream));
    assert_int_equal(read_int(out), 5);
    assert_int_equal(read_int(out + 1), -1);
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(out));
    OK(cudaFreeHost(flag));
}

/* ---- failures of kernels: a hold that nobody ends is a livelock ---- */

static void shorten_livelocks(void)
{
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.stall_ms = 20;
    qd_emu_set_mode(&mode);
}

static void *read_failure_elsewhere(void *argument)
{
    (void)argument;
    cudaError_t error = cudaSetDevice(0);
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    static char text[1024];
    snprintf(text, sizeof text, "%d: %s", (int)error, cudaGetErrorString(error));
    return text;
}

static void failures_stick_until_shutdown(void **state)
{
    (void)state;
    shorten_livelocks();
    uint32_t *flag = alloc_flag(), *after = alloc_flag();
    int *out = alloc_ints(1);
    cudaStream_t stream = create_stream(), other = create_stream();
    cudaEvent_t event;
    OK(cudaEventCreateWithFlags(&event, cudaEventDefault));
    OK(launch_hold(flag, stream));
    OK(launch_fill((int *)after, 1, 3, stream)); /* dropped */
    OK(cudaEventRecord(event, stream));
    EXPECT(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    assert_int_equal(*after, 0);
    ASSERT_CONTAINS(cudaGetErrorString(cudaErrorLaunchFailure), "livelock");
    ASSERT_CONTAINS(cudaGetErrorString(cudaErrorLaunchFailure), "kernel hold");
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaSuccess);

    EXPECT(cudaStreamSynchronize(other), cudaErrorLaunchFailure);
    EXPECT(cudaEventSynchronize(event), cudaErrorLaunchFailure);
    EXPECT(cudaEventQuery(event), cudaErrorLaunchFailure);
    EXPECT(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    EXPECT(launch_fill(out, 1, 3, stream), cudaErrorLaunchFailure);
    EXPECT(launch_fill(out, 1, 3, NULL), cudaErrorLaunchFailure);
    int value = 0;
    EXPECT(cudaMemcpy(&value, out, sizeof value, cudaMemcpyDeviceToHost), cudaErrorLaunchFailure);
    void *p;
    EXPECT(cudaMalloc(&p, 4), cudaErrorLaunchFailure);

    pthread_t thread;
    void *text;
    assert_int_equal(pthread_create(&thread, NULL, read_failure_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, &text), 0);
    ASSERT_CONTAINS((char *)text, "719: kernel hold");

    OK(cudaSetDevice(1)); /* another GPU goes on */
    int *healthy = alloc_ints(1);
    OK(launch_fill(healthy, 1, 4, NULL));
    assert_int_equal(read_int(healthy), 4);
    OK(cudaFree(healthy));

    qd_emu_shutdown();
    OK(cudaEventDestroy(event));
    assert_string_equal(cudaGetErrorString(cudaErrorLaunchFailure), "no error of this thread");
    out = alloc_ints(1);
    OK(launch_fill(out, 1, 8, NULL));
    assert_int_equal(read_int(out), 8);
    OK(cudaFree(out));
}

static void memory_is_freed_on_a_gpu_that_failed(void **state)
{
    (void)state;
    shorten_livelocks();
    uint32_t *flag = alloc_flag();
    int *out = alloc_ints(1);
    OK(launch_hold(flag, NULL));
    EXPECT(cudaFree(out), cudaErrorLaunchFailure);
    REFUSED(cudaFree(out), cudaErrorInvalidValue, "or was freed");
    EXPECT(cudaFreeHost(flag), cudaErrorLaunchFailure);
}

static void errors_are_of_their_thread_and_told_once(void **state)
{
    (void)state;
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    EXPECT(cudaSetDevice(99), cudaErrorInvalidDevice);
    pthread_t thread;
    void *text;
    assert_int_equal(pthread_create(&thread, NULL, read_failure_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, &text), 0);
    assert_string_equal(text, "0: no error of this thread");
    OK(cudaDeviceSynchronize()); /* success does not clear it */
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidDevice);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    ASSERT_CONTAINS(cudaGetErrorString(cudaErrorInvalidDevice), "GPU 99 of 8");
    assert_string_equal(cudaGetErrorString(cudaErrorNotReady), "no error of this thread");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(shapes_beyond_the_limits_are_refused),
        RUNTIME_TEST(shared_memory_above_48_kib_must_be_asked_for),
        RUNTIME_TEST(static_shared_memory_counts_against_the_limit),
        RUNTIME_TEST(a_smaller_limit_of_shared_memory_holds),
        RUNTIME_TEST(unknown_kernels_are_refused),
        RUNTIME_TEST(launches_return_before_the_kernel_ends),
        RUNTIME_TEST(arguments_are_copied_at_the_launch),
        RUNTIME_TEST(failures_stick_until_shutdown),
        RUNTIME_TEST(memory_is_freed_on_a_gpu_that_failed),
        RUNTIME_TEST(errors_are_of_their_thread_and_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

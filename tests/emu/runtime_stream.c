#include "tests/emu/runtime_kernels.h"

enum { N_SEEDS = 20 };

static void set_random_mode(uint64_t seed)
{
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.schedule = QD_EMU_SCHEDULE_RANDOM;
    mode.seed = seed;
    qd_emu_set_mode(&mode);
}

static cudaEvent_t create_event(void)
{
    cudaEvent_t event;
    OK(cudaEventCreateWithFlags(&event, cudaEventDefault));
    return event;
}

static void a_stream_keeps_its_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        set_random_mode(seed);
        cudaStream_t stream = create_stream();
        int *a = alloc_ints(4), *b = alloc_ints(4), result[4];
        uint32_t *pinned = alloc_flag();
        *pinned = 21;
        OK(launch_fill(a, 4, 5, stream));
        OK(cudaMemcpyAsync(a + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
        OK(launch_twice(a, b, 4, stream));
        OK(cudaMemsetAsync(b + 3, 0, sizeof(int), stream));
        OK(cudaMemcpyAsync(a, b, 4 * sizeof(int), cudaMemcpyDeviceToDevice, stream));
        OK(launch_fill(b, 4, 0, stream));
        OK(cudaMemcpyAsync(result, a, sizeof result, cudaMemcpyDeviceToHost, stream));
        const int expected[4] = {10, 42, 10, 0};
        assert_memory_equal(result, expected, sizeof result);
        OK(cudaStreamDestroy(stream));
        OK(cudaFree(a));
        OK(cudaFree(b));
        OK(cudaFreeHost(pinned));
    }
}

/* The last value of two streams' fills, 1 issued before 2, while a kernel keeps the GPU busy. */
static int race(cudaStream_t one, cudaStream_t two)
{
    cudaStream_t busy = create_stream();
    uint32_t *flag = alloc_flag();
    int *a = alloc_ints(1);
    OK(launch_hold(flag, busy));
    OK(launch_fill(a, 1, 1, one));
    OK(launch_fill(a, 1, 2, two));
    EXPECT(cudaStreamQuery(one), cudaErrorNotReady);
    set_flag(flag);
    OK(cudaDeviceSynchronize());
    OK(cudaStreamQuery(one));
    int last = read_int(a);
    OK(cudaFree(a));
    OK(cudaFreeHost(flag));
    OK(cudaStreamDestroy(busy));
    return last;
}

static void streams_run_in_any_order_in_random_mode(void **state)
{
    (void)state;
    cudaStream_t one = create_stream(), two = create_stream(), blocking;
    OK(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault));
    for (int legacy = 0; legacy < 2; legacy++) { /* which passes streams by that do not block */
        bool seen[3] = {false};
        for (uint64_t seed = 0; seed < 2 * N_SEEDS; seed++) {
            set_random_mode(seed);
            seen[race(one, legacy ? NULL : two)] = true;
            assert_int_equal(race(blocking, NULL), 2);
            assert_int_equal(race(NULL, blocking), 2);
        }
        assert_false(seen[0]);
        assert_true(seen[1]);
        assert_true(seen[2]);
    }
    struct qd_emu_mode mode = qd_emu_default_mode();
    qd_emu_set_mode(&mode);
    assert_int_equal(race(one, two), 2); /* as issued */
    assert_int_equal(race(two, one), 2);
    OK(cudaStreamDestroy(one));
    OK(cudaStreamDestroy(two));
    OK(cudaStreamDestroy(blocking));
}

static void the_legacy_stream_takes_turns_with_blocking_streams(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        set_random_mode(seed);
        cudaStream_t blocking, also;
        OK(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault));
        OK(cudaStreamCreateWithFlags(&also, cudaStreamDefault));
        int *a = alloc_ints(1), *b = alloc_ints(1), *c = alloc_ints(1);
        OK(launch_fill(a, 1, 3, blocking));
        OK(launch_twice(a, b, 1, NULL));
        OK(launch_twice(b, c, 1, also));
        assert_int_equal(read_int(c), 12); /* on the legacy stream, too */
        OK(launch_fill(c, 1, 4, also));
        OK(cudaStreamSynchronize(NULL));
        OK(cudaStreamQuery(also));
        OK(cudaStreamDestroy(blocking));
        OK(cudaStreamDestroy(also));
        OK(cudaFree(a));
        OK(cudaFree(b));
        OK(cudaFree(c));
    }
}

static void host_memory_is_read_when_cuda_reads_it(void **state)
{
    (void)state;
    uint32_t *flag = alloc_flag();
    cudaStream_t stream = create_stream();
    int *a = alloc_ints(2), pageable = 1;
    uint32_t *pinned = alloc_flag();
    *pinned = 1;
    OK(cudaMemcpyAsync(a, &pageable, sizeof(int), cudaMemcpyHostToDevice, stream));
    pageable = 2; /* was read */
    OK(launch_hold(flag, stream));
    OK(cudaMemcpyAsync(a + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
    *pinned = 2; /* too early: the copy has not run */
    set_flag(flag);
    OK(cudaStreamSynchronize(stream));
    assert_int_equal(read_int(a), 1);
    assert_int_equal(read_int(a + 1), 2);
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
    OK(cudaFreeHost(pinned));
    OK(cudaFreeHost(flag));
}

static void copies_to_pinned_memory_wait_for_nobody(void **state)
{
    (void)state;
    uint32_t *flag = alloc_flag();
    cudaStream_t stream = create_stream();
    int *a = alloc_ints(1);
    uint32_t *pinned = alloc_flag();
    OK(cudaMemset(a, 0, sizeof(int)));
    OK(cudaDeviceSynchronize());
    *pinned = 5;
    OK(launch_hold(flag, stream));
    OK(cudaMemcpyAsync(pinned, a, sizeof(int), cudaMemcpyDeviceToHost, stream));
    assert_int_equal(*pinned, 5);
    set_flag(flag);
    OK(cudaStreamSynchronize(stream));
    assert_int_equal(*pinned, 0);
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
    OK(cudaFreeHost(pinned));
    OK(cudaFreeHost(flag));
}

static void destroyed_streams_and_events_finish_their_work(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaEvent_t event = create_event();
    uint32_t *flag = alloc_flag();
    int *a = alloc_ints(1);
    set_flag(flag);
    OK(launch_hold(flag, stream));
    OK(launch_fill(a, 1, 4, stream));
    OK(cudaEventRecord(event, stream));
    OK(cudaEventDestroy(event));
    OK(cudaStreamDestroy(stream));
    assert_int_equal(read_int(a), 4);
    OK(cudaFree(a));
    OK(cudaFreeHost(flag));
}

static void events_tell_time(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaEvent_t start = create_event(), end = create_event(), timeless, elsewhere;
    uint32_t *flag = alloc_flag();
    float ms = -1;
    OK(cudaEventCreateWithFlags(&timeless, cudaEventDisableTiming | cudaEventBlockingSync));
    REFUSED(cudaEventElapsedTime(&ms, start, end), cudaErrorInvalidResourceHandle, "was never recorded");
    OK(cudaEventQuery(start)); /* nothing to wait for */
    OK(cudaEventSynchronize(start));
    OK(cudaEventRecord(start, stream));
    OK(launch_hold(flag, stream));
    OK(cudaEventRecord(end, stream));
    REFUSED(cudaEventQuery(end), cudaErrorNotReady, "was not reached");
    OK(cudaEventSynchronize(start));
    REFUSED(cudaEventElapsedTime(&ms, start, end), cudaErrorNotReady, "was not reached");
    usleep(20 * 1000);
    set_flag(flag);
    OK(cudaEventSynchronize(end));
    OK(cudaEventElapsedTime(&ms, start, end));
    assert_true(ms >= 20 && ms < 60000);
    OK(cudaEventElapsedTime(&ms, end, start));
    assert_true(ms <= -20);
    OK(cudaEventRecord(timeless, stream));
    OK(cudaEventSynchronize(timeless));
    REFUSED(cudaEventElapsedTime(&ms, start, timeless), cudaErrorInvalidResourceHandle, "takes no time");
    OK(cudaSetDevice(1));
    elsewhere = create_event();
    REFUSED(cudaEventRecord(elsewhere, stream), cudaErrorInvalidResourceHandle, "an event of GPU 1");
    OK(cudaEventRecord(elsewhere, NULL));
    OK(cudaEventSynchronize(elsewhere));
    OK(cudaEventDestroy(elsewhere));
    OK(cudaEventDestroy(timeless));
    OK(cudaEventDestroy(start));
    OK(cudaEventDestroy(end));
    OK(cudaStreamDestroy(stream));
    OK(cudaFreeHost(flag));
}

/* External recordings are work of the graph: each launch makes one, and they time what lies between. */
static void external_recordings_are_replayed(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaEvent_t before = create_event(), after = create_event();
    int *out = alloc_ints(1), n = 1, value = 7;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    struct cudaFuncAttributes loaded;
    REFUSED(cudaEventRecordWithFlags(before, stream, 2), cudaErrorInvalidValue, "flags 0x2");
    OK(cudaFuncGetAttributes(&loaded, runtime_kernel(RUNTIME_FILL)));
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    OK(cudaEventRecordWithFlags(before, stream, cudaEventRecordExternal));
    OK(launch_one(RUNTIME_FILL, (void *[]){&out, &n, &value}, 0, stream));
    OK(cudaEventRecordWithFlags(after, stream, cudaEventRecordExternal));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    float ms = -1;
    REFUSED(cudaEventElapsedTime(&ms, before, after), cudaErrorInvalidResourceHandle, "never recorded");
    for (int launch = 0; launch < 3; launch++) {
        OK(cudaEventRecordWithFlags(before, stream, cudaEventRecordExternal)); /* outside: as any other */
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaEventSynchronize(after));
        assert_int_equal(read_int(out), 7);
        OK(cudaEventElapsedTime(&ms, before, after));
        assert_true(ms > 0 && ms < 1000);
        OK(launch_fill(out, 1, 0, stream));
    }
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaEventDestroy(before)); /* waits for the launch's recordings */
    OK(cudaEventDestroy(after));
    assert_int_equal(read_int(out), 7);
    OK(cudaGraphExecDestroy(exec));
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(a_stream_keeps_its_order),
        RUNTIME_TEST(streams_run_in_any_order_in_random_mode),
        RUNTIME_TEST(the_legacy_stream_takes_turns_with_blocking_streams),
        RUNTIME_TEST(host_memory_is_read_when_cuda_reads_it),
        RUNTIME_TEST(copies_to_pinned_memory_wait_for_nobody),
        RUNTIME_TEST(destroyed_streams_and_events_finish_their_work),
        RUNTIME_TEST(events_tell_time),
        RUNTIME_TEST(external_recordings_are_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

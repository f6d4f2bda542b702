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

/* Streams and a flag that hold GPU 0's streams up through GPU 1: until the flag is set, no work behind
 * wait_for_gate runs, and other work does. */
struct gate {
    uint32_t *flag;
    cudaStream_t stream; /* of GPU 1 */
    cudaEvent_t event;
};

static struct gate close_gate(void)
{
    struct gate gate = {.flag = alloc_flag()};
    OK(cudaSetDevice(1));
    gate.stream = create_stream();
    gate.event = create_event();
    OK(launch_hold(gate.flag, gate.stream));
    OK(cudaEventRecord(gate.event, gate.stream));
    OK(cudaSetDevice(0));
    return gate;
}

static void destroy_gate(struct gate *gate)
{
    OK(cudaStreamSynchronize(gate->stream));
    OK(cudaStreamDestroy(gate->stream));
    OK(cudaEventDestroy(gate->event));
    OK(cudaFreeHost(gate->flag));
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

static void events_order_streams(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        set_random_mode(seed);
        cudaStream_t first = create_stream(), second = create_stream();
        cudaEvent_t filled = create_event(), doubled = create_event();
        int *a = alloc_ints(1), *b = alloc_ints(1);
        for (int round = 1; round <= 3; round++) {
            OK(launch_fill(a, 1, round, first));
            OK(cudaEventRecord(filled, first));
            OK(cudaStreamWaitEvent(second, filled, 0));
            OK(launch_twice(a, b, 1, second));
            OK(cudaEventRecord(doubled, second));
            OK(cudaStreamWaitEvent(first, doubled, 0));
        }
        OK(launch_fill(a, 1, 99, first));
        OK(cudaStreamSynchronize(first));
        assert_int_equal(read_int(b), 6);
        assert_int_equal(read_int(a), 99);
        OK(cudaStreamDestroy(first));
        OK(cudaStreamDestroy(second));
        OK(cudaEventDestroy(filled));
        OK(cudaEventDestroy(doubled));
        OK(cudaFree(a));
        OK(cudaFree(b));
    }
}

/* The last value of two streams' fills that nothing orders: 1 is issued first. */
static int race(bool newer_first)
{
    struct gate gate = close_gate();
    cudaStream_t one = create_stream(), two = create_stream();
    int *a = alloc_ints(1);
    OK(cudaStreamWaitEvent(one, gate.event, 0));
    OK(cudaStreamWaitEvent(two, gate.event, 0));
    OK(launch_fill(a, 1, 1, newer_first ? two : one));
    OK(launch_fill(a, 1, 2, newer_first ? one : two));
    set_flag(gate.flag);
    OK(cudaDeviceSynchronize());
    int last = read_int(a);
    OK(cudaFree(a));
    OK(cudaStreamDestroy(one));
    OK(cudaStreamDestroy(two));
    destroy_gate(&gate);
    return last;
}

static void streams_run_in_any_order_in_random_mode(void **state)
{
    (void)state;
    bool seen[3] = {false};
    for (uint64_t seed = 0; seed < 2 * N_SEEDS; seed++) {
        set_random_mode(seed);
        seen[race(false)] = true;
    }
    assert_false(seen[0]);
    assert_true(seen[1]);
    assert_true(seen[2]);
    struct qd_emu_mode mode = qd_emu_default_mode();
    qd_emu_set_mode(&mode);
    for (int i = 0; i < 5; i++) assert_int_equal(race(i % 2), 2); /* as issued */
}

static void a_waiting_stream_holds_no_other_up(void **state)
{
    (void)state;
    struct gate gate = close_gate();
    cudaStream_t held = create_stream(), other = create_stream();
    int *a = alloc_ints(1), *b = alloc_ints(1);
    OK(cudaStreamWaitEvent(held, gate.event, 0));
    OK(launch_fill(a, 1, 1, held));
    OK(launch_fill(b, 1, 2, other));
    OK(cudaStreamSynchronize(other));
    assert_int_equal(read_int(b), 2);
    assert_int_equal(read_int(a), -1);
    EXPECT(cudaStreamQuery(held), cudaErrorNotReady);
    OK(cudaStreamQuery(other));
    set_flag(gate.flag);
    OK(cudaStreamSynchronize(held));
    assert_int_equal(read_int(a), 1);
    OK(cudaStreamDestroy(held));
    OK(cudaStreamDestroy(other));
    OK(cudaFree(a));
    OK(cudaFree(b));
    destroy_gate(&gate);
}

static void a_wait_means_the_recording_before_it(void **state)
{
    (void)state;
    struct gate gate = close_gate();
    cudaStream_t stream = create_stream();
    uint32_t *second_flag = alloc_flag();
    OK(cudaStreamWaitEvent(stream, gate.event, 0));
    OK(cudaSetDevice(1));
    OK(launch_hold(second_flag, gate.stream));
    OK(cudaSetDevice(0));
    OK(cudaEventRecord(gate.event, gate.stream)); /* later: not waited for */
    set_flag(gate.flag);
    OK(cudaStreamSynchronize(stream));
    EXPECT(cudaEventQuery(gate.event), cudaErrorNotReady);
    set_flag(second_flag);
    OK(cudaEventSynchronize(gate.event));
    OK(cudaStreamDestroy(stream));
    destroy_gate(&gate);
    OK(cudaFreeHost(second_flag));
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
        OK(cudaStreamSynchronize(cudaStreamLegacy));
        OK(cudaStreamQuery(also));
        OK(cudaStreamDestroy(blocking));
        OK(cudaStreamDestroy(also));
        OK(cudaFree(a));
        OK(cudaFree(b));
        OK(cudaFree(c));
    }
}

static void the_legacy_stream_passes_other_streams_by(void **state)
{
    (void)state;
    struct gate gate = close_gate();
    cudaStream_t held = create_stream();
    int *a = alloc_ints(1);
    OK(cudaStreamWaitEvent(held, gate.event, 0));
    OK(launch_fill(a, 1, 1, held));
    OK(launch_fill(a, 1, 2, NULL));
    OK(cudaStreamSynchronize(NULL));
    OK(cudaStreamQuery(NULL));
    assert_int_equal(read_int(a), 2);
    set_flag(gate.flag);
    OK(cudaDeviceSynchronize()); /* waits for all */
    assert_int_equal(read_int(a), 1);
    OK(cudaStreamDestroy(held));
    OK(cudaFree(a));
    destroy_gate(&gate);
}

static void host_memory_is_read_when_cuda_reads_it(void **state)
{
    (void)state;
    struct gate gate = close_gate();
    cudaStream_t stream = create_stream();
    int *a = alloc_ints(2), pageable = 1;
    uint32_t *pinned = alloc_flag();
    *pinned = 1;
    OK(cudaStreamWaitEvent(stream, gate.event, 0));
    OK(cudaMemcpyAsync(a, &pageable, sizeof(int), cudaMemcpyHostToDevice, stream));
    OK(cudaMemcpyAsync(a + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
    pageable = 2; /* was read */
    *pinned = 2;  /* too early: the copy has not run */
    set_flag(gate.flag);
    OK(cudaStreamSynchronize(stream));
    assert_int_equal(read_int(a), 1);
    assert_int_equal(read_int(a + 1), 2);
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
    OK(cudaFreeHost(pinned));
    destroy_gate(&gate);
}

static void copies_to_pinned_memory_wait_for_nobody(void **state)
{
    (void)state;
    struct gate gate = close_gate();
    cudaStream_t stream = create_stream();
    int *a = alloc_ints(1);
    uint32_t *pinned = alloc_flag();
    OK(cudaMemset(a, 0, sizeof(int)));
    OK(cudaDeviceSynchronize());
    *pinned = 5;
    OK(cudaStreamWaitEvent(stream, gate.event, 0));
    OK(cudaMemcpyAsync(pinned, a, sizeof(int), cudaMemcpyDeviceToHost, stream));
    assert_int_equal(*pinned, 5);
    set_flag(gate.flag);
    OK(cudaStreamSynchronize(stream));
    assert_int_equal(*pinned, 0);
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
    OK(cudaFreeHost(pinned));
    destroy_gate(&gate);
}

static void destroyed_streams_and_events_finish_their_work(void **state)
{
    (void)state;
    struct gate gate = close_gate();
    cudaStream_t stream = create_stream(), after = create_stream();
    cudaEvent_t event = create_event();
    int *a = alloc_ints(1), *b = alloc_ints(1);
    OK(cudaStreamWaitEvent(stream, gate.event, 0));
    OK(launch_fill(a, 1, 4, stream));
    OK(cudaEventRecord(event, stream));
    OK(cudaStreamWaitEvent(after, event, 0));
    OK(launch_twice(a, b, 1, after));
    OK(cudaStreamDestroy(stream));
    OK(cudaEventDestroy(event));
    set_flag(gate.flag);
    OK(cudaStreamSynchronize(after));
    assert_int_equal(read_int(b), 8);
    OK(cudaStreamDestroy(after));
    OK(cudaFree(a));
    OK(cudaFree(b));
    destroy_gate(&gate);
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
    OK(cudaStreamWaitEvent(stream, start, 0));
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
    REFUSED(cudaEventElapsedTime(&ms, start, elsewhere), cudaErrorInvalidResourceHandle, "GPU 0 and GPU 1");
    OK(cudaEventDestroy(elsewhere));
    OK(cudaEventDestroy(timeless));
    OK(cudaEventDestroy(start));
    OK(cudaEventDestroy(end));
    OK(cudaStreamDestroy(stream));
    OK(cudaFreeHost(flag));
}

static void bad_handles_and_flags_are_refused(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream(), gone = create_stream(), made;
    cudaEvent_t event = create_event();
    int *a = alloc_ints(1);
    OK(cudaStreamDestroy(gone));
    REFUSED(cudaStreamDestroy(gone), cudaErrorInvalidResourceHandle, "no stream to destroy");
    REFUSED(cudaStreamDestroy(NULL), cudaErrorInvalidResourceHandle, "no stream to destroy");
    REFUSED(cudaStreamSynchronize(gone), cudaErrorInvalidResourceHandle, "is no stream");
    REFUSED(cudaStreamQuery((cudaStream_t)event), cudaErrorInvalidResourceHandle, "is no stream");
    REFUSED(launch_fill(a, 1, 1, gone), cudaErrorInvalidResourceHandle, "is no stream");
    REFUSED(cudaMemsetAsync(a, 0, 4, gone), cudaErrorInvalidResourceHandle, "is no stream");
    REFUSED(cudaEventRecord((cudaEvent_t)stream, stream), cudaErrorInvalidResourceHandle, "is no event");
    REFUSED(cudaStreamWaitEvent(stream, (cudaEvent_t)stream, 0), cudaErrorInvalidResourceHandle,
            "is no event");
    REFUSED(cudaStreamWaitEvent(stream, event, 1), cudaErrorInvalidValue, "flags 1");
    REFUSED(cudaStreamCreateWithFlags(&made, 2), cudaErrorInvalidValue, "flags 0x2");
    REFUSED(cudaEventCreateWithFlags(&event, 4), cudaErrorInvalidValue, "flags 0x4");
    OK(cudaEventDestroy(event));
    REFUSED(cudaEventDestroy(event), cudaErrorInvalidResourceHandle, "is no event");
    REFUSED(cudaEventQuery(event), cudaErrorInvalidResourceHandle, "is no event");
    REFUSED(cudaEventSynchronize(event), cudaErrorInvalidResourceHandle, "is no event");
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
}

/* External recordings are work of the graph: each launch makes one, and they time what lies between. */
static void external_recordings_are_replayed(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaEvent_t before, after;
    int *out = alloc_ints(1), n = 1, value = 7;
    OK(cudaEventCreateWithFlags(&before, cudaEventDefault));
    OK(cudaEventCreateWithFlags(&after, cudaEventDefault));
    REFUSED(cudaEventRecordWithFlags(before, stream, 2), cudaErrorInvalidValue, "flags 0x2");
    struct cudaFuncAttributes loaded;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
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
    OK(cudaGraphLaunch(exec, stream)); /* work keeps what the caller no longer has */
    OK(cudaEventDestroy(before));
    OK(cudaEventDestroy(after));
    OK(cudaStreamSynchronize(stream));
    OK(cudaGraphExecDestroy(exec));
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(a_stream_keeps_its_order),
        RUNTIME_TEST(events_order_streams),
        RUNTIME_TEST(streams_run_in_any_order_in_random_mode),
        RUNTIME_TEST(a_waiting_stream_holds_no_other_up),
        RUNTIME_TEST(a_wait_means_the_recording_before_it),
        RUNTIME_TEST(the_legacy_stream_takes_turns_with_blocking_streams),
        RUNTIME_TEST(the_legacy_stream_passes_other_streams_by),
        RUNTIME_TEST(host_memory_is_read_when_cuda_reads_it),
        RUNTIME_TEST(copies_to_pinned_memory_wait_for_nobody),
        RUNTIME_TEST(destroyed_streams_and_events_finish_their_work),
        RUNTIME_TEST(events_tell_time),
        RUNTIME_TEST(bad_handles_and_flags_are_refused),
        RUNTIME_TEST(external_recordings_are_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

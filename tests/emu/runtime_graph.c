#include <pthread.h>

#include "tests/emu/runtime_kernels.h"

/* ---- replay ---- */

/* A capture takes only kernels that its GPU has loaded. */
static void load_kernels(void)
{
    struct cudaFuncAttributes attributes;
    for (int kernel = RUNTIME_FILL; kernel <= RUNTIME_SHARED_BESIDE; kernel++)
        OK(cudaFuncGetAttributes(&attributes, runtime_kernel((enum runtime_kernel)kernel)));
}

static void begin(cudaStream_t stream)
{
    load_kernels();
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

static cudaGraphExec_t end_and_instantiate(cudaStream_t stream)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    return exec;
}

static void graphs_replay_captured_arguments(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    int *in = alloc_ints(2), *out = alloc_ints(4), result[4], n = 2, value = 7;
    uint32_t *pinned = alloc_flag();
    OK(launch_fill(in, 2, 5, stream));
    OK(cudaStreamSynchronize(stream));

    begin(stream);
    int *target = out + 3;
    OK(launch_one(RUNTIME_TWICE, (void *[]){&in, &out, &n}, 0, stream));
    n = 1;
    OK(launch_one(RUNTIME_FILL, (void *[]){&target, &n, &value}, 0, stream));
    OK(cudaMemcpyAsync(out + 2, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
    OK(cudaMemsetAsync(out + 1, 0, sizeof(int), stream));
    cudaGraphExec_t exec = end_and_instantiate(stream);
    OK(cudaGraphUpload(exec, stream));
    assert_int_equal(read_int(out), -1); /* nothing ran */
    n = 1000, value = 1000, target = NULL;

    *pinned = 30;
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaMemcpyAsync(result, out, sizeof result, cudaMemcpyDeviceToHost, stream));
    assert_memory_equal(result, ((const int[4]){10, 0, 30, 7}), sizeof result);

    *pinned = 31; /* memory is read anew */
    OK(launch_fill(in, 2, 6, stream));
    OK(launch_fill(out, 4, 0, stream));
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaMemcpyAsync(result, out, sizeof result, cudaMemcpyDeviceToHost, stream));
    assert_memory_equal(result, ((const int[4]){12, 0, 31, 7}), sizeof result);

    OK(cudaGraphExecDestroy(exec));
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(in));
    OK(cudaFree(out));
    OK(cudaFreeHost(pinned));
}

static void graphs_keep_their_order_in_random_mode(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    int *a = alloc_ints(1), *b = alloc_ints(1);
    begin(stream);
    for (int i = 0; i < 5; i++) {
        OK(launch_twice(a, b, 1, stream));
        OK(launch_twice(b, a, 1, stream));
    }
    cudaGraphExec_t exec = end_and_instantiate(stream);
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.schedule = QD_EMU_SCHEDULE_RANDOM;
    for (mode.seed = 0; mode.seed < 10; mode.seed++) {
        qd_emu_set_mode(&mode);
        OK(launch_fill(a, 1, 3, stream));
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaStreamSynchronize(stream));
        assert_int_equal(read_int(a), 3 << 20);
    }
    OK(cudaGraphExecDestroy(exec));
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
    OK(cudaFree(b));
}

static void graphs_can_be_destroyed_while_they_run(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    uint32_t *flag = alloc_flag();
    int *a = alloc_ints(1);
    begin(stream);
    OK(launch_hold(flag, stream));
    OK(launch_fill(a, 1, 9, stream));
    cudaGraphExec_t exec = end_and_instantiate(stream);
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaGraphExecDestroy(exec));
    set_flag(flag);
    OK(cudaStreamSynchronize(stream));
    assert_int_equal(read_int(a), 9);
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
    OK(cudaFreeHost(flag));
}

static void empty_graphs_do_nothing(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    begin(stream);
    cudaGraphExec_t exec = end_and_instantiate(stream);
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaStreamSynchronize(stream));
    OK(cudaGraphExecDestroy(exec));
    OK(cudaStreamDestroy(stream));
}

static void graphs_of_freed_memory_are_refused(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    int *kept = alloc_ints(2000);
    for (int use = 0; use < 4; use++) {
        int *freed = alloc_ints(2000);
        begin(stream);
        switch (use) {
        case 0: OK(launch_twice(freed, kept, 1, stream)); break;
        case 1: OK(cudaMemcpyAsync(kept, freed, 4, cudaMemcpyDeviceToDevice, stream)); break;
        case 2: OK(cudaMemsetAsync(freed, 0, 4, stream)); break;
        case 3: {
            struct runtime_peers peers = {.n = 1, .values = {freed + 7}};
            OK(launch_one(RUNTIME_SUM, (void *[]){&peers, &kept}, 0, stream));
        }
        }
        cudaGraphExec_t exec = end_and_instantiate(stream);
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaFree(freed));
        REFUSED(cudaGraphUpload(exec, stream), cudaErrorInvalidValue, "that was freed");
        REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue, "that was freed");
        int *again = alloc_ints(2000); /* often at the same address */
        REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue, "that was freed");
        OK(cudaFree(again));
        OK(cudaGraphExecDestroy(exec));
    }
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(kept));
}

static void graphs_stay_on_their_gpu_and_handles_are_checked(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    begin(stream);
    OK(cudaStreamEndCapture(stream, &graph));
    REFUSED(cudaGraphInstantiate(&exec, graph, 1), cudaErrorInvalidValue, "flags 0x1");
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    REFUSED(cudaGraphDestroy(graph), cudaErrorInvalidResourceHandle, "no graph");
    cudaGraphExec_t none;
    REFUSED(cudaGraphInstantiate(&none, graph, 0), cudaErrorInvalidResourceHandle, "is no graph");
    OK(cudaSetDevice(1));
    cudaStream_t other = create_stream();
    REFUSED(cudaGraphLaunch(exec, other), cudaErrorInvalidValue, "a graph of GPU 0 on a stream of GPU 1");
    OK(cudaStreamDestroy(other));
    OK(cudaGraphExecDestroy(exec));
    REFUSED(cudaGraphExecDestroy(exec), cudaErrorInvalidResourceHandle, "no executable graph");
    REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidResourceHandle, "no executable graph");
    OK(cudaStreamDestroy(stream));
}

/* ---- what breaks a capture ---- */

struct rig {
    cudaStream_t stream, other;
    cudaEvent_t event, recorded;
    cudaGraphExec_t exec;
    int *device;
    uint32_t *pinned;
};

static cudaError_t call_malloc(struct rig *rig)
{
    (void)rig;
    void *p;
    return cudaMalloc(&p, 4);
}
static cudaError_t call_malloc_host(struct rig *rig)
{
    (void)rig;
    void *p;
    return cudaMallocHost(&p, 4);
}
static cudaError_t call_free(struct rig *rig)
{
    return cudaFree(rig->device);
}
static cudaError_t call_free_host(struct rig *rig)
{
    return cudaFreeHost(rig->pinned);
}
static cudaError_t call_device_synchronize(struct rig *rig)
{
    (void)rig;
    return cudaDeviceSynchronize();
}
static cudaError_t call_stream_synchronize(struct rig *rig)
{
    return cudaStreamSynchronize(rig->stream);
}
static cudaError_t call_other_synchronize(struct rig *rig)
{
    return cudaStreamSynchronize(rig->other);
}
static cudaError_t call_stream_query(struct rig *rig)
{
    return cudaStreamQuery(rig->stream);
}
static cudaError_t call_stream_destroy(struct rig *rig)
{
    return cudaStreamDestroy(rig->stream);
}
static cudaError_t call_event_query(struct rig *rig)
{
    return cudaEventQuery(rig->event);
}
static cudaError_t call_event_synchronize(struct rig *rig)
{
    return cudaEventSynchronize(rig->event);
}
static cudaError_t call_elapsed_time(struct rig *rig)
{
    float ms;
    return cudaEventElapsedTime(&ms, rig->recorded, rig->recorded);
}
static cudaError_t call_wait_outside(struct rig *rig)
{
    return cudaStreamWaitEvent(rig->stream, rig->recorded, 0);
}
static cudaError_t call_memcpy(struct rig *rig)
{
    return cudaMemcpy(rig->device, rig->pinned, 4, cudaMemcpyHostToDevice);
}
static cudaError_t call_memset(struct rig *rig)
{
    return cudaMemset(rig->device, 0, 4);
}
static cudaError_t call_from_pageable(struct rig *rig)
{
    int value = 0;
    return cudaMemcpyAsync(rig->device, &value, 4, cudaMemcpyHostToDevice, rig->stream);
}
static cudaError_t call_to_pageable(struct rig *rig)
{
    int value = 0;
    return cudaMemcpyAsync(&value, rig->device, 4, cudaMemcpyDeviceToHost, rig->stream);
}
static cudaError_t call_legacy_launch(struct rig *rig)
{
    return launch_fill(rig->device, 1, 1, NULL);
}
static cudaError_t call_legacy_copy(struct rig *rig)
{
    return cudaMemcpyAsync(rig->device, rig->pinned, 4, cudaMemcpyHostToDevice, NULL);
}
static cudaError_t call_legacy_record(struct rig *rig)
{
    return cudaEventRecord(rig->event, NULL);
}
static cudaError_t call_legacy_synchronize(struct rig *rig)
{
    (void)rig;
    return cudaStreamSynchronize(NULL);
}
static cudaError_t call_graph_launch(struct rig *rig)
{
    return cudaGraphLaunch(rig->exec, rig->stream);
}

static const struct forbidden {
    const char *name;
    cudaError_t (*call)(struct rig *rig);
    cudaError_t error;
} forbidden[] = {
    {"malloc", call_malloc, cudaErrorStreamCaptureUnsupported},
    {"malloc host", call_malloc_host, cudaErrorStreamCaptureUnsupported},
    {"free", call_free, cudaErrorStreamCaptureUnsupported},
    {"free host", call_free_host, cudaErrorStreamCaptureUnsupported},
    {"device synchronize", call_device_synchronize, cudaErrorStreamCaptureUnsupported},
    {"stream synchronize", call_stream_synchronize, cudaErrorStreamCaptureUnsupported},
    {"other stream synchronize", call_other_synchronize, cudaErrorStreamCaptureUnsupported},
    {"stream query", call_stream_query, cudaErrorStreamCaptureUnsupported},
    {"stream destroy", call_stream_destroy, cudaErrorStreamCaptureUnsupported},
    {"event query", call_event_query, cudaErrorStreamCaptureUnsupported},
    {"event synchronize", call_event_synchronize, cudaErrorStreamCaptureUnsupported},
    {"elapsed time", call_elapsed_time, cudaErrorStreamCaptureUnsupported},
    {"wait for an event outside", call_wait_outside, cudaErrorStreamCaptureIsolation},
    {"memcpy", call_memcpy, cudaErrorStreamCaptureUnsupported},
    {"memset", call_memset, cudaErrorStreamCaptureUnsupported},
    {"copy from pageable", call_from_pageable, cudaErrorStreamCaptureUnsupported},
    {"copy to pageable", call_to_pageable, cudaErrorStreamCaptureUnsupported},
    {"legacy launch", call_legacy_launch, cudaErrorStreamCaptureUnsupported},
    {"legacy copy", call_legacy_copy, cudaErrorStreamCaptureUnsupported},
    {"legacy record", call_legacy_record, cudaErrorStreamCaptureUnsupported},
    {"legacy synchronize", call_legacy_synchronize, cudaErrorStreamCaptureUnsupported},
    {"graph launch", call_graph_launch, cudaErrorStreamCaptureUnsupported},
};

static struct rig create_rig(void)
{
    struct rig rig = {.stream = create_stream(), .other = create_stream()};
    OK(cudaEventCreateWithFlags(&rig.event, cudaEventDefault));
    OK(cudaEventCreateWithFlags(&rig.recorded, cudaEventDefault));
    OK(cudaEventRecord(rig.recorded, rig.other));
    OK(cudaStreamSynchronize(rig.other));
    begin(rig.stream);
    rig.exec = end_and_instantiate(rig.stream);
    rig.device = alloc_ints(1);
    rig.pinned = alloc_flag();
    return rig;
}

static void destroy_rig(struct rig *rig)
{
    OK(cudaStreamDestroy(rig->stream));
    OK(cudaStreamDestroy(rig->other));
    OK(cudaEventDestroy(rig->event));
    OK(cudaEventDestroy(rig->recorded));
    OK(cudaGraphExecDestroy(rig->exec));
    OK(cudaFree(rig->device));
    OK(cudaFreeHost(rig->pinned));
}

static enum cudaStreamCaptureStatus status_of(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status;
    OK(cudaStreamIsCapturing(stream, &status));
    return status;
}

static void expect_broken(struct rig *rig)
{
    cudaGraph_t graph = (cudaGraph_t)rig;
    assert_int_equal(status_of(rig->stream), cudaStreamCaptureStatusInvalidated);
    EXPECT(launch_fill(rig->device, 1, 1, rig->stream), cudaErrorStreamCaptureInvalidated);
    EXPECT(cudaEventRecord(rig->event, rig->stream), cudaErrorStreamCaptureInvalidated);
    REFUSED(cudaStreamEndCapture(rig->stream, &graph), cudaErrorStreamCaptureInvalidated, "was broken");
    assert_null(graph);
    assert_int_equal(status_of(rig->stream), cudaStreamCaptureStatusNone);
}

static void forbidden_calls_break_the_capture(void **state)
{
    (void)state;
    struct rig rig = create_rig();
    static const enum cudaStreamCaptureMode modes[] = {cudaStreamCaptureModeGlobal,
                                                       cudaStreamCaptureModeThreadLocal};
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
            OK(cudaStreamBeginCapture(rig.stream, modes[m]));
            OK(launch_fill(rig.device, 1, 5, rig.stream));
            assert_int_equal(status_of(rig.stream), cudaStreamCaptureStatusActive);
            cudaError_t error = forbidden[i].call(&rig);
            if (error != forbidden[i].error)
                fail_msg("%s: %s: %s", forbidden[i].name, cudaGetErrorName(error), cudaGetErrorString(error));
            assert_int_equal(cudaGetLastError(), error);
            expect_broken(&rig);
        }
    OK(launch_fill(rig.device, 1, 6, rig.stream)); /* the stream is as before */
    OK(cudaStreamSynchronize(rig.stream));
    assert_int_equal(read_int(rig.device), 6);
    destroy_rig(&rig);
}

/* Each start of the GPUs loads kernels anew; a GPU's loading is not another's. */
static void captures_load_no_kernel(void **state)
{
    (void)state;
    struct cudaFuncAttributes attributes;
    qd_emu_shutdown();
    OK(cudaSetDevice(1));
    OK(cudaFuncGetAttributes(&attributes, runtime_kernel(RUNTIME_FILL)));
    OK(cudaSetDevice(0));
    cudaStream_t stream = create_stream();
    cudaGraph_t graph;
    int *p = alloc_ints(1);
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    REFUSED(launch_fill(p, 1, 5, stream), cudaErrorStreamCaptureUnsupported, "the first launch of");
    REFUSED(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated, "was broken");
    OK(launch_fill(p, 1, 6, stream));
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    OK(launch_fill(p, 1, 5, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphDestroy(graph));
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(p));
}

static void relaxed_captures_forbid_only_their_own_stream(void **state)
{
    (void)state;
    struct rig rig = create_rig();
    cudaGraph_t graph;
    OK(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeRelaxed));
    OK(launch_fill(rig.device, 1, 5, rig.stream));
    OK(call_event_query(&rig));
    OK(call_memcpy(&rig));
    OK(call_other_synchronize(&rig));
    OK(call_legacy_launch(&rig));
    int *p = alloc_ints(1);
    OK(cudaStreamSynchronize(NULL));
    assert_int_equal(status_of(rig.stream), cudaStreamCaptureStatusActive);
    OK(cudaStreamEndCapture(rig.stream, &graph));
    OK(cudaGraphDestroy(graph));
    OK(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeRelaxed));
    EXPECT(call_stream_synchronize(&rig), cudaErrorStreamCaptureUnsupported);
    expect_broken(&rig);
    OK(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeRelaxed));
    EXPECT(call_device_synchronize(&rig), cudaErrorStreamCaptureUnsupported);
    expect_broken(&rig);
    OK(cudaFree(p));
    destroy_rig(&rig);
}

/* ---- captures and threads ---- */

static void *allocate_elsewhere(void *result)
{
    void *p = NULL;
    cudaError_t *error = result;
    *error = cudaMalloc(&p, 4);
    if (*error == cudaSuccess) *error = cudaFree(p);
    return NULL;
}

static void *end_elsewhere(void *argument)
{
    cudaGraph_t graph;
    static cudaError_t error;
    error = cudaStreamEndCapture(argument, &graph);
    return &error;
}

static void *on_another_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    void *result;
    assert_int_equal(pthread_create(&thread, NULL, run, argument), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    return result;
}

static void modes_say_which_threads_a_capture_binds(void **state)
{
    (void)state;
    struct rig rig = create_rig();
    cudaGraph_t graph;
    cudaError_t error;
    begin(rig.stream);
    on_another_thread(allocate_elsewhere, &error);
    EXPECT(error, cudaSuccess);
    OK(cudaStreamEndCapture(rig.stream, &graph));
    OK(cudaGraphDestroy(graph));
    OK(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeGlobal));
    on_another_thread(allocate_elsewhere, &error);
    EXPECT(error, cudaErrorStreamCaptureUnsupported);
    expect_broken(&rig);

    begin(rig.stream);
    EXPECT(*(cudaError_t *)on_another_thread(end_elsewhere, rig.stream), cudaErrorStreamCaptureWrongThread);
    expect_broken(&rig);
    OK(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeRelaxed));
    EXPECT(*(cudaError_t *)on_another_thread(end_elsewhere, rig.stream), cudaSuccess);
    assert_int_equal(status_of(rig.stream), cudaStreamCaptureStatusNone);
    char text[1024];
    assert_int_equal(qd_emu_leaks(text, sizeof text), 8); /* the rig's seven and the graph nobody destroyed */
    ASSERT_CONTAINS(text, "graph on GPU 0\n");
    destroy_rig(&rig);
    qd_emu_shutdown();
}

static void *launch_on_legacy(void *result)
{
    *(cudaError_t *)result = launch_fill(NULL, 0, 1, NULL);
    return NULL;
}

static void blocking_streams_that_capture_exclude_the_legacy_stream(void **state)
{
    (void)state;
    struct rig rig = create_rig();
    cudaError_t error;
    begin(rig.stream);
    on_another_thread(launch_on_legacy, &error);
    EXPECT(error, cudaSuccess); /* the capturing stream does not block it */
    cudaGraph_t graph;
    OK(cudaStreamEndCapture(rig.stream, &graph));
    OK(cudaGraphDestroy(graph));
    OK(cudaStreamDestroy(rig.stream));
    OK(cudaStreamCreateWithFlags(&rig.stream, cudaStreamDefault));
    begin(rig.stream);
    on_another_thread(launch_on_legacy, &error);
    EXPECT(error, cudaErrorStreamCaptureImplicit);
    expect_broken(&rig);
    destroy_rig(&rig);
}

static void captures_begin_and_end_once(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaGraph_t graph = NULL;
    REFUSED(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState, "does not capture");
    REFUSED(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeGlobal), cudaErrorStreamCaptureUnsupported,
            "legacy stream");
    REFUSED(cudaStreamBeginCapture(stream, (enum cudaStreamCaptureMode)3), cudaErrorInvalidValue, "mode 3");
    begin(stream);
    REFUSED(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaErrorIllegalState, "already");
    assert_int_equal(status_of(NULL), cudaStreamCaptureStatusNone);
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphDestroy(graph));
    begin(stream); /* and shutdown ends one that is open */
    qd_emu_shutdown();
}

static void a_capture_ends_on_a_gpu_that_failed(void **state)
{
    (void)state;
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.stall_ms = 20;
    qd_emu_set_mode(&mode);
    struct rig rig = create_rig();
    cudaGraph_t graph = (cudaGraph_t)&rig;
    OK(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeRelaxed));
    OK(launch_hold(rig.pinned, rig.other)); /* for ever */
    EXPECT(cudaStreamSynchronize(rig.other), cudaErrorLaunchFailure);
    EXPECT(launch_fill(rig.device, 1, 1, rig.stream), cudaErrorLaunchFailure);
    EXPECT(cudaStreamEndCapture(rig.stream, &graph), cudaErrorLaunchFailure);
    assert_null(graph);
    EXPECT(cudaStreamDestroy(rig.stream), cudaErrorLaunchFailure); /* is done all the same */
    REFUSED(cudaStreamDestroy(rig.stream), cudaErrorInvalidResourceHandle, "no stream to destroy");
    qd_emu_shutdown();
}

static void events_of_a_capture_belong_to_it(void **state)
{
    (void)state;
    struct rig rig = create_rig();
    begin(rig.stream);
    OK(cudaEventRecord(rig.event, rig.stream));
    OK(cudaStreamWaitEvent(rig.stream, rig.event, 0));
    REFUSED(cudaStreamWaitEvent(rig.other, rig.event, 0), cudaErrorCapturedEvent, "an event of a capture");
    assert_int_equal(status_of(rig.stream), cudaStreamCaptureStatusActive);
    cudaGraphExec_t exec = end_and_instantiate(rig.stream);
    REFUSED(cudaEventQuery(rig.event), cudaErrorCapturedEvent, "recorded in a capture");
    REFUSED(cudaEventSynchronize(rig.event), cudaErrorCapturedEvent, "recorded in a capture");
    begin(rig.stream); /* an event of an earlier capture is none of this one's */
    REFUSED(cudaStreamWaitEvent(rig.stream, rig.event, 0), cudaErrorStreamCaptureIsolation, "from outside");
    expect_broken(&rig);
    OK(cudaEventRecord(rig.event, rig.stream)); /* for real again */
    OK(cudaEventSynchronize(rig.event));
    OK(cudaGraphExecDestroy(exec));
    destroy_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(graphs_replay_captured_arguments),
        RUNTIME_TEST(graphs_keep_their_order_in_random_mode),
        RUNTIME_TEST(graphs_can_be_destroyed_while_they_run),
        RUNTIME_TEST(empty_graphs_do_nothing),
        RUNTIME_TEST(graphs_of_freed_memory_are_refused),
        RUNTIME_TEST(graphs_stay_on_their_gpu_and_handles_are_checked),
        RUNTIME_TEST(forbidden_calls_break_the_capture),
        RUNTIME_TEST(captures_load_no_kernel),
        RUNTIME_TEST(relaxed_captures_forbid_only_their_own_stream),
        RUNTIME_TEST(modes_say_which_threads_a_capture_binds),
        RUNTIME_TEST(blocking_streams_that_capture_exclude_the_legacy_stream),
        RUNTIME_TEST(captures_begin_and_end_once),
        RUNTIME_TEST(a_capture_ends_on_a_gpu_that_failed),
        RUNTIME_TEST(events_of_a_capture_belong_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

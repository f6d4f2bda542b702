#include <pthread.h>

#include "tests/emu/runtime_kernels.h"

/* ---- replay ---- */

/* A capture takes only kernels that its GPU has loaded, which a launch does. */
static void load_kernels(void)
{
    uint32_t *set = alloc_flag();
    int *p = alloc_ints(2);
    set_flag(set);
    OK(launch_fill(p, 2, 0, NULL));
    OK(launch_twice(p, p + 1, 1, NULL));
    OK(launch_hold(set, NULL));
    OK(cudaFree(p));
    OK(cudaFreeHost(set));
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

static void graphs_stay_on_their_gpu(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    begin(stream);
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    OK(cudaSetDevice(1));
    cudaStream_t other = create_stream();
    REFUSED(cudaGraphLaunch(exec, other), cudaErrorInvalidValue, "a graph of GPU 0 on a stream of GPU 1");
    OK(cudaStreamDestroy(other));
    OK(cudaGraphExecDestroy(exec));
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
static cudaError_t call_event_record(struct rig *rig)
{
    return cudaEventRecord(rig->event, rig->stream);
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
} forbidden[] = {
    {"malloc", call_malloc},
    {"malloc host", call_malloc_host},
    {"free", call_free},
    {"free host", call_free_host},
    {"device synchronize", call_device_synchronize},
    {"stream synchronize", call_stream_synchronize},
    {"other stream synchronize", call_other_synchronize},
    {"stream query", call_stream_query},
    {"stream destroy", call_stream_destroy},
    {"event query", call_event_query},
    {"event synchronize", call_event_synchronize},
    {"elapsed time", call_elapsed_time},
    {"memcpy", call_memcpy},
    {"memset", call_memset},
    {"copy from pageable", call_from_pageable},
    {"copy to pageable", call_to_pageable},
    {"event record", call_event_record},
    {"legacy launch", call_legacy_launch},
    {"legacy copy", call_legacy_copy},
    {"legacy record", call_legacy_record},
    {"legacy synchronize", call_legacy_synchronize},
    {"graph launch", call_graph_launch},
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

static void expect_broken(struct rig *rig)
{
    cudaGraph_t graph = (cudaGraph_t)rig;
    EXPECT(launch_fill(rig->device, 1, 1, rig->stream), cudaErrorStreamCaptureInvalidated);
    EXPECT(cudaEventRecord(rig->event, rig->stream), cudaErrorStreamCaptureInvalidated);
    REFUSED(cudaStreamEndCapture(rig->stream, &graph), cudaErrorStreamCaptureInvalidated, "was broken");
    assert_null(graph);
}

static void forbidden_calls_break_the_capture(void **state)
{
    (void)state;
    struct rig rig = create_rig();
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        begin(rig.stream);
        OK(launch_fill(rig.device, 1, 5, rig.stream));
        cudaError_t error = forbidden[i].call(&rig);
        if (error != cudaErrorStreamCaptureUnsupported)
            fail_msg("%s: %d: %s", forbidden[i].name, (int)error, cudaGetErrorString(error));
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
    load_kernels();
    qd_emu_shutdown();
    OK(cudaSetDevice(1));
    load_kernels();
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

static void a_capture_binds_its_thread_only(void **state)
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
    begin(rig.stream);
    EXPECT(*(cudaError_t *)on_another_thread(end_elsewhere, rig.stream), cudaErrorStreamCaptureWrongThread);
    expect_broken(&rig);
    destroy_rig(&rig);
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
    EXPECT(error, cudaErrorStreamCaptureUnsupported);
    expect_broken(&rig);
    destroy_rig(&rig);
}

static void captures_begin_and_end_once(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    cudaGraph_t graph = NULL;
    REFUSED(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState, "does not capture");
    REFUSED(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeThreadLocal), cudaErrorStreamCaptureUnsupported,
            "legacy stream");
    cudaStream_t other = create_stream();
    begin(stream);
    REFUSED(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaErrorIllegalState,
            "the stream already");
    REFUSED(cudaStreamBeginCapture(other, cudaStreamCaptureModeThreadLocal), cudaErrorIllegalState,
            "the thread already");
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphDestroy(graph));
    begin(stream); /* and shutdown ends one that is open */
    qd_emu_shutdown();
}

static void *synchronize_elsewhere(void *argument)
{
    static cudaError_t error;
    error = cudaStreamSynchronize(argument);
    return &error;
}

static void a_capture_ends_on_a_gpu_that_failed(void **state)
{
    (void)state;
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.stall_ms = 20;
    qd_emu_set_mode(&mode);
    struct rig rig = create_rig();
    cudaGraph_t graph = (cudaGraph_t)&rig;
    begin(rig.stream);
    OK(launch_hold(rig.pinned, rig.other)); /* for ever */
    EXPECT(*(cudaError_t *)on_another_thread(synchronize_elsewhere, rig.other), cudaErrorLaunchFailure);
    EXPECT(launch_fill(rig.device, 1, 1, rig.stream), cudaErrorLaunchFailure);
    EXPECT(cudaStreamEndCapture(rig.stream, &graph), cudaErrorLaunchFailure);
    assert_null(graph);
    EXPECT(cudaStreamDestroy(rig.stream), cudaErrorLaunchFailure); /* is done all the same */
    qd_emu_shutdown();
    OK(cudaEventDestroy(rig.event));
    OK(cudaEventDestroy(rig.recorded));
    OK(cudaGraphExecDestroy(rig.exec));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(graphs_replay_captured_arguments),
        RUNTIME_TEST(graphs_keep_their_order_in_random_mode),
        RUNTIME_TEST(graphs_can_be_destroyed_while_they_run),
        RUNTIME_TEST(empty_graphs_do_nothing),
        RUNTIME_TEST(graphs_stay_on_their_gpu),
        RUNTIME_TEST(forbidden_calls_break_the_capture),
        RUNTIME_TEST(captures_load_no_kernel),
        RUNTIME_TEST(a_capture_binds_its_thread_only),
        RUNTIME_TEST(blocking_streams_that_capture_exclude_the_legacy_stream),
        RUNTIME_TEST(captures_begin_and_end_once),
        RUNTIME_TEST(a_capture_ends_on_a_gpu_that_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

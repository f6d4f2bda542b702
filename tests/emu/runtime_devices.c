#include <pthread.h>

#include "tests/emu/runtime_kernels.h"

static void *get_current(void *argument)
{
    static int device;
    (void)argument;
    if (cudaGetDevice(&device) != cudaSuccess) return NULL;
    return &device;
}

static void gpus_are_counted_and_chosen_by_each_thread(void **state)
{
    (void)state;
    int count = 0, device = -1;
    OK(cudaGetDeviceCount(&count));
    assert_int_equal(count, 8);
    OK(cudaGetDevice(&device));
    assert_int_equal(device, 0);
    OK(cudaSetDevice(7));
    OK(cudaGetDevice(&device));
    assert_int_equal(device, 7);
    REFUSED(cudaSetDevice(8), cudaErrorInvalidDevice, "GPU 8 of 8");
    REFUSED(cudaSetDevice(-1), cudaErrorInvalidDevice, "GPU -1 of 8");
    pthread_t thread;
    void *other;
    assert_int_equal(pthread_create(&thread, NULL, get_current, NULL), 0);
    assert_int_equal(pthread_join(thread, &other), 0);
    assert_int_equal(*(int *)other, 0);

    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.n = QD_EMU_MAX_DEVICES + 1}), -1);
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.n = -2}), -1);
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.n = 2}), 0);
    OK(cudaGetDeviceCount(&count));
    assert_int_equal(count, 2);
    void *p;
    REFUSED(cudaMalloc(&p, 1), cudaErrorInvalidDevice, "GPU 7 of 2"); /* is still current */
    OK(cudaSetDevice(1));
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.n = -1}), 0);
    REFUSED(cudaGetDeviceCount(&count), cudaErrorNoDevice, "no emulated GPU");
    assert_int_equal(count, 0);
    REFUSED(cudaMalloc(&p, 1), cudaErrorNoDevice, "no emulated GPU");
}

static void gpus_describe_themselves(void **state)
{
    (void)state;
    static const struct {
        enum cudaDeviceAttr attribute;
        int value;
    } attributes[] = {
        {cudaDevAttrMultiProcessorCount, QD_EMU_N_SMS},
        {cudaDevAttrL2CacheSize, 41943040},
        {cudaDevAttrComputeCapabilityMajor, 8},
        {cudaDevAttrComputeCapabilityMinor, 0},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, 166912},
    };
    struct cudaDeviceProp prop;
    int value;
    OK(cudaGetDeviceProperties(&prop, 3));
    ASSERT_CONTAINS(prop.name, "emulated");
    assert_int_equal(prop.major * 10 + prop.minor, 80);
    assert_int_equal(prop.sharedMemPerBlock, 49152);
    assert_int_equal(prop.sharedMemPerBlockOptin, 166912);
    assert_int_equal(prop.sharedMemPerMultiprocessor, 167936);
    assert_int_equal(prop.pciBusID, 3);
    assert_int_equal(prop.multiProcessorCount, QD_EMU_N_SMS);
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++) {
        OK(cudaDeviceGetAttribute(&value, attributes[i].attribute, 3));
        assert_int_equal(value, attributes[i].value);
    }
    REFUSED(cudaDeviceGetAttribute(&value, (enum cudaDeviceAttr)12345, 0), cudaErrorInvalidValue, "12345");
    REFUSED(cudaDeviceGetAttribute(&value, cudaDevAttrL2CacheSize, 8), cudaErrorInvalidDevice, "GPU 8 of 8");
    REFUSED(cudaGetDeviceProperties(&prop, 8), cudaErrorInvalidDevice, "GPU 8 of 8");
}

static void peer_access_is_enabled_once(void **state)
{
    (void)state;
    int can = -1;
    OK(cudaDeviceCanAccessPeer(&can, 0, 1));
    assert_int_equal(can, 1);
    OK(cudaDeviceCanAccessPeer(&can, 1, 1));
    assert_int_equal(can, 0);
    REFUSED(cudaDeviceCanAccessPeer(&can, 0, 8), cudaErrorInvalidDevice, "GPU 8 of 8");
    OK(cudaDeviceEnablePeerAccess(1, 0));
    REFUSED(cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled, "GPU 0 already has access");
    REFUSED(cudaDeviceEnablePeerAccess(0, 0), cudaErrorInvalidDevice, "its own peer");
    REFUSED(cudaDeviceEnablePeerAccess(2, 1), cudaErrorInvalidDevice, "or flags");
    REFUSED(cudaDeviceEnablePeerAccess(8, 0), cudaErrorInvalidDevice, "GPU 8 of 8");
    qd_emu_shutdown(); /* forgets it */
    OK(cudaDeviceEnablePeerAccess(1, 0));
    qd_emu_shutdown();
}

static void memory_of_others_needs_peer_access(void **state)
{
    (void)state;
    int *mine = alloc_ints(1), n = 1;
    OK(cudaSetDevice(1));
    int *theirs = alloc_ints(1);
    OK(launch_fill(theirs, 1, 6, NULL));
    OK(cudaDeviceSynchronize());
    OK(cudaSetDevice(0));
    struct runtime_peers peers = {.n = 1, .values = {theirs}};
    int host = 0;
    REFUSED(cudaMemcpy(mine, theirs, 4, cudaMemcpyDeviceToDevice), cudaErrorPeerAccessNotEnabled,
            "source points to memory of GPU 1, to which GPU 0 has no access");
    REFUSED(cudaMemcpy(theirs, &host, 4, cudaMemcpyHostToDevice), cudaErrorPeerAccessNotEnabled,
            "destination points to memory of GPU 1");
    REFUSED(cudaMemset(theirs, 0, 4), cudaErrorPeerAccessNotEnabled, "destination points to memory of GPU 1");
    REFUSED(launch_twice(theirs, mine, n, NULL), cudaErrorPeerAccessNotEnabled,
            "an argument points to memory of");
    REFUSED(launch_one(RUNTIME_SUM, (void *[]){&peers, &mine}, 0, NULL), cudaErrorPeerAccessNotEnabled,
            "an argument points to memory of GPU 1");

    OK(cudaDeviceEnablePeerAccess(1, 0));
    OK(launch_twice(theirs, mine, n, NULL));
    assert_int_equal(read_int(mine), 12);
    OK(launch_one(RUNTIME_SUM, (void *[]){&peers, &mine}, 0, NULL));
    assert_int_equal(read_int(mine), 6);
    OK(cudaMemcpy(theirs, mine, 4, cudaMemcpyDeviceToDevice));
    OK(cudaSetDevice(1)); /* access goes one way */
    REFUSED(cudaMemcpy(theirs, mine, 4, cudaMemcpyDefault), cudaErrorPeerAccessNotEnabled, "memory of GPU 0");
    OK(cudaFree(mine)); /* needs none */
    OK(cudaFree(theirs));
}

static void launches_belong_to_the_current_gpu(void **state)
{
    (void)state;
    cudaStream_t stream = create_stream();
    int *a = alloc_ints(1), value = 3;
    OK(cudaSetDevice(1));
    REFUSED(launch_fill(a, 1, 1, stream), cudaErrorInvalidResourceHandle,
            "stream of GPU 0 while GPU 1 is current");
    /* copies, waits and questions go by the stream */
    OK(cudaMemcpyAsync(a, &value, sizeof value, cudaMemcpyHostToDevice, stream));
    OK(cudaStreamSynchronize(stream));
    OK(cudaStreamQuery(stream));
    value = 0;
    OK(cudaMemcpyAsync(&value, a, sizeof value, cudaMemcpyDeviceToHost, stream));
    assert_int_equal(value, 3);
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(a));
}

/* ---- several at once ---- */

static void enable_all_peers(int n)
{
    for (int d = 0; d < n; d++) {
        OK(cudaSetDevice(d));
        for (int peer = 0; peer < n; peer++)
            if (peer != d) OK(cudaDeviceEnablePeerAccess(peer, 0));
    }
}

static void kernels_of_several_gpus_meet(void **state)
{
    (void)state;
    enum { N = 8 };
    uint32_t *flags[N];
    enable_all_peers(N);
    for (int round = 0; round < 3; round++) {
        for (int d = 0; d < N; d++) {
            OK(cudaSetDevice(d));
            flags[d] = (uint32_t *)alloc_ints(1);
            OK(cudaMemset(flags[d], 0, 4));
        }
        for (int d = 0; d < N; d++) {
            uint32_t *mine = flags[d], *next = flags[(d + 1) % N];
            OK(cudaSetDevice(d));
            OK(cudaDeviceSynchronize());
            OK(launch_one(RUNTIME_MEET, (void *[]){&mine, &next}, 0, NULL));
        }
        for (int d = 0; d < N; d++) {
            OK(cudaSetDevice(d));
            OK(cudaDeviceSynchronize());
        }
        for (int d = 0; d < N; d++) OK(cudaFree(flags[d])); /* now that nobody looks at it any more */
    }
}

/* ---- a host thread for each GPU ---- */

enum { N_RANKS = 8, N_ROUNDS = 20 };

struct rank {
    int device;
    cudaError_t error;
    int last; /* what the rank's kernels made */
};

#define RANK_TRY(call)                                                                                       \
    do {                                                                                                     \
        rank->error = (call);                                                                                \
        if (rank->error != cudaSuccess) return NULL;                                                         \
    } while (0)

/* A step captured and replayed, beside allocations, events and queries of all the others. */
static void *run_rank(void *argument)
{
    struct rank *rank = argument;
    cudaStream_t stream;
    cudaEvent_t event;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    void *a, *b, *pinned;
    RANK_TRY(cudaSetDevice(rank->device));
    RANK_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    RANK_TRY(cudaEventCreateWithFlags(&event, cudaEventDefault));
    RANK_TRY(cudaMalloc(&a, sizeof(int)));
    RANK_TRY(cudaMalloc(&b, sizeof(int)));
    RANK_TRY(cudaMallocHost(&pinned, sizeof(int)));
    RANK_TRY(launch_twice(a, b, 1, stream)); /* loads the kernel, which a capture may not */
    RANK_TRY(cudaStreamSynchronize(stream));
    RANK_TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    RANK_TRY(cudaMemcpyAsync(a, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
    RANK_TRY(launch_twice(a, b, 1, stream));
    RANK_TRY(cudaMemcpyAsync(pinned, b, sizeof(int), cudaMemcpyDeviceToHost, stream));
    RANK_TRY(cudaStreamEndCapture(stream, &graph));
    RANK_TRY(cudaGraphInstantiate(&exec, graph, 0));
    *(int *)pinned = rank->device + 1;
    for (int round = 0; round < N_ROUNDS; round++) {
        void *scratch;
        RANK_TRY(cudaGraphLaunch(exec, stream));
        RANK_TRY(cudaEventRecord(event, stream));
        RANK_TRY(cudaMalloc(&scratch, 100));
        while ((rank->error = cudaEventQuery(event)) == cudaErrorNotReady) {
        }
        RANK_TRY(rank->error);
        RANK_TRY(cudaFree(scratch));
    }
    RANK_TRY(cudaStreamSynchronize(stream));
    rank->last = *(int *)pinned;
    RANK_TRY(cudaGraphExecDestroy(exec));
    RANK_TRY(cudaGraphDestroy(graph));
    RANK_TRY(cudaEventDestroy(event));
    RANK_TRY(cudaStreamDestroy(stream));
    RANK_TRY(cudaFree(a));
    RANK_TRY(cudaFree(b));
    RANK_TRY(cudaFreeHost(pinned));
    return NULL;
}

static void host_threads_drive_a_gpu_each(void **state)
{
    (void)state;
    pthread_t threads[N_RANKS];
    struct rank ranks[N_RANKS];
    for (int r = 0; r < N_RANKS; r++) {
        ranks[r] = (struct rank){.device = r};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &ranks[r]), 0);
    }
    for (int r = 0; r < N_RANKS; r++) assert_int_equal(pthread_join(threads[r], NULL), 0);
    for (int r = 0; r < N_RANKS; r++) {
        EXPECT(ranks[r].error, cudaSuccess);
        assert_int_equal(ranks[r].last, (r + 1) << N_ROUNDS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(gpus_are_counted_and_chosen_by_each_thread),
        RUNTIME_TEST(gpus_describe_themselves),
        RUNTIME_TEST(peer_access_is_enabled_once),
        RUNTIME_TEST(memory_of_others_needs_peer_access),
        RUNTIME_TEST(launches_belong_to_the_current_gpu),
        RUNTIME_TEST(kernels_of_several_gpus_meet),
        RUNTIME_TEST(host_threads_drive_a_gpu_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

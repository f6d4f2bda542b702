/* Small kernels that the tests of the emulated runtime launch, and how those tests expect results. */
#ifndef QD_TESTS_EMU_RUNTIME_KERNELS_H
#define QD_TESTS_EMU_RUNTIME_KERNELS_H

#include <cuda_runtime.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { RUNTIME_MAX_PEERS = 4 };
/* An argument that is a structure with pointers in it. */
struct runtime_peers {
    int n;
    const int *values[RUNTIME_MAX_PEERS]; /* one value each */
};

enum runtime_kernel {
    RUNTIME_FILL,     /* (int *out, int n, int value): out[i] = value */
    RUNTIME_TWICE,    /* (const int *in, int *out, int n): out[i] = 2 * in[i] */
    RUNTIME_HOLD,     /* (const uint32_t *flag): returns once *flag is not 0 */
    RUNTIME_MEET,     /* (uint32_t *mine, const uint32_t *other): sets mine, returns once other is set */
    RUNTIME_WRITE_AT, /* (int *p, uint64_t index, int value): p[index] = value */
    RUNTIME_SUM,      /* (struct runtime_peers peers, int *out): *out = sum of the values */
    RUNTIME_SHARED, /* (int *out, uint64_t bytes): writes and reads the last byte of dynamic shared memory */
    RUNTIME_SHARED_BESIDE, /* the same, with 4 KiB of static shared memory beside it */
};
/* The kernel's address, registered with the emulator. */
const void *runtime_kernel(enum runtime_kernel which);

#ifdef __cplusplus
}
#else

#include "kernels/emu/mode.h"
#include "tests/support/test.h"

#define EXPECT(call, code)                                                                                   \
    do {                                                                                                     \
        cudaError_t expect_error_ = (call);                                                                  \
        if (expect_error_ != (code))                                                                         \
            fail_msg("%s: %d (%s), expected %s", #call, (int)expect_error_,                                  \
                     cudaGetErrorString(expect_error_), #code);                                              \
    } while (0)
#define OK(call) EXPECT(call, cudaSuccess)
/* The refusal and a part of its text. */
#define REFUSED(call, code, text)                                                                            \
    do {                                                                                                     \
        EXPECT(call, code);                                                                                  \
        ASSERT_CONTAINS(cudaGetErrorString(code), text);                                                     \
        assert_int_equal(cudaGetLastError(), code);                                                          \
    } while (0)

static inline cudaError_t launch_one(enum runtime_kernel which, void **args, size_t shared_bytes,
                                     cudaStream_t stream)
{
    dim3 one = {1, 1, 1};
    return cudaLaunchKernel(runtime_kernel(which), one, one, args, shared_bytes, stream);
}

static inline cudaError_t launch_fill(int *out, int n, int value, cudaStream_t stream)
{
    return launch_one(RUNTIME_FILL, (void *[]){&out, &n, &value}, 0, stream);
}

static inline cudaError_t launch_twice(const int *in, int *out, int n, cudaStream_t stream)
{
    return launch_one(RUNTIME_TWICE, (void *[]){(void *)&in, &out, &n}, 0, stream);
}

static inline cudaError_t launch_hold(const uint32_t *flag, cudaStream_t stream)
{
    return launch_one(RUNTIME_HOLD, (void *[]){(void *)&flag}, 0, stream);
}

static inline cudaError_t launch_write_at(int *p, uint64_t index, int value, cudaStream_t stream)
{
    return launch_one(RUNTIME_WRITE_AT, (void *[]){&p, &index, &value}, 0, stream);
}

/* Lets a RUNTIME_HOLD go on. */
static inline void set_flag(uint32_t *flag)
{
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

static inline int *alloc_ints(int n)
{
    void *p;
    OK(cudaMalloc(&p, (size_t)n * sizeof(int)));
    return p;
}

static inline int read_int(const int *p)
{
    int value;
    OK(cudaMemcpy(&value, p, sizeof value, cudaMemcpyDeviceToHost));
    return value;
}

/* A flag in host memory that kernels can read, not set. */
static inline uint32_t *alloc_flag(void)
{
    void *p;
    OK(cudaMallocHost(&p, sizeof(uint32_t)));
    memset(p, 0, sizeof(uint32_t));
    return p;
}

static inline cudaStream_t create_stream(void)
{
    cudaStream_t stream;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

/* Of every test: the next one starts afresh. */
static inline int end_runtime(void **state)
{
    (void)state;
    qd_emu_shutdown();
    struct qd_emu_mode mode = qd_emu_default_mode();
    qd_emu_set_mode(&mode);
    return qd_emu_set_gpus((struct qd_emu_gpus){0});
}
#define RUNTIME_TEST(function) cmocka_unit_test_teardown(function, end_runtime)

#endif

#endif

#include "tests/gpu/runner.h"

#include <cuda_runtime.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/random.h"
#include "tests/gpu/runner_modes.h"
#ifdef QD_EMU
#include "kernels/emu/mode.h"
#endif

namespace {

enum {
    MAX_ALLOCATIONS = 4096,
    MAX_RESULTS = 1024,
    WHAT_LEN = 96,
    GUARD_BYTES = 256,
    FAILED = 1,
    SKIPPED = 2
};
/* NaN as bf16 and as fp32, negative as an integer. */
const unsigned char GUARD_PATTERN[2] = {0xa5, 0xff};

struct allocation {
    unsigned char *base;  /* cudaMalloc's pointer: guard, data, guard */
    size_t bytes;         /* of the data */
    size_t before, after; /* bytes of the guards */
};

/* What the modes before left for gpu_expect_same_bits. */
struct result {
    char what[WHAT_LEN];
    void *data;
    size_t bytes;
};

/* The running test. */
struct state {
    jmp_buf end; /* where gpu_fail and gpu_skip go */
    int mode;
    struct allocation device[MAX_ALLOCATIONS];
    void *host[MAX_ALLOCATIONS];
    struct result results[MAX_RESULTS];
    size_t n_device, n_host, n_results;
    size_t next_result; /* of this mode */
    double worst;       /* largest error as a share of its tolerance */
    char worst_what[WHAT_LEN];
    size_t n_other;        /* the most elements of a result that were not the same bits, */
    size_t n_other_of;     /* and the length of that result */
    char reason[WHAT_LEN]; /* of a skip */
    int n_devices;         /* that the test uses */
    bool shared;           /* GPU 0 has all ranks */
    int rank;
    cudaStream_t streams[GPU_MAX_RANKS]; /* of each rank, on its GPU; made when it is first used */
};

struct state test;

void check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) gpu_fail(__FILE__, __LINE__, "%s: %s", what, cudaGetErrorString(error));
}

void fill_guard(unsigned char *host, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) host[i] = GUARD_PATTERN[i % 2];
}

struct allocation *new_allocation(size_t before, size_t bytes, size_t after)
{
    GPU_EXPECT(test.n_device < MAX_ALLOCATIONS, "more than %d allocations in a test", MAX_ALLOCATIONS);
    void *base = NULL;
    check(cudaMalloc(&base, before + bytes + after), "cudaMalloc");
    struct allocation *a = &test.device[test.n_device++];
    *a = {static_cast<unsigned char *>(base), bytes, before, after};
    return a;
}

/* The index of the first byte of a guard that changed, `bytes` when none has. */
size_t first_change(const unsigned char *guard, size_t bytes)
{
    unsigned char got[GUARD_BYTES], want[GUARD_BYTES];
    if (bytes > 0) check(cudaMemcpy(got, guard, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy of a guard");
    fill_guard(want, bytes);
    size_t i = 0;
    while (i < bytes && got[i] == want[i]) i++;
    return i;
}

void check_guards(void)
{
    for (size_t i = 0; i < test.n_device; i++) {
        const struct allocation *a = &test.device[i];
        size_t at = first_change(a->base, a->before);
        GPU_EXPECT(at == a->before, "allocation %zu of %zu bytes: a byte %zu before its start was written", i,
                   a->bytes, a->before - at);
        at = first_change(a->base + a->before + a->bytes, a->after);
        GPU_EXPECT(at == a->after, "allocation %zu of %zu bytes: byte %zu was written", i, a->bytes,
                   a->bytes + at);
    }
}

void release(void)
{
    for (size_t i = 0; i < test.n_device; i++) cudaFree(test.device[i].base);
    for (size_t i = 0; i < test.n_host; i++) free(test.host[i]);
    for (cudaStream_t &stream : test.streams) {
        if (stream != NULL) cudaStreamDestroy(stream);
        stream = NULL;
    }
    test.n_device = test.n_host = test.next_result = 0;
}

/* All results but the first n. */
void forget_results(size_t n)
{
    while (test.n_results > n) free(test.results[--test.n_results].data);
}

/* One mode of a test: 0, FAILED or SKIPPED. */
int run_mode(const struct gpu_test *t, int mode)
{
    const size_t n_results = test.n_results;
    test.mode = mode;
    gpu_modes::set(mode);
    const int end = setjmp(test.end);
    if (end == 0) {
        test.n_devices = 1;
        test.shared = false;
        gpu_set_rank(0);
        t->run();
        gpu_synchronize();
        check_guards();
    }
    release();
    if (end == FAILED) {
        forget_results(n_results); /* later modes are not to be judged by what may be wrong */
        gpu_modes::recover();
    }
    return end;
}

/* All modes of a test: 0, FAILED or SKIPPED. */
int run_test(const struct gpu_test *t)
{
    int end = 0;
    printf("[ RUN      ] %s\n", t->name);
    fflush(stdout);
    for (int mode = 0, mode_end = 0; mode < gpu_modes::count() && mode_end != SKIPPED; mode++) {
        mode_end = run_mode(t, mode);
        if (end != FAILED) end = mode_end;
    }
    if (test.worst > 0) printf("worst error: %.3g of its tolerance (%s)\n", test.worst, test.worst_what);
    if (test.n_other > 0) printf("other bits: %zu of %zu elements\n", test.n_other, test.n_other_of);
    if (end == SKIPPED) printf("skip: %s: %s\n", t->name, test.reason);
    printf("%s %s\n", end == 0 ? "[       OK ]" : end == SKIPPED ? "[  SKIPPED ]" : "[  FAILED  ]", t->name);
    fflush(stdout);

    forget_results(0);
    test.n_other = 0;
    test.worst = 0;
    return end;
}

/* Why nothing can run here; NULL when there is a device. */
const char *no_device(void)
{
#ifdef QD_EMU
    return NULL;
#else
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    return n > 0 ? NULL : "no CUDA device";
#endif
}

bool selected(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return true;
    return argc < 2;
}

/* An argument that names no test, or NULL. */
const char *unknown_name(const struct gpu_test *tests, size_t n_tests, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool known = false;
        for (size_t t = 0; t < n_tests; t++) known = known || strcmp(argv[i], tests[t].name) == 0;
        if (!known) return argv[i];
    }
    return NULL;
}

/* Counts an error as a share of what is allowed; false when it is more. NaN and infinities need equal bits.
 */
bool close_enough(const char *what, double got, double want, double rtol, double atol)
{
    if (got == want) return true;
    if (!isfinite(got) || !isfinite(want)) return false;
    const double error = fabs(got - want), allowed = atol + rtol * fabs(want);
    if (!(error <= allowed)) return false;
    if (error / allowed > test.worst) {
        test.worst = error / allowed;
        snprintf(test.worst_what, sizeof test.worst_what, "%s", what);
    }
    return true;
}

[[noreturn]] void fail_at(const char *what, size_t i, size_t n, double got, double want)
{
    gpu_fail(__FILE__, __LINE__, "%s[%zu of %zu]: got %.9g, want %.9g", what, i, n, got, want);
}

/* Value i of a stream: uniform in [-scale, scale). */
float random_value(uint64_t seed, size_t i, float scale)
{
    const struct qd_philox_block block = qd_philox(seed, 0, i / 4);
    return scale * (2.0f * qd_uniform_open(block.word[i % 4]) - 1.0f);
}

/* Lets GPUs 0 .. n-1 access each other's memory; false when they cannot. */
bool use_peers(int n)
{
    int n_devices = 0;
    check(cudaGetDeviceCount(&n_devices), "cudaGetDeviceCount");
    if (n_devices < n) return false;
    for (int device = 0; device < n; device++) {
        check(cudaSetDevice(device), "cudaSetDevice");
        for (int peer = 0; peer < n; peer++) {
            int can = 0;
            if (peer == device) continue;
            check(cudaDeviceCanAccessPeer(&can, device, peer), "cudaDeviceCanAccessPeer");
            if (!can) return false;
            const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
            if (error == cudaErrorPeerAccessAlreadyEnabled)
                cudaGetLastError(); /* by a test before; clears it */
            else
                check(error, "cudaDeviceEnablePeerAccess");
        }
    }
    return true;
}

} // namespace

int gpu_main(const struct gpu_test *tests, size_t n_tests, int argc, char **argv)
{
    /* As the device does (kernels/cuda/device.c), for the same reason: ranks that share a GPU. */
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    if (argc > 2 && strcmp(argv[1], "--ptx") == 0) {
        if (!gpu_modes::load_ptx(argv[2])) return 2;
        argc -= 2, argv += 2;
    }
    const char *unknown = unknown_name(tests, n_tests, argc, argv), *reason = no_device();
    if (unknown != NULL) {
        fprintf(stderr, "no test is named \"%s\"\n", unknown);
        return 2;
    }
    const bool required = getenv("REQUIRE_CUDA") != NULL && strcmp(getenv("REQUIRE_CUDA"), "0") != 0;
    bool failed = false;
    for (size_t i = 0; i < n_tests; i++) {
        if (!selected(tests[i].name, argc, argv)) continue;
        if (reason == NULL) {
            failed = run_test(&tests[i]) == FAILED || failed;
        } else if (required) {
            printf("%s\n[  FAILED  ] %s\n", reason, tests[i].name);
            failed = true;
        } else {
            printf("skip: %s: %s\n[  SKIPPED ] %s\n", tests[i].name, reason, tests[i].name);
        }
    }
    if (gpu_modes::has_called_source()) {
        printf("[  FAILED  ] every launch is of PTX\n");
        failed = true;
    }
    return failed ? 1 : 0;
}

void *gpu_alloc(size_t bytes)
{
    struct allocation *a =
        new_allocation(GUARD_BYTES, bytes, gpu_modes::has_guard_behind(test.mode) ? GUARD_BYTES : 0);
    unsigned char *data = a->base + a->before, guard[GUARD_BYTES];
    fill_guard(guard, sizeof guard);
    gpu_write(a->base, guard, a->before);
    if (bytes > 0) check(cudaMemset(data, gpu_modes::poison_byte(test.mode), bytes), "cudaMemset");
    if (a->after > 0) gpu_write(data + bytes, guard, a->after);
    check(cudaStreamSynchronize(NULL), "cudaMemset"); /* another GPU may be the first to touch it */
    return data;
}

void *gpu_alloc_sparse(size_t bytes)
{
    GPU_EXPECT(test.n_device < MAX_ALLOCATIONS, "more than %d allocations in a test", MAX_ALLOCATIONS);
    void *base = NULL;
#ifdef QD_EMU
    const bool there = qd_emu_malloc_sparse(&base, bytes) == cudaSuccess;
#else
    const bool there = cudaMalloc(&base, bytes) == cudaSuccess;
#endif
    if (!there) {
        cudaGetLastError(); /* clears it */
        gpu_skip("the device has not as much memory");
    }
    test.device[test.n_device++] = {static_cast<unsigned char *>(base), bytes, 0, 0};
    return base;
}

void *gpu_upload(const void *host, size_t bytes)
{
    void *device = gpu_alloc(bytes);
    gpu_write(device, host, bytes);
    return device;
}

void gpu_write(void *device, const void *host, size_t bytes)
{
    check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
    check(cudaStreamSynchronize(NULL), "cudaMemcpy to the device"); /* a small one may still be on its way */
}

void gpu_download(void *host, const void *device, size_t bytes)
{
    gpu_synchronize();
    check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy from the device");
}

void gpu_synchronize(void)
{
    const int rank = test.rank;
    for (int device = 0; device < test.n_devices; device++) {
        check(cudaSetDevice(device), "cudaSetDevice");
        check(cudaDeviceSynchronize(), "kernel");
    }
    gpu_set_rank(rank);
}

size_t gpu_shared_bytes(void)
{
    int bytes = 0;
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0),
          "cudaDeviceGetAttribute");
    return static_cast<size_t>(bytes);
}

struct CUstream_st *gpu_stream(void)
{
    return test.streams[test.rank];
}

void gpu_use_ranks(int n, int n_blocks)
{
    GPU_EXPECT(n >= 1 && n <= GPU_MAX_RANKS, "%d ranks", n);
    gpu_synchronize();
    test.shared = !use_peers(n);
    test.n_devices = test.shared ? 1 : n;
    gpu_set_rank(0);
    if (!test.shared) return;
    struct cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    if (properties.multiProcessorCount < n * n_blocks) gpu_skip("needs more GPUs with access to each other");
}

void gpu_set_rank(int rank)
{
    test.rank = rank;
    check(cudaSetDevice(test.shared ? 0 : rank), "cudaSetDevice");
    /* It waits for the default stream, on which memory is filled, but not for other ranks' streams. */
    if (test.streams[rank] == NULL)
        check(cudaStreamCreateWithFlags(&test.streams[rank], cudaStreamDefault), "cudaStreamCreateWithFlags");
}

void *gpu_host_alloc(size_t bytes)
{
    GPU_EXPECT(test.n_host < MAX_ALLOCATIONS, "more than %d host allocations in a test", MAX_ALLOCATIONS);
    void *p = malloc(bytes > 0 ? bytes : 1);
    GPU_EXPECT(p != NULL, "out of memory: %zu bytes", bytes);
    test.host[test.n_host++] = p;
    return p;
}

void gpu_random_bf16(qd_bf16 *out, size_t n, float scale, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) out[i] = qd_bf16_from_f32(random_value(seed, i, scale));
}

void gpu_random_f32(float *out, size_t n, float scale, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) out[i] = random_value(seed, i, scale);
}

void gpu_expect_same_bits(const char *what, const void *host, size_t bytes)
{
    if (gpu_modes::has_other_sums(test.mode)) return;
    GPU_EXPECT(test.next_result < MAX_RESULTS, "more than %d results in a test", MAX_RESULTS);
    struct result *r = &test.results[test.next_result++];
    if (test.next_result > test.n_results) { /* the first mode that comes so far */
        snprintf(r->what, sizeof r->what, "%s", what);
        r->bytes = bytes;
        r->data = malloc(bytes > 0 ? bytes : 1);
        GPU_EXPECT(r->data != NULL, "out of memory: %zu bytes", bytes);
        memcpy(r->data, host, bytes);
        test.n_results = test.next_result;
        return;
    }
    GPU_EXPECT(strncmp(r->what, what, sizeof r->what - 1) == 0 && r->bytes == bytes,
               "%s (%zu bytes) where a mode before had %s (%zu bytes)", what, bytes, r->what, r->bytes);
    const unsigned char *got = static_cast<const unsigned char *>(host);
    const unsigned char *want = static_cast<const unsigned char *>(r->data);
    for (size_t i = 0; i < bytes; i++)
        GPU_EXPECT(got[i] == want[i], "%s: byte %zu of %zu differs between modes: 0x%02x, before 0x%02x",
                   what, i, bytes, got[i], want[i]);
}

void gpu_expect_close_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n, float rtol,
                           float atol)
{
    for (size_t i = 0; i < n; i++) {
        const double g = qd_bf16_to_f32(got[i]), w = qd_bf16_to_f32(want[i]);
        if (!close_enough(what, g, w, rtol, atol)) fail_at(what, i, n, g, w);
    }
}

void gpu_expect_close_f32(const char *what, const float *got, const float *want, size_t n, float rtol,
                          float atol)
{
    for (size_t i = 0; i < n; i++)
        if (!close_enough(what, got[i], want[i], rtol, atol)) fail_at(what, i, n, got[i], want[i]);
}

void gpu_expect_rounded_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n, float rtol,
                             float atol, double share)
{
    size_t n_other = 0;
    gpu_expect_close_bf16(what, got, want, n, rtol, atol);
    for (size_t i = 0; i < n; i++) n_other += got[i] != want[i];
    GPU_EXPECT(n_other <= 2 || static_cast<double>(n_other) <= share * static_cast<double>(n),
               "%s: %zu of %zu elements are not the same bits: more than rounding explains", what, n_other,
               n);
    if (n_other > test.n_other) test.n_other = n_other, test.n_other_of = n;
}

void gpu_expect_equal(const char *what, const void *got, const void *want, size_t bytes)
{
    const unsigned char *g = static_cast<const unsigned char *>(got),
                        *w = static_cast<const unsigned char *>(want);
    for (size_t i = 0; i < bytes; i++)
        GPU_EXPECT(g[i] == w[i], "%s: byte %zu of %zu: got 0x%02x, want 0x%02x", what, i, bytes, g[i], w[i]);
}

void gpu_skip(const char *reason)
{
    snprintf(test.reason, sizeof test.reason, "%s", reason);
    longjmp(test.end, SKIPPED);
}

void gpu_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%s:%d: mode %d: ", file, line, test.mode);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    longjmp(test.end, FAILED);
}

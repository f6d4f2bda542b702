/* A small runner for the kernel tests: nothing but libc and the CUDA runtime, so that the same tests run in
 * the emulator (`make test`) and on a GPU of a machine without packages (`make gpu-test`). Prints the lines
 * that tools/run-tests.sh counts.
 *
 * Every test runs once per mode. In the emulator a mode is a schedule and an arrival of asynchronous copies
 * (the deterministic ones, then QD_GPU_SEEDS random ones, 2 by default; at last mma sums in double, where
 * bits are not compared with the modes before); on a GPU a mode is a repetition with other bytes
 * in fresh buffers. A failed expectation ends the test in that mode; nothing is on the stack by then that
 * needs a destructor, since tests are C.
 */
#ifndef QD_TESTS_GPU_RUNNER_H
#define QD_TESTS_GPU_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base/bf16.h"
#include "kernels/base/status.h"
#include "kernels/emu/mode.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gpu_test {
    const char *name;
    void (*run)(void);
};

/* Runs all tests, or those named on the command line; the exit status. Without a GPU: all skipped with the
 * reason, or failed when REQUIRE_CUDA is set. In the emulator `--ptx FOLDER` before the names runs the kernels
 * from the PTX modules in that folder, in two modes, and fails when a kernel is in none of them. */
int gpu_main(const struct gpu_test *tests, size_t n_tests, int argc, char **argv);

/* Device memory for the running test, released at its end: filled with 0xff (NaN; on a GPU every second mode
 * with 0x7f, huge but finite) between guard zones, NaN as well, that are checked at the end; in the
 * emulator every second mode has none behind, since memory ends there. 16-byte aligned; on a GPU 256-byte. */
void *gpu_alloc(size_t bytes);
/* Device memory of which little is touched: neither filled nor guarded. Skips the test where there is not as
 * much. */
void *gpu_alloc_sparse(size_t bytes);
/* Declares, while no launch is under way, that each launch stores to these bytes once at most; returns p. Where
 * the emulator interprets PTX a second store fails the launch; elsewhere nothing is known of it. */
void *gpu_write_once(void *p, size_t bytes);
static inline void *gpu_alloc_output(size_t bytes)
{
    return gpu_write_once(gpu_alloc(bytes), bytes);
}
/* A device copy of host data; host data into memory that is there; the way back (waits for the device). */
void *gpu_upload(const void *host, size_t bytes);
void gpu_write(void *device, const void *host, size_t bytes);
void gpu_download(void *host, const void *device, size_t bytes);
/* Waits for the device; a launch's failure ends the test with its text. */
void gpu_synchronize(void);
/* The stream that tests launch on. */
struct CUstream_st *gpu_stream(void);

/* The ranks of a collective test: n GPUs that can read each other's memory, or else one GPU with a stream for
 * every rank, when it has an SM for each block of each rank. Otherwise the test is skipped. */
enum { GPU_MAX_RANKS = 8 };
void gpu_use_ranks(int n, int n_blocks);
/* Allocations, launches and gpu_stream() are this rank's from now on; 0 when a test starts. */
void gpu_set_rank(int rank);

/* Host memory released when the test ends. */
void *gpu_host_alloc(size_t bytes);

/* What launches did since the last call or since the test began in this mode (waits for the device). Skips
 * the test where not all of it is counted: on a GPU, and without --ptx. */
struct qd_emu_counters gpu_take_counters(void);

/* Shared memory that a block of the device may ask for. */
size_t gpu_shared_bytes(void);

/* Random inputs, the same in every mode: uniform in [-scale, scale), bf16 or fp32. */
void gpu_random_bf16(qd_bf16 *out, size_t n, float scale, uint64_t seed);
void gpu_random_f32(float *out, size_t n, float scale, uint64_t seed);

/* Ends the test in this mode unless the results are the same bits as before; `what` names them. */
void gpu_expect_same_bits(const char *what, const void *host, size_t bytes);

/* Compares element by element: |got - want| <= atol + rtol * |want|, NaN never passes. The first bad index
 * and both values are reported. */
void gpu_expect_close_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n, float rtol,
                           float atol);
void gpu_expect_close_f32(const char *what, const float *got, const float *want, size_t n, float rtol,
                          float atol);

/* Relative error at most rtol, and all but a share of the elements (or two) the same bits: tells roundings
 * apart that no tolerance can, while results at the edge of two bf16 values may still fall to either side. */
void gpu_expect_rounded_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n, float rtol,
                             float atol, double share);
/* Equal bytes. */
void gpu_expect_equal(const char *what, const void *got, const void *want, size_t bytes);

/* Ends the test as skipped: the reason is one line. */
void gpu_skip(const char *reason) __attribute__((noreturn));

void gpu_fail(const char *file, int line, const char *format, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
#define GPU_EXPECT(condition, ...)                                                                           \
    do {                                                                                                     \
        if (!(condition)) gpu_fail(__FILE__, __LINE__, __VA_ARGS__);                                         \
    } while (0)
/* The launcher's status must be QD_OK: GPU_LAUNCH(qd_cuda_rmsnorm, &args). GPU_ISSUE does not wait for the
 * kernel: those of a collective run together. */
#define GPU_LAUNCH(launcher, args)                                                                           \
    do {                                                                                                     \
        GPU_ISSUE(launcher, args);                                                                           \
        gpu_synchronize();                                                                                   \
    } while (0)
#define GPU_ISSUE(launcher, args)                                                                            \
    do {                                                                                                     \
        char gpu_err_[QD_ERR_LEN] = "";                                                                      \
        qd_status gpu_status_ = launcher(args, gpu_stream(), gpu_err_, sizeof gpu_err_);                     \
        GPU_EXPECT(gpu_status_ == QD_OK, "%s: %s", #launcher, gpu_err_);                                     \
    } while (0)
/* The launcher must refuse, with `text` in its reason. */
#define GPU_REFUSED(launcher, args, text)                                                                    \
    do {                                                                                                     \
        char gpu_err_[QD_ERR_LEN] = "";                                                                      \
        qd_status gpu_status_ = launcher(args, gpu_stream(), gpu_err_, sizeof gpu_err_);                     \
        GPU_EXPECT(gpu_status_ != QD_OK && strstr(gpu_err_, text) != NULL, "%s: %d \"%s\"", #launcher,       \
                   (int)gpu_status_, gpu_err_);                                                              \
    } while (0)

#ifdef __cplusplus
}
#endif

#endif

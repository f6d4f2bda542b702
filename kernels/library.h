/* Libraries that nothing is linked with: NVIDIA's driver, NCCL, cuBLASLt, NVML. Each is looked for when
 * it is first wanted, and its absence disables what the table below says, never more. Whoever uses one
 * declares the few functions it calls as a struct of function pointers and has that filled in here. Usable
 * from the main binary and from libqdyno_cuda.so alike.
 *
 * Where they are looked for, in this order: wherever the loader looks (LD_LIBRARY_PATH, ld.so.cache); under
 * CUDA_HOME and /usr/local/cuda in lib64 and lib; in the folders nvidia/.../lib of the Python packages under
 * VIRTUAL_ENV, CONDA_PREFIX, the prefix of every python3 in PATH, ~/.local, /usr/local and /usr. No Python
 * runs.
 */
#ifndef QD_KERNELS_LIBRARY_H
#define QD_KERNELS_LIBRARY_H

#include <stddef.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QD_LIBRARY_MAX_SONAMES = 3 };

enum qd_library_which {
    QD_LIBRARY_CUDA,
    QD_LIBRARY_NVML,
    QD_LIBRARY_NCCL,
    QD_LIBRARY_CUBLASLT,
    QD_N_LIBRARIES
};

struct qd_library {
    const char *name;                            /* as its maker calls it */
    const char *sonames[QD_LIBRARY_MAX_SONAMES]; /* in order of preference; NULL after the last */
    const char *disables; /* what its absence disables, as the rest of "without it, ..." */
};

/* By enum qd_library_which. */
extern const struct qd_library qd_libraries[QD_N_LIBRARIES];

/* One function: its exported name, and where in the user's struct the pointer goes. */
struct qd_library_symbol {
    const char *name;
    size_t offset;
};

/* A library's functions are listed once, as X(result, member, symbol, arguments): these make a struct of
 * pointers and its table of symbols of such a list. */
#define QD_LIBRARY_MEMBER(result, member, symbol, args) result(*member) args;
#define QD_LIBRARY_SYMBOL(type, member, symbol)         {#symbol, offsetof(type, member)},

/* Opens `library` and fills in the pointers that `symbols` [n_symbols] names inside *functions. With no
 * symbols it tells only whether the library can be opened. `path` (may be NULL) gets the file that was
 * opened. The library stays open until the process ends; opening it again finds it. Thread-safe.
 * QD_ERR_NOT_FOUND: no such file; err says where it was looked for.
 * QD_ERR_ENVIRONMENT: a file is there, but cannot be loaded or has no such function; err names path and
 * reason. */
qd_status qd_library_open(const struct qd_library *library, const struct qd_library_symbol *symbols,
                          size_t n_symbols, void *functions, char *path, size_t path_len, char *err,
                          size_t errlen);

#ifdef __cplusplus
}
#endif

#endif

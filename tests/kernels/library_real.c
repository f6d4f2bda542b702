/* What is declared of NVIDIA's libraries without their headers, held to the headers and the libraries that
 * are installed. Headers are compared when this file is compiled: a wrong value or type does not build. */
#include "tests/support/test.h"

#include <limits.h>

#include "kernels/cuda/cublaslt_functions.h"
#include "kernels/cuda/nccl_functions.h"
#include "kernels/library.h"
#include "kernels/nvml_functions.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define HAS_CUBLASLT 1
#else
#define HAS_CUBLASLT 0
#endif
#if __has_include(<nccl.h>)
#include <nccl.h>
#define HAS_NCCL 1
#else
#define HAS_NCCL 0
#endif
#if __has_include(<nvml.h>)
#include <nvml.h>
#define HAS_NVML 1
#else
#define HAS_NVML 0
#endif

/* The declaration of `symbol` in the header is the one in our list. */
#define SAME_FUNCTION(result, member, symbol, args)                                                          \
    _Static_assert(__builtin_types_compatible_p(result(*) args, __typeof__(&symbol)), #symbol);
#define SAME_VALUE(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)
#define SAME_SIZE(ours, theirs)  _Static_assert(sizeof(ours) == sizeof(theirs), #ours)
#define SAME_PLACE(ours, member, theirs, their_member)                                                       \
    _Static_assert(offsetof(ours, member) == offsetof(theirs, their_member), #ours "." #member)

#if HAS_CUBLASLT
QD_CUBLASLT_FUNCTIONS(SAME_FUNCTION, cublasLtMatmulDescOpaque_t, cublasLtMatrixLayoutOpaque_t,
                      cublasLtMatmulPreferenceOpaque_t, cublasLtMatmulAlgo_t, cublasLtMatmulHeuristicResult_t)
SAME_VALUE(QD_CUBLAS_SUCCESS, CUBLAS_STATUS_SUCCESS);
SAME_VALUE(QD_CUBLAS_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME_VALUE(QD_CUBLAS_OP_N, CUBLAS_OP_N);
SAME_VALUE(QD_CUBLAS_OP_T, CUBLAS_OP_T);
SAME_VALUE(QD_CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME_VALUE(QD_CUBLAS_R_32F, CUDA_R_32F);
SAME_VALUE(QD_CUBLAS_R_16BF, CUDA_R_16BF);
SAME_VALUE(QD_CUBLASLT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME_VALUE(QD_CUBLASLT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME_VALUE(QD_CUBLASLT_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME_VALUE(QD_CUBLASLT_ALGO_ID, CUBLASLT_ALGO_CONFIG_ID);
SAME_SIZE(struct qd_cublaslt_algo, cublasLtMatmulAlgo_t);
SAME_SIZE(struct qd_cublaslt_heuristic, cublasLtMatmulHeuristicResult_t);
SAME_PLACE(struct qd_cublaslt_heuristic, workspace_bytes, cublasLtMatmulHeuristicResult_t, workspaceSize);
SAME_PLACE(struct qd_cublaslt_heuristic, state, cublasLtMatmulHeuristicResult_t, state);
SAME_PLACE(struct qd_cublaslt_heuristic, waves, cublasLtMatmulHeuristicResult_t, wavesCount);
#endif

#if HAS_NCCL
QD_NCCL_FUNCTIONS(SAME_FUNCTION, ncclUniqueId)
SAME_VALUE(QD_NCCL_SUCCESS, ncclSuccess);
SAME_VALUE(QD_NCCL_UNHANDLED_CUDA_ERROR, ncclUnhandledCudaError);
SAME_VALUE(QD_NCCL_INVALID_ARGUMENT, ncclInvalidArgument);
SAME_VALUE(QD_NCCL_INVALID_USAGE, ncclInvalidUsage);
SAME_VALUE(QD_NCCL_IN_PROGRESS, ncclInProgress);
SAME_VALUE(QD_NCCL_SUM, ncclSum);
SAME_VALUE(QD_NCCL_UINT8, ncclUint8);
SAME_VALUE(QD_NCCL_BF16, ncclBfloat16);
SAME_SIZE(struct qd_nccl_unique_id, ncclUniqueId);
#endif

#if HAS_NVML
QD_NVML_FUNCTIONS(SAME_FUNCTION, nvmlMemory_t, nvmlPciInfo_t, nvmlProcessInfo_t)
SAME_VALUE(QD_NVML_SUCCESS, NVML_SUCCESS);
SAME_VALUE(QD_NVML_NOT_SUPPORTED, NVML_ERROR_NOT_SUPPORTED);
SAME_VALUE(QD_NVML_NO_PERMISSION, NVML_ERROR_NO_PERMISSION);
SAME_VALUE(QD_NVML_INSUFFICIENT_SIZE, NVML_ERROR_INSUFFICIENT_SIZE);
SAME_VALUE(QD_NVML_FUNCTION_NOT_FOUND, NVML_ERROR_FUNCTION_NOT_FOUND);
SAME_VALUE(QD_NVML_CLOCK_SM, NVML_CLOCK_SM);
SAME_VALUE(QD_NVML_CLOCK_MEM, NVML_CLOCK_MEM);
SAME_VALUE(QD_NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_GPU);
SAME_VALUE(QD_NVML_AFFINITY_NODE, NVML_AFFINITY_SCOPE_NODE);
SAME_VALUE(QD_NVML_P2P_OK, NVML_P2P_STATUS_OK);
SAME_VALUE(QD_NVML_P2P_READ, NVML_P2P_CAPS_INDEX_READ);
SAME_VALUE(QD_NVML_P2P_WRITE, NVML_P2P_CAPS_INDEX_WRITE);
SAME_VALUE(QD_NVML_P2P_NVLINK, NVML_P2P_CAPS_INDEX_NVLINK);
SAME_VALUE(QD_NVML_MAX_LINKS, NVML_NVLINK_MAX_LINKS);
SAME_SIZE(struct qd_nvml_memory, nvmlMemory_t);
SAME_PLACE(struct qd_nvml_memory, free, nvmlMemory_t, free);
SAME_SIZE(struct qd_nvml_pci, nvmlPciInfo_t);
SAME_PLACE(struct qd_nvml_pci, bus_id, nvmlPciInfo_t, busId);
SAME_SIZE(struct qd_nvml_process_info, nvmlProcessInfo_t);
SAME_PLACE(struct qd_nvml_process_info, used_bytes, nvmlProcessInfo_t, usedGpuMemory);
#endif

/* ---- libraries ---- */

/* Every function goes into the same pointer: only whether it is there counts. */
#define NAME(result, member, symbol, args) {#symbol, 0},

static void check_library(enum qd_library_which which, const struct qd_library_symbol *symbols, size_t n)
{
    char path[PATH_MAX] = "", err[QD_ERR_LEN] = "";
    void *any;
    qd_status st =
        qd_library_open(&qd_libraries[which], symbols, n, &any, path, sizeof path, err, sizeof err);
    if (st == QD_ERR_NOT_FOUND) SKIP("%s", err);
    ASSERT_OK(st, err);
    printf("%s: %zu functions in %s\n", qd_libraries[which].name, n, path);
}

static void cublaslt_has_every_function(void **state)
{
    (void)state;
    static const struct qd_library_symbol symbols[] = {QD_CUBLASLT_FUNCTIONS(NAME, , , , , )};
    check_library(QD_LIBRARY_CUBLASLT, symbols, sizeof symbols / sizeof symbols[0]);
}

static void nccl_has_every_function(void **state)
{
    (void)state;
    static const struct qd_library_symbol symbols[] = {QD_NCCL_FUNCTIONS(NAME, )};
    check_library(QD_LIBRARY_NCCL, symbols, sizeof symbols / sizeof symbols[0]);
}

static void nvml_has_every_function(void **state)
{
    (void)state;
    static const struct qd_library_symbol symbols[] = {QD_NVML_FUNCTIONS(NAME, , , )};
    check_library(QD_LIBRARY_NVML, symbols, sizeof symbols / sizeof symbols[0]);
}

/* ---- headers ---- */

/* Passes when it was compiled: the assertions above are what could fail. */
#define HEADER_TEST(name, has, header)                                                                       \
    static void name(void **state)                                                                           \
    {                                                                                                        \
        (void)state;                                                                                         \
        if (!(has)) SKIP("%s was not there when this was compiled", header);                                 \
    }
HEADER_TEST(cublaslt_is_declared_as_in_its_header, HAS_CUBLASLT, "cublasLt.h")
HEADER_TEST(nccl_is_declared_as_in_its_header, HAS_NCCL, "nccl.h")
HEADER_TEST(nvml_is_declared_as_in_its_header, HAS_NVML, "nvml.h")

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cublaslt_is_declared_as_in_its_header),
        cmocka_unit_test(cublaslt_has_every_function),
        cmocka_unit_test(nccl_is_declared_as_in_its_header),
        cmocka_unit_test(nccl_has_every_function),
        cmocka_unit_test(nvml_is_declared_as_in_its_header),
        cmocka_unit_test(nvml_has_every_function),
    };
    return cmocka_run_group_tests_name("library_real", tests, NULL, NULL);
}

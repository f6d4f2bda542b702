#include "kernels/cuda/nccl.h"

#include <string.h>

#include "kernels/cuda/kernels.h"

#ifdef QD_EMU
#include "kernels/emu_nccl/nccl.h"
#endif

enum { OLDEST_VERSION = 21000 };

static qd_status check(const struct qd_nccl *nccl, unsigned result, const char *what, char *err,
                       size_t errlen)
{
    if (result == QD_NCCL_SUCCESS) return QD_OK;
    const char *detail = nccl->call.last_error(nccl->comm);
    bool has_detail = detail != NULL && detail[0] != '\0';
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "NCCL: %s: %s%s%s", what, nccl->call.error_string(result),
                   has_detail ? ": " : "", has_detail ? detail : "");
}

static qd_status find_functions(struct qd_nccl *nccl, char *err, size_t errlen)
{
#ifdef QD_EMU
    return qd_emu_nccl(&nccl->call, err, errlen);
#else
#define SYMBOL(result, member, symbol, args) QD_LIBRARY_SYMBOL(struct qd_nccl_functions, member, symbol)
    static const struct qd_library_symbol symbols[] = {QD_NCCL_FUNCTIONS(SYMBOL, )};
    return qd_library_open(&qd_libraries[QD_LIBRARY_NCCL], symbols, sizeof symbols / sizeof symbols[0],
                           &nccl->call, nccl->path, sizeof nccl->path, err, errlen);
#endif
}

qd_status qd_nccl_load(struct qd_nccl *nccl, char *err, size_t errlen)
{
    *nccl = (struct qd_nccl){0};
    QD_TRY(find_functions(nccl, err, errlen));
    QD_TRY(check(nccl, nccl->call.get_version(&nccl->version), "version", err, errlen));
    if (nccl->version < OLDEST_VERSION)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s: NCCL version %d, but bf16 needs %d", nccl->path,
                       nccl->version, OLDEST_VERSION);
    return QD_OK;
}

/* What rank 0 tells the others. */
struct invitation {
    struct qd_nccl_unique_id id;
    bool is_good;
};

qd_status qd_nccl_open(struct qd_nccl *nccl, const struct qd_bootstrap *b, char *err, size_t errlen)
{
    struct invitation mine = {.is_good = true}, all[QD_CUDA_MAX_RANKS];
    qd_status st = QD_OK;
    if (b->rank == 0) st = check(nccl, nccl->call.get_unique_id(&mine.id), "unique id", err, errlen);
    mine.is_good = st == QD_OK;
    QD_TRY(b->all_gather(b->ctx, b->rank, &mine, sizeof mine, all, err, errlen));
    nccl->world = b->world;
    if (st != QD_OK) return st;
    if (!all[0].is_good) return qd_fail(QD_ERR_RANK, err, errlen, "NCCL: rank 0 has no unique id");
    return check(nccl, nccl->call.comm_init_rank(&nccl->comm, b->world, all[0].id, b->rank),
                 "joining the ranks", err, errlen);
}

qd_status qd_nccl_all_reduce(struct qd_nccl *nccl, const qd_bf16 *in, qd_bf16 *out, int64_t n,
                             struct CUstream_st *stream, char *err, size_t errlen)
{
    return check(nccl,
                 nccl->call.all_reduce(in, out, (size_t)n, QD_NCCL_BF16, QD_NCCL_SUM, nccl->comm, stream),
                 "all-reduce", err, errlen);
}

qd_status qd_nccl_all_gather(struct qd_nccl *nccl, const void *in, int64_t n_rows, size_t row_bytes,
                             void *out, struct CUstream_st *stream, char *err, size_t errlen)
{
    qd_status st = check(nccl, nccl->call.group_start(), "group", err, errlen);
    if (st != QD_OK) return st;
    for (int64_t row = 0; row < n_rows && st == QD_OK; row++)
        st = check(nccl,
                   nccl->call.all_gather((const char *)in + (size_t)row * row_bytes,
                                         (char *)out + (size_t)row * row_bytes * (size_t)nccl->world,
                                         row_bytes, QD_NCCL_UINT8, nccl->comm, stream),
                   "all-gather", err, errlen);
    qd_status end = check(nccl, nccl->call.group_end(), "group", err, errlen);
    return st != QD_OK ? st : end;
}

qd_status qd_nccl_check(struct qd_nccl *nccl, char *err, size_t errlen)
{
    unsigned result = QD_NCCL_SUCCESS;
    QD_TRY(check(nccl, nccl->call.get_async_error(nccl->comm, &result), "asking for errors", err, errlen));
    return result == QD_NCCL_IN_PROGRESS ? QD_OK : check(nccl, result, "meanwhile", err, errlen);
}

void qd_nccl_abort(struct qd_nccl *nccl)
{
    if (nccl->comm != NULL) nccl->call.comm_abort(nccl->comm);
    nccl->comm = NULL;
}

void qd_nccl_close(struct qd_nccl *nccl)
{
    if (nccl->comm != NULL) nccl->call.comm_destroy(nccl->comm);
    nccl->comm = NULL;
}

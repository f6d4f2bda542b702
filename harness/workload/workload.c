#include "harness/workload/workload.h"

#include <stdlib.h>

#include "harness/workload/build.h"
#include "kernels/base/hash.h"

void qd_workload_seal(struct qd_workload *workload)
{
    uint64_t hash = QD_HASH_START;
    for (size_t i = 0; i < workload->n; i++) {
        const struct qd_workload_request *request = &workload->requests[i];
        hash = qd_hash(hash, &request->n_prompt, sizeof request->n_prompt);
        hash = qd_hash(hash, &request->max_tokens, sizeof request->max_tokens);
        hash = qd_hash(hash, request->prompt, (size_t)request->n_prompt * sizeof *request->prompt);
    }
    workload->hash = qd_hash(hash, &workload->ignore_eos, sizeof workload->ignore_eos);
}

void qd_workload_free(struct qd_workload *workload)
{
    for (size_t i = 0; i < workload->n; i++) free(workload->requests[i].prompt);
    free(workload->requests);
    *workload = (struct qd_workload){0};
}

qd_status qd_records_create(const struct qd_workload *workload, struct qd_request_record **out, char *err,
                            size_t errlen)
{
    struct qd_request_record *records = calloc(workload->n > 0 ? workload->n : 1, sizeof *records);
    if (records == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu request records", workload->n);
    for (size_t i = 0; i < workload->n; i++) {
        size_t room = (size_t)workload->requests[i].max_tokens;
        records[i] = (struct qd_request_record){
            .prompt_len = workload->requests[i].n_prompt,
            .max_tokens = workload->requests[i].max_tokens,
            .finish = "none",
            .token_ns = calloc(room, sizeof(int64_t)),
        };
        if (records[i].token_ns == NULL) {
            qd_records_free(records, i);
            return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "token times of request %zu", i);
        }
    }
    *out = records;
    return QD_OK;
}

void qd_records_free(struct qd_request_record *records, size_t n)
{
    if (records == NULL) return;
    for (size_t i = 0; i < n; i++) {
        free(records[i].token_ns);
        free((char *)(uintptr_t)records[i].error);
    }
    free(records);
}

/* Any text as a trace of requests, JSONL or CSV. */
#include <stdint.h>

#include "harness/workload/workload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct qd_trace_spec spec = {.path = "fuzz", .columns = "auto", .n = 3, .speedup = 2, .ids.n = 97};
    struct qd_workload workload;
    char err[QD_ERR_LEN];
    if (qd_workload_trace_parse(&spec, (const char *)data, size, &workload, err, sizeof err) == QD_OK)
        qd_workload_free(&workload);
    return 0;
}

/* Any text as the steps.jsonl of a recorded run of two replicas. */
#include <stdint.h>

#include "harness/workload/recorded_steps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qd_recorded_steps steps;
    char err[QD_ERR_LEN];
    if (qd_recorded_steps_parse("fuzz", (const char *)data, size, 2, &steps, err, sizeof err) == QD_OK)
        qd_recorded_steps_free(&steps);
    return 0;
}

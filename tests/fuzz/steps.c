/* Any bytes as a file of recorded steps. */
#include <stdint.h>

#include "kernels/step_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qd_step_file file;
    struct qd_recorded_step step;
    char err[QD_ERR_LEN];
    if (qd_step_file_parse("fuzz", data, size, &file, err, sizeof err) != QD_OK) return 0;
    do {
        if (qd_step_file_next(&file, &step, err, sizeof err) != QD_OK) break;
    } while (step.step != NULL);
    qd_step_file_close(&file);
    return 0;
}

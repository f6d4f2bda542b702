/* Any bytes as a file of recorded steps. */
#include <stdint.h>

#include "harness/engine/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qd_step_file file;
    struct qd_replay replay;
    char err[QD_ERR_LEN];
    if (qd_step_file_parse("fuzz", data, size, &file, err, sizeof err) != QD_OK) return 0;
    qd_replay_load(&file, &replay, err, sizeof err);
    qd_replay_free(&replay);
    qd_step_file_close(&file);
    return 0;
}

/* The planted bugs by number, and how their kernels are launched. */
#ifndef QD_TESTS_EMU_PLANTED_H
#define QD_TESTS_EMU_PLANTED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum planted_bug {
    PLANTED_NONE,
    /* in planted::pipeline */
    PLANTED_NO_BARRIER_AFTER_WAIT,
    PLANTED_LATE_REFILL,
    PLANTED_LAX_WAIT,
    /* in planted::total */
    PLANTED_NO_BARRIER,
    PLANTED_SHARED_PAST_END,
    PLANTED_GLOBAL_PAST_END,
    PLANTED_MISALIGNED,
    PLANTED_DIVERGENT_SHUFFLE,
    PLANTED_NO_FENCE,
    PLANTED_UNWRITTEN,
    PLANTED_DOUBLE_WRITE,
    PLANTED_SECOND_WRITE,
};

enum {
    PLANTED_PIPELINE_THREADS = 128,
    PLANTED_TOTAL_THREADS = 64,
};

struct planted_args {
    const uint32_t *in;
    uint32_t *out;
    uint32_t *scratch;
    uint32_t n;
};

/* Run on the CPU in the mode that is set: 0, or -1 with the text. */
int planted_run_pipeline(enum planted_bug bug, const struct planted_args *args, char *err, size_t errlen);
int planted_run_total(enum planted_bug bug, unsigned blocks, const struct planted_args *args, char *err,
                      size_t errlen);

#ifdef __cplusplus
}
#endif

#endif

/* The machine's monotonic clock. Virtual time is the harness's business (harness/clock.h). */
#ifndef QD_KERNELS_BASE_CLOCK_H
#define QD_KERNELS_BASE_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t qd_clock_now_ns(void);

#endif

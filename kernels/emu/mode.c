#include "kernels/emu/mode.h"

#include <pthread.h>

#include "kernels/emu/block.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Where the default is not 0. */
enum { RESIDENT_BLOCKS = 32, STALL_MS = 30000 };
static struct qd_emu_mode mode_now = {.resident_blocks = RESIDENT_BLOCKS, .stall_ms = STALL_MS};
static struct qd_emu_counters totals;

struct qd_emu_mode qd_emu_default_mode(void)
{
    return (struct qd_emu_mode){.resident_blocks = RESIDENT_BLOCKS, .stall_ms = STALL_MS};
}

struct qd_emu_mode qd_emu_get_mode(void)
{
    pthread_mutex_lock(&lock);
    struct qd_emu_mode mode = mode_now;
    pthread_mutex_unlock(&lock);
    return mode;
}

void qd_emu_set_mode(const struct qd_emu_mode *mode)
{
    pthread_mutex_lock(&lock);
    mode_now = *mode;
    pthread_mutex_unlock(&lock);
}

struct qd_emu_counters qd_emu_read_counters(void)
{
    pthread_mutex_lock(&lock);
    struct qd_emu_counters counters = totals;
    pthread_mutex_unlock(&lock);
    return counters;
}

void qd_emu_reset_counters(void)
{
    pthread_mutex_lock(&lock);
    totals = (struct qd_emu_counters){0};
    pthread_mutex_unlock(&lock);
}

void qd_emu_add_counters(const struct qd_emu_counters *c)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < sizeof totals / sizeof(uint64_t); i++) /* there is nothing else in it */
        ((uint64_t *)&totals)[i] += ((const uint64_t *)c)[i];
    pthread_mutex_unlock(&lock);
}

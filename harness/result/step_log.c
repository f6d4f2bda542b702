#include "harness/result/step_log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_SINKS = 4,
    CHUNK = 64,           /* rows at once */
    VISIT_NS = 5000000,   /* from one visit of the rings to the next */
    ALL_ROOM = 1 << 16,   /* rows of all replicas together: about 30 MB */
    LEAST_ROOM = 1 << 12, /* rows of one: over 1.2 us a step between two visits */
};

struct qd_step_log {
    qd_engine_t *engine;
    int dp, n_sinks;
    struct qd_step_sink sinks[MAX_SINKS];
    pthread_t thread;
    atomic_bool stop;
    struct qd_step_row rows[CHUNK];
};

size_t qd_step_log_room(int dp)
{
    size_t room = ALL_ROOM / (size_t)dp;
    return room > LEAST_ROOM ? room : LEAST_ROOM;
}

static void drain(struct qd_step_log *log)
{
    size_t n;
    for (int replica = 0; replica < log->dp; replica++)
        while ((n = qd_engine_take_steps(log->engine, replica, log->rows, CHUNK)) > 0)
            for (size_t i = 0; i < n; i++)
                for (int s = 0; s < log->n_sinks; s++) log->sinks[s].take(log->sinks[s].arg, &log->rows[i]);
}

static void *log_main(void *arg)
{
    struct qd_step_log *log = arg;
    const struct timespec pause = {.tv_nsec = VISIT_NS};
    while (!atomic_load(&log->stop)) {
        drain(log);
        nanosleep(&pause, NULL);
    }
    drain(log);
    return NULL;
}

qd_status qd_step_log_start(qd_engine_t *engine, int dp, const struct qd_step_sink *sinks, int n_sinks,
                            qd_step_log_t **out, char *err, size_t errlen)
{
    *out = NULL;
    QD_ASSERT(n_sinks >= 1 && n_sinks <= MAX_SINKS);
    struct qd_step_log *log = calloc(1, sizeof *log);
    if (log == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a log of steps");
    log->engine = engine;
    log->dp = dp;
    log->n_sinks = n_sinks;
    memcpy(log->sinks, sinks, (size_t)n_sinks * sizeof *sinks);
    atomic_init(&log->stop, false);
    int error = pthread_create(&log->thread, NULL, log_main, log);
    if (error != 0) {
        free(log);
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot start the thread that writes steps: %s",
                       strerror(error));
    }
    pthread_setname_np(log->thread, "steps");
    *out = log;
    return QD_OK;
}

void qd_step_log_stop(qd_step_log_t *log)
{
    if (log == NULL) return;
    atomic_store(&log->stop, true);
    pthread_join(log->thread, NULL);
    free(log);
}

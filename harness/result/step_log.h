/* The reader of step rows: a thread of its own takes them from every replica while a run is measured and
 * hands them to sinks (steps.jsonl, a trace, the ledger's sums), so that no replica ever writes a file.
 */
#ifndef QD_HARNESS_RESULT_STEP_LOG_H
#define QD_HARNESS_RESULT_STEP_LOG_H

#include "harness/engine/engine.h"

/* Takes one row; rows of a replica come in the order in which steps ended. Called by the log's thread only.
 */
struct qd_step_sink {
    void (*take)(void *arg, const struct qd_step_row *row);
    void *arg;
};

typedef struct qd_step_log qd_step_log_t;

/* Rows that every one of dp replicas should have room for (qd_engine_config): what many thousand steps a
 * second leave between two visits of the log's thread, in less memory the more replicas there are. */
size_t qd_step_log_room(int dp);

/* Starts the thread; sinks[n_sinks] are copied, and there is at least one. QD_ERR_NO_MEMORY,
 * QD_ERR_ENVIRONMENT. */
qd_status qd_step_log_start(qd_engine_t *engine, int dp, const struct qd_step_sink *sinks, int n_sinks,
                            qd_step_log_t **out, char *err, size_t errlen);

/* Takes what is left and ends the thread; call it when the replicas have nothing to do. Accepts NULL. */
void qd_step_log_stop(qd_step_log_t *log);

#endif

/* Made-up runs for tests of results and reports: a temporary folder, and runs whose numbers follow from a few
 * parameters. */
#ifndef QD_TESTS_SUPPORT_RESULT_FIXTURE_H
#define QD_TESTS_SUPPORT_RESULT_FIXTURE_H

#include <stdint.h>

#include "harness/result/run_result.h"

enum { FIXTURE_REQUESTS = 4, FIXTURE_TOKENS = 5 };

/* A run and the memory behind it. */
struct fixture_run {
    struct qd_run_result result;
    struct qd_request_record records[FIXTURE_REQUESTS];
    struct qd_replica_stats replicas[8];
    int64_t times[FIXTURE_REQUESTS][FIXTURE_TOKENS];
};

/* FIXTURE_REQUESTS requests of 10 prompt tokens and FIXTURE_TOKENS output tokens, submitted together at 5 s
 * on the monotonic clock: first token after ttft_ms, the others gap_ms apart. The machine has 4 cores. */
void fixture_run_init(struct fixture_run *run, int tp, int dp, int64_t budget, double ttft_ms, double gap_ms);

/* Recomputes metrics and marks after a change of the records. */
void fixture_run_finish(struct fixture_run *run);

/* Writes FOLDER/<cell>/run=<n>.json (<cell>-<variant> where the run has one), creating the cell's folder. */
void fixture_run_write(const struct fixture_run *run, const char *folder, int run_number);

/* A new empty folder; removed with everything in it by fixture_folder_remove. */
char *fixture_folder_create(void);
void fixture_folder_remove(char *folder);

/* The entry of a cmocka table for a test whose *state is the name of such a folder. */
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, fixture_folder_setup, fixture_folder_teardown)
int fixture_folder_setup(void **state);
int fixture_folder_teardown(void **state);

/* Writes text to FOLDER/NAME. */
void fixture_write(const char *folder, const char *name, const char *text);

/* The whole file FOLDER/NAME as text, freed by the caller. */
char *fixture_read(const char *folder, const char *name);

#endif

/* What `doctor` found, as text on standard output and as JSON. */
#ifndef QD_HARNESS_CLI_DOCTOR_PRINT_H
#define QD_HARNESS_CLI_DOCTOR_PRINT_H

#include "harness/cli/doctor_facts.h"
#include "harness/result/json_put.h"

/* Everything but a model and the verdict. */
void qd_doctor_print(const struct qd_doctor *doctor, const struct qd_options *options);

/* A new object, with the verdict: `fix` is NULL when there is nothing to fix. NULL when out of memory. */
cJSON *qd_doctor_to_json(const struct qd_doctor *doctor, const char *fix);

#endif

/* The trained tiny model of models/tiny: instances of it, and its held-out text. */
#ifndef QD_TESTS_SUPPORT_TINY_H
#define QD_TESTS_SUPPORT_TINY_H

#include "harness/engine/instance.h"
#include "models/json.h"

#define TINY_DIR "models/tiny"

enum { TINY_VOCAB = 2056, TINY_N_TOKENS = 2051 /* ids from here on have no token */ };

/* One rank on `cpu` with a pool for every test, so that no plan depends on the machine's memory. */
struct qd_instance_options tiny_options(const char *isa);

/* Fails the test when it cannot. */
qd_instance_t *open_instance(const struct qd_instance_options *options);

/* eval.json; the caller deletes it. */
cJSON *tiny_eval(void);

/* The number `key` of an object; fails the test when there is none. */
double number_of(const cJSON *object, const char *key);

/* The logits of one sequence on an idle instance: calls row(arg, ...) for every position from first_row on, as
 * qd_forward does. Fails the test when it cannot. */
struct qd_forward;
void forward_tokens(qd_instance_t *instance, const struct qd_forward *forward);

#endif

/* From options to a running instance: what generate, eval, doctor and run share. Talks on standard error. */
#ifndef QD_HARNESS_CLI_SESSION_H
#define QD_HARNESS_CLI_SESSION_H

#include "harness/cli/options.h"
#include "harness/engine/instance.h"
#include "models/tokenizer.h"

/* Instance options as the command line gives them; progress and talk go to standard error. */
struct qd_instance_options qd_session_instance_options(const struct qd_options *options);

/* Opens the model, its replicas and the engine; prints loading speed and every decision on standard error. */
qd_status qd_session_open(const struct qd_instance_options *options, qd_instance_t **out, char *err,
                          size_t errlen);

/* Closes the instance (NULL: there is none). A rank that does not end is said on standard error and turns
 * success into QD_EXIT_PARTIAL; returns the exit code. */
int qd_session_close(const struct qd_command *command, qd_instance_t *instance, int exit_code);

/* The tokenizer of --model; QD_ERR_NOT_FOUND when --model is a preset or has no tokenizer.json. */
qd_status qd_session_tokenizer(const struct qd_options *options, qd_tokenizer_t **out, char *err,
                               size_t errlen);

/* The instruction set that the kernels of a run use; NULL where there is none. */
const char *qd_session_isa(const struct qd_options *options);

/* The token budget that the options lead to. */
int64_t qd_session_budget(const struct qd_options *options);

/* A line "qdyno: ..." on standard error. */
void qd_session_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif

/* The same run for vLLM: two commands, the prompts as a file, and what remains different beside them. */
#ifndef QD_HARNESS_CLI_RUN_VLLM_H
#define QD_HARNESS_CLI_RUN_VLLM_H

#include <stdio.h>

#include "harness/cli/options.h"
#include "harness/engine/instance.h"
#include "harness/workload/workload.h"

/* How texts differ from the ids they were decoded from. */
struct qd_vllm_prompts {
    size_t n;
    size_t n_other_ids;     /* whose text has other ids, */
    size_t n_other_lengths; /* and among them another number of ids */
};

/* Writes the workload's prompts as vLLM's custom JSONL ({"prompt": text, "output_tokens": N}), atomically. */
qd_status qd_run_vllm_write_prompts(const struct qd_workload *workload, const qd_tokenizer_t *tokenizer,
                                    const char *path, struct qd_vllm_prompts *out, char *err, size_t errlen);

/* Prints `vllm serve` and `vllm bench serve` as a shell script with the differences as its comments.
 * `prompts_path` is the file written before. */
void qd_run_vllm_print(const struct qd_options *options, const struct qd_instance_plan *plan,
                       const struct qd_workload *workload, const struct qd_vllm_prompts *prompts,
                       const char *prompts_path, FILE *out);

#endif

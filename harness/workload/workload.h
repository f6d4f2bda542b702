/* A workload: which prompts, how long, in which order, and how they are handed to the engine.
 *
 * Building a workload (reading, tokenising, drawing lengths) happens before any clock starts. Driving it hands
 * tokenised requests to the engine and notes when each token came out.
 */
#ifndef QD_HARNESS_WORKLOAD_WORKLOAD_H
#define QD_HARNESS_WORKLOAD_WORKLOAD_H

#include <signal.h>

#include "harness/engine/engine.h"
#include "harness/result/result.h"
#include "models/tokenizer.h"

struct qd_workload_request {
    int32_t *prompt;   /* [n_prompt] */
    int32_t n_prompt;
    int32_t max_tokens;
};

struct qd_workload {
    struct qd_workload_request *requests; /* [n] in file or draw order */
    size_t n;
    bool ignore_eos; /* random prompts force it, as in vLLM */
    uint64_t hash;   /* FNV-1a over lengths and ids: equal workloads hash alike */
};

/* Random requests with vLLM's formula and our generator: lengths uniform in [floor(L(1-r)), ceil(L(1+r))],
 * drawn in the order input lengths, output lengths, offsets; token j of request i is
 * allowed[(offset_i + i + j) mod n_allowed]. Source: vllm/benchmarks/datasets.py, RandomDataset. */
struct qd_random_spec {
    int64_t n, input_len, output_len, prefix_len;
    double range_ratio;      /* r in [0, 1) */
    uint64_t seed;
    const int32_t *allowed;  /* [n_allowed] ids to use; NULL: 0 .. n_allowed-1 */
    int32_t n_allowed;
};
qd_status qd_workload_random(const struct qd_random_spec *spec, struct qd_workload *out, char *err,
                             size_t errlen);

/* The first n rows (0: all) of a JSONL file in vLLM's custom format: {"prompt": text, "output_tokens": N}.
 * output_len > 0 overrides; a row without output_tokens then needs default_output_len. Texts are encoded as
 * they are. Errors name file, line and field. */
struct qd_custom_spec {
    const char *path;
    int64_t n, output_len, default_output_len;
    bool ignore_eos;
    const qd_tokenizer_t *tokenizer;
};
qd_status qd_workload_custom(const struct qd_custom_spec *spec, struct qd_workload *out, char *err,
                             size_t errlen);

void qd_workload_free(struct qd_workload *workload);

/* How requests are handed over and sampled. */
struct qd_drive_options {
    int64_t max_concurrency; /* 0: burst, all before the first step; else closed loop of that many */
    float temperature, top_p;
    int32_t top_k;
    uint64_t seed; /* request i samples with seed + i */
    const volatile sig_atomic_t *interrupted; /* non-zero: abort what runs and return; NULL: never */
    void (*progress)(void *arg, size_t n_done, size_t n_requests, uint64_t n_tokens); /* NULL: silent */
    void *progress_arg;
};

/* Room for the records of a workload, token times included, reserved before the clock starts. */
qd_status qd_records_create(const struct qd_workload *workload, struct qd_request_record **out, char *err,
                            size_t errlen);
void qd_records_free(struct qd_request_record *records, size_t n);

/* Runs the workload to its end. records[n] as made by qd_records_create; *duration_s from just before the first
 * submission to the last event. A refused or failed request becomes a record with its reason, not an error.
 * QD_ERR_RANK: the engine died (records hold what was measured); QD_ERR_ABORTED: interrupted. */
qd_status qd_workload_drive(qd_engine_t *engine, const struct qd_workload *workload,
                            const struct qd_drive_options *options, struct qd_request_record *records,
                            double *duration_s, char *err, size_t errlen);

#endif

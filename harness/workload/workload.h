/* A workload: which prompts, how long, in which order, and how they are handed to the engine.
 *
 * Building a workload (reading, tokenising, drawing lengths) happens before any clock starts. Driving it
 * hands tokenised requests to the engine and notes when each token came out.
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
    int64_t arrival_ns; /* after the start; only where the workload has arrivals */
};

struct qd_workload {
    struct qd_workload_request *requests; /* [n] in file or draw order */
    size_t n, room;
    bool has_arrivals; /* arrival_ns never falls */
    bool ignore_eos; /* random prompts force it, as in vLLM */
    uint64_t hash;   /* FNV-1a over lengths and ids: equal workloads hash alike */
};

/* Token ids that made-up prompts consist of. */
struct qd_id_set {
    const int32_t *allowed; /* [n] ids to use; NULL: 0 .. n-1 */
    int32_t n;
};

/* Random requests with vLLM's formula and our generator: lengths uniform in [floor(L(1-r)), ceil(L(1+r))],
 * drawn in the order input lengths, output lengths, offsets; token j of request i is
 * allowed[(offset_i + i + j) mod n]. Source: vllm/benchmarks/datasets.py, RandomDataset. */
struct qd_random_spec {
    int64_t n, input_len, output_len, prefix_len;
    double range_ratio;      /* r in [0, 1) */
    uint64_t seed;
    struct qd_id_set ids;
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

/* One prompt a line, as it is; the line end does not belong to it. output_len is that of every request. */
struct qd_prompts_spec {
    const char *path;
    int64_t n; /* the first n lines; 0: all */
    int64_t output_len;
    bool ignore_eos;
    const qd_tokenizer_t *tokenizer;
};
qd_status qd_workload_prompts(const struct qd_prompts_spec *spec, struct qd_workload *out, char *err,
                              size_t errlen);

/* ShareGPT JSON by vLLM's rules: conversations of two turns or more, shuffled by the seed; the first turn is
 * the prompt, the length of the second the output; kept when prompt >= 4, output >= 4, prompt <= 1024 and
 * both <= 2048 tokens. Source: vllm/benchmarks/datasets.py, ShareGPTDataset, is_valid_sequence; the order of
 * its shuffle is Python's, ours is not. */
struct qd_sharegpt_spec {
    const char *path;
    int64_t n;          /* 0: all that are kept */
    int64_t output_len; /* 0: of the answer */
    bool ignore_eos;
    uint64_t seed;
    const qd_tokenizer_t *tokenizer;
};
qd_status qd_workload_sharegpt(const struct qd_sharegpt_spec *spec, struct qd_workload *out, char *err,
                               size_t errlen);

/* Lengths and arrivals of a trace; prompts are made-up ids.
 *
 * JSONL (Mooncake, vLLM's timed_trace): timestamp (ms), input_length, output_length, and optionally hash_ids,
 * each standing for a block of 512 prompt tokens: equal ids become equal tokens. CSV: `columns` names
 * them, and ARRIVAL and OUTPUT may be empty. Arrivals count from the first row on and must not fall. */
struct qd_trace_spec {
    const char *path;
    const char *columns; /* of CSV: a preset's name, "auto", or "ARRIVAL,INPUT,OUTPUT" */
    int64_t n;           /* the first n requests; 0: all */
    int64_t output_len;  /* 0: of the trace */
    double speedup;      /* arrivals are divided by it; > 0 */
    uint64_t seed;
    struct qd_id_set ids;
};
qd_status qd_workload_trace(const struct qd_trace_spec *spec, struct qd_workload *out, char *err,
                            size_t errlen);
/* The same of a text; spec->path only names it. */
qd_status qd_workload_trace_parse(const struct qd_trace_spec *spec, const char *text, size_t len,
                                  struct qd_workload *out, char *err, size_t errlen);

/* Arrival times as vLLM's get_request draws them: the gap before request i is gamma distributed with mean
 * 1/r_i and shape `burstiness` (1: Poisson arrivals, infinity: constant), the first request has its own gap,
 * and without a ramp all times are scaled so that the last is n / rate. With a ramp r_i goes from start_rate
 * to end_rate over the index. Source: vllm/benchmarks/serve.py. Our own generator: times differ from vLLM's,
 * their distribution does not. */
enum qd_ramp { QD_RAMP_NONE = 0, QD_RAMP_LINEAR, QD_RAMP_EXPONENTIAL };
struct qd_arrivals_spec {
    double rate, burstiness;     /* requests a second > 0; > 0 */
    enum qd_ramp ramp;
    double start_rate, end_rate; /* of a ramp, > 0 */
    uint64_t seed;
};
qd_status qd_workload_set_arrivals(const struct qd_arrivals_spec *spec, struct qd_workload *workload,
                                   char *err, size_t errlen);

void qd_workload_free(struct qd_workload *workload);

/* How requests are handed over:
 *   burst   all before the first step
 *   closed  max_concurrency in flight
 *   open    at their arrival times, but never more than max_concurrency (0: no limit) in flight; who waits
 *           for a place keeps its turn
 *   waves   wave_size at once, or client_delay_ns one after another; the next when all of one have ended */
enum qd_pacing { QD_PACING_BURST = 0, QD_PACING_CLOSED, QD_PACING_OPEN, QD_PACING_WAVES };

struct qd_drive_options {
    enum qd_pacing pacing;
    int64_t max_concurrency, wave_size, client_delay_ns;
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

/* Runs the workload to its end. records[n] as made by qd_records_create; *duration_s from just before the
 * first submission to the last event. A refused or failed request becomes a record with its reason, not an
 * error. QD_ERR_RANK: the engine died (records hold what was measured); QD_ERR_ABORTED: interrupted. */
qd_status qd_workload_drive(qd_engine_t *engine, const struct qd_workload *workload,
                            const struct qd_drive_options *options, struct qd_request_record *records,
                            double *duration_s, char *err, size_t errlen);

#endif

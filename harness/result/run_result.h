/* Everything one run knows about itself, and the two files made of it: result.json (keys and units of vLLM's
 * --save-result, ours under `qdyno`) and requests.jsonl. bench/METRICS.md defines every field.
 */
#ifndef QD_HARNESS_RESULT_RUN_RESULT_H
#define QD_HARNESS_RESULT_RUN_RESULT_H

#include <cjson/cJSON.h>

#include "harness/engine/engine.h"
#include "harness/result/ledger.h"
#include "harness/result/gpu_record.h"
#include "harness/result/machine.h"
#include "harness/result/result.h"
#include "harness/result/schema.h"

/* How a replica's device was opened, where there was a choice. Strings are borrowed. */
struct qd_run_device {
    const char *collectives; /* "own", "nccl", "auto", or NULL (qd_device_collectives) */
    const char *note;        /* what it does otherwise than asked for, and why; NULL: nothing */
};

/* Strings are borrowed; NULL becomes null. */
struct qd_run_result {
    /* what ran */
    const char *date;         /* as qd_date_now writes it: when the run began */
    const char *label;        /* the user's name for the run */
    const char *variant;      /* of the sweep it is part of (variant.h) */
    const char *model_id;     /* as given: directory or preset */
    const char *tokenizer_id; /* NULL when no tokenizer was used */
    const char *version, *commit;
    const char *device;      /* as in --device */
    const char *device_isa;  /* instruction set the kernels used; NULL where there is none */
    const char *numerics;    /* "fused", "hf" */
    const char *load_format; /* "auto", "dummy" */
    int argc;
    char *const *argv;
    uint64_t seed;

    /* the workload */
    const char *workload;      /* e.g. "closed" */
    const char *workload_hash; /* hash of prompts, lengths and arrivals */
    int64_t num_prompts;
    int64_t max_concurrency;        /* 0: no limit */
    double request_rate, burstiness; /* infinite, 1: no arrival process */

    /* the configuration, after every default and shrinking */
    int tp, dp, n_threads;
    bool is_virtual;   /* the clock of everything but host segments */
    int ranks_per_gpu; /* 1 also where there are no GPUs */
    const char *router;
    const char *dp_coupling; /* as in --dp-coupling */
    int64_t max_num_batched_tokens, max_num_seqs, max_model_len, n_kv_blocks;
    bool prefix_caching, async_scheduling;
    int64_t long_prefill_token_threshold; /* 0: none */

    /* the measurement */
    struct qd_metrics metrics;
    const struct qd_request_record *records; /* [n_records] */
    uint64_t n_records;
    const struct qd_replica_stats *replicas; /* [dp] */
    const struct qd_run_device *devices;     /* [dp], of them; NULL: nothing is known */
    struct qd_ledger ledger;                 /* of them */

    /* apart from it */
    int64_t num_warmups, warmup_ns;
    uint64_t load_bytes; /* weights read from files */
    int64_t load_ns;     /* load and arrange */
    struct qd_machine machine;
    struct qd_machine_load load_before, load_after; /* around the measured part */
    const struct qd_gpu_records *gpus;              /* likewise; NULL: not asked */
    double probed_read_gbps;                        /* GB/s; 0: not probed */
    uint32_t marks;                                 /* qd_run_result_find_marks */
};

enum { QD_DATE_LEN = 16 };

/* Local time as "%Y%m%d-%H%M%S". */
void qd_date_now(char out[QD_DATE_LEN]);

/* Marks that follow from the rest of `run`. */
uint32_t qd_run_result_find_marks(const struct qd_run_result *run);

/* Largest over mean of the tokens (prefill and decode) that each replica computed; 1 is perfect balance, 0
 * when nothing ran. */
double qd_replica_imbalance(const struct qd_replica_stats *replicas, int dp);

/* Time in which replicas had requests and ran none of them, because they were coupled: over all replicas, s,
 * and as a share of their time in the run; 0 in a run without duration. */
double qd_coupling_wait_s(const struct qd_replica_stats *replicas, int dp);
double qd_coupling_wait_share(const struct qd_replica_stats *replicas, int dp, double duration_s);

/* result.json as a tree, owned by the caller; NULL when out of memory. */
cJSON *qd_run_result_to_json(const struct qd_run_result *run);

/* Writes result.json to `path`, atomically. */
qd_status qd_run_result_write(const struct qd_run_result *run, const char *path, char *err, size_t errlen);

/* Writes one JSON line per request, in submission order, atomically. Times are ns since the earliest
 * submission; inter-token gaps are [gap_ns, count] pairs in the order of the tokens. */
qd_status qd_requests_write(const struct qd_request_record *records, uint64_t n, const char *path, char *err,
                            size_t errlen);

#endif

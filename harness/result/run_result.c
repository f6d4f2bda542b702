#include "harness/result/run_result.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "harness/result/device_use.h"
#include "harness/result/files.h"
#include "harness/result/marks.h"

void qd_date_now(char out[QD_DATE_LEN])
{
    time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local) == NULL || strftime(out, QD_DATE_LEN, "%Y%m%d-%H%M%S", &local) == 0)
        snprintf(out, QD_DATE_LEN, "00000000-000000");
}

uint32_t qd_run_result_find_marks(const struct qd_run_result *run)
{
    uint32_t marks = 0;
    if (run->metrics.n_failed > 0) marks |= QD_MARK_FAILED_REQUESTS;
    if (run->is_virtual) return marks | QD_MARK_VIRTUAL_TIME; /* which machine it was makes no difference */
    marks |= qd_machine_marks(&run->machine, &run->load_before, &run->load_after, run->tp * run->dp);
    if (run->gpus != NULL) marks |= qd_gpu_records_marks(run->gpus);
    if (run->ranks_per_gpu > 1 && run->tp * run->dp > 1) marks |= QD_MARK_SHARED_GPUS;
    return marks;
}

double qd_replica_imbalance(const struct qd_replica_stats *replicas, int dp)
{
    double sum = 0, max = 0;
    for (int i = 0; i < dp; i++) {
        double tokens = (double)(replicas[i].n_prefill_tokens + replicas[i].n_decode_tokens);
        sum += tokens;
        if (tokens > max) max = tokens;
    }
    return sum > 0 ? max * dp / sum : 0;
}

double qd_coupling_wait_s(const struct qd_replica_stats *replicas, int dp)
{
    double sum = 0;
    for (int i = 0; i < dp; i++) sum += (double)replicas[i].coupling_wait_ns / 1e9;
    return sum;
}

double qd_coupling_wait_share(const struct qd_replica_stats *replicas, int dp, double duration_s)
{
    return duration_s > 0 ? qd_coupling_wait_s(replicas, dp) / (duration_s * dp) : 0;
}

static double gbps(uint64_t bytes, int64_t ns)
{
    return ns > 0 ? (double)bytes / (double)ns : 0;
}

/* vLLM's keys of one latency; 0 where there is no sample, as vLLM writes it. */
static void put_compatible(cJSON *o, const char *name, const struct qd_distribution *d, bool *ok)
{
    const struct {
        const char *prefix;
        double value;
    } fields[] = {{"mean", d->mean}, {"median", d->p50}, {"std", d->std}, {"p50", d->p50},
                  {"p90", d->p90},   {"p95", d->p95},    {"p99", d->p99}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_%s_ms", fields[i].prefix, name);
        qd_json_put_number(o, key, fields[i].value, ok);
    }
}

/* Our own description of one latency: the number of samples, and null where there are none. */
static void put_distribution(cJSON *parent, const char *name, const struct qd_distribution *d, bool *ok)
{
    cJSON *o = qd_json_put_object(parent, name, ok);
    const struct {
        const char *key;
        double value;
    } fields[] = {{"mean", d->mean}, {"std", d->std}, {"min", d->min}, {"p50", d->p50},
                  {"p90", d->p90},   {"p95", d->p95}, {"p99", d->p99}, {"max", d->max}};
    qd_json_put_int(o, "n", (int64_t)d->n, ok);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        qd_json_put_known(o, fields[i].key, fields[i].value, d->n > 0, ok);
}

static void put_latencies(cJSON *parent, const struct qd_latencies *l, bool *ok)
{
    cJSON *o = qd_json_put_object(parent, "latency_ms", ok);
    put_distribution(o, "ttft", &l->ttft, ok);
    put_distribution(o, "tpot", &l->tpot, ok);
    put_distribution(o, "itl", &l->itl, ok);
    put_distribution(o, "e2el", &l->e2el, ok);
    put_distribution(o, "queue", &l->queue, ok);
    put_distribution(o, "dispatch", &l->dispatch, ok);
}

static void put_vllm_keys(cJSON *o, const struct qd_run_result *run, bool *ok)
{
    const struct qd_metrics *m = &run->metrics;
    qd_json_put_text(o, "date", run->date, ok);
    qd_json_put_text(o, "endpoint_type", "qdyno", ok);
    qd_json_put_text(o, "backend", "qdyno", ok);
    qd_json_put_text(o, "label", run->label, ok);
    qd_json_put_text(o, "model_id", run->model_id, ok);
    qd_json_put_text(o, "tokenizer_id", run->tokenizer_id, ok);
    qd_json_put_int(o, "num_prompts", run->num_prompts, ok);
    if (isinf(run->request_rate))
        qd_json_put_text(o, "request_rate", "inf", ok); /* as vLLM writes it */
    else
        qd_json_put_number(o, "request_rate", run->request_rate, ok);
    if (isinf(run->burstiness))
        qd_json_put_text(o, "burstiness", "inf", ok);
    else
        qd_json_put_number(o, "burstiness", run->burstiness, ok);
    if (run->max_concurrency > 0)
        qd_json_put_int(o, "max_concurrency", run->max_concurrency, ok);
    else
        qd_json_put_null(o, "max_concurrency", ok);
    qd_json_put_number(o, "duration", m->duration_s, ok);
    qd_json_put_int(o, "completed", (int64_t)m->n_completed, ok);
    qd_json_put_int(o, "failed", (int64_t)m->n_failed, ok);
    qd_json_put_int(o, "total_input_tokens", (int64_t)m->n_input_tokens, ok);
    qd_json_put_int(o, "total_output_tokens", (int64_t)m->n_output_tokens, ok);
    qd_json_put_number(o, "request_throughput", m->request_throughput, ok);
    qd_json_put_known(o, "request_goodput", m->request_goodput, m->slo.is_given, ok);
    qd_json_put_number(o, "output_throughput", m->output_throughput, ok);
    qd_json_put_number(o, "total_token_throughput", m->total_token_throughput, ok);
    qd_json_put_number(o, "max_output_tokens_per_s", m->max_output_tokens_per_s, ok);
    qd_json_put_number(o, "max_concurrent_requests", m->max_concurrent_requests, ok);
    qd_json_put_number(o, "rtfx", 0, ok); /* audio only, as vLLM writes it for text */
    put_compatible(o, "ttft", &m->latency.ttft, ok);
    put_compatible(o, "tpot", &m->latency.tpot, ok);
    put_compatible(o, "itl", &m->latency.itl, ok);
    put_compatible(o, "e2el", &m->latency.e2el, ok);
    qd_json_put_int(o, "tensor_parallel_size", run->tp, ok);
    qd_json_put_int(o, "data_parallel_size", run->dp, ok);
    qd_json_put_int(o, "max_num_batched_tokens", run->max_num_batched_tokens, ok);
}

static void put_origin(cJSON *o, const struct qd_run_result *run, bool *ok)
{
    qd_json_put_int(o, "schema_version", QD_RESULT_SCHEMA_VERSION, ok);
    qd_json_put_text(o, "variant", run->variant, ok);
    qd_json_put_text(o, "version", run->version, ok);
    qd_json_put_text(o, "commit", run->commit, ok);
    cJSON *argv = qd_json_put_array(o, "argv", ok);
    for (int i = 0; i < run->argc; i++)
        qd_json_append_text(argv, run->argv[i], ok);
    char seed[24]; /* text: 64 bits do not fit a JSON number */
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)run->seed);
    qd_json_put_text(o, "seed", seed, ok);
    cJSON *marks = qd_json_put_array(o, "marks", ok);
    for (uint32_t mark = 1; qd_mark_text(mark) != NULL; mark <<= 1)
        if (run->marks & mark) qd_json_append_text(marks, qd_mark_text(mark), ok);
    qd_json_put_text(o, "clock", run->is_virtual ? "virtual" : "real", ok);
    cJSON *device = qd_json_put_object(o, "device", ok);
    qd_json_put_text(device, "name", run->device, ok);
    qd_json_put_text(device, "isa", run->device_isa, ok);
    qd_json_put_text(device, "numerics", run->numerics, ok);
    qd_json_put_int(device, "n_threads", run->n_threads, ok);
    qd_json_put_int(device, "ranks_per_gpu", run->ranks_per_gpu, ok);
    if (run->probed_read_gbps > 0)
        qd_json_put_number(device, "probed_read_gbps", run->probed_read_gbps, ok);
    else
        qd_json_put_null(device, "probed_read_gbps", ok);
    qd_json_put_item(o, "machine", qd_machine_to_json(&run->machine), ok);
    qd_json_put_item(o, "machine_load", qd_machine_load_to_json(&run->load_before, &run->load_after), ok);
    qd_json_put_item(o, "gpus", run->gpus != NULL ? qd_gpu_records_to_json(run->gpus) : cJSON_CreateNull(),
                     ok);
}

static void put_configuration(cJSON *o, const struct qd_run_result *run, bool *ok)
{
    cJSON *workload = qd_json_put_object(o, "workload", ok);
    qd_json_put_text(workload, "kind", run->workload, ok);
    qd_json_put_text(workload, "hash", run->workload_hash, ok);
    cJSON *engine = qd_json_put_object(o, "engine", ok);
    qd_json_put_text(engine, "router", run->router, ok);
    qd_json_put_text(engine, "dp_coupling", run->dp_coupling, ok);
    qd_json_put_int(engine, "max_num_seqs", run->max_num_seqs, ok);
    qd_json_put_int(engine, "max_model_len", run->max_model_len, ok);
    qd_json_put_int(engine, "n_kv_blocks", run->n_kv_blocks, ok);
    qd_json_put_bool(engine, "prefix_caching", run->prefix_caching, ok);
    qd_json_put_bool(engine, "async_scheduling", run->async_scheduling, ok);
    qd_json_put_int(engine, "long_prefill_token_threshold", run->long_prefill_token_threshold, ok);
    cJSON *warmup = qd_json_put_object(o, "warmup", ok);
    qd_json_put_int(warmup, "num_warmups", run->num_warmups, ok);
    qd_json_put_number(warmup, "duration_s", (double)run->warmup_ns / 1e9, ok);
    cJSON *load = qd_json_put_object(o, "load", ok);
    qd_json_put_text(load, "format", run->load_format, ok);
    qd_json_put_int(load, "bytes", (int64_t)run->load_bytes, ok);
    qd_json_put_number(load, "duration_s", (double)run->load_ns / 1e9, ok);
    qd_json_put_number(load, "gbps", gbps(run->load_bytes, run->load_ns), ok);
}

static void put_slo(cJSON *parent, const struct qd_metrics *m, bool *ok)
{
    const struct qd_slo *slo = &m->slo;
    if (!slo->is_given) {
        qd_json_put_null(parent, "goodput", ok);
        return;
    }
    cJSON *o = qd_json_put_object(parent, "goodput", ok);
    qd_json_put_known(o, "ttft_ms", slo->ttft_ms, isfinite(slo->ttft_ms), ok);
    qd_json_put_known(o, "tpot_ms", slo->tpot_ms, isfinite(slo->tpot_ms), ok);
    qd_json_put_known(o, "e2el_ms", slo->e2el_ms, isfinite(slo->e2el_ms), ok);
    qd_json_put_int(o, "good", (int64_t)m->n_good, ok);
}

static void put_steady_state(cJSON *parent, const struct qd_steady_state *s, bool *ok)
{
    if (!s->exists) {
        qd_json_put_null(parent, "steady_state", ok);
        return;
    }
    cJSON *o = qd_json_put_object(parent, "steady_state", ok);
    qd_json_put_text(o, "rule", s->threshold > 0 ? "concurrency" : "arrivals", ok);
    qd_json_put_int(o, "start_ns", s->start_ns, ok);
    qd_json_put_int(o, "end_ns", s->end_ns, ok);
    qd_json_put_number(o, "duration_s", s->duration_s, ok);
    qd_json_put_known(o, "threshold", (double)s->threshold, s->threshold > 0, ok);
    qd_json_put_known(o, "peak_in_flight", (double)s->peak_in_flight, s->threshold > 0, ok);
    qd_json_put_bool(o, "short", s->is_short, ok);
    qd_json_put_int(o, "requests_started", (int64_t)s->n_started, ok);
    qd_json_put_int(o, "requests_completed", (int64_t)s->n_completed, ok);
    qd_json_put_int(o, "output_tokens", (int64_t)s->n_output_tokens, ok);
    qd_json_put_number(o, "request_throughput", s->request_throughput, ok);
    qd_json_put_number(o, "output_tok_s", s->output_throughput, ok);
    put_latencies(o, &s->latency, ok);
}

static void put_metrics(cJSON *o, const struct qd_metrics *m, bool *ok)
{
    bool has_requests = m->n_completed > 0;
    cJSON *rates = qd_json_put_object(o, "throughput", ok);
    qd_json_put_number(rates, "output_tok_s", m->output_throughput, ok);
    qd_json_put_number(rates, "tok_s_per_gpu", m->per_gpu_throughput, ok);
    qd_json_put_known(rates, "tok_s_per_user", m->per_user_throughput, has_requests, ok);
    qd_json_put_known(o, "per_request_tok_s", m->per_request_tok_s, has_requests, ok);
    qd_json_put_number(o, "mean_concurrency", m->mean_concurrency, ok);
    put_latencies(o, &m->latency, ok);
    put_slo(o, m, ok);
    put_steady_state(o, &m->steady, ok);
}

static void put_replica(cJSON *array, const struct qd_run_result *run, int replica, bool *ok)
{
    const struct qd_replica_stats *s = &run->replicas[replica];
    struct qd_run_device device = run->devices != NULL ? run->devices[replica] : (struct qd_run_device){0};
    cJSON *o = cJSON_CreateObject();
    qd_json_append_item(array, o, ok);
    qd_json_put_text(o, "collectives", device.collectives, ok);
    qd_json_put_text(o, "device_note", device.note, ok);
    qd_json_put_int(o, "n_steps", (int64_t)s->n_steps, ok);
    qd_json_put_int(o, "n_prefill_tokens", (int64_t)s->n_prefill_tokens, ok);
    qd_json_put_int(o, "n_decode_tokens", (int64_t)s->n_decode_tokens, ok);
    qd_json_put_int(o, "n_prefill_steps", (int64_t)s->n_prefill_steps, ok);
    qd_json_put_int(o, "n_prefill_requests", (int64_t)s->n_prefill_requests, ok);
    qd_json_put_int(o, "n_finished", (int64_t)s->n_finished, ok);
    qd_json_put_int(o, "n_preemptions", (int64_t)s->n_preemptions, ok);
    qd_json_put_int(o, "n_recomputed_tokens", (int64_t)s->n_recomputed_tokens, ok);
    qd_json_put_int(o, "n_query_tokens", (int64_t)s->n_query_tokens, ok);
    qd_json_put_int(o, "n_hit_tokens", (int64_t)s->n_hit_tokens, ok);
    qd_json_put_int(o, "n_rehit_tokens", (int64_t)s->n_rehit_tokens, ok);
    qd_json_put_int(o, "peak_running", s->peak_running, ok);
    qd_json_put_int(o, "peak_waiting", s->peak_waiting, ok);
    qd_json_put_int(o, "peak_kv_blocks", s->peak_kv_blocks, ok);
    qd_json_put_number(o, "peak_kv_share", (double)s->peak_kv_blocks / (double)run->n_kv_blocks, ok);
    qd_json_put_int(o, "schedule_ns", s->schedule_ns, ok);
    qd_json_put_int(o, "prepare_ns", s->prepare_ns, ok);
    qd_json_put_int(o, "launch_ns", s->launch_ns, ok);
    qd_json_put_int(o, "wait_ns", s->wait_ns, ok);
    qd_json_put_int(o, "output_ns", s->output_ns, ok);
    qd_json_put_int(o, "idle_ns", s->idle_ns, ok);
    qd_json_put_int(o, "wall_ns", s->wall_ns, ok);
    qd_device_stats_put(o, &s->device, ok);
}

static void put_coupling(cJSON *parent, const struct qd_run_result *run, bool *ok)
{
    if (strcmp(run->dp_coupling, "none") == 0) {
        qd_json_put_null(parent, "coupling", ok);
        return;
    }
    double duration_s = run->metrics.duration_s;
    cJSON *o = qd_json_put_object(parent, "coupling", ok);
    qd_json_put_number(o, "wait_s", qd_coupling_wait_s(run->replicas, run->dp), ok);
    qd_json_put_number(o, "wait_share", qd_coupling_wait_share(run->replicas, run->dp, duration_s), ok);
    cJSON *replicas = qd_json_put_array(o, "replicas", ok);
    for (int i = 0; i < run->dp; i++) {
        cJSON *r = cJSON_CreateObject();
        qd_json_append_item(replicas, r, ok);
        qd_json_put_int(r, "wait_ns", run->replicas[i].coupling_wait_ns, ok);
        qd_json_put_number(r, "wait_share", qd_coupling_wait_share(&run->replicas[i], 1, duration_s), ok);
        qd_json_put_int(r, "n_dummies", (int64_t)run->replicas[i].n_dummies, ok);
    }
}

cJSON *qd_run_result_to_json(const struct qd_run_result *run)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root != NULL;
    put_vllm_keys(root, run, &ok);
    cJSON *own = qd_json_put_object(root, "qdyno", &ok);
    put_origin(own, run, &ok);
    put_configuration(own, run, &ok);
    put_metrics(own, &run->metrics, &ok);
    uint64_t n_preemptions = 0, n_hit_tokens = 0, n_prefill_steps = 0, n_prefill_requests = 0;
    for (int i = 0; i < run->dp; i++) {
        n_preemptions += run->replicas[i].n_preemptions;
        n_hit_tokens += run->replicas[i].n_hit_tokens;
        n_prefill_steps += run->replicas[i].n_prefill_steps;
        n_prefill_requests += run->replicas[i].n_prefill_requests;
    }
    qd_json_put_int(own, "preemptions", (int64_t)n_preemptions, &ok);
    qd_json_put_int(own, "hit_tokens", (int64_t)n_hit_tokens, &ok);
    qd_json_put_known(own, "prompts_per_prefill_step", (double)n_prefill_requests / (double)n_prefill_steps,
                n_prefill_steps > 0, &ok);
    double imbalance = qd_replica_imbalance(run->replicas, run->dp);
    qd_json_put_number(own, "imbalance", imbalance, &ok);
    put_coupling(own, run, &ok);
    struct qd_device_use use = qd_device_use_of(run->replicas, run->dp);
    qd_device_use_put(own, &use, &ok);
    qd_ledger_put(own, &run->ledger, run->replicas, run->dp, &ok);
    cJSON *replicas = qd_json_put_array(own, "replicas", &ok);
    for (int i = 0; i < run->dp; i++)
        put_replica(replicas, run, i, &ok);
    if (ok) return root;
    cJSON_Delete(root);
    return NULL;
}

qd_status qd_run_result_write(const struct qd_run_result *run, const char *path, char *err, size_t errlen)
{
    cJSON *root = qd_run_result_to_json(run);
    if (root == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    qd_status st = qd_file_write_json(path, root, err, errlen);
    cJSON_Delete(root);
    return st;
}

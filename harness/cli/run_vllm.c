#include "harness/cli/run_vllm.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/run_workload.h"
#include "harness/result/files.h"
#include "kernels/step.h"
#include "models/json.h"

/* Decodes one prompt, writes its line, and sees what vLLM will make of it. */
static qd_status write_prompt(const struct qd_workload_request *request, const qd_tokenizer_t *tokenizer,
                              FILE *file, struct qd_vllm_prompts *out, char *err, size_t errlen)
{
    char *text = NULL, *quoted = NULL;
    int32_t *ids = NULL;
    size_t len, n_ids, n = (size_t)request->n_prompt;
    qd_status status;
    QD_TRY_GOTO(qd_tokenizer_decode(tokenizer, request->prompt, n, false, &text, &len, err, errlen), status,
                cleanup);
    QD_TRY_GOTO(qd_tokenizer_encode(tokenizer, text, len, &ids, &n_ids, err, errlen), status, cleanup);
    quoted = qd_json_quote(text, len);
    if (quoted == NULL) {
        status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "text of %zu tokens", n);
        goto cleanup;
    }
    fprintf(file, "{\"prompt\": %s, \"output_tokens\": %" PRId32 "}\n", quoted, request->max_tokens);
    bool same = n_ids == n && memcmp(ids, request->prompt, n * sizeof *ids) == 0;
    out->n++;
    out->n_other_ids += !same;
    out->n_other_lengths += n_ids != n;

cleanup:
    free(quoted);
    free(ids);
    free(text);
    return status;
}

qd_status qd_run_vllm_write_prompts(const struct qd_workload *workload, const qd_tokenizer_t *tokenizer,
                                    const char *path, struct qd_vllm_prompts *out, char *err, size_t errlen)
{
    *out = (struct qd_vllm_prompts){0};
    struct qd_atomic_file file;
    QD_TRY(qd_atomic_file_open(&file, path, err, errlen));
    for (size_t i = 0; i < workload->n; i++) {
        qd_status status = write_prompt(&workload->requests[i], tokenizer, file.stream, out, err, errlen);
        if (status != QD_OK) {
            qd_atomic_file_discard(&file);
            return status;
        }
    }
    return qd_atomic_file_commit(&file, err, errlen);
}

/* One word for the shell: in quotes where it needs them. */
static void print_word(FILE *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,+@%-";
    fputc(' ', out);
    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    }
    fputc('\'', out);
}

/* An option on a line of its own. */
static void print_flag(FILE *out, const char *name)
{
    fprintf(out, " \\\n    %s", name);
}

static void print_text(FILE *out, const char *name, const char *value)
{
    print_flag(out, name);
    print_word(out, value);
}

static void print_int(FILE *out, const char *name, int64_t value)
{
    print_flag(out, name);
    fprintf(out, " %" PRId64, value);
}

static void print_real(FILE *out, const char *name, double value)
{
    print_flag(out, name);
    fprintf(out, " %.15g", value);
}

static void print_serve(FILE *out, const struct qd_options *o, const struct qd_instance_plan *plan)
{
    fputs(o->batch_invariant ? "VLLM_BATCH_INVARIANT=1 vllm serve" : "vllm serve", out);
    print_word(out, o->model);
    print_text(out, "--dtype", "bfloat16");
    print_text(out, "--load-format", o->load_format);
    print_int(out, "--tensor-parallel-size", plan->tp);
    print_int(out, "--data-parallel-size", plan->dp);
    print_int(out, "--max-num-batched-tokens", plan->limits.max_tokens);
    print_int(out, "--max-num-seqs", plan->limits.max_seqs);
    print_int(out, "--max-model-len", plan->max_model_len);
    print_int(out, "--block-size", QD_KV_BLOCK_SIZE);
    print_int(out, "--num-gpu-blocks-override", plan->n_kv_blocks);
    print_int(out, "--long-prefill-token-threshold", o->long_prefill_token_threshold);
    print_flag(out, o->enable_prefix_caching ? "--enable-prefix-caching" : "--no-enable-prefix-caching");
    print_flag(out, o->async_scheduling ? "--async-scheduling" : "--no-async-scheduling");
    if (o->enforce_eager) print_flag(out, "--enforce-eager");
    if (qd_options_given(o, "gpu-memory-utilization"))
        print_real(out, "--gpu-memory-utilization", o->memory_utilization);
    print_text(out, "--generation-config", "vllm");
    print_int(out, "--seed", o->seed);
    fputc('\n', out);
}

static double mean_rate(const struct qd_workload *workload)
{
    int64_t last_ns = workload->requests[workload->n - 1].arrival_ns;
    return last_ns > 0 ? (double)workload->n / ((double)last_ns * 1e-9) : INFINITY;
}

static void print_traffic(FILE *out, const struct qd_options *o, const struct qd_workload *workload)
{
    bool replays = strcmp(qd_run_workload_pacing(o, workload).kind, "trace") == 0;
    if (o->ramp_up_strategy != NULL) {
        print_text(out, "--ramp-up-strategy", o->ramp_up_strategy);
        print_int(out, "--ramp-up-start-rps", llround(o->ramp_up_start_rps));
        print_int(out, "--ramp-up-end-rps", llround(o->ramp_up_end_rps));
    } else {
        print_real(out, "--request-rate", replays ? mean_rate(workload) : o->request_rate);
    }
    print_real(out, "--burstiness", o->burstiness);
    int64_t limit = o->wave_size > 0 ? o->wave_size : o->max_concurrency;
    if (limit > 0) print_int(out, "--max-concurrency", limit);
}

static void print_sampling(FILE *out, const struct qd_options *o, const struct qd_workload *workload)
{
    print_real(out, "--temperature", o->temperature);
    if (o->temperature > 0) print_real(out, "--top-p", o->top_p);
    if (o->temperature > 0 && o->top_k > 0) print_int(out, "--top-k", o->top_k);
    if (workload->ignore_eos) print_flag(out, "--ignore-eos");
}

static void print_bench(FILE *out, const struct qd_options *o, const struct qd_workload *workload,
                        const char *prompts_path)
{
    fputs("vllm bench serve", out);
    print_text(out, "--backend", "openai");
    print_text(out, "--model", o->model);
    print_text(out, "--dataset-name", "custom");
    print_text(out, "--dataset-path", prompts_path);
    print_int(out, "--custom-output-len", -1);
    print_flag(out, "--skip-chat-template");
    print_flag(out, "--disable-shuffle");
    print_flag(out, "--no-oversample");
    print_int(out, "--num-prompts", (int64_t)workload->n);
    print_traffic(out, o, workload);
    print_sampling(out, o, workload);
    print_int(out, "--num-warmups", o->num_warmups);
    print_int(out, "--seed", o->seed);
    print_text(out, "--percentile-metrics", "ttft,tpot,itl,e2el");
    print_text(out, "--metric-percentiles", "50,90,95,99");
    if (o->goodput.n > 0) print_flag(out, "--goodput");
    for (int i = 0; i < o->goodput.n; i++) print_word(out, o->goodput.texts[i]);
    if (o->label != NULL) print_text(out, "--label", o->label);
    print_flag(out, "--save-result");
    print_flag(out, "--save-detailed");
    print_text(out, "--result-dir", o->result_dir);
    print_text(out, "--result-filename", "vllm.json");
    fputc('\n', out);
}

static void print_prompt_differences(FILE *out, const struct qd_vllm_prompts *prompts)
{
    if (prompts->n_other_ids == 0)
        fprintf(out, "# - Prompts: the texts of all %zu have the ids that ran here.\n", prompts->n);
    else
        fprintf(out,
                "# - Prompts: the texts of %zu of %zu have other ids than those that ran here, those of %zu "
                "another "
                "number of them.\n",
                prompts->n_other_ids, prompts->n, prompts->n_other_lengths);
}

static void print_workload_differences(FILE *out, const struct qd_options *o,
                                       const struct qd_workload *workload)
{
    const char *kind = qd_run_workload_pacing(o, workload).kind;
    if (o->wave_size > 0)
        fprintf(out,
                "# - Waves: vLLM has none. --max-concurrency %" PRId64
                " keeps as many in flight, but starts one whenever one ends.\n",
                o->wave_size);
    if (o->client_delay_ms > 0)
        fprintf(out,
                "# - Client delay: vLLM has none; here the requests of a wave follow each other by %g ms.\n",
                o->client_delay_ms);
    if (strcmp(kind, "trace") == 0)
        fputs("# - Arrivals: a custom data set has no times. The rate is the trace's mean, with Poisson "
              "arrivals. "
              "(vLLM replays the times\n#   of a trace with hash_ids by --dataset-name timed_trace "
              "--self-timed, "
              "with prompts of its own.)\n",
              out);
    else if (workload->has_arrivals)
        fputs("# - Arrivals: same distribution, from another generator: the times differ.\n", out);
    if (strcmp(kind, "ramp") == 0 && (o->ramp_up_start_rps != floor(o->ramp_up_start_rps) ||
                                      o->ramp_up_end_rps != floor(o->ramp_up_end_rps)))
        fputs("# - Ramp: vLLM takes whole requests a second; these are rounded.\n", out);
    if (o->num_warmups > 0)
        fputs("# - Warm-ups: vLLM repeats the first prompt; here they have prompts of their own.\n", out);
}

/* What was asked for and vLLM cannot be asked for. */
static void print_missing_options(FILE *out, const struct qd_options *o)
{
    static const char *const names[] = {
        "threads",     "router",      "numerics",      "cpu-isa",     "memory-limit",          "probe",
        "null-step-us", "null-steps", "dp-coupling",   "collectives", "kv-cache-memory-bytes", "ranks-per-gpu",
        "device-timing"};
    for (int i = 0; i < o->n_given; i++)
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            if (strcmp(o->given[i].name, names[k]) == 0)
                fprintf(out, "# - %s%s%s: not an option of the commands above.\n", o->given[i].word,
                        o->given[i].value != NULL ? " " : "",
                        o->given[i].value != NULL ? o->given[i].value : "");
}

static void print_differences(FILE *out, const struct qd_options *o, const struct qd_instance_plan *plan,
                              const struct qd_workload *workload, const struct qd_vllm_prompts *prompts)
{
    fputs("\n# What remains different:\n"
          "# - Clock: vLLM's client counts from its HTTP request, so that HTTP, tokenising and detokenising "
          "are in its "
          "TTFT and E2EL;\n#   here a request's clock starts when its ids are handed to the engine.\n"
          "# - ITL: a gap between chunks of the stream there (a chunk may hold several tokens), between "
          "tokens here.\n"
          "# - Dispatch delay, queue and steady state are not in vLLM's result.\n",
          out);
    print_prompt_differences(out, prompts);
    print_workload_differences(out, o, workload);
    if (o->temperature > 0) fputs("# - Sampling: other random numbers, other tokens.\n", out);
    if (plan->dp > 1)
        fprintf(out, "# - Router: %s here; vLLM's front end balances by waiting and running requests.\n",
                o->router);
    if (!plan->ops->executes)
        fprintf(out, "# - Device: %s executes nothing; vLLM runs the model.\n", plan->ops->name);
    print_missing_options(out, o);
}

void qd_run_vllm_print(const struct qd_options *options, const struct qd_instance_plan *plan,
                       const struct qd_workload *workload, const struct qd_vllm_prompts *prompts,
                       const char *prompts_path, FILE *out)
{
    fputs("# The server, in a terminal of its own:\n", out);
    print_serve(out, options, plan);
    fputs("\n# The client, when the server is ready:\n", out);
    print_bench(out, options, workload, prompts_path);
    print_differences(out, options, plan, workload, prompts);
}

#include "harness/cli/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/options_rules.h"
#include "harness/result/range.h"

/* TEXTS may be given several times; WORDS also take all words up to the next option. */
enum option_type {
    OPTION_FLAG,
    OPTION_INT,
    OPTION_SIZE,
    OPTION_REAL,
    OPTION_TEXT,
    OPTION_TEXTS,
    OPTION_WORDS,
};

struct option_row {
    const char *name;  /* long name, vLLM's where vLLM has one */
    const char *alias; /* second long name, or NULL */
    unsigned group;
    enum option_type type;
    size_t offset;        /* in struct qd_options */
    double min, max;      /* of numbers */
    const char *choices;  /* of text: "a|b", NULL: anything */
    const char *argument; /* in the help */
    const char *help;
    const char *unset; /* how the help calls a default of 0 or NULL; NULL: print the value */
};

#define AT(field)  offsetof(struct qd_options, field)
#define TWO_POW_53 9007199254740992.0

static const struct option_row option_rows[] = {
    {"model", "m", QD_GROUP_MODEL | QD_GROUP_TOKENIZE, OPTION_TEXT, AT(model), 0, 0, NULL, "DIR|PRESET",
     "model directory (Hugging Face files), or a preset with --load-format dummy", "none"},
    {"load-format", NULL, QD_GROUP_MODEL, OPTION_TEXT, AT(load_format), 0, 0, "auto|dummy", NULL,
     "dummy: random weights, no files read but config.json", NULL},
    {"device", NULL, QD_GROUP_MODEL | QD_GROUP_KERNELS, OPTION_TEXT, AT(device), 0, 0, "cpu|emu|cuda|null",
     NULL, "cpu, cuda: real inference; emu: the CUDA code on emulated GPUs; null: scheduling only", NULL},
    {"cpu-isa", NULL, QD_GROUP_MODEL | QD_GROUP_KERNELS, OPTION_TEXT, AT(cpu_isa), 0, 0, "auto|portable|avx2",
     NULL, "instruction set of the cpu device", NULL},
    {"numerics", NULL, QD_GROUP_MODEL | QD_GROUP_KERNELS, OPTION_TEXT, AT(numerics), 0, 0, "fused|hf", NULL,
     "hf: round to bf16 wherever Hugging Face does", NULL},
    {"seed", NULL, QD_GROUP_MODEL | QD_GROUP_KERNELS, OPTION_INT, AT(seed), 0, TWO_POW_53, NULL, "N",
     "seed of prompts, sampling and dummy weights", NULL},

    {"tensor-parallel-size", "tp", QD_GROUP_PARALLEL, OPTION_INT, AT(tp), 1, 8, NULL, "N",
     "ranks of one replica: 1, 2, 4 or 8", NULL},
    {"data-parallel-size", "dp", QD_GROUP_PARALLEL, OPTION_INT, AT(dp), 1, 64, NULL, "N",
     "independent replicas", NULL},
    {"threads", NULL, QD_GROUP_PARALLEL | QD_GROUP_KERNELS, OPTION_INT, AT(threads), 0, 1024, NULL, "N",
     "cores of the process, divided over all ranks", "all cores"},
    {"ranks-per-gpu", NULL, QD_GROUP_PARALLEL, OPTION_INT, AT(ranks_per_gpu), 1, 64, NULL, "N",
     "ranks that share a GPU, for trying TP and DP out: not comparable (cuda, emu)", NULL},

    {"router", NULL, QD_GROUP_PARALLEL, OPTION_TEXT, AT(router), 0, 0,
     "round-robin|least-loaded|vllm|vllm-0.9.1", NULL, "which replica a request goes to", NULL},
    {"dp-coupling", NULL, QD_GROUP_PARALLEL, OPTION_TEXT, AT(dp_coupling), 0, 0, "none|vllm-0.9.1", NULL,
     "vllm-0.9.1: replicas step in lock-step rounds, as they did there (null, in virtual time)", NULL},

    {"max-num-batched-tokens", "budget", QD_GROUP_ENGINE, OPTION_INT, AT(budget), 1, 1 << 20, NULL, "N",
     "token budget of a step, per replica", "2048; cuda: 2048 to 16384 by GPU"},
    {"max-num-seqs", NULL, QD_GROUP_ENGINE, OPTION_INT, AT(max_num_seqs), 1, 1 << 16, NULL, "N",
     "running requests per replica", "128 (cuda: 256, 1024 from 70 GiB), at most the budget"},
    {"max-model-len", NULL, QD_GROUP_ENGINE, OPTION_INT, AT(max_model_len), 2, 1 << 24, NULL, "N",
     "longest prompt + output", "what the model and the memory allow"},
    {"num-gpu-blocks-override", NULL, QD_GROUP_ENGINE, OPTION_INT, AT(num_gpu_blocks), 1, 1 << 30, NULL, "N",
     "KV pages of 16 tokens per replica", "from memory"},
    {"kv-cache-memory-bytes", NULL, QD_GROUP_ENGINE, OPTION_SIZE, AT(kv_cache_bytes), 1, TWO_POW_53, NULL,
     "SIZE", "KV pool per rank, e.g. 512M", "from memory"},
    {"gpu-memory-utilization", NULL, QD_GROUP_ENGINE, OPTION_REAL, AT(memory_utilization), 0.01, 1.0, NULL,
     "F", "share of the available memory that may be used", NULL},
    {"memory-limit", NULL, QD_GROUP_ENGINE, OPTION_SIZE, AT(memory_limit), 1, TWO_POW_53, NULL, "SIZE",
     "never use more than this, e.g. 8G", "none"},
    {"enforce-eager", NULL, QD_GROUP_ENGINE, OPTION_FLAG, AT(enforce_eager), 0, 0, NULL, NULL,
     "launch every step op by op, never as a recorded graph (cuda, emu)", NULL},
    {"batch-invariant", NULL, QD_GROUP_ENGINE, OPTION_FLAG, AT(batch_invariant), 0, 0, NULL, NULL,
     "a request's bits do not depend on its batch (cuda, emu; cpu: always)", NULL},
    {"collectives", NULL, QD_GROUP_ENGINE, OPTION_TEXT, AT(collectives), 0, 0, "auto|own|nccl", NULL,
     "how ranks add up (cuda, emu): own kernels, NCCL, or by size and by what is there", NULL},
    {"enable-prefix-caching", NULL, QD_GROUP_ENGINE, OPTION_FLAG, AT(enable_prefix_caching), 0, 0, NULL, NULL,
     "share KV pages of equal beginnings between requests", NULL},
    {"async-scheduling", NULL, QD_GROUP_ENGINE, OPTION_FLAG, AT(async_scheduling), 0, 0, NULL, NULL,
     "schedule the next step while the device runs one", NULL},
    {"long-prefill-token-threshold", NULL, QD_GROUP_ENGINE, OPTION_INT, AT(long_prefill_token_threshold), 0,
     1 << 24, NULL, "N", "the most tokens of one request in a step; 0: no limit but the budget", NULL},
    {"device-timing", NULL, QD_GROUP_ENGINE, OPTION_FLAG, AT(device_timing), 0, 0, NULL, NULL,
     "time every op of a step on the device, in graphs too (not on null)", NULL},
    {"watchdog-timeout-s", NULL, QD_GROUP_ENGINE, OPTION_INT, AT(watchdog_timeout_s), 0, 1 << 24, NULL, "N",
     "seconds after which a step, or a rank opening its device, hangs; 0: never", "60 on cuda, else 0"},

    {"temperature", NULL, QD_GROUP_SAMPLING, OPTION_REAL, AT(temperature), 0, 100, NULL, "T", "0: greedy",
     NULL},
    {"top-p", NULL, QD_GROUP_SAMPLING, OPTION_REAL, AT(top_p), 1e-9, 1, NULL, "P", "1: off", NULL},
    {"top-k", NULL, QD_GROUP_SAMPLING, OPTION_INT, AT(top_k), 0, 1 << 20, NULL, "K", "0: off", NULL},
    {"ignore-eos", NULL, QD_GROUP_SAMPLING, OPTION_FLAG, AT(ignore_eos), 0, 0, NULL, NULL,
     "end tokens do not end a request", NULL},

    {"dataset-name", NULL, QD_GROUP_WORKLOAD, OPTION_TEXT, AT(dataset_name), 0, 0,
     "random|custom|prompts|sharegpt|trace", NULL,
     "random: runs of token ids; custom: JSONL with prompt and output_tokens; prompts: a text a line; "
     "sharegpt: JSON; "
     "trace: lengths and arrivals, JSONL or CSV",
     NULL},
    {"dataset-path", NULL, QD_GROUP_WORKLOAD, OPTION_TEXT, AT(dataset_path), 0, 0, NULL, "FILE",
     "of every data set but random", "none"},
    {"trace-columns", NULL, QD_GROUP_WORKLOAD, OPTION_TEXT, AT(trace_columns), 0, 0, NULL,
     "auto|vidur|azure|burstgpt|ARRIVAL,INPUT,OUTPUT",
     "names of a CSV trace's columns; ARRIVAL and OUTPUT may be empty", NULL},
    {"trace-speedup", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(trace_speedup), 1e-6, 1e6, NULL, "F",
     "a trace's arrivals come F times as fast", NULL},
    {"num-prompts", NULL, QD_GROUP_WORKLOAD, OPTION_INT, AT(num_prompts), 1, 1 << 24, NULL, "N",
     "requests; a data set's first N", "16 random, all of a file"},
    {"random-input-len", "input-len", QD_GROUP_WORKLOAD, OPTION_INT, AT(input_len), 1, 1 << 24, NULL, "N",
     "prompt tokens of random requests", "1024"},
    {"random-output-len", "output-len", QD_GROUP_WORKLOAD, OPTION_INT, AT(output_len), 1, 1 << 24, NULL, "N",
     "output tokens of every request", "128 random, output_tokens or 256 custom"},
    {"random-range-ratio", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(random_range_ratio), 0, 0.999999, NULL,
     "R", "lengths uniform in [floor(L(1-R)), ceil(L(1+R))]", NULL},
    {"random-prefix-len", NULL, QD_GROUP_WORKLOAD, OPTION_INT, AT(random_prefix_len), 0, 1 << 24, NULL, "N",
     "tokens shared by all random prompts, before the drawn ones", NULL},
    {"max-concurrency", NULL, QD_GROUP_WORKLOAD, OPTION_INT, AT(max_concurrency), 1, 1 << 20, NULL, "N",
     "at most N requests at once; without arrivals a closed loop", "no limit: all at once"},
    {"request-rate", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(request_rate), 1e-6, INFINITY, NULL, "R|inf",
     "requests a second that arrive, instead of a trace's own times", NULL},
    {"burstiness", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(burstiness), 1e-3, INFINITY, NULL, "B|inf",
     "of --request-rate: gaps are gamma distributed with this shape; 1: Poisson arrivals, inf: constant gaps",
     NULL},
    {"ramp-up-strategy", NULL, QD_GROUP_WORKLOAD, OPTION_TEXT, AT(ramp_up_strategy), 0, 0,
     "linear|exponential", NULL, "the rate goes from --ramp-up-start-rps to --ramp-up-end-rps", "none"},
    {"ramp-up-start-rps", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(ramp_up_start_rps), 1e-6, 1e9, NULL, "R",
     "requests a second at first", "none"},
    {"ramp-up-end-rps", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(ramp_up_end_rps), 1e-6, 1e9, NULL, "R",
     "requests a second at last", "none"},
    {"wave-size", NULL, QD_GROUP_WORKLOAD, OPTION_INT, AT(wave_size), 1, 1 << 20, NULL, "N",
     "N requests, and the next N when all of them have ended", "no waves"},
    {"client-delay-ms", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(client_delay_ms), 0, 1e6, NULL, "MS",
     "requests of a wave follow each other by this much", NULL},
    {"num-warmups", NULL, QD_GROUP_WORKLOAD, OPTION_INT, AT(num_warmups), 0, 1 << 16, NULL, "N",
     "requests with other prompts before the run, not counted (virtual time: none unless asked)", NULL},
    {"null-step-us", NULL, QD_GROUP_WORKLOAD, OPTION_REAL, AT(null_step_us), 0, 1e9, NULL, "US",
     "virtual time, in which every step takes this long (null)", "real time"},
    {"null-steps", NULL, QD_GROUP_WORKLOAD, OPTION_TEXT, AT(null_steps), 0, 0, NULL, "FILE",
     "virtual time, in which steps take what they took in a steps.jsonl (null)", "real time"},

    {"probe", NULL, QD_GROUP_WORKLOAD, OPTION_FLAG, AT(probe), 0, 0, NULL, NULL,
     "measure the memory's read bandwidth first (cpu; about a second)", NULL},

    {"ledger", NULL, QD_GROUP_WORKLOAD, OPTION_FLAG, AT(ledger), 0, 0, NULL, NULL,
     "print where the time went, from the roofline floor to the wall clock", NULL},
    {"machine", NULL, QD_GROUP_WORKLOAD, OPTION_TEXT, AT(machine), 0, 0, NULL, "NAME|FILE",
     "floors of H100-SXM, A100-80G, L40S, RTX-4090 or a profile, one a rank", "this, with --probe"},
    {"kernels", NULL, QD_GROUP_WORKLOAD, OPTION_TEXT, AT(kernels), 0, 0, NULL, "FILE",
     "of --ledger: the kernels timed alone, by qdyno kernels --format json", "none"},
    {"save-steps", NULL, QD_GROUP_WORKLOAD, OPTION_FLAG, AT(save_steps), 0, 0, NULL, NULL,
     "write steps.jsonl in --result-dir: a line a step", NULL},

    {"result-dir", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(result_dir), 0, 0, NULL, "DIR",
     "write result.json and requests.jsonl here", "nothing is written"},
    {"result-filename", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(result_filename), 0, 0, NULL, "NAME",
     "name of the result file in --result-dir", NULL},
    {"trace", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(trace), 0, 0, NULL, "FILE",
     "write the steps as a Chrome trace, for Perfetto", "none"},
    {"ledger-svg", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(ledger_svg), 0, 0, NULL, "FILE",
     "draw what --ledger prints, with gnuplot", "none"},
    {"record", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(record), 0, 0, NULL, "FILE",
     "write the steps themselves, with what they sampled", "none"},
    {"replay", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(replay), 0, 0, NULL, "FILE",
     "execute recorded steps instead of a workload, without a scheduler", "none"},
    {"goodput", NULL, QD_GROUP_WORKLOAD, OPTION_WORDS, AT(goodput), 0, 0, NULL, "KEY:MS...",
     "requests a second that keep every level, e.g. ttft:200 tpot:50 e2el:3000", "none"},
    {"label", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(label), 0, 0, NULL, "TEXT", "kept in the result",
     "none"},
    {"variant", NULL, QD_GROUP_RESULT, OPTION_TEXT, AT(variant), 0, 0, NULL, "TEXT",
     "set by a sweep: the further axes of the cell, e.g. max-concurrency=4", "none"},
    {"print-vllm", NULL, QD_GROUP_RUN, OPTION_FLAG, AT(print_vllm), 0, 0, NULL, NULL,
     "run nothing: print vLLM's commands of the same run, and write its prompts to --result-dir", NULL},
    {"json", NULL, QD_GROUP_RESULT | QD_GROUP_DOCTOR, OPTION_TEXT, AT(json), 0, 0, NULL, "FILE",
     "also write the result as JSON there; -: to stdout instead of the table", "none"},

    {"prompt", "p", QD_GROUP_GENERATE, OPTION_TEXT, AT(prompt), 0, 0, NULL, "TEXT", "the prompt",
     "standard input"},
    {"stop", NULL, QD_GROUP_GENERATE, OPTION_TEXTS, AT(stop), 0, 0, NULL, "TEXT",
     "the output ends before this text; may be given several times", "none"},
    {"max-tokens", "n", QD_GROUP_GENERATE, OPTION_INT, AT(max_tokens), 1, 1 << 24, NULL, "N",
     "longest output", NULL},

    {"chat", NULL, QD_GROUP_CHAT, OPTION_FLAG, AT(chat), 0, 0, NULL, NULL,
     "generate: the prompt is a user's message; tokenize: a JSON message list", NULL},
    {"enable-thinking", NULL, QD_GROUP_CHAT, OPTION_TEXT, AT(enable_thinking), 0, 0, "true|false", NULL,
     "of Qwen3's chat format", "not given"},
    {"no-generation-prompt", NULL, QD_GROUP_TOKENIZE, OPTION_FLAG, AT(no_generation_prompt), 0, 0, NULL, NULL,
     "chat text ends after the last message", NULL},
    {"jsonl", NULL, QD_GROUP_TOKENIZE, OPTION_FLAG, AT(jsonl), 0, 0, NULL, NULL,
     "a JSON value a line in and out", NULL},
    {"decode", NULL, QD_GROUP_TOKENIZE, OPTION_FLAG, AT(decode), 0, 0, NULL, NULL, "ids to text", NULL},
    {"skip-special-tokens", NULL, QD_GROUP_TOKENIZE, OPTION_FLAG, AT(skip_special_tokens), 0, 0, NULL, NULL,
     "of --decode", NULL},

    {"tokens", NULL, QD_GROUP_EVAL, OPTION_TEXT, AT(tokens), 0, 0, NULL, "FILE",
     "{\"prompts\": [[ids...], ...]}; -: standard input", "none"},
    {"expect", NULL, QD_GROUP_EVAL, OPTION_TEXT, AT(expect), 0, 0, NULL, "FILE",
     "golden.json: judge its prompts by its limits; exit 1 when one is broken", "none"},
    {"top", NULL, QD_GROUP_EVAL, OPTION_INT, AT(top), 1, 1000, NULL, "K", "largest logits a position", NULL},
    {"last", NULL, QD_GROUP_EVAL, OPTION_INT, AT(last), 1, 1 << 24, NULL, "N",
     "print the last N positions of each prompt only", "all"},

    {"results", "o", QD_GROUP_SWEEP, OPTION_TEXT, AT(results), 0, 0, NULL, "DIR",
     "parent folder of experiments", NULL},
    {"experiment", NULL, QD_GROUP_SWEEP, OPTION_TEXT, AT(experiment), 0, 0, NULL, "NAME",
     "folder of this sweep", "date and time"},
    {"num-runs", "repeats", QD_GROUP_SWEEP, OPTION_INT, AT(repeats), 1, 1000, NULL, "N",
     "repeats of every cell, interleaved", NULL},
    {"cell-timeout", NULL, QD_GROUP_SWEEP, OPTION_INT, AT(cell_timeout), 1, 1 << 24, NULL, "S",
     "seconds before a run is stopped and recorded as timed out", NULL},
    {"max-gpus", NULL, QD_GROUP_SWEEP, OPTION_INT, AT(max_gpus), 1, 1 << 20, NULL, "N",
     "leave out cells whose TP x DP is larger", "none is left out"},
    {"resume", NULL, QD_GROUP_SWEEP, OPTION_FLAG, AT(resume), 0, 0, NULL, NULL,
     "continue --experiment: keep the runs it has, if they are of the same configuration", NULL},
    {"dry-run", NULL, QD_GROUP_DRY_RUN, OPTION_FLAG, AT(dry_run), 0, 0, NULL, NULL,
     "check and print what would run, then stop", NULL},

    {"running", NULL, QD_GROUP_SCHED, OPTION_TEXT, AT(running), 0, 0, NULL, "LIST", "requests that decode",
     NULL},
    {"waiting", NULL, QD_GROUP_SCHED, OPTION_TEXT, AT(waiting), 0, 0, NULL, "LIST",
     "requests that stand in line meanwhile", NULL},
    {"steps", NULL, QD_GROUP_SCHED, OPTION_INT, AT(steps), 1, 1 << 20, NULL, "N",
     "measured steps a row, after as many to warm up", NULL},

    {"matrix", NULL, QD_GROUP_REPORT, OPTION_TEXT, AT(matrix), 0, 0, NULL, "tp=1,2;dp=1,2;budget=64,256",
     "the cells that were to be measured", "inferred"},

    {"model", "m", QD_GROUP_KERNELS, OPTION_TEXT, AT(model), 0, 0, NULL, "PRESET|DIR",
     "whose shapes; only config.json is read", "8B"},
    {"op", NULL, QD_GROUP_KERNELS, OPTION_TEXT, AT(op), 0, 0, NULL, "LIST",
     "ops by name, of a kind (gemm_nt, attention), or all", NULL},
    {"tensor-parallel-size", "tp", QD_GROUP_KERNELS, OPTION_TEXT, AT(tp_list), 0, 0, NULL, "LIST",
     "shapes of one rank; collectives run on all of them", NULL},
    {"tokens", NULL, QD_GROUP_KERNELS, OPTION_TEXT, AT(tokens_list), 0, 0, NULL, "LIST",
     "tokens of the step: 1,16, 1-256*2", NULL},
    {"context", NULL, QD_GROUP_KERNELS, OPTION_TEXT, AT(context_list), 0, 0, NULL, "LIST",
     "attention: keys of every sequence before the step", NULL},
    {"repeat", NULL, QD_GROUP_KERNELS, OPTION_INT, AT(repeat), 1, 1000, NULL, "N", "samples of a time", NULL},
    {"cache", NULL, QD_GROUP_KERNELS, OPTION_TEXT, AT(cache), 0, 0, "cold|warm", NULL,
     "cold: operands rotate over three times the last cache", NULL},
    {"machine", NULL, QD_GROUP_KERNELS, OPTION_TEXT, AT(machine), 0, 0, NULL, "NAME|FILE",
     "floors of H100-SXM, A100-80G, L40S, RTX-4090, a profile, or this (cpu)", "this on cpu, else H100-SXM"},
    {"format", NULL, QD_GROUP_KERNELS, OPTION_TEXT, AT(format), 0, 0, "table|csv|json", NULL, "of the rows",
     NULL},
    {"output", "o", QD_GROUP_KERNELS, OPTION_TEXT, AT(output), 0, 0, NULL, "FILE", "write there",
     "standard output"},
};

enum { N_OPTIONS = sizeof option_rows / sizeof option_rows[0] };
_Static_assert((int)N_OPTIONS <= (int)QD_MAX_OPTIONS, "qd_options.given has room for every option");

static const struct qd_options option_defaults = {
    .load_format = "auto",
    .device = "cpu",
    .cpu_isa = "auto",
    .numerics = "fused",
    .collectives = "auto",
    .tp = 1,
    .dp = 1,
    .ranks_per_gpu = 1,
    .router = "round-robin",
    .dp_coupling = "none",
    .memory_utilization = 0.9,
    .watchdog_timeout_s = -1,
    .top_p = 1.0,
    .dataset_name = "random",
    .trace_columns = "auto",
    .trace_speedup = 1.0,
    .request_rate = INFINITY,
    .burstiness = 1.0,
    .num_warmups = 1,
    .null_step_us = -1,
    .result_filename = "result.json",
    .max_tokens = 128,
    .top = 8,
    .results = "results",
    .repeats = 3,
    .cell_timeout = 3600,
    .running = "1,16,64,256,1024,4096",
    .waiting = "0",
    .steps = 1000,
    .op = "all",
    .tp_list = "1",
    .tokens_list = "1,16,256",
    .context_list = "1024",
    .repeat = 15,
    .cache = "cold",
    .format = "table",
};

static const struct option_row *find_row(unsigned groups, const char *name, size_t len)
{
    for (int i = 0; i < N_OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        if ((row->group & groups) == 0) continue;
        if (strlen(row->name) == len && memcmp(row->name, name, len) == 0) return row;
        if (row->alias != NULL && strlen(row->alias) == len && memcmp(row->alias, name, len) == 0) return row;
    }
    return NULL;
}

bool qd_options_given(const struct qd_options *options, const char *name)
{
    for (int i = 0; i < options->n_given; i++)
        if (strcmp(options->given[i].name, name) == 0) return true;
    return false;
}

/* Digits alone: what a list, a file name and a record of this text say is then the number that runs. */
static qd_status parse_whole(const struct option_row *row, const char *text, int64_t *out, char *err,
                             size_t errlen)
{
    const char *digits = text[0] == '-' ? text + 1 : text;
    if (digits[0] == '\0' || digits[strspn(digits, "0123456789")] != '\0')
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: \"%s\" is not a whole number", row->name, text);
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno != 0 || value < (int64_t)row->min || value > (int64_t)row->max)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: %s is outside %.0f .. %.0f", row->name, text,
                       row->min, row->max);
    *out = value;
    return QD_OK;
}

/* Of reals and sizes. */
static qd_status parse_number(const struct option_row *row, const char *text, double *out, char *err,
                              size_t errlen)
{
    char *behind;
    double value = strtod(text, &behind), factor = 1;
    const char *end = behind;
    if (row->type == OPTION_SIZE && end != text) end = qd_size_suffix(end, &factor);
    value *= factor;
    /* strtod also reads hexadecimal, "inf" and "nan" and skips white space: none of them is a value here. */
    if (isinf(row->max) && strcmp(text, "inf") == 0) {
        *out = INFINITY;
        return QD_OK;
    }
    if (end == text || *end != '\0' || strpbrk(text, " \t\nxXnN") != NULL || !isfinite(value))
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: \"%s\" is not a number", row->name, text);
    if (row->type == OPTION_SIZE && value != floor(value))
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: \"%s\" is not a whole number", row->name, text);
    if (!(value >= row->min && value <= row->max))
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: %s is outside %.15g .. %.15g", row->name, text,
                       row->min, row->max);
    *out = value;
    return QD_OK;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t len = strcspn(text, "|");
    if (text[len] != '\0') return false;
    for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
        if (*at == '|') at++;
        if (strncmp(at, text, len) == 0 && (at[len] == '|' || at[len] == '\0')) return len > 0;
    }
    return false;
}

/* An empty name of a file or a folder is a slip of a script, and would mean another file. */
static qd_status check_text(const struct option_row *row, const char *text, char *err, size_t errlen)
{
    if (text[0] != '\0') return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: an empty text", row->name);
}

static qd_status append_text(const struct option_row *row, const char *text, struct qd_text_list *list,
                             char *err, size_t errlen)
{
    QD_TRY(check_text(row, text, err, errlen));
    if (list->n == QD_MAX_TEXTS)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: more than %d", row->name, (int)QD_MAX_TEXTS);
    list->texts[list->n++] = text;
    return QD_OK;
}

static bool is_repeatable(const struct option_row *row)
{
    return row->type == OPTION_TEXTS || row->type == OPTION_WORDS;
}

static qd_status store_value(const struct option_row *row, const char *text, struct qd_options *out,
                             char *err, size_t errlen)
{
    void *field = (char *)out + row->offset;
    double number;
    switch (row->type) {
    case OPTION_FLAG: *(bool *)field = true; break;
    case OPTION_INT: return parse_whole(row, text, field, err, errlen);
    case OPTION_SIZE:
        QD_TRY(parse_number(row, text, &number, err, errlen));
        *(int64_t *)field = (int64_t)number;
        break;
    case OPTION_REAL:
        QD_TRY(parse_number(row, text, &number, err, errlen));
        *(double *)field = number;
        break;
    case OPTION_TEXT:
        QD_TRY(check_text(row, text, err, errlen));
        if (row->choices != NULL && !is_choice(row->choices, text))
            return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: \"%s\" is none of %s", row->name, text,
                           row->choices);
        *(const char **)field = text;
        break;
    case OPTION_TEXTS:
    case OPTION_WORDS: return append_text(row, text, field, err, errlen);
    }
    return QD_OK;
}

/* Checks every value of a list on its own; none is stored. */
static qd_status check_list(const struct option_row *row, const char *text, const struct qd_options *options,
                            char *err, size_t errlen)
{
    char reason[QD_ERR_LEN];
    struct qd_range range;
    qd_status status = qd_range_expand(text, &range, reason, sizeof reason);
    if (status != QD_OK) return qd_fail(status, err, errlen, "--%s: %s", row->name, reason);
    for (size_t i = 0; status == QD_OK && i < range.n; i++) {
        struct qd_options scratch = *options;
        status = store_value(row, range.values[i], &scratch, err, errlen);
    }
    qd_range_free(&range);
    return status;
}

/* Stores a value, or a list where a sweep may range, and remembers that the option was given. */
static qd_status take_option(const struct qd_command *command, const struct option_row *row, const char *text,
                             struct qd_options *out, char *err, size_t errlen)
{
    if (qd_options_given(out, row->name) && !is_repeatable(row))
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s is given twice", row->name);
    bool numeric = row->type != OPTION_FLAG && row->type != OPTION_TEXT && !is_repeatable(row);
    bool is_list = numeric && (command->groups & QD_GROUP_SWEEP) != 0 && (row->group & QD_GROUP_SWEEP) == 0 &&
                   qd_range_is_list(text);
    if (is_list)
        QD_TRY(check_list(row, text, out, err, errlen));
    else
        QD_TRY(store_value(row, text, out, err, errlen));
    if (out->n_given == QD_MAX_GIVEN) return qd_fail(QD_ERR_INPUT, err, errlen, "too many options");
    struct qd_given_option *given = &out->given[out->n_given++];
    *given = (struct qd_given_option){
        .name = row->name, .alias = row->alias, .group = row->group, .value = text, .is_list = is_list};
    snprintf(given->word, sizeof given->word, "--%s", row->name);
    return QD_OK;
}

/* One argument that starts with a dash; *used is how many further words of argv it takes. */
static qd_status parse_option(const struct qd_command *command, const char *word, const char *next,
                              struct qd_options *out, int *used, char *err, size_t errlen)
{
    const char *name = word[1] == '-' ? word + 2 : word + 1;
    const char *equals = strchr(name, '=');
    size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct option_row *row = find_row(command->groups, name, len);
    bool single_dash = word[1] != '-';
    if (row == NULL || (single_dash && len != 1) || (!single_dash && len == 1))
        return qd_fail(QD_ERR_INPUT, err, errlen, "unknown option %.*s (see qdyno %s --help)",
                       (int)(name - word) + (int)len, word, command->name);
    *used = 0;
    if (row->type == OPTION_FLAG) {
        if (equals != NULL) return qd_fail(QD_ERR_INPUT, err, errlen, "--%s takes no value", row->name);
        return take_option(command, row, NULL, out, err, errlen);
    }
    const char *value = equals != NULL ? equals + 1 : next;
    if (value == NULL) return qd_fail(QD_ERR_INPUT, err, errlen, "--%s needs a value", row->name);
    *used = equals == NULL;
    return take_option(command, row, value, out, err, errlen);
}

/* The further words of an option that takes several: all up to the next that starts with a dash. */
static qd_status parse_words(const struct qd_command *command, const char *option, char *const *words, int n,
                             struct qd_options *out, int *used, char *err, size_t errlen)
{
    const char *name = option + strspn(option, "-");
    const struct option_row *row = find_row(command->groups, name, strcspn(name, "="));
    if (row == NULL || row->type != OPTION_WORDS) return QD_OK;
    for (int i = 0; i < n && words[i][0] != '-'; i++, (*used)++)
        QD_TRY(take_option(command, row, words[i], out, err, errlen));
    return QD_OK;
}

/* Defaults that hang on other options: virtual time has nothing to warm up. */
static void settle_defaults(struct qd_options *out)
{
    if (qd_options_are_virtual(out) && !qd_options_given(out, "num-warmups")) out->num_warmups = 0;
}

qd_status qd_options_parse(const struct qd_command *command, int argc, char **argv, struct qd_options *out,
                           char *err, size_t errlen)
{
    *out = option_defaults;
    out->argc = argc;
    out->argv = argv;
    bool only_positional = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_positional && strcmp(word, "--") == 0) {
            only_positional = true;
        } else if (!only_positional && (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0)) {
            qd_options_help(command, stdout);
            return QD_ERR_ABORTED;
        } else if (!only_positional && word[0] == '-' && word[1] != '\0') {
            int used = 0;
            QD_TRY(parse_option(command, word, i + 1 < argc ? argv[i + 1] : NULL, out, &used, err, errlen));
            i += used;
            used = 0;
            QD_TRY(parse_words(command, word, argv + i + 1, argc - i - 1, out, &used, err, errlen));
            i += used;
        } else if (out->n_positional < command->max_positional) {
            out->positional[out->n_positional++] = word;
        } else {
            return qd_fail(QD_ERR_INPUT, err, errlen, "unexpected argument \"%s\"", word);
        }
    }
    settle_defaults(out);
    return qd_options_check(command, out, err, errlen);
}

static void print_default(const struct option_row *row, FILE *out)
{
    const void *field = (const char *)&option_defaults + row->offset;
    if (row->type == OPTION_FLAG) return;
    if (row->unset != NULL) /* always so where an option may be given several times */
        fprintf(out, " [%s]", row->unset);
    else if (row->type == OPTION_TEXT)
        fprintf(out, " [%s]", *(const char *const *)field);
    else if (row->type == OPTION_REAL)
        fprintf(out, " [%g]", *(const double *)field);
    else
        fprintf(out, " [%" PRId64 "]", *(const int64_t *)field);
}

void qd_options_help(const struct qd_command *command, FILE *out)
{
    fprintf(out, "usage: qdyno %s %s\n%s\n", command->name, command->synopsis, command->summary);
    for (int i = 0; i < N_OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        if ((row->group & command->groups) == 0) continue;
        char names[96];
        const char *argument = row->argument != NULL ? row->argument : row->choices;
        int len = snprintf(names, sizeof names, "  --%s", row->name);
        if (row->alias != NULL)
            len += snprintf(names + len, sizeof names - (size_t)len, ", %s%s",
                            row->alias[1] == '\0' ? "-" : "--", row->alias);
        if (argument != NULL) snprintf(names + len, sizeof names - (size_t)len, " %s", argument);
        fprintf(out, "%-44s %s", names, row->help);
        print_default(row, out);
        fputc('\n', out);
    }
}

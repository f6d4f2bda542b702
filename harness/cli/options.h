/* Command-line options: one struct with every default, one table with every option, one strict parser.
 *
 * A command names the groups of options it takes. Help prints names, ranges and defaults from the table;
 * values are checked whole and against their range; rules across options stand in options_rules.h.
 */
#ifndef QD_HARNESS_CLI_OPTIONS_H
#define QD_HARNESS_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/status.h"

/* Exit codes of every command. */
enum {
    QD_EXIT_OK = 0,
    QD_EXIT_FAILED_CHECK = 1,
    QD_EXIT_USAGE = 2, /* usage or bad input */
    QD_EXIT_ENVIRONMENT = 3,
    QD_EXIT_PARTIAL = 5, /* a cell crashed or timed out, a replica died, no request of a run completed */
    QD_EXIT_INTERRUPTED = 130,
};

/* Groups of options; a command takes the union of some. */
enum qd_option_group {
    QD_GROUP_MODEL = 1 << 0,    /* which model, device and numerics */
    QD_GROUP_PARALLEL = 1 << 1, /* --tp --dp --threads */
    QD_GROUP_ENGINE = 1 << 2,   /* budget, sequences, KV pool */
    QD_GROUP_SAMPLING = 1 << 3,
    QD_GROUP_WORKLOAD = 1 << 4,
    QD_GROUP_RESULT = 1 << 5,
    QD_GROUP_GENERATE = 1 << 6,
    QD_GROUP_EVAL = 1 << 7,
    QD_GROUP_SWEEP = 1 << 8,
    QD_GROUP_DOCTOR = 1 << 9,
    QD_GROUP_REPORT = 1 << 10,
    QD_GROUP_TOKENIZE = 1 << 11,
    QD_GROUP_CHAT = 1 << 12,
    QD_GROUP_DRY_RUN = 1 << 13,
    QD_GROUP_SCHED = 1 << 14,
    QD_GROUP_KERNELS = 1 << 15,
    QD_GROUP_RUN = 1 << 16, /* of run alone */
};

enum { QD_MAX_OPTIONS = 128, QD_MAX_GIVEN = 128 };

/* An option as it was typed; what a sweep hands on to its runs. */
struct qd_given_option {
    char word[48];     /* "--" and the long name */
    const char *name;  /* long name */
    const char *alias; /* or NULL */
    unsigned group;
    const char *value; /* NULL for a flag */
    bool is_list;      /* a sweep ranges over it; the struct field keeps its default */
};

enum { QD_MAX_TEXTS = 8 };

/* The values of an option that may be given several times. */
struct qd_text_list {
    int n;
    const char *texts[QD_MAX_TEXTS];
};

/* Every option's value; 0, NULL or -1 as its comment says when not given. */
struct qd_options {
    /* model */
    const char *model;       /* directory or preset */
    const char *load_format; /* auto | dummy */
    const char *device;      /* cpu | emu | cuda | null */
    const char *cpu_isa;     /* auto | portable | avx2 */
    const char *numerics;    /* fused | hf */
    int64_t seed;
    /* parallel */
    int64_t tp, dp;
    int64_t threads; /* 0: all cores */
    int64_t ranks_per_gpu;
    const char *router; /* qd_router_policy_name */
    const char *dp_coupling; /* none | vllm-0.9.1 */
    /* engine; 0: the default of the device */
    int64_t budget, max_num_seqs, max_model_len, num_gpu_blocks, kv_cache_bytes, memory_limit;
    double memory_utilization;
    double null_step_us;    /* < 0: real time, unless null_steps */
    const char *null_steps; /* file; NULL: none */
    bool device_timing;
    bool ledger, save_steps;
    const char *trace, *record, *replay; /* files; NULL: none */
    const char *kernels, *ledger_svg;    /* likewise */
    int64_t watchdog_timeout_s; /* 0: off; -1: the default of the device */
    bool enforce_eager, batch_invariant, enable_prefix_caching, async_scheduling;
    const char *collectives; /* auto | own | nccl */
    int64_t long_prefill_token_threshold;
    /* sampling */
    double temperature, top_p;
    int64_t top_k;
    bool ignore_eos;
    /* workload */
    const char *dataset_name; /* random | custom | prompts | sharegpt | trace */
    const char *dataset_path;
    const char *trace_columns;
    double trace_speedup;
    int64_t num_prompts;
    int64_t input_len, output_len; /* 0: the data set's own */
    int64_t random_prefix_len;
    double random_range_ratio;
    int64_t max_concurrency;         /* 0: no limit */
    double request_rate, burstiness; /* infinite: no arrival process; infinite: constant gaps */
    const char *ramp_up_strategy;    /* linear | exponential; NULL: none */
    double ramp_up_start_rps, ramp_up_end_rps;
    int64_t wave_size; /* 0: no waves */
    double client_delay_ms;
    int64_t num_warmups;
    bool probe;
    /* result */
    const char *result_dir, *result_filename, *label, *json, *variant;
    struct qd_text_list goodput; /* KEY:MS each */
    bool print_vllm;
    /* generate, chat */
    const char *prompt; /* NULL: standard input */
    struct qd_text_list stop;
    int64_t max_tokens;
    bool chat;
    const char *enable_thinking; /* true | false; NULL: not given */
    bool no_generation_prompt;
    /* eval */
    const char *tokens, *expect;
    int64_t top, last;
    /* tokenize */
    bool jsonl, decode, skip_special_tokens;
    /* sweep */
    const char *results, *experiment;
    int64_t repeats, cell_timeout, max_gpus;
    bool resume;
    bool dry_run;
    /* sched */
    const char *running, *waiting; /* lists and ranges */
    int64_t steps;
    /* report */
    const char *matrix;
    /* kernels; lists and ranges as texts */
    const char *op, *tp_list, *tokens_list, *context_list;
    int64_t repeat;
    const char *cache;   /* cold | warm */
    const char *machine; /* NULL: the device's default */
    const char *format;  /* table | csv | json */
    const char *output;
    int n_given;
    struct qd_given_option given[QD_MAX_GIVEN];
    int n_positional;
    const char *positional[4];
    int argc; /* the whole command line after the program's name, for the record */
    char **argv;
};

struct qd_command {
    const char *name;
    const char *summary;  /* one line for `qdyno --help` */
    const char *synopsis; /* after "usage: qdyno NAME " */
    unsigned groups;      /* enum qd_option_group */
    int max_positional;
    int (*run)(const struct qd_command *command, const struct qd_options *options);
};

/* Parses argv[1..argc-1] of a command (argv[0] is its name) over the defaults. A command with QD_GROUP_SWEEP
 * may give lists and ranges (range.h) to the numeric options of other groups. argv stays as it is and is kept
 * in the options. QD_ERR_ABORTED when help was asked for and printed to stdout (exit 0); QD_ERR_INPUT, with
 * the option and the reason in err (exit 2). */
qd_status qd_options_parse(const struct qd_command *command, int argc, char **argv, struct qd_options *out,
                           char *err, size_t errlen);

/* True when the option of that name was given on the command line. */
bool qd_options_given(const struct qd_options *options, const char *name);

/* Whether the run is one in virtual time. A sweep may range over --null-step-us. */
bool qd_options_are_virtual(const struct qd_options *options);

void qd_options_help(const struct qd_command *command, FILE *out);

#endif

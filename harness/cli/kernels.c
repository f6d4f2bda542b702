/* qdyno kernels: each op of a model's forward pass alone, verified and then measured, against a roofline
 * floor. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/kernels_cases.h"
#include "harness/cli/kernels_rows.h"
#include "harness/cli/kernels_ways.h"
#include "harness/cli/session.h"
#include "harness/cli/version.h"
#include "harness/engine/memory.h"
#include "harness/ops/alone.h"
#include "harness/result/files.h"
#include "harness/result/json_put.h"
#include "harness/result/machine.h"
#include "kernels/base/clock.h"
#include "kernels/cpu/host/probe.h"

enum { SCHEMA = 2 };

struct kernels {
    const struct qd_options *options;
    struct qd_op_options op;
    struct qd_kernels_cases cases;
    struct qd_kernels_row *rows;  /* [cases.n] */
    struct qd_op_machine machine; /* of the floors; `this` until it was measured */
    bool is_this_machine, is_cpu, is_emu;
    bool no_rival;          /* it is not here */
    size_t n_runnable;      /* cases that are not refused whatever the device */
    struct qd_kernels_switch *switches; /* [n_switches] */
    size_t n_switches;
    qd_op_clocks_t *clocks; /* NULL: nobody tells */
    struct qd_arena probed; /* what the read bandwidth is probed on */
};

/* ---- this machine's limits ---- */

/* By a team of its own, which is gone before a rank starts; the memory stays, for touching it takes longest.
 */
static qd_status probe_cpu(struct kernels *k, struct qd_op_ceilings *out, char *err, size_t errlen)
{
    const struct qd_cpu_kernels *kernels;
    qd_team_t *team;
    if (k->probed.base == NULL) {
        QD_TRY(qd_arena_init(&k->probed, qd_cpu_probe_bytes(), err, errlen));
        memset(qd_arena_take(&k->probed, qd_cpu_probe_bytes(), 64), 1, qd_cpu_probe_bytes());
    }
    QD_TRY(qd_cpu_probe_team(k->op.cpu_isa, k->op.n_threads, &kernels, &team, err, errlen));
    *out = (struct qd_op_ceilings){
        qd_cpu_probe_read_gbps(kernels, team, k->probed.base, k->probed.used),
        qd_cpu_probe_fma_gflops(kernels, team),
    };
    qd_team_destroy(team);
    return QD_OK;
}

/* Nothing on emulated GPUs: their clock says nothing of a GPU's. */
static qd_status probe(struct kernels *k, struct qd_op_ceilings *out, char *err, size_t errlen)
{
    struct qd_device_ceilings gpu;
    *out = (struct qd_op_ceilings){0};
    if (k->n_runnable == 0 || k->is_emu) return QD_OK;
    if (k->is_cpu) return probe_cpu(k, out, err, errlen);
    QD_TRY(qd_device_measure_ceilings(k->op.ops, 0, &gpu, err, errlen));
    *out = (struct qd_op_ceilings){gpu.copy_gbps, gpu.matrix_gflops};
    return QD_OK;
}

static struct qd_op_ceilings better(struct qd_op_ceilings a, struct qd_op_ceilings b)
{
    return (struct qd_op_ceilings){a.memory_gbps > b.memory_gbps ? a.memory_gbps : b.memory_gbps,
                                   a.gflops > b.gflops ? a.gflops : b.gflops};
}

/* ---- one row ---- */

/* Everything that a case takes of the host: inputs, a copy on its way, and on devices without memory of their
 * own the operands themselves. */
static qd_status check_memory(const struct kernels *k, const struct qd_op_case *c, int n_copies, char *err,
                              size_t errlen)
{
    size_t bytes;
    QD_TRY(qd_op_operand_bytes(c, k->op.ops, &bytes, err, errlen));
    struct qd_memory_limit limit = qd_memory_available(0);
    double gib = 1073741824.0, needed = (double)bytes * (2 + n_copies) * qd_op_ranks(c) / gib;
    double available = 0.9 * (double)limit.bytes / gib;
    if (needed <= available) return QD_OK;
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                   "it takes %.2f GiB (operands of %.2f GiB, twice on the host and %d times on the device, "
                   "%d ranks), 90 %% of the %s is %.2f GiB",
                   needed, (double)bytes / gib, n_copies, qd_op_ranks(c), qd_memory_source_name(limit.source),
                   available);
}

static bool read_clock(const struct kernels *k, struct qd_op_clock *out)
{
    char why[QD_ERR_LEN];
    return k->clocks != NULL && qd_op_clocks_read(k->clocks, out, why, sizeof why) == QD_OK;
}

/* That it is not installed is said once. */
static void measure_rival(struct kernels *k, qd_op_session_t *session, struct qd_kernels_row *row)
{
    char why[QD_ERR_LEN];
    if (k->op.ops->rival == NULL || !qd_op_is_gemm(row->c.op) || k->no_rival) return;
    qd_status st = qd_op_time_rival(session, &row->timing, &row->rival, why, sizeof why);
    row->has_rival = st == QD_OK;
    k->no_rival = st == QD_ERR_NOT_FOUND || st == QD_ERR_ENVIRONMENT;
    if (st != QD_OK) qd_session_say("%s is not measured beside: %s", k->op.ops->rival->name, why);
}

/* Verified first: a wrong result has no time. */
static qd_status measure(struct kernels *k, struct qd_kernels_row *row, char *err, size_t errlen)
{
    struct qd_op_result *result = &row->result;
    qd_op_session_t *session = NULL;
    int n_copies = 1;
    bool is_cold = false;
    qd_status st = QD_OK;
    if (!k->is_emu && strcmp(k->options->cache, "cold") == 0)
        st = qd_op_copies(&k->op, &row->c, &n_copies, &is_cold, result->text, sizeof result->text);
    if (st == QD_OK) st = check_memory(k, &row->c, n_copies, result->text, sizeof result->text);
    if (st == QD_OK)
        st = qd_op_session_open(&k->op, &row->c, n_copies, &session, result->text, sizeof result->text);
    if (st == QD_OK)
        st = qd_op_session_verify(session, k->op.seed, &result->error, result->text, sizeof result->text);
    st = qd_op_judge(st, result, err, errlen);
    bool passed = st == QD_OK && result->outcome == QD_OP_PASSED;
    if (passed && k->is_emu) {
        st = qd_op_count(session, &row->counters, err, errlen);
        row->is_counted = st == QD_OK;
    } else if (passed) {
        row->has_clocks = read_clock(k, &row->before);
        st = qd_op_time(session, (int)k->options->repeat, &row->timing, err, errlen);
        row->timing.is_cold = is_cold;
        row->is_timed = st == QD_OK;
        row->has_clocks = row->has_clocks && read_clock(k, &row->after);
        if (st == QD_OK) measure_rival(k, session, row);
    }
    qd_op_session_close(session);
    return st;
}

static void say_progress(const struct kernels *k, size_t i)
{
    char shape[128];
    const struct qd_op_case *c = &k->cases.of[i].c;
    qd_op_describe(c, shape, sizeof shape);
    const char *way = qd_op_way_name(c->way);
    qd_session_say("%zu of %zu: %s%s%s, %s, TP %d", i + 1, k->cases.n, qd_op_name(c->op),
                   way[0] != '\0' ? " " : "", way, shape, c->tp);
}

static qd_status measure_case(struct kernels *k, size_t i, char *err, size_t errlen)
{
    struct qd_kernels_row *row = &k->rows[i];
    say_progress(k, i);
    row->c = k->cases.of[i].c;
    if (k->cases.of[i].refusal[0] == '\0') return measure(k, row, err, errlen);
    row->result.outcome = QD_OP_REFUSED;
    snprintf(row->result.text, sizeof row->result.text, "%s", k->cases.of[i].refusal);
    return QD_OK;
}

/* Rows that were measured since the last probe get the better of that and of a new one. */
static qd_status set_limits(struct kernels *k, size_t begin, size_t end, struct qd_op_ceilings *limits,
                            char *err, size_t errlen)
{
    struct qd_op_ceilings after;
    QD_TRY(probe(k, &after, err, errlen));
    struct qd_op_machine machine = k->machine;
    struct qd_op_ceilings best = better(*limits, after);
    if (k->is_this_machine) machine.memory_gbps = best.memory_gbps;
    if (k->is_this_machine) machine.bf16_gflops = best.gflops;
    for (size_t i = begin; i < end; i++) {
        struct qd_kernels_row *row = &k->rows[i];
        row->ceilings = best;
        row->machine = k->machine.name;
        row->floor_us = qd_op_floor_us(&machine, qd_op_traffic(&row->c), &row->is_compute_bound);
    }
    *limits = after;
    return QD_OK;
}

/* A shared machine's limits move within seconds, and a probe takes half of one. */
static qd_status measure_all(struct kernels *k, char *err, size_t errlen)
{
    const int64_t probe_every_ns = 5000000000;
    struct qd_op_ceilings limits;
    QD_TRY(probe(k, &limits, err, errlen));
    int64_t probed_ns = qd_clock_now_ns();
    size_t begin = 0;
    for (size_t i = 0; i < k->cases.n; i++) {
        QD_TRY(measure_case(k, i, err, errlen));
        if (qd_clock_now_ns() - probed_ns < probe_every_ns && i + 1 < k->cases.n) continue;
        QD_TRY(set_limits(k, begin, i + 1, &limits, err, errlen));
        probed_ns = qd_clock_now_ns();
        begin = i + 1;
    }
    qd_kernels_ways_mark(k->op.ops, k->rows, k->cases.n);
    return qd_kernels_switches_find(k->op.ops, k->rows, k->cases.n, &k->switches, &k->n_switches, err,
                                    errlen);
}

/* ---- output ---- */

static cJSON *to_json(const struct kernels *k)
{
    bool ok = true;
    struct qd_machine machine;
    char gpu[256];
    qd_machine_read(&machine);
    qd_alone_gpu_name(k->op.ops, gpu, sizeof gpu);
    cJSON *root = cJSON_CreateObject();
    ok = root != NULL;
    qd_json_put_int(root, "schema", SCHEMA, &ok);
    qd_json_put_text(root, "commit", qd_commit(), &ok);
    qd_json_put_text(root, "device", k->op.ops->name, &ok);
    qd_json_put_text(root, "isa", qd_session_isa(k->options), &ok);
    qd_json_put_text(root, "gpu", gpu[0] != '\0' ? gpu : NULL, &ok);
    qd_json_put_int(root, "n_threads", k->op.n_threads > 0 ? k->op.n_threads : machine.n_cores, &ok);
    qd_json_put_text(root, "model", k->cases.model, &ok);
    qd_json_put_int(root, "seed", k->options->seed, &ok);
    qd_json_put_item(root, "machine", qd_machine_to_json(&machine), &ok);
    cJSON *argv = qd_json_put_array(root, "argv", &ok);
    for (int i = 0; i < k->options->argc; i++) qd_json_append_text(argv, k->options->argv[i], &ok);
    qd_json_put_item(root, "rows", qd_kernels_rows_to_json(k->rows, k->cases.n), &ok);
    qd_json_put_item(root, "switches", qd_kernels_switches_to_json(k->switches, k->n_switches), &ok);
    if (ok) return root;
    cJSON_Delete(root);
    return NULL;
}

static qd_status print_json(const struct kernels *k, FILE *out, char *err, size_t errlen)
{
    cJSON *root = to_json(k);
    char *text = root != NULL ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (text == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the result");
    fprintf(out, "%s\n", text);
    cJSON_free(text);
    return QD_OK;
}

static qd_status print_table(const struct kernels *k, FILE *out)
{
    const char *isa = qd_session_isa(k->options);
    fprintf(out, "%s on %s%s%s, %s numerics; floors of %s (%s)\n\n", k->cases.model, k->op.ops->name,
            isa != NULL ? ", " : "", isa != NULL ? isa : "", k->options->numerics, k->machine.name,
            k->machine.title);
    QD_TRY(qd_kernels_rows_print_table(k->rows, k->cases.n, out));
    qd_kernels_switches_print(k->switches, k->n_switches, out);
    return QD_OK;
}

static qd_status print(const struct kernels *k, FILE *out, char *err, size_t errlen)
{
    if (strcmp(k->options->format, "csv") == 0) {
        qd_kernels_switches_print(k->switches, k->n_switches, stderr); /* which are no rows */
        return qd_kernels_rows_print_csv(k->rows, k->cases.n, out);
    }
    return strcmp(k->options->format, "json") == 0 ? print_json(k, out, err, errlen) : print_table(k, out);
}

static qd_status write_output(const struct kernels *k, char *err, size_t errlen)
{
    struct qd_atomic_file file;
    if (k->options->output == NULL) return print(k, stdout, err, errlen);
    QD_TRY(qd_atomic_file_open(&file, k->options->output, err, errlen));
    qd_status st = print(k, file.stream, err, errlen);
    if (st == QD_OK) return qd_atomic_file_commit(&file, err, errlen);
    qd_atomic_file_discard(&file);
    return st;
}

/* ---- the command ---- */

static qd_status choose_machine(struct kernels *k, char *err, size_t errlen)
{
    const char *name = k->options->machine;
    if (name == NULL) name = k->is_cpu ? "this" : "H100-SXM";
    k->is_this_machine = strcmp(name, "this") == 0;
    if (!k->is_this_machine) return qd_op_machine_get(name, &k->machine, err, errlen);
    if (!k->is_cpu)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--machine this: this machine's limits are measured on --device cpu only");
    k->machine =
        (struct qd_op_machine){.name = "this", .title = "read bandwidth and FMA peak as probed meanwhile"};
    return QD_OK;
}

static qd_status prepare(struct kernels *k, char *err, size_t errlen)
{
    const struct qd_options *o = k->options;
    QD_TRY(qd_device_get(o->device, &k->op.ops, err, errlen));
    if (!k->op.ops->executes)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--device %s executes nothing", o->device);
    k->is_cpu = strcmp(o->device, "cpu") == 0;
    k->is_emu = strcmp(o->device, "emu") == 0;
    QD_TRY(choose_machine(k, err, errlen));
    char why[QD_ERR_LEN] = "";
    qd_status st = qd_op_clocks_open(k->op.ops, &k->clocks, why, sizeof why);
    if (st != QD_OK && st != QD_ERR_UNSUPPORTED) qd_session_say("clocks are not read: %s", why);
    if (o->output != NULL) QD_TRY(qd_file_check_writable(o->output, err, errlen));
    QD_TRY(qd_kernels_cases_make(o, k->op.ops, &k->cases, err, errlen));
    for (size_t i = 0; i < k->cases.n; i++) k->n_runnable += k->cases.of[i].refusal[0] == '\0';
    k->rows = calloc(k->cases.n, sizeof *k->rows);
    return k->rows != NULL ? QD_OK
                           : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %zu rows", k->cases.n);
}

/* A row that is wrong or failed is a failed check; one that the device refuses is not. */
static int judge(const struct kernels *k)
{
    for (size_t i = 0; i < k->cases.n; i++)
        if (k->rows[i].result.outcome == QD_OP_WRONG || k->rows[i].result.outcome == QD_OP_FAILED)
            return QD_EXIT_FAILED_CHECK;
    return QD_EXIT_OK;
}

static int run_kernels(const struct qd_command *command, const struct qd_options *options)
{
    struct kernels k = {.options = options,
                        .op = {.cpu_isa = options->cpu_isa,
                               .n_threads = (int)options->threads,
                               .repeats = 1,
                               .seed = (uint64_t)options->seed}};
    char err[QD_ERR_LEN] = "";
    qd_status st = prepare(&k, err, sizeof err);
    if (st == QD_OK) st = measure_all(&k, err, sizeof err);
    if (st == QD_OK) st = write_output(&k, err, sizeof err);
    int code = st == QD_OK ? judge(&k) : qd_command_fail(command, st, err);
    qd_op_clocks_close(k.clocks);
    qd_arena_free(&k.probed);
    qd_kernels_cases_free(&k.cases);
    free(k.switches);
    free(k.rows);
    return code;
}

const struct qd_command qd_command_kernels = {
    .name = "kernels",
    .summary = "each op alone: verified, timed, against a roofline floor",
    .synopsis = "[--model PRESET|DIR] [--op LIST] [--tp LIST] [--tokens LIST] [OPTION...]",
    .groups = QD_GROUP_KERNELS,
    .run = run_kernels,
};

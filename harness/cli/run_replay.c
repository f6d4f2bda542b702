#include "harness/cli/run_replay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/run_ledger.h"
#include "harness/cli/run_limits.h"
#include "harness/cli/run_steps.h"
#include "harness/cli/run_svg.h"
#include "harness/cli/session.h"
#include "harness/cli/version.h"
#include "harness/engine/replay.h"
#include "harness/result/files.h"
#include "harness/result/json_put.h"
#include "harness/result/schema.h"

/* Everything a replay holds from the file's opening to what is printed. */
struct replay {
    const struct qd_options *options;
    struct qd_step_file file;
    struct qd_replay steps;
    struct qd_run_limits limits;
    struct qd_run_steps rows;
    qd_instance_t *instance;
    qd_group_t **groups;               /* [dp] */
    struct qd_replica_stats *replicas; /* [dp] */
    struct qd_ledger ledger;
};

/* The file sets the limits, and steps take the place of a workload. */
static qd_status check_options(const struct qd_options *o, char *err, size_t errlen)
{
    static const char *const excluded[] = {"max-num-batched-tokens",
                                           "max-num-seqs",
                                           "max-model-len",
                                           "num-gpu-blocks-override",
                                           "kv-cache-memory-bytes",
                                           "enable-prefix-caching",
                                           "record",
                                           "result-dir",
                                           "save-steps"};
    static const char *const shared[] = {"ledger", "probe", "machine", "kernels"};
    for (size_t i = 0; i < sizeof excluded / sizeof *excluded; i++)
        if (qd_options_given(o, excluded[i]))
            return qd_fail(QD_ERR_INPUT, err, errlen, "--replay excludes --%s", excluded[i]);
    for (int i = 0; i < o->n_given; i++) {
        bool is_shared = false;
        for (size_t k = 0; k < sizeof shared / sizeof *shared; k++)
            is_shared = is_shared || strcmp(o->given[i].name, shared[k]) == 0;
        if ((o->given[i].group & (QD_GROUP_WORKLOAD | QD_GROUP_SAMPLING)) != 0 && !is_shared)
            return qd_fail(QD_ERR_INPUT, err, errlen, "--replay excludes --%s", o->given[i].name);
    }
    if (strcmp(o->device, "null") == 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--replay: the device null executes nothing");
    if (o->trace != NULL) QD_TRY(qd_file_check_writable(o->trace, err, errlen));
    return qd_run_svg_check(o->ledger_svg, err, errlen);
}

static qd_status load_steps(struct replay *r, char *err, size_t errlen)
{
    const struct qd_options *o = r->options;
    QD_TRY(qd_step_file_open(o->replay, &r->file, err, errlen));
    int dp = r->file.header.n_replicas;
    if (qd_options_given(o, "data-parallel-size") && o->dp != dp)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: n_replicas: %d, but --data-parallel-size is %" PRId64,
                       r->file.path, dp, o->dp);
    QD_TRY(qd_replay_load(&r->file, &r->steps, err, errlen));
    r->groups = calloc((size_t)dp, sizeof *r->groups);
    r->replicas = calloc((size_t)dp, sizeof *r->replicas);
    return r->groups != NULL && r->replicas != NULL
               ? QD_OK
               : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %d replicas", dp);
}

static struct qd_instance_options instance_options_of(const struct replay *r)
{
    struct qd_instance_options instance_options = qd_session_instance_options(r->options);
    const struct qd_step_file_header *h = &r->file.header;
    instance_options.dp = h->n_replicas;
    instance_options.max_num_batched_tokens = h->limits.max_tokens;
    instance_options.max_num_seqs = h->limits.max_seqs;
    instance_options.max_logit_rows = h->limits.max_logit_rows;
    instance_options.max_model_len = h->max_model_len;
    instance_options.n_kv_blocks = h->n_kv_blocks;
    return instance_options;
}

static qd_status open_instance(struct replay *r, const struct qd_instance_options *instance_options,
                               char *err, size_t errlen)
{
    const struct qd_step_file_header *h = &r->file.header;
    QD_TRY(qd_session_open(instance_options, &r->instance, err, errlen));
    int64_t vocab_size = qd_instance_config(r->instance)->vocab_size;
    if (vocab_size != h->vocab_size)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: vocab_size: %d, but the model's is %" PRId64,
                       r->file.path, h->vocab_size, vocab_size);
    for (int i = 0; i < h->n_replicas; i++) r->groups[i] = qd_instance_group(r->instance, i);
    return QD_OK;
}

/* Rows are complete when the replicas have ended: nobody reads them meanwhile. */
static void make_ledger(struct replay *r)
{
    for (int i = 0; i < r->steps.dp; i++) {
        const struct qd_replay_replica *replica = &r->steps.replicas[i];
        r->replicas[i] = replica->stats;
        if (!qd_run_steps_wanted(r->options)) continue;
        for (uint64_t k = replica->n_warmup_steps; k < replica->n_steps; k++)
            qd_run_steps_take(&r->rows, &replica->rows[k]);
    }
    r->ledger = qd_ledger_make(r->replicas, r->steps.dp, NULL, 0, NULL, qd_run_steps_rows(&r->rows),
                               qd_run_steps_alone(&r->rows), 0);
}

/* ---- what is printed ---- */

/* Over the replicas. */
struct totals {
    uint64_t n_steps, n_warmup_steps, n_ids, n_different_ids;
    int64_t wall_ns; /* of the slowest: they began together */
    int64_t launch_ns, wait_ns, span_ns, recorded_span_ns;
};

static struct totals add_up(const struct qd_replay *replay)
{
    struct totals t = {0};
    for (int i = 0; i < replay->dp; i++) {
        const struct qd_replay_replica *r = &replay->replicas[i];
        t.n_steps += r->stats.n_steps;
        t.n_warmup_steps += r->n_warmup_steps;
        t.n_ids += r->n_ids;
        t.n_different_ids += r->n_different_ids;
        if (r->stats.wall_ns > t.wall_ns) t.wall_ns = r->stats.wall_ns;
        t.launch_ns += r->stats.launch_ns;
        t.wait_ns += r->stats.wait_ns;
        t.span_ns += r->stats.span_ns;
        t.recorded_span_ns += r->recorded_span_ns;
    }
    return t;
}

static double per_step(int64_t ns, const struct totals *t, double unit)
{
    return (double)ns / unit / (double)t->n_steps;
}

static void print_text(const struct replay *r)
{
    const struct qd_options *o = r->options;
    struct totals t = add_up(&r->steps);
    printf("%s replayed on %s, TP %" PRId64 " x DP %d: %" PRIu64 " steps after %" PRIu64 " of the warm-up\n",
           o->replay, o->device, o->tp, r->steps.dp, t.n_steps, t.n_warmup_steps);
    printf("  ids            %" PRIu64 " of %" PRIu64 " as recorded\n", t.n_ids - t.n_different_ids, t.n_ids);
    printf("  wall           %.4f s, %.4f ms a step of one replica\n", (double)t.wall_ns / 1e9,
           per_step(t.wall_ns * r->steps.dp, &t, 1e6));
    printf("  device span    %.4f ms a step, %.4f when recorded\n", per_step(t.span_ns, &t, 1e6),
           per_step(t.recorded_span_ns, &t, 1e6));
    printf("  host           launch %.2f us a step, wait %.2f\n", per_step(t.launch_ns, &t, 1e3),
           per_step(t.wait_ns, &t, 1e3));
    const struct qd_ledger_view view = {.ledger = &r->ledger,
                                        .replicas = r->replicas,
                                        .dp = r->steps.dp,
                                        .device = o->device,
                                        .async_scheduling = o->async_scheduling};
    if (o->ledger) qd_run_ledger_print(&view, stdout);
}

static void put_replicas(cJSON *root, const struct qd_replay *replay, bool *ok)
{
    cJSON *array = qd_json_put_array(root, "replicas", ok);
    for (int i = 0; i < replay->dp; i++) {
        const struct qd_replay_replica *r = &replay->replicas[i];
        cJSON *o = cJSON_CreateObject();
        qd_json_put_int(o, "n_steps", (int64_t)r->stats.n_steps, ok);
        qd_json_put_int(o, "n_ids", (int64_t)r->n_ids, ok);
        qd_json_put_int(o, "n_different_ids", (int64_t)r->n_different_ids, ok);
        qd_json_put_int(o, "launch_ns", r->stats.launch_ns, ok);
        qd_json_put_int(o, "wait_ns", r->stats.wait_ns, ok);
        qd_json_put_int(o, "output_ns", r->stats.output_ns, ok);
        qd_json_put_int(o, "idle_ns", r->stats.idle_ns, ok);
        qd_json_put_int(o, "wall_ns", r->stats.wall_ns, ok);
        qd_json_put_int(o, "span_ns", r->stats.span_ns, ok);
        qd_json_append_item(array, o, ok);
    }
}

static cJSON *to_json(const struct replay *r)
{
    const struct qd_options *o = r->options;
    struct totals t = add_up(&r->steps);
    cJSON *root = cJSON_CreateObject();
    bool ok = root != NULL;
    qd_json_put_int(root, "schema_version", QD_RESULT_SCHEMA_VERSION, &ok);
    qd_json_put_text(root, "version", qd_version(), &ok);
    qd_json_put_text(root, "commit", qd_commit(), &ok);
    qd_json_put_text(root, "replay", o->replay, &ok);
    qd_json_put_text(root, "model_id", o->model, &ok);
    qd_json_put_text(root, "device", o->device, &ok);
    qd_json_put_int(root, "tensor_parallel_size", o->tp, &ok);
    qd_json_put_int(root, "data_parallel_size", r->steps.dp, &ok);
    qd_json_put_bool(root, "async_scheduling", o->async_scheduling, &ok);
    qd_json_put_int(root, "n_steps", (int64_t)t.n_steps, &ok);
    qd_json_put_int(root, "n_warmup_steps", (int64_t)t.n_warmup_steps, &ok);
    qd_json_put_int(root, "n_ids", (int64_t)t.n_ids, &ok);
    qd_json_put_int(root, "n_different_ids", (int64_t)t.n_different_ids, &ok);
    qd_json_put_int(root, "wall_ns", t.wall_ns, &ok);
    qd_json_put_int(root, "launch_ns", t.launch_ns, &ok);
    qd_json_put_int(root, "wait_ns", t.wait_ns, &ok);
    qd_json_put_int(root, "span_ns", t.span_ns, &ok);
    qd_json_put_int(root, "recorded_span_ns", t.recorded_span_ns, &ok);
    put_replicas(root, &r->steps, &ok);
    qd_ledger_put(root, &r->ledger, r->replicas, r->steps.dp, &ok);
    if (ok) return root;
    cJSON_Delete(root);
    return NULL;
}

static qd_status write_svg(const struct replay *r, char *err, size_t errlen)
{
    const struct qd_options *o = r->options;
    char title[1024];
    if (o->ledger_svg == NULL) return QD_OK;
    snprintf(title, sizeof title, "%s replayed on %s, TP %" PRId64 " x DP %d: %" PRIu64 " steps", o->model,
             o->device, o->tp, r->steps.dp, r->ledger.n_steps);
    return qd_run_svg_write(o->ledger_svg, title, &r->ledger, err, errlen);
}

static qd_status publish(struct replay *r, char *err, size_t errlen)
{
    const struct qd_options *o = r->options;
    QD_TRY(qd_run_steps_write(&r->rows, err, errlen));
    QD_TRY(write_svg(r, err, errlen));
    bool to_stdout = o->json != NULL && strcmp(o->json, "-") == 0;
    cJSON *tree = o->json != NULL ? to_json(r) : NULL;
    char *text = to_stdout && tree != NULL ? cJSON_Print(tree) : NULL;
    qd_status st = QD_OK;
    if ((o->json != NULL && tree == NULL) || (to_stdout && text == NULL))
        st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "result as JSON");
    else if (to_stdout)
        puts(text);
    else if (o->json != NULL)
        st = qd_file_write_json(o->json, tree, err, errlen);
    if (st == QD_OK && !to_stdout) print_text(r);
    cJSON_free(text);
    cJSON_Delete(tree);
    return st;
}

static qd_status run(struct replay *r, char *err, size_t errlen)
{
    const struct qd_options *o = r->options;
    QD_TRY(check_options(o, err, errlen));
    QD_TRY(qd_run_limits_choose(&r->limits, o, err, errlen));
    QD_TRY(load_steps(r, err, errlen));
    struct qd_instance_options instance_options = instance_options_of(r);
    QD_TRY(qd_run_steps_read_kernels(&r->rows, o, &instance_options, err, errlen));
    QD_TRY(qd_run_limits_probe(&r->limits, o, err, errlen));
    QD_TRY(open_instance(r, &instance_options, err, errlen));
    struct qd_ledger_limits limits = qd_run_limits_of_rank(&r->limits, o);
    QD_TRY(qd_run_steps_open(&r->rows, o, qd_instance_get_plan(r->instance), &limits, NULL, 0, err, errlen));
    QD_TRY(qd_replay_run(&r->steps, r->groups, o->async_scheduling, err, errlen));
    make_ledger(r);
    return publish(r, err, errlen);
}

int qd_run_replay(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    struct replay r = {.options = options};
    qd_status status = run(&r, err, sizeof err);
    int exit_code = status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
    qd_run_steps_close(&r.rows);
    exit_code = qd_session_close(command, r.instance, exit_code);
    qd_replay_free(&r.steps);
    qd_step_file_close(&r.file);
    free(r.groups);
    free(r.replicas);
    return exit_code;
}

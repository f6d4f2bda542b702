#include "harness/cli/run_replay.h"

#include <inttypes.h>
#include <string.h>

#include "harness/cli/session.h"
#include "harness/cli/version.h"
#include "harness/engine/replay.h"
#include "harness/result/files.h"
#include "harness/result/json_put.h"
#include "harness/result/schema.h"

/* The file sets the limits, and steps take the place of a workload. */
static qd_status check_options(const struct qd_options *o, char *err, size_t errlen)
{
    static const char *const taken[] = {"max-num-batched-tokens",
                                        "max-num-seqs",
                                        "max-model-len",
                                        "num-gpu-blocks-override",
                                        "kv-cache-memory-bytes",
                                        "record",
                                        "result-dir",
                                        "trace",
                                        "ledger",
                                        "save-steps",
                                        "probe",
                                        "enable-prefix-caching"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (qd_options_given(o, taken[i]))
            return qd_fail(QD_ERR_INPUT, err, errlen, "--replay excludes --%s", taken[i]);
    for (int i = 0; i < o->n_given; i++)
        if ((o->given[i].group & (QD_GROUP_WORKLOAD | QD_GROUP_SAMPLING)) != 0)
            return qd_fail(QD_ERR_INPUT, err, errlen, "--replay excludes --%s", o->given[i].name);
    if (o->dp != 1)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--replay is of one replica, not of %" PRId64, o->dp);
    if (strcmp(o->device, "null") == 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--replay: the device null executes nothing");
    return QD_OK;
}

static qd_status open_instance(const struct qd_options *options, const struct qd_step_file *file,
                               qd_instance_t **out, char *err, size_t errlen)
{
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    const struct qd_step_file_header *h = &file->header;
    instance_options.max_num_batched_tokens = h->limits.max_tokens;
    instance_options.max_num_seqs = h->limits.max_seqs;
    instance_options.max_logit_rows = h->limits.max_logit_rows;
    instance_options.max_model_len = h->max_model_len;
    instance_options.n_kv_blocks = h->n_kv_blocks;
    QD_TRY(qd_session_open(&instance_options, out, err, errlen));
    int64_t vocab_size = qd_instance_config(*out)->vocab_size;
    if (vocab_size == h->vocab_size) return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s: vocab_size: %d, but the model's is %" PRId64, file->path,
                   h->vocab_size, vocab_size);
}

static double per_step(int64_t ns, const struct qd_replay_result *r, double unit)
{
    return (double)ns / unit / (double)r->n_steps;
}

static void print_text(const struct qd_options *o, const struct qd_replay_result *r)
{
    printf("%s replayed on %s, TP %" PRId64 ": %" PRIu64 " steps after %" PRIu64 " of the warm-up\n",
           o->replay, o->device, o->tp, r->n_steps, r->n_warmup_steps);
    printf("  ids            %" PRIu64 " of %" PRIu64 " as recorded\n", r->n_ids - r->n_different_ids,
           r->n_ids);
    printf("  wall           %.4f ms a step\n", per_step(r->wall_ns, r, 1e6));
    printf("  device span    %.4f ms a step, %.4f when recorded\n", per_step(r->span_ns, r, 1e6),
           per_step(r->recorded_span_ns, r, 1e6));
    printf("  host           launch %.2f us a step, wait %.2f\n", per_step(r->launch_ns, r, 1e3),
           per_step(r->wait_ns, r, 1e3));
}

static cJSON *to_json(const struct qd_options *o, const struct qd_replay_result *r)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root != NULL;
    qd_json_put_int(root, "schema_version", QD_RESULT_SCHEMA_VERSION, &ok);
    qd_json_put_text(root, "version", qd_version(), &ok);
    qd_json_put_text(root, "commit", qd_commit(), &ok);
    qd_json_put_text(root, "replay", o->replay, &ok);
    qd_json_put_text(root, "model_id", o->model, &ok);
    qd_json_put_text(root, "device", o->device, &ok);
    qd_json_put_int(root, "tensor_parallel_size", o->tp, &ok);
    qd_json_put_bool(root, "async_scheduling", o->async_scheduling, &ok);
    qd_json_put_int(root, "n_steps", (int64_t)r->n_steps, &ok);
    qd_json_put_int(root, "n_warmup_steps", (int64_t)r->n_warmup_steps, &ok);
    qd_json_put_int(root, "n_ids", (int64_t)r->n_ids, &ok);
    qd_json_put_int(root, "n_different_ids", (int64_t)r->n_different_ids, &ok);
    qd_json_put_int(root, "wall_ns", r->wall_ns, &ok);
    qd_json_put_int(root, "launch_ns", r->launch_ns, &ok);
    qd_json_put_int(root, "wait_ns", r->wait_ns, &ok);
    qd_json_put_int(root, "span_ns", r->span_ns, &ok);
    qd_json_put_int(root, "recorded_span_ns", r->recorded_span_ns, &ok);
    if (ok) return root;
    cJSON_Delete(root);
    return NULL;
}

static qd_status publish(const struct qd_options *o, const struct qd_replay_result *r, char *err,
                         size_t errlen)
{
    bool to_stdout = o->json != NULL && strcmp(o->json, "-") == 0;
    cJSON *tree = o->json != NULL ? to_json(o, r) : NULL;
    char *text = to_stdout && tree != NULL ? cJSON_Print(tree) : NULL;
    qd_status st = QD_OK;
    if ((o->json != NULL && tree == NULL) || (to_stdout && text == NULL))
        st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "result as JSON");
    else if (to_stdout)
        puts(text);
    else if (o->json != NULL)
        st = qd_file_write_json(o->json, tree, err, errlen);
    if (st == QD_OK && !to_stdout) print_text(o, r);
    cJSON_free(text);
    cJSON_Delete(tree);
    return st;
}

static qd_status replay(const struct qd_options *options, qd_instance_t **instance, char *err, size_t errlen)
{
    struct qd_step_file file = {0};
    struct qd_replay_result result;
    qd_status status;
    QD_TRY(check_options(options, err, errlen));
    QD_TRY(qd_step_file_open(options->replay, &file, err, errlen));
    QD_TRY_GOTO(open_instance(options, &file, instance, err, errlen), status, cleanup);
    QD_TRY_GOTO(qd_replay_run(qd_instance_group(*instance, 0), &file, options->async_scheduling, &result, err,
                              errlen),
                status, cleanup);
    status = publish(options, &result, err, errlen);

cleanup:
    qd_step_file_close(&file);
    return status;
}

int qd_run_replay(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    qd_instance_t *instance = NULL;
    qd_status status = replay(options, &instance, err, sizeof err);
    int exit_code = status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
    return qd_session_close(command, instance, exit_code);
}

#include "harness/result/experiment.h"

#include <limits.h>
#include <stdio.h>

#include "harness/result/files.h"
#include "harness/result/json_put.h"
#include "harness/result/schema.h"
#include "models/json.h"

enum { MAX_BYTES = 1 << 20 };

void qd_cell_name(int64_t tp, int64_t dp, int64_t budget, char out[QD_CELL_NAME_LEN])
{
    snprintf(out, QD_CELL_NAME_LEN, "tp=%lld-dp=%lld-max_num_batched_tokens=%lld", (long long)tp,
             (long long)dp, (long long)budget);
}

void qd_run_name(int run_number, char out[QD_RUN_NAME_LEN])
{
    snprintf(out, QD_RUN_NAME_LEN, "run=%d.json", run_number);
}

static void put_list(cJSON *object, const char *key, const struct qd_int_list *list, bool *ok)
{
    cJSON *array = qd_json_put_array(object, key, ok);
    for (int i = 0; i < list->n; i++)
        qd_json_append_int(array, list->value[i], ok);
}

static cJSON *to_json(const struct qd_experiment *e)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL;
    qd_json_put_int(o, "schema_version", QD_RESULT_SCHEMA_VERSION, &ok);
    qd_json_put_text(o, "date", e->date, &ok);
    qd_json_put_text(o, "version", e->version, &ok);
    qd_json_put_text(o, "commit", e->commit, &ok);
    qd_json_put_text(o, "device", e->device, &ok);
    qd_json_put_text(o, "model_id", e->model_id, &ok);
    cJSON *argv = qd_json_put_array(o, "argv", &ok);
    for (int i = 0; i < e->argc; i++)
        qd_json_append_text(argv, e->argv[i], &ok);
    qd_json_put_int(o, "repeats", e->n_repeats, &ok);
    cJSON *matrix = qd_json_put_object(o, "matrix", &ok);
    put_list(matrix, "tensor_parallel_size", &e->matrix.tp, &ok);
    put_list(matrix, "data_parallel_size", &e->matrix.dp, &ok);
    put_list(matrix, "max_num_batched_tokens", &e->matrix.budget, &ok);
    if (e->matrix.max_gpus > 0)
        qd_json_put_int(matrix, "max_gpus", e->matrix.max_gpus, &ok);
    else
        qd_json_put_null(matrix, "max_gpus", &ok);
    qd_json_put_item(o, "axes", qd_axes_to_json(&e->axes), &ok);
    qd_json_put_item(o, "machine", qd_machine_to_json(&e->machine), &ok);
    if (ok) return o;
    cJSON_Delete(o);
    return NULL;
}

qd_status qd_experiment_write(const struct qd_experiment *experiment, const char *path, char *err,
                              size_t errlen)
{
    cJSON *o = to_json(experiment);
    if (o == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    qd_status st = qd_file_write_json(path, o, err, errlen);
    cJSON_Delete(o);
    return st;
}

static qd_status read_list(const cJSON *matrix, const char *key, int64_t max, struct qd_int_list *out,
                           char *err, size_t errlen)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(matrix, key), *item;
    out->n = 0;
    if (!cJSON_IsArray(array) || array->child == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "matrix.%s: is not a list of numbers", key);
    cJSON_ArrayForEach (item, array) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 1 && item->valuedouble <= (double)max) ||
            item->valuedouble != (double)(int64_t)item->valuedouble)
            return qd_fail(QD_ERR_INPUT, err, errlen, "matrix.%s: holds something that is not 1 to %lld", key,
                           (long long)max);
        if (out->n == QD_INT_LIST_MAX)
            return qd_fail(QD_ERR_INPUT, err, errlen, "matrix.%s: more than %d values", key, QD_INT_LIST_MAX);
        out->value[out->n++] = (int64_t)item->valuedouble;
    }
    return QD_OK;
}

static qd_status from_json(const cJSON *o, struct qd_matrix *m, int *n_repeats, char *err, size_t errlen)
{
    int64_t repeats;
    QD_TRY(qd_schema_check(o, err, errlen));
    QD_TRY(qd_json_get_int(o, "repeats", 1, INT_MAX, &repeats, err, errlen));
    *n_repeats = (int)repeats;
    const cJSON *matrix = cJSON_GetObjectItemCaseSensitive(o, "matrix");
    QD_TRY(read_list(matrix, "tensor_parallel_size", QD_MAX_PARALLEL, &m->tp, err, errlen));
    QD_TRY(read_list(matrix, "data_parallel_size", QD_MAX_PARALLEL, &m->dp, err, errlen));
    QD_TRY(read_list(matrix, "max_num_batched_tokens", QD_MAX_BUDGET, &m->budget, err, errlen));
    m->max_gpus = 0;
    qd_status st = qd_json_get_int(matrix, "max_gpus", 1, QD_MAX_BUDGET, &m->max_gpus, err, errlen);
    return st == QD_ERR_NOT_FOUND ? QD_OK : st;
}

qd_status qd_experiment_read_matrix(const char *path, struct qd_matrix *matrix, int *n_repeats, char *err,
                                    size_t errlen)
{
    cJSON *o = NULL;
    char detail[QD_ERR_LEN] = "";
    QD_TRY(qd_json_read_file(path, MAX_BYTES, &o, err, errlen));
    qd_status st = from_json(o, matrix, n_repeats, detail, sizeof detail);
    cJSON_Delete(o);
    return qd_fail_in_file(st, path, detail, err, errlen);
}

qd_status qd_experiment_read_axes(const char *path, struct qd_axes *axes, char *err, size_t errlen)
{
    cJSON *o = NULL;
    char detail[QD_ERR_LEN] = "";
    *axes = (struct qd_axes){0};
    QD_TRY(qd_json_read_file(path, MAX_BYTES, &o, err, errlen));
    qd_status st = qd_schema_check(o, detail, sizeof detail);
    if (st == QD_OK)
        st = qd_axes_from_json(cJSON_GetObjectItemCaseSensitive(o, "axes"), axes, detail, sizeof detail);
    cJSON_Delete(o);
    return qd_fail_in_file(st, path, detail, err, errlen);
}

#include "harness/ops/machine.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "models/json.h"

static const struct {
    const char *name, *json;
} profiles[] = {
#include "machines.inc"
};
enum { N_PROFILES = sizeof profiles / sizeof *profiles, SCHEMA = 1, MAX_BYTES = 1 << 16 };

static qd_status get_text(const cJSON *tree, const char *file, const char *key, char *out, size_t len,
                          char *err, size_t errlen)
{
    const char *text;
    char reason[QD_ERR_LEN];
    qd_status st = qd_json_get_string(tree, key, &text, reason, sizeof reason);
    if (st != QD_OK || text[0] == '\0')
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: %s", file, key,
                       st != QD_OK ? reason : "it is empty");
    snprintf(out, len, "%s", text);
    return QD_OK;
}

/* A figure counts only with its source beside it. */
static qd_status get_figure(const cJSON *tree, const char *file, const char *key, double *out, char *err,
                            size_t errlen)
{
    const cJSON *figure = cJSON_GetObjectItemCaseSensitive(tree, key);
    char source[256], reason[QD_ERR_LEN] = "it is no object with value and source";
    qd_status st = cJSON_IsObject(figure) ? qd_json_get_number(figure, "value", out, reason, sizeof reason)
                                          : QD_ERR_INPUT;
    if (st != QD_OK) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: %s", file, key, reason);
    if (!(*out > 0)) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: %g is not above 0", file, key, *out);
    if (get_text(figure, file, "source", source, sizeof source, err, errlen) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: it names no source", file, key);
    return QD_OK;
}

static qd_status read_profile(const cJSON *tree, const char *file, struct qd_op_machine *out, char *err,
                              size_t errlen)
{
    int64_t schema;
    char reason[QD_ERR_LEN];
    if (!cJSON_IsObject(tree)) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: it is no object", file);
    if (qd_json_get_int(tree, "schema", SCHEMA, SCHEMA, &schema, reason, sizeof reason) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s", file, reason);
    QD_TRY(get_text(tree, file, "name", out->name, sizeof out->name, err, errlen));
    QD_TRY(get_text(tree, file, "title", out->title, sizeof out->title, err, errlen));
    QD_TRY(get_figure(tree, file, "memory_gbps", &out->memory_gbps, err, errlen));
    return get_figure(tree, file, "bf16_gflops", &out->bf16_gflops, err, errlen);
}

static qd_status list_names(const char *name, char *err, size_t errlen)
{
    char names[256] = "";
    size_t used = 0;
    for (int i = 0; i < N_PROFILES && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, ", %s", profiles[i].name);
    return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "no machine %.100s; there are this%s, or FILE.json", name,
                   names);
}

qd_status qd_op_machine_get(const char *name, struct qd_op_machine *out, char *err, size_t errlen)
{
    cJSON *tree = NULL;
    const char *json = NULL;
    bool is_file = strchr(name, '/') != NULL || strstr(name, ".json") != NULL;
    *out = (struct qd_op_machine){0};
    for (int i = 0; i < N_PROFILES && !is_file; i++)
        if (strcmp(profiles[i].name, name) == 0) json = profiles[i].json;
    if (!is_file && json == NULL) return list_names(name, err, errlen);
    qd_status st = is_file ? qd_json_read_file(name, MAX_BYTES, &tree, err, errlen)
                           : qd_json_parse(json, strlen(json), NULL, &tree, err, errlen);
    if (st == QD_OK) st = read_profile(tree, name, out, err, errlen);
    cJSON_Delete(tree);
    return st;
}

double qd_op_floor_us(const struct qd_op_machine *machine, struct qd_traffic traffic, bool *compute_bound)
{
    return qd_traffic_floor_ns(traffic, machine->memory_gbps, machine->bf16_gflops, compute_bound) * 1e-3;
}

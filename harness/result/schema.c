#include "harness/result/schema.h"

#include <limits.h>

#include "models/json.h"

qd_status qd_schema_check(const cJSON *object, char *err, size_t errlen)
{
    int64_t version;
    QD_TRY(qd_json_get_int(object, "schema_version", 0, INT_MAX, &version, err, errlen));
    if (version == QD_RESULT_SCHEMA_VERSION) return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen, "schema_version: %lld, this version reads %d",
                   (long long)version, QD_RESULT_SCHEMA_VERSION);
}

qd_status qd_fail_in_file(qd_status status, const char *path, const char *detail, char *err, size_t errlen)
{
    if (status == QD_OK) return QD_OK;
    return qd_fail(status == QD_ERR_NOT_FOUND ? QD_ERR_INPUT : status, err, errlen, "%s: %s", path, detail);
}

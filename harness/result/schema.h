/* The version of our result files, checked by every reader. */
#ifndef QD_HARNESS_RESULT_SCHEMA_H
#define QD_HARNESS_RESULT_SCHEMA_H

#include <cjson/cJSON.h>

#include "kernels/base/status.h"

enum { QD_RESULT_SCHEMA_VERSION = 1 };

/* QD_ERR_INPUT when object.schema_version is missing or not this version's. */
qd_status qd_schema_check(const cJSON *object, char *err, size_t errlen);

/* Passes QD_OK through; else puts `path` before `detail`. A member that is missing makes the file bad, so
 * QD_ERR_NOT_FOUND becomes QD_ERR_INPUT: the first is kept for a file that is not there. */
qd_status qd_fail_in_file(qd_status status, const char *path, const char *detail, char *err, size_t errlen);

#endif

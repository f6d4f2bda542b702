/* Building JSON objects without a check per member: every function does nothing once *ok is false, and sets
 * it false when memory runs out. */
#ifndef QD_HARNESS_RESULT_JSON_PUT_H
#define QD_HARNESS_RESULT_JSON_PUT_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

/* Not finite: null. */
void qd_json_put_number(cJSON *object, const char *key, double value, bool *ok);
/* null for what is not known. */
void qd_json_put_known(cJSON *object, const char *key, double value, bool is_known, bool *ok);
/* Exact to 2^53. */
void qd_json_put_int(cJSON *object, const char *key, int64_t value, bool *ok);
void qd_json_put_bool(cJSON *object, const char *key, bool value, bool *ok);
void qd_json_put_null(cJSON *object, const char *key, bool *ok);
/* NULL: null. Bytes that are not UTF-8 become U+FFFD, so that the file stays valid JSON. */
void qd_json_put_text(cJSON *object, const char *key, const char *text, bool *ok);
/* An empty object or array, owned by `object`; NULL when *ok is (or becomes) false. */
cJSON *qd_json_put_object(cJSON *object, const char *key, bool *ok);
cJSON *qd_json_put_array(cJSON *object, const char *key, bool *ok);
/* Adds `item` and takes it over in any case. */
void qd_json_put_item(cJSON *object, const char *key, cJSON *item, bool *ok);
/* Appends to an array. */
void qd_json_append_text(cJSON *array, const char *text, bool *ok);
void qd_json_append_int(cJSON *array, int64_t value, bool *ok);
void qd_json_append_item(cJSON *array, cJSON *item, bool *ok);

/* A copy of `text` in which bytes that are not UTF-8 are U+FFFD; NULL when out of memory. */
char *qd_text_make_utf8(const char *text);

#endif

#include "harness/result/json_put.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/json.h"

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

char *qd_text_make_utf8(const char *text)
{
    size_t len = strlen(text);
    char *copy = malloc(3 * len + 1), *out = copy; /* every byte may turn into the three of U+FFFD */
    if (copy == NULL) return NULL;
    for (;;) {
        size_t good = qd_utf8_check(text, len);
        memcpy(out, text, good);
        out += good;
        if (good == len) break;
        memcpy(out, REPLACEMENT, sizeof REPLACEMENT - 1);
        out += sizeof REPLACEMENT - 1;
        text += good + 1;
        len -= good + 1;
    }
    *out = '\0';
    return copy;
}

void qd_json_put_item(cJSON *object, const char *key, cJSON *item, bool *ok)
{
    if (*ok && item != NULL && cJSON_AddItemToObject(object, key, item)) return;
    *ok = false;
    cJSON_Delete(item);
}

void qd_json_append_item(cJSON *array, cJSON *item, bool *ok)
{
    if (*ok && item != NULL && cJSON_AddItemToArray(array, item)) return;
    *ok = false;
    cJSON_Delete(item);
}

void qd_json_put_number(cJSON *object, const char *key, double value, bool *ok)
{
    qd_json_put_item(object, key, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull(), ok);
}

void qd_json_put_known(cJSON *object, const char *key, double value, bool is_known, bool *ok)
{
    if (is_known)
        qd_json_put_number(object, key, value, ok);
    else
        qd_json_put_null(object, key, ok);
}

void qd_json_put_int(cJSON *object, const char *key, int64_t value, bool *ok)
{
    qd_json_put_number(object, key, (double)value, ok);
}

void qd_json_put_bool(cJSON *object, const char *key, bool value, bool *ok)
{
    qd_json_put_item(object, key, cJSON_CreateBool(value), ok);
}

void qd_json_put_null(cJSON *object, const char *key, bool *ok)
{
    qd_json_put_item(object, key, cJSON_CreateNull(), ok);
}

static cJSON *make_string(const char *text)
{
    char *utf8 = qd_text_make_utf8(text);
    cJSON *string = utf8 != NULL ? cJSON_CreateString(utf8) : NULL;
    free(utf8);
    return string;
}

void qd_json_put_text(cJSON *object, const char *key, const char *text, bool *ok)
{
    qd_json_put_item(object, key, text != NULL ? make_string(text) : cJSON_CreateNull(), ok);
}

void qd_json_append_text(cJSON *array, const char *text, bool *ok)
{
    qd_json_append_item(array, make_string(text), ok);
}

void qd_json_append_int(cJSON *array, int64_t value, bool *ok)
{
    qd_json_append_item(array, cJSON_CreateNumber((double)value), ok);
}

cJSON *qd_json_put_object(cJSON *object, const char *key, bool *ok)
{
    cJSON *item = cJSON_CreateObject();
    qd_json_put_item(object, key, item, ok);
    return *ok ? item : NULL;
}

cJSON *qd_json_put_array(cJSON *object, const char *key, bool *ok)
{
    cJSON *item = cJSON_CreateArray();
    qd_json_put_item(object, key, item, ok);
    return *ok ? item : NULL;
}

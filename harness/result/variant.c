#include "harness/result/variant.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result/json_put.h"
#include "kernels/base/size.h"
#include "models/json.h"

void qd_axes_free(struct qd_axes *axes)
{
    for (size_t a = 0; a < axes->n; a++) qd_range_free(&axes->axis[a].range);
    *axes = (struct qd_axes){0};
}

size_t qd_axes_count(const struct qd_axes *axes)
{
    size_t n = 1;
    for (size_t a = 0; a < axes->n; a++) n *= axes->axis[a].range.n;
    return n;
}

size_t qd_axis_part_len(const char *label, const struct qd_range *range)
{
    size_t longest = 0;
    for (size_t v = 0; v < range->n; v++) {
        size_t len = strlen(range->values[v]);
        if (len > longest) longest = len;
    }
    return strlen(label) + 1 + longest + 1;
}

void qd_variant_append(char *text, size_t room, const char *label, const char *value)
{
    size_t used = strlen(text);
    snprintf(text + used, room - used, "%s%s=%s", used > 0 ? "-" : "", label, value);
}

void qd_axes_variant(const struct qd_axes *axes, size_t i, char out[QD_VARIANT_LEN])
{
    size_t n = qd_axes_count(axes);
    out[0] = '\0';
    for (size_t a = 0; a < axes->n; a++) {
        const struct qd_axis *axis = &axes->axis[a];
        n /= axis->range.n;
        qd_variant_append(out, QD_VARIANT_LEN, axis->label, axis->range.values[i / n % axis->range.n]);
    }
}

/* Moves *text behind `word` when it begins with it. */
static bool skip_word(const char **text, const char *word)
{
    size_t len = strlen(word);
    if (strncmp(*text, word, len) != 0) return false;
    *text += len;
    return true;
}

/* Moves *text behind the value that stands there; its index, or range->n. */
static size_t skip_value(const char **text, const struct qd_range *range)
{
    for (size_t v = 0; v < range->n; v++) {
        const char *at = *text;
        if (!skip_word(&at, range->values[v]) || (*at != '-' && *at != '\0')) continue;
        *text = at;
        return v;
    }
    return range->n;
}

bool qd_axes_find(const struct qd_axes *axes, const char *variant, size_t index[QD_MAX_AXES])
{
    for (size_t a = 0; a < axes->n; a++) {
        const struct qd_axis *axis = &axes->axis[a];
        if (a > 0 && !skip_word(&variant, "-")) return false;
        if (!skip_word(&variant, axis->label) || !skip_word(&variant, "=")) return false;
        index[a] = skip_value(&variant, &axis->range);
        if (index[a] == axis->range.n) return false;
    }
    return *variant == '\0';
}

cJSON *qd_axes_to_json(const struct qd_axes *axes)
{
    cJSON *array = cJSON_CreateArray();
    bool ok = array != NULL;
    for (size_t a = 0; a < axes->n; a++) {
        const struct qd_axis *axis = &axes->axis[a];
        cJSON *o = cJSON_CreateObject();
        qd_json_append_item(array, o, &ok);
        qd_json_put_text(o, "option", axis->option, &ok);
        qd_json_put_text(o, "label", axis->label, &ok);
        cJSON *values = qd_json_put_array(o, "values", &ok);
        for (size_t v = 0; v < axis->range.n; v++) qd_json_append_text(values, axis->range.values[v], &ok);
    }
    if (ok) return array;
    cJSON_Delete(array);
    return NULL;
}

qd_status qd_variant_check(const char *name, const char *text, char *err, size_t errlen)
{
    size_t len = strlen(text);
    if (len >= QD_VARIANT_LEN)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: longer than %d bytes", name, QD_VARIANT_LEN - 1);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("=-+._", text[i]) == NULL)
            return qd_fail(QD_ERR_INPUT, err, errlen,
                           "%s: \"%s\" holds something other than letters, digits and =-+._", name, text);
    return QD_OK;
}

static qd_status read_name(const cJSON *object, const char *key, char out[QD_AXIS_NAME_LEN], char *err,
                           size_t errlen)
{
    const char *text;
    QD_TRY(qd_json_get_string(object, key, &text, err, errlen));
    QD_TRY(qd_variant_check(key, text, err, errlen));
    if (text[0] == '\0' || strlen(text) >= QD_AXIS_NAME_LEN)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: \"%s\" is empty or too long", key, text);
    snprintf(out, QD_AXIS_NAME_LEN, "%s", text);
    return QD_OK;
}

static qd_status read_values(const cJSON *array, struct qd_range *out, char *err, size_t errlen)
{
    const cJSON *value;
    if (!cJSON_IsArray(array) || array->child == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "values: is not a list of texts");
    cJSON_ArrayForEach (value, array) {
        if (!cJSON_IsString(value))
            return qd_fail(QD_ERR_INPUT, err, errlen, "values: holds something that is not text");
        QD_TRY(qd_variant_check("values", value->valuestring, err, errlen));
        QD_TRY(qd_range_add(out, value->valuestring, strlen(value->valuestring), err, errlen));
    }
    return QD_OK;
}

static qd_status read_axes(const cJSON *array, struct qd_axes *out, char *err, size_t errlen)
{
    size_t n_variants = 1, len = 0;
    const cJSON *item;
    cJSON_ArrayForEach (item, array) {
        if (out->n == QD_MAX_AXES)
            return qd_fail(QD_ERR_INPUT, err, errlen, "more than %d axes", QD_MAX_AXES);
        struct qd_axis *axis = &out->axis[out->n++];
        QD_TRY(read_name(item, "option", axis->option, err, errlen));
        QD_TRY(read_name(item, "label", axis->label, err, errlen));
        QD_TRY(read_values(cJSON_GetObjectItemCaseSensitive(item, "values"), &axis->range, err, errlen));
        len += qd_axis_part_len(axis->label, &axis->range);
        if (!qd_size_mul(n_variants, axis->range.n, &n_variants) || n_variants > QD_MAX_VARIANTS ||
            len > QD_VARIANT_LEN)
            return qd_fail(QD_ERR_INPUT, err, errlen, "more than %d variants, or names of more than %d bytes",
                           QD_MAX_VARIANTS, QD_VARIANT_LEN - 1);
    }
    return QD_OK;
}

qd_status qd_axes_from_json(const cJSON *array, struct qd_axes *out, char *err, size_t errlen)
{
    char reason[QD_ERR_LEN] = "";
    *out = (struct qd_axes){0};
    if (array == NULL) return QD_OK;
    if (!cJSON_IsArray(array)) return qd_fail(QD_ERR_INPUT, err, errlen, "axes: is not an array");
    qd_status st = read_axes(array, out, reason, sizeof reason);
    if (st == QD_OK) return QD_OK;
    qd_axes_free(out);
    return qd_fail(st == QD_ERR_NO_MEMORY ? st : QD_ERR_INPUT, err, errlen, "axes: %s", reason);
}

qd_status qd_variant_get(const cJSON *object, const char **out, char *err, size_t errlen)
{
    *out = "";
    qd_status st = qd_json_get_string(object, "variant", out, err, errlen);
    if (st == QD_ERR_NOT_FOUND) return QD_OK;
    return st == QD_OK ? qd_variant_check("variant", *out, err, errlen) : st;
}

/* Compares what stands at *a and *b up to the next '=' inclusive, and moves behind it. */
static int compare_labels(const char **a, const char **b)
{
    size_t na = strcspn(*a, "="), nb = strcspn(*b, "=");
    na += (*a)[na] == '=';
    nb += (*b)[nb] == '=';
    int order = memcmp(*a, *b, na < nb ? na : nb);
    if (order == 0) order = (na > nb) - (na < nb);
    *a += na;
    *b += nb;
    return order;
}

/* A number such as "16" or "512M"; *text moves behind it. */
static double read_number(const char **text)
{
    char *end;
    double value = strtod(*text, &end), factor;
    *text = qd_size_suffix(end, &factor);
    return value * factor;
}

/* Compares two numbers and moves behind them; text that is no number is left for compare_labels. */
static int compare_values(const char **a, const char **b)
{
    if (!isdigit((unsigned char)**a) || !isdigit((unsigned char)**b)) return 0;
    double x = read_number(a), y = read_number(b);
    return (x > y) - (x < y);
}

int qd_variant_compare(const char *a, const char *b)
{
    const char *x = a, *y = b;
    int order = 0;
    while (order == 0 && *x != '\0' && *y != '\0') {
        order = compare_labels(&x, &y);
        if (order == 0) order = compare_values(&x, &y);
    }
    if (order == 0) order = (*x != '\0') - (*y != '\0');
    return order != 0 ? order : strcmp(a, b); /* "1" and "1.0" */
}

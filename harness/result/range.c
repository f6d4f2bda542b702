#include "harness/result/range.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A dash that separates two whole numbers; the one of "1e-3" does not. */
static const char *range_dash(const char *text, size_t len)
{
    size_t digits = 0;
    while (digits < len && isdigit((unsigned char)text[digits])) digits++;
    return digits > 0 && digits < len && text[digits] == '-' ? text + digits : NULL;
}

bool qd_range_is_list(const char *text)
{
    return strchr(text, ',') != NULL || range_dash(text, strlen(text)) != NULL;
}

const char *qd_size_suffix(const char *text, double *factor)
{
    static const char letters[] = "KMGT";
    const char *letter = *text != '\0' ? strchr(letters, toupper((unsigned char)*text)) : NULL;
    *factor = 1;
    if (letter == NULL) return text;
    const char *end = text + 1;
    if (*end == 'B')
        end += 1;
    else if (end[0] == 'i' && end[1] == 'B')
        end += 2;
    if (isalnum((unsigned char)*end)) return text;
    *factor = (double)(INT64_C(1) << 10 * (letter - letters + 1));
    return end;
}

qd_status qd_range_add(struct qd_range *range, const char *value, size_t len, char *err, size_t errlen)
{
    if (len == 0 || len >= QD_RANGE_VALUE_LEN)
        return qd_fail(QD_ERR_INPUT, err, errlen, "empty or overlong value \"%.*s\"", (int)len, value);
    if (range->values == NULL) range->values = calloc(QD_RANGE_MAX_VALUES, sizeof *range->values);
    if (range->values == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "list of values");
    if (range->n == QD_RANGE_MAX_VALUES)
        return qd_fail(QD_ERR_INPUT, err, errlen, "more than %d values", QD_RANGE_MAX_VALUES);
    for (size_t i = 0; i < range->n; i++)
        if (strncmp(range->values[i], value, len) == 0 && range->values[i][len] == '\0')
            return qd_fail(QD_ERR_INPUT, err, errlen, "value %.*s appears twice", (int)len, value);
    memcpy(range->values[range->n], value, len);
    range->values[range->n++][len] = '\0';
    return QD_OK;
}

static bool parse_whole(const char *text, const char **end, int64_t *out)
{
    if (!isdigit((unsigned char)*text)) return false;
    errno = 0;
    char *stop;
    long long value = strtoll(text, &stop, 10);
    if (errno != 0) return false;
    *end = stop;
    *out = value;
    return true;
}

static qd_status expand_range(struct qd_range *range, const char *part, size_t len, char *err, size_t errlen)
{
    const char *at, *end = part + len;
    int64_t first, last, step = 1;
    bool ok = parse_whole(part, &at, &first) && *at == '-' && parse_whole(at + 1, &at, &last);
    bool multiply = ok && *at == '*';
    if (ok && at != end) ok = (*at == '*' || *at == '+') && parse_whole(at + 1, &at, &step) && at == end;
    if (!ok || first > last || step < (multiply ? 2 : 1) || (multiply && first == 0))
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"%.*s\" is no range a-b, a-b+step or a-b*factor",
                       (int)len, part);
    for (int64_t value = first; value <= last;) {
        char text[QD_RANGE_VALUE_LEN];
        int n = snprintf(text, sizeof text, "%" PRId64, value);
        QD_TRY(qd_range_add(range, text, (size_t)n, err, errlen));
        if (multiply ? __builtin_mul_overflow(value, step, &value)
                     : __builtin_add_overflow(value, step, &value))
            break;
    }
    return QD_OK;
}

qd_status qd_range_expand(const char *text, struct qd_range *out, char *err, size_t errlen)
{
    *out = (struct qd_range){0};
    qd_status status = QD_OK;
    for (const char *part = text; status == QD_OK;) {
        size_t len = strcspn(part, ",");
        if (range_dash(part, len) != NULL)
            status = expand_range(out, part, len, err, errlen);
        else
            status = qd_range_add(out, part, len, err, errlen);
        if (part[len] == '\0') break;
        part += len + 1;
    }
    if (status != QD_OK) qd_range_free(out);
    return status;
}

void qd_range_free(struct qd_range *range)
{
    free(range->values);
    *range = (struct qd_range){0};
}

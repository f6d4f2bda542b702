#include "harness/result/matrix.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result/range.h"

/* A value of an expanded list as a whole number within [min, max]. */
static bool whole_number(const char *text, int64_t min, int64_t max, int64_t *out)
{
    if (text[strspn(text, "0123456789")] != '\0') return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0 && *out >= min && *out <= max;
}

qd_status qd_int_list_parse(const char *name, const char *text, int64_t min, int64_t max,
                            struct qd_int_list *out, char *err, size_t errlen)
{
    char reason[QD_ERR_LEN];
    struct qd_range range;
    out->n = 0;
    qd_status st = qd_range_expand(text, &range, reason, sizeof reason);
    if (st != QD_OK) return qd_fail(st, err, errlen, "%s: %s", name, reason);
    if (range.n > QD_INT_LIST_MAX)
        st = qd_fail(QD_ERR_INPUT, err, errlen, "%s: more than %d values", name, QD_INT_LIST_MAX);
    for (size_t i = 0; st == QD_OK && i < range.n; i++) {
        if (!whole_number(range.values[i], min, max, &out->value[out->n++]))
            st = qd_fail(QD_ERR_INPUT, err, errlen, "%s: '%s' is no whole number from %lld to %lld", name,
                         range.values[i], (long long)min, (long long)max);
    }
    qd_range_free(&range);
    return st;
}

static qd_status parse_axis(char *item, struct qd_matrix *out, char *err, size_t errlen)
{
    char *equals = strchr(item, '=');
    if (equals == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "matrix: '%s' is not of the form tp=1,2", item);
    *equals = '\0';
    const char *values = equals + 1;
    struct qd_int_list gpus;
    if (strcmp(item, "tp") == 0)
        return qd_int_list_parse("matrix tp", values, 1, QD_MAX_PARALLEL, &out->tp, err, errlen);
    if (strcmp(item, "dp") == 0)
        return qd_int_list_parse("matrix dp", values, 1, QD_MAX_PARALLEL, &out->dp, err, errlen);
    if (strcmp(item, "budget") == 0)
        return qd_int_list_parse("matrix budget", values, 1, QD_MAX_BUDGET, &out->budget, err, errlen);
    if (strcmp(item, "gpus") != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "matrix: unknown axis '%s' (tp, dp, budget, gpus)", item);
    QD_TRY(qd_int_list_parse("matrix gpus", values, 1, QD_MAX_BUDGET, &gpus, err, errlen));
    if (gpus.n != 1) return qd_fail(QD_ERR_INPUT, err, errlen, "matrix gpus: one number is wanted");
    out->max_gpus = gpus.value[0];
    return QD_OK;
}

qd_status qd_matrix_parse(const char *text, struct qd_matrix *out, char *err, size_t errlen)
{
    *out = (struct qd_matrix){0};
    char *copy = strdup(text), *rest = copy, *item;
    if (copy == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "matrix: out of memory");
    qd_status st = QD_OK;
    while (st == QD_OK && (item = strsep(&rest, ";")) != NULL)
        st = parse_axis(item, out, err, errlen);
    free(copy);
    if (st == QD_OK && (out->tp.n == 0 || out->dp.n == 0 || out->budget.n == 0))
        return qd_fail(QD_ERR_INPUT, err, errlen, "matrix: '%s' lacks %s", text,
                       out->tp.n == 0   ? "tp"
                       : out->dp.n == 0 ? "dp"
                                        : "budget");
    return st;
}

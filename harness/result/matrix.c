#include "harness/result/matrix.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool qd_int_list_contains(const struct qd_int_list *list, int64_t value)
{
    for (int i = 0; i < list->n; i++)
        if (list->value[i] == value) return true;
    return false;
}

static qd_status append(const char *name, int64_t value, struct qd_int_list *out, char *err, size_t errlen)
{
    if (qd_int_list_contains(out, value))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %lld is there twice", name, (long long)value);
    if (out->n == QD_INT_LIST_MAX)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: more than %d values", name, QD_INT_LIST_MAX);
    out->value[out->n++] = value;
    return QD_OK;
}

/* Reads digits at *p; false when there are none or the number does not fit. */
static bool read_number(const char **p, int64_t *value)
{
    if (**p < '0' || **p > '9') return false;
    char *end;
    errno = 0;
    *value = strtoll(*p, &end, 10);
    *p = end;
    return errno == 0;
}

struct piece {
    int64_t begin, end, step; /* begin == end: one value */
    char op;                  /* '+' or '*' */
};

static bool read_piece(const char *text, struct piece *piece)
{
    const char *p = text;
    *piece = (struct piece){.step = 1, .op = '+'};
    if (!read_number(&p, &piece->begin)) return false;
    piece->end = piece->begin;
    if (*p == '-') {
        p++;
        if (!read_number(&p, &piece->end)) return false;
        if (*p == '+' || *p == '*') {
            piece->op = *p++;
            if (!read_number(&p, &piece->step)) return false;
        }
    }
    return *p == '\0';
}

static qd_status add_piece(const char *name, const char *text, int64_t min, int64_t max,
                           struct qd_int_list *out, char *err, size_t errlen)
{
    struct piece piece;
    if (!read_piece(text, &piece))
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "%s: '%s' is not a number or a range such as 1-4, 16-64+16 or 64-4096*2", name, text);
    if (piece.begin < min || piece.begin > max || piece.end < min || piece.end > max)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: '%s' is outside %lld to %lld", name, text,
                       (long long)min, (long long)max);
    if (piece.end < piece.begin)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: '%s' ends before it begins", name, text);
    if (piece.op == '*' && (piece.step < 2 || piece.begin == 0))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: '%s' never grows", name, text);
    if (piece.op == '+' && piece.step < 1)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: '%s' has step 0", name, text);
    for (int64_t v = piece.begin; v <= piece.end;) {
        QD_TRY(append(name, v, out, err, errlen));
        int64_t next;
        bool fits = piece.op == '+' ? !__builtin_add_overflow(v, piece.step, &next)
                                    : !__builtin_mul_overflow(v, piece.step, &next);
        if (!fits) break;
        v = next;
    }
    return QD_OK;
}

qd_status qd_int_list_parse(const char *name, const char *text, int64_t min, int64_t max,
                            struct qd_int_list *out, char *err, size_t errlen)
{
    out->n = 0;
    char *copy = strdup(text), *rest = copy, *item;
    if (copy == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", name);
    qd_status st = QD_OK;
    while (st == QD_OK && (item = strsep(&rest, ",")) != NULL)
        st = add_piece(name, item, min, max, out, err, errlen);
    free(copy);
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

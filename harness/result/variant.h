/* The further axes of a sweep, beyond TP, DP and the token budget, and the variants they span.
 *
 * A variant is one point on the further axes, written as the cell's folder name writes it:
 * "max-concurrency=4-input-len=128"; "" where a sweep has none. Cells of different variants are measured
 * under different conditions and are never compared.
 */
#ifndef QD_HARNESS_RESULT_VARIANT_H
#define QD_HARNESS_RESULT_VARIANT_H

#include <cjson/cJSON.h>

#include "harness/result/range.h"

enum {
    QD_VARIANT_LEN = 256, /* with its end: a variant is part of a folder's name */
    QD_MAX_AXES = 16,
    QD_AXIS_NAME_LEN = 48,
    QD_MAX_VARIANTS = 10000,
};

struct qd_axis {
    char option[QD_AXIS_NAME_LEN]; /* long name: "random-input-len" */
    char label[QD_AXIS_NAME_LEN];  /* in folder names: "input-len" */
    struct qd_range range;
};

struct qd_axes {
    size_t n;
    struct qd_axis axis[QD_MAX_AXES]; /* the last varies fastest */
};

/* Harmless on empty (zeroed) axes. */
void qd_axes_free(struct qd_axes *axes);

/* Number of variants: the product, 1 without axes. */
size_t qd_axes_count(const struct qd_axes *axes);

/* Bytes that "label=value-" takes, with the longest value. */
size_t qd_axis_part_len(const char *label, const struct qd_range *range);

/* Writes variant `i` of qd_axes_count. */
void qd_axes_variant(const struct qd_axes *axes, size_t i, char out[QD_VARIANT_LEN]);

/* Finds a variant's value on every axis: index[a] into axis[a].range. False when it is not one of the axes'
 * own. */
bool qd_axes_find(const struct qd_axes *axes, const char *variant, size_t index[QD_MAX_AXES]);

/* An array of {"option", "label", "values"}; NULL when out of memory. */
cJSON *qd_axes_to_json(const struct qd_axes *axes);

/* Reads what qd_axes_to_json made; NULL: no axes. QD_ERR_INPUT: else, or more than QD_MAX_VARIANTS. */
qd_status qd_axes_from_json(const cJSON *array, struct qd_axes *out, char *err, size_t errlen);

/* Appends "label=value", behind a '-' unless it is the first, to text[room]; what has no room is cut. */
void qd_variant_append(char *text, size_t room, const char *label, const char *value);

/* QD_ERR_INPUT (err starts with `name`) unless the text is one that a file may hold as a variant: letters,
 * digits and "=-+._", shorter than QD_VARIANT_LEN. */
qd_status qd_variant_check(const char *name, const char *text, char *err, size_t errlen);

/* The member "variant" of an object; "" when it is null or not there. *out stays owned by the object. */
qd_status qd_variant_get(const cJSON *object, const char **out, char *err, size_t errlen);

/* A total order in which values stand by size: "a=4" before "a=16". 0 only for equal texts. */
int qd_variant_compare(const char *a, const char *b);

#endif

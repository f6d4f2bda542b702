/* Values a sweep ranges over: "1,2,4", "1-8*2" (1,2,4,8), "64-4096+64", "1-4", and any of these joined by
 * commas. */
#ifndef QD_HARNESS_RESULT_RANGE_H
#define QD_HARNESS_RESULT_RANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"

enum { QD_RANGE_MAX_VALUES = 1000, QD_RANGE_VALUE_LEN = 32 };

struct qd_range {
    size_t n;
    char (*values)[QD_RANGE_VALUE_LEN]; /* [n], as they are handed to an option */
};

/* QD_ERR_INPUT: empty part, a range that is not a-b, a-b+s or a-b*m with whole numbers and a <= b, a value
 * that appears twice, more than QD_RANGE_MAX_VALUES values. */
qd_status qd_range_expand(const char *text, struct qd_range *out, char *err, size_t errlen);

/* Appends value[0..len). QD_ERR_INPUT: empty, overlong, there already, or too many. A zeroed range is empty.
 */
qd_status qd_range_add(struct qd_range *range, const char *value, size_t len, char *err, size_t errlen);
void qd_range_free(struct qd_range *range);

/* The multiplier of a size's suffix: K, M, G, T in either case (1024-based), with "B" or "iB" behind it or
 * not. Returns where it ends; `text` and a factor of 1 when no suffix stands there, or one that is part of a
 * longer word. */
const char *qd_size_suffix(const char *text, double *factor);

/* True when the text names more than one value by its form (a comma or a range). */
bool qd_range_is_list(const char *text);

#endif

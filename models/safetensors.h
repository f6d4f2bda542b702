/* One safetensors file: 8 bytes of header length (little-endian), a JSON header, the data.
 *
 *     {"__metadata__": {...}, "NAME": {"dtype": "BF16", "shape": [N, K], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from the end of the header. Nothing of a file is used before its whole header was validated.
 * Source: https://github.com/huggingface/safetensors, "Format".
 */
#ifndef QD_MODELS_SAFETENSORS_H
#define QD_MODELS_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum qd_dtype { QD_DTYPE_BF16 = 0, QD_DTYPE_F16, QD_DTYPE_F32 };

enum {
    QD_SAFETENSORS_PREFIX = 8,           /* bytes before the header */
    QD_SAFETENSORS_MAX_HEADER = 1 << 24, /* bytes */
    QD_SAFETENSORS_MAX_DIMS = 8,
    QD_SAFETENSORS_MAX_NAME = 512,       /* bytes */
};

struct qd_tensor {
    char *name;
    enum qd_dtype dtype;
    int file;                              /* as given to the parser */
    int n_dims;
    int64_t dims[QD_SAFETENSORS_MAX_DIMS]; /* outermost first */
    uint64_t begin, n_bytes;               /* in the file, from its first byte */
};

/* Grows as headers are read; sorted by name once qd_tensor_list_sort has run. */
struct qd_tensor_list {
    struct qd_tensor *items;
    size_t n, capacity;
};

/* The header's length from the file's first 8 bytes: QD_ERR_INPUT when the file of n_file_bytes cannot hold
 * it, QD_ERR_TOO_LARGE above the limit. */
qd_status qd_safetensors_header_bytes(const unsigned char prefix[QD_SAFETENSORS_PREFIX],
                                      uint64_t n_file_bytes, const char *path, size_t *n_header_bytes,
                                      char *err, size_t errlen);

/* Appends every tensor that the header describes. Checks JSON (depth, duplicate names), dtype, the product of
 * the shape, that its bytes are what data_offsets span, that these lie in the file and do not overlap.
 * QD_ERR_INPUT, or QD_ERR_UNSUPPORTED for another dtype; err names file, tensor and reason. After a failure
 * the list still owns what was appended. */
qd_status qd_safetensors_parse_header(const char *header, size_t n_header_bytes, uint64_t n_file_bytes,
                                      const char *path, int file, struct qd_tensor_list *list, char *err,
                                      size_t errlen);

/* Names go into messages: true for 1 to 512 bytes without control characters, which could garble a
 * terminal. */
bool qd_tensor_name_is_plain(const char *name);

/* Sorts by name. */
void qd_tensor_list_sort(struct qd_tensor_list *list);
/* The tensor of that name in a sorted list, or NULL. */
const struct qd_tensor *qd_tensor_list_find(const struct qd_tensor_list *list, const char *name);
void qd_tensor_list_free(struct qd_tensor_list *list); /* harmless on an empty list */

size_t qd_dtype_bytes(enum qd_dtype dtype);

#endif

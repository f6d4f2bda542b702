#include "models/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "models/json.h"

enum { HEADER_DEPTH = 8 };

/* The header being read, for checks and errors. */
struct header {
    const char *path;
    int file;
    uint64_t data_begin, n_data_bytes;
    char *err;
    size_t errlen;
};

static const struct {
    const char *name;
    size_t n_bytes;
} DTYPES[] = {[QD_DTYPE_BF16] = {"BF16", 2}, [QD_DTYPE_F16] = {"F16", 2}, [QD_DTYPE_F32] = {"F32", 4}};
enum { N_DTYPES = sizeof DTYPES / sizeof *DTYPES };

size_t qd_dtype_bytes(enum qd_dtype dtype)
{
    return DTYPES[dtype].n_bytes;
}

static qd_status refuse(const struct header *h, const char *tensor, const char *why)
{
    return qd_fail(QD_ERR_INPUT, h->err, h->errlen, "%s: %s: %s", h->path, tensor, why);
}

qd_status qd_safetensors_header_bytes(const unsigned char prefix[QD_SAFETENSORS_PREFIX],
                                      uint64_t n_file_bytes, const char *path, size_t *n_header_bytes,
                                      char *err, size_t errlen)
{
    uint64_t n = 0;
    for (int i = QD_SAFETENSORS_PREFIX - 1; i >= 0; i--)
        n = n << 8 | prefix[i];
    if (n_file_bytes < QD_SAFETENSORS_PREFIX || n > n_file_bytes - QD_SAFETENSORS_PREFIX)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: header of %llu bytes in a file of %llu", path,
                       (unsigned long long)n, (unsigned long long)n_file_bytes);
    if (n > QD_SAFETENSORS_MAX_HEADER)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: header of %llu bytes, more than %d", path,
                       (unsigned long long)n, QD_SAFETENSORS_MAX_HEADER);
    *n_header_bytes = (size_t)n;
    return QD_OK;
}

/* A whole number that a double holds exactly. */
static bool exact_size(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item)) return false;
    double value = item->valuedouble;
    if (!(value >= 0 && value <= 0x1p53) || value != floor(value)) return false;
    *out = (uint64_t)value;
    return true;
}

static qd_status read_dtype(const struct header *h, const cJSON *entry, struct qd_tensor *out)
{
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    if (!cJSON_IsString(dtype)) return refuse(h, out->name, "has no dtype");
    for (int i = 0; i < N_DTYPES; i++) {
        if (strcmp(DTYPES[i].name, dtype->valuestring) != 0) continue;
        out->dtype = (enum qd_dtype)i;
        return QD_OK;
    }
    return qd_fail(QD_ERR_UNSUPPORTED, h->err, h->errlen,
                   "%s: %s: dtype %.32s is not supported, only BF16, F16 and F32", h->path, out->name,
                   dtype->valuestring);
}

/* Shape, and the bytes it takes. */
static qd_status read_shape(const struct header *h, const cJSON *entry, struct qd_tensor *out)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    if (!cJSON_IsArray(shape)) return refuse(h, out->name, "has no shape");
    size_t n_bytes = qd_dtype_bytes(out->dtype);
    bool fits = true;
    for (const cJSON *dim = shape->child; dim != NULL; dim = dim->next) {
        uint64_t size;
        if (!exact_size(dim, &size)) return refuse(h, out->name, "shape holds something else than a size");
        if (out->n_dims == QD_SAFETENSORS_MAX_DIMS) return refuse(h, out->name, "more than 8 dimensions");
        out->dims[out->n_dims++] = (int64_t)size;
        fits = fits && qd_size_mul(n_bytes, (size_t)size, &n_bytes);
    }
    if (!fits) return refuse(h, out->name, "the product of its shape overflows");
    out->n_bytes = n_bytes;
    return QD_OK;
}

static qd_status read_offsets(const struct header *h, const cJSON *entry, struct qd_tensor *out)
{
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    uint64_t begin, end;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !exact_size(offsets->child, &begin) ||
        !exact_size(offsets->child->next, &end) || begin > end)
        return refuse(h, out->name, "data_offsets is not a pair of rising offsets");
    if (end > h->n_data_bytes)
        return qd_fail(QD_ERR_INPUT, h->err, h->errlen, "%s: %s: ends at byte %llu of %llu bytes of data",
                       h->path, out->name, (unsigned long long)end, (unsigned long long)h->n_data_bytes);
    if (end - begin != out->n_bytes)
        return qd_fail(QD_ERR_INPUT, h->err, h->errlen,
                       "%s: %s: data_offsets span %llu bytes, its shape takes %llu", h->path, out->name,
                       (unsigned long long)(end - begin), (unsigned long long)out->n_bytes);
    out->begin = h->data_begin + begin;
    return QD_OK;
}

static qd_status append(const struct header *h, struct qd_tensor_list *list, const char *name,
                        struct qd_tensor **out)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        struct qd_tensor *items = realloc(list->items, capacity * sizeof *items);
        if (items == NULL) return qd_fail(QD_ERR_NO_MEMORY, h->err, h->errlen, "%s: tensor list", h->path);
        list->items = items;
        list->capacity = capacity;
    }
    char *copy = strdup(name);
    if (copy == NULL) return qd_fail(QD_ERR_NO_MEMORY, h->err, h->errlen, "%s: tensor name", h->path);
    *out = &list->items[list->n++];
    **out = (struct qd_tensor){.name = copy, .file = h->file};
    return QD_OK;
}

bool qd_tensor_name_is_plain(const char *name)
{
    size_t n = 0;
    for (; name[n] != '\0'; n++) {
        unsigned char c = (unsigned char)name[n];
        if (c < 0x20 || c == 0x7f || c == 0xc0 || n >= QD_SAFETENSORS_MAX_NAME) return false;
    }
    return n > 0;
}

static qd_status read_tensor(const struct header *h, const cJSON *entry, struct qd_tensor_list *list)
{
    struct qd_tensor *tensor = NULL;
    if (!qd_tensor_name_is_plain(entry->string))
        return refuse(h, "a tensor", "its name is empty, longer than 512 bytes or holds control characters");
    QD_TRY(append(h, list, entry->string, &tensor));
    if (!cJSON_IsObject(entry)) return refuse(h, tensor->name, "not described by an object");
    QD_TRY(read_dtype(h, entry, tensor));
    QD_TRY(read_shape(h, entry, tensor));
    return read_offsets(h, entry, tensor);
}

static int by_begin(const void *a, const void *b)
{
    const struct qd_tensor *const *x = a, *const *y = b;
    return ((*x)->begin > (*y)->begin) - ((*x)->begin < (*y)->begin);
}

/* Tensors of this file: list->items from `first` on. */
static qd_status check_overlap(const struct header *h, const struct qd_tensor_list *list, size_t first)
{
    size_t n = 0;
    const struct qd_tensor **order = malloc((list->n - first + 1) * sizeof *order);
    if (order == NULL) return qd_fail(QD_ERR_NO_MEMORY, h->err, h->errlen, "%s: tensor order", h->path);
    for (size_t i = first; i < list->n; i++)
        if (list->items[i].n_bytes > 0) order[n++] = &list->items[i];
    qsort(order, n, sizeof *order, by_begin);
    qd_status status = QD_OK;
    for (size_t i = 1; i < n && status == QD_OK; i++)
        if (order[i]->begin < order[i - 1]->begin + order[i - 1]->n_bytes)
            status = qd_fail(QD_ERR_INPUT, h->err, h->errlen, "%s: %s: overlaps %s", h->path, order[i]->name,
                             order[i - 1]->name);
    free(order);
    return status;
}

static qd_status read_entries(const struct header *h, const cJSON *root, struct qd_tensor_list *list)
{
    size_t first = list->n;
    if (!cJSON_IsObject(root)) return refuse(h, "header", "not a JSON object");
    for (const cJSON *entry = root->child; entry != NULL; entry = entry->next) {
        if (strcmp(entry->string, "__metadata__") != 0)
            QD_TRY(read_tensor(h, entry, list));
        else if (!cJSON_IsObject(entry))
            return refuse(h, "__metadata__", "not an object");
    }
    return check_overlap(h, list, first);
}

qd_status qd_safetensors_parse_header(const char *header, size_t n_header_bytes, uint64_t n_file_bytes,
                                      const char *path, int file, struct qd_tensor_list *list, char *err,
                                      size_t errlen)
{
    const struct qd_json_limits limits = {.max_depth = HEADER_DEPTH};
    uint64_t data_begin = QD_SAFETENSORS_PREFIX + (uint64_t)n_header_bytes;
    struct header h = {path, file, data_begin, n_file_bytes - data_begin, err, errlen};
    char why[QD_ERR_LEN];
    cJSON *root = NULL;
    qd_status status = qd_json_parse(header, n_header_bytes, &limits, &root, why, sizeof why);
    if (status != QD_OK) return qd_fail(status, err, errlen, "%s: header: %s", path, why);
    status = read_entries(&h, root, list);
    cJSON_Delete(root);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct qd_tensor *)a)->name, ((const struct qd_tensor *)b)->name);
}

void qd_tensor_list_sort(struct qd_tensor_list *list)
{
    if (list->n > 0) qsort(list->items, list->n, sizeof *list->items, by_name);
}

const struct qd_tensor *qd_tensor_list_find(const struct qd_tensor_list *list, const char *name)
{
    /* bsearch compares by the name alone, so a key needs no other field. */
    struct qd_tensor key = {.name = (char *)(uintptr_t)name};
    return list->n > 0 ? bsearch(&key, list->items, list->n, sizeof *list->items, by_name) : NULL;
}

void qd_tensor_list_free(struct qd_tensor_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->items[i].name);
    free(list->items);
    *list = (struct qd_tensor_list){0};
}

#include "models/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/directory.h"
#include "models/json.h"
#include "models/tensors.h"

enum { MAX_FILES = 1000, MAX_INDEX_BYTES = 1 << 24 };
static const char INDEX_NAME[] = "model.safetensors.index.json";

qd_status qd_checkpoint_read(const struct qd_checkpoint_file *file, uint64_t offset, void *out, size_t n,
                             char *err, size_t errlen)
{
    unsigned char *to = out;
    while (n > 0) {
        ssize_t got = pread(file->fd, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return qd_fail(QD_ERR_IO, err, errlen, "%s: %s", file->path,
                           got < 0 ? strerror(errno) : "the file has become shorter");
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return QD_OK;
}

static qd_status open_regular(const char *path, struct qd_checkpoint_file *out, char *err, size_t errlen)
{
    struct stat info;
    /* Not blocking, so that a named pipe is refused instead of waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return qd_fail(errno == ENOENT ? QD_ERR_NOT_FOUND : QD_ERR_IO, err, errlen, "%s: %s", path,
                       strerror(errno));
    char *copy = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) ? strdup(path) : NULL;
    if (copy == NULL) {
        close(fd);
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: not a regular file", path);
    }
    *out = (struct qd_checkpoint_file){copy, fd, (uint64_t)info.st_size};
    return QD_OK;
}

static qd_status read_header(struct qd_checkpoint *checkpoint, int file, char *err, size_t errlen)
{
    const struct qd_checkpoint_file *f = &checkpoint->files[file];
    unsigned char prefix[QD_SAFETENSORS_PREFIX];
    size_t n;
    if (f->n_bytes < sizeof prefix)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %llu bytes are no safetensors file", f->path,
                       (unsigned long long)f->n_bytes);
    QD_TRY(qd_checkpoint_read(f, 0, prefix, sizeof prefix, err, errlen));
    QD_TRY(qd_safetensors_header_bytes(prefix, f->n_bytes, f->path, &n, err, errlen));
    char *header = malloc(n + 1);
    if (header == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: header of %zu bytes", f->path, n);
    qd_status status = qd_checkpoint_read(f, sizeof prefix, header, n, err, errlen);
    if (status == QD_OK)
        status = qd_safetensors_parse_header(header, n, f->n_bytes, f->path, file, &checkpoint->tensors, err,
                                             errlen);
    free(header);
    return status;
}

static qd_status add_file(struct qd_checkpoint *checkpoint, const char *dir, const char *name, char *err,
                          size_t errlen)
{
    char path[QD_PATH_LEN];
    QD_TRY(qd_model_path(dir, name, path, sizeof path, err, errlen));
    if (checkpoint->n_files == MAX_FILES)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: more than %d shards", dir, MAX_FILES);
    struct qd_checkpoint_file *files =
        realloc(checkpoint->files, (size_t)(checkpoint->n_files + 1) * sizeof *files);
    if (files == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: file list", dir);
    checkpoint->files = files;
    QD_TRY(open_regular(path, &files[checkpoint->n_files], err, errlen));
    checkpoint->n_files++;
    return read_header(checkpoint, checkpoint->n_files - 1, err, errlen);
}

/* One entry of the index. */
struct mapping {
    const char *tensor, *shard; /* owned by the JSON tree */
};

static int by_shard(const void *a, const void *b)
{
    return strcmp(((const struct mapping *)a)->shard, ((const struct mapping *)b)->shard);
}

static int by_tensor(const void *a, const void *b)
{
    return strcmp(((const struct mapping *)a)->tensor, ((const struct mapping *)b)->tensor);
}

static qd_status read_mappings(const cJSON *root, const char *index, struct mapping **out, size_t *n_out,
                               char *err, size_t errlen)
{
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    if (!cJSON_IsObject(map) || map->child == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: weight_map: missing, empty or not an object", index);
    size_t n = 0;
    struct mapping *mappings = malloc((size_t)cJSON_GetArraySize(map) * sizeof *mappings);
    if (mappings == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: weight_map", index);
    *out = mappings;
    for (const cJSON *entry = map->child; entry != NULL; entry = entry->next) {
        if (!qd_tensor_name_is_plain(entry->string))
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: weight_map: an unusable tensor name", index);
        if (!cJSON_IsString(entry) || !qd_tensor_name_is_plain(entry->valuestring))
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: weight_map: %.200s: not the name of a file", index,
                           entry->string);
        if (strchr(entry->valuestring, '/') != NULL || strstr(entry->valuestring, "..") != NULL)
            return qd_fail(QD_ERR_INPUT, err, errlen,
                           "%s: weight_map: %.200s: shard name \"%.200s\" leaves the folder", index,
                           entry->string, entry->valuestring);
        mappings[n++] = (struct mapping){entry->string, entry->valuestring};
    }
    *n_out = n;
    return QD_OK;
}

/* True when the path of `file` ends in the shard's name. */
static bool is_file(const struct qd_checkpoint *checkpoint, int file, const char *shard)
{
    const char *slash = strrchr(checkpoint->files[file].path, '/');
    return slash != NULL && strcmp(slash + 1, shard) == 0;
}

static bool is_inv_freq(const char *name)
{
    static const char suffix[] = "rotary_emb.inv_freq";
    size_t n = strlen(name), skip = sizeof suffix - 1;
    return n >= skip && strcmp(name + n - skip, suffix) == 0;
}

/* Two files that hold a tensor of the same name cannot both be right. */
static qd_status check_unique(const struct qd_checkpoint *checkpoint, char *err, size_t errlen)
{
    const struct qd_tensor_list *list = &checkpoint->tensors;
    for (size_t i = 1; i < list->n; i++) {
        const struct qd_tensor *a = &list->items[i - 1], *b = &list->items[i];
        if (strcmp(a->name, b->name) == 0)
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: also stored in %s",
                           checkpoint->files[b->file].path, b->name, checkpoint->files[a->file].path);
    }
    return QD_OK;
}

/* Index and shards must tell the same story. mappings: sorted by tensor. */
static qd_status check_index(const struct qd_checkpoint *checkpoint, const struct mapping *mappings, size_t n,
                             const char *index, char *err, size_t errlen)
{
    for (size_t i = 0; i < n; i++) {
        const struct qd_tensor *tensor = qd_tensor_list_find(&checkpoint->tensors, mappings[i].tensor);
        if (tensor == NULL || !is_file(checkpoint, tensor->file, mappings[i].shard))
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %.200s: is not in %.200s, where the index puts it",
                           index, mappings[i].tensor, mappings[i].shard);
    }
    for (size_t i = 0; i < checkpoint->tensors.n; i++) {
        const struct qd_tensor *tensor = &checkpoint->tensors.items[i];
        struct mapping key = {.tensor = tensor->name};
        if (bsearch(&key, mappings, n, sizeof key, by_tensor) == NULL && !is_inv_freq(tensor->name))
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: the index does not name it",
                           checkpoint->files[tensor->file].path, tensor->name);
    }
    return QD_OK;
}

/* Opens each shard once, then checks that index and shards agree. */
static qd_status open_shards(struct qd_checkpoint *checkpoint, const char *dir, const char *index,
                             struct mapping *mappings, size_t n, char *err, size_t errlen)
{
    char why[QD_ERR_LEN];
    qsort(mappings, n, sizeof *mappings, by_shard);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && strcmp(mappings[i].shard, mappings[i - 1].shard) == 0) continue;
        qd_status status = add_file(checkpoint, dir, mappings[i].shard, why, sizeof why);
        if (status == QD_ERR_NOT_FOUND)
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %.200s: is in %.200s, which is not there", index,
                           mappings[i].tensor, mappings[i].shard);
        if (status != QD_OK) return qd_fail(status, err, errlen, "%s", why);
    }
    qd_tensor_list_sort(&checkpoint->tensors);
    QD_TRY(check_unique(checkpoint, err, errlen));
    qsort(mappings, n, sizeof *mappings, by_tensor);
    return check_index(checkpoint, mappings, n, index, err, errlen);
}

static qd_status open_indexed(struct qd_checkpoint *checkpoint, const char *dir, const char *index, char *err,
                              size_t errlen)
{
    cJSON *root = NULL;
    struct mapping *mappings = NULL;
    size_t n = 0;
    qd_status status;
    checkpoint->index_path = strdup(index);
    if (checkpoint->index_path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s", index);
    QD_TRY(qd_json_read_file(index, MAX_INDEX_BYTES, &root, err, errlen));
    QD_TRY_GOTO(read_mappings(root, index, &mappings, &n, err, errlen), status, cleanup);
    QD_TRY_GOTO(open_shards(checkpoint, dir, index, mappings, n, err, errlen), status, cleanup);
cleanup:
    free(mappings);
    cJSON_Delete(root);
    return status;
}

static qd_status open_folder(struct qd_checkpoint *checkpoint, const char *dir, char *err, size_t errlen)
{
    char folder[QD_PATH_LEN], index[QD_PATH_LEN];
    QD_TRY(qd_model_dir_resolve(dir, folder, sizeof folder, err, errlen));
    QD_TRY(qd_model_path(folder, INDEX_NAME, index, sizeof index, err, errlen));
    struct stat info;
    /* lstat: an index whose link dangles is an error, not an absent index. */
    if (lstat(index, &info) == 0) return open_indexed(checkpoint, folder, index, err, errlen);
    qd_status status = add_file(checkpoint, folder, "model.safetensors", err, errlen);
    if (status == QD_ERR_NOT_FOUND)
        return qd_fail(status, err, errlen, "%s: neither %s nor model.safetensors is there", folder,
                       INDEX_NAME);
    qd_tensor_list_sort(&checkpoint->tensors);
    return status;
}

qd_status qd_checkpoint_open(const char *dir, struct qd_checkpoint *out, char *err, size_t errlen)
{
    *out = (struct qd_checkpoint){0};
    qd_status status = open_folder(out, dir, err, errlen);
    if (status != QD_OK) qd_checkpoint_close(out);
    return status;
}

void qd_checkpoint_close(struct qd_checkpoint *checkpoint)
{
    for (int i = 0; i < checkpoint->n_files; i++) {
        close(checkpoint->files[i].fd);
        free(checkpoint->files[i].path);
    }
    free(checkpoint->files);
    free(checkpoint->index_path);
    qd_tensor_list_free(&checkpoint->tensors);
    *checkpoint = (struct qd_checkpoint){0};
}

static bool has_shape(const struct qd_tensor *tensor, const struct qd_tensor_spec *spec)
{
    if (qd_tensor_is_norm(spec->role)) return tensor->n_dims == 1 && tensor->dims[0] == spec->cols;
    return tensor->n_dims == 2 && tensor->dims[0] == spec->rows && tensor->dims[1] == spec->cols;
}

static qd_status wrong_shape(const struct qd_checkpoint *checkpoint, const struct qd_tensor *tensor,
                             const struct qd_tensor_spec *spec, char *err, size_t errlen)
{
    char stored[256] = "", wanted[64];
    size_t used = 0;
    for (int i = 0; i < tensor->n_dims; i++)
        used += (size_t)snprintf(stored + used, sizeof stored - used, "%s%lld", i > 0 ? ", " : "",
                                 (long long)tensor->dims[i]);
    if (qd_tensor_is_norm(spec->role))
        snprintf(wanted, sizeof wanted, "%lld", (long long)spec->cols);
    else
        snprintf(wanted, sizeof wanted, "%lld, %lld", (long long)spec->rows, (long long)spec->cols);
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: shape [%s], config.json asks for [%s]",
                   checkpoint->files[tensor->file].path, tensor->name, stored, wanted);
}

static qd_status missing(const struct qd_checkpoint *checkpoint, const char *name, char *err, size_t errlen)
{
    static const char prefix[] = "model.";
    const char *path = checkpoint->index_path != NULL ? checkpoint->index_path : checkpoint->files[0].path;
    size_t skip = sizeof prefix - 1;
    if (strncmp(name, prefix, skip) == 0 && qd_tensor_list_find(&checkpoint->tensors, name + skip) != NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "%s: %s: missing; it is stored as %s: the names of this checkpoint lack the prefix "
                       "\"model.\"",
                       path, name, name + skip);
    if (strcmp(name, "lm_head.weight") == 0)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "%s: lm_head.weight: missing, and config.json's tie_word_embeddings is not true",
                       path);
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: missing from the checkpoint", path, name);
}

static qd_status check_unexpected(const struct qd_checkpoint *checkpoint,
                                  const struct qd_model_config *config, const bool *used, char *err,
                                  size_t errlen)
{
    for (size_t i = 0; i < checkpoint->tensors.n; i++) {
        const struct qd_tensor *tensor = &checkpoint->tensors.items[i];
        bool stored_head = config->tie_word_embeddings && strcmp(tensor->name, "lm_head.weight") == 0;
        if (used[i] || stored_head || is_inv_freq(tensor->name)) continue;
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: unexpected in a Qwen3 of %d layers",
                       checkpoint->files[tensor->file].path, tensor->name, config->n_layers);
    }
    return QD_OK;
}

qd_status qd_checkpoint_match(const struct qd_checkpoint *checkpoint, const struct qd_model_config *config,
                              const struct qd_tensor **found, char *err, size_t errlen)
{
    bool *used = calloc(checkpoint->tensors.n + 1, sizeof *used);
    if (used == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "tensor marks");
    qd_status status = QD_OK;
    for (int i = 0; i < qd_model_n_tensors(config) && status == QD_OK; i++) {
        char name[QD_TENSOR_NAME_LEN];
        struct qd_tensor_spec spec = qd_model_tensor(config, i);
        qd_tensor_name(&spec, name);
        found[i] = qd_tensor_list_find(&checkpoint->tensors, name);
        if (found[i] == NULL) {
            status = missing(checkpoint, name, err, errlen);
        } else {
            used[found[i] - checkpoint->tensors.items] = true;
            if (!has_shape(found[i], &spec)) status = wrong_shape(checkpoint, found[i], &spec, err, errlen);
        }
    }
    if (status == QD_OK) status = check_unexpected(checkpoint, config, used, err, errlen);
    free(used);
    return status;
}

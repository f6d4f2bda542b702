#include "tests/support/files.h"

#include <ftw.h>
#include <sys/stat.h>

#include "tests/support/test.h"

struct temp_dir temp_dir_create(void)
{
    struct temp_dir dir;
    const char *parent = getenv("TMPDIR");
    snprintf(dir.path, sizeof dir.path, "%s/qdyno-test-XXXXXX", parent != NULL ? parent : "/tmp");
    assert_non_null(mkdtemp(dir.path));
    return dir;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

void temp_dir_remove(struct temp_dir *dir)
{
    nftw(dir->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *in_dir(const struct temp_dir *dir, const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir->path, name);
    return path;
}

void write_file(const char *path, const void *data, size_t n_bytes)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL) fail_msg("cannot write %s", path);
    assert_int_equal(fwrite(data, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("cannot read %s", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    assert_true(size >= 0);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    text[size] = '\0';
    fclose(file);
    return text;
}

void tensor_file_add(struct tensor_file *file, const char *name, const char *dtype, int n_dims,
                     const int64_t *dims, const void *data, size_t n_bytes)
{
    file->header = realloc(file->header, file->n_header + strlen(name) + 512);
    file->data = realloc(file->data, file->n_data + n_bytes + 1);
    assert_non_null(file->header);
    assert_non_null(file->data);
    char *to = file->header + file->n_header;
    to += sprintf(to, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", file->n_header > 0 ? "," : "{", name, dtype);
    for (int i = 0; i < n_dims; i++)
        to += sprintf(to, "%s%lld", i > 0 ? "," : "", (long long)dims[i]);
    to += sprintf(to, "],\"data_offsets\":[%zu,%zu]}", file->n_data, file->n_data + n_bytes);
    file->n_header = (size_t)(to - file->header);
    memcpy(file->data + file->n_data, data, n_bytes);
    file->n_data += n_bytes;
}

void tensor_file_write(struct tensor_file *file, const char *path)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    uint64_t n = file->n_header > 0 ? file->n_header + 1 : 2;
    assert_int_equal(fwrite(&n, 1, sizeof n, out), sizeof n);
    fprintf(out, "%.*s}", (int)(file->n_header > 0 ? file->n_header : 1),
            file->n_header > 0 ? file->header : "{");
    assert_int_equal(fwrite(file->n_data > 0 ? (const void *)file->data : "", 1, file->n_data, out),
                     file->n_data);
    assert_int_equal(fclose(out), 0);
    free(file->header);
    free(file->data);
    *file = (struct tensor_file){0};
}

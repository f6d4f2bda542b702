/* Files for tests: a folder that goes away, small files in it, safetensors with any header. */
#ifndef QD_TESTS_SUPPORT_FILES_H
#define QD_TESTS_SUPPORT_FILES_H

#include <stddef.h>
#include <stdint.h>

/* A new folder under $TMPDIR or /tmp. */
struct temp_dir {
    char path[256];
};
struct temp_dir temp_dir_create(void);
void temp_dir_remove(struct temp_dir *dir);

/* dir/name, in one of a few static buffers. */
const char *in_dir(const struct temp_dir *dir, const char *name);

/* Creates or overwrites; fails the test when it cannot. */
void write_file(const char *path, const void *data, size_t n_bytes);
void write_text(const char *path, const char *text);

/* The whole file with a byte 0 behind it; fails the test when it cannot. The caller frees it. */
char *read_text(const char *path);

/* A safetensors file that is put together tensor by tensor; the header is what was added, right or wrong. */
struct tensor_file {
    char *header;
    unsigned char *data;
    size_t n_header, n_data;
};
void tensor_file_add(struct tensor_file *file, const char *name, const char *dtype, int n_dims,
                     const int64_t *dims, const void *data, size_t n_bytes);
/* Writes the file and empties the struct. */
void tensor_file_write(struct tensor_file *file, const char *path);

#endif

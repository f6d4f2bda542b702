/* Atomic writes: a result file is either there and whole, or not there.
 *
 * The text goes into a temporary file beside its destination, is synced, and takes the destination's name by
 * rename; then the folder is synced. A killed process leaves at most a file named `.NAME.PID.tmp`.
 */
#ifndef QD_HARNESS_RESULT_FILES_H
#define QD_HARNESS_RESULT_FILES_H

#include <stdio.h>

#include <cjson/cJSON.h>

#include "kernels/base/status.h"

/* A file being written: print into `stream`, then commit or discard. */
struct qd_atomic_file {
    FILE *stream;
    char *path, *temporary; /* owned */
};

/* QD_ERR_IO (err names the path), also when something other than a regular file has that name: a rename would
 * take its place. QD_ERR_NO_MEMORY. */
qd_status qd_atomic_file_open(struct qd_atomic_file *file, const char *path, char *err, size_t errlen);

/* Syncs and renames; an earlier file of that name is replaced. On failure the destination is untouched and
 * the temporary file is gone. The file is closed either way. */
qd_status qd_atomic_file_commit(struct qd_atomic_file *file, char *err, size_t errlen);

/* Closes and removes the temporary file. Harmless after commit. */
void qd_atomic_file_discard(struct qd_atomic_file *file);

/* Whether a file could be written there now; leaves nothing behind. Errors of qd_atomic_file_open. */
qd_status qd_file_check_writable(const char *path, char *err, size_t errlen);

/* Writes data[0..len) to `path` at once. */
qd_status qd_file_write_atomic(const char *path, const void *data, size_t len, char *err, size_t errlen);

/* Writes an indented JSON value and a line end. */
qd_status qd_file_write_json(const char *path, const cJSON *value, char *err, size_t errlen);

/* Creates `path` and the folders above it, as `mkdir -p`. */
qd_status qd_folder_create(const char *path, char *err, size_t errlen);

/* "folder/name", freed by the caller; NULL when out of memory. */
char *qd_path_join(const char *folder, const char *name);

#endif

/* Where a model's files are: a plain folder, a Hugging Face snapshot (links into `blobs`), or the cache
 * folder `models--ORG--NAME`, whose refs/main names the snapshot.
 */
#ifndef QD_MODELS_DIRECTORY_H
#define QD_MODELS_DIRECTORY_H

#include <stddef.h>

#include "kernels/base/status.h"

enum { QD_PATH_LEN = 4096 };

/* The folder that holds the model's files, for any of the three shapes of `dir`; resolved[len] may not
 * alias dir. QD_ERR_NOT_FOUND when dir is no folder, QD_ERR_INPUT when refs/main is missing or names no
 * snapshot. */
qd_status qd_model_dir_resolve(const char *dir, char *resolved, size_t len, char *err, size_t errlen);

/* dir/file into path[len]; QD_ERR_TOO_LARGE when it does not fit. */
qd_status qd_model_path(const char *dir, const char *file, char *path, size_t len, char *err, size_t errlen);

/* A name for reports: ORG/NAME inside a cache folder, else the last component of the path. */
void qd_model_dir_name(const char *dir, char *name, size_t len);

#endif

#include "harness/result/files.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *qd_path_join(const char *folder, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

/* ".NAME.PID.tmp" in the folder of `path`: rename is atomic only within one file system. */
static char *temporary_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    int folder_len = slash != NULL ? (int)(slash - path) + 1 : 0;
    char *name = NULL;
    int n = asprintf(&name, "%.*s.%s.%ld.tmp", folder_len, path, path + folder_len, (long)getpid());
    return n < 0 ? NULL : name;
}

static void release(struct qd_atomic_file *file)
{
    free(file->path);
    free(file->temporary);
    *file = (struct qd_atomic_file){0};
}

qd_status qd_atomic_file_open(struct qd_atomic_file *file, const char *path, char *err, size_t errlen)
{
    struct stat info;
    *file = (struct qd_atomic_file){0};
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return qd_fail(QD_ERR_IO, err, errlen, "%s: is not a regular file", path);
    *file = (struct qd_atomic_file){.path = strdup(path), .temporary = temporary_name(path)};
    if (file->path == NULL || file->temporary == NULL) {
        release(file);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    }
    /* A leftover of a killed process with the same id is ours to replace. */
    unlink(file->temporary);
    int fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    file->stream = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file->stream != NULL) return QD_OK;
    int reason = errno;
    if (fd >= 0) {
        close(fd);
        unlink(file->temporary);
    }
    release(file);
    return qd_fail(QD_ERR_IO, err, errlen, "%s: cannot be written: %s", path, strerror(reason));
}

/* Makes the rename itself durable. File systems without folder sync answer EINVAL; the file is then as safe
 * as it can be made there. */
static int sync_folder_of(char *path)
{
    int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = fsync(fd);
    if (result != 0 && errno == EINVAL) result = 0;
    close(fd);
    return result;
}

qd_status qd_atomic_file_commit(struct qd_atomic_file *file, char *err, size_t errlen)
{
    bool ok = fflush(file->stream) == 0 && !ferror(file->stream) && fsync(fileno(file->stream)) == 0;
    int reason = errno;
    if (fclose(file->stream) != 0 && ok) {
        ok = false;
        reason = errno;
    }
    file->stream = NULL;
    if (ok && rename(file->temporary, file->path) != 0) {
        ok = false;
        reason = errno;
    }
    qd_status st = QD_OK;
    if (!ok) {
        st = qd_fail(QD_ERR_IO, err, errlen, "%s: cannot be written: %s", file->path, strerror(reason));
        unlink(file->temporary);
    } else if (sync_folder_of(file->temporary) != 0) {
        st = qd_fail(QD_ERR_IO, err, errlen, "%s: folder cannot be synced: %s", file->path, strerror(errno));
    }
    release(file);
    return st;
}

void qd_atomic_file_discard(struct qd_atomic_file *file)
{
    if (file->stream == NULL) return;
    fclose(file->stream);
    unlink(file->temporary);
    release(file);
}

qd_status qd_file_check_writable(const char *path, char *err, size_t errlen)
{
    struct qd_atomic_file file;
    QD_TRY(qd_atomic_file_open(&file, path, err, errlen));
    qd_atomic_file_discard(&file);
    return QD_OK;
}

qd_status qd_file_write_atomic(const char *path, const void *data, size_t len, char *err, size_t errlen)
{
    struct qd_atomic_file file;
    QD_TRY(qd_atomic_file_open(&file, path, err, errlen));
    /* A short write leaves the stream's error flag set, which commit reports. */
    fwrite(data, 1, len, file.stream);
    return qd_atomic_file_commit(&file, err, errlen);
}

qd_status qd_file_write_json(const char *path, const cJSON *value, char *err, size_t errlen)
{
    char *text = cJSON_Print(value);
    if (text == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    struct qd_atomic_file file;
    qd_status st = qd_atomic_file_open(&file, path, err, errlen);
    if (st == QD_OK) {
        fprintf(file.stream, "%s\n", text);
        st = qd_atomic_file_commit(&file, err, errlen);
    }
    cJSON_free(text);
    return st;
}

qd_status qd_folder_create(const char *path, char *err, size_t errlen)
{
    char *partial = strdup(path);
    if (partial == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    qd_status st = QD_OK;
    for (char *p = partial; st == QD_OK && *p != '\0';) {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        char separator = *p;
        *p = '\0';
        struct stat info;
        bool there = stat(partial, &info) == 0;
        if (there && !S_ISDIR(info.st_mode))
            st = qd_fail(QD_ERR_IO, err, errlen, "%s: is not a folder", partial);
        else if (!there && mkdir(partial, 0777) != 0 && errno != EEXIST)
            st = qd_fail(QD_ERR_IO, err, errlen, "%s: cannot be created: %s", partial, strerror(errno));
        *p = separator;
    }
    free(partial);
    return st;
}

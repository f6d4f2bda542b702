#include "models/directory.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/json.h"

enum { MAX_REF_BYTES = 256 };

qd_status qd_model_path(const char *dir, const char *file, char *path, size_t len, char *err, size_t errlen)
{
    int written = snprintf(path, len, "%s/%s", dir, file);
    if (written < 0 || (size_t)written >= len)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%.200s...: path longer than %zu bytes", dir, len - 1);
    return QD_OK;
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* refs/main holds the snapshot's name and perhaps a line end. */
static qd_status read_revision(const char *ref_path, char *revision, char *err, size_t errlen)
{
    char *text = NULL;
    size_t len;
    QD_TRY(qd_file_read(ref_path, MAX_REF_BYTES, &text, &len, err, errlen));
    size_t n = strcspn(text, " \t\r\n");
    bool plain = n > 0 && n == strlen(text) - strspn(text + n, " \t\r\n") && strlen(text) == len &&
                 memchr(text, '/', n) == NULL && text[0] != '.';
    if (plain) {
        memcpy(revision, text, n);
        revision[n] = '\0';
    }
    free(text);
    if (!plain) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: not the name of a snapshot", ref_path);
    return QD_OK;
}

qd_status qd_model_dir_resolve(const char *dir, char *resolved, size_t len, char *err, size_t errlen)
{
    char config[QD_PATH_LEN], ref_path[QD_PATH_LEN], revision[MAX_REF_BYTES + 1];
    if (!is_folder(dir)) return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "%s: no such folder", dir);
    QD_TRY(qd_model_path(dir, "config.json", config, sizeof config, err, errlen));
    QD_TRY(qd_model_path(dir, "refs/main", ref_path, sizeof ref_path, err, errlen));
    char snapshots[QD_PATH_LEN];
    QD_TRY(qd_model_path(dir, "snapshots", snapshots, sizeof snapshots, err, errlen));
    bool is_cache_folder = access(config, F_OK) != 0 && (is_folder(snapshots) || access(ref_path, F_OK) == 0);
    if (!is_cache_folder) {
        int written = snprintf(resolved, len, "%s", dir);
        if (written < 0 || (size_t)written >= len)
            return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%.200s...: path too long", dir);
        return QD_OK;
    }
    qd_status st = read_revision(ref_path, revision, err, errlen);
    if (st == QD_ERR_NOT_FOUND)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: has snapshots but no refs/main; name a snapshot", dir);
    if (st != QD_OK) return st;
    QD_TRY(qd_model_path(snapshots, revision, resolved, len, err, errlen));
    if (!is_folder(resolved))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: names snapshot %s, which is not there", ref_path,
                       revision);
    return QD_OK;
}

/* "models--ORG--NAME" to "ORG/NAME"; component is not terminated. */
static bool name_of_cache_folder(const char *component, size_t n, char *name, size_t len)
{
    static const char prefix[] = "models--";
    size_t skip = sizeof prefix - 1;
    if (n <= skip || strncmp(component, prefix, skip) != 0) return false;
    const char *rest = component + skip;
    size_t rest_len = n - skip;
    const char *dashes = memmem(rest, rest_len, "--", 2);
    if (dashes == NULL)
        snprintf(name, len, "%.*s", (int)rest_len, rest);
    else
        snprintf(name, len, "%.*s/%.*s", (int)(dashes - rest), rest, (int)(rest + rest_len - dashes - 2),
                 dashes + 2);
    return true;
}

void qd_model_dir_name(const char *dir, char *name, size_t len)
{
    char absolute[PATH_MAX];
    if (realpath(dir, absolute) == NULL) snprintf(absolute, sizeof absolute, "%s", dir);
    const char *last = "";
    size_t last_len = 0;
    for (const char *p = absolute; *p != '\0';) {
        p += strspn(p, "/");
        size_t n = strcspn(p, "/");
        if (n == 0) break;
        if (name_of_cache_folder(p, n, name, len)) return;
        last = p;
        last_len = n;
        p += n;
    }
    snprintf(name, len, "%.*s", (int)last_len, last);
}

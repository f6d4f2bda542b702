#include "kernels/library.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of cuBLASLt the older generation comes first: it also works with newer drivers, the newer one does not work
 * with older ones. */
const struct qd_library qd_libraries[QD_N_LIBRARIES] = {
    [QD_LIBRARY_CUDA] = {"the CUDA driver", {"libcuda.so.1"}, "there is no device cuda"},
    [QD_LIBRARY_NVML] = {"NVML",
                         {"libnvidia-ml.so.1"},
                         "clocks, power, throttling and other users of a GPU are not recorded"},
    [QD_LIBRARY_NCCL] =
        {"NCCL",
         {"libnccl.so.2"},
         "there is no --collectives nccl, and ranks whose GPUs cannot read each other's memory are "
         "refused"},
    [QD_LIBRARY_CUBLASLT] = {"cuBLASLt",
                             {"libcublasLt.so.12", "libcublasLt.so.13"},
                             "matrix products are not compared with cuBLASLt"},
};

/* A search in progress. */
struct search {
    const struct qd_library *library;
    void *handle;
    char reason[QD_ERR_LEN]; /* why the first file that was there could not be loaded; "" */
};

/* True when the library is open. `soname` without a slash: wherever the loader looks. */
static bool try_open(struct search *s, const char *soname)
{
    s->handle = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
    if (s->handle != NULL) return true;
    const char *why = dlerror();
    /* A file that is missing is no reason; one that lacks another library, or is not for this machine, is. */
    bool missing = strchr(soname, '/') == NULL && strncmp(why, soname, strlen(soname)) == 0 &&
                   strstr(why, "No such file") != NULL;
    if (!missing && s->reason[0] == '\0') snprintf(s->reason, sizeof s->reason, "%s", why);
    return false;
}

/* Tries the sonames in every folder that the pattern made by `format` matches. */
__attribute__((format(printf, 2, 3))) static bool try_folders(struct search *s, const char *format, ...)
{
    char folder[PATH_MAX], pattern[PATH_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(folder, sizeof folder, format, args);
    va_end(args);
    if (n < 0 || n >= (int)sizeof folder) return false;
    for (int i = 0; i < QD_LIBRARY_MAX_SONAMES && s->library->sonames[i] != NULL; i++) {
        glob_t found;
        if (snprintf(pattern, sizeof pattern, "%s/%s", folder, s->library->sonames[i]) >= (int)sizeof pattern)
            continue;
        bool opened = false;
        if (glob(pattern, 0, NULL, &found) == 0)
            for (size_t f = 0; f < found.gl_pathc && !opened; f++) opened = try_open(s, found.gl_pathv[f]);
        globfree(&found);
        if (opened) return true;
    }
    return false;
}

static bool try_loader(struct search *s)
{
    for (int i = 0; i < QD_LIBRARY_MAX_SONAMES && s->library->sonames[i] != NULL; i++)
        if (try_open(s, s->library->sonames[i])) return true;
    return false;
}

static bool try_toolkit(struct search *s, const char *home)
{
    if (home == NULL || home[0] == '\0') return false;
    return try_folders(s, "%s/lib64", home) || try_folders(s, "%s/lib", home);
}

/* Of the Pythons installed under `prefix`, in the packages that NVIDIA publishes. */
static bool try_python(struct search *s, const char *prefix, const char *below)
{
    if (prefix == NULL || prefix[0] == '\0') return false;
    return try_folders(s, "%s%s/lib*/python3*/*-packages/nvidia/*/lib", prefix, below);
}

/* The prefix of DIR/python3 is DIR/.. for every DIR in PATH that has one. */
static bool try_pythons_in_path(struct search *s)
{
    const char *at = getenv("PATH");
    while (at != NULL && *at != '\0') {
        size_t n = strcspn(at, ":");
        char folder[PATH_MAX], python[PATH_MAX];
        if (n > 0 && snprintf(folder, sizeof folder, "%.*s", (int)n, at) < (int)sizeof folder &&
            snprintf(python, sizeof python, "%s/python3", folder) < (int)sizeof python &&
            access(python, X_OK) == 0 && try_python(s, folder, "/.."))
            return true;
        at += n + (at[n] == ':');
    }
    return false;
}

static bool find(struct search *s)
{
    return try_loader(s) || try_toolkit(s, getenv("CUDA_HOME")) || try_toolkit(s, "/usr/local/cuda") ||
           try_python(s, getenv("VIRTUAL_ENV"), "") || try_python(s, getenv("CONDA_PREFIX"), "") ||
           try_pythons_in_path(s) || try_python(s, getenv("HOME"), "/.local") ||
           try_python(s, "/usr/local", "") || try_python(s, "/usr", "");
}

/* The file itself: what a library is called is often a link. */
static void path_of(void *handle, char path[PATH_MAX])
{
    struct link_map *map = NULL;
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || realpath(map->l_name, path) == NULL)
        snprintf(path, PATH_MAX, "?");
}

static qd_status fail_missing(const struct qd_library *library, char *err, size_t errlen)
{
    char sonames[QD_ERR_LEN / 4] = "";
    for (int i = 0; i < QD_LIBRARY_MAX_SONAMES && library->sonames[i] != NULL; i++) {
        size_t n = strlen(sonames);
        snprintf(sonames + n, sizeof sonames - n, "%s%s", i > 0 ? " nor " : "", library->sonames[i]);
    }
    return qd_fail(
        QD_ERR_NOT_FOUND, err, errlen,
        "%s is not here: no %s where the loader looks, in CUDA_HOME, /usr/local/cuda or Python's nvidia "
        "packages",
        library->name, sonames);
}

qd_status qd_library_open(const struct qd_library *library, const struct qd_library_symbol *symbols,
                          size_t n_symbols, void *functions, char *path, size_t path_len, char *err,
                          size_t errlen)
{
    struct search s = {.library = library};
    if (!find(&s) && s.reason[0] != '\0')
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s cannot be loaded: %s", library->name, s.reason);
    if (s.handle == NULL) return fail_missing(library, err, errlen);
    char file[PATH_MAX];
    path_of(s.handle, file);
    if (path != NULL) snprintf(path, path_len, "%s", file);
    for (size_t i = 0; i < n_symbols; i++) {
        void *symbol = dlsym(s.handle, symbols[i].name);
        if (symbol == NULL)
            return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s: no function %s", file, symbols[i].name);
        memcpy((unsigned char *)functions + symbols[i].offset, &symbol, sizeof symbol);
    }
    return QD_OK;
}

#include "harness/engine/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

const char *qd_memory_source_name(enum qd_memory_source source)
{
    switch (source) {
    case QD_MEMORY_SYSTEM: return "available memory";
    case QD_MEMORY_CGROUP: return "cgroup limit";
    case QD_MEMORY_OPTION: return "--memory-limit";
    case QD_MEMORY_DEVICE: return "device memory";
    }
    return "?";
}

/* The number behind `key` in a file of "key value" lines; key "" is the whole file. False when there is none
 * ("max" of cgroup v2 is no number, and no limit). */
static bool read_number(const char *path, const char *key, size_t *out)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) return false;
    char line[256];
    bool found = false;
    size_t key_len = strlen(key);
    while (!found && fgets(line, sizeof line, file) != NULL)
        found = strncmp(line, key, key_len) == 0 && sscanf(line + key_len, " %zu", out) == 1;
    fclose(file);
    return found;
}

static void lower(struct qd_memory_limit *limit, size_t bytes, enum qd_memory_source source)
{
    if (bytes < limit->bytes) *limit = (struct qd_memory_limit){bytes, source};
}

/* The names of one cgroup version's files. */
struct cgroup_files {
    const char *folder, *limit, *usage, *cache_key;
};

static const struct cgroup_files cgroup_v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                              "inactive_file"};
static const struct cgroup_files cgroup_v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                              "memory.usage_in_bytes", "total_inactive_file"};

/* Every level from the process's own group up to the root may set a limit. */
static void apply_cgroup(const char *root, const struct cgroup_files *files, const char *group,
                         struct qd_memory_limit *limit)
{
    char level[1024], path[2048];
    snprintf(level, sizeof level, "%s", group);
    for (;;) {
        size_t max, used, cache = 0;
        snprintf(path, sizeof path, "%s%s%s/%s", root, files->folder, level, files->limit);
        if (read_number(path, "", &max)) {
            snprintf(path, sizeof path, "%s%s%s/%s", root, files->folder, level, files->usage);
            if (!read_number(path, "", &used)) used = 0;
            snprintf(path, sizeof path, "%s%s%s/memory.stat", root, files->folder, level);
            read_number(path, files->cache_key, &cache);
            used = used > cache ? used - cache : 0;
            lower(limit, max > used ? max - used : 0, QD_MEMORY_CGROUP);
        }
        char *slash = strrchr(level, '/');
        if (slash == NULL) return;
        *slash = '\0';
    }
}

static void apply_cgroups(const char *root, struct qd_memory_limit *limit)
{
    char path[512], line[1024];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "r");
    if (file == NULL) return;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) continue;
        *group++ = '\0';
        if (controllers[1] == '\0')
            apply_cgroup(root, &cgroup_v2, group, limit);
        else if (strstr(controllers, "memory") != NULL)
            apply_cgroup(root, &cgroup_v1, group, limit);
    }
    fclose(file);
}

struct qd_memory_limit qd_memory_available_under(const char *root, size_t option_bytes)
{
    struct qd_memory_limit limit = {SIZE_MAX, QD_MEMORY_SYSTEM};
    char path[512];
    size_t kib;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (read_number(path, "MemAvailable:", &kib)) lower(&limit, kib * 1024, QD_MEMORY_SYSTEM);
    apply_cgroups(root, &limit);
    if (option_bytes > 0) lower(&limit, option_bytes, QD_MEMORY_OPTION);
    return limit;
}

struct qd_memory_limit qd_memory_available(size_t option_bytes)
{
    return qd_memory_available_under("", option_bytes);
}

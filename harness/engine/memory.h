/* How much memory this process may still use. */
#ifndef QD_HARNESS_ENGINE_MEMORY_H
#define QD_HARNESS_ENGINE_MEMORY_H

#include <stddef.h>

/* Where a limit came from, for the arithmetic that is printed. */
enum qd_memory_source {
    QD_MEMORY_SYSTEM = 0, /* MemAvailable of /proc/meminfo */
    QD_MEMORY_CGROUP,     /* the control group's limit minus its use (file cache does not count as use) */
    QD_MEMORY_OPTION,     /* --memory-limit */
    QD_MEMORY_DEVICE,     /* all of a device's own memory */
};

struct qd_memory_limit {
    size_t bytes;
    enum qd_memory_source source;
};

/* "available memory", "cgroup limit", "--memory-limit", "device memory". */
const char *qd_memory_source_name(enum qd_memory_source source);

/* The least of available memory, the control group's rest (version 2 or 1, every level up) and `option_bytes`
 * (0: not given). A file that cannot be read sets no limit. */
struct qd_memory_limit qd_memory_available(size_t option_bytes);

/* The same of a machine whose /proc and /sys lie under `root` ("" is this one). */
struct qd_memory_limit qd_memory_available_under(const char *root, size_t option_bytes);

#endif

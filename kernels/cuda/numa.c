#include "kernels/cuda/numa.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

/* The first line of a device's file in sysfs. */
static bool read_line(const char *root, const char *pci_id, const char *file, char *line, int len)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/sys/bus/pci/devices/%s/%s", root, pci_id, file) >= (int)sizeof path)
        return false;
    FILE *in = fopen(path, "r");
    if (in == NULL) return false;
    bool ok = fgets(line, len, in) != NULL;
    fclose(in);
    return ok;
}

/* A list like "0-3,8,10-11"; false when it is none. */
static bool parse_cpus(const char *text, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (;;) {
        char *end;
        long first = strtol(text, &end, 10), last = first;
        if (end == text) return false;
        if (*end == '-') {
            text = end + 1;
            last = strtol(text, &end, 10);
            if (end == text) return false;
        }
        if (first < 0 || last < first || last >= CPU_SETSIZE) return false;
        for (long cpu = first; cpu <= last; cpu++) CPU_SET((size_t)cpu, out);
        if (*end != ',') return *end == '\n' || *end == '\0';
        text = end + 1;
    }
}

bool qd_cuda_numa_bind(const char *root, const char *pci_id)
{
    enum { LINE_BYTES = 4096 };
    char line[LINE_BYTES];
    cpu_set_t near, allowed, both;
    if (!read_line(root, pci_id, "numa_node", line, sizeof line) || atoi(line) < 0) return false;
    if (!read_line(root, pci_id, "local_cpulist", line, sizeof line) || !parse_cpus(line, &near))
        return false;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;
    CPU_AND(&both, &near, &allowed);
    return CPU_COUNT(&both) > 0 && sched_setaffinity(0, sizeof both, &both) == 0;
}

#include "harness/result/machine.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "harness/result/marks.h"

static const double SHARED_LIMIT = 0.05, STEAL_LIMIT = 0.02;
static const int64_t SHORTEST_INTERVAL_NS = 1000000000;

/* The value of the first "key : value" line of /proc/cpuinfo. */
static void read_cpuinfo(const char *key, char *out, size_t out_len)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[512];
    snprintf(out, out_len, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || colon == NULL) continue;
        colon += strspn(colon, ": \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(out, out_len, "%s", colon);
        break;
    }
    if (file != NULL) fclose(file);
}

static void read_isa(char *out, size_t out_len)
{
    out[0] = '\0';
#if defined(__x86_64__)
    size_t used = 0;
#define QD_ISA(name)                                                                                         \
    if (__builtin_cpu_supports(name) && used < out_len)                                                      \
        used += (size_t)snprintf(out + used, out_len - used, "%s%s", used > 0 ? " " : "", name);
    QD_ISA("avx2")
    QD_ISA("fma")
    QD_ISA("avx512f")
    QD_ISA("avx512bf16")
    QD_ISA("avx512vnni")
#undef QD_ISA
#endif
    if (out[0] == '\0') snprintf(out, out_len, "none that this program uses");
}

/* "0,1" or "0-1": the length of the first sibling list. */
static int read_threads_per_core(void)
{
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "re");
    int first = 0, second = 0, n = 1;
    char separator = 0;
    if (file == NULL) return 1;
    if (fscanf(file, "%d%c%d", &first, &separator, &second) == 3)
        n = separator == '-' && second > first ? second - first + 1 : 2;
    fclose(file);
    return n;
}

void qd_machine_read(struct qd_machine *machine)
{
    *machine = (struct qd_machine){0};
    read_cpuinfo("model name", machine->cpu_model, sizeof machine->cpu_model);
    read_isa(machine->cpu_isa, sizeof machine->cpu_isa);
    struct utsname name;
    if (uname(&name) == 0)
        snprintf(machine->kernel, sizeof machine->kernel, "%.32s %.64s %.24s", name.sysname, name.release,
                 name.machine);
    cpu_set_t allowed;
    machine->n_cores_online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    machine->n_cores =
        sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : machine->n_cores_online;
    machine->threads_per_core = read_threads_per_core();
    machine->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

/* Adds one "cpuN user nice system idle iowait irq softirq steal" line of /proc/stat. Guest time is already
 * inside user time. */
static void add_cpu_line(const char *fields, int64_t tick_ns, struct qd_machine_load *load)
{
    long long t[8] = {0};
    int n = sscanf(fields, "%lld %lld %lld %lld %lld %lld %lld %lld", &t[0], &t[1], &t[2], &t[3], &t[4],
                   &t[5], &t[6], &t[7]);
    for (int i = 0; i < n; i++)
        load->total_ns += t[i] * tick_ns;
    load->idle_ns += (t[3] + t[4]) * tick_ns;
    load->steal_ns += t[7] * tick_ns;
}

static void read_cpu_times(struct qd_machine_load *load)
{
    cpu_set_t allowed;
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL) return;
    bool know_allowed = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
    long ticks_per_s = sysconf(_SC_CLK_TCK);
    char line[512];
    while (ticks_per_s > 0 && fgets(line, sizeof line, file) != NULL) {
        int cpu, used = 0;
        if (sscanf(line, "cpu%d %n", &cpu, &used) != 1 || used == 0) continue;
        if (cpu < 0 || cpu >= CPU_SETSIZE || (know_allowed && !CPU_ISSET((size_t)cpu, &allowed))) continue;
        add_cpu_line(line + used, 1000000000 / ticks_per_s, load);
    }
    fclose(file);
}

void qd_machine_load_read(struct qd_machine_load *load)
{
    *load = (struct qd_machine_load){-1, -1, -1, 0, 0, 0, 0};
    double averages[3];
    if (getloadavg(averages, 3) == 3) {
        load->load_1min = averages[0];
        load->load_5min = averages[1];
        load->load_15min = averages[2];
    }
    read_cpu_times(load);
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        load->own_ns = ((int64_t)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
                       ((int64_t)usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static double clamp_share(double x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

struct qd_machine_shares qd_machine_load_between(const struct qd_machine_load *before,
                                                 const struct qd_machine_load *after)
{
    double total = (double)(after->total_ns - before->total_ns);
    if (total <= 0) return (struct qd_machine_shares){0};
    struct qd_machine_shares s = {
        .own = clamp_share((double)(after->own_ns - before->own_ns) / total),
        .steal = clamp_share((double)(after->steal_ns - before->steal_ns) / total),
        .idle = clamp_share((double)(after->idle_ns - before->idle_ns) / total),
    };
    s.foreign = clamp_share(1 - s.own - s.steal - s.idle);
    return s;
}

uint32_t qd_machine_marks(const struct qd_machine *machine, const struct qd_machine_load *before,
                          const struct qd_machine_load *after, int n_ranks)
{
    uint32_t marks = n_ranks > machine->n_cores ? QD_MARK_MORE_RANKS_THAN_CORES : 0;
    int64_t interval_ns = machine->n_cores > 0 ? (after->total_ns - before->total_ns) / machine->n_cores : 0;
    if (interval_ns < SHORTEST_INTERVAL_NS) return marks;
    struct qd_machine_shares s = qd_machine_load_between(before, after);
    if (s.foreign > SHARED_LIMIT) marks |= QD_MARK_SHARED_MACHINE;
    if (s.steal > STEAL_LIMIT) marks |= QD_MARK_STEAL_TIME;
    return marks;
}

cJSON *qd_machine_to_json(const struct qd_machine *machine)
{
    cJSON *object = cJSON_CreateObject();
    bool ok = object != NULL;
    qd_json_put_text(object, "cpu_model", machine->cpu_model, &ok);
    qd_json_put_text(object, "cpu_isa", machine->cpu_isa, &ok);
    qd_json_put_text(object, "kernel", machine->kernel, &ok);
    qd_json_put_int(object, "n_cores", machine->n_cores, &ok);
    qd_json_put_int(object, "n_cores_online", machine->n_cores_online, &ok);
    qd_json_put_int(object, "threads_per_core", machine->threads_per_core, &ok);
    qd_json_put_int(object, "memory_bytes", machine->memory_bytes, &ok);
    if (ok) return object;
    cJSON_Delete(object);
    return NULL;
}

static void put_reading(cJSON *parent, const char *key, const struct qd_machine_load *load, bool *ok)
{
    cJSON *object = qd_json_put_object(parent, key, ok);
    bool known = load->load_1min >= 0;
    qd_json_put_number(object, "load_1min", known ? load->load_1min : (double)NAN, ok);
    qd_json_put_number(object, "load_5min", known ? load->load_5min : (double)NAN, ok);
    qd_json_put_number(object, "load_15min", known ? load->load_15min : (double)NAN, ok);
    qd_json_put_int(object, "steal_ns", load->steal_ns, ok);
}

cJSON *qd_machine_load_to_json(const struct qd_machine_load *before, const struct qd_machine_load *after)
{
    cJSON *object = cJSON_CreateObject();
    bool ok = object != NULL;
    put_reading(object, "before", before, &ok);
    put_reading(object, "after", after, &ok);
    cJSON *between = qd_json_put_object(object, "between", &ok);
    struct qd_machine_shares s = qd_machine_load_between(before, after);
    qd_json_put_number(between, "own_share", s.own, &ok);
    qd_json_put_number(between, "foreign_share", s.foreign, &ok);
    qd_json_put_number(between, "steal_share", s.steal, &ok);
    qd_json_put_number(between, "idle_share", s.idle, &ok);
    if (ok) return object;
    cJSON_Delete(object);
    return NULL;
}

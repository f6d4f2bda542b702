/* Threads beside their GPU, by a made-up sysfs and the cores that this process has. */
#include "kernels/cuda/numa.h"

#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

#include "tests/support/test.h"

#define DEVICE "0000:3b:00.0"

static char root[] = "/tmp/qdyno-numa-XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/sys/bus/pci/devices/" DEVICE "/%s", root, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int make_sysfs(void **state)
{
    (void)state;
    const char *const folders[] = {"/sys", "/sys/bus", "/sys/bus/pci", "/sys/bus/pci/devices",
                                   "/sys/bus/pci/devices/" DEVICE};
    if (mkdtemp(root) == NULL) return -1;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", root, folders[i]);
        if (mkdir(path, 0700) != 0) return -1;
    }
    return 0;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info, (void)kind, (void)at;
    return remove(path);
}

static int remove_sysfs(void **state)
{
    (void)state;
    return nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* A thread that binds itself, and the cores it has then. */
struct bound {
    const char *pci_id;
    bool is_bound;
    cpu_set_t cores;
};

static void *bind_self(void *arg)
{
    struct bound *bound = arg;
    bound->is_bound = qd_cuda_numa_bind(root, bound->pci_id);
    sched_getaffinity(0, sizeof bound->cores, &bound->cores);
    return NULL;
}

static struct bound bind_on(const char *node, const char *cpus, const char *pci_id)
{
    struct bound bound = {.pci_id = pci_id};
    pthread_t thread;
    write_file("numa_node", node);
    write_file("local_cpulist", cpus);
    assert_int_equal(pthread_create(&thread, NULL, bind_self, &bound), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return bound;
}

static int last_core(const cpu_set_t *cores)
{
    int last = CPU_SETSIZE - 1;
    while (!CPU_ISSET((size_t)last, cores)) last--;
    return last;
}

/* Of the node's cores, those that the process may use: here the last one. */
static void a_thread_goes_to_its_node(void **state)
{
    (void)state;
    cpu_set_t allowed;
    char cpus[64];
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    int last = last_core(&allowed);
    snprintf(cpus, sizeof cpus, "%d,%d-1023\n", last, last + 1 < 1023 ? last + 1 : 1023);
    struct bound bound = bind_on("1\n", cpus, DEVICE);
    assert_true(bound.is_bound);
    assert_int_equal(CPU_COUNT(&bound.cores), 1);
    assert_true(CPU_ISSET((size_t)last, &bound.cores));
}

static void a_node_of_all_cores_changes_nothing(void **state)
{
    (void)state;
    cpu_set_t allowed;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    struct bound bound = bind_on("0\n", "0-1023\n", DEVICE);
    assert_true(bound.is_bound);
    assert_true(CPU_EQUAL(&allowed, &bound.cores));
}

static void without_a_node_nothing_is_bound(void **state)
{
    (void)state;
    cpu_set_t allowed;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    const struct {
        const char *node, *cpus, *pci_id;
    } cases[] = {
        {"-1\n", "0\n", DEVICE},        {"0\n", "0\n", "0000:99:00.0"}, {"0\n", "", DEVICE},
        {"0\n", "\n", DEVICE},          {"0\n", "x\n", DEVICE},         {"0\n", "0-\n", DEVICE},
        {"0\n", "3-1\n", DEVICE},       {"0\n", "0-1024\n", DEVICE},    {"0\n", "0,\n", DEVICE},
        {"0\n", "0 1\n", DEVICE},       {"0\n", "-1\n", DEVICE},        {"", "0\n", DEVICE},
        {"0\n", "1000-1023\n", DEVICE}, /* none of ours */
    };
    if (last_core(&allowed) >= 1000) SKIP("a machine of more than %d cores", last_core(&allowed));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bound bound = bind_on(cases[i].node, cases[i].cpus, cases[i].pci_id);
        if (bound.is_bound || !CPU_EQUAL(&allowed, &bound.cores))
            fail_msg("case %zu: node %s cpus %s", i, cases[i].node, cases[i].cpus);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_goes_to_its_node),
        cmocka_unit_test(a_node_of_all_cores_changes_nothing),
        cmocka_unit_test(without_a_node_nothing_is_bound),
    };
    return cmocka_run_group_tests_name("cuda_numa", tests, make_sysfs, remove_sysfs);
}

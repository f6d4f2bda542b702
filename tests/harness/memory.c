/* How much memory there is: the least of what machine, control groups and option say. */
#include "tests/support/test.h"

#include <sys/stat.h>

#include "harness/engine/memory.h"
#include "tests/support/files.h"

enum { KIB = 1024, MIB = 1 << 20 };

/* Creates the folders above `name` under the root, then the file. */
static void put(const struct temp_dir *root, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root->path, name);
    for (char *slash = path + strlen(root->path) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
        *slash = '\0';
        mkdir(path, 0777);
    }
    write_text(path, text);
}

static void expect(const struct temp_dir *root, size_t option, size_t bytes, enum qd_memory_source source)
{
    struct qd_memory_limit limit = qd_memory_available_under(root->path, option);
    if (limit.bytes != bytes || limit.source != source)
        fail_msg("%zu bytes (%s), expected %zu (%s)", limit.bytes, qd_memory_source_name(limit.source), bytes,
                 qd_memory_source_name(source));
}

static void the_machine_and_the_option(void **state)
{
    (void)state;
    struct temp_dir root = temp_dir_create();
    expect(&root, 0, SIZE_MAX, QD_MEMORY_SYSTEM); /* nothing can be read: no limit */
    expect(&root, 5, 5, QD_MEMORY_OPTION);
    put(&root, "proc/meminfo",
        "MemTotal:       90000 kB\nMemFree:         1000 kB\nMemAvailable:   50000 kB\nBuffers: 1 kB\n");
    expect(&root, 0, (size_t)50000 * KIB, QD_MEMORY_SYSTEM);
    expect(&root, 40000 * KIB, 40000 * KIB, QD_MEMORY_OPTION);
    expect(&root, (size_t)60000 * KIB, (size_t)50000 * KIB, QD_MEMORY_SYSTEM); /* an option adds nothing */
    temp_dir_remove(&root);
}

static void every_level_of_a_version_2_group(void **state)
{
    (void)state;
    struct temp_dir root = temp_dir_create();
    put(&root, "proc/meminfo", "MemAvailable: 1048576 kB\n");
    put(&root, "proc/self/cgroup", "0::/user/job\n");
    put(&root, "sys/fs/cgroup/user/job/memory.max", "max\n");
    put(&root, "sys/fs/cgroup/user/job/memory.current", "12345\n");
    expect(&root, 0, (size_t)1024 * MIB, QD_MEMORY_SYSTEM);

    put(&root, "sys/fs/cgroup/user/memory.max", "536870912\n"); /* the parent's limit holds */
    put(&root, "sys/fs/cgroup/user/memory.current", "104857600\n");
    expect(&root, 0, 412 * MIB, QD_MEMORY_CGROUP);
    put(&root, "sys/fs/cgroup/user/memory.stat", "anon 5\ninactive_file 62914560\nactive_file 7\n");
    expect(&root, 0, 472 * MIB, QD_MEMORY_CGROUP); /* cache that gives way is not in use */

    put(&root, "sys/fs/cgroup/user/job/memory.max", "1000000\n");
    expect(&root, 0, 1000000 - 12345, QD_MEMORY_CGROUP);
    put(&root, "sys/fs/cgroup/user/job/memory.current", "1000001\n"); /* beyond the limit: nothing is left */
    expect(&root, 0, 0, QD_MEMORY_CGROUP);
    put(&root, "sys/fs/cgroup/user/job/memory.max", "max\n");
    put(&root, "sys/fs/cgroup/memory.max", "4096\n"); /* of the namespace's root */
    expect(&root, 0, 4096, QD_MEMORY_CGROUP);
    expect(&root, 100, 100, QD_MEMORY_OPTION);
    temp_dir_remove(&root);
}

static void a_version_1_group(void **state)
{
    (void)state;
    struct temp_dir root = temp_dir_create();
    put(&root, "proc/meminfo", "MemAvailable: 1048576 kB\n");
    put(&root, "proc/self/cgroup", "12:cpu,cpuacct:/other\n7:memory:/box\n0::/\n");
    put(&root, "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n"); /* unlimited */
    put(&root, "sys/fs/cgroup/memory/box/memory.usage_in_bytes", "10\n");
    expect(&root, 0, (size_t)1024 * MIB, QD_MEMORY_SYSTEM);
    put(&root, "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "209715200\n");
    put(&root, "sys/fs/cgroup/memory/box/memory.usage_in_bytes", "104857600\n");
    put(&root, "sys/fs/cgroup/memory/box/memory.stat", "cache 9\ninactive_file 1\ntotal_inactive_file 1048576\n");
    expect(&root, 0, 101 * MIB, QD_MEMORY_CGROUP);
    /* seen from inside a container, whose group's folder is the root */
    put(&root, "proc/self/cgroup", "7:memory:/docker/0123\n");
    put(&root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576\n");
    expect(&root, 0, MIB, QD_MEMORY_CGROUP);
    /* a group of another controller sets no limit */
    put(&root, "proc/self/cgroup", "7:cpu:/box\nno colon here\n");
    expect(&root, 0, (size_t)1024 * MIB, QD_MEMORY_SYSTEM);
    temp_dir_remove(&root);
}

static void this_machine(void **state)
{
    (void)state;
    struct qd_memory_limit here = qd_memory_available(0);
    assert_in_range(here.bytes, MIB, (size_t)1 << 50);
    assert_int_not_equal(here.source, QD_MEMORY_OPTION);
    struct qd_memory_limit limited = qd_memory_available(MIB / 2);
    assert_int_equal(limited.bytes, MIB / 2);
    assert_int_equal(limited.source, QD_MEMORY_OPTION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_machine_and_the_option),
        cmocka_unit_test(every_level_of_a_version_2_group),
        cmocka_unit_test(a_version_1_group),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}

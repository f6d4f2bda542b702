#include "tests/support/test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "kernels/base/team.h"

enum { MAX_MEMBERS = 9 };

struct counts {
    int64_t calls[MAX_MEMBERS]; /* by member; plain, so a race is one that TSan sees */
    int64_t total;              /* summed by member 0 of a later region */
    int n_members;
};

static void count(void *arg, int member, int n_members)
{
    struct counts *counts = arg;
    counts->calls[member]++;
    if (member == 0) counts->n_members = n_members;
}

/* Reads what all members wrote in the region before. */
static void sum(void *arg, int member, int n_members)
{
    struct counts *counts = arg;
    if (member != n_members - 1) return;
    counts->total = 0;
    for (int i = 0; i < n_members; i++) counts->total += counts->calls[i];
}

static void check_regions(int n_members, bool may_spin, int n_regions)
{
    char err[QD_ERR_LEN] = "";
    struct qd_team_config config = {.n_members = n_members, .may_spin = may_spin, .label = "test"};
    qd_team_t *team;
    ASSERT_OK(qd_team_create(&config, &team, err, sizeof err), err);
    assert_int_equal(qd_team_size(team), n_members);
    struct counts counts = {0};
    for (int i = 1; i <= n_regions; i++) {
        qd_team_run(team, count, &counts);
        qd_team_run(team, sum, &counts);
        assert_int_equal(counts.total, (int64_t)i * n_members);
        assert_int_equal(counts.n_members, n_members);
    }
    qd_team_destroy(team);
}

static void every_member_runs_every_region(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, 5, MAX_MEMBERS};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_regions(sizes[i], false, 500);
        check_regions(sizes[i], true, sizes[i] <= 2 ? 5000 : 50);
    }
}

/* Long enough idle times that workers go to sleep in the kernel between regions. */
static void sleepers_wake(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_team_config config = {.n_members = 3, .may_spin = true};
    qd_team_t *team;
    ASSERT_OK(qd_team_create(&config, &team, err, sizeof err), err);
    struct counts counts = {0};
    for (int i = 0; i < 20; i++) {
        usleep(2000);
        qd_team_run(team, count, &counts);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(counts.calls[i], 20);
    qd_team_destroy(team);
}

static void record_core(void *arg, int member, int n_members)
{
    (void)n_members;
    cpu_set_t *sets = arg;
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof sets[0], &sets[member]), 0);
}

static void members_are_pinned_and_the_caller_is_restored(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    cpu_set_t before, after, sets[3];
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int first = 0, last = 0;
    while (!CPU_ISSET((size_t)first, &before)) first++;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET((size_t)i, &before)) last = i;

    int cores[] = {last, first, last};
    struct qd_team_config config = {.n_members = 3, .cores = cores, .label = "a label too long"};
    qd_team_t *team;
    ASSERT_OK(qd_team_create(&config, &team, err, sizeof err), err);
    qd_team_run(team, record_core, sets);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(CPU_COUNT(&sets[i]), 1);
        assert_true(CPU_ISSET((size_t)cores[i], &sets[i]));
    }
    qd_team_destroy(team);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_team_t *team;
    struct qd_team_config config = {.n_members = 0};
    assert_int_equal(qd_team_create(&config, &team, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "0 threads");
    assert_null(team);

    int outside[] = {0, CPU_SETSIZE};
    config = (struct qd_team_config){.n_members = 2, .cores = outside};
    assert_int_equal(qd_team_create(&config, &team, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "1024");

    /* A core this machine does not have: the worker cannot be started, the first one is joined. */
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    if (sysconf(_SC_NPROCESSORS_CONF) >= CPU_SETSIZE) SKIP("every core number exists here");
    int first = 0;
    while (!CPU_ISSET((size_t)first, &before)) first++;
    int missing[] = {first, first, CPU_SETSIZE - 1};
    config = (struct qd_team_config){.n_members = 3, .cores = missing};
    assert_int_equal(qd_team_create(&config, &team, err, sizeof err), QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "thread 2 on core 1023");
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void split_covers_everything_once(void **state)
{
    (void)state;
    for (int64_t n = 0; n <= 70; n++) {
        for (int64_t grain = 1; grain <= 16; grain = grain * 2 + (grain == 1)) {
            for (int n_members = 1; n_members <= 7; n_members++) {
                int64_t covered = 0, longest = 0, shortest = n;
                for (int member = 0; member < n_members; member++) {
                    int64_t begin, end;
                    qd_team_split(n, grain, member, n_members, &begin, &end);
                    assert_int_equal(begin, covered);
                    assert_true(end >= begin && (begin % grain == 0 || begin == n));
                    covered = end;
                    if (end - begin > longest) longest = end - begin;
                    if (end - begin < shortest) shortest = end - begin;
                }
                assert_int_equal(covered, n);
                /* balanced: parts differ by one grain, the last one may be cut */
                assert_true(longest - shortest <= 2 * grain - 1);
            }
        }
    }
}

static void destroying_nothing_is_harmless(void **state)
{
    (void)state;
    qd_team_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_runs_every_region),
        cmocka_unit_test(sleepers_wake),
        cmocka_unit_test(members_are_pinned_and_the_caller_is_restored),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(split_covers_everything_once),
        cmocka_unit_test(destroying_nothing_is_harmless),
    };
    return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}

#include "kernels/base/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/futex.h"
#include "kernels/base/size.h"

/* What one worker is started with. */
struct worker {
    qd_team_t *team;
    int member; /* 1 .. n_members-1 */
    pthread_t thread;
};

struct qd_team {
    int n_members; /* the creating thread included */
    int n_started; /* workers to join */
    bool may_spin;
    struct qd_futex region;  /* counts regions; workers wait for the next */
    struct qd_futex pending; /* workers that have not finished the region; the caller waits for 0 */
    qd_team_fn fn;           /* of the region; NULL: leave */
    void *arg;
    bool pinned_caller;      /* the caller's mask is to be restored */
    cpu_set_t caller_cores;  /* what it was */
    struct worker workers[]; /* [n_members - 1] */
};

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    qd_team_t *team = worker->team;
    for (uint32_t seen = 0;; seen++) {
        qd_futex_wait_change(&team->region, seen, team->may_spin);
        if (team->fn == NULL) return NULL;
        team->fn(team->arg, worker->member, team->n_members);
        if (atomic_fetch_sub(&team->pending.word, 1) == 1) qd_futex_wake_all(&team->pending);
    }
}

/* Publishes a region to the workers. */
static void start_region(qd_team_t *team, qd_team_fn fn, void *arg)
{
    team->fn = fn;
    team->arg = arg;
    atomic_store_explicit(&team->pending.word, (uint32_t)team->n_started, memory_order_relaxed);
    atomic_fetch_add(&team->region.word, 1);
    qd_futex_wake_all(&team->region);
}

static qd_status start_worker(qd_team_t *team, int member, const struct qd_team_config *config, char *err,
                              size_t errlen)
{
    struct worker *worker = &team->workers[member - 1];
    *worker = (struct worker){.team = team, .member = member};
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    if (config->cores != NULL) {
        /* Born on its core: a thread that moves there later has already touched its stack elsewhere. */
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)config->cores[member], &set);
        pthread_attr_setaffinity_np(&attr, sizeof set, &set);
    }
    int error = pthread_create(&worker->thread, &attr, worker_main, worker);
    pthread_attr_destroy(&attr);
    if (error != 0) {
        if (config->cores == NULL)
            return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot start thread %d: %s", member,
                           strerror(error));
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot start thread %d on core %d: %s", member,
                       config->cores[member], strerror(error));
    }
    team->n_started++;
    char name[32];
    snprintf(name, sizeof name, "%.10st%d", config->label != NULL ? config->label : "qd", member);
    name[15] = '\0'; /* all that a thread name may hold */
    pthread_setname_np(worker->thread, name);
    return QD_OK;
}

static qd_status pin_caller(qd_team_t *team, int core, char *err, size_t errlen)
{
    int error = pthread_getaffinity_np(pthread_self(), sizeof team->caller_cores, &team->caller_cores);
    if (error == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)core, &set);
        error = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    if (error != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot pin a thread to core %d: %s", core,
                       strerror(error));
    team->pinned_caller = true;
    return QD_OK;
}

static qd_status check_config(const struct qd_team_config *config, char *err, size_t errlen)
{
    if (config->n_members < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a team of %d threads", config->n_members);
    for (int i = 0; config->cores != NULL && i < config->n_members; i++) {
        if (config->cores[i] < 0 || config->cores[i] >= CPU_SETSIZE)
            return qd_fail(QD_ERR_ARGUMENT, err, errlen, "core number %d is outside 0..%d", config->cores[i],
                           CPU_SETSIZE - 1);
    }
    return QD_OK;
}

qd_status qd_team_create(const struct qd_team_config *config, qd_team_t **out, char *err, size_t errlen)
{
    *out = NULL;
    QD_TRY(check_config(config, err, errlen));
    size_t bytes;
    qd_team_t *team = NULL;
    if (qd_size_mul((size_t)config->n_members - 1, sizeof team->workers[0], &bytes) &&
        qd_size_add(bytes, sizeof *team, &bytes))
        team = calloc(1, bytes);
    if (team == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a team of %d threads",
                       config->n_members);
    team->n_members = config->n_members;
    team->may_spin = config->may_spin;

    qd_status st = QD_OK;
    if (config->cores != NULL) QD_TRY_GOTO(pin_caller(team, config->cores[0], err, errlen), st, failed);
    for (int member = 1; member < config->n_members; member++)
        QD_TRY_GOTO(start_worker(team, member, config, err, errlen), st, failed);
    *out = team;
    return QD_OK;
failed:
    qd_team_destroy(team);
    return st;
}

void qd_team_destroy(qd_team_t *team)
{
    if (team == NULL) return;
    start_region(team, NULL, NULL);
    for (int i = 0; i < team->n_started; i++) pthread_join(team->workers[i].thread, NULL);
    if (team->pinned_caller)
        pthread_setaffinity_np(pthread_self(), sizeof team->caller_cores, &team->caller_cores);
    free(team);
}

int qd_team_size(const qd_team_t *team)
{
    return team->n_members;
}

void qd_team_run(qd_team_t *team, qd_team_fn fn, void *arg)
{
    if (team->n_members == 1) {
        fn(arg, 0, 1);
        return;
    }
    start_region(team, fn, arg);
    fn(arg, 0, team->n_members);
    for (;;) {
        uint32_t left = atomic_load_explicit(&team->pending.word, memory_order_acquire);
        if (left == 0) return;
        qd_futex_wait_change(&team->pending, left, team->may_spin);
    }
}

void qd_team_split(int64_t n, int64_t grain, int member, int n_members, int64_t *begin, int64_t *end)
{
    int64_t units = qd_div_up(n, grain);
    int64_t first = units * member / n_members * grain, last = units * (member + 1) / n_members * grain;
    *begin = first < n ? first : n;
    *end = last < n ? last : n;
}

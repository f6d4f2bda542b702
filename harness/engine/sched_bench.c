#include "harness/engine/sched_bench.h"

#include <stdlib.h>
#include <string.h>

#include "harness/engine/scheduler.h"
#include "kernels/base/clock.h"
#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "kernels/step.h"

enum {
    N_COMMON = 256, /* prompt tokens that all requests share */
    N_PROMPT = N_COMMON + 64,
    N_OUTPUT = 256, /* at most; requests end at different steps */
    N_KNOWN = N_PROMPT + N_OUTPUT,
    N_PAGES = N_KNOWN / QD_KV_BLOCK_SIZE,
};

struct bench_request {
    struct qd_sched_request sched; /* first, so that a scheduled request is one of these */
    int32_t pages[N_PAGES], tokens[N_KNOWN];
    struct qd_block_hash hashes[N_PAGES];
};

struct bench {
    struct qd_sched_load load;
    qd_scheduler_t *scheduler;
    struct bench_request *requests; /* [n_running + n_waiting] */
    double *step_ns;                /* [n_steps] */
    uint64_t n_made, n_rows, n_preempted, n_query, n_hit;
};

/* A new request in the place of an ended one, at the end of the line. */
static void add_request(struct bench *bench, struct bench_request *request)
{
    uint64_t id = bench->n_made++;
    struct qd_philox_block random = qd_philox(id, 0, 0);
    for (int32_t i = N_COMMON; i < N_KNOWN; i++)
        request->tokens[i] = (int32_t)((random.word[i % 4] >> 1) + (uint32_t)i) & INT32_MAX;
    request->sched =
        (struct qd_sched_request){.id = id,
                                  .n_prompt = N_PROMPT,
                                  .n_known = N_PROMPT,
                                  .max_known = N_PROMPT + 1 + (int32_t)(random.word[0] % N_OUTPUT),
                                  .blocks = request->pages,
                                  .tokens = request->tokens,
                                  .hashes = request->hashes};
    if (bench->load.prefix_caching) qd_sched_request_hash(&request->sched);
    qd_scheduler_add(bench->scheduler, &request->sched);
}

/* Tokens of a step, as the replica would hand them out; the ended requests' indices are kept in ended[]. */
static int32_t deliver(struct bench *bench, const struct qd_schedule *schedule, struct bench_request **ended)
{
    int32_t n_ended = 0;
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        struct bench_request *request = (struct bench_request *)schedule->entries[i].request;
        if (!schedule->entries[i].samples) continue;
        qd_scheduler_token(bench->scheduler, &request->sched);
        if (request->sched.n_known < request->sched.max_known) continue;
        qd_scheduler_remove(bench->scheduler, &request->sched);
        ended[n_ended++] = request;
    }
    return n_ended;
}

/* One step and its tokens; making new requests is a client's work and not in the time. */
static double run_step(struct bench *bench, struct bench_request **ended)
{
    struct qd_schedule schedule;
    int64_t begin_ns = qd_clock_now_ns();
    qd_scheduler_step(bench->scheduler, &schedule);
    int32_t n_ended = deliver(bench, &schedule, ended);
    int64_t end_ns = qd_clock_now_ns();
    bench->n_rows += (uint64_t)schedule.n_entries;
    bench->n_preempted += (uint64_t)schedule.n_preempted;
    bench->n_query += (uint64_t)schedule.n_query_tokens;
    bench->n_hit += (uint64_t)schedule.n_hit_tokens;
    for (int32_t i = 0; i < n_ended; i++) add_request(bench, ended[i]);
    return (double)(end_ns - begin_ns);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *bench, struct bench_request **ended, struct qd_sched_cost *out)
{
    double n = bench->load.n_steps, sum = 0;
    for (int i = 0; i < bench->load.n_steps; i++) run_step(bench, ended);
    bench->n_rows = bench->n_preempted = bench->n_query = bench->n_hit = 0;
    for (int i = 0; i < bench->load.n_steps; i++) sum += bench->step_ns[i] = run_step(bench, ended);
    qsort(bench->step_ns, (size_t)bench->load.n_steps, sizeof *bench->step_ns, compare_doubles);
    *out = (struct qd_sched_cost){
        .step_ns = bench->step_ns[bench->load.n_steps / 2],
        .worst_ns = bench->step_ns[bench->load.n_steps - 1],
        .row_ns = sum / (double)bench->n_rows,
        .rows = (double)bench->n_rows / n,
        .preemptions = (double)bench->n_preempted / n,
        .hit_share = bench->n_query > 0 ? (double)bench->n_hit / (double)bench->n_query : 0,
    };
}

static qd_status open_bench(struct bench *bench, char *err, size_t errlen)
{
    const struct qd_sched_load *load = &bench->load;
    int64_t pages = (int64_t)load->n_running * N_PAGES;
    struct qd_scheduler_config config = {
        .max_num_batched_tokens =
            load->n_running + N_PROMPT * (4 + load->n_running / 64), /* decodes, and new ones' prompts */
        .max_num_seqs = load->n_running,
        .max_model_len = N_KNOWN + 1,
        .n_kv_blocks = (int32_t)(load->preempt ? pages / 2 : pages) + 1,
        .prefix_caching = load->prefix_caching,
    };
    size_t n = (size_t)load->n_running + (size_t)load->n_waiting;
    bench->requests = calloc(n, sizeof *bench->requests);
    bench->step_ns = calloc((size_t)load->n_steps, sizeof *bench->step_ns);
    if (bench->requests == NULL || bench->step_ns == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %zu requests", n);
    QD_TRY(qd_scheduler_create(&config, &bench->scheduler, err, errlen));
    for (size_t i = 0; i < n; i++) {
        for (int32_t t = 0; t < N_COMMON; t++) bench->requests[i].tokens[t] = t;
        add_request(bench, &bench->requests[i]);
    }
    return QD_OK;
}

qd_status qd_sched_bench(const struct qd_sched_load *load, struct qd_sched_cost *out, char *err,
                         size_t errlen)
{
    if (load->n_running < 1 || load->n_running > INT32_MAX / (2 * N_PAGES) || load->n_waiting < 0 ||
        load->n_steps < 1 || (load->preempt && load->n_running < QD_SCHED_MIN_PREEMPTING))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen,
                       "%d running (with preemption %d or more), %d waiting, %d steps", load->n_running,
                       QD_SCHED_MIN_PREEMPTING, load->n_waiting, load->n_steps);
    struct bench bench = {.load = *load};
    struct bench_request **ended = calloc((size_t)load->n_running, sizeof *ended);
    qd_status status = ended != NULL
                           ? open_bench(&bench, err, errlen)
                           : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a list of requests");
    if (status == QD_OK) measure(&bench, ended, out);
    qd_scheduler_destroy(bench.scheduler);
    free(bench.requests);
    free(bench.step_ns);
    free(ended);
    return status;
}

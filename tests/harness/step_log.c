/* Rows of steps: they add up to the replica's own totals, reach their files, and a ring that is full loses
 * rows and not time. */
#include "tests/support/test.h"

#include "harness/engine/step_ring.h"
#include "harness/result/step_log.h"
#include "harness/result/steps_file.h"
#include "kernels/base/clock.h"
#include "models/json.h"
#include "tests/support/fake_engine.h"
#include "tests/support/files.h"

enum { N_REQUESTS = 20, MAX_TOKENS = 24, MAX_PROMPT = 33, MAX_ROWS = 4096 };

struct rows {
    struct qd_step_row rows[MAX_ROWS];
    int n;
};

static void keep(void *arg, const struct qd_step_row *row)
{
    struct rows *rows = arg;
    assert_in_range(rows->n, 0, MAX_ROWS - 1);
    rows->rows[rows->n++] = *row;
}

static void serve_requests(struct fake_engine *fake)
{
    int32_t prompts[N_REQUESTS][MAX_PROMPT];
    struct qd_request requests[N_REQUESTS];
    for (int i = 0; i < N_REQUESTS; i++)
        requests[i] = fake_request(prompts[i], 1 + (i * 7) % MAX_PROMPT, 1 + (i * 11) % MAX_TOKENS,
                                   (uint64_t)i, fake->config.vocab_size);
    replies_free(serve(fake->engine, requests, N_REQUESTS, 0));
}

static void open_engine(struct fake_engine *fake, bool async, bool null_device, int dp, size_t n_step_rows)
{
    *fake = (struct fake_engine){.null_device = null_device,
                                 .config = {.dp = dp,
                                            .max_num_batched_tokens = 32,
                                            .max_num_seqs = 5,
                                            .n_kv_blocks = 6, /* some are preempted */
                                            .async_scheduling = async,
                                            .n_step_rows = n_step_rows}};
    fake_engine_open(fake, NULL);
}

/* What rows[] of one replica say in sum. */
static struct qd_replica_stats sum_rows(const struct rows *rows, int replica, int64_t *spare_ns)
{
    struct qd_replica_stats sum = {0};
    *spare_ns = 0;
    for (int i = 0; i < rows->n; i++) {
        const struct qd_step_row *row = &rows->rows[i];
        if (row->replica != replica) continue;
        assert_int_equal(row->index, sum.n_steps);
        sum.n_steps++;
        sum.n_prefill_tokens += (uint64_t)row->n_prefill_tokens;
        sum.n_decode_tokens += (uint64_t)row->n_decode_tokens;
        sum.n_recomputed_tokens += (uint64_t)row->n_recomputed_tokens;
        sum.n_preemptions += (uint64_t)row->n_preempted;
        sum.schedule_ns += row->schedule_ns;
        sum.prepare_ns += row->prepare_ns;
        sum.launch_ns += row->launch_ns;
        sum.wait_ns += row->wait_ns;
        sum.output_ns += row->output_ns;
        sum.span_ns += qd_step_row_span_ns(row);
        if (row->n_running > sum.peak_running) sum.peak_running = row->n_running;
        if (row->n_waiting > sum.peak_waiting) sum.peak_waiting = row->n_waiting;
        if (row->n_kv_blocks > sum.peak_kv_blocks) sum.peak_kv_blocks = row->n_kv_blocks;
        *spare_ns += row->spare_ns;
    }
    return sum;
}

static void assert_sums_are(const struct qd_replica_stats *sum, int64_t spare_ns,
                            const struct qd_replica_stats *stats)
{
    assert_int_equal(sum->n_steps, stats->n_steps);
    assert_int_equal(sum->n_prefill_tokens, stats->n_prefill_tokens);
    assert_int_equal(sum->n_decode_tokens, stats->n_decode_tokens);
    assert_int_equal(sum->n_recomputed_tokens, stats->n_recomputed_tokens);
    assert_int_equal(sum->n_preemptions, stats->n_preemptions);
    assert_int_equal(sum->peak_running, stats->peak_running);
    assert_int_equal(sum->peak_waiting, stats->peak_waiting);
    assert_int_equal(sum->peak_kv_blocks, stats->peak_kv_blocks);
    assert_int_equal(sum->prepare_ns, stats->prepare_ns);
    assert_int_equal(sum->launch_ns, stats->launch_ns);
    assert_int_equal(sum->wait_ns, stats->wait_ns);
    assert_int_equal(sum->output_ns, stats->output_ns);
    assert_int_equal(sum->span_ns, stats->span_ns);
    assert_true(sum->n_preemptions > 0);
    /* After the last row the replica looks once more whether there is something to do. */
    assert_true(sum->schedule_ns + spare_ns <= stats->schedule_ns);
    assert_true(sum->schedule_ns > 0);
}

static void rows_add_up(bool async, bool null_device, int dp)
{
    struct fake_engine fake;
    struct rows *rows = calloc(1, sizeof *rows);
    struct qd_step_sink sink = {.take = keep, .arg = rows};
    qd_step_log_t *log;
    char err[QD_ERR_LEN] = "";
    open_engine(&fake, async, null_device, dp, qd_step_log_room(dp));
    serve_requests(&fake); /* as a warm-up: a reset forgets it */
    qd_engine_reset_stats(fake.engine);
    ASSERT_OK(qd_step_log_start(fake.engine, dp, &sink, 1, &log, err, sizeof err), err);
    serve_requests(&fake);
    struct qd_replica_stats stats[FAKE_MAX_DP];
    for (int r = 0; r < dp; r++) stats[r] = qd_engine_stats(fake.engine, r);
    qd_step_log_stop(log);
    for (int r = 0; r < dp; r++) {
        int64_t spare_ns;
        struct qd_replica_stats sum = sum_rows(rows, r, &spare_ns);
        assert_sums_are(&sum, spare_ns, &stats[r]);
        assert_int_equal(qd_engine_n_dropped_steps(fake.engine, r), 0);
        assert_int_equal(stats[r].span_ns > 0, !null_device);
    }
    fake_engine_close(&fake);
    free(rows);
}

static void rows_add_up_to_the_replicas_totals(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++)
        for (int dp = 1; dp <= 3; dp += 2) rows_add_up(variant & 1, variant & 2, dp);
}

/* Asynchronous, 4 pages: when b wants its third, the last token of a is on its way and nothing of a is left
 * to schedule. b preempts itself, and that schedule launches nothing. */
static void a_preemption_without_a_step_is_counted(void **state)
{
    (void)state;
    enum { LEN = 31 };
    struct fake_engine fake = {.config = {.n_kv_blocks = 5, .async_scheduling = true, .n_step_rows = 16}};
    int32_t prompts[2][LEN], n_preempted = 0;
    struct qd_step_row rows[16];
    fake_engine_open(&fake, NULL);
    const struct qd_request requests[2] = {fake_request(prompts[0], LEN, 2, 1, fake.config.vocab_size),
                                           fake_request(prompts[1], LEN, 4, 2, fake.config.vocab_size)};
    struct reply *replies = serve(fake.engine, requests, 2, 0);
    assert_int_equal(replies[1].preemptions, 1);
    assert_int_equal(qd_engine_stats(fake.engine, 0).n_preemptions, 1);
    size_t n = qd_engine_take_steps(fake.engine, 0, rows, 16);
    for (size_t i = 0; i < n; i++) n_preempted += rows[i].n_preempted;
    assert_int_equal(n_preempted, 1);
    fake_engine_close(&fake);
    replies_free(replies);
}

static void a_full_ring_loses_rows_and_says_so(void **state)
{
    (void)state;
    struct fake_engine fake;
    struct qd_step_row rows[8];
    open_engine(&fake, false, false, 1, 4);
    serve_requests(&fake); /* nobody takes a row */
    struct qd_replica_stats stats = qd_engine_stats(fake.engine, 0);
    assert_int_equal(qd_engine_n_dropped_steps(fake.engine, 0), stats.n_steps - 4);
    assert_int_equal(qd_engine_take_steps(fake.engine, 0, rows, 8), 4);
    for (int i = 0; i < 4; i++) assert_int_equal(rows[i].index, i);
    assert_int_equal(qd_engine_take_steps(fake.engine, 0, rows, 8), 0);
    qd_engine_reset_stats(fake.engine);
    assert_int_equal(qd_engine_n_dropped_steps(fake.engine, 0), 0);
    fake_engine_close(&fake);
}

static void a_ring_keeps_the_order_when_it_wraps(void **state)
{
    (void)state;
    struct qd_step_ring ring;
    struct qd_step_row row = {0}, taken[3];
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_step_ring_init(&ring, 5, err, sizeof err), err);
    assert_int_equal(ring.n_rows, 8);
    uint64_t expected = 0;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 3; i++, row.index++) qd_step_ring_push(&ring, &row);
        assert_int_equal(qd_step_ring_take(&ring, taken, 3), 3);
        for (int i = 0; i < 3; i++) assert_int_equal(taken[i].index, expected++);
    }
    assert_int_equal(atomic_load(&ring.n_dropped), 0);
    qd_step_ring_free(&ring);
    ASSERT_OK(qd_step_ring_init(&ring, 0, err, sizeof err), err);
    qd_step_ring_push(&ring, &row);
    assert_int_equal(qd_step_ring_take(&ring, taken, 3), 0);
    qd_step_ring_free(&ring);
}

/* ---- files ---- */

static double number(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(value)) fail_msg("no number %s", key);
    return value->valuedouble;
}

/* A run's rows in both files and in memory; stats [dp]. The caller frees the trace. */
static cJSON *run_into_files(struct temp_dir *dir, bool async, int dp, struct rows *rows,
                             struct qd_replica_stats *stats)
{
    struct fake_engine fake;
    struct qd_steps_file steps = {0};
    struct qd_trace_file trace;
    qd_step_log_t *log;
    char err[QD_ERR_LEN] = "";
    open_engine(&fake, async, false, dp, qd_step_log_room(dp));
    qd_engine_reset_stats(fake.engine);
    int64_t origin_ns = qd_clock_now_ns();
    ASSERT_OK(qd_steps_file_open(&steps, in_dir(dir, "steps.jsonl"), origin_ns, 0, err, sizeof err), err);
    ASSERT_OK(qd_trace_file_open(&trace, in_dir(dir, "trace.json"), origin_ns, dp, 1, err, sizeof err), err);
    struct qd_step_sink sinks[] = {{.take = keep, .arg = rows},
                                   {.take = qd_steps_file_take, .arg = &steps},
                                   {.take = qd_trace_file_take, .arg = &trace}};
    ASSERT_OK(qd_step_log_start(fake.engine, dp, sinks, 3, &log, err, sizeof err), err);
    serve_requests(&fake);
    for (int r = 0; r < dp; r++) stats[r] = qd_engine_stats(fake.engine, r);
    qd_step_log_stop(log);
    ASSERT_OK(qd_steps_file_commit(&steps, err, sizeof err), err);
    ASSERT_OK(qd_trace_file_commit(&trace, err, sizeof err), err);
    fake_engine_close(&fake);
    cJSON *tree;
    ASSERT_OK(qd_json_read_file(in_dir(dir, "trace.json"), 1 << 26, &tree, err, sizeof err), err);
    return tree;
}

static void lines_are_the_rows(struct temp_dir *dir, const struct rows *rows)
{
    char *text = read_text(in_dir(dir, "steps.jsonl")), *at = text, err[QD_ERR_LEN] = "";
    for (int i = 0; i < rows->n; i++) {
        const struct qd_step_row *row = &rows->rows[i];
        cJSON *line;
        size_t len = strcspn(at, "\n");
        ASSERT_OK(qd_json_parse(at, len, NULL, &line, err, sizeof err), err);
        assert_int_equal(number(line, "replica"), row->replica);
        assert_int_equal(number(line, "index"), row->index);
        assert_int_equal(number(line, "n_prefill_tokens"), row->n_prefill_tokens);
        assert_int_equal(number(line, "n_kv_blocks"), row->n_kv_blocks);
        assert_int_equal(number(line, "span_ns"), row->ranks[0].end_ns - row->ranks[0].begin_ns);
        assert_int_equal(number(line, "wait_begin_ns") - number(line, "begin_ns"),
                         row->wait_begin_ns - row->begin_ns);
        assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(line, "segments_ns")));
        assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(line, "virtual_begin_ns")));
        cJSON_Delete(line);
        at += len + 1;
    }
    assert_int_equal(*at, '\0');
    free(text);
}

struct slice {
    double begin, end; /* us */
    int step;
    const char *name;
};

static int by_begin(const void *left, const void *right)
{
    const struct slice *a = left, *b = right;
    return (a->begin > b->begin) - (a->begin < b->begin);
}

/* Slices of one lane by time. */
static int slices_of(const cJSON *tree, int pid, int tid, struct slice *out)
{
    int n = 0;
    const cJSON *event, *events = cJSON_GetObjectItemCaseSensitive(tree, "traceEvents");
    cJSON_ArrayForEach (event, events) {
        const char *ph = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "ph"));
        if (strcmp(ph, "X") != 0 || (int)number(event, "pid") != pid || (int)number(event, "tid") != tid)
            continue;
        assert_true(n < 8 * MAX_ROWS);
        out[n++] = (struct slice){
            .begin = number(event, "ts"),
            .end = number(event, "ts") + number(event, "dur"),
            .step = (int)number(cJSON_GetObjectItemCaseSensitive(event, "args"), "step"),
            .name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "name")),
        };
    }
    qsort(out, (size_t)n, sizeof *out, by_begin);
    return n;
}

static const struct slice *slice_named(const struct slice *slices, int n, const char *name, int step)
{
    for (int i = 0; i < n; i++)
        if (slices[i].step == step && strcmp(slices[i].name, name) == 0) return &slices[i];
    fail_msg("step %d has no slice %s", step, name);
    return NULL;
}

static double total_us(const struct slice *slices, int n, const char *name)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (strcmp(slices[i].name, name) == 0) sum += slices[i].end - slices[i].begin;
    return sum;
}

/* No two slices of a lane overlap, a step's span lies between its launch and its output, and totals are the
 * replica's. */
static void lanes_are_right(const cJSON *tree, int replica, const struct qd_replica_stats *stats)
{
    const double tick = 0.0015; /* us; times are written in ns */
    struct slice *host = calloc(8 * MAX_ROWS, sizeof *host), *rank = calloc(8 * MAX_ROWS, sizeof *rank);
    int n_host = slices_of(tree, replica, 0, host), n_rank = slices_of(tree, replica, 1, rank);
    for (int i = 1; i < n_host; i++) assert_true(host[i].begin >= host[i - 1].end - tick);
    for (int i = 1; i < n_rank; i++) assert_true(rank[i].begin >= rank[i - 1].end - tick);
    assert_int_equal(n_rank, stats->n_steps);
    for (int i = 0; i < n_rank; i++) {
        assert_int_equal(rank[i].step, i);
        assert_true(rank[i].begin >= slice_named(host, n_host, "prepare", i)->end - tick);
        assert_true(rank[i].end <= slice_named(host, n_host, "output", i)->begin + tick);
    }
    double slack = (double)stats->n_steps * tick;
    assert_within(total_us(host, n_host, "prepare"), (double)stats->prepare_ns * 1e-3, slack);
    assert_within(total_us(host, n_host, "launch"), (double)stats->launch_ns * 1e-3, slack);
    assert_within(total_us(host, n_host, "wait"), (double)stats->wait_ns * 1e-3, slack);
    assert_within(total_us(host, n_host, "output"), (double)stats->output_ns * 1e-3, slack);
    assert_within(total_us(rank, n_rank, "step"), (double)stats->span_ns * 1e-3, slack);
    free(host);
    free(rank);
}

/* Counters of a replica rise in time and sum up to its tokens. */
static void counters_are_right(const cJSON *tree, int replica, const struct qd_replica_stats *stats)
{
    double last = -1, tokens = 0;
    int n = 0;
    const cJSON *event, *events = cJSON_GetObjectItemCaseSensitive(tree, "traceEvents");
    cJSON_ArrayForEach (event, events) {
        const char *ph = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "ph"));
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "name"));
        if (strcmp(ph, "C") != 0 || (int)number(event, "pid") != replica ||
            strcmp(name, "tokens per step") != 0)
            continue;
        const cJSON *args = cJSON_GetObjectItemCaseSensitive(event, "args");
        assert_true(number(event, "ts") > last);
        last = number(event, "ts");
        tokens += number(args, "prefill") + number(args, "decode");
        n++;
    }
    assert_int_equal(n, stats->n_steps);
    assert_int_equal(tokens, stats->n_prefill_tokens + stats->n_decode_tokens);
}

static void files_hold_every_step(void **state)
{
    (void)state;
    for (int async = 0; async <= 1; async++)
        for (int dp = 1; dp <= 2; dp++) {
            struct temp_dir dir = temp_dir_create();
            struct rows *rows = calloc(1, sizeof *rows);
            struct qd_replica_stats stats[FAKE_MAX_DP];
            cJSON *trace = run_into_files(&dir, async, dp, rows, stats);
            lines_are_the_rows(&dir, rows);
            for (int r = 0; r < dp; r++) {
                lanes_are_right(trace, r, &stats[r]);
                counters_are_right(trace, r, &stats[r]);
            }
            cJSON_Delete(trace);
            free(rows);
            temp_dir_remove(&dir);
        }
}

static void a_discarded_trace_leaves_no_file(void **state)
{
    (void)state;
    struct temp_dir dir = temp_dir_create();
    struct qd_trace_file trace;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_trace_file_open(&trace, in_dir(&dir, "trace.json"), 0, 1, 1, err, sizeof err), err);
    qd_trace_file_discard(&trace);
    assert_int_equal(access(in_dir(&dir, "trace.json"), F_OK), -1);
    assert_int_equal(qd_trace_file_open(&trace, in_dir(&dir, "none/trace.json"), 0, 1, 1, err, sizeof err),
                     QD_ERR_IO);
    ASSERT_CONTAINS(err, "none/trace.json");
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_add_up_to_the_replicas_totals),
        cmocka_unit_test(a_preemption_without_a_step_is_counted),
        cmocka_unit_test(a_full_ring_loses_rows_and_says_so),
        cmocka_unit_test(a_ring_keeps_the_order_when_it_wraps),
        cmocka_unit_test(files_hold_every_step),
        cmocka_unit_test(a_discarded_trace_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

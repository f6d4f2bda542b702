/* The scheduler decides the same on `null`, in virtual and in real time, as on `cpu`: which tokens of which
 * requests are in a step, in which order and pages, who is admitted and preempted. With fixed lengths,
 * synchronous scheduling and submissions only between steps, which is what a stepped engine makes of a
 * workload. */
#include "tests/support/test.h"

#include "harness/workload/workload.h"
#include "kernels/base/hash.h"
#include "tests/support/tiny.h"

enum { N_REQUESTS = 18, MAX_STEPS = 2048, SMALL_POOL = 10, STEP_NS = 1000000 };

/* What a step was, and what its scheduling did. */
struct decision {
    uint64_t hash; /* of all of it but the ids of tokens */
    int32_t n_tokens, n_seqs, n_rows;
};

struct decisions {
    int n;
    struct decision steps[MAX_STEPS];
    int n_rows;
    struct qd_step_row rows[MAX_STEPS]; /* of the replicas one after the other */
    uint64_t n_preemptions, n_hit_tokens;
};

static uint64_t hash_array(uint64_t hash, const void *values, int32_t n, size_t size)
{
    return qd_hash(hash, values, (size_t)n * size);
}

static void take_step(void *arg, int replica, const struct qd_group_result *result, int64_t span_ns)
{
    (void)span_ns;
    struct decisions *decisions = arg;
    const struct qd_step *s = result->step;
    int32_t n_blocks = qd_step_block_offset(s)[s->n_seqs];
    uint64_t hash = hash_array(QD_HASH_START, &replica, 1, sizeof replica);
    hash = hash_array(hash, qd_step_position(s), s->n_tokens, sizeof(int32_t));
    hash = hash_array(hash, qd_step_slot_mapping(s), s->n_tokens, sizeof(int64_t));
    hash = hash_array(hash, qd_step_cu_seqlens_q(s), s->n_seqs + 1, sizeof(int32_t));
    hash = hash_array(hash, qd_step_kv_len(s), s->n_seqs, sizeof(int32_t));
    hash = hash_array(hash, qd_step_block_offset(s), s->n_seqs + 1, sizeof(int32_t));
    hash = hash_array(hash, qd_step_block_table(s), n_blocks, sizeof(int32_t));
    hash = hash_array(hash, qd_step_logit_row(s), s->n_logit_rows, sizeof(int32_t));
    hash = hash_array(hash, qd_step_sampling(s), s->n_logit_rows, sizeof(struct qd_sampling));
    if (decisions->n == MAX_STEPS) fail_msg("more than %d steps", MAX_STEPS);
    decisions->steps[decisions->n++] = (struct decision){
        .hash = hash, .n_tokens = s->n_tokens, .n_seqs = s->n_seqs, .n_rows = s->n_logit_rows};
}

/* How the requests are served. */
struct variation {
    const char *name;
    int64_t budget, seqs, n_kv_blocks; /* 0: as the model likes */
    int dp;
    bool prefix_caching;
};

static const struct variation variations[] = {
    {"budget 17", .budget = 17, .dp = 1},
    {"budget 64, DP 2", .budget = 64, .dp = 2},
    {"budget 4096, DP 3", .budget = 4096, .dp = 3},
    {"four sequences", .budget = 256, .seqs = 4, .dp = 1},
    {"small pool", .budget = 64, .n_kv_blocks = SMALL_POOL, .dp = 1},
    {"small pool, budget 4096, DP 3", .budget = 4096, .n_kv_blocks = SMALL_POOL, .dp = 3},
    {"small pool, prefix caching, DP 2", .budget = 64, .n_kv_blocks = SMALL_POOL, .dp = 2,
     .prefix_caching = true},
};

static const struct qd_drive_options ways[] = {
    {.pacing = QD_PACING_BURST, .top_p = 1},
    {.pacing = QD_PACING_CLOSED, .max_concurrency = 5, .top_p = 1},
    {.pacing = QD_PACING_WAVES, .wave_size = 7, .top_p = 1},
};
enum { N_WAYS = sizeof ways / sizeof *ways };
static const char *const way_names[N_WAYS] = {"burst", "closed", "waves"};

static void take_rows(qd_engine_t *engine, int dp, struct decisions *out)
{
    for (int r = 0; r < dp; r++) {
        struct qd_replica_stats stats = qd_engine_stats(engine, r);
        out->n_preemptions += stats.n_preemptions;
        out->n_hit_tokens += stats.n_hit_tokens + stats.n_rehit_tokens;
        out->n_rows +=
            (int)qd_engine_take_steps(engine, r, out->rows + out->n_rows, (size_t)(MAX_STEPS - out->n_rows));
    }
}

/* Runs the workload one way; the records are the caller's. */
static struct decisions *decide(const struct variation *v, const char *device, int64_t virtual_step_ns,
                                const struct qd_drive_options *way, const struct qd_workload *workload,
                                struct qd_request_record **records)
{
    struct decisions *decisions = calloc(1, sizeof *decisions);
    char err[QD_ERR_LEN] = "";
    double duration_s;
    assert_non_null(decisions);
    struct qd_instance_options options = tiny_options("auto");
    options.device = device;
    options.dp = v->dp;
    options.max_num_batched_tokens = v->budget;
    options.max_num_seqs = v->seqs;
    options.max_model_len = 128;
    if (v->n_kv_blocks > 0) options.n_kv_blocks = v->n_kv_blocks;
    options.prefix_caching = v->prefix_caching;
    options.is_stepped = true;
    options.is_virtual = virtual_step_ns >= 0;
    options.null_step_ns = virtual_step_ns >= 0 ? virtual_step_ns : 0;
    options.n_step_rows = MAX_STEPS;
    options.recorder = (struct qd_step_recorder){.take = take_step, .arg = decisions};
    qd_instance_t *instance = open_instance(&options);
    ASSERT_OK(qd_records_create(workload, records, err, sizeof err), err);
    ASSERT_OK(qd_workload_drive(qd_instance_engine(instance), workload, way, *records, &duration_s, err,
                                sizeof err),
              err);
    take_rows(qd_instance_engine(instance), v->dp, decisions);
    qd_instance_close(instance);
    return decisions;
}

static void assert_same_rows(const char *what, const struct decisions *a, const struct decisions *b)
{
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->n_rows, a->n);
    for (int i = 0; i < a->n_rows; i++) {
        const struct qd_step_row *x = &a->rows[i], *y = &b->rows[i];
        if (x->replica != y->replica || x->n_admitted != y->n_admitted || x->n_preempted != y->n_preempted ||
            x->n_running != y->n_running || x->n_waiting != y->n_waiting ||
            x->n_kv_blocks != y->n_kv_blocks || x->n_prefill_tokens != y->n_prefill_tokens ||
            x->n_decode_tokens != y->n_decode_tokens || x->n_recomputed_tokens != y->n_recomputed_tokens ||
            x->n_hit_tokens != y->n_hit_tokens)
            fail_msg("%s: row %d, step %llu of replica %d, differs", what, i, (unsigned long long)x->index,
                     x->replica);
    }
}

static void assert_same_decisions(const char *what, const struct decisions *a, const struct decisions *b)
{
    for (int i = 0; i < a->n && i < b->n; i++) {
        const struct decision *x = &a->steps[i], *y = &b->steps[i];
        if (x->hash != y->hash)
            fail_msg("%s: step %d: %d tokens of %d sequences, %d rows; there %d of %d, %d", what, i,
                     x->n_tokens, x->n_seqs, x->n_rows, y->n_tokens, y->n_seqs, y->n_rows);
    }
    assert_int_equal(a->n, b->n);
    assert_same_rows(what, a, b);
}

static void assert_same_requests(const char *what, const struct qd_request_record *a,
                                 const struct qd_request_record *b)
{
    for (int i = 0; i < N_REQUESTS; i++)
        if (!a[i].success || !b[i].success || a[i].replica != b[i].replica ||
            a[i].output_len != b[i].output_len || a[i].preemptions != b[i].preemptions ||
            a[i].hit_tokens != b[i].hit_tokens)
            fail_msg("%s: request %d was served otherwise", what, i);
}

/* Prompts of 8 to 56 tokens behind 16 that all share, 4 to 28 output tokens. */
static void make_workload(struct qd_workload *out)
{
    char err[QD_ERR_LEN] = "";
    const struct qd_random_spec spec = {.n = N_REQUESTS,
                                        .input_len = 32,
                                        .output_len = 16,
                                        .prefix_len = 16,
                                        .range_ratio = 0.75,
                                        .seed = 5,
                                        .ids.n = TINY_N_TOKENS};
    ASSERT_OK(qd_workload_random(&spec, out, err, sizeof err), err);
}

static void check_way(const struct variation *v, int way, const struct qd_workload *workload)
{
    static const struct {
        const char *name;
        int64_t virtual_step_ns; /* < 0: real time */
    } nulls[] = {{"virtual time", STEP_NS}, {"virtual time, steps of 0", 0}, {"real time", -1}};
    struct qd_request_record *of_cpu, *of_null;
    struct decisions *cpu = decide(v, "cpu", -1, &ways[way], workload, &of_cpu);
    assert_int_equal(cpu->n_hit_tokens > 0, v->prefix_caching);
    if (v->n_kv_blocks > 0 && ways[way].pacing != QD_PACING_CLOSED) assert_true(cpu->n_preemptions > 0);
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++) {
        char what[128];
        snprintf(what, sizeof what, "%s, %s, %s", v->name, way_names[way], nulls[i].name);
        struct decisions *null = decide(v, "null", nulls[i].virtual_step_ns, &ways[way], workload, &of_null);
        assert_same_decisions(what, cpu, null);
        assert_same_requests(what, of_cpu, of_null);
        qd_records_free(of_null, N_REQUESTS);
        free(null);
    }
    qd_records_free(of_cpu, N_REQUESTS);
    free(cpu);
}

static void null_decides_as_cpu_does(void **state)
{
    (void)state;
    struct qd_workload workload;
    make_workload(&workload);
    for (size_t i = 0; i < sizeof variations / sizeof *variations; i += IS_SANITIZED ? 6 : 1)
        for (int way = 0; way < N_WAYS; way++) check_way(&variations[i], way, &workload);
    qd_workload_free(&workload);
}

/* Another budget decides otherwise: equal hashes would prove nothing if all were equal. */
static void another_budget_decides_otherwise(void **state)
{
    (void)state;
    struct qd_workload workload;
    struct qd_request_record *records;
    make_workload(&workload);
    struct variation other = variations[0];
    struct decisions *a = decide(&variations[0], "null", 0, &ways[0], &workload, &records);
    qd_records_free(records, N_REQUESTS);
    other.budget++;
    struct decisions *b = decide(&other, "null", 0, &ways[0], &workload, &records);
    qd_records_free(records, N_REQUESTS);
    int n_different = 0;
    for (int i = 0; i < a->n && i < b->n; i++) n_different += a->steps[i].hash != b->steps[i].hash;
    assert_true(n_different > a->n / 2);
    free(a);
    free(b);
    qd_workload_free(&workload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_decides_as_cpu_does),
        cmocka_unit_test(another_budget_decides_otherwise),
    };
    return cmocka_run_group_tests_name("engine decisions", tests, NULL, NULL);
}

#include "tests/support/result_fixture.h"

#include <ftw.h>
#include <math.h>

#include "harness/result/experiment.h"
#include "harness/result/files.h"
#include "models/json.h"
#include "tests/support/test.h"

static char *const ARGV[] = {"qdyno", "run", "--model", "micro"};

static void init_records(struct fixture_run *run, double ttft_ms, double gap_ms)
{
    const int64_t start = 5000000000;
    for (int i = 0; i < FIXTURE_REQUESTS; i++) {
        for (int k = 0; k < FIXTURE_TOKENS; k++)
            run->times[i][k] = start + (int64_t)((ttft_ms + gap_ms * k) * 1e6);
        run->records[i] = (struct qd_request_record){
            .prompt_len = 10,
            .max_tokens = FIXTURE_TOKENS,
            .output_len = FIXTURE_TOKENS,
            .replica = i % run->result.dp,
            .success = true,
            .finish = "length",
            .intended_ns = start,
            .submit_ns = start,
            .scheduled_ns = start + 1000,
            .token_ns = run->times[i],
        };
    }
}

void fixture_run_init(struct fixture_run *run, int tp, int dp, int64_t budget, double ttft_ms, double gap_ms)
{
    *run = (struct fixture_run){0};
    run->result = (struct qd_run_result){
        .date = "20260102-030405",
        .model_id = "micro",
        .version = "0.0",
        .commit = "abc123",
        .device = "cpu",
        .device_isa = "avx2",
        .numerics = "fused",
        .load_format = "dummy",
        .argc = 4,
        .argv = ARGV,
        .seed = UINT64_MAX,
        .workload = "closed",
        .workload_hash = "0123456789abcdef",
        .num_prompts = FIXTURE_REQUESTS,
        .max_concurrency = 2,
        .request_rate = INFINITY,
        .burstiness = 1,
        .tp = tp,
        .dp = dp,
        .n_threads = 4,
        .router = "round-robin",
        .dp_coupling = "none",
        .max_num_batched_tokens = budget,
        .max_num_seqs = 16,
        .max_model_len = 64,
        .n_kv_blocks = 32,
        .records = run->records,
        .n_records = FIXTURE_REQUESTS,
        .replicas = run->replicas,
        .num_warmups = 1,
        .warmup_ns = 7000000,
        .load_bytes = 2000000000,
        .load_ns = 1000000000,
        .machine = {.cpu_model = "Test CPU",
                    .cpu_isa = "avx2 fma",
                    .kernel = "Linux",
                    .n_cores = 4,
                    .n_cores_online = 8,
                    .threads_per_core = 1,
                    .memory_bytes = INT64_C(8) << 30},
    };
    init_records(run, ttft_ms, gap_ms);
    for (int i = 0; i < FIXTURE_REQUESTS; i++) {
        run->replicas[i % dp].n_prefill_tokens += 10;
        run->replicas[i % dp].n_decode_tokens += FIXTURE_TOKENS - 1;
    }
    fixture_run_finish(run);
}

void fixture_run_finish(struct fixture_run *run)
{
    double last = 0;
    for (int i = 0; i < FIXTURE_REQUESTS; i++) {
        const struct qd_request_record *r = &run->records[i];
        if (r->output_len == 0) continue;
        double end = (double)(r->token_ns[r->output_len - 1] - r->submit_ns) / 1e9;
        if (end > last) last = end;
    }
    struct qd_metrics_options options = {.duration_s = last, .n_gpus = run->result.tp * run->result.dp};
    assert_int_equal(qd_metrics_compute(run->records, FIXTURE_REQUESTS, &options, &run->result.metrics),
                     QD_OK);
    run->result.marks = qd_run_result_find_marks(&run->result);
}

void fixture_run_write(const struct fixture_run *run, const char *folder, int run_number)
{
    char err[QD_ERR_LEN] = "", cell[QD_CELL_NAME_LEN], name[QD_RUN_NAME_LEN], folder_name[512];
    const char *variant = run->result.variant;
    qd_cell_name(run->result.tp, run->result.dp, run->result.max_num_batched_tokens, cell);
    qd_run_name(run_number, name);
    snprintf(folder_name, sizeof folder_name, "%s%s%s", cell, variant != NULL ? "-" : "",
             variant != NULL ? variant : "");
    char *cell_folder = qd_path_join(folder, folder_name), *path = qd_path_join(cell_folder, name);
    ASSERT_OK(qd_folder_create(cell_folder, err, sizeof err), err);
    ASSERT_OK(qd_run_result_write(&run->result, path, err, sizeof err), err);
    free(path);
    free(cell_folder);
}

char *fixture_folder_create(void)
{
    char *folder = strdup("/tmp/qdyno-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

void fixture_folder_remove(char *folder)
{
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(folder);
}

int fixture_folder_setup(void **state)
{
    *state = fixture_folder_create();
    return 0;
}

int fixture_folder_teardown(void **state)
{
    fixture_folder_remove(*state);
    return 0;
}

void fixture_write(const char *folder, const char *name, const char *text)
{
    char err[QD_ERR_LEN] = "", *path = qd_path_join(folder, name);
    ASSERT_OK(qd_file_write_atomic(path, text, strlen(text), err, sizeof err), err);
    free(path);
}

char *fixture_read(const char *folder, const char *name)
{
    char err[QD_ERR_LEN] = "", *path = qd_path_join(folder, name), *text = NULL;
    size_t len;
    ASSERT_OK(qd_file_read(path, 1 << 24, &text, &len, err, sizeof err), err);
    free(path);
    return text;
}

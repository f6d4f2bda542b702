/* What a run leaves behind: atomic files, result.json with vLLM's keys, requests.jsonl. */
#include "tests/support/test.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "harness/result/files.h"
#include "harness/result/json_put.h"
#include "harness/result/marks.h"
#include "models/json.h"
#include "tests/support/result_fixture.h"

static int count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    int n = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static void test_atomic_write_replaces_and_leaves_nothing_else(void **state)
{
    (void)state;
    char *folder = fixture_folder_create();
    fixture_write(folder, "a.txt", "old");
    fixture_write(folder, "a.txt", "new");
    char *text = fixture_read(folder, "a.txt");
    assert_string_equal(text, "new");
    assert_int_equal(count_entries(folder), 1);
    free(text);
    fixture_folder_remove(folder);
}

static void test_discard_keeps_the_old_file(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", *folder = fixture_folder_create();
    fixture_write(folder, "a.txt", "old");
    char *path = qd_path_join(folder, "a.txt");
    struct qd_atomic_file file;
    ASSERT_OK(qd_atomic_file_open(&file, path, err, sizeof err), err);
    fputs("half", file.stream);
    qd_atomic_file_discard(&file);
    char *text = fixture_read(folder, "a.txt");
    assert_string_equal(text, "old");
    assert_int_equal(count_entries(folder), 1);
    free(text);
    free(path);
    fixture_folder_remove(folder);
}

static void test_write_errors_name_the_file(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_file_write_atomic("/nowhere/at/all.json", "x", 1, err, sizeof err), QD_ERR_IO);
    ASSERT_CONTAINS(err, "/nowhere/at/all.json");
    ASSERT_CONTAINS(err, "No such file");
    /* A folder is not replaced. */
    char *folder = fixture_folder_create(), *path = qd_path_join(folder, "sub");
    ASSERT_OK(qd_folder_create(path, err, sizeof err), err);
    assert_int_equal(qd_file_write_atomic(path, "x", 1, err, sizeof err), QD_ERR_IO);
    ASSERT_CONTAINS(err, path);
    assert_int_equal(count_entries(folder), 1);
    free(path);
    fixture_folder_remove(folder);
}

/* What can be known before anything is measured: no folder, no file of that name, no trace left. */
static void test_paths_are_checked_before_writing(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", *folder = fixture_folder_create(), *path = qd_path_join(folder, "a.json");
    ASSERT_OK(qd_file_check_writable(path, err, sizeof err), err);
    assert_int_equal(count_entries(folder), 0);
    fixture_write(folder, "a.json", "old");
    ASSERT_OK(qd_file_check_writable(path, err, sizeof err), err);
    char *text = fixture_read(folder, "a.json");
    assert_string_equal(text, "old");
    assert_int_equal(qd_file_check_writable(folder, err, sizeof err), QD_ERR_IO);
    ASSERT_CONTAINS(err, "is not a regular file");
    assert_int_equal(qd_file_check_writable("/dev/null", err, sizeof err), QD_ERR_IO);
    ASSERT_CONTAINS(err, "/dev/null: is not a regular file");
    assert_int_equal(qd_file_check_writable("/nowhere/at/all.json", err, sizeof err), QD_ERR_IO);
    ASSERT_CONTAINS(err, "/nowhere/at/all.json: cannot be written: No such file");
    free(text);
    free(path);
    fixture_folder_remove(folder);
}

/* A write that fails half-way, as on a full disk, keeps the old file and leaves nothing beside it. */
static void test_a_failed_write_keeps_the_old_file(void **state)
{
    (void)state;
    enum { LIMIT = 4096, SIZE = 100000 };
    char err[QD_ERR_LEN] = "", *folder = fixture_folder_create(), *path = qd_path_join(folder, "a.txt");
    fixture_write(folder, "a.txt", "old");
    char *data = calloc(SIZE, 1);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){LIMIT, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    qd_status st = qd_file_write_atomic(path, data, SIZE, err, sizeof err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(st, QD_ERR_IO);
    ASSERT_CONTAINS(err, "a.txt: cannot be written");
    char *text = fixture_read(folder, "a.txt");
    assert_string_equal(text, "old");
    assert_int_equal(count_entries(folder), 1);
    free(text);
    free(data);
    free(path);
    fixture_folder_remove(folder);
}

static void test_folders_are_created_with_their_parents(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", *folder = fixture_folder_create(), *deep = qd_path_join(folder, "a/b/c");
    ASSERT_OK(qd_folder_create(deep, err, sizeof err), err);
    ASSERT_OK(qd_folder_create(deep, err, sizeof err), err);
    fixture_write(deep, "f", "x");
    char *through_file = qd_path_join(deep, "f/g");
    assert_int_equal(qd_folder_create(through_file, err, sizeof err), QD_ERR_IO);
    ASSERT_CONTAINS(err, "is not a folder");
    free(through_file);
    free(deep);
    fixture_folder_remove(folder);
}

/* Keys and order of vLLM's --save-result, then the three that its sweep plotters read, then ours. */
static const char *const KEYS[] = {
    "date",
    "endpoint_type",
    "backend",
    "label",
    "model_id",
    "tokenizer_id",
    "num_prompts",
    "request_rate",
    "burstiness",
    "max_concurrency",
    "duration",
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
    "request_goodput",
    "output_throughput",
    "total_token_throughput",
    "max_output_tokens_per_s",
    "max_concurrent_requests",
    "rtfx",
    "mean_ttft_ms",
    "median_ttft_ms",
    "std_ttft_ms",
    "p50_ttft_ms",
    "p90_ttft_ms",
    "p95_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "median_tpot_ms",
    "std_tpot_ms",
    "p50_tpot_ms",
    "p90_tpot_ms",
    "p95_tpot_ms",
    "p99_tpot_ms",
    "mean_itl_ms",
    "median_itl_ms",
    "std_itl_ms",
    "p50_itl_ms",
    "p90_itl_ms",
    "p95_itl_ms",
    "p99_itl_ms",
    "mean_e2el_ms",
    "median_e2el_ms",
    "std_e2el_ms",
    "p50_e2el_ms",
    "p90_e2el_ms",
    "p95_e2el_ms",
    "p99_e2el_ms",
    "tensor_parallel_size",
    "data_parallel_size",
    "max_num_batched_tokens",
    "qdyno",
};

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("%s is not a number", key);
    return item->valuedouble;
}

static void test_result_has_vllm_keys_in_their_order(void **state)
{
    (void)state;
    struct fixture_run run;
    fixture_run_init(&run, 2, 2, 64, 10, 4);
    cJSON *root = qd_run_result_to_json(&run.result);
    assert_non_null(root);
    const cJSON *item = root->child;
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++, item = item->next) {
        assert_non_null(item);
        assert_string_equal(item->string, KEYS[i]);
    }
    assert_null(item);
    assert_string_equal(cJSON_GetObjectItem(root, "request_rate")->valuestring, "inf");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(root, "label")));
    assert_true(number(root, "total_output_tokens") == 20);
    assert_true(fabs(number(root, "duration") - 0.026) < 1e-12);
    assert_true(fabs(number(root, "median_ttft_ms") - 10) < 1e-9);
    assert_true(fabs(number(root, "p99_itl_ms") - 4) < 1e-9);
    assert_true(fabs(number(root, "mean_e2el_ms") - 26) < 1e-9);
    cJSON_Delete(root);
}

static void test_result_keeps_ours_under_one_key(void **state)
{
    (void)state;
    struct fixture_run run;
    fixture_run_init(&run, 2, 3, 64, 10, 4);
    cJSON *root = qd_run_result_to_json(&run.result);
    const cJSON *own = cJSON_GetObjectItem(root, "qdyno");
    assert_true(number(own, "schema_version") == QD_RESULT_SCHEMA_VERSION);
    /* 64 bits of seed survive, as text. */
    assert_string_equal(cJSON_GetObjectItem(own, "seed")->valuestring, "18446744073709551615");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(own, "argv")), 4);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(own, "replicas")), 3);
    /* 6 ranks on 4 cores. */
    const cJSON *marks = cJSON_GetObjectItem(own, "marks");
    assert_int_equal(cJSON_GetArraySize(marks), 1);
    assert_string_equal(marks->child->valuestring, "more ranks than cores: no TP or DP conclusion");
    /* Replica 0 took 2 of 4 requests: 28 tokens against a mean of 56 / 3. */
    assert_true(fabs(number(own, "imbalance") - 1.5) < 1e-12);
    assert_true(fabs(number(cJSON_GetObjectItem(own, "load"), "gbps") - 2) < 1e-12);
    const cJSON *rates = cJSON_GetObjectItem(own, "throughput");
    assert_true(fabs(number(rates, "tok_s_per_gpu") * 6 - number(rates, "output_tok_s")) < 1e-9);
    cJSON_Delete(root);
}

/* A fallback stays with the numbers it explains. */
static void test_replicas_say_how_they_sum(void **state)
{
    (void)state;
    struct fixture_run run;
    fixture_run_init(&run, 2, 2, 64, 10, 4);
    const struct qd_run_device devices[] = {{"nccl", "every collective goes by NCCL: GPU 0 cannot"}, {0}};
    run.result.devices = devices;
    cJSON *root = qd_run_result_to_json(&run.result);
    const cJSON *replicas = cJSON_GetObjectItem(cJSON_GetObjectItem(root, "qdyno"), "replicas");
    const cJSON *first = cJSON_GetArrayItem(replicas, 0), *second = cJSON_GetArrayItem(replicas, 1);
    assert_string_equal(cJSON_GetObjectItem(first, "collectives")->valuestring, "nccl");
    assert_string_equal(cJSON_GetObjectItem(first, "device_note")->valuestring, devices[0].note);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(second, "collectives")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(second, "device_note")));
    cJSON_Delete(root);
}

static void test_ranks_on_one_gpu_are_marked(void **state)
{
    (void)state;
    struct fixture_run run;
    fixture_run_init(&run, 2, 1, 64, 10, 4);
    run.result.ranks_per_gpu = 1;
    assert_int_equal(qd_run_result_find_marks(&run.result) & QD_MARK_SHARED_GPUS, 0);
    run.result.ranks_per_gpu = 2;
    run.result.marks = qd_run_result_find_marks(&run.result);
    assert_int_equal(run.result.marks & QD_MARK_SHARED_GPUS, QD_MARK_SHARED_GPUS);
    cJSON *root = qd_run_result_to_json(&run.result);
    const cJSON *own = cJSON_GetObjectItem(root, "qdyno");
    assert_true(number(cJSON_GetObjectItem(own, "device"), "ranks_per_gpu") == 2);
    assert_string_equal(cJSON_GetObjectItem(own, "marks")->child->valuestring,
                        "ranks shared a GPU: not comparable");
    cJSON_Delete(root);
    run.result.tp = 1; /* alone */
    assert_int_equal(qd_run_result_find_marks(&run.result) & QD_MARK_SHARED_GPUS, 0);
}

/* vLLM writes 0 where there is no sample; ours is null, so that nobody takes it for a fast run. */
static void test_no_sample_is_null_in_ours(void **state)
{
    (void)state;
    struct fixture_run run;
    fixture_run_init(&run, 1, 1, 64, 10, 4);
    for (int i = 0; i < FIXTURE_REQUESTS; i++) {
        run.records[i].success = false;
        run.records[i].output_len = 0;
    }
    fixture_run_finish(&run);
    cJSON *root = qd_run_result_to_json(&run.result);
    assert_true(number(root, "failed") == FIXTURE_REQUESTS);
    assert_true(number(root, "p99_ttft_ms") == 0);
    const cJSON *latency = cJSON_GetObjectItem(cJSON_GetObjectItem(root, "qdyno"), "latency_ms");
    const cJSON *ttft = cJSON_GetObjectItem(latency, "ttft");
    assert_true(number(ttft, "n") == 0);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(ttft, "p50")));
    cJSON_Delete(root);
}

static void test_bytes_that_are_not_utf8_do_not_spoil_the_file(void **state)
{
    (void)state;
    struct fixture_run run;
    char *folder = fixture_folder_create(), err[QD_ERR_LEN] = "";
    fixture_run_init(&run, 1, 1, 64, 10, 4);
    run.result.label = "a\xff\xc3\xa9\xc3";
    fixture_run_write(&run, folder, 0);
    char *path = qd_path_join(folder, "tp=1-dp=1-max_num_batched_tokens=64/run=0.json");
    cJSON *root = NULL;
    ASSERT_OK(qd_json_read_file(path, 1 << 20, &root, err, sizeof err), err);
    assert_string_equal(cJSON_GetObjectItem(root, "label")->valuestring, "a\xEF\xBF\xBD\xc3\xa9\xEF\xBF\xBD");
    cJSON_Delete(root);
    free(path);
    fixture_folder_remove(folder);
}

/* Adds the gaps of one row to `gaps` (ms) and checks what the row says of itself. */
static uint64_t add_row(const char *line, size_t len, uint64_t index, double *gaps, uint64_t n_gaps)
{
    char err[QD_ERR_LEN] = "";
    cJSON *row = NULL;
    ASSERT_OK(qd_json_parse(line, len, NULL, &row, err, sizeof err), err);
    assert_true(number(row, "index") == (double)index);
    const cJSON *pair;
    double n_row = 0, previous = -1;
    cJSON_ArrayForEach (pair, cJSON_GetObjectItem(row, "gaps")) {
        double gap = pair->child->valuedouble, count = pair->child->next->valuedouble;
        assert_true(gap != previous);
        previous = gap;
        n_row += count;
        for (int i = 0; i < (int)count && cJSON_IsTrue(cJSON_GetObjectItem(row, "completed")); i++)
            gaps[n_gaps++] = gap / 1e6;
    }
    double output_len = number(row, "output_len");
    assert_true(n_row == (output_len > 1 ? output_len - 1 : 0));
    cJSON_Delete(row);
    return n_gaps;
}

/* The pooled inter-token percentiles can be computed again from the pairs, bit for bit. */
static void test_requests_file_gives_the_pooled_gaps_back(void **state)
{
    (void)state;
    struct fixture_run run;
    char *folder = fixture_folder_create(), err[QD_ERR_LEN] = "",
         *path = qd_path_join(folder, "requests.jsonl");
    fixture_run_init(&run, 1, 2, 64, 10, 4);
    run.times[0][3] += 1234567; /* two odd gaps among equal ones */
    run.records[1].output_len = 1;
    run.records[2].success = false;
    run.records[2].error = "said \"no\"\n";
    run.records[3].output_len = 0;
    run.records[3].scheduled_ns = 0;
    fixture_run_finish(&run);
    ASSERT_OK(qd_requests_write(run.records, FIXTURE_REQUESTS, path, err, sizeof err), err);
    char *text = fixture_read(folder, "requests.jsonl");
    double gaps[FIXTURE_REQUESTS * FIXTURE_TOKENS];
    uint64_t n_gaps = 0, n_rows = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        n_gaps = add_row(line, (size_t)(end - line), n_rows++, gaps, n_gaps);
    assert_int_equal(n_rows, FIXTURE_REQUESTS);
    struct qd_distribution again = qd_distribution_of(gaps, n_gaps);
    assert_int_equal(again.n, 4);
    assert_memory_equal(&again, &run.result.metrics.latency.itl, sizeof again);
    ASSERT_CONTAINS(text, "\"submit_ns\":0,\"scheduled_ns\":1000,\"first_token_ns\":10000000");
    ASSERT_CONTAINS(text, "\"scheduled_ns\":null,\"first_token_ns\":null,\"last_token_ns\":null,\"gaps\":[]");
    ASSERT_CONTAINS(text, "\"gaps\":[[4000000,2],[5234567,1],[2765433,1]]");
    free(text);
    free(path);
    fixture_folder_remove(folder);
}

static void test_date_has_vllm_form(void **state)
{
    (void)state;
    char date[QD_DATE_LEN];
    qd_date_now(date);
    assert_int_equal(strlen(date), 15);
    assert_int_equal(date[8], '-');
    assert_int_equal(strspn(date, "0123456789-"), 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_atomic_write_replaces_and_leaves_nothing_else),
        cmocka_unit_test(test_discard_keeps_the_old_file),
        cmocka_unit_test(test_write_errors_name_the_file),
        cmocka_unit_test(test_paths_are_checked_before_writing),
        cmocka_unit_test(test_a_failed_write_keeps_the_old_file),
        cmocka_unit_test(test_folders_are_created_with_their_parents),
        cmocka_unit_test(test_result_has_vllm_keys_in_their_order),
        cmocka_unit_test(test_result_keeps_ours_under_one_key),
        cmocka_unit_test(test_replicas_say_how_they_sum),
        cmocka_unit_test(test_ranks_on_one_gpu_are_marked),
        cmocka_unit_test(test_no_sample_is_null_in_ours),
        cmocka_unit_test(test_bytes_that_are_not_utf8_do_not_spoil_the_file),
        cmocka_unit_test(test_requests_file_gives_the_pooled_gaps_back),
        cmocka_unit_test(test_date_has_vllm_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

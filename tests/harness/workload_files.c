/* Prompts, ShareGPT and traces from files: what is taken, what is refused and how it is named. */
#include "tests/support/test.h"

#include "tests/support/prompt_files.h"

enum { VOCAB = 151643 };

static struct qd_trace_spec trace_spec(const char *path)
{
    return (struct qd_trace_spec){.path = path, .columns = "auto", .speedup = 1, .ids.n = VOCAB};
}

static struct qd_workload trace(struct prompt_files *fixture, const struct qd_trace_spec *spec)
{
    struct qd_workload workload;
    ASSERT_OK(qd_workload_trace(spec, &workload, fixture->err, sizeof fixture->err), fixture->err);
    return workload;
}

static void refuse_trace(struct prompt_files *fixture, const struct qd_trace_spec *spec, const char *text)
{
    struct qd_workload workload;
    assert_int_equal(qd_workload_trace(spec, &workload, fixture->err, sizeof fixture->err), QD_ERR_INPUT);
    ASSERT_CONTAINS(fixture->err, text);
    assert_null(workload.requests);
}

static void a_line_is_a_prompt(void **state)
{
    struct prompt_files *fixture = *state;
    struct qd_prompts_spec spec = {.path = prompt_file(fixture, "Once upon\r\n\n  a time \nthere"),
                                   .output_len = 7,
                                   .tokenizer = fixture->tokenizer};
    struct qd_workload workload;
    ASSERT_OK(qd_workload_prompts(&spec, &workload, fixture->err, sizeof fixture->err), fixture->err);
    const char *texts[] = {"Once upon", "  a time ", "there"};
    assert_int_equal(workload.n, 3);
    for (int i = 0; i < 3; i++) {
        assert_prompt(fixture, &workload.requests[i], texts[i], strlen(texts[i]));
        assert_int_equal(workload.requests[i].max_tokens, 7);
    }
    qd_workload_free(&workload);
    spec.n = 4;
    assert_int_equal(qd_workload_prompts(&spec, &workload, fixture->err, sizeof fixture->err), QD_ERR_INPUT);
    ASSERT_CONTAINS(fixture->err, "3 requests, fewer than --num-prompts 4");
}

static void jsonl_has_arrivals_and_blocks(void **state)
{
    struct prompt_files *fixture = *state;
    struct qd_trace_spec spec = trace_spec(prompt_file(
        fixture,
        "{\"timestamp\": 100, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [3, 4]}\n"
        "{\"timestamp\": 100.5, \"input_length\": 1000, \"output_length\": 6, \"hash_ids\": [3, 5]}\n"
        "{\"timestamp\": 3100, \"input_length\": 7, \"output_length\": 1}\n"));
    struct qd_workload workload = trace(fixture, &spec);
    const struct qd_workload_request *r = workload.requests;
    assert_int_equal(workload.n, 3);
    assert_true(workload.has_arrivals && workload.ignore_eos);
    assert_int_equal(r[0].arrival_ns, 0);
    assert_int_equal(r[1].arrival_ns, 500000);
    assert_int_equal(r[2].arrival_ns, INT64_C(3000000000));
    assert_int_equal(r[0].n_prompt, 600);
    assert_int_equal(r[1].max_tokens, 6);
    assert_memory_equal(r[0].prompt, r[1].prompt, 512 * sizeof(int32_t));
    assert_int_not_equal(r[0].prompt[512], r[1].prompt[512]);
    qd_workload_free(&workload);
    spec.speedup = 10;
    spec.n = 2;
    spec.output_len = 9;
    workload = trace(fixture, &spec);
    assert_int_equal(workload.n, 2);
    assert_int_equal(workload.requests[1].arrival_ns, 50000);
    assert_int_equal(workload.requests[0].max_tokens, 9);
    qd_workload_free(&workload);
}

static void bad_jsonl_is_named(void **state)
{
    struct prompt_files *fixture = *state;
    const struct {
        const char *line, *reason;
    } bad[] = {
        {"[1]", "line 2: no JSON object"},
        {"{\"timestamp\": 1, \"output_length\": 5}", "line 2: input_length: "},
        {"{\"timestamp\": \"x\", \"input_length\": 1, \"output_length\": 5}", "line 2: timestamp: "},
        {"{\"timestamp\": 2, \"input_length\": 0, \"output_length\": 5}", "line 2: input_length: "},
        {"{\"timestamp\": 2, \"input_length\": 1, \"output_length\": 0}", "line 2: no output tokens"},
        {"{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 5}",
         "line 2: it arrives 0.001 s before"},
        {"{\"timestamp\": 2, \"input_length\": 513, \"output_length\": 5, \"hash_ids\": [1]}", "1 hash_ids"},
        {"{\"timestamp\": 2, \"input_length\": 512, \"output_length\": 5, \"hash_ids\": [1, 2]}",
         "2 hash_ids"},
        {"{\"timestamp\": 2, \"input_length\": 1, \"output_length\": 5, \"hash_ids\": [0.5]}",
         "no whole number"},
        {"{\"timestamp\": 2, \"input_length\": 1, \"output_length\": 5, \"hash_ids\": 1}", "is no list"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"timestamp\": 1, \"input_length\": 4, \"output_length\": 5}\n%s\n",
                 bad[i].line);
        struct qd_trace_spec spec = trace_spec(prompt_file(fixture, text));
        refuse_trace(fixture, &spec, bad[i].reason);
    }
}

static void csv_columns_have_presets(void **state)
{
    struct prompt_files *fixture = *state;
    struct qd_trace_spec spec = trace_spec(
        prompt_file(fixture, "request_num_decode_tokens,request_arrived_at,request_num_prefill_tokens\n"
                             "3,0.25,10\n4,1.5,20\n"));
    struct qd_workload workload = trace(fixture, &spec);
    assert_int_equal(workload.n, 2);
    assert_int_equal(workload.requests[1].arrival_ns, 1250000000);
    assert_int_equal(workload.requests[1].n_prompt, 20);
    assert_int_equal(workload.requests[1].max_tokens, 4);
    qd_workload_free(&workload);
}

static void csv_columns_can_be_named(void **state)
{
    struct prompt_files *fixture = *state;
    struct qd_trace_spec spec = trace_spec(prompt_file(fixture, "t,in,out\n2023-11-16T23:59:59.5Z,1,2\n"
                                                                "2023-11-17 00:00:01,3,4\n"));
    refuse_trace(fixture, &spec, "none of the known traces'");
    spec.columns = "t,in,out";
    struct qd_workload workload = trace(fixture, &spec);
    assert_int_equal(workload.requests[1].arrival_ns, 1500000000);
    assert_int_equal(workload.requests[1].max_tokens, 4);
    qd_workload_free(&workload);
    spec.columns = ",in,"; /* lengths only */
    refuse_trace(fixture, &spec, "line 2: no output tokens, and --output-len is not given");
    spec.output_len = 8;
    workload = trace(fixture, &spec);
    assert_false(workload.has_arrivals);
    assert_int_equal(workload.requests[1].n_prompt, 3);
    assert_int_equal(workload.requests[1].max_tokens, 8);
    qd_workload_free(&workload);
    const char *bad[] = {"t,in", "t,in,out,more", "t,,out", "nothing"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        spec.columns = bad[i];
        refuse_trace(fixture, &spec, "is no preset and not ARRIVAL,INPUT,OUTPUT");
    }
    spec.columns = "t,in,answer";
    refuse_trace(fixture, &spec, "no column \"answer\"");
    spec.columns = "azure";
    refuse_trace(fixture, &spec, "no column \"TIMESTAMP\"");
}

static void bad_csv_is_named(void **state)
{
    struct prompt_files *fixture = *state;
    const struct {
        const char *row, *reason;
    } bad[] = {
        {"yesterday,1,2", "line 2: TIMESTAMP: \"yesterday\" is neither seconds"},
        {"2023-11-16 18:15:46+01:00,1,2", "line 2: TIMESTAMP"},
        {"1,x,2", "line 2: ContextTokens: \"x\""},
        {"1,0,2", "line 2: ContextTokens: \"0\""},
        {"1,2,-1", "line 2: GeneratedTokens: \"-1\""},
        {"1,2,0", "line 2: no output tokens"},
        {"1,2", "2 fields where the header has 3"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[128];
        snprintf(text, sizeof text, "TIMESTAMP,ContextTokens,GeneratedTokens\n%s\n", bad[i].row);
        struct qd_trace_spec spec = trace_spec(prompt_file(fixture, text));
        refuse_trace(fixture, &spec, bad[i].reason);
    }
    struct qd_trace_spec spec = trace_spec(prompt_file(fixture, "TIMESTAMP,ContextTokens,GeneratedTokens\n"));
    refuse_trace(fixture, &spec, "no requests");
}

/* Totals of a public trace, against the figures kept with it. */
static void check_trace(struct prompt_files *fixture, const char *name, size_t n, double duration_s,
                        int64_t n_in, int64_t n_out, int32_t longest)
{
    char path[256];
    snprintf(path, sizeof path, SHARED_DATA "real/traces/%s", name);
    NEED_FILE(path);
    struct qd_trace_spec spec = trace_spec(path);
    struct qd_workload workload = trace(fixture, &spec);
    int64_t in = 0, out = 0;
    int32_t max = 0;
    for (size_t i = 0; i < workload.n; i++) {
        in += workload.requests[i].n_prompt;
        out += workload.requests[i].max_tokens;
        if (workload.requests[i].n_prompt > max) max = workload.requests[i].n_prompt;
    }
    assert_int_equal(workload.n, n);
    assert_int_equal(in, n_in);
    assert_int_equal(out, n_out);
    assert_int_equal(max, longest);
    assert_within((double)workload.requests[n - 1].arrival_ns * 1e-9, duration_s, 5e-4);
    qd_workload_free(&workload);
}

static void mooncake_is_read(void **state)
{
    check_trace(*state, "mooncake-conversation.jsonl", 250, 86.999, 3534037, 91107, 120633);
}

static void azure_is_read(void **state)
{
    check_trace(*state, "azure-llm-code.csv", 600, 261.636, 1283287, 15900, 7436);
}

static void burstgpt_is_read(void **state)
{
    check_trace(*state, "burstgpt-synthetic.csv", 4, 172.5, 417 + 185 + 50 + 2100, 276 + 215 + 1 + 77, 2100);
}

/* vLLM's filter with the tokenizer of Qwen3: which four of ten, in any order. */
static void sharegpt_is_filtered(void **state)
{
    struct prompt_files *fixture = *state;
    const char *path = SHARED_DATA "real/sharegpt/sharegpt-synthetic.json";
    NEED_FILE(path);
    qd_tokenizer_t *tokenizer = load_tokenizer(QWEN3_TOKENIZER);
    struct qd_sharegpt_spec spec = {.path = path, .tokenizer = tokenizer};
    const int32_t expected[4][2] = {{7, 7}, {7, 17}, {17, 15}, {19, 33}};
    for (spec.seed = 0; spec.seed < 5; spec.seed++) {
        struct qd_workload workload;
        ASSERT_OK(qd_workload_sharegpt(&spec, &workload, fixture->err, sizeof fixture->err), fixture->err);
        assert_int_equal(workload.n, 4);
        bool seen[4] = {false};
        for (int i = 0; i < 4; i++)
            for (int k = 0; k < 4; k++)
                seen[k] = seen[k] || (workload.requests[i].n_prompt == expected[k][0] &&
                                      workload.requests[i].max_tokens == expected[k][1]);
        for (int k = 0; k < 4; k++) assert_true(seen[k]);
        qd_workload_free(&workload);
    }
    qd_tokenizer_free(tokenizer);
}

#define SIX_WORDS "{\"from\": \"human\", \"value\": \"One two three four five six\"}"
#define ONE_WORD  "{\"from\": \"gpt\", \"value\": \"a\"}"

static void sharegpt_rules_by_hand(void **state)
{
    struct prompt_files *fixture = *state;
    const char *path =
        prompt_file(fixture, "[{\"id\": \"a\", \"conversations\": [" SIX_WORDS ", " SIX_WORDS "]},"
                             "{\"id\": \"b\", \"conversations\": [" SIX_WORDS "]},"
                             "{\"id\": \"c\", \"conversations\": [" SIX_WORDS ", " ONE_WORD "]}]");
    struct qd_sharegpt_spec spec = {.path = path, .tokenizer = fixture->tokenizer};
    struct qd_workload workload;
    ASSERT_OK(qd_workload_sharegpt(&spec, &workload, fixture->err, sizeof fixture->err), fixture->err);
    assert_int_equal(workload.n, 1);
    qd_workload_free(&workload);
    spec.output_len = 2; /* a length that was asked for makes short answers welcome */
    ASSERT_OK(qd_workload_sharegpt(&spec, &workload, fixture->err, sizeof fixture->err), fixture->err);
    assert_int_equal(workload.n, 2);
    qd_workload_free(&workload);
    spec.path = prompt_file(fixture, "[{\"id\": \"x\", \"conversations\": [{\"value\": 3}, {}]}]");
    assert_int_equal(qd_workload_sharegpt(&spec, &workload, fixture->err, sizeof fixture->err), QD_ERR_INPUT);
    ASSERT_CONTAINS(fixture->err, "conversation \"x\": conversations[0]: \"value\" is no text");
    spec.path = prompt_file(fixture, "{}");
    assert_int_equal(qd_workload_sharegpt(&spec, &workload, fixture->err, sizeof fixture->err), QD_ERR_INPUT);
    ASSERT_CONTAINS(fixture->err, "no list of conversations");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PROMPT_FILES(a_line_is_a_prompt),       WITH_PROMPT_FILES(jsonl_has_arrivals_and_blocks),
        WITH_PROMPT_FILES(bad_jsonl_is_named),       WITH_PROMPT_FILES(csv_columns_have_presets),
        WITH_PROMPT_FILES(csv_columns_can_be_named), WITH_PROMPT_FILES(bad_csv_is_named),
        WITH_PROMPT_FILES(mooncake_is_read),         WITH_PROMPT_FILES(azure_is_read),
        WITH_PROMPT_FILES(burstgpt_is_read),         WITH_PROMPT_FILES(sharegpt_is_filtered),
        WITH_PROMPT_FILES(sharegpt_rules_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

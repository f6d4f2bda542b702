/* vLLM's custom JSONL: rows as they are, lengths from the row or above it, errors with file, line and field.
 */
#include "tests/support/test.h"

#include "tests/support/prompt_files.h"

/* A spec over a file with that text. */
static struct qd_custom_spec spec_of(struct prompt_files *fixture, const char *text)
{
    return (struct qd_custom_spec){
        .path = prompt_file(fixture, text), .default_output_len = 256, .tokenizer = fixture->tokenizer};
}

static void rows_are_read_as_they_are(void **state)
{
    struct prompt_files *fixture = *state;
    struct qd_custom_spec spec =
        spec_of(fixture, "{\"prompt\": \"One \\u0000 <|im_end|>\", \"output_tokens\": 7, \"more\": {}}\r\n"
                         "\n  \n{\"output_tokens\": null, \"prompt\": \"Two\"}");
    struct qd_workload workload;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_workload_custom(&spec, &workload, err, sizeof err), err);
    assert_int_equal(workload.n, 2);
    assert_false(workload.ignore_eos);
    assert_prompt(fixture, &workload.requests[0], "One \0 <|im_end|>", 16);
    assert_prompt(fixture, &workload.requests[1], "Two", 3);
    assert_int_equal(workload.requests[0].max_tokens, 7);
    assert_int_equal(workload.requests[1].max_tokens, 256);
    qd_workload_free(&workload);
}

static void options_stand_above_rows(void **state)
{
    struct prompt_files *fixture = *state;
    struct qd_custom_spec spec = spec_of(fixture, "{\"prompt\": \"One\", \"output_tokens\": 7}\n"
                                                  "{\"prompt\": \"Two\", \"output_tokens\": \"no number\"}\n"
                                                  "no JSON, but beyond --num-prompts\n");
    spec.n = 2;
    spec.output_len = 9;
    spec.ignore_eos = true;
    struct qd_workload workload;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_workload_custom(&spec, &workload, err, sizeof err), err);
    assert_int_equal(workload.n, 2);
    assert_true(workload.ignore_eos);
    assert_int_equal(workload.requests[0].max_tokens, 9);
    assert_int_equal(workload.requests[1].max_tokens, 9);
    qd_workload_free(&workload);
}

static void refuse(struct prompt_files *fixture, const char *text, int64_t n, const char *reason)
{
    struct qd_custom_spec spec = spec_of(fixture, text);
    spec.n = n;
    struct qd_workload workload;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_workload_custom(&spec, &workload, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, spec.path);
    ASSERT_CONTAINS(err, reason);
    assert_null(workload.requests);
}

static void bad_rows_are_named(void **state)
{
    struct prompt_files *fixture = *state;
    refuse(fixture, "", 0, "no requests");
    refuse(fixture, "\n \n", 0, "no requests");
    refuse(fixture, "{\"prompt\": \"a\"}\n\n{\"prompt\": \"a\"\n", 0,
           "line 3: byte 14: the text ends too early");
    refuse(fixture, "{\"prompt\": \"a\"} {}\n", 0, "line 1: byte 16: something follows");
    refuse(fixture, "[\"a\"]\n", 0, "line 1: no JSON object");
    refuse(fixture, "{\"text\": \"a\"}\n", 0, "line 1: \"prompt\" is no text");
    refuse(fixture, "{\"prompt\": [1, 2]}\n", 0, "line 1: \"prompt\" is no text");
    refuse(fixture, "{\"prompt\": \"\"}\n", 0, "line 1: \"prompt\" has 0 tokens");
    refuse(fixture, "{\"prompt\": \"a\xff\"}\n", 0, "line 1: byte 13: invalid UTF-8");
    refuse(fixture, "{\"prompt\": \"a\", \"output_tokens\": 0}\n", 0, "line 1: output_tokens");
    refuse(fixture, "{\"prompt\": \"a\", \"output_tokens\": 1.5}\n", 0, "line 1: output_tokens");
    refuse(fixture, "{\"prompt\": \"a\", \"output_tokens\": \"9\"}\n", 0, "line 1: output_tokens");
    refuse(fixture, "{\"prompt\": \"a\"}\n", 2, "1 requests, fewer than --num-prompts 2");
}

static void a_length_must_come_from_somewhere(void **state)
{
    struct prompt_files *fixture = *state;
    struct qd_custom_spec spec = spec_of(fixture, "{\"prompt\": \"a\"}\n");
    spec.default_output_len = 0;
    struct qd_workload workload;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_workload_custom(&spec, &workload, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "line 1: output_tokens");
    spec.path = in_dir(&fixture->dir, "absent.jsonl");
    assert_int_equal(qd_workload_custom(&spec, &workload, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "absent.jsonl");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PROMPT_FILES(rows_are_read_as_they_are),
        WITH_PROMPT_FILES(options_stand_above_rows),
        WITH_PROMPT_FILES(bad_rows_are_named),
        WITH_PROMPT_FILES(a_length_must_come_from_somewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

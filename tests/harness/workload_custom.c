/* vLLM's custom JSONL: rows as they are, lengths from the row or above it, errors with file, line and field.
 */
#include "tests/support/test.h"

#include "harness/workload/workload.h"
#include "tests/support/files.h"
#include "tests/support/tokenizer.h"

struct fixture {
    struct temp_dir dir;
    qd_tokenizer_t *tokenizer;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->dir = temp_dir_create();
    fixture->tokenizer = load_tokenizer(TINY_MODEL);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    qd_tokenizer_free(fixture->tokenizer);
    temp_dir_remove(&fixture->dir);
    free(fixture);
    return 0;
}

/* A spec over a file with that text. */
static struct qd_custom_spec spec_of(const struct fixture *fixture, const char *text)
{
    const char *path = in_dir(&fixture->dir, "prompts.jsonl");
    write_text(path, text);
    return (struct qd_custom_spec){.path = path, .default_output_len = 256, .tokenizer = fixture->tokenizer};
}

static void assert_prompt(const struct fixture *fixture, const struct qd_workload_request *request,
                          const char *text, size_t len)
{
    char err[QD_ERR_LEN] = "";
    int32_t *ids;
    size_t n;
    ASSERT_OK(qd_tokenizer_encode(fixture->tokenizer, text, len, &ids, &n, err, sizeof err), err);
    assert_same_ids(request->prompt, (size_t)request->n_prompt, ids, n, text);
    free(ids);
}

static void rows_are_read_as_they_are(void **state)
{
    const struct fixture *fixture = *state;
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
    const struct fixture *fixture = *state;
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

static void refuse(const struct fixture *fixture, const char *text, int64_t n, const char *reason)
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
    const struct fixture *fixture = *state;
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
    const struct fixture *fixture = *state;
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
        cmocka_unit_test_setup_teardown(rows_are_read_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(options_stand_above_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_rows_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_length_must_come_from_somewhere, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

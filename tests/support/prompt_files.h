/* Files of prompts and the tiny model's tokenizer: the state of tests that read workloads. */
#ifndef QD_TESTS_SUPPORT_PROMPT_FILES_H
#define QD_TESTS_SUPPORT_PROMPT_FILES_H

#include "harness/workload/workload.h"
#include "tests/support/files.h"
#include "tests/support/tokenizer.h"

struct prompt_files {
    struct temp_dir dir;
    qd_tokenizer_t *tokenizer;
    char err[QD_ERR_LEN];
};

/* An entry of a cmocka table whose *state is a struct prompt_files. */
#define WITH_PROMPT_FILES(test)                                                                              \
    cmocka_unit_test_setup_teardown(test, prompt_files_setup, prompt_files_teardown)
int prompt_files_setup(void **state);
int prompt_files_teardown(void **state);

/* The path of a file with that text, overwritten by the next. */
const char *prompt_file(struct prompt_files *files, const char *text);

/* Fails the test unless the request's prompt is what the tokenizer makes of text[0..len). */
void assert_prompt(struct prompt_files *files, const struct qd_workload_request *request, const char *text,
                   size_t len);

#endif

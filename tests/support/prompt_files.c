#include "tests/support/prompt_files.h"

#include "tests/support/test.h"

int prompt_files_setup(void **state)
{
    struct prompt_files *files = calloc(1, sizeof *files);
    assert_non_null(files);
    files->dir = temp_dir_create();
    files->tokenizer = load_tokenizer(TINY_MODEL);
    *state = files;
    return 0;
}

int prompt_files_teardown(void **state)
{
    struct prompt_files *files = *state;
    qd_tokenizer_free(files->tokenizer);
    temp_dir_remove(&files->dir);
    free(files);
    return 0;
}

const char *prompt_file(struct prompt_files *files, const char *text)
{
    const char *path = in_dir(&files->dir, "prompts");
    write_text(path, text);
    return path;
}

void assert_prompt(struct prompt_files *files, const struct qd_workload_request *request, const char *text,
                   size_t len)
{
    int32_t *ids;
    size_t n;
    ASSERT_OK(qd_tokenizer_encode(files->tokenizer, text, len, &ids, &n, files->err, sizeof files->err),
              files->err);
    assert_same_ids(request->prompt, (size_t)request->n_prompt, ids, n, text);
    free(ids);
}

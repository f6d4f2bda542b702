/* Qwen3's chat format: Hugging Face's renderings, the template's corners, what is refused. */
#include "tests/support/test.h"

#include "models/chat.h"
#include "tests/support/files.h"
#include "tests/support/tokenizer.h"

static struct qd_chat_options options_of(const cJSON *line)
{
    const cJSON *thinking = cJSON_GetObjectItemCaseSensitive(line, "enable_thinking");
    return (struct qd_chat_options){.thinking = cJSON_IsTrue(thinking)    ? QD_THINKING_ON
                                                : cJSON_IsFalse(thinking) ? QD_THINKING_OFF
                                                                          : QD_THINKING_NOT_GIVEN,
                                    .no_generation_prompt = !cJSON_IsTrue(
                                        cJSON_GetObjectItemCaseSensitive(line, "add_generation_prompt"))};
}

static void check_rendering(const cJSON *line, void *context)
{
    char err[QD_ERR_LEN] = "", *text, *expected;
    size_t len, n_expected, n, n_expected_ids;
    struct qd_chat_options options = options_of(line);
    const cJSON *messages = cJSON_GetObjectItemCaseSensitive(line, "messages");
    int32_t *ids, *expected_ids = ids_of(cJSON_GetObjectItemCaseSensitive(line, "ids"), &n_expected_ids);
    assert_int_equal(qd_json_text(cJSON_GetObjectItemCaseSensitive(line, "text"), &expected, &n_expected),
                     QD_OK);
    ASSERT_OK(qd_chat_render_json(messages, &options, &text, &len, err, sizeof err), err);
    assert_string_equal(text, expected);
    assert_int_equal(len, n_expected);
    ASSERT_OK(qd_tokenizer_encode(context, text, len, &ids, &n, err, sizeof err), err);
    assert_same_ids(ids, n, expected_ids, n_expected_ids, text);
    free(ids);
    free(expected_ids);
    free(text);
    free(expected);
}

static void test_tiny_goldens(void **state)
{
    (void)state;
    NEED_FILE(TINY_MODEL "/tokenizer.json");
    qd_tokenizer_t *tokenizer = load_tokenizer(TINY_MODEL);
    assert_int_equal(each_json_line(TINY_DATA "tiny-chat.jsonl", check_rendering, tokenizer), 120);
    qd_tokenizer_free(tokenizer);
}

static void test_qwen3_goldens(void **state)
{
    (void)state;
    NEED_FILE(QWEN3_TOKENIZER "/tokenizer.json");
    NEED_FILE(QWEN3_DATA "chat.jsonl");
    qd_tokenizer_t *tokenizer = load_tokenizer(QWEN3_TOKENIZER);
    assert_int_equal(each_json_line(QWEN3_DATA "chat.jsonl", check_rendering, tokenizer), 246);
    qd_tokenizer_free(tokenizer);
}

/* Renders a JSON list without generation prompt; status and error text go out. */
static qd_status render(const char *json, char **text, size_t *len, char *err)
{
    cJSON *list;
    struct qd_chat_options options = {.no_generation_prompt = true};
    ASSERT_OK(qd_json_parse(json, strlen(json), NULL, &list, err, QD_ERR_LEN), err);
    qd_status status = qd_chat_render_json(list, &options, text, len, err, QD_ERR_LEN);
    cJSON_Delete(list);
    return status;
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define T(text) "{\"role\":\"tool\",\"content\":\"" text "\"}"

#define R(text, reasoning)                                                                                   \
    "{\"role\":\"assistant\",\"content\":\"" text "\",\"reasoning_content\":\"" reasoning "\"}"

/* Expected texts follow the template read by hand: what the goldens do not hold. */
static void test_corners_of_the_template(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"[" U("q") "," T("1") "," T("2") "," A("done") "]",
         "<|im_start|>user\nq<|im_end|>\n<|im_start|>user\n<tool_response>\n1\n</"
         "tool_response>\n<tool_response>\n2\n"
         "</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\ndone<|im_end|>\n"},
        {"[" T("1") "]", "<|im_start|>user\n<tool_response>\n1\n</tool_response><|im_end|>\n"},
        /* A user's message that is a tool response is no question: thinking before it stays. */
        {"[" U("q") "," A("<think>\\nt\\n</think>\\n\\na") "," U("<tool_response>x</tool_response>") "," A(
             "b") "]",
         "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nt\n</think>\n\na<|im_end|>\n"
         "<|im_start|>user\n<tool_response>x</tool_response><|im_end|>\n"
         "<|im_start|>assistant\n<think>\n\n</think>\n\nb<|im_end|>\n"},
        {"[" U("q") "," A("<think>\\nt\\n</think>\\n\\na") "," U("next") "]",
         "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nnext<|im_end|>"
         "\n"},
        /* Line ends around reasoning and content go where the thinking is shown, stay where it is not. */
        {"[" U("q") "," R("\\n\\na\\n", "\\nr\\n") "," R("\\n\\nb", "") "," R("\\n\\nc\\n", "") "]",
         "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nr\n</think>\n\na\n<|im_end|>\n"
         "<|im_start|>assistant\n\n\nb<|im_end|>\n"
         "<|im_start|>assistant\n<think>\n\n</think>\n\nc\n<|im_end|>\n"},
        /* Given reasoning leaves a think block in the content alone. */
        {"[" U("q") "," R("<think>x</think>a", "r") "]",
         "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nr\n</think>\n\n<think>x</"
         "think>a<|im_end|>\n"},
        /* The first </think> ends the reasoning, the last one starts the answer. */
        {"[" U("q") "," A("<think>a<think>b</think>c</think>\\nd") "]",
         "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nb\n</think>\n\nd<|im_end|>\n"},
        /* Without a question of the user no thinking is shown. */
        {"[" A("<think>a</think>b") "," R("c", "r") "]",
         "<|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char err[QD_ERR_LEN] = "", *text;
        size_t len;
        ASSERT_OK(render(cases[i].json, &text, &len, err), err);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(len, strlen(text));
        free(text);
    }
}

static void test_zero_is_text(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", *text;
    size_t len;
    ASSERT_OK(render("[" U("a\\u0000b") "]", &text, &len, err), err);
    assert_int_equal(len, 17 + 3 + 11);
    assert_memory_equal(text, "<|im_start|>user\na\0b<|im_end|>\n", len);
    free(text);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        qd_status status;
        const char *reason;
    } cases[] = {
        {"{}", QD_ERR_INPUT, "expected a list of messages"},
        {"[]", QD_ERR_INPUT, "no messages"},
        {"[7]", QD_ERR_INPUT, "message 0: not an object"},
        {"[" U("a") ",{\"content\":\"x\"}]", QD_ERR_INPUT, "message 1: role: missing"},
        {"[{\"role\":7,\"content\":\"x\"}]", QD_ERR_INPUT, "message 0: role: not a string"},
        {"[{\"role\":\"user\"}]", QD_ERR_INPUT, "message 0: content: missing"},
        {"[{\"role\":\"user\",\"content\":null}]", QD_ERR_INPUT, "message 0: content: not a string"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", QD_ERR_INPUT, "content: not a string"},
        {"[{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":1}]", QD_ERR_INPUT,
         "message 0: reasoning_content: not a string"},
        {"[{\"role\":\"developer\",\"content\":\"x\"}]", QD_ERR_UNSUPPORTED, "message 0: role \"developer\""},
        {"[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]", QD_ERR_UNSUPPORTED,
         "message 0: tool_calls are not implemented"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char err[QD_ERR_LEN] = "", *text;
        size_t len;
        assert_int_equal(render(cases[i].json, &text, &len, err), cases[i].status);
        assert_null(text);
        ASSERT_CONTAINS(err, cases[i].reason);
    }
}

static void refuse_template(const struct temp_dir *dir, qd_status status, const char *why)
{
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_chat_check_template(dir->path, err, sizeof err), status);
    ASSERT_CONTAINS(err, why);
}

static void test_template_is_recognised(void **state)
{
    (void)state;
    NEED_FILE(TINY_MODEL "/tokenizer_config.json");
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_chat_check_template(TINY_MODEL, err, sizeof err), err);
    if (access(QWEN3_TOKENIZER, R_OK) == 0)
        ASSERT_OK(qd_chat_check_template(QWEN3_TOKENIZER, err, sizeof err), err);
    struct temp_dir dir = temp_dir_create();
    refuse_template(&dir, QD_ERR_NOT_FOUND, "tokenizer_config.json");
    write_text(in_dir(&dir, "tokenizer_config.json"),
               "{\"model_max_length\": 1000000000000000019884624838656}");
    refuse_template(&dir, QD_ERR_NOT_FOUND, "no chat_template");
    write_text(in_dir(&dir, "tokenizer_config.json"), "{\"chat_template\": \"{{ messages }}\"}");
    refuse_template(&dir, QD_ERR_UNSUPPORTED, "the chat template (14 bytes, FNV-1a ");
    write_text(in_dir(&dir, "tokenizer_config.json"), "{\"chat_template\": [{\"name\": \"default\"}]}");
    refuse_template(&dir, QD_ERR_UNSUPPORTED, "tokenizer_config.json: chat_template is not a string");
    /* A template in a file of its own counts before the one in the configuration. */
    write_text(in_dir(&dir, "chat_template.jinja"), "other");
    refuse_template(&dir, QD_ERR_UNSUPPORTED, "chat_template.jinja: the chat template (5 bytes");
    temp_dir_remove(&dir);
}

/* `text` with the first `from` behind *at replaced; *at moves behind it. */
static void replace(char *text, size_t room, char **at, const char *from, const char *to)
{
    char *found = strstr(*at, from);
    assert_non_null(found);
    assert_true(strlen(text) - strlen(from) + strlen(to) < room);
    memmove(found + strlen(to), found + strlen(from), strlen(found + strlen(from)) + 1);
    memcpy(found, to, strlen(to));
    *at = found + strlen(to);
}

/* The template of later releases differs from the first one's only in what it makes of content that is no
 * text. */
static void test_the_later_template_is_recognised(void **state)
{
    (void)state;
    NEED_FILE(TINY_MODEL "/tokenizer_config.json");
    static const char *const edits[][2] = {
        {"== \"user\" and not(", "== \"user\" and message.content is string and not("},
        {"{%- for message in messages %}\n",
         "{%- for message in messages %}\n    {%- if message.content is string %}\n"
         "        {%- set content = message.content %}\n    {%- else %}\n"
         "        {%- set content = '' %}\n    {%- endif %}\n"},
        {"+ message.content +", "+ content +"},
        {"        {%- set content = message.content %}\n", ""},
        {"is defined and message.reasoning_content is not none", "is string"},
        {"in message.content %}\n                {%- set content = "
         "message.content.split('</think>')[-1].lstrip('\\n')",
         "in content %}\n                {%- set reasoning_content = "
         "content.split('</think>')[0].rstrip('\\n')"
         ".split('<think>')[-1].lstrip('\\n')"},
        {"{%- set reasoning_content = "
         "message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1]",
         "{%- set content = content.split('</think>')[-1]"},
        {"{{- message.content }}", "{{- content }}"},
    };
    cJSON *config;
    char err[QD_ERR_LEN] = "", text[8192], *at = text;
    ASSERT_OK(qd_json_read_file(TINY_MODEL "/tokenizer_config.json", 1 << 20, &config, err, sizeof err), err);
    const cJSON *first = cJSON_GetObjectItemCaseSensitive(config, "chat_template");
    snprintf(text, sizeof text, "%s", first->valuestring);
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++)
        replace(text, sizeof text, &at, edits[i][0], edits[i][1]);
    assert_int_equal(strlen(text), 4168);
    struct temp_dir dir = temp_dir_create();
    write_text(in_dir(&dir, "chat_template.jinja"), text);
    ASSERT_OK(qd_chat_check_template(dir.path, err, sizeof err), err);
    text[100]++;
    write_text(in_dir(&dir, "chat_template.jinja"), text);
    assert_int_equal(qd_chat_check_template(dir.path, err, sizeof err), QD_ERR_UNSUPPORTED);
    ASSERT_CONTAINS(err, "chat_template.jinja: the chat template (4168 bytes, FNV-1a ");
    temp_dir_remove(&dir);
    cJSON_Delete(config);
}

static void test_single_question(void **state)
{
    (void)state;
    NEED_FILE(TINY_MODEL "/tokenizer_config.json");
    char err[QD_ERR_LEN] = "", *text;
    size_t len;
    ASSERT_OK(qd_chat_single(TINY_MODEL, "Hi", 2, NULL, &text, &len, err, sizeof err), err);
    assert_string_equal(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    free(text);
    ASSERT_OK(qd_chat_single(TINY_MODEL, "Hi", 2, "false", &text, &len, err, sizeof err), err);
    assert_string_equal(text,
                        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    free(text);
    assert_int_equal(qd_chat_single(TINY_MODEL, "Hi", 2, "maybe", &text, &len, err, sizeof err),
                     QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "\"maybe\" is neither true nor false");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_goldens),
        cmocka_unit_test(test_qwen3_goldens),
        cmocka_unit_test(test_corners_of_the_template),
        cmocka_unit_test(test_zero_is_text),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_template_is_recognised),
        cmocka_unit_test(test_the_later_template_is_recognised),
        cmocka_unit_test(test_single_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

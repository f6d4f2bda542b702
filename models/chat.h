/* Qwen3's chat format: messages to the text that the model was trained on.
 *
 * The format is written in C from the rules of the template in tokenizer_config.json; the template's text is
 * never run, but recognised by its hash (two are published that render alike), and a model with another
 * template is refused for chat. Roles are system, user, assistant and tool. A list of tools and an
 * assistant's tool_calls are not implemented and refused; so is any other role, which the template would drop
 * without a word.
 */
#ifndef QD_MODELS_CHAT_H
#define QD_MODELS_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"
#include "models/json.h"

struct qd_chat_message {
    const char *role;
    const char *content; /* UTF-8, U+0000 allowed */
    size_t content_len;
    const char *reasoning; /* reasoning_content of an assistant's message; NULL: not given */
    size_t reasoning_len;
};

enum qd_thinking {
    QD_THINKING_NOT_GIVEN,
    QD_THINKING_ON, /* the same text as not given */
    QD_THINKING_OFF /* the answer starts behind an empty think block */
};

struct qd_chat_options {
    enum qd_thinking thinking;
    bool no_generation_prompt; /* end after the last message instead of opening the assistant's answer */
};

/* Whether DIR's chat template (chat_template.jinja, else chat_template of tokenizer_config.json) is one of
 * Qwen3's. QD_ERR_NOT_FOUND: there is none; QD_ERR_UNSUPPORTED: another one; err names the file. */
qd_status qd_chat_check_template(const char *dir, char *err, size_t errlen);

/* Renders n >= 1 messages; the caller frees *text (which has a byte 0 beyond *len). Reasoning of answers
 * before the last question of the user is left out, as the template does. QD_ERR_INPUT, QD_ERR_NO_MEMORY. */
qd_status qd_chat_render(const struct qd_chat_message *messages, size_t n,
                         const struct qd_chat_options *options, char **text, size_t *len, char *err,
                         size_t errlen);

/* The same from a JSON list of {"role", "content", "reasoning_content"?}, as Hugging Face's
 * apply_chat_template takes it. QD_ERR_INPUT or QD_ERR_UNSUPPORTED name the message by its index. */
qd_status qd_chat_render_json(const cJSON *list, const struct qd_chat_options *options, char **text,
                              size_t *len, char *err, size_t errlen);

/* "true", "false" or NULL (not given); QD_ERR_INPUT for anything else. */
qd_status qd_chat_parse_thinking(const char *text, enum qd_thinking *out, char *err, size_t errlen);

/* One question of a user to the model in DIR, whose template is checked: what `generate --chat` does.
 * enable_thinking as for qd_chat_parse_thinking. */
qd_status qd_chat_single(const char *dir, const char *content, size_t content_len,
                         const char *enable_thinking, char **text, size_t *len, char *err, size_t errlen);

#endif

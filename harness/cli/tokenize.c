/* qdyno tokenize: text or chat messages to token ids, ids to text. */
#include <stdio.h>

#include "harness/cli/commands.h"
#include "harness/cli/tokenize_stream.h"

/* Options that belong to a direction are refused in the others. */
static qd_status read_mode(const struct qd_options *options, struct qd_tokenize_mode *mode, char *err,
                           size_t errlen)
{
    *mode = (struct qd_tokenize_mode){.direction = options->decode ? QD_TOKENIZE_DECODE
                                                   : options->chat ? QD_TOKENIZE_CHAT
                                                                   : QD_TOKENIZE_ENCODE,
                                      .jsonl = options->jsonl,
                                      .skip_special = options->skip_special_tokens,
                                      .chat.no_generation_prompt = options->no_generation_prompt};
    if (options->decode && options->chat)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--decode and --chat exclude each other");
    if (options->skip_special_tokens && !options->decode)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--skip-special-tokens is of --decode");
    if ((options->enable_thinking != NULL || options->no_generation_prompt) && !options->chat)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--enable-thinking and --no-generation-prompt are of --chat");
    return qd_chat_parse_thinking(options->enable_thinking, &mode->chat.thinking, err, errlen);
}

static int run_tokenize(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    qd_tokenizer_t *tokenizer = NULL;
    struct qd_tokenize_mode mode;
    qd_status status;
    QD_TRY_GOTO(read_mode(options, &mode, err, sizeof err), status, cleanup);
    if (options->chat) QD_TRY_GOTO(qd_chat_check_template(options->model, err, sizeof err), status, cleanup);
    QD_TRY_GOTO(qd_tokenizer_load(options->model, &tokenizer, err, sizeof err), status, cleanup);
    status = qd_tokenize_stream(tokenizer, &mode, stdin, stdout, err, sizeof err);
cleanup:
    qd_tokenizer_free(tokenizer);
    return status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
}

const struct qd_command qd_command_tokenize = {
    .name = "tokenize",
    .summary = "text or chat messages to token ids, ids to text",
    .synopsis = "--model DIR [--jsonl] [--decode | --chat] < INPUT",
    .groups = QD_GROUP_TOKENIZE | QD_GROUP_CHAT,
    .run = run_tokenize,
};

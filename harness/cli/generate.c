/* qdyno generate: text in, text out, streamed as it is made; the text alone on standard output. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/session.h"
#include "harness/cli/stop_text.h"
#include "harness/cli/stream.h"
#include "kernels/device.h"
#include "models/chat.h"

enum { MAX_PROMPT_BYTES = 64 << 20, EVENTS_PER_POLL = 64 };
static const int64_t POLL_TIMEOUT_NS = 100000000;

/* --prompt, or standard input whole (one line end at its end is not part of it). */
static qd_status read_prompt(const struct qd_options *options, char **text, size_t *len, char *err,
                             size_t errlen)
{
    if (options->prompt != NULL) {
        *text = strdup(options->prompt);
        if (*text == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "prompt");
        *len = strlen(*text);
        return QD_OK;
    }
    QD_TRY(qd_stream_read(stdin, MAX_PROMPT_BYTES, text, len, err, errlen));
    if (*len > 0 && (*text)[*len - 1] == '\n') (*len)--;
    return QD_OK;
}

static qd_status encode(const struct qd_options *options, const qd_tokenizer_t *tokenizer, int32_t **ids,
                        size_t *n_ids, char *err, size_t errlen)
{
    char *text = NULL;
    size_t len = 0;
    QD_TRY(read_prompt(options, &text, &len, err, errlen));
    if (options->chat) {
        char *dressed = NULL;
        size_t dressed_len = 0;
        qd_status status = qd_chat_single(options->model, text, len, options->enable_thinking, &dressed,
                                          &dressed_len, err, errlen);
        free(text);
        if (status != QD_OK) return status;
        text = dressed;
        len = dressed_len;
    }
    qd_status status = qd_tokenizer_encode(tokenizer, text, len, ids, n_ids, err, errlen);
    free(text);
    if (status == QD_OK && (*n_ids == 0 || *n_ids > INT32_MAX)) {
        free(*ids);
        *ids = NULL;
        return qd_fail(QD_ERR_INPUT, err, errlen, "the prompt has %zu tokens", *n_ids);
    }
    return status;
}

/* A request on its way to standard output. */
struct output {
    qd_engine_t *engine;
    uint64_t request;
    struct qd_detokenizer detokenizer;
    struct qd_stop_text stop;
    bool has_stopped; /* at a stop string: what the engine still makes is nobody's */
    enum qd_finish finish;
};

static qd_status print_text(struct output *output, const char *text, size_t len, char *err, size_t errlen)
{
    const char *given;
    size_t n;
    QD_TRY(qd_stop_text_push(&output->stop, text, len, &given, &n, &output->has_stopped, err, errlen));
    fwrite(given, 1, n, stdout);
    if (output->has_stopped) qd_engine_abort(output->engine, output->request);
    return QD_OK;
}

/* Takes what a batch of events brings. */
static qd_status print_events(struct output *output, const struct qd_event *events, size_t n, char *err,
                              size_t errlen)
{
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t len;
        output->finish = events[i].finish;
        if (events[i].token < 0 || output->has_stopped) continue;
        QD_TRY(qd_detokenizer_push(&output->detokenizer, events[i].token, &text, &len, err, errlen));
        QD_TRY(print_text(output, text, len, err, errlen));
    }
    fflush(stdout);
    return QD_OK;
}

/* A character that never became whole, and what could have been the start of a stop string. */
static qd_status print_rest(struct output *output, char *err, size_t errlen)
{
    const char *text = "";
    size_t len = 0;
    if (!output->has_stopped) {
        QD_TRY(qd_detokenizer_finish(&output->detokenizer, &text, &len, err, errlen));
        QD_TRY(print_text(output, text, len, err, errlen));
    }
    qd_stop_text_finish(&output->stop, &text, &len);
    fwrite(text, 1, len, stdout);
    putchar('\n');
    return QD_OK;
}

static qd_status print_tokens(struct output *output, char *err, size_t errlen)
{
    const volatile sig_atomic_t *interrupted = qd_interrupt_install();
    bool aborted = false;
    while (output->finish == QD_FINISH_NONE) {
        struct qd_event events[EVENTS_PER_POLL];
        if (*interrupted != 0 && !aborted) {
            qd_engine_abort(output->engine, output->request);
            aborted = true;
        }
        size_t n = qd_engine_poll_events(output->engine, events, EVENTS_PER_POLL, POLL_TIMEOUT_NS);
        QD_TRY(print_events(output, events, n, err, errlen));
    }
    QD_TRY(print_rest(output, err, errlen));
    const char *failure = qd_engine_failure(output->engine);
    if (failure != NULL) return qd_fail(QD_ERR_RANK, err, errlen, "%s", failure);
    if (aborted) return qd_fail(QD_ERR_ABORTED, err, errlen, "interrupted");
    return QD_OK;
}

/* What cannot end in a text. */
static qd_status check_options(const struct qd_options *options, char *err, size_t errlen)
{
    const struct qd_device_ops *device;
    if (options->enable_thinking != NULL && !options->chat)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--enable-thinking is of --chat");
    QD_TRY(qd_device_get(options->device, &device, err, errlen));
    if (!device->executes)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "the device %s makes no text", options->device);
    return QD_OK;
}

static int run_generate(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    qd_tokenizer_t *tokenizer = NULL;
    qd_instance_t *instance = NULL;
    struct output output = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qd_status status;
    QD_TRY_GOTO(check_options(options, err, sizeof err), status, cleanup);
    QD_TRY_GOTO(qd_session_tokenizer(options, &tokenizer, err, sizeof err), status, cleanup);
    QD_TRY_GOTO(encode(options, tokenizer, &ids, &n_ids, err, sizeof err), status, cleanup);
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    QD_TRY_GOTO(qd_session_open(&instance_options, &instance, err, sizeof err), status, cleanup);
    struct qd_request request = {
        .prompt = ids,
        .n_prompt = (int32_t)n_ids,
        .max_tokens = (int32_t)options->max_tokens,
        .ignore_eos = options->ignore_eos,
        .temperature = (float)options->temperature,
        .top_p = (float)options->top_p,
        .top_k = (int32_t)options->top_k,
        .seed = (uint64_t)options->seed,
    };
    output.engine = qd_instance_engine(instance);
    qd_detokenizer_init(&output.detokenizer, tokenizer, true);
    qd_stop_text_init(&output.stop, options->stop.texts, options->stop.n);
    QD_TRY_GOTO(qd_engine_submit(output.engine, &request, &output.request, err, sizeof err), status, cleanup);
    status = print_tokens(&output, err, sizeof err);

cleanup:
    qd_stop_text_free(&output.stop);
    qd_detokenizer_free(&output.detokenizer);
    qd_tokenizer_free(tokenizer);
    free(ids);
    int exit_code = status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
    return qd_session_close(command, instance, exit_code);
}

const struct qd_command qd_command_generate = {
    .name = "generate",
    .summary = "text in, text out",
    .synopsis =
        "--model DIR [--prompt TEXT] [--max-tokens N] [--temperature T] [--seed N] [--chat] [OPTION...]",
    .groups = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE | QD_GROUP_SAMPLING | QD_GROUP_GENERATE |
              QD_GROUP_CHAT,
    .run = run_generate,
};

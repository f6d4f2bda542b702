#include "harness/engine/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

static qd_status check_prompt(const struct qd_request *request, const struct qd_request_limits *limits,
                              char *err, size_t errlen)
{
    if (request->prompt == NULL || request->n_prompt < 1)
        return qd_fail(QD_ERR_INPUT, err, errlen, "prompt is empty");
    if (request->n_prompt >= limits->max_model_len)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "prompt of %d tokens leaves no room for output: max_model_len is %d",
                       request->n_prompt, limits->max_model_len);
    for (int32_t i = 0; i < request->n_prompt; i++)
        if (request->prompt[i] < 0 || request->prompt[i] >= limits->vocab_size)
            return qd_fail(QD_ERR_INPUT, err, errlen,
                           "prompt token %d is id %d, outside the vocabulary of %d", i, request->prompt[i],
                           limits->vocab_size);
    return QD_OK;
}

static qd_status check_sampling(const struct qd_request *request, char *err, size_t errlen)
{
    if (!(request->temperature >= 0.0f) || isinf(request->temperature))
        return qd_fail(QD_ERR_INPUT, err, errlen, "temperature %g is not a finite number >= 0",
                       (double)request->temperature);
    if (!(request->top_p > 0.0f && request->top_p <= 1.0f))
        return qd_fail(QD_ERR_INPUT, err, errlen, "top_p %g is not in (0, 1]", (double)request->top_p);
    if (request->top_k < 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "top_k %d is negative (0: off)", request->top_k);
    if (request->max_tokens < 1)
        return qd_fail(QD_ERR_INPUT, err, errlen, "max_tokens %d is below 1", request->max_tokens);
    if (request->n_stop_ids < 0 || request->n_stop_ids > QD_MAX_STOP_IDS ||
        (request->n_stop_ids > 0 && request->stop_ids == NULL))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%d stop ids: 0 to %d are possible", request->n_stop_ids,
                       QD_MAX_STOP_IDS);
    return QD_OK;
}

qd_status qd_live_request_create(const struct qd_request *request, const struct qd_request_limits *limits,
                                 struct qd_live_request **out, char *err, size_t errlen)
{
    *out = NULL;
    QD_TRY(check_prompt(request, limits, err, errlen));
    QD_TRY(check_sampling(request, err, errlen));
    int32_t room = limits->max_model_len - request->n_prompt;
    int32_t max_tokens = request->max_tokens < room ? request->max_tokens : room;
    int32_t n_tokens = request->n_prompt + max_tokens;
    int32_t n_pages = (int32_t)qd_div_up(n_tokens - 1, QD_KV_BLOCK_SIZE);
    if (n_pages > qd_kv_pool_capacity(limits->n_kv_blocks))
        return qd_fail(
            QD_ERR_INPUT, err, errlen,
            "request can never fit the KV pool: ceil((%d prompt + %d output - 1) / %d) = %d pages > %d",
            request->n_prompt, max_tokens, QD_KV_BLOCK_SIZE, n_pages,
            qd_kv_pool_capacity(limits->n_kv_blocks));

    size_t n_hashes = limits->prefix_caching ? (size_t)n_pages : 0;
    struct qd_live_request *live = malloc(sizeof *live + n_hashes * sizeof(struct qd_block_hash) +
                                          ((size_t)n_tokens + (size_t)n_pages) * sizeof(int32_t));
    if (live == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a request of %d tokens", n_tokens);
    *live = (struct qd_live_request){.ignore_eos = request->ignore_eos};
    struct qd_block_hash *hashes = (struct qd_block_hash *)(live + 1);
    live->tokens = (int32_t *)(hashes + n_hashes);
    memcpy(live->tokens, request->prompt, (size_t)request->n_prompt * sizeof(int32_t));
    live->sched = (struct qd_sched_request){.n_prompt = request->n_prompt,
                                            .n_known = request->n_prompt,
                                            .max_known = n_tokens,
                                            .slot = -1,
                                            .blocks = live->tokens + n_tokens,
                                            .tokens = live->tokens,
                                            .hashes = hashes};
    if (limits->prefix_caching) qd_sched_request_hash(&live->sched);
    live->sampling = (struct qd_sampling){.temperature = request->temperature,
                                          .top_p = request->top_p,
                                          .top_k = request->top_k,
                                          .seed = request->seed};
    live->n_stop_ids = request->n_stop_ids;
    if (request->n_stop_ids > 0)
        memcpy(live->stop_ids, request->stop_ids, (size_t)request->n_stop_ids * sizeof(int32_t));
    *out = live;
    return QD_OK;
}

void qd_live_request_destroy(struct qd_live_request *request)
{
    free(request);
}

void qd_live_request_destroy_chain(struct qd_live_request *first)
{
    while (first != NULL) {
        struct qd_live_request *next = first->next;
        qd_live_request_destroy(first);
        first = next;
    }
}

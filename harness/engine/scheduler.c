#include "harness/engine/scheduler.h"

#include <stdlib.h>

#include "kernels/base/size.h"
#include "kernels/step.h"

struct request_list {
    struct qd_sched_request *head, *tail;
    int32_t n;
};

struct qd_scheduler {
    struct qd_scheduler_config config;
    struct qd_kv_pool pool;
    struct request_list running;    /* admission order */
    struct request_list waiting;    /* arrival order, preempted requests in front */
    struct qd_sched_entry *entries; /* [2][max_num_seqs], taken in turn */
    uint32_t turn;
    int32_t *free_slots;            /* [n_free_slots] a stack */
    int32_t n_free_slots;
};

/* Links `request` in before `next`; at the end when next is NULL. */
static void list_insert(struct request_list *list, struct qd_sched_request *request,
                        struct qd_sched_request *next)
{
    struct qd_sched_request *prev = next != NULL ? next->prev : list->tail;
    request->prev = prev;
    request->next = next;
    if (prev != NULL)
        prev->next = request;
    else
        list->head = request;
    if (next != NULL)
        next->prev = request;
    else
        list->tail = request;
    list->n++;
}

static void list_remove(struct request_list *list, struct qd_sched_request *request)
{
    if (request->prev != NULL)
        request->prev->next = request->next;
    else
        list->head = request->next;
    if (request->next != NULL)
        request->next->prev = request->prev;
    else
        list->tail = request->prev;
    request->prev = request->next = NULL;
    list->n--;
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t blocks_of(int32_t n_tokens)
{
    return (int32_t)qd_div_up(n_tokens, QD_KV_BLOCK_SIZE);
}

qd_status qd_scheduler_create(const struct qd_scheduler_config *config, qd_scheduler_t **out, char *err,
                              size_t errlen)
{
    *out = NULL;
    if (config->max_num_batched_tokens < 1 || config->max_num_seqs < 1 || config->max_model_len < 1 ||
        config->n_kv_blocks < 2 || config->long_prefill_token_threshold < 0)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen,
                       "scheduler: budget %d, sequences %d, model length %d must be at least 1, pages %d at "
                       "least 2, long prefill threshold %d at least 0",
                       config->max_num_batched_tokens, config->max_num_seqs, config->max_model_len,
                       config->n_kv_blocks, config->long_prefill_token_threshold);
    struct qd_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (scheduler == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "scheduler: out of memory");
    scheduler->config = *config;
    size_t n_seqs = (size_t)config->max_num_seqs;
    scheduler->entries = calloc(2 * n_seqs, sizeof *scheduler->entries);
    scheduler->free_slots = calloc(n_seqs, sizeof *scheduler->free_slots);
    if (scheduler->entries == NULL || scheduler->free_slots == NULL ||
        qd_kv_pool_init(&scheduler->pool, config->n_kv_blocks, config->prefix_caching) != QD_OK) {
        qd_scheduler_destroy(scheduler);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "scheduler: no memory for %d sequences and %d pages",
                       config->max_num_seqs, config->n_kv_blocks);
    }
    scheduler->n_free_slots = config->max_num_seqs;
    for (int32_t i = 0; i < config->max_num_seqs; i++)
        scheduler->free_slots[i] = config->max_num_seqs - 1 - i;
    *out = scheduler;
    return QD_OK;
}

void qd_scheduler_destroy(qd_scheduler_t *scheduler)
{
    if (scheduler == NULL) return;
    qd_kv_pool_free(&scheduler->pool);
    free(scheduler->free_slots);
    free(scheduler->entries);
    free(scheduler);
}

void qd_scheduler_add(qd_scheduler_t *scheduler, struct qd_sched_request *request)
{
    QD_ASSERT(request->place == QD_SCHED_NOWHERE && request->n_blocks == 0);
    request->slot = -1;
    request->place = QD_SCHED_WAITING;
    list_insert(&scheduler->waiting, request, NULL);
}

/* Takes a running request off the device: its pages and its slot become free. */
static void release(struct qd_scheduler *scheduler, struct qd_sched_request *request)
{
    list_remove(&scheduler->running, request);
    qd_kv_pool_give(&scheduler->pool, request->blocks, request->n_blocks);
    request->n_blocks = 0;
    scheduler->free_slots[scheduler->n_free_slots++] = request->slot;
    request->slot = -1;
}

void qd_scheduler_remove(qd_scheduler_t *scheduler, struct qd_sched_request *request)
{
    QD_ASSERT(request->place != QD_SCHED_NOWHERE);
    if (request->place == QD_SCHED_RUNNING)
        release(scheduler, request);
    else
        list_remove(&scheduler->waiting, request);
    request->place = QD_SCHED_NOWHERE;
}

/* Recompute, not swap: the request starts over from position 0, ahead of everybody who waits. */
static void preempt(struct qd_scheduler *scheduler, struct qd_sched_request *request)
{
    release(scheduler, request);
    request->n_computed = 0;
    request->n_preemptions++;
    request->place = QD_SCHED_WAITING;
    list_insert(&scheduler->waiting, request, scheduler->waiting.head);
}

/* Gives the request the pages of its first n_tokens positions; false when the pool lacks them. */
static bool grow(struct qd_scheduler *scheduler, struct qd_sched_request *request, int32_t n_tokens)
{
    int32_t n_new = blocks_of(n_tokens) - request->n_blocks;
    if (n_new <= 0) return true;
    if (!qd_kv_pool_take(&scheduler->pool, n_new, request->blocks + request->n_blocks)) return false;
    request->n_blocks += n_new;
    return true;
}

/* Tokens of the request that this step could compute under the budget that is left. */
static int32_t wanted(const struct qd_scheduler *scheduler, const struct qd_sched_request *request,
                      int32_t budget)
{
    int32_t n = request->n_known - request->n_computed;
    /* The last token of all needs no K and V. */
    if (request->max_known > 0) n = min_i32(n, request->max_known - 1 - request->n_computed);
    int32_t threshold = scheduler->config.long_prefill_token_threshold;
    if (threshold > 0) n = min_i32(n, threshold);
    n = min_i32(n, budget);
    return min_i32(n, scheduler->config.max_model_len - request->n_computed - 1);
}

/* Pages count as cached from the moment their last token is scheduled: within a layer every key and value of
 * a step is written before any is read, so a request of the same step may share them. Here those of its first
 * n_tokens. */
static void label_full_pages(struct qd_scheduler *scheduler, struct qd_sched_request *request,
                             int32_t n_tokens)
{
    if (!scheduler->config.prefix_caching) return;
    int32_t n_full = min_i32(n_tokens / QD_KV_BLOCK_SIZE, request->n_hashes);
    for (; request->n_labelled < n_full; request->n_labelled++)
        qd_kv_pool_label(&scheduler->pool, request->blocks[request->n_labelled],
                         request->hashes[request->n_labelled]);
}

static void append(struct qd_scheduler *scheduler, struct qd_schedule *out, struct qd_sched_request *request,
                   int32_t n_tokens)
{
    int32_t begin = request->n_computed;
    request->n_computed += n_tokens;
    label_full_pages(scheduler, request, request->n_computed);
    int32_t samples = request->n_computed == request->n_known;
    out->entries[out->n_entries++] = (struct qd_sched_entry){
        .request = request, .begin = begin, .n_tokens = n_tokens, .samples = samples};
    request->n_known += samples;
    request->n_pending += samples;
    out->n_tokens += n_tokens;
    out->n_blocks += request->n_blocks;
}

/* Finds pages for the request's next n tokens, if need be by preempting from the end of the running list.
 * False when the request itself was the last: it is preempted then. Victims lie behind the request, so none
 * of them is in the schedule yet. */
static bool make_room(struct qd_scheduler *scheduler, struct qd_sched_request *request, int32_t n,
                      struct qd_schedule *out)
{
    while (!grow(scheduler, request, request->n_computed + n)) {
        struct qd_sched_request *victim = scheduler->running.tail;
        preempt(scheduler, victim);
        out->n_preempted++;
        if (victim == request) return false;
    }
    return true;
}

static void schedule_running(struct qd_scheduler *scheduler, struct qd_schedule *out)
{
    struct qd_sched_request *request = scheduler->running.head;
    while (request != NULL && out->n_tokens < scheduler->config.max_num_batched_tokens) {
        int32_t n = wanted(scheduler, request, scheduler->config.max_num_batched_tokens - out->n_tokens);
        if (n > 0) {
            if (!make_room(scheduler, request, n, out)) return;
            append(scheduler, out, request, n);
        }
        request = request->next;
    }
}

/* Writes the pages that hold the beginning of the request's known tokens into request->blocks, without
 * sharing them yet, and returns their number; *n_idle of them have no user. At least one token is left to
 * compute, whose logits are needed. */
static int32_t find_prefix(const struct qd_scheduler *scheduler, struct qd_sched_request *request,
                           int32_t *n_idle)
{
    *n_idle = 0;
    if (!scheduler->config.prefix_caching) return 0;
    int32_t n_pages = min_i32((request->n_known - 1) / QD_KV_BLOCK_SIZE, request->n_hashes);
    for (int32_t i = 0; i < n_pages; i++) {
        int32_t page = qd_kv_pool_find(&scheduler->pool, request->hashes[i]);
        if (page == 0) return i;
        request->blocks[i] = page;
        *n_idle += scheduler->pool.pages[page].n_users == 0;
    }
    return n_pages;
}

/* The first n_hits pages of the request are shared: their tokens need no computing. */
static void share_prefix(struct qd_scheduler *scheduler, struct qd_sched_request *request, int32_t n_hits,
                         struct qd_schedule *out)
{
    for (int32_t i = 0; i < n_hits; i++) qd_kv_pool_share(&scheduler->pool, request->blocks[i]);
    request->n_blocks = request->n_labelled = n_hits;
    request->n_computed = n_hits * QD_KV_BLOCK_SIZE;
    if (request->n_preemptions > 0) {
        out->n_rehit_tokens += request->n_computed;
        return;
    }
    out->n_query_tokens += request->n_known;
    out->n_hit_tokens += request->n_computed;
}

static void schedule_waiting(struct qd_scheduler *scheduler, struct qd_schedule *out)
{
    while (scheduler->waiting.head != NULL && scheduler->running.n < scheduler->config.max_num_seqs &&
           out->n_tokens < scheduler->config.max_num_batched_tokens) {
        struct qd_sched_request *request = scheduler->waiting.head;
        int32_t n_idle, n_hits = find_prefix(scheduler, request, &n_idle);
        /* The whole known sequence must fit now, though only a chunk of it may be computed: admitting on the
         * chunk alone over-admits and then thrashes. Nobody overtakes the head of the queue. */
        if (blocks_of(request->n_known) - n_hits + n_idle > scheduler->pool.n_free) return;
        list_remove(&scheduler->waiting, request);
        list_insert(&scheduler->running, request, NULL);
        request->place = QD_SCHED_RUNNING;
        request->slot = scheduler->free_slots[--scheduler->n_free_slots];
        share_prefix(scheduler, request, n_hits, out);
        int32_t n = wanted(scheduler, request, scheduler->config.max_num_batched_tokens - out->n_tokens);
        QD_ASSERT(n > 0);
        bool grown = grow(scheduler, request, request->n_computed + n);
        QD_ASSERT(grown);
        append(scheduler, out, request, n);
        out->n_admitted++;
    }
}

void qd_scheduler_step(qd_scheduler_t *scheduler, struct qd_schedule *out)
{
    size_t first = scheduler->turn++ % 2 * (size_t)scheduler->config.max_num_seqs;
    *out = (struct qd_schedule){.entries = scheduler->entries + first};
    schedule_running(scheduler, out);
    if (out->n_preempted == 0) schedule_waiting(scheduler, out);
}

void qd_sched_request_hash(struct qd_sched_request *request)
{
    for (; request->n_hashes < qd_sched_n_sampled(request) / QD_KV_BLOCK_SIZE; request->n_hashes++) {
        const struct qd_block_hash first = {{0, 0}};
        request->hashes[request->n_hashes] =
            qd_block_hash_next(request->n_hashes > 0 ? request->hashes[request->n_hashes - 1] : first,
                               request->tokens + request->n_hashes * QD_KV_BLOCK_SIZE);
    }
}

void qd_scheduler_token(qd_scheduler_t *scheduler, struct qd_sched_request *request)
{
    QD_ASSERT(request->place != QD_SCHED_NOWHERE && request->n_pending > 0);
    request->n_pending--;
    if (!scheduler->config.prefix_caching) return;
    qd_sched_request_hash(request);
    /* Scheduled before its last token was there, a page had no hash then; its request may end with this
     * token. */
    if (request->place == QD_SCHED_RUNNING)
        label_full_pages(scheduler, request, request->n_computed - request->n_pending);
}

struct qd_sched_request *qd_scheduler_oldest(const qd_scheduler_t *scheduler)
{
    return scheduler->running.head != NULL ? scheduler->running.head : scheduler->waiting.head;
}

int32_t qd_scheduler_n_running(const qd_scheduler_t *scheduler)
{
    return scheduler->running.n;
}

int32_t qd_scheduler_n_waiting(const qd_scheduler_t *scheduler)
{
    return scheduler->waiting.n;
}

const struct qd_kv_pool *qd_scheduler_pool(const qd_scheduler_t *scheduler)
{
    return &scheduler->pool;
}

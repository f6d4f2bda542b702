/* Random workloads through the scheduler; after every step its promises are checked against the requests
 * themselves: no page leaked, freed twice or shared wrongly, the budget kept, arrival order kept, progress, an end for
 * everybody. A simulated memory says what each page holds: every position of a scheduled request must hold what that
 * request would have computed there, whoever did.
 */
#include "tests/support/test.h"

#include "harness/engine/scheduler.h"
#include "kernels/base/hash.h"
#include "kernels/base/random.h"
#include "kernels/step.h"

enum {
    N_CASES = 100000,
    MAX_REQUESTS = 12,
    MAX_LEN = 96,
    MAX_PAGES = MAX_LEN / QD_KV_BLOCK_SIZE,
    MAX_POOL = 1 + 3 * MAX_PAGES,
};

struct simulated {
    struct qd_sched_request sched;
    int32_t pages[MAX_PAGES];
    int32_t tokens[MAX_LEN];
    uint64_t values[MAX_LEN]; /* of all tokens up to each position: what a key there depends on */
    struct qd_block_hash hashes[MAX_PAGES];
    struct qd_block_hash
        labels[MAX_PAGES]; /* what its pages are to be known by, whenever they are computed */
    int32_t max_tokens;
    int32_t arrival_step;
    bool arrived, ended, ran;
};

struct random_case {
    uint64_t key, counter;
    struct qd_scheduler_config config;
    qd_scheduler_t *scheduler;
    struct simulated requests[MAX_REQUESTS];
    int n_requests, n_ended;
    bool async; /* tokens of a step are there only after the next was scheduled */
    uint64_t memory[MAX_POOL][QD_KV_BLOCK_SIZE];
};

/* What the cases came to, all together. */
struct reached {
    uint64_t n_preemptions, n_hit_tokens, n_rehit_tokens, n_cut_by_threshold, n_late;
};

static int32_t draw(struct random_case *c, int32_t low, int32_t high)
{
    uint32_t word = qd_philox(c->key, 0, c->counter++).word[0];
    return low + (int32_t)(word % (uint32_t)(high - low + 1));
}

static int32_t pages_of(int32_t n_tokens)
{
    return (n_tokens + QD_KV_BLOCK_SIZE - 1) / QD_KV_BLOCK_SIZE;
}

/* Beginnings that requests have in common, of any length. */
static void fill_tokens(struct random_case *c, struct simulated *request)
{
    int32_t n_common = draw(c, 0, 2) == 0 ? 0 : draw(c, 0, MAX_LEN);
    uint64_t value = QD_HASH_START;
    for (int32_t i = 0; i < MAX_LEN; i++) {
        request->tokens[i] = i < n_common ? i : draw(c, 0, 1 << 20);
        value = request->values[i] = qd_hash(value, &request->tokens[i], sizeof request->tokens[i]);
    }
    struct qd_block_hash label = {{0, 0}};
    for (int32_t k = 0; k < MAX_PAGES; k++)
        label = request->labels[k] = qd_block_hash_next(label, request->tokens + k * QD_KV_BLOCK_SIZE);
}

static void make_case(struct random_case *c, uint64_t key)
{
    memset(c, 0, sizeof *c);
    c->key = key;
    c->config.max_num_batched_tokens = draw(c, 0, 3) == 0 ? draw(c, 1, 4) : draw(c, 1, 80);
    c->config.max_num_seqs = draw(c, 1, 6);
    c->config.max_model_len = draw(c, 2, MAX_LEN);
    int32_t longest = pages_of(c->config.max_model_len);
    c->config.n_kv_blocks = 1 + longest + draw(c, 0, 2 * longest);
    c->async = draw(c, 0, 1) == 0;
    c->config.prefix_caching = draw(c, 0, 1) == 0;
    c->config.long_prefill_token_threshold = draw(c, 0, 2) == 0 ? draw(c, 1, 40) : 0;
    c->n_requests = draw(c, 1, MAX_REQUESTS);
    int32_t arrival = 0;
    for (int i = 0; i < c->n_requests; i++) {
        struct simulated *request = &c->requests[i];
        int32_t n_prompt = draw(c, 1, c->config.max_model_len - 1);
        request->sched = (struct qd_sched_request){
            .id = (uint64_t)i,
            .n_prompt = n_prompt,
            .n_known = n_prompt,
            .blocks = request->pages,
            .tokens = request->tokens,
            .hashes = request->hashes,
        };
        fill_tokens(c, request);
        if (c->config.prefix_caching) qd_sched_request_hash(&request->sched);
        request->max_tokens = draw(c, 1, c->config.max_model_len - n_prompt);
        if (c->async) request->sched.max_known = n_prompt + request->max_tokens;
        if (draw(c, 0, 2) == 0) arrival += draw(c, 0, 12);
        request->arrival_step = arrival;
    }
}

static void end_request(struct random_case *c, struct simulated *request)
{
    qd_scheduler_remove(c->scheduler, &request->sched);
    request->ended = true;
    c->n_ended++;
}

/* First come, first served: whoever runs came before everybody who waits. */
static void check_order(const struct random_case *c)
{
    int last_running = -1, first_waiting = c->n_requests;
    for (int i = c->n_requests - 1; i >= 0; i--) {
        enum qd_sched_place place = c->requests[i].sched.place;
        if (place == QD_SCHED_WAITING) first_waiting = i;
        if (place == QD_SCHED_RUNNING && last_running < 0) last_running = i;
    }
    assert_true(last_running < first_waiting);
}

/* Computed for the first time, again, or by another request: a full page has one and the same hash. Those
 * whose last token is still to be sampled may lack theirs. */
static void check_labels(const struct random_case *c)
{
    const struct qd_kv_pool *pool = qd_scheduler_pool(c->scheduler);
    if (!c->config.prefix_caching) return;
    for (int i = 0; i < c->n_requests; i++) {
        const struct simulated *request = &c->requests[i];
        int32_t n = request->sched.n_computed - request->sched.n_pending;
        if (request->sched.place != QD_SCHED_RUNNING) continue;
        for (int32_t k = 0; k < n / QD_KV_BLOCK_SIZE; k++) {
            const struct qd_kv_label *label = &pool->labels[request->pages[k]];
            if (!label->is_set || !qd_block_hash_equal(label->hash, request->labels[k]))
                fail_msg("case %llu: page %d of request %d has another hash", (unsigned long long)c->key, k,
                         i);
        }
    }
}

/* Each page's users are those that hold it; a page without users is free, once. */
static void check_pages(const struct random_case *c)
{
    const struct qd_kv_pool *pool = qd_scheduler_pool(c->scheduler);
    int32_t n_users[MAX_POOL] = {1};
    for (int i = 0; i < c->n_requests; i++) {
        const struct simulated *request = &c->requests[i];
        if (request->sched.place != QD_SCHED_RUNNING)
            assert_int_equal(request->sched.n_blocks, 0);
        else
            assert_int_equal(request->sched.n_blocks, pages_of(request->sched.n_computed));
        for (int32_t k = 0; k < request->sched.n_blocks; k++) {
            assert_in_range(request->pages[k], 1, c->config.n_kv_blocks - 1);
            n_users[request->pages[k]]++;
        }
    }
    int32_t n_unused = 0, n_listed = 0;
    for (int32_t page = 0; page < c->config.n_kv_blocks; page++) {
        assert_int_equal(pool->pages[page].n_users, n_users[page]);
        if (!c->config.prefix_caching) assert_true(n_users[page] <= 1);
        n_unused += n_users[page] == 0;
    }
    for (int32_t page = pool->pages[0].next; page != 0; page = pool->pages[page].next, n_listed++)
        assert_int_equal(n_users[page], 0);
    assert_int_equal(pool->n_free, n_unused);
    assert_int_equal(n_listed, n_unused);
}

static uint64_t *memory_at(struct random_case *c, const struct simulated *request, int32_t position)
{
    return &c->memory[request->pages[position / QD_KV_BLOCK_SIZE]][position % QD_KV_BLOCK_SIZE];
}

/* Within a layer all that a step computes is written before anything is read. */
static void check_memory(struct random_case *c, const struct qd_schedule *schedule)
{
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        const struct qd_sched_entry *entry = &schedule->entries[i];
        const struct simulated *request = (const struct simulated *)entry->request;
        for (int32_t p = entry->begin; p < entry->begin + entry->n_tokens; p++)
            *memory_at(c, request, p) = request->values[p];
    }
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        const struct simulated *request = (const struct simulated *)schedule->entries[i].request;
        for (int32_t p = 0; p < request->sched.n_computed; p++)
            if (*memory_at(c, request, p) != request->values[p])
                fail_msg("case %llu: request %llu does not find its position %d", (unsigned long long)c->key,
                         (unsigned long long)request->sched.id, p);
    }
}

/* `before`: what each request had computed before the step. */
static void check_schedule(struct random_case *c, const struct qd_schedule *schedule,
                           const struct qd_sched_request *before)
{
    bool seen[MAX_REQUESTS] = {false}, slots[8] = {false};
    int32_t n_tokens = 0, n_blocks = 0, n_queries = 0,
            n_hits[2] = {0}; /* of new requests, of preempted ones */
    int32_t threshold = c->config.long_prefill_token_threshold;
    assert_in_range(schedule->n_entries, 0, c->config.max_num_seqs);
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        const struct qd_sched_entry *entry = &schedule->entries[i];
        struct simulated *request = (struct simulated *)entry->request;
        int id = (int)request->sched.id;
        assert_false(seen[id]);
        assert_false(slots[request->sched.slot]);
        seen[id] = slots[request->sched.slot] = true;
        assert_true(entry->n_tokens > 0);
        assert_true(threshold == 0 || entry->n_tokens <= threshold);
        if (before[id].place == QD_SCHED_RUNNING) {
            assert_int_equal(entry->begin, before[id].n_computed);
        } else {
            n_hits[before[id].n_preemptions > 0] += entry->begin;
            n_queries += before[id].n_preemptions > 0 ? 0 : before[id].n_known;
        }
        assert_int_equal(request->sched.n_computed, entry->begin + entry->n_tokens);
        assert_int_equal(entry->samples, request->sched.n_computed == before[id].n_known);
        assert_int_equal(request->sched.n_known, before[id].n_known + entry->samples);
        request->ran = true;
        for (int j = 0; j < id; j++) assert_true(c->requests[j].ran || c->requests[j].ended);
        n_tokens += entry->n_tokens;
        n_blocks += request->sched.n_blocks;
    }
    assert_int_equal(n_tokens, schedule->n_tokens);
    assert_int_equal(n_blocks, schedule->n_blocks);
    assert_true(n_tokens <= c->config.max_num_batched_tokens);
    assert_int_equal(n_hits[0], schedule->n_hit_tokens);
    assert_int_equal(n_hits[1], schedule->n_rehit_tokens);
    assert_int_equal(n_queries, schedule->n_query_tokens);
    if (!c->config.prefix_caching) assert_int_equal(n_hits[0] + n_hits[1], 0);
    if (schedule->n_preempted > 0) assert_int_equal(schedule->n_admitted, 0);
}

static void count(const struct random_case *c, const struct qd_schedule *schedule, struct reached *reached)
{
    reached->n_preemptions += (uint64_t)schedule->n_preempted;
    reached->n_hit_tokens += (uint64_t)schedule->n_hit_tokens;
    reached->n_rehit_tokens += (uint64_t)schedule->n_rehit_tokens;
    for (int32_t i = 0; i < schedule->n_entries; i++)
        reached->n_cut_by_threshold += !schedule->entries[i].samples && schedule->entries[i].n_tokens ==
                                                                            c->config.long_prefill_token_threshold;
}

/* Tokens of a step, but for requests that have ended since it was scheduled. Now and then one is an end. */
static void deliver(struct random_case *c, const struct qd_schedule *schedule, struct reached *reached)
{
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        struct simulated *request = (struct simulated *)schedule->entries[i].request;
        if (!schedule->entries[i].samples) continue;
        reached->n_late += request->ended;
        if (request->ended) continue;
        qd_scheduler_token(c->scheduler, &request->sched);
        if (qd_sched_n_sampled(&request->sched) == request->sched.n_prompt + request->max_tokens ||
            draw(c, 0, 20) == 0)
            end_request(c, request);
    }
}

static void run_case(uint64_t key, struct reached *reached)
{
    struct random_case c;
    struct qd_schedule launched = {0}; /* in async mode: its tokens are not there yet */
    char err[QD_ERR_LEN] = "";
    make_case(&c, key);
    ASSERT_OK(qd_scheduler_create(&c.config, &c.scheduler, err, sizeof err), err);
    for (int32_t step = 0; c.n_ended < c.n_requests; step++) {
        struct qd_schedule schedule;
        struct qd_sched_request before[MAX_REQUESTS];
        bool any_alive = false;
        if (step > 100000) fail_msg("case %llu does not end", (unsigned long long)key);
        for (int i = 0; i < c.n_requests; i++) {
            struct simulated *request = &c.requests[i];
            if (!request->arrived && request->arrival_step <= step) {
                qd_scheduler_add(c.scheduler, &request->sched);
                request->arrived = true;
            }
            before[i] = request->sched;
            any_alive = any_alive || (request->arrived && !request->ended);
        }
        qd_scheduler_step(c.scheduler, &schedule);
        check_schedule(&c, &schedule, before);
        check_order(&c);
        check_pages(&c);
        check_labels(&c);
        check_memory(&c, &schedule);
        count(&c, &schedule, reached);
        /* The oldest running request is never a victim while it is not alone, so every step moves somebody.
         */
        assert_int_equal(schedule.n_entries + launched.n_entries > 0, any_alive || launched.n_entries > 0);
        if (!c.async) deliver(&c, &schedule, reached);
        if (c.async) {
            deliver(&c, &launched, reached);
            launched = schedule;
        }
        /* Now and then a client gives one up, wherever it is. */
        struct simulated *unlucky = &c.requests[draw(&c, 0, c.n_requests - 1)];
        if (draw(&c, 0, 40) == 0 && unlucky->arrived && !unlucky->ended) end_request(&c, unlucky);
    }
    check_pages(&c);
    qd_scheduler_destroy(c.scheduler);
}

static void random_workloads_keep_every_promise(void **state)
{
    (void)state;
    struct reached reached = {0};
    for (uint64_t i = 0; i < N_CASES; i++) run_case(i, &reached);
    /* The cases do reach what they are for. */
    assert_true(reached.n_preemptions > N_CASES / 10);
    assert_true(reached.n_hit_tokens > N_CASES && reached.n_rehit_tokens > N_CASES / 10);
    assert_true(reached.n_cut_by_threshold > N_CASES / 10 && reached.n_late > N_CASES / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_workloads_keep_every_promise)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

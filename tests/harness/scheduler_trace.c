/* The scheduler stepped by hand: each trace is worked out on paper from vLLM's V1 rules, one line a step.
 *
 * A request is a letter. A step's expectation lists its rows in order, `a:0+16*` being 16 tokens of a from
 * position 0 on with the last one sampled; `!n` at the end: n requests were preempted. After each step every
 * sampled request gets its token and leaves once it has max_tokens of them. Requests of one family have the
 * same tokens at the same positions, prompt and output; without a family nobody shares any.
 */
#include "tests/support/test.h"

#include "harness/engine/scheduler.h"

enum { MAX_PAGES = 16, MAX_TOKENS = MAX_PAGES * QD_KV_BLOCK_SIZE, N_LETTERS = 26 };

struct arrival {
    char name;
    int before_step; /* index of the step it is there for; 0: from the beginning */
    int n_prompt, max_tokens;
    int family;
};

struct trace {
    const char *name;
    struct qd_scheduler_config config;
    bool async;                 /* the tokens of a step are there after the next was scheduled */
    struct arrival arrivals[8]; /* ends with name 0 */
    const char *steps[16];      /* ends with NULL */
};

struct simulated {
    struct qd_sched_request sched;
    int32_t pages[MAX_PAGES];
    int32_t tokens[MAX_TOKENS];
    struct qd_block_hash hashes[MAX_PAGES];
    int max_tokens;
};

static void describe(const struct qd_schedule *schedule, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        const struct qd_sched_entry *entry = &schedule->entries[i];
        used += (size_t)snprintf(text + used, size - used, "%s%c:%d+%d%s", i > 0 ? " " : "",
                                 (char)entry->request->id, entry->begin, entry->n_tokens,
                                 entry->samples ? "*" : "");
    }
    if (schedule->n_preempted > 0)
        snprintf(text + used, size - used, "%s!%d", used > 0 ? " " : "", schedule->n_preempted);
}

static void deliver(qd_scheduler_t *scheduler, const struct qd_schedule *schedule)
{
    for (int32_t i = 0; i < schedule->n_entries; i++) {
        if (!schedule->entries[i].samples) continue;
        struct simulated *request = (struct simulated *)schedule->entries[i].request;
        qd_scheduler_token(scheduler, &request->sched);
        if (qd_sched_n_sampled(&request->sched) - request->sched.n_prompt == request->max_tokens)
            qd_scheduler_remove(scheduler, &request->sched);
    }
}

static void arrive(qd_scheduler_t *scheduler, const struct trace *trace, int step,
                   struct simulated requests[N_LETTERS])
{
    for (const struct arrival *arrival = trace->arrivals; arrival->name != 0; arrival++) {
        if (arrival->before_step != step) continue;
        struct simulated *request = &requests[arrival->name - 'a'];
        request->sched = (struct qd_sched_request){.id = (uint64_t)arrival->name,
                                                   .n_prompt = arrival->n_prompt,
                                                   .n_known = arrival->n_prompt,
                                                   .blocks = request->pages,
                                                   .tokens = request->tokens,
                                                   .hashes = request->hashes};
        request->max_tokens = arrival->max_tokens;
        if (trace->async) request->sched.max_known = arrival->n_prompt + arrival->max_tokens;
        int family = arrival->family > 0 ? arrival->family : arrival->name;
        for (int i = 0; i < MAX_TOKENS; i++) request->tokens[i] = family * MAX_TOKENS + i;
        if (trace->config.prefix_caching) qd_sched_request_hash(&request->sched);
        qd_scheduler_add(scheduler, &request->sched);
    }
}

static void run_trace(const struct trace *trace)
{
    struct simulated requests[N_LETTERS];
    memset(requests, 0, sizeof requests);
    qd_scheduler_t *scheduler = NULL;
    struct qd_schedule launched = {0}; /* asynchronous: its tokens are not there yet */
    char err[QD_ERR_LEN] = "", got[256];
    ASSERT_OK(qd_scheduler_create(&trace->config, &scheduler, err, sizeof err), err);
    for (int step = 0; trace->steps[step] != NULL; step++) {
        struct qd_schedule schedule;
        arrive(scheduler, trace, step, requests);
        qd_scheduler_step(scheduler, &schedule);
        describe(&schedule, got, sizeof got);
        if (strcmp(got, trace->steps[step]) != 0)
            fail_msg("step %d: expected \"%s\", got \"%s\"", step, trace->steps[step], got);
        deliver(scheduler, trace->async ? &launched : &schedule);
        launched = schedule;
    }
    qd_scheduler_destroy(scheduler);
}

#define CONFIG(budget, seqs, model_len, pages)                                                               \
    {                                                                                                        \
        .max_num_batched_tokens = (budget), .max_num_seqs = (seqs), .max_model_len = (model_len),            \
        .n_kv_blocks = (pages)                                                                               \
    }

#define CACHED(budget, seqs, model_len, pages)                                                               \
    {                                                                                                        \
        .max_num_batched_tokens = (budget), .max_num_seqs = (seqs), .max_model_len = (model_len),            \
        .n_kv_blocks = (pages), .prefix_caching = true                                                       \
    }

static const struct trace traces[] = {
    /* Decodes of a and b ahead of c, which was admitted with what was left and is cut again. */
    {"running requests come first", .config = CONFIG(20, 8, 64, 16),
     .arrivals = {{'a', 0, 5, 3}, {'b', 1, 9, 2}, {'c', 1, 30, 1}},
     .steps = {"a:0+5*", "a:5+1* b:0+9* c:0+10", "a:6+1* b:9+1* c:10+18", "c:28+2*", ""}},
    {"a prompt is cut at the budget", .config = CONFIG(16, 8, 64, 16), .arrivals = {{'a', 0, 40, 2}},
     .steps = {"a:0+16", "a:16+16", "a:32+8*", "a:40+1*", ""}},
    {"chunks need no page alignment", .config = CONFIG(10, 8, 64, 16),
     .arrivals = {{'a', 0, 4, 2}, {'b', 0, 25, 1}},
     .steps = {"a:0+4* b:0+6", "a:4+1* b:6+9", "b:15+10*", ""}},
    {"a budget met exactly admits nobody else", .config = CONFIG(12, 8, 64, 16),
     .arrivals = {{'a', 0, 5, 1}, {'b', 0, 7, 1}, {'c', 0, 3, 1}}, .steps = {"a:0+5* b:0+7*", "c:0+3*", ""}},
    {"a budget of one runs one request at a time", .config = CONFIG(1, 2, 64, 16),
     .arrivals = {{'a', 0, 2, 2}, {'b', 0, 1, 1}}, .steps = {"a:0+1", "a:1+1*", "a:2+1*", "b:0+1*", ""}},
    {"decodes beyond the budget wait in admission order", .config = CONFIG(2, 3, 64, 16),
     .arrivals = {{'a', 0, 1, 3}, {'b', 0, 1, 3}, {'c', 0, 1, 2}},
     .steps = {"a:0+1* b:0+1*", "a:1+1* b:1+1*", "a:2+1* b:2+1*", "c:0+1*", "c:1+1*", ""}},
    {"max num seqs bounds running requests", .config = CONFIG(64, 2, 64, 16),
     .arrivals = {{'a', 0, 4, 2}, {'b', 0, 4, 1}, {'c', 0, 4, 1}},
     .steps = {"a:0+4* b:0+4*", "a:4+1* c:0+4*", ""}},
    /* 4 pages: a holds 3, b needs 2; c would fit but waits behind b. */
    {"nobody overtakes the head of the queue", .config = CONFIG(64, 8, 64, 5),
     .arrivals = {{'a', 0, 40, 3}, {'b', 0, 20, 1}, {'c', 0, 3, 1}},
     .steps = {"a:0+40*", "a:40+1*", "a:41+1*", "b:0+20* c:0+3*", ""}},
    /* 3 pages: in step 1 the first chunk of b (15 tokens, 1 page) would fit, its 40 tokens (3 pages) do not.
     */
    {"a request is admitted only with room for its whole prompt", .config = CONFIG(16, 8, 64, 4),
     .arrivals = {{'a', 0, 16, 2}, {'b', 0, 40, 1}},
     .steps = {"a:0+16*", "a:16+1*", "b:0+16", "b:16+16", "b:32+8*", ""}},
    /* 4 pages: a and b hold 2 each and both want a third in step 2. b comes back with its prompt and the 2
     * tokens it had, once 3 pages are free. */
    {"the last running request is preempted and recomputed", .config = CONFIG(64, 8, 64, 5),
     .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 4}},
     .steps = {"a:0+31* b:0+31*", "a:31+1* b:31+1*", "a:32+1* !1", "a:33+1*", "b:0+33*", "b:33+1*", ""}},
    /* As above; c (1 page) would fit from step 2 on, but not in a step that preempted nor past b. */
    {"a preempted request goes ahead of the queue", .config = CONFIG(64, 8, 64, 5),
     .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 4}, {'c', 2, 3, 1}},
     .steps = {"a:0+31* b:0+31*", "a:31+1* b:31+1*", "a:32+1* !1", "a:33+1*", "b:0+33* c:0+3*", "b:33+1*",
               ""}},
    /* 3 pages, one each: in step 2 a takes c's, then b finds none and is itself the last. */
    {"two preempted requests keep their order", .config = CONFIG(64, 8, 64, 4),
     .arrivals = {{'a', 0, 15, 4}, {'b', 0, 15, 4}, {'c', 0, 15, 4}},
     .steps = {"a:0+15* b:0+15* c:0+15*", "a:15+1* b:15+1* c:15+1*", "a:16+1* !2", "a:17+1*", "b:0+17*",
               "b:17+1*", "c:0+17*", "c:17+1*", ""}},
    {"a request that is the last preempts itself", .config = CONFIG(64, 8, 64, 4),
     .arrivals = {{'a', 0, 10, 5}, {'b', 0, 31, 4}},
     .steps = {"a:0+10* b:0+31*", "a:10+1* b:31+1*", "a:11+1* !1", "a:12+1*", "a:13+1*", "b:0+33*", "b:33+1*",
               ""}},
    {"a preempted prefill starts over in chunks", .config = CONFIG(20, 8, 64, 5),
     .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 1}},
     .steps = {"a:0+20", "a:20+11* b:0+9", "a:31+1* b:9+19", "a:32+1* !1", "a:33+1*", "b:0+20", "b:20+11*",
               ""}},
    /* a has reached max_model_len: nothing of it may be computed, and b runs behind it. */
    {"a request with nothing to compute is skipped", .config = CONFIG(64, 8, 8, 5),
     .arrivals = {{'a', 0, 7, 5}, {'b', 1, 3, 1}}, .steps = {"a:0+7*", "b:0+3*", ""}},
    /* a leaves 2 full pages of its 40 tokens; b has the same 40 and 10 more. */
    {"full pages of an ended request are shared", .config = CACHED(64, 8, 64, 16),
     .arrivals = {{'a', 0, 40, 1, 1}, {'b', 1, 50, 2, 1}, {'c', 1, 20, 1, 2}},
     .steps = {"a:0+40*", "b:32+18* c:0+20*", "b:50+1*", ""}},
    /* All 48 tokens are there in 3 pages, but the logits of the last are not: its page is computed again. */
    {"at least one token of a prompt is computed", .config = CACHED(64, 8, 64, 16),
     .arrivals = {{'a', 0, 48, 1, 1}, {'b', 1, 48, 1, 1}, {'c', 1, 49, 1, 1}, {'d', 1, 16, 1, 1}},
     .steps = {"a:0+48*", "b:32+16* c:48+1* d:0+16*", ""}},
    {"requests of one step share too", .config = CACHED(64, 8, 64, 16),
     .arrivals = {{'a', 0, 33, 2, 1}, {'b', 0, 33, 1, 1}}, .steps = {"a:0+33* b:32+1*", "a:33+1*", ""}},
    /* In step 0 a has 24 tokens: one full page. */
    {"a page is shared only when all of it is scheduled", .config = CACHED(24, 8, 64, 16),
     .arrivals = {{'a', 0, 40, 1, 1}, {'b', 1, 40, 1, 1}}, .steps = {"a:0+24", "a:24+16* b:32+8*", ""}},
    /* a computes 15 + 17 tokens: two full pages, the last sampled token is never computed. */
    {"output is shared as prompts are", .config = CACHED(64, 8, 64, 16),
     .arrivals = {{'a', 0, 30, 3, 1}, {'b', 3, 40, 1, 1}},
     .steps = {"a:0+30*", "a:30+1*", "a:31+1*", "b:32+8*", ""}},
    /* 5 pages: a and b hold 2 together and one more each; c needs 2, of which there is 1. Without sharing b
     * would have had to wait. */
    {"shared pages leave room for others", .config = CACHED(64, 8, 64, 6),
     .arrivals = {{'a', 0, 40, 3, 1}, {'b', 1, 40, 2, 1}, {'c', 1, 20, 1, 2}},
     .steps = {"a:0+40*", "a:40+1* b:32+8*", "a:41+1* b:40+1*", "c:0+20*", ""}},
    /* 4 pages, all free after a, 2 of them with its prefix. c takes one that is not. b needs 4: 2 hits and 2
     * more, of which there is 1, though 3 pages are free. */
    {"idle pages that are hit do not count as free", .config = CACHED(64, 8, 64, 5),
     .arrivals = {{'a', 0, 40, 1, 1}, {'c', 1, 3, 2, 2}, {'b', 1, 50, 1, 1}},
     .steps = {"a:0+40*", "c:0+3*", "c:3+1*", "b:32+18*", ""}},
    /* As the_last_running_request_is_preempted: b's first page survives, its second is taken by a, which
     * needs a third: pages without a hash go first, then the end of b's prefix. */
    {"a preempted request finds its own pages", .config = CACHED(64, 8, 64, 5),
     .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 4}},
     .steps = {"a:0+31* b:0+31*", "a:31+1* b:31+1*", "a:32+1* !1", "a:33+1*", "b:16+17*", "b:33+1*", ""}},
    /* Several prefills are under way at once, which the budget alone never does. */
    {"long prefills are cut at the threshold",
     .config = {.max_num_batched_tokens = 30,
                .max_num_seqs = 8,
                .max_model_len = 64,
                .n_kv_blocks = 16,
                .long_prefill_token_threshold = 12},
     .arrivals = {{'a', 0, 20, 2}, {'b', 0, 30, 1}, {'c', 0, 4, 2}},
     .steps = {"a:0+12 b:0+12 c:0+4*", "a:12+8* b:12+12 c:4+1*", "a:20+1* b:24+6*", ""}},
    /* Prompts and outputs alike, 4 pages. a and b compute the same two pages side by side: neither was full
     * when the other was admitted. In step 3 a takes one of b's two, and b could come back at once: it finds
     * its two pages as a's, and a third is free. But not in a step that preempted. */
    {"nobody is admitted in a step that preempted",
     .config = {.max_num_batched_tokens = 64,
                .max_num_seqs = 8,
                .max_model_len = 64,
                .n_kv_blocks = 5,
                .long_prefill_token_threshold = 12,
                .prefix_caching = true},
     .arrivals = {{'a', 0, 32, 3, 1}, {'b', 0, 32, 3, 1}},
     .steps = {"a:0+12 b:0+12", "a:12+12 b:12+12", "a:24+8* b:24+8*", "a:32+1* !1", "a:33+1* b:32+1*",
               "b:33+1*", ""}},
    /* The schedule of a step is made before the tokens of the one before are there. The third token is
     * sampled, but never computed; its request runs until it is there. */
    {"asynchronous: a request ends a step after its last", .config = CONFIG(64, 1, 64, 16), .async = true,
     .arrivals = {{'a', 0, 5, 3}, {'b', 0, 4, 1}},
     .steps = {"a:0+5*", "a:5+1*", "a:6+1*", "", "b:0+4*", "", ""}},
    {"asynchronous: chunks and decodes go on", .config = CONFIG(20, 8, 64, 16), .async = true,
     .arrivals = {{'a', 0, 5, 3}, {'b', 1, 9, 2}, {'c', 1, 30, 1}},
     .steps = {"a:0+5*", "a:5+1* b:0+9* c:0+10", "a:6+1* b:9+1* c:10+18", "c:28+2*", "", ""}},
    /* a computes 30 + 2 tokens. Its second page is known by its tokens, and free, when the third output is
     * there: too late for b, whose step was scheduled before, but not for c. */
    {"asynchronous: output is shared when it is there", .config = CACHED(64, 8, 64, 16), .async = true,
     .arrivals = {{'a', 0, 30, 3, 1}, {'b', 3, 31, 1, 1}, {'c', 4, 40, 1, 1}},
     .steps = {"a:0+30*", "a:30+1*", "a:31+1*", "b:16+15*", "c:32+8*", "", ""}},
    /* 4 pages. In step 2 the last token of a is on its way; b wants a third page and is itself the last. */
    {"asynchronous: a schedule may be a preemption alone", .config = CONFIG(64, 8, 64, 5), .async = true,
     .arrivals = {{'a', 0, 31, 2}, {'b', 0, 31, 4}},
     .steps = {"a:0+31* b:0+31*", "a:31+1* b:31+1*", "!1", "b:0+33*", "b:33+1*", "", ""}},
};

static void a_trace_is_as_worked_out(void **state)
{
    run_trace(*state);
}

static void removal_frees_pages_in_every_state(void **state)
{
    (void)state;
    const struct trace trace = {
        .config = CONFIG(64, 8, 64, 5),
        .arrivals = {{'a', 0, 31, 9}, {'b', 0, 31, 9}, {'c', 0, 5, 9}},
    };
    struct simulated requests[N_LETTERS];
    memset(requests, 0, sizeof requests);
    qd_scheduler_t *scheduler = NULL;
    struct qd_schedule schedule;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_scheduler_create(&trace.config, &scheduler, err, sizeof err), err);
    arrive(scheduler, &trace, 0, requests);
    while (requests[1].sched.n_preemptions == 0) {
        qd_scheduler_step(scheduler, &schedule);
        deliver(scheduler, &schedule);
    }
    assert_int_equal(requests[1].sched.n_blocks, 0);
    assert_int_equal(requests[1].sched.slot, -1);
    assert_int_equal(qd_scheduler_n_waiting(scheduler), 2);
    qd_scheduler_remove(scheduler, &requests[1].sched); /* preempted */
    qd_scheduler_remove(scheduler, &requests[2].sched); /* never ran */
    assert_int_equal(qd_scheduler_n_waiting(scheduler), 0);
    assert_int_equal(qd_scheduler_pool(scheduler)->n_free, 1);
    qd_scheduler_remove(scheduler, &requests[0].sched); /* running */
    assert_int_equal(qd_scheduler_n_running(scheduler), 0);
    assert_int_equal(qd_scheduler_pool(scheduler)->n_free, 4);
    qd_scheduler_step(scheduler, &schedule);
    assert_int_equal(schedule.n_entries, 0);
    qd_scheduler_destroy(scheduler);
}

static void a_limit_below_one_is_refused(void **state)
{
    (void)state;
    const struct qd_scheduler_config bad[] = {CONFIG(0, 1, 1, 2), CONFIG(1, 0, 1, 2), CONFIG(1, 1, 0, 2),
                                              CONFIG(1, 1, 1, 1)};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qd_scheduler_t *scheduler = NULL;
        char err[QD_ERR_LEN] = "";
        assert_int_equal(qd_scheduler_create(&bad[i], &scheduler, err, sizeof err), QD_ERR_ARGUMENT);
        ASSERT_CONTAINS(err, "at least 1");
        assert_null(scheduler);
    }
    qd_scheduler_destroy(NULL);
}

enum { N_TRACES = sizeof traces / sizeof *traces };

int main(void)
{
    struct CMUnitTest tests[N_TRACES + 2] = {
        cmocka_unit_test(removal_frees_pages_in_every_state),
        cmocka_unit_test(a_limit_below_one_is_refused),
    };
    for (int i = 0; i < N_TRACES; i++)
        tests[2 + i] = (struct CMUnitTest){.name = traces[i].name,
                                           .test_func = a_trace_is_as_worked_out,
                                           .initial_state = (void *)(uintptr_t)&traces[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

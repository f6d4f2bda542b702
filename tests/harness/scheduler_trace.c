/* The scheduler stepped by hand: each trace is worked out on paper from vLLM's V1 rules, one line a step.
 *
 * A request is a letter. A step's expectation lists its rows in order, `a:0+16*` being 16 tokens of a from
 * position 0 on with the last one sampled; `!n` at the end: n requests were preempted. After each step every
 * sampled request gets its token and leaves once it has max_tokens of them. Requests of one family have the same
 * tokens at the same positions, prompt and output; without a family nobody shares any.
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
    struct qd_scheduler_config config;
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
        if (request->sched.n_known - request->sched.n_prompt == request->max_tokens)
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
    char err[QD_ERR_LEN] = "", got[256];
    ASSERT_OK(qd_scheduler_create(&trace->config, &scheduler, err, sizeof err), err);
    for (int step = 0; trace->steps[step] != NULL; step++) {
        struct qd_schedule schedule;
        arrive(scheduler, trace, step, requests);
        qd_scheduler_step(scheduler, &schedule);
        describe(&schedule, got, sizeof got);
        if (strcmp(got, trace->steps[step]) != 0)
            fail_msg("step %d: expected \"%s\", got \"%s\"", step, trace->steps[step], got);
        deliver(scheduler, &schedule);
    }
    qd_scheduler_destroy(scheduler);
}

#define CONFIG(budget, seqs, model_len, pages)                                                               \
    {                                                                                                        \
        .max_num_batched_tokens = (budget), .max_num_seqs = (seqs), .max_model_len = (model_len),            \
        .n_kv_blocks = (pages)                                                                               \
    }

static void running_requests_come_first(void **state)
{
    (void)state;
    /* Decodes of a and b ahead of c, which was admitted with what was left and is cut again. */
    run_trace(&(struct trace){
        .config = CONFIG(20, 8, 64, 16),
        .arrivals = {{'a', 0, 5, 3}, {'b', 1, 9, 2}, {'c', 1, 30, 1}},
        .steps = {"a:0+5*", "a:5+1* b:0+9* c:0+10", "a:6+1* b:9+1* c:10+18", "c:28+2*", ""},
    });
}

static void a_prompt_is_cut_at_the_budget(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(16, 8, 64, 16),
        .arrivals = {{'a', 0, 40, 2}},
        .steps = {"a:0+16", "a:16+16", "a:32+8*", "a:40+1*", ""},
    });
}

static void chunks_need_no_page_alignment(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(10, 8, 64, 16),
        .arrivals = {{'a', 0, 4, 2}, {'b', 0, 25, 1}},
        .steps = {"a:0+4* b:0+6", "a:4+1* b:6+9", "b:15+10*", ""},
    });
}

static void a_budget_met_exactly_admits_nobody_else(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(12, 8, 64, 16),
        .arrivals = {{'a', 0, 5, 1}, {'b', 0, 7, 1}, {'c', 0, 3, 1}},
        .steps = {"a:0+5* b:0+7*", "c:0+3*", ""},
    });
}

static void a_budget_of_one_runs_one_request_at_a_time(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(1, 2, 64, 16),
        .arrivals = {{'a', 0, 2, 2}, {'b', 0, 1, 1}},
        .steps = {"a:0+1", "a:1+1*", "a:2+1*", "b:0+1*", ""},
    });
}

static void decodes_beyond_the_budget_wait_in_admission_order(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(2, 3, 64, 16),
        .arrivals = {{'a', 0, 1, 3}, {'b', 0, 1, 3}, {'c', 0, 1, 2}},
        .steps = {"a:0+1* b:0+1*", "a:1+1* b:1+1*", "a:2+1* b:2+1*", "c:0+1*", "c:1+1*", ""},
    });
}

static void max_num_seqs_bounds_running_requests(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(64, 2, 64, 16),
        .arrivals = {{'a', 0, 4, 2}, {'b', 0, 4, 1}, {'c', 0, 4, 1}},
        .steps = {"a:0+4* b:0+4*", "a:4+1* c:0+4*", ""},
    });
}

static void nobody_overtakes_the_head_of_the_queue(void **state)
{
    (void)state;
    /* 4 pages: a holds 3, b needs 2; c would fit but waits behind b. */
    run_trace(&(struct trace){
        .config = CONFIG(64, 8, 64, 5),
        .arrivals = {{'a', 0, 40, 3}, {'b', 0, 20, 1}, {'c', 0, 3, 1}},
        .steps = {"a:0+40*", "a:40+1*", "a:41+1*", "b:0+20* c:0+3*", ""},
    });
}

static void a_request_is_admitted_only_with_room_for_its_whole_prompt(void **state)
{
    (void)state;
    /* 3 pages: in step 1 the first chunk of b (15 tokens, 1 page) would fit, its 40 tokens (3 pages) do not.
     */
    run_trace(&(struct trace){
        .config = CONFIG(16, 8, 64, 4),
        .arrivals = {{'a', 0, 16, 2}, {'b', 0, 40, 1}},
        .steps = {"a:0+16*", "a:16+1*", "b:0+16", "b:16+16", "b:32+8*", ""},
    });
}

static void the_last_running_request_is_preempted_and_recomputed(void **state)
{
    (void)state;
    /* 4 pages: a and b hold 2 each and both want a third in step 2. b comes back with its prompt and the 2
     * tokens it had, once 3 pages are free. */
    run_trace(&(struct trace){
        .config = CONFIG(64, 8, 64, 5),
        .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 4}},
        .steps = {"a:0+31* b:0+31*", "a:31+1* b:31+1*", "a:32+1* !1", "a:33+1*", "b:0+33*", "b:33+1*", ""},
    });
}

static void a_preempted_request_goes_ahead_of_the_queue(void **state)
{
    (void)state;
    /* As above; c (1 page) would fit from step 2 on, but not in a step that preempted nor past b. */
    run_trace(&(struct trace){
        .config = CONFIG(64, 8, 64, 5),
        .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 4}, {'c', 2, 3, 1}},
        .steps = {"a:0+31* b:0+31*", "a:31+1* b:31+1*", "a:32+1* !1", "a:33+1*", "b:0+33* c:0+3*", "b:33+1*",
                  ""},
    });
}

static void two_preempted_requests_keep_their_order(void **state)
{
    (void)state;
    /* 3 pages, one each: in step 2 a takes c's, then b finds none and is itself the last. */
    run_trace(&(struct trace){
        .config = CONFIG(64, 8, 64, 4),
        .arrivals = {{'a', 0, 15, 4}, {'b', 0, 15, 4}, {'c', 0, 15, 4}},
        .steps = {"a:0+15* b:0+15* c:0+15*", "a:15+1* b:15+1* c:15+1*", "a:16+1* !2", "a:17+1*", "b:0+17*",
                  "b:17+1*", "c:0+17*", "c:17+1*", ""},
    });
}

static void a_request_that_is_the_last_preempts_itself(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(64, 8, 64, 4),
        .arrivals = {{'a', 0, 10, 5}, {'b', 0, 31, 4}},
        .steps = {"a:0+10* b:0+31*", "a:10+1* b:31+1*", "a:11+1* !1", "a:12+1*", "a:13+1*", "b:0+33*",
                  "b:33+1*", ""},
    });
}

static void a_preempted_prefill_starts_over_in_chunks(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CONFIG(20, 8, 64, 5),
        .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 1}},
        .steps = {"a:0+20", "a:20+11* b:0+9", "a:31+1* b:9+19", "a:32+1* !1", "a:33+1*", "b:0+20", "b:20+11*",
                  ""},
    });
}

static void a_request_with_nothing_to_compute_is_skipped(void **state)
{
    (void)state;
    /* a has reached max_model_len: nothing of it may be computed, and b runs behind it. */
    run_trace(&(struct trace){
        .config = CONFIG(64, 8, 8, 5),
        .arrivals = {{'a', 0, 7, 5}, {'b', 1, 3, 1}},
        .steps = {"a:0+7*", "b:0+3*", ""},
    });
}

#define CACHED(budget, seqs, model_len, pages)                                                              \
    {                                                                                                        \
        .max_num_batched_tokens = (budget), .max_num_seqs = (seqs), .max_model_len = (model_len),            \
        .n_kv_blocks = (pages), .prefix_caching = true                                                       \
    }

static void full_pages_of_an_ended_request_are_shared(void **state)
{
    (void)state;
    /* a leaves 2 full pages of its 40 tokens; b has the same 40 and 10 more. */
    run_trace(&(struct trace){
        .config = CACHED(64, 8, 64, 16),
        .arrivals = {{'a', 0, 40, 1, 1}, {'b', 1, 50, 2, 1}, {'c', 1, 20, 1, 2}},
        .steps = {"a:0+40*", "b:32+18* c:0+20*", "b:50+1*", ""},
    });
}

static void at_least_one_token_of_a_prompt_is_computed(void **state)
{
    (void)state;
    /* All 48 tokens are there in 3 pages, but the logits of the last are not: its page is computed again. */
    run_trace(&(struct trace){
        .config = CACHED(64, 8, 64, 16),
        .arrivals = {{'a', 0, 48, 1, 1}, {'b', 1, 48, 1, 1}, {'c', 1, 49, 1, 1}, {'d', 1, 16, 1, 1}},
        .steps = {"a:0+48*", "b:32+16* c:48+1* d:0+16*", ""},
    });
}

static void requests_of_one_step_share_too(void **state)
{
    (void)state;
    run_trace(&(struct trace){
        .config = CACHED(64, 8, 64, 16),
        .arrivals = {{'a', 0, 33, 2, 1}, {'b', 0, 33, 1, 1}},
        .steps = {"a:0+33* b:32+1*", "a:33+1*", ""},
    });
}

static void a_page_is_shared_only_when_all_of_it_is_scheduled(void **state)
{
    (void)state;
    /* In step 0 a has 24 tokens: one full page. */
    run_trace(&(struct trace){
        .config = CACHED(24, 8, 64, 16),
        .arrivals = {{'a', 0, 40, 1, 1}, {'b', 1, 40, 1, 1}},
        .steps = {"a:0+24", "a:24+16* b:32+8*", ""},
    });
}

static void output_is_shared_as_prompts_are(void **state)
{
    (void)state;
    /* a computes 15 + 17 tokens: two full pages, the last sampled token is never computed. */
    run_trace(&(struct trace){
        .config = CACHED(64, 8, 64, 16),
        .arrivals = {{'a', 0, 30, 3, 1}, {'b', 3, 40, 1, 1}},
        .steps = {"a:0+30*", "a:30+1*", "a:31+1*", "b:32+8*", ""},
    });
}

static void shared_pages_leave_room_for_others(void **state)
{
    (void)state;
    /* 5 pages: a and b hold 2 together and one more each; c needs 2, of which there is 1. Without sharing b would
     * have had to wait. */
    run_trace(&(struct trace){
        .config = CACHED(64, 8, 64, 6),
        .arrivals = {{'a', 0, 40, 3, 1}, {'b', 1, 40, 2, 1}, {'c', 1, 20, 1, 2}},
        .steps = {"a:0+40*", "a:40+1* b:32+8*", "a:41+1* b:40+1*", "c:0+20*", ""},
    });
}

static void idle_pages_that_are_hit_do_not_count_as_free(void **state)
{
    (void)state;
    /* 4 pages, all free after a, 2 of them with its prefix. c takes one that is not. b needs 4: 2 hits and 2 more, of
     * which there is 1, though 3 pages are free. */
    run_trace(&(struct trace){
        .config = CACHED(64, 8, 64, 5),
        .arrivals = {{'a', 0, 40, 1, 1}, {'c', 1, 3, 2, 2}, {'b', 1, 50, 1, 1}},
        .steps = {"a:0+40*", "c:0+3*", "c:3+1*", "b:32+18*", ""},
    });
}

static void a_preempted_request_finds_its_own_pages(void **state)
{
    (void)state;
    /* As the_last_running_request_is_preempted: b's first page survives, its second is taken by a, which needs a
     * third: pages without a hash go first, then the end of b's prefix. */
    run_trace(&(struct trace){
        .config = CACHED(64, 8, 64, 5),
        .arrivals = {{'a', 0, 31, 4}, {'b', 0, 31, 4}},
        .steps = {"a:0+31* b:0+31*", "a:31+1* b:31+1*", "a:32+1* !1", "a:33+1*", "b:16+17*", "b:33+1*", ""},
    });
}

static void long_prefills_are_cut_at_the_threshold(void **state)
{
    (void)state;
    /* Several prefills are under way at once, which the budget alone never does. */
    run_trace(&(struct trace){
        .config = {.max_num_batched_tokens = 30, .max_num_seqs = 8, .max_model_len = 64, .n_kv_blocks = 16,
                   .long_prefill_token_threshold = 12},
        .arrivals = {{'a', 0, 20, 2}, {'b', 0, 30, 1}, {'c', 0, 4, 2}},
        .steps = {"a:0+12 b:0+12 c:0+4*", "a:12+8* b:12+12 c:4+1*", "a:20+1* b:24+6*", ""},
    });
}

static void removal_frees_pages_in_every_state(void **state)
{
    (void)state;
    struct trace trace = {
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_requests_come_first),
        cmocka_unit_test(a_prompt_is_cut_at_the_budget),
        cmocka_unit_test(chunks_need_no_page_alignment),
        cmocka_unit_test(a_budget_met_exactly_admits_nobody_else),
        cmocka_unit_test(a_budget_of_one_runs_one_request_at_a_time),
        cmocka_unit_test(decodes_beyond_the_budget_wait_in_admission_order),
        cmocka_unit_test(max_num_seqs_bounds_running_requests),
        cmocka_unit_test(nobody_overtakes_the_head_of_the_queue),
        cmocka_unit_test(a_request_is_admitted_only_with_room_for_its_whole_prompt),
        cmocka_unit_test(the_last_running_request_is_preempted_and_recomputed),
        cmocka_unit_test(a_preempted_request_goes_ahead_of_the_queue),
        cmocka_unit_test(two_preempted_requests_keep_their_order),
        cmocka_unit_test(a_request_that_is_the_last_preempts_itself),
        cmocka_unit_test(a_preempted_prefill_starts_over_in_chunks),
        cmocka_unit_test(a_request_with_nothing_to_compute_is_skipped),
        cmocka_unit_test(full_pages_of_an_ended_request_are_shared),
        cmocka_unit_test(at_least_one_token_of_a_prompt_is_computed),
        cmocka_unit_test(requests_of_one_step_share_too),
        cmocka_unit_test(a_page_is_shared_only_when_all_of_it_is_scheduled),
        cmocka_unit_test(output_is_shared_as_prompts_are),
        cmocka_unit_test(shared_pages_leave_room_for_others),
        cmocka_unit_test(idle_pages_that_are_hit_do_not_count_as_free),
        cmocka_unit_test(a_preempted_request_finds_its_own_pages),
        cmocka_unit_test(long_prefills_are_cut_at_the_threshold),
        cmocka_unit_test(removal_frees_pages_in_every_state),
        cmocka_unit_test(a_limit_below_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/support/replies.h"

#include "tests/support/test.h"

enum { POLL_MAX = 256 };

struct reply *replies_make(size_t n, int32_t max_tokens)
{
    struct reply *replies = calloc(n, sizeof *replies);
    int32_t *tokens = calloc(n * (size_t)max_tokens, sizeof *tokens);
    assert_non_null(replies);
    assert_non_null(tokens);
    for (size_t i = 0; i < n; i++) replies[i].tokens = tokens + i * (size_t)max_tokens;
    return replies;
}

void replies_free(struct reply *replies)
{
    free(replies[0].tokens);
    free(replies);
}

void reply_take(struct reply *reply, const struct qd_event *event, int32_t max_tokens)
{
    assert_int_equal(reply->n_finishes, 0); /* nothing follows the end */
    if (event->token >= 0) {
        assert_int_equal(event->output_index, reply->n_tokens);
        assert_in_range(reply->n_tokens, 0, max_tokens - 1);
        reply->tokens[reply->n_tokens++] = event->token;
    } else {
        assert_int_equal(event->output_index, reply->n_tokens);
        assert_int_not_equal(event->finish, QD_FINISH_NONE);
    }
    assert_true(event->time_ns >= reply->last_ns);
    if (reply->first_ns == 0) reply->first_ns = event->time_ns;
    reply->last_ns = event->time_ns;
    reply->scheduled_ns = event->scheduled_ns;
    reply->replica = event->replica;
    reply->preemptions = event->preemptions;
    reply->finish = event->finish;
    reply->n_finishes = event->finish != QD_FINISH_NONE;
}

/* One call of serve. Ids count up, so that of request i is first_id + i. */
struct serving {
    qd_engine_t *engine;
    const struct qd_request *requests;
    size_t n, n_submitted, n_ended;
    uint64_t first_id;
};

static void submit(struct serving *s, size_t n)
{
    char err[QD_ERR_LEN] = "";
    uint64_t *ids = calloc(n, sizeof *ids);
    assert_non_null(ids);
    ASSERT_OK(qd_engine_submit_batch(s->engine, s->requests + s->n_submitted, n, ids, err, sizeof err), err);
    if (s->n_submitted == 0) s->first_id = ids[0];
    assert_int_equal(ids[n - 1], s->first_id + s->n_submitted + n - 1);
    s->n_submitted += n;
    free(ids);
}

struct reply *serve(qd_engine_t *engine, const struct qd_request *requests, size_t n, size_t n_at_once)
{
    struct serving s = {.engine = engine, .requests = requests, .n = n};
    struct qd_event events[POLL_MAX];
    int32_t room = 1;
    for (size_t i = 0; i < n; i++) room = requests[i].max_tokens > room ? requests[i].max_tokens : room;
    struct reply *replies = replies_make(n, room);
    submit(&s, n_at_once == 0 || n_at_once > n ? n : n_at_once);
    while (s.n_ended < n) {
        size_t n_events = qd_engine_poll_events(engine, events, POLL_MAX, INT64_C(60000000000));
        if (n_events == 0) fail_msg("no event within 60 s; %zu requests have not ended", n - s.n_ended);
        for (size_t i = 0; i < n_events; i++) {
            size_t index = (size_t)(events[i].request - s.first_id);
            assert_true(index < s.n_submitted);
            reply_take(&replies[index], &events[i], requests[index].max_tokens);
            if (events[i].finish == QD_FINISH_NONE) continue;
            s.n_ended++;
            if (s.n_submitted < n) submit(&s, 1);
        }
    }
    return replies;
}

/* Recorded steps of several replicas: sorted, told apart, executed at the same time, and what fails ends all.
 */
#include "tests/support/test.h"

#include "harness/engine/replay.h"
#include "tests/support/fake_device.h"
#include "tests/support/steps.h"

enum { N_RECORDS = 5, MAX_LEN = 64, VOCAB = 101 };

/* Replica 0: a warm-up, then two measured steps; replica 1: a warm-up, then one. */
struct recording {
    struct page_deal deal;
    struct qd_step *steps[N_RECORDS];
    char *bytes;
    size_t n_bytes;
    struct qd_step_file file;
};

/* `flags` of the records. */
static void make_recording(struct recording *r, const uint32_t *flags)
{
    const struct {
        int replica, n_chunks;
        struct chunk chunks[2];
    } records[N_RECORDS] = {{0, 1, {{0, 0, 3}}},
                            {1, 1, {{0, 0, 17}}},
                            {0, 2, {{0, 3, 1}, {1, 0, 5}}},
                            {1, 1, {{0, 17, 1}}},
                            {0, 2, {{0, 4, 2}, {1, 5, 1}}}};
    char err[QD_ERR_LEN] = "";
    r->deal = page_deal_init(2, MAX_LEN, 5);
    const struct qd_step_file_header header = {.limits = {22, 2, 8, 2},
                                               .max_model_len = MAX_LEN,
                                               .n_kv_blocks = r->deal.n_kv_blocks,
                                               .vocab_size = VOCAB,
                                               .n_replicas = 2};
    FILE *stream = open_memstream(&r->bytes, &r->n_bytes);
    qd_step_file_write_header(stream, &header);
    for (int i = 0; i < N_RECORDS; i++) {
        const int32_t ids[2] = {0, 0};
        r->steps[i] = new_step(&r->deal, records[i].chunks, records[i].n_chunks);
        for (int32_t row = 0; row < r->steps[i]->n_logit_rows; row++)
            qd_step_sampling(r->steps[i])[row].slot = row; /* where the fake device keeps what it sampled */
        qd_step_file_write(stream, records[i].replica, r->steps[i], ids, 100 + i, flags[i]);
    }
    fclose(stream);
    ASSERT_OK(qd_step_file_parse("FILE", r->bytes, r->n_bytes, &r->file, err, sizeof err), err);
}

static void free_recording(struct recording *r)
{
    qd_step_file_close(&r->file);
    for (int i = 0; i < N_RECORDS; i++) free(r->steps[i]);
    page_deal_free(&r->deal);
    free(r->bytes);
}

static const uint32_t warm_then_measured[N_RECORDS] = {0, 0, 1, 1, 1};

static void steps_are_sorted_by_replica_and_counted(void **state)
{
    (void)state;
    struct recording r;
    struct qd_replay replay;
    char err[QD_ERR_LEN] = "";
    make_recording(&r, warm_then_measured);
    ASSERT_OK(qd_replay_load(&r.file, &replay, err, sizeof err), err);
    assert_int_equal(replay.dp, 2);
    const struct qd_replay_replica *a = &replay.replicas[0], *b = &replay.replicas[1];
    assert_int_equal(a->n_steps, 3);
    assert_int_equal(a->n_warmup_steps, 1);
    assert_int_equal(a->recorded_span_ns, 102 + 104);
    assert_int_equal(b->n_steps, 2);
    assert_int_equal(b->recorded_span_ns, 103);
    /* One decode behind 3 keys, a prompt of 5: keys seen 4 + 15, keys 4 + 5. */
    const struct qd_step_row *row = &a->rows[1];
    assert_int_equal(row->index, 0);
    assert_int_equal(row->n_decode_tokens, 1);
    assert_int_equal(row->n_prefill_tokens, 5);
    assert_int_equal(row->n_prefill_seqs, 1);
    assert_int_equal(row->n_visible, 19);
    assert_int_equal(row->n_kv, 9);
    assert_int_equal(row->n_prefill_kv, 5);
    assert_int_equal(row->n_seqs, 2);
    assert_int_equal(row->n_logit_rows, 2);
    /* Two tokens behind 4, one behind 5. */
    row = &a->rows[2];
    assert_int_equal(row->index, 1);
    assert_int_equal(row->n_prefill_tokens, 2);
    assert_int_equal(row->n_visible, 5 + 6 + 6);
    assert_int_equal(b->rows[1].replica, 1);
    assert_int_equal(a->stats.n_steps, 2);
    assert_int_equal(a->stats.n_prefill_tokens, 7);
    assert_int_equal(a->stats.n_decode_tokens, 2);
    qd_replay_free(&replay);
    free_recording(&r);
}

static void what_measures_nothing_or_warms_up_late_is_refused(void **state)
{
    (void)state;
    static const uint32_t nothing[N_RECORDS] = {0}, late[N_RECORDS] = {0, 1, 1, 0, 1};
    struct recording r;
    struct qd_replay replay;
    char err[QD_ERR_LEN] = "";
    make_recording(&r, nothing);
    assert_int_equal(qd_replay_load(&r.file, &replay, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "FILE: no step was measured");
    qd_replay_free(&replay);
    free_recording(&r);
    make_recording(&r, late);
    assert_int_equal(qd_replay_load(&r.file, &replay, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "FILE: record 3: flags: a warm-up behind measured steps");
    qd_replay_free(&replay);
    free_recording(&r);
}

/* Both replicas on devices that check every step; step `failing` of replica 1 fails. */
static qd_status run_replay(struct recording *r, int64_t failing, bool async, struct qd_replay *replay,
                            char *err, size_t errlen)
{
    struct fake_device devices[2];
    qd_group_t *groups[2];
    ASSERT_OK(qd_replay_load(&r->file, replay, err, errlen), err);
    for (int i = 0; i < 2; i++) {
        devices[i] = (struct fake_device){.limits = r->file.header.limits,
                                          .n_kv_blocks = r->file.header.n_kv_blocks,
                                          .vocab_size = VOCAB,
                                          .step_us = i == 0 ? 20000 : 0,
                                          .fail_step = i == 1 ? failing : -1,
                                          .bad_step = -1};
        ASSERT_OK(fake_group_open(&devices[i], i, 1, &groups[i], err, errlen), err);
    }
    qd_status st = qd_replay_run(replay, groups, async, err, errlen);
    for (int i = 0; i < 2; i++) qd_group_close(groups[i]);
    return st;
}

static void replicas_run_side_by_side_and_their_times_add_up(void **state)
{
    (void)state;
    for (int async = 0; async < 2; async++) {
        struct recording r;
        struct qd_replay replay;
        char err[QD_ERR_LEN] = "";
        make_recording(&r, warm_then_measured);
        ASSERT_OK(run_replay(&r, -1, async == 1, &replay, err, sizeof err), err);
        assert_int_equal(replay.replicas[0].n_ids, 5); /* a row a sequence */
        assert_int_equal(replay.replicas[1].n_ids, 2);
        for (int i = 0; i < 2; i++) {
            const struct qd_replica_stats *s = &replay.replicas[i].stats;
            int64_t busy_ns = s->launch_ns + s->wait_ns + s->output_ns,
                    left_ns = s->wall_ns - busy_ns - s->idle_ns;
            if (left_ns < 0 || left_ns > s->wall_ns / 2) fail_msg("%lld ns are left", (long long)left_ns);
            assert_int_equal(s->schedule_ns + s->prepare_ns, 0);
        }
        /* It takes 40 ms; the other has nothing to do for most of that. */
        assert_true(replay.replicas[0].stats.wall_ns >= 40000000);
        assert_true(replay.replicas[1].stats.idle_ns > 0);
        qd_replay_free(&replay);
        free_recording(&r);
    }
}

/* In the warm-up, while the other waits for the measured steps, and behind it. */
static void a_replica_that_fails_ends_all(void **state)
{
    (void)state;
    for (int64_t failing = 0; failing < 2; failing++) {
        struct recording r;
        struct qd_replay replay;
        char err[QD_ERR_LEN] = "";
        make_recording(&r, warm_then_measured);
        assert_int_equal(run_replay(&r, failing, false, &replay, err, sizeof err), QD_ERR_RANK);
        ASSERT_CONTAINS(err, "replica 1 rank 0: step ");
        qd_replay_free(&replay);
        free_recording(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_sorted_by_replica_and_counted),
        cmocka_unit_test(what_measures_nothing_or_warms_up_late_is_refused),
        cmocka_unit_test(replicas_run_side_by_side_and_their_times_add_up),
        cmocka_unit_test(a_replica_that_fails_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

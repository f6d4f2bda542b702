/* Files of recorded steps: what is written is read back, and nothing in a file is trusted. */
#include "tests/support/test.h"

#include "kernels/step_file.h"
#include "tests/support/files.h"
#include "tests/support/steps.h"

enum { N_STEPS = 3, MAX_LEN = 64, VOCAB = 101, MAX_BYTES = 1 << 16 };

/* Three steps of two sequences as a file in memory; the second is of another replica. */
struct recording {
    struct page_deal deal;
    struct qd_step *steps[N_STEPS];
    int32_t ids[N_STEPS][2];
    struct qd_step_file_header header;
    char *bytes;
    size_t n_bytes;
};

static void make_recording(struct recording *r)
{
    const struct chunk chunks[N_STEPS][2] = {
        {{0, 0, 17}, {1, 0, 5}}, {{0, 17, 1}, {1, 5, 1}}, {{0, 18, 3}, {1, 6, 1}}};
    r->deal = page_deal_init(2, MAX_LEN, 5);
    r->header = (struct qd_step_file_header){.limits = {22, 2, 8, 2},
                                             .max_model_len = MAX_LEN,
                                             .n_kv_blocks = r->deal.n_kv_blocks,
                                             .vocab_size = VOCAB,
                                             .n_replicas = 2};
    FILE *stream = open_memstream(&r->bytes, &r->n_bytes);
    qd_step_file_write_header(stream, &r->header);
    for (int i = 0; i < N_STEPS; i++) {
        r->steps[i] = new_step(&r->deal, chunks[i], 2);
        r->ids[i][0] = i, r->ids[i][1] = VOCAB - 1 - i;
        qd_step_file_write(stream, i % 2, r->steps[i], r->ids[i], 100 + i,
                           i > 0 ? QD_STEP_RECORD_MEASURED : 0);
    }
    fclose(stream);
}

static void free_recording(struct recording *r)
{
    for (int i = 0; i < N_STEPS; i++) free(r->steps[i]);
    page_deal_free(&r->deal);
    free(r->bytes);
}

static void expect_steps(const struct recording *r, struct qd_step_file *file)
{
    char err[QD_ERR_LEN] = "";
    struct qd_recorded_step step;
    for (int i = 0; i < N_STEPS; i++) {
        ASSERT_OK(qd_step_file_next(file, &step, err, sizeof err), err);
        assert_int_equal(step.step->used_bytes, r->steps[i]->used_bytes);
        assert_memory_equal(step.step, r->steps[i], r->steps[i]->used_bytes);
        assert_int_equal(step.n_ids, 2);
        assert_int_equal(step.replica, i % 2);
        assert_memory_equal(step.ids, r->ids[i], sizeof r->ids[i]);
        assert_int_equal(step.span_ns, 100 + i);
        assert_int_equal(step.is_measured, i > 0);
    }
    ASSERT_OK(qd_step_file_next(file, &step, err, sizeof err), err);
    assert_null(step.step);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct recording r;
    struct qd_step_file file;
    struct temp_dir dir = temp_dir_create();
    char err[QD_ERR_LEN] = "";
    make_recording(&r);
    write_file(in_dir(&dir, "steps"), r.bytes, r.n_bytes);
    ASSERT_OK(qd_step_file_open(in_dir(&dir, "steps"), &file, err, sizeof err), err);
    assert_int_equal(file.header.n_kv_blocks, r.header.n_kv_blocks);
    assert_int_equal(file.header.n_replicas, 2);
    assert_memory_equal(&file.header.limits, &r.header.limits, sizeof r.header.limits);
    expect_steps(&r, &file);
    qd_step_file_rewind(&file);
    expect_steps(&r, &file);
    qd_step_file_close(&file);
    assert_int_equal(qd_step_file_open(in_dir(&dir, "none"), &file, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "none");
    temp_dir_remove(&dir);
    free_recording(&r);
}

/* The whole file; the text of the first refusal, or NULL. */
static const char *refusal(const void *bytes, size_t n_bytes)
{
    static char err[QD_ERR_LEN];
    struct qd_step_file file;
    struct qd_recorded_step step;
    qd_status st = qd_step_file_parse("FILE", bytes, n_bytes, &file, err, sizeof err);
    if (st == QD_OK) {
        do st = qd_step_file_next(&file, &step, err, sizeof err);
        while (st == QD_OK && step.step != NULL);
        qd_step_file_close(&file);
    }
    if (st == QD_OK) return NULL;
    assert_int_equal(st, QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "FILE: ");
    return err;
}

/* Offsets in the file. */
#define RECORD sizeof(struct qd_step_file_header)
#define STEP   (RECORD + sizeof(struct qd_step_record))

static void every_field_is_checked(void **state)
{
    (void)state;
    struct recording r;
    make_recording(&r);
    const struct {
        size_t offset;
        int32_t value;
        const char *text;
    } cases[] = {
        {offsetof(struct qd_step_file_header, magic), 1, "magic"},
        {offsetof(struct qd_step_file_header, version), 1, "version: 1, expected 2"},
        {offsetof(struct qd_step_file_header, limits.max_tokens), 0, "max_tokens: 0"},
        {offsetof(struct qd_step_file_header, limits.max_tokens), 21,
         "record 0: n_tokens: more than max_tokens"},
        {offsetof(struct qd_step_file_header, limits.max_seqs), 1, "record 0: n_seqs: more than max_seqs"},
        {offsetof(struct qd_step_file_header, limits.max_blocks), 1,
         "record 0: block_table: more than max_blocks"},
        {offsetof(struct qd_step_file_header, limits.max_logit_rows), 1, "record 0: n_logit_rows: more than"},
        {offsetof(struct qd_step_file_header, max_model_len), 16,
         "record 0: kv_len: more than max_model_len"},
        {offsetof(struct qd_step_file_header, n_kv_blocks), 2, "record 0: step: block_table"},
        {offsetof(struct qd_step_file_header, vocab_size), 3, "record 0: step: token_source"},
        {offsetof(struct qd_step_file_header, n_replicas), 0, "n_replicas: 0"},
        {offsetof(struct qd_step_file_header, n_replicas), 65, "n_replicas: 65, at most 64"},
        {offsetof(struct qd_step_file_header, n_replicas), 1, "record 1: replica: not one of"},
        {RECORD + offsetof(struct qd_step_record, magic), 1, "record 0: magic"},
        {RECORD + offsetof(struct qd_step_record, replica), 2, "record 0: replica"},
        {RECORD + offsetof(struct qd_step_record, replica), -1, "record 0: replica"},
        {RECORD + offsetof(struct qd_step_record, flags), 2, "record 0: flags"},
        {RECORD + offsetof(struct qd_step_record, n_ids), 1, "record 0: n_ids"},
        {RECORD + offsetof(struct qd_step_record, n_ids), -1, "record 0: n_ids"},
        {RECORD + offsetof(struct qd_step_record, n_ids), INT32_MAX, "record 0: the file ends in it"},
        {RECORD + offsetof(struct qd_step_record, span_ns) + 4, -1, "record 0: span_ns"},
        {RECORD + offsetof(struct qd_step_record, step_bytes), 8, "record 0: step: used_bytes"},
        {RECORD + offsetof(struct qd_step_record, step_bytes), -1, "record 0: the file ends in it"},
        {STEP + offsetof(struct qd_step, n_tokens), 0, "record 0: step: n_seqs"},
        {STEP + offsetof(struct qd_step, flags), QD_STEP_WANT_LOGITS,
         "record 0: flags: logits are not recorded"},
    };
    assert_null(refusal(r.bytes, r.n_bytes));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t before;
        memcpy(&before, r.bytes + cases[i].offset, sizeof before);
        memcpy(r.bytes + cases[i].offset, &cases[i].value, sizeof before);
        const char *text = refusal(r.bytes, r.n_bytes);
        if (text == NULL) fail_msg("case %zu is not refused", i);
        ASSERT_CONTAINS(text, cases[i].text);
        memcpy(r.bytes + cases[i].offset, &before, sizeof before);
    }
    int32_t outside = VOCAB;
    memcpy(r.bytes + r.n_bytes - 8, &outside, sizeof outside); /* the last step's first id */
    ASSERT_CONTAINS(refusal(r.bytes, r.n_bytes), "record 2: ids: outside the vocabulary");
    free_recording(&r);
}

static void a_file_that_was_cut_is_refused_unless_between_records(void **state)
{
    (void)state;
    struct recording r;
    make_recording(&r);
    int n_whole = 0;
    for (size_t n = 0; n < r.n_bytes; n++) n_whole += refusal(r.bytes, n) == NULL;
    assert_int_equal(n_whole, N_STEPS); /* no record, one, two */
    free_recording(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(every_field_is_checked),
        cmocka_unit_test(a_file_that_was_cut_is_refused_unless_between_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

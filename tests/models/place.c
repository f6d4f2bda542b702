/* Weights on a device with memory of its own: copied rank by rank, after which the host's copy may go. The
 * device is `cpu` with an upload and host memory of its own, so the bits must be the same. */
#include "kernels/cpu/host/device.h"
#include "tests/support/compare.h"
#include "tests/support/model_run.h"
#include "tests/support/test.h"

enum { N_TOKENS = 20 };

static qd_status copying_upload(void *ctx, void *data, const void *host, size_t bytes, char *err,
                                size_t errlen)
{
    (void)ctx, (void)err, (void)errlen;
    memcpy(data, host, bytes);
    return QD_OK;
}

/* All logits of a text, [N_TOKENS][vocab]. */
static float *logits_of(const char *dir, const struct qd_device_ops *ops, int tp, size_t *n)
{
    int32_t tokens[N_TOKENS];
    for (int32_t i = 0; i < N_TOKENS; i++) tokens[i] = (7 * i + 3) % 50;
    const struct run_options options = {
        .isa = "portable", .n_threads = tp, .max_tokens = 32, .max_logit_rows = 32, .max_model_len = 64};
    struct model_run run;
    qd_model_t *model = load_model(dir, ops, tp);
    int32_t vocab = (int32_t)qd_model_get_config(model)->vocab_size;
    model_run_open(&run, model, ops, &options);
    if (qd_device_has_copies(ops)) qd_model_drop_weights(model);
    float *logits = model_run_logits(&run, tokens, N_TOKENS, 7, vocab);
    model_run_close(&run);
    qd_model_free(model);
    *n = (size_t)N_TOKENS * (size_t)vocab;
    return logits;
}

static void copies_give_the_same_logits(void **state)
{
    const char *dir = *state;
    struct qd_device_ops copying = qd_cpu_ops;
    copying.upload = copying_upload;
    copying.alloc_host = qd_cpu_ops.alloc;
    for (int tp = 1; tp <= 2; tp++) {
        size_t n;
        float *want = logits_of(dir, &qd_cpu_ops, tp, &n), *got = logits_of(dir, &copying, tp, &n);
        compare_same_f32(dir, got, want, n);
        free(want);
        free(got);
    }
}

static void a_model_whose_weights_are_gone_makes_no_program(void **state)
{
    char err[QD_ERR_LEN] = "";
    qd_model_t *model = load_model(*state, &qd_cpu_ops, 1);
    struct qd_program program;
    struct qd_program_options options = {.n_kv_blocks = 2, .limits = {.max_tokens = 4}};
    qd_model_drop_weights(model);
    assert_int_equal(qd_model_program(model, &options, &program, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "without weights");
    qd_model_free(model);
}

#define MODELS "tests/data/goldens/models/"

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"copies_give_the_same_logits_tied", copies_give_the_same_logits, NULL, NULL,
         MODELS "tied-gqa2-hd64"},
        {"copies_give_the_same_logits_untied", copies_give_the_same_logits, NULL, NULL, MODELS "yarn4-hd128"},
        {"a_model_whose_weights_are_gone_makes_no_program", a_model_whose_weights_are_gone_makes_no_program,
         NULL, NULL, MODELS "tied-gqa2-hd64"},
    };
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}

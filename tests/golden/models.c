/* The forward pass against Hugging Face on small random models: every instruction set, numerics and number of
 * ranks. */
#include "tests/support/test.h"

#include "kernels/cpu/host/device.h"
#include "kernels/ref/ref.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"
#include "tests/support/model_run.h"

enum { REF_LEN = 40 }; /* the specification is slow: shorter prompts only */

static void keep_id(void *arg, int32_t position, int32_t id, const float *logits)
{
    (void)position, (void)logits;
    *(int32_t *)arg = id;
}

/* The judged tokens of Hugging Face's generate(), decoded one at a time from the pages of the prompt. */
static void judge_greedy(struct model_run *run, const struct qd_golden *golden, int32_t max_len)
{
    int n_judged = 0;
    for (int p = 0; p < golden->n_prompts; p++) {
        if (golden->lengths[p] > max_len) continue;
        const cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItem(golden->root, "greedy_bfloat16"), p);
        int judged = cJSON_GetObjectItem(entry, "judged")->valueint;
        int32_t n = golden->lengths[p], tokens[GOLDEN_MAX_LEN], id;
        memcpy(tokens, golden->prompts[p], (size_t)n * sizeof *tokens);
        for (int i = 0, n_cached = 0; i < judged; i++) {
            struct qd_forward forward = {
                .tokens = tokens,
                .n_tokens = n,
                .n_cached = n_cached,
                .chunk = GOLDEN_MAX_CHUNK,
                .first_row = n - 1,
                .row = keep_id,
                .arg = &id,
            };
            model_run_forward(run, &forward);
            assert_int_equal(id, cJSON_GetArrayItem(cJSON_GetObjectItem(entry, "ids"), i)->valueint);
            n_cached = n;
            tokens[n++] = id;
        }
        n_judged += judged;
    }
    assert_true(n_judged > 0);
}

/* All instruction sets and numerics of the cpu device with `tp` ranks, over one loaded model. */
static void run_cpu(const char *dir, const struct qd_golden *golden, int tp)
{
    static const char *const sets[] = {"avx2", "portable"};
    qd_model_t *model = load_model(dir, &qd_cpu_ops, tp);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!has_isa(sets[i])) continue;
        /* What ranks add is the same code for every set. */
        if (i > 0 && tp > 2) continue;
        for (int hf = 0; hf < 2; hf++) {
            struct run_options options = {
                .isa = sets[i],
                .numerics = hf ? QD_NUMERICS_HF : QD_NUMERICS_FUSED,
                .max_tokens = GOLDEN_MAX_CHUNK,
                .max_logit_rows = GOLDEN_MAX_CHUNK,
                .max_model_len = GOLDEN_MAX_LEN,
            };
            struct model_run run;
            char what[64];
            model_run_open(&run, model, &qd_cpu_ops, &options);
            snprintf(what, sizeof what, "cpu %s, %d ranks", sets[i], tp);
            judge_prompts(&run, golden, GOLDEN_MAX_LEN, !hf ? "fused" : tp > 1 ? "bf16_tp" : "bf16", what);
            if (hf && tp == 1) judge_greedy(&run, golden, GOLDEN_MAX_LEN);
            model_run_close(&run);
        }
    }
    qd_model_free(model);
}

static void run_ref(const char *dir, const struct qd_golden *golden)
{
    qd_model_t *model = load_model(dir, &qd_ref_ops, 1);
    for (int hf = 0; hf < 2; hf++) {
        struct run_options options = {
            .numerics = hf ? QD_NUMERICS_HF : QD_NUMERICS_FUSED,
            .max_tokens = GOLDEN_MAX_CHUNK,
            .max_logit_rows = GOLDEN_MAX_CHUNK,
            .max_model_len = GOLDEN_MAX_LEN,
        };
        struct model_run run;
        model_run_open(&run, model, &qd_ref_ops, &options);
        judge_prompts(&run, golden, REF_LEN, hf ? "bf16" : "fused", "ref");
        if (hf) judge_greedy(&run, golden, REF_LEN);
        model_run_close(&run);
    }
    qd_model_free(model);
}

/* The shard rule in the test's own words. */
static bool allowed(const struct qd_model_config *config, int tp)
{
    return config->n_heads % tp == 0 && config->ffn_dim % tp == 0 &&
           (config->n_kv_heads % tp == 0 || tp % config->n_kv_heads == 0);
}

static void check_model(const char *dir, int n_expected)
{
    static const int sizes[] = {1, 2, 4, 8};
    char err[QD_ERR_LEN] = "", path[512];
    snprintf(path, sizeof path, "%s/config.json", dir);
    NEED_FILE(path);
    struct qd_golden golden;
    struct qd_model_config config;
    golden_load(&golden, dir);
    ASSERT_OK(qd_model_config_read(dir, &config, err, sizeof err), err);
    int n_run = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct qd_shard shard;
        qd_status st = qd_shard_make(&config, sizes[i], 0, &shard, err, sizeof err);
        assert_int_equal(st, allowed(&config, sizes[i]) ? QD_OK : QD_ERR_UNSUPPORTED);
        if (st != QD_OK) continue;
        run_cpu(dir, &golden, sizes[i]);
        n_run++;
    }
    assert_int_equal(n_run, n_expected);
    run_ref(dir, &golden);
    qd_golden_free(&golden);
}

static void tied_gqa2_hd64(void **state)
{
    (void)state;
    check_model(GOLDEN_COMMITTED "tied-gqa2-hd64", 3);
}

static void mha_oddsize_f32(void **state)
{
    (void)state;
    check_model(GOLDEN_COMMITTED "mha-oddsize-f32", 2);
}

static void yarn4_hd128(void **state)
{
    (void)state;
    check_model(GOLDEN_COMMITTED "yarn4-hd128", 2);
}

static void yarn4_hd128_beyond_the_original_context(void **state)
{
    (void)state;
    check_model(GOLDEN_SHARED "yarn4-hd128", 2);
}

static void untied_gqa4_hd128_shards(void **state)
{
    (void)state;
    check_model(GOLDEN_SHARED "untied-gqa4-hd128-shards", 3);
}

static void gqa8_f16(void **state)
{
    (void)state;
    check_model(GOLDEN_SHARED "gqa8-f16", 4);
}

static void gqa5_hd64_shards(void **state)
{
    (void)state;
    check_model(GOLDEN_SHARED "gqa5-hd64-shards", 2);
}

static void yarn4_hd64_f32_shards(void **state)
{
    (void)state;
    check_model(GOLDEN_SHARED "yarn4-hd64-f32-shards", 1);
}

static void deep4_tied_f16_shards(void **state)
{
    (void)state;
    check_model(GOLDEN_SHARED "deep4-tied-f16-shards", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tied_gqa2_hd64),
        cmocka_unit_test(mha_oddsize_f32),
        cmocka_unit_test(yarn4_hd128),
        cmocka_unit_test(yarn4_hd128_beyond_the_original_context),
        cmocka_unit_test(untied_gqa4_hd128_shards),
        cmocka_unit_test(gqa8_f16),
        cmocka_unit_test(gqa5_hd64_shards),
        cmocka_unit_test(yarn4_hd64_f32_shards),
        cmocka_unit_test(deep4_tied_f16_shards),
    };
    return cmocka_run_group_tests_name("golden models", tests, NULL, NULL);
}

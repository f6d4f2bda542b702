/* The forward pass of the CUDA device against Hugging Face on small random models: on emulated GPUs, and on
 * this machine's where it has any and libqdyno_cuda.so is built. Models that the device does not support are
 * skipped with its reason. On these devices attention's probabilities stay un-normalised, so `hf` is judged
 * by the rules of `fused` beside `fused` itself. */
#include "tests/support/test.h"

#include "kernels/cuda/device.h"
#include "tests/support/golden.h"
#include "tests/support/model_run.h"

enum {
    EMULATED_LEN = IS_SANITIZED ? 24 : 140, /* an emulated GPU is slow: shorter prompts, fewer ranks */
    EMULATED_RANKS = IS_SANITIZED ? 1 : 2,
};

static void run_ranks(const struct qd_device_ops *ops, const char *dir, const struct qd_golden *golden, int tp,
                      int32_t max_len)
{
    const int n_numerics = tp == 1 || ops->memory != NULL ? 2 : 1; /* emulated ranks are slow */
    for (int hf = 0; hf < n_numerics; hf++) {
        struct run_options options = {
            .numerics = hf ? QD_NUMERICS_HF : QD_NUMERICS_FUSED,
            .max_tokens = GOLDEN_MAX_CHUNK,
            .max_logit_rows = GOLDEN_MAX_CHUNK,
            .max_model_len = GOLDEN_MAX_LEN,
        };
        struct model_run run;
        char what[64];
        qd_model_t *model = load_model(dir, ops, tp);
        model_run_open(&run, model, ops, &options);
        snprintf(what, sizeof what, "%s %s, %d ranks", ops->name, hf ? "hf" : "fused", tp);
        judge_prompts(&run, golden, max_len, "fused", what);
        model_run_close(&run);
        qd_model_free(model);
    }
}

/* False, with the reason, when the model is not here or the device does not support it. */
static bool judge_model(const struct qd_device_ops *ops, const char *dir, int max_ranks, int32_t max_len,
                        char *err, size_t errlen)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", dir);
    struct qd_model_config config;
    struct qd_shard shard;
    if (access(path, R_OK) != 0) {
        snprintf(err, errlen, "%s is not here", path);
        return false;
    }
    ASSERT_OK(qd_model_config_read(dir, &config, err, errlen), err);
    ASSERT_OK(qd_shard_make(&config, 1, 0, &shard, err, errlen), err);
    struct qd_model_shape shape = qd_shard_shape(&config, &shard);
    if (!ops->supports(&shape, 1, QD_NUMERICS_FUSED, err, errlen)) return false;
    struct qd_golden golden;
    golden_load(&golden, dir);
    for (int tp = 1; tp <= max_ranks; tp *= 2) {
        if (qd_shard_make(&config, tp, 0, &shard, err, errlen) != QD_OK) continue;
        shape = qd_shard_shape(&config, &shard);
        if (ops->supports(&shape, tp, QD_NUMERICS_FUSED, err, errlen))
            run_ranks(ops, dir, &golden, tp, max_len);
    }
    qd_golden_free(&golden);
    return true;
}

static const char *const models[] = {
    GOLDEN_COMMITTED "tied-gqa2-hd64",
    GOLDEN_COMMITTED "mha-oddsize-f32",
    GOLDEN_COMMITTED "yarn4-hd128",
    GOLDEN_SHARED "untied-gqa4-hd128-shards",
    GOLDEN_SHARED "gqa8-f16",
    GOLDEN_SHARED "gqa5-hd64-shards",
    GOLDEN_SHARED "yarn4-hd64-f32-shards",
    GOLDEN_SHARED "deep4-tied-f16-shards",
};
enum { N_MODELS = sizeof models / sizeof models[0] };

static void emu(void **state)
{
    char why[QD_ERR_LEN] = "";
    const char *dir = models[*(const int *)*state];
    if (!judge_model(&qd_emu_ops, dir, EMULATED_RANKS, EMULATED_LEN, why, sizeof why))
        SKIP("%s on emu: %s", dir, why);
}

/* Where the device cannot be had: skipped, or failed when the caller said that there is a GPU. */
static void cuda(void **state)
{
    (void)state;
    const struct qd_device_ops *ops;
    struct qd_device_memory memory;
    char why[QD_ERR_LEN] = "";
    const char *required = getenv("REQUIRE_CUDA");
    qd_status st = qd_device_get("cuda", &ops, why, sizeof why);
    const struct qd_device_config one = {.n_ranks = 1};
    if (st == QD_OK) st = ops->memory(&one, &memory, why, sizeof why);
    if (st != QD_OK && required != NULL && strcmp(required, "0") != 0) fail_msg("%s", why);
    if (st != QD_OK) SKIP("%s", why);
    int n_judged = 0;
    for (int i = 0; i < N_MODELS; i++)
        if (judge_model(ops, models[i], memory.n_devices < 8 ? memory.n_devices : 8, GOLDEN_MAX_LEN, why,
                        sizeof why))
            n_judged++;
        else
            printf("%s on cuda: not run: %s\n", models[i], why);
    assert_true(n_judged > 0);
}

static int indices[N_MODELS] = {0, 1, 2, 3, 4, 5, 6, 7};

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"tied_gqa2_hd64_emu", emu, NULL, NULL, &indices[0]},
        {"mha_oddsize_f32_emu", emu, NULL, NULL, &indices[1]},
        {"yarn4_hd128_emu", emu, NULL, NULL, &indices[2]},
        {"untied_gqa4_hd128_shards_emu", emu, NULL, NULL, &indices[3]},
        {"gqa8_f16_emu", emu, NULL, NULL, &indices[4]},
        {"gqa5_hd64_shards_emu", emu, NULL, NULL, &indices[5]},
        {"yarn4_hd64_f32_shards_emu", emu, NULL, NULL, &indices[6]},
        {"deep4_tied_f16_shards_emu", emu, NULL, NULL, &indices[7]},
        cmocka_unit_test(cuda),
    };
    return cmocka_run_group_tests_name("golden models on GPUs", tests, NULL, NULL);
}

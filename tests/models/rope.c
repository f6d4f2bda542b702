/* Rotary frequencies against Hugging Face's own cos and sin, and against published numbers. */
#include "tests/support/test.h"

#include <math.h>

#include "models/config.h"
#include "tests/support/files.h"
#include "tests/support/trace.h"

enum { N_POSITIONS = 5 };

static struct qd_model_config read_config(const char *path)
{
    struct qd_model_config config;
    char *text = read_text(path), err[QD_ERR_LEN];
    ASSERT_OK(qd_model_config_parse(text, strlen(text), path, &config, err, sizeof err), err);
    free(text);
    return config;
}

/* Largest distance of scaling * cos and sin from the trace, both halves of the head. */
static double distance(const struct qd_model_config *config, const cJSON *trace)
{
    float inv_freq[512], scaling;
    qd_model_rope(config, inv_freq, &scaling);
    const cJSON *tables[2];
    tables[0] = cJSON_GetObjectItem(cJSON_GetObjectItem(trace, "rope_cos"), "data")->child;
    tables[1] = cJSON_GetObjectItem(cJSON_GetObjectItem(trace, "rope_sin"), "data")->child;
    double worst = 0;
    for (int i = 0; i < N_POSITIONS * config->head_dim; i++) {
        int position = i / config->head_dim, pair = i % (config->head_dim / 2);
        float angle = (float)position * inv_freq[pair];
        worst = fmax(worst, fabs((double)(cosf(angle) * scaling) - tables[0]->valuedouble));
        worst = fmax(worst, fabs((double)(sinf(angle) * scaling) - tables[1]->valuedouble));
        tables[0] = tables[0]->next;
        tables[1] = tables[1]->next;
    }
    assert_null(tables[0]);
    return worst;
}

static void test_bf16_traces(void **state)
{
    (void)state;
    static const char *const models[] = {"yarn4-hd128", "tied-gqa2-hd64"};
    for (int i = 0; i < 2; i++) {
        char path[256];
        snprintf(path, sizeof path, "tests/data/goldens/models/%s/config.json", models[i]);
        struct qd_model_config config = read_config(path);
        snprintf(path, sizeof path, "tests/data/traces/%s.json", models[i]);
        cJSON *trace = trace_read(path);
        double worst = distance(&config, trace);
        cJSON_Delete(trace);
        /* half a bf16 step below 2, and the trace's short decimals; observed 0.0039 */
        if (!(worst <= 0.0041)) fail_msg("%s: %g", models[i], worst);
    }
}

static void test_float_traces(void **state)
{
    (void)state;
    static const char *const models[] = {"yarn4-hd128", "tied-gqa2-hd64"};
    for (int i = 0; i < 2; i++) {
        char config_path[256], path[256];
        snprintf(path, sizeof path, SHARED_DATA "goldens/models/%s/trace-float64.json", models[i]);
        snprintf(config_path, sizeof config_path, "tests/data/goldens/models/%s/config.json", models[i]);
        NEED_FILE(path);
        struct qd_model_config config = read_config(config_path);
        cJSON *trace = trace_read(path);
        double worst = distance(&config, trace);
        cJSON_Delete(trace);
        printf("%s: largest distance %.3g\n", models[i], worst);
        if (!(worst <= 3e-7)) fail_msg("%s: %g", models[i], worst); /* observed: see the line above */
    }
}

/* The model card's block on 8B: pairs up to 23 keep their frequency, pairs from 40 on are divided by 4. */
static void test_correction_range(void **state)
{
    (void)state;
    struct qd_model_config plain, yarn;
    char err[QD_ERR_LEN];
    ASSERT_OK(qd_model_config_preset("8B", &plain, err, sizeof err), err);
    yarn = plain;
    yarn.yarn.enabled = true;
    yarn.yarn.truncate = true;
    yarn.yarn.factor = 4;
    yarn.yarn.original_max_position_embeddings = 32768;
    yarn.yarn.beta_fast = 32;
    yarn.yarn.beta_slow = 1;
    yarn.yarn.attention_factor = 0.1 * log(4) + 1;
    float a[64], b[64], scaling;
    qd_model_rope(&plain, a, &scaling);
    assert_true(scaling == 1.0f && a[0] == 1.0f);
    assert_true(fabs(a[32] - 1e-3) < 1e-9);
    qd_model_rope(&yarn, b, &scaling);
    assert_true(fabs((double)scaling - 1.138629) < 5e-7);
    for (int i = 0; i < 64; i++) {
        double ratio = (double)b[i] / (double)a[i];
        double ramp = i <= 23 ? 0 : i >= 40 ? 1 : (i - 23) / 17.0;
        if (!(fabs(ratio - (1 - 0.75 * ramp)) < 1e-6)) fail_msg("pair %d: ratio %.9g", i, ratio);
    }
    /* Without truncation the ramp starts and ends between pairs. */
    yarn.yarn.truncate = false;
    qd_model_rope(&yarn, b, &scaling);
    double low = 128 * log(32768 / (32 * 2 * M_PI)) / (2 * log(1e6));
    double high = 128 * log(32768 / (2 * M_PI)) / (2 * log(1e6));
    assert_true(fabs((double)b[30] / (double)a[30] - (1 - 0.75 * (30 - low) / (high - low))) < 1e-6);
}

static void test_spellings_give_the_same_frequencies(void **state)
{
    (void)state;
    static const char *const files[] = {"", "-old-key", "-v5"};
    NEED_FILE(SHARED_DATA "real/configs/Qwen3-8B-yarn4.config.json");
    float freq[3][64], scaling[3];
    for (int i = 0; i < 3; i++) {
        char path[256];
        snprintf(path, sizeof path, SHARED_DATA "real/configs/Qwen3-8B-yarn4%s.config.json", files[i]);
        struct qd_model_config config = read_config(path);
        assert_int_equal(config.max_context, 131072);
        qd_model_rope(&config, freq[i], &scaling[i]);
        assert_memory_equal(freq[i], freq[0], sizeof freq[0]);
        assert_true(scaling[i] == scaling[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16_traces),
        cmocka_unit_test(test_float_traces),
        cmocka_unit_test(test_correction_range),
        cmocka_unit_test(test_spellings_give_the_same_frequencies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

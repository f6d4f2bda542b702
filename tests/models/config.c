/* config.json and generation_config.json: both spellings, what is refused and why. */
#include "tests/support/test.h"

#include <math.h>

#include <cjson/cJSON.h>

#include "models/config.h"
#include "tests/support/files.h"

static const char BASE[] =
    "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"attention_bias\":false,"
    "\"eos_token_id\":7,\"head_dim\":128,\"hidden_act\":\"silu\",\"hidden_size\":1024,"
    "\"intermediate_size\":3072,\"max_position_embeddings\":40960,\"max_window_layers\":2,"
    "\"num_attention_heads\":16,\"num_hidden_layers\":2,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-06,"
    "\"rope_scaling\":null,\"rope_theta\":1000000,\"sliding_window\":null,\"tie_word_embeddings\":true,"
    "\"torch_dtype\":\"bfloat16\",\"use_sliding_window\":false,\"vocab_size\":151936}";

/* BASE with the members of `changes` put over it; a member "-key" takes key out. */
static char *changed(const char *changes)
{
    cJSON *root = cJSON_Parse(BASE), *patch = cJSON_Parse(changes);
    if (patch == NULL) fail_msg("the test's own JSON is wrong: %s", changes);
    for (const cJSON *item = patch->child; item != NULL; item = item->next) {
        const char *key = item->string[0] == '-' ? item->string + 1 : item->string;
        cJSON_DeleteItemFromObjectCaseSensitive(root, key);
        if (key == item->string) cJSON_AddItemToObject(root, key, cJSON_Duplicate(item, 1));
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    cJSON_Delete(patch);
    return text;
}

static struct qd_model_config accept(const char *changes)
{
    struct qd_model_config config;
    char err[QD_ERR_LEN] = "", *text = changed(changes);
    qd_status status = qd_model_config_parse(text, strlen(text), "F", &config, err, sizeof err);
    free(text);
    if (status != QD_OK) fail_msg("%s: %s", changes, err);
    return config;
}

static void refuse(const char *changes, qd_status expected, const char *why)
{
    struct qd_model_config config;
    char err[QD_ERR_LEN] = "", *text = changed(changes);
    qd_status status = qd_model_config_parse(text, strlen(text), "F", &config, err, sizeof err);
    free(text);
    if (status != expected) fail_msg("%s: %s: %s", changes, qd_status_name(status), err);
    ASSERT_CONTAINS(err, "F: ");
    ASSERT_CONTAINS(err, why);
}

static void test_reads_published_spelling(void **state)
{
    (void)state;
    struct qd_model_config c = accept("{}");
    assert_int_equal(c.hidden_dim, 1024);
    assert_int_equal(c.ffn_dim, 3072);
    assert_int_equal(c.vocab_size, 151936);
    assert_int_equal(c.n_layers, 2);
    assert_int_equal(c.n_heads, 16);
    assert_int_equal(c.n_kv_heads, 8);
    assert_int_equal(c.head_dim, 128);
    assert_true(c.rms_norm_eps == 1e-6 && c.rope_theta == 1e6);
    assert_true(c.tie_word_embeddings && !c.yarn.enabled);
    assert_int_equal(c.max_position_embeddings, 40960);
    assert_int_equal(c.max_context, 40960);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos_ids[0], 7);
}

static void test_defaults_are_hugging_faces(void **state)
{
    (void)state;
    struct qd_model_config c =
        accept("{\"-head_dim\":0,\"-rms_norm_eps\":0,\"-rope_theta\":0,\"-tie_word_embeddings\":0,"
               "\"-max_position_embeddings\":0,\"-eos_token_id\":0,\"num_key_value_heads\":null}");
    assert_int_equal(c.head_dim, 128); /* not hidden_size / heads, which is 64 */
    assert_true(c.rms_norm_eps == 1e-6 && c.rope_theta == 1e4 && !c.tie_word_embeddings);
    assert_int_equal(c.max_position_embeddings, 32768);
    assert_int_equal(c.n_kv_heads, 16);
    assert_int_equal(c.n_eos, 0);
}

static void test_accepts_what_changes_nothing(void **state)
{
    (void)state;
    accept("{\"unknown_key\":{\"a\":[1]},\"attention_dropout\":0.5,\"initializer_range\":0.3}");
    accept("{\"hidden_act\":\"swish\",\"-torch_dtype\":0,\"dtype\":\"float32\"}");
    accept("{\"quantization_config\":null,\"-model_type\":0}");
    accept("{\"-architectures\":0}");
    /* a window that no layer uses */
    accept("{\"use_sliding_window\":true}");
    accept("{\"use_sliding_window\":true,\"sliding_window\":4096,\"max_window_layers\":2}");
    accept("{\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":0}");
    accept("{\"layer_types\":[\"full_attention\",\"full_attention\"]}");
    accept("{\"use_sliding_window\":true,\"sliding_window\":9,\"max_window_layers\":0,"
           "\"layer_types\":[\"full_attention\",\"full_attention\"]}");
    accept("{\"rope_scaling\":{}}");
    accept("{\"rope_scaling\":{\"type\":\"default\",\"mrope_section\":[1,2]},\"partial_rotary_factor\":1.0}");
    assert_int_equal(accept("{\"head_dim\":6,\"num_attention_heads\":15,\"num_key_value_heads\":5}").head_dim,
                     6);
    assert_int_equal(accept("{\"hidden_size\":1.024e3}").hidden_dim, 1024);
}

static void test_refuses_by_name(void **state)
{
    (void)state;
    refuse("{\"architectures\":[\"LlamaForCausalLM\"]}", QD_ERR_UNSUPPORTED, "LlamaForCausalLM");
    refuse("{\"model_type\":\"qwen3_moe\"}", QD_ERR_UNSUPPORTED, "qwen3_moe");
    refuse("{\"quantization_config\":{\"quant_method\":\"fp8\"}}", QD_ERR_UNSUPPORTED, "quantization_config");
    refuse("{\"attention_bias\":true}", QD_ERR_UNSUPPORTED, "attention_bias");
    refuse("{\"hidden_act\":\"gelu\"}", QD_ERR_UNSUPPORTED, "gelu");
    refuse("{\"use_sliding_window\":true,\"sliding_window\":64,\"max_window_layers\":1}", QD_ERR_UNSUPPORTED,
           "use_sliding_window");
    refuse("{\"use_sliding_window\":true,\"-sliding_window\":0,\"max_window_layers\":0}", QD_ERR_UNSUPPORTED,
           "use_sliding_window");
    refuse("{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", QD_ERR_UNSUPPORTED,
           "sliding_attention");
    refuse("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", QD_ERR_UNSUPPORTED, "linear");
    refuse("{\"rope_parameters\":{\"rope_type\":\"llama3\"}}", QD_ERR_UNSUPPORTED, "llama3");
    refuse("{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}", QD_ERR_UNSUPPORTED,
           "rope_parameters");
    refuse("{\"partial_rotary_factor\":0.5}", QD_ERR_UNSUPPORTED, "partial_rotary_factor");
}

static void test_refuses_wrong_numbers(void **state)
{
    (void)state;
    refuse("{\"-hidden_size\":0}", QD_ERR_INPUT, "hidden_size: is missing");
    refuse("{\"-num_key_value_heads\":0}", QD_ERR_INPUT, "num_key_value_heads: is missing");
    refuse("{\"hidden_size\":1024.5}", QD_ERR_INPUT, "hidden_size");
    refuse("{\"hidden_size\":\"1024\"}", QD_ERR_INPUT, "hidden_size");
    refuse("{\"hidden_size\":0}", QD_ERR_INPUT, "hidden_size");
    refuse("{\"hidden_size\":1e300}", QD_ERR_INPUT, "hidden_size");
    refuse("{\"vocab_size\":-1}", QD_ERR_INPUT, "vocab_size");
    refuse("{\"num_hidden_layers\":1000000}", QD_ERR_INPUT, "num_hidden_layers");
    refuse("{\"head_dim\":127}", QD_ERR_INPUT, "head_dim");
    refuse("{\"num_key_value_heads\":3}", QD_ERR_INPUT, "num_key_value_heads: 3 does not divide");
    refuse("{\"rms_norm_eps\":0}", QD_ERR_INPUT, "rms_norm_eps");
    refuse("{\"rope_theta\":1}", QD_ERR_INPUT, "rope_theta");
    refuse("{\"tie_word_embeddings\":1}", QD_ERR_INPUT, "tie_word_embeddings");
    refuse("{\"architectures\":[]}", QD_ERR_INPUT, "architectures");
    refuse("{\"-architectures\":0,\"-model_type\":0}", QD_ERR_INPUT, "architectures");
    refuse("{\"layer_types\":[\"full_attention\"]}", QD_ERR_INPUT, "layer_types");
    refuse("{\"eos_token_id\":151936}", QD_ERR_INPUT, "eos_token_id");
    refuse("{\"eos_token_id\":[1,\"2\"]}", QD_ERR_INPUT, "eos_token_id");
    refuse("{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", QD_ERR_INPUT, "more than 16");
    struct qd_model_config c;
    char err[QD_ERR_LEN];
    assert_int_equal(qd_model_config_parse("[1]", 3, "F", &c, err, sizeof err), QD_ERR_INPUT);
    assert_int_equal(qd_model_config_parse("{", 1, "F", &c, err, sizeof err), QD_ERR_INPUT);
}

static void expect_yarn(const char *changes, double attention_factor)
{
    struct qd_model_config c = accept(changes);
    assert_true(c.yarn.enabled);
    assert_true(c.yarn.factor == 4 && c.yarn.original_max_position_embeddings == 32768);
    assert_int_equal(c.max_context, 131072);
    assert_true(c.yarn.beta_fast == 32 && c.yarn.beta_slow == 1 && c.yarn.truncate);
    if (!(fabs(c.yarn.attention_factor - attention_factor) < 1e-12))
        fail_msg("%s: attention factor %.17g", changes, c.yarn.attention_factor);
}

static void test_yarn_in_every_spelling(void **state)
{
    (void)state;
    double usual = 0.1 * log(4) + 1;
    expect_yarn(
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768}}",
        usual);
    expect_yarn("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"type\":\"yarn\",\"factor\":4.0,"
                "\"original_max_position_embeddings\":32768}}",
                usual);
    expect_yarn(
        "{\"-rope_theta\":0,\"-rope_scaling\":0,\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,"
        "\"rope_theta\":1000000,\"original_max_position_embeddings\":32768}}",
        usual);
    /* Hugging Face looks for the original length at the top too, else it is max_position_embeddings */
    expect_yarn(
        "{\"original_max_position_embeddings\":32768,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
        usual);
    expect_yarn("{\"max_position_embeddings\":32768,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
                usual);
#define YARN "\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768"
    expect_yarn("{\"rope_scaling\":{" YARN ",\"beta_fast\":0,\"beta_slow\":null,\"mscale\":1}}", usual);
    expect_yarn("{\"rope_scaling\":{" YARN ",\"attention_factor\":0.75}}", 0.75);
    expect_yarn("{\"rope_scaling\":{" YARN ",\"mscale\":2.0,\"mscale_all_dim\":0.5}}",
                (0.2 * log(4) + 1) / (0.05 * log(4) + 1));
    expect_yarn("{\"rope_scaling\":{" YARN "},\"rope_parameters\":{" YARN ",\"rope_theta\":1e6}}", usual);
    struct qd_model_config c =
        accept("{\"rope_scaling\":{" YARN ",\"beta_fast\":16,\"beta_slow\":2,\"truncate\":false}}");
    assert_true(c.yarn.beta_fast == 16 && c.yarn.beta_slow == 2 && !c.yarn.truncate);
}

static void test_refuses_contradictions(void **state)
{
    (void)state;
    refuse("{\"rope_scaling\":{" YARN "},\"rope_parameters\":{\"rope_type\":\"default\"}}", QD_ERR_INPUT,
           "rope_parameters: disagrees with rope_scaling");
    refuse("{\"rope_scaling\":{" YARN "},\"rope_parameters\":{" YARN ",\"beta_fast\":31}}", QD_ERR_INPUT,
           "rope_parameters: disagrees with rope_scaling");
    refuse("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000}}", QD_ERR_INPUT,
           "rope_theta");
    refuse("{\"rope_scaling\":{" YARN ",\"type\":\"default\"}}", QD_ERR_INPUT, "type: disagrees");
    refuse("{\"dtype\":\"float32\"}", QD_ERR_INPUT, "dtype: disagrees with torch_dtype");
    refuse("{\"original_max_position_embeddings\":100,\"rope_scaling\":{" YARN "}}", QD_ERR_INPUT,
           "original_max_position_embeddings");
}

static void test_refuses_wrong_yarn(void **state)
{
    (void)state;
    refuse("{\"rope_scaling\":{\"type\":\"yarn\"}}", QD_ERR_INPUT, "rope_scaling: factor: is missing");
    refuse("{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":null}}", QD_ERR_INPUT, "factor: is missing");
    refuse("{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0.5}}", QD_ERR_INPUT, "factor");
    refuse("{\"rope_scaling\":{\"factor\":4}}", QD_ERR_INPUT, "rope_type: is missing");
    refuse("{\"rope_scaling\":\"yarn\"}", QD_ERR_INPUT, "rope_scaling: not an object");
    refuse("{\"rope_scaling\":{" YARN ",\"beta_fast\":1,\"beta_slow\":2}}", QD_ERR_INPUT, "beta_fast");
    refuse("{\"rope_scaling\":{" YARN ",\"attention_factor\":0}}", QD_ERR_INPUT, "attention_factor");
    refuse("{\"rope_scaling\":{" YARN ",\"mscale\":-100,\"mscale_all_dim\":1}}", QD_ERR_INPUT,
           "attention_factor");
    refuse(
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":1e5,\"original_max_position_embeddings\":100000}}",
        QD_ERR_INPUT, "factor");
}

static void test_generation_config_replaces_eos(void **state)
{
    (void)state;
    struct temp_dir dir = temp_dir_create();
    struct qd_model_config c;
    char err[QD_ERR_LEN];
    write_text(in_dir(&dir, "config.json"), BASE);
    ASSERT_OK(qd_model_config_read(dir.path, &c, err, sizeof err), err);
    assert_int_equal(c.n_eos, 1);
    write_text(in_dir(&dir, "generation_config.json"), "{\"eos_token_id\":[9,8,9],\"top_k\":20}");
    ASSERT_OK(qd_model_config_read(dir.path, &c, err, sizeof err), err);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos_ids[0], 9);
    assert_int_equal(c.eos_ids[1], 8);
    write_text(in_dir(&dir, "generation_config.json"), "{\"eos_token_id\":null}");
    ASSERT_OK(qd_model_config_read(dir.path, &c, err, sizeof err), err);
    assert_int_equal(c.eos_ids[0], 7);
    write_text(in_dir(&dir, "generation_config.json"), "[");
    assert_int_equal(qd_model_config_read(dir.path, &c, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "generation_config.json");
    temp_dir_remove(&dir);
}

static void test_reads_real_files(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t n_params, kv_bytes;
    } cases[] = {{"Qwen3-0.6B", 596049920, 114688},
                 {"Qwen3-1.7B", 1720574976, 114688},
                 {"Qwen3-8B", 8190735360, 147456},
                 {"Qwen3-32B", 32762123264, 262144},
                 {"Qwen3-4B-Instruct-2507", 4022468096, 147456}};
    NEED_FILE(SHARED_DATA "real/configs/Qwen3-8B.config.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[256], err[QD_ERR_LEN];
        struct qd_model_config c;
        snprintf(path, sizeof path, SHARED_DATA "real/configs/%s.config.json", cases[i].name);
        char *text = read_text(path);
        ASSERT_OK(qd_model_config_parse(text, strlen(text), path, &c, err, sizeof err), err);
        free(text);
        assert_int_equal(qd_model_n_params(&c), cases[i].n_params);
        assert_int_equal(2 * 2 * c.n_layers * c.n_kv_heads * c.head_dim, cases[i].kv_bytes);
    }
    char *text = read_text(SHARED_DATA "real/configs/Qwen3-32B-FP8.config.json"), err[QD_ERR_LEN];
    struct qd_model_config c;
    assert_int_equal(qd_model_config_parse(text, strlen(text), "fp8", &c, err, sizeof err),
                     QD_ERR_UNSUPPORTED);
    ASSERT_CONTAINS(err, "quantization_config");
    free(text);
}

static void test_presets(void **state)
{
    (void)state;
    static const struct {
        const char *name, *full_name;
        int64_t n_params;
    } cases[] = {{"0.6B", "Qwen3-0.6B", 596049920},
                 {"1.7B", "Qwen3-1.7B", 1720574976},
                 {"4B", "Qwen3-4B", 4022468096},
                 {"8B", "Qwen3-8B", 8190735360},
                 {"14B", "Qwen3-14B", 14768307200},
                 {"32B", "Qwen3-32B", 32762123264},
                 {"micro", "micro",
                  2 * (12 * 128 * 256 + 1024 * 256 + 3 * 512 * 256 + 2 * 256 + 2 * 128) + 256 + 515 * 256}};
    char err[QD_ERR_LEN];
    struct qd_model_config c, full;
    for (int i = 0; i < 7; i++) {
        ASSERT_OK(qd_model_config_preset(cases[i].name, &c, err, sizeof err), err);
        ASSERT_OK(qd_model_config_preset(cases[i].full_name, &full, err, sizeof err), err);
        assert_string_equal(c.name, cases[i].full_name);
        assert_string_equal(qd_model_preset_name(i), cases[i].full_name);
        assert_memory_equal(&c, &full, sizeof c);
        assert_int_equal(qd_model_n_params(&c), cases[i].n_params);
    }
    assert_null(qd_model_preset_name(7));
    assert_null(qd_model_preset_name(-1));
    assert_int_equal(c.hidden_dim, 256);
    assert_int_equal(c.n_layers, 2);
    assert_int_equal(c.n_heads, 8);
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.ffn_dim, 512);
    assert_int_equal(c.vocab_size, 515);
    assert_int_equal(qd_model_config_preset("9B", &c, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "Qwen3-0.6B, Qwen3-1.7B, Qwen3-4B, Qwen3-8B, Qwen3-14B, Qwen3-32B, micro");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_published_spelling),
        cmocka_unit_test(test_defaults_are_hugging_faces),
        cmocka_unit_test(test_accepts_what_changes_nothing),
        cmocka_unit_test(test_refuses_by_name),
        cmocka_unit_test(test_refuses_wrong_numbers),
        cmocka_unit_test(test_yarn_in_every_spelling),
        cmocka_unit_test(test_refuses_contradictions),
        cmocka_unit_test(test_refuses_wrong_yarn),
        cmocka_unit_test(test_generation_config_replaces_eos),
        cmocka_unit_test(test_reads_real_files),
        cmocka_unit_test(test_presets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

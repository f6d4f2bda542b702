/* Folders of model files: hub snapshots, index and shards, and everything that can be wrong with them. */
#include "tests/support/test.h"

#include <sys/stat.h>

#include "models/checkpoint.h"
#include "models/directory.h"
#include "tests/support/files.h"
#include "tests/support/random_model.h"

/* Opens and matches. */
static qd_status check(const char *dir, const struct qd_model_config *config, char *err)
{
    struct qd_checkpoint checkpoint;
    qd_status status = qd_checkpoint_open(dir, &checkpoint, err, QD_ERR_LEN);
    if (status != QD_OK) return status;
    const struct qd_tensor **found = calloc((size_t)qd_model_n_tensors(config), sizeof *found);
    assert_non_null(found);
    status = qd_checkpoint_match(&checkpoint, config, found, err, QD_ERR_LEN);
    free(found);
    qd_checkpoint_close(&checkpoint);
    return status;
}

static void refuse(const char *dir, const struct qd_model_config *config, qd_status expected, const char *why)
{
    char err[QD_ERR_LEN] = "";
    qd_status status = check(dir, config, err);
    if (status != expected) fail_msg("%s: %s", qd_status_name(status), err);
    ASSERT_CONTAINS(err, dir);
    ASSERT_CONTAINS(err, why);
}

static void refuse_files(bool tied, const struct model_files *files, const char *why)
{
    struct qd_model_config config = small_config(tied);
    struct temp_dir dir = temp_dir_create();
    write_model(dir.path, &config, files);
    refuse(dir.path, &config, QD_ERR_INPUT, why);
    temp_dir_remove(&dir);
}

static void test_tensors_that_do_not_match(void **state)
{
    (void)state;
    refuse_files(true, &(struct model_files){.dtype = "BF16", .skip = "model.layers.1.mlp.up_proj.weight"},
                 "model.layers.1.mlp.up_proj.weight: missing");
    refuse_files(true, &(struct model_files){.dtype = "BF16", .n_shards = 2, .skip = "model.norm.weight"},
                 "/model.safetensors.index.json: model.norm.weight: missing");
    refuse_files(false, &(struct model_files){.dtype = "BF16", .skip = "lm_head.weight"},
                 "lm_head.weight: missing, and config.json's tie_word_embeddings is not true");
    refuse_files(true,
                 &(struct model_files){.dtype = "BF16", .extra = "model.layers.0.self_attn.q_proj.bias"},
                 "model.layers.0.self_attn.q_proj.bias: unexpected");
    refuse_files(true,
                 &(struct model_files){.dtype = "BF16", .extra = "model.layers.2.input_layernorm.weight"},
                 "model.layers.2.input_layernorm.weight: unexpected in a Qwen3 of 2 layers");
    refuse_files(true, &(struct model_files){.dtype = "BF16", .drop_prefix = true},
                 "names of this checkpoint lack the prefix \"model.\"");
    refuse_files(
        true,
        &(struct model_files){.dtype = "BF16", .store_tied_head = true, .skip = "model.embed_tokens.weight"},
        "model.embed_tokens.weight: missing");
}

static void test_shapes_against_config(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    write_model(dir.path, &config, &(struct model_files){.dtype = "BF16"});
    config.vocab_size = 132;
    refuse(dir.path, &config, QD_ERR_INPUT,
           "embed_tokens.weight: shape [131, 40], config.json asks for [132, 40]");
    config = small_config(true);
    config.head_dim = 8;
    refuse(dir.path, &config, QD_ERR_INPUT, "config.json asks for");
    temp_dir_remove(&dir);
}

static void test_dtype_is_named(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    struct tensor_file file = {0};
    const int64_t two = 2;
    tensor_file_add(&file, "x", "F8_E4M3", 1, &two, "ab", 2);
    tensor_file_write(&file, in_dir(&dir, "model.safetensors"));
    refuse(dir.path, &config, QD_ERR_UNSUPPORTED, "model.safetensors: x: dtype F8_E4M3 is not supported");
    temp_dir_remove(&dir);
}

static void test_files_that_are_none(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    char err[QD_ERR_LEN] = "";
    assert_int_equal(check("/nonexistent/model", &config, err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "/nonexistent/model");
    refuse(dir.path, &config, QD_ERR_NOT_FOUND, "neither model.safetensors.index.json nor model.safetensors");
    write_text(in_dir(&dir, "model.safetensors"), "short");
    refuse(dir.path, &config, QD_ERR_INPUT, "5 bytes are no safetensors file");
    write_file(in_dir(&dir, "model.safetensors"), "\377\0\0\0\0\0\0\0{}", 10);
    refuse(dir.path, &config, QD_ERR_INPUT, "header of 255 bytes in a file of 10");
    assert_int_equal(unlink(in_dir(&dir, "model.safetensors")), 0);
    assert_int_equal(mkfifo(in_dir(&dir, "model.safetensors"), 0600), 0);
    refuse(dir.path, &config, QD_ERR_INPUT, "not a regular file");
    assert_int_equal(unlink(in_dir(&dir, "model.safetensors")), 0);
    assert_int_equal(mkdir(in_dir(&dir, "model.safetensors"), 0700), 0);
    refuse(dir.path, &config, QD_ERR_INPUT, "not a regular file");
    temp_dir_remove(&dir);
}

/* An index of one line over files of a good two-shard model. */
static void refuse_index(const char *index, const char *why)
{
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    write_model(dir.path, &config, &(struct model_files){.dtype = "BF16", .n_shards = 2});
    write_text(in_dir(&dir, "model.safetensors.index.json"), index);
    refuse(dir.path, &config, QD_ERR_INPUT, "model.safetensors.index.json");
    refuse(dir.path, &config, QD_ERR_INPUT, why);
    temp_dir_remove(&dir);
}

static void test_wrong_indexes(void **state)
{
    (void)state;
    refuse_index("{", "byte");
    refuse_index("{}", "weight_map: missing");
    refuse_index("{\"weight_map\":{}}", "weight_map: missing, empty");
    refuse_index("{\"weight_map\":[]}", "weight_map: missing");
    refuse_index("{\"weight_map\":{\"a\":1}}", "a: not the name of a file");
    refuse_index("{\"weight_map\":{\"a\":\"\"}}", "a: not the name of a file");
    refuse_index("{\"weight_map\":{\"a\":\"x\\u0007\"}}", "a: not the name of a file");
    refuse_index("{\"weight_map\":{\"a\\u001b\":\"x\"}}", "an unusable tensor name");
    refuse_index("{\"weight_map\":{\"a\":\"sub/x.safetensors\"}}", "leaves the folder");
    refuse_index("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "leaves the folder");
    refuse_index("{\"weight_map\":{\"a\":\"..\"}}", "leaves the folder");
    refuse_index("{\"weight_map\":{\"a\":\"absent.safetensors\"}}",
                 "a: is in absent.safetensors, which is not there");
    refuse_index("{\"weight_map\":{\"a\":\"model-0.safetensors\"}}", "a: is not in model-0.safetensors");
    refuse_index("{\"weight_map\":{\"model.norm.weight\":\"model-0.safetensors\"}}",
                 "model.norm.weight: is not in model-0.safetensors");
}

static void test_index_and_shards_disagree(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    write_model(dir.path, &config, &(struct model_files){.dtype = "BF16", .n_shards = 2});
    write_text(in_dir(&dir, "model.safetensors.index.json"),
               "{\"weight_map\":{\"model.embed_tokens.weight\":\"model-0.safetensors\"}}");
    refuse(dir.path, &config, QD_ERR_INPUT, "the index does not name it");

    /* the same tensor in two shards */
    write_model(dir.path, &config, &(struct model_files){.dtype = "BF16", .n_shards = 2});
    struct tensor_file file = {0};
    const int64_t one = 1;
    tensor_file_add(&file, "model.norm.weight", "BF16", 1, &one, "ab", 2);
    tensor_file_add(&file, "model.embed_tokens.weight", "BF16", 1, &one, "ab", 2);
    tensor_file_write(&file, in_dir(&dir, "model-1.safetensors"));
    refuse(dir.path, &config, QD_ERR_INPUT, "model.embed_tokens.weight: also stored in");
    temp_dir_remove(&dir);
}

static void test_unnamed_files_are_left_alone(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    char err[QD_ERR_LEN] = "";
    write_model(dir.path, &config, &(struct model_files){.dtype = "BF16", .n_shards = 2});
    write_text(in_dir(&dir, "model.safetensors"), "garbage");
    write_text(in_dir(&dir, "consolidated.safetensors"), "garbage");
    ASSERT_OK(check(dir.path, &config, err), err);
    temp_dir_remove(&dir);
}

/* models--ORG--NAME/{refs/main, snapshots/REV/x -> ../../blobs/x, blobs/x} */
static struct temp_dir make_cache(struct qd_model_config *config, char *cache, size_t len)
{
    struct temp_dir dir = temp_dir_create();
    *config = small_config(true);
    snprintf(cache, len, "%s/models--Some-Org--Small-1B", dir.path);
    char path[512], target[512];
    static const char *const folders[] = {"", "/refs", "/blobs", "/snapshots", "/snapshots/abc123"};
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s%s", cache, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    snprintf(path, sizeof path, "%s/blobs", cache);
    write_model(path, config, &(struct model_files){.dtype = "BF16"});
    static const char *const files[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/snapshots/abc123/%s", cache, files[i]);
        snprintf(target, sizeof target, "../../blobs/%s", files[i]);
        assert_int_equal(symlink(target, path), 0);
    }
    snprintf(path, sizeof path, "%s/refs/main", cache);
    write_text(path, "abc123");
    return dir;
}

static void test_hub_cache_and_snapshot(void **state)
{
    (void)state;
    struct qd_model_config config, read;
    char cache[400], path[512], err[QD_ERR_LEN] = "";
    struct temp_dir dir = make_cache(&config, cache, sizeof cache);
    ASSERT_OK(check(cache, &config, err), err);
    ASSERT_OK(qd_model_config_read(cache, &read, err, sizeof err), err);
    assert_string_equal(read.name, "Some-Org/Small-1B");
    assert_int_equal(read.hidden_dim, config.hidden_dim);
    snprintf(path, sizeof path, "%s/snapshots/abc123", cache);
    ASSERT_OK(check(path, &config, err), err);
    ASSERT_OK(qd_model_config_read(path, &read, err, sizeof err), err);
    assert_string_equal(read.name, "Some-Org/Small-1B");
    snprintf(path, sizeof path, "%s/refs/main", cache);
    write_text(path, "abc123\n");
    ASSERT_OK(check(cache, &config, err), err);
    temp_dir_remove(&dir);
}

static void test_broken_hub_caches(void **state)
{
    (void)state;
    static const char *const revisions[] = {"",         "..", "../blobs", "abc123/../../blobs",
                                            "abc123 x", ".",  "none"};
    struct qd_model_config config;
    char cache[400], path[512];
    struct temp_dir dir = make_cache(&config, cache, sizeof cache);
    snprintf(path, sizeof path, "%s/refs/main", cache);
    for (size_t i = 0; i < sizeof revisions / sizeof *revisions; i++) {
        write_text(path, revisions[i]);
        refuse(cache, &config, QD_ERR_INPUT, "refs/main");
    }
    write_file(path, "abc123\0x", 8);
    refuse(cache, &config, QD_ERR_INPUT, "not the name of a snapshot");
    assert_int_equal(unlink(path), 0);
    refuse(cache, &config, QD_ERR_INPUT, "has snapshots but no refs/main");
    /* a link into blobs that were deleted */
    write_text(path, "abc123");
    snprintf(path, sizeof path, "%s/blobs/model.safetensors", cache);
    assert_int_equal(unlink(path), 0);
    refuse(cache, &config, QD_ERR_NOT_FOUND, "model.safetensors");
    temp_dir_remove(&dir);
}

static void test_names(void **state)
{
    (void)state;
    char name[64];
    qd_model_dir_name("/a/b/Qwen3-8B/", name, sizeof name);
    assert_string_equal(name, "Qwen3-8B");
    qd_model_dir_name("/hub/models--gpt2", name, sizeof name);
    assert_string_equal(name, "gpt2");
    qd_model_dir_name("/", name, sizeof name);
    assert_string_equal(name, "");
    char small[4];
    qd_model_dir_name("/a/Qwen3", small, sizeof small);
    assert_string_equal(small, "Qwe");
}

static void test_tiny_model(void **state)
{
    (void)state;
    struct qd_model_config config;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_model_config_read("models/tiny", &config, err, sizeof err), err);
    ASSERT_OK(check("models/tiny", &config, err), err);
    assert_int_equal(qd_model_n_params(&config), 5510400);
    assert_int_equal(config.n_eos, 2);
    assert_int_equal(config.eos_ids[0], 2027);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_that_do_not_match),
        cmocka_unit_test(test_shapes_against_config),
        cmocka_unit_test(test_dtype_is_named),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_wrong_indexes),
        cmocka_unit_test(test_index_and_shards_disagree),
        cmocka_unit_test(test_unnamed_files_are_left_alone),
        cmocka_unit_test(test_hub_cache_and_snapshot),
        cmocka_unit_test(test_broken_hub_caches),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_tiny_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

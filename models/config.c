#include "models/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/directory.h"
#include "models/json.h"

enum {
    MAX_CONFIG_BYTES = 1 << 20,
    MAX_HIDDEN = 1 << 20,
    MAX_FFN = 1 << 22,
    MAX_VOCAB = 1 << 24,
    MAX_LAYERS = 4096,
    MAX_HEADS = 4096,
    MAX_HEAD_DIM = 1024,
    /* What Hugging Face's Qwen3Config takes where the file says nothing. */
    HF_HEAD_DIM = 128,
    HF_MAX_POSITIONS = 32768,
    HF_MAX_WINDOW_LAYERS = 28,
};
static const double HF_ROPE_THETA = 10000.0;
static const double HF_RMS_NORM_EPS = 1e-6;

/* An object being read and what errors call it. */
struct source {
    const cJSON *object;
    const char *label; /* path of the file, and the enclosing key if any */
    char *err;
    size_t errlen;
};

static qd_status refuse(const struct source *s, qd_status status, const char *key, const char *why)
{
    return qd_fail(status, s->err, s->errlen, "%s: %s: %s", s->label, key, why);
}

/* The member, or NULL when absent or null. */
static const cJSON *member(const struct source *s, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(s->object, key);
    return cJSON_IsNull(item) ? NULL : item;
}

/* Takes a getter's verdict: an absent key leaves the caller's default in place. */
static qd_status optional(const struct source *s, qd_status status, const char *why)
{
    if (status == QD_OK || status == QD_ERR_NOT_FOUND) return QD_OK;
    return qd_fail(status, s->err, s->errlen, "%s: %s", s->label, why);
}

static qd_status read_int(const struct source *s, const char *key, int64_t min, int64_t max, int64_t *out)
{
    char why[QD_ERR_LEN];
    return optional(s, qd_json_get_int(s->object, key, min, max, out, why, sizeof why), why);
}

static qd_status need_int(const struct source *s, const char *key, int64_t max, int64_t *out)
{
    if (member(s, key) == NULL) return refuse(s, QD_ERR_INPUT, key, "is missing");
    return read_int(s, key, 1, max, out);
}

static qd_status read_bool(const struct source *s, const char *key, bool *out)
{
    char why[QD_ERR_LEN];
    return optional(s, qd_json_get_bool(s->object, key, out, why, sizeof why), why);
}

static qd_status read_string(const struct source *s, const char *key, const char **out)
{
    char why[QD_ERR_LEN];
    return optional(s, qd_json_get_string(s->object, key, out, why, sizeof why), why);
}

static qd_status read_number(const struct source *s, const char *key, double *out)
{
    char why[QD_ERR_LEN];
    return optional(s, qd_json_get_number(s->object, key, out, why, sizeof why), why);
}

static qd_status check_architecture(const struct source *s)
{
    const char *model_type = NULL;
    QD_TRY(read_string(s, "model_type", &model_type));
    const cJSON *architectures = member(s, "architectures");
    if (model_type == NULL && architectures == NULL)
        return refuse(s, QD_ERR_INPUT, "architectures", "is missing, and model_type too");
    if (architectures != NULL) {
        const cJSON *first = cJSON_IsArray(architectures) ? architectures->child : NULL;
        if (!cJSON_IsString(first) || first->next != NULL)
            return refuse(s, QD_ERR_INPUT, "architectures", "not a list of one name");
        if (strcmp(first->valuestring, "Qwen3ForCausalLM") != 0)
            return qd_fail(QD_ERR_UNSUPPORTED, s->err, s->errlen,
                           "%s: architectures: %.100s is not supported, only Qwen3ForCausalLM", s->label,
                           first->valuestring);
    }
    if (model_type != NULL && strcmp(model_type, "qwen3") != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, s->err, s->errlen,
                       "%s: model_type: %.100s is not supported, only qwen3", s->label, model_type);
    return QD_OK;
}

/* layer_types decides where it is given; otherwise Hugging Face lets the layers from max_window_layers on
 * slide when use_sliding_window is true and sliding_window is not null. */
static qd_status check_windows(const struct source *s, int32_t n_layers)
{
    const cJSON *types = member(s, "layer_types");
    if (types != NULL) {
        if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != n_layers)
            return refuse(s, QD_ERR_INPUT, "layer_types", "not a list with one entry a layer");
        for (const cJSON *type = types->child; type != NULL; type = type->next) {
            if (!cJSON_IsString(type)) return refuse(s, QD_ERR_INPUT, "layer_types", "not a list of names");
            if (strcmp(type->valuestring, "full_attention") != 0)
                return qd_fail(QD_ERR_UNSUPPORTED, s->err, s->errlen,
                               "%s: layer_types: %.100s is not supported, only full_attention", s->label,
                               type->valuestring);
        }
        return QD_OK;
    }
    bool use_window = false;
    int64_t first_sliding = HF_MAX_WINDOW_LAYERS;
    QD_TRY(read_bool(s, "use_sliding_window", &use_window));
    QD_TRY(read_int(s, "max_window_layers", 0, INT32_MAX, &first_sliding));
    const cJSON *window = cJSON_GetObjectItemCaseSensitive(s->object, "sliding_window");
    if (use_window && !cJSON_IsNull(window) && first_sliding < n_layers)
        return refuse(s, QD_ERR_UNSUPPORTED, "use_sliding_window",
                      "sliding windows are not supported, and some layers would have one");
    return QD_OK;
}

/* Refuses by name what would change the computation in a way that is not implemented. */
static qd_status check_unsupported(const struct source *s)
{
    static const char *const quantised[] = {"quantization_config", "compression_config"};
    for (size_t i = 0; i < sizeof quantised / sizeof *quantised; i++)
        if (member(s, quantised[i]) != NULL)
            return refuse(s, QD_ERR_UNSUPPORTED, quantised[i], "quantised checkpoints are not supported");

    bool attention_bias = false;
    QD_TRY(read_bool(s, "attention_bias", &attention_bias));
    if (attention_bias) return refuse(s, QD_ERR_UNSUPPORTED, "attention_bias", "true is not supported");

    const char *activation = "silu";
    QD_TRY(read_string(s, "hidden_act", &activation));
    if (strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, s->err, s->errlen,
                       "%s: hidden_act: %.100s is not supported, only silu", s->label, activation);
    return QD_OK;
}

/* The dtype of the file is the safetensors' business, but a file that contradicts itself is refused. */
static qd_status check_dtype(const struct source *s)
{
    const char *old_key = NULL, *new_key = NULL;
    QD_TRY(read_string(s, "torch_dtype", &old_key));
    QD_TRY(read_string(s, "dtype", &new_key));
    if (old_key != NULL && new_key != NULL && strcmp(old_key, new_key) != 0)
        return refuse(s, QD_ERR_INPUT, "dtype", "disagrees with torch_dtype");
    return QD_OK;
}

static qd_status read_shape(const struct source *s, struct qd_model_config *out)
{
    int64_t n_layers = 0, n_heads = 0, n_kv_heads = 0, head_dim = HF_HEAD_DIM;
    QD_TRY(need_int(s, "hidden_size", MAX_HIDDEN, &out->hidden_dim));
    QD_TRY(need_int(s, "intermediate_size", MAX_FFN, &out->ffn_dim));
    QD_TRY(need_int(s, "vocab_size", MAX_VOCAB, &out->vocab_size));
    QD_TRY(need_int(s, "num_hidden_layers", MAX_LAYERS, &n_layers));
    QD_TRY(need_int(s, "num_attention_heads", MAX_HEADS, &n_heads));
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(s->object, "num_key_value_heads")))
        n_kv_heads = n_heads; /* as Hugging Face reads null */
    else
        QD_TRY(need_int(s, "num_key_value_heads", MAX_HEADS, &n_kv_heads));
    if (n_heads % n_kv_heads != 0)
        return qd_fail(QD_ERR_INPUT, s->err, s->errlen,
                       "%s: num_key_value_heads: %lld does not divide num_attention_heads %lld", s->label,
                       (long long)n_kv_heads, (long long)n_heads);
    QD_TRY(read_int(s, "head_dim", 2, MAX_HEAD_DIM, &head_dim));
    if (head_dim % 2 != 0) return refuse(s, QD_ERR_INPUT, "head_dim", "must be even");

    out->max_position_embeddings = HF_MAX_POSITIONS;
    QD_TRY(read_int(s, "max_position_embeddings", 1, INT32_MAX, &out->max_position_embeddings));
    QD_TRY(read_bool(s, "tie_word_embeddings", &out->tie_word_embeddings));
    out->rms_norm_eps = HF_RMS_NORM_EPS;
    QD_TRY(read_number(s, "rms_norm_eps", &out->rms_norm_eps));
    if (!(out->rms_norm_eps > 0 && out->rms_norm_eps < 1))
        return refuse(s, QD_ERR_INPUT, "rms_norm_eps", "outside (0, 1)");
    out->n_layers = (int32_t)n_layers;
    out->n_heads = (int32_t)n_heads;
    out->n_kv_heads = (int32_t)n_kv_heads;
    out->head_dim = (int32_t)head_dim;
    return QD_OK;
}

/* What one spelling says about rotary embeddings. */
struct rope_fields {
    bool given;   /* it names a type */
    double theta; /* 0: not given */
    bool is_yarn;
    double factor, beta_fast, beta_slow, attention_factor;
    int64_t original; /* 0: not given */
    bool truncate;
};

/* 0.1 * mscale * ln(scale) + 1, Hugging Face's get_mscale. */
static double yarn_mscale(double scale, double mscale)
{
    return scale <= 1 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

/* attention_factor as given, else from mscale and mscale_all_dim where both are set, else from the factor. */
static qd_status read_attention_factor(const struct source *s, double factor, double *out)
{
    double given = NAN, mscale = 0, mscale_all_dim = 0;
    QD_TRY(read_number(s, "attention_factor", &given));
    QD_TRY(read_number(s, "mscale", &mscale));
    QD_TRY(read_number(s, "mscale_all_dim", &mscale_all_dim));
    if (!isnan(given))
        *out = given;
    else if (mscale != 0 && mscale_all_dim != 0)
        *out = yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all_dim);
    else
        *out = yarn_mscale(factor, 1.0);
    if (!(*out > 0 && *out <= 1e6))
        return refuse(s, QD_ERR_INPUT, "attention_factor", "outside (0, 1e6], as given or from mscale");
    return QD_OK;
}

static qd_status read_yarn(const struct source *s, struct rope_fields *out)
{
    /* Never derived from max_position_embeddings: published files leave that at the native length. */
    if (member(s, "factor") == NULL) return refuse(s, QD_ERR_INPUT, "factor", "is missing");
    QD_TRY(read_number(s, "factor", &out->factor));
    if (!(out->factor >= 1 && out->factor <= 1e6))
        return refuse(s, QD_ERR_INPUT, "factor", "outside 1 .. 1e6");
    QD_TRY(read_int(s, "original_max_position_embeddings", 1, INT32_MAX, &out->original));
    QD_TRY(read_attention_factor(s, out->factor, &out->attention_factor));
    QD_TRY(read_number(s, "beta_fast", &out->beta_fast));
    QD_TRY(read_number(s, "beta_slow", &out->beta_slow));
    if (out->beta_fast == 0) out->beta_fast = 32; /* as Hugging Face reads 0 */
    if (out->beta_slow == 0) out->beta_slow = 1;
    if (!(out->beta_slow > 0 && out->beta_slow <= out->beta_fast && out->beta_fast <= 1e6))
        return refuse(s, QD_ERR_INPUT, "beta_fast", "beta_fast and beta_slow need 0 < slow <= fast <= 1e6");
    return read_bool(s, "truncate", &out->truncate);
}

static qd_status check_theta(const struct source *s, double theta)
{
    if (theta > 1 && theta <= 1e15) return QD_OK;
    return refuse(s, QD_ERR_INPUT, "rope_theta", "outside (1, 1e15]");
}

static qd_status check_partial_rotary(const struct source *s)
{
    double part = 1;
    QD_TRY(read_number(s, "partial_rotary_factor", &part));
    if (part != 1) return refuse(s, QD_ERR_UNSUPPORTED, "partial_rotary_factor", "only 1 is supported");
    return QD_OK;
}

/* The type under either name; NULL when the block names none. */
static qd_status read_rope_type(const struct source *s, const char **type)
{
    const char *new_key = NULL, *old_key = NULL;
    QD_TRY(read_string(s, "rope_type", &new_key));
    QD_TRY(read_string(s, "type", &old_key));
    if (new_key != NULL && old_key != NULL && strcmp(new_key, old_key) != 0)
        return refuse(s, QD_ERR_INPUT, "type", "disagrees with rope_type");
    *type = new_key != NULL ? new_key : old_key;
    if (*type != NULL && strcmp(*type, "default") != 0 && strcmp(*type, "yarn") != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, s->err, s->errlen,
                       "%s: rope_type: %.100s is not supported, only default and yarn", s->label, *type);
    return QD_OK;
}

/* One of the blocks rope_scaling (published Qwen files) and rope_parameters (transformers 5). */
static qd_status read_rope_block(const struct source *config, const char *key, struct rope_fields *out)
{
    *out = (struct rope_fields){.beta_fast = 32, .beta_slow = 1, .truncate = true};
    const cJSON *block = member(config, key);
    if (block == NULL) return QD_OK;
    if (!cJSON_IsObject(block)) return refuse(config, QD_ERR_INPUT, key, "not an object");

    char label[QD_PATH_LEN + 64];
    snprintf(label, sizeof label, "%s: %s", config->label, key);
    struct source s = {block, label, config->err, config->errlen};
    if (member(&s, "full_attention") != NULL || member(&s, "sliding_attention") != NULL)
        return refuse(config, QD_ERR_UNSUPPORTED, key, "one block a layer type is not supported");
    QD_TRY(check_partial_rotary(&s));
    if (member(&s, "rope_theta") != NULL) {
        QD_TRY(read_number(&s, "rope_theta", &out->theta));
        QD_TRY(check_theta(&s, out->theta));
    }
    const char *type = NULL;
    QD_TRY(read_rope_type(&s, &type));
    if (type == NULL && member(&s, "factor") != NULL)
        return refuse(&s, QD_ERR_INPUT, "rope_type", "is missing beside a factor");
    out->given = type != NULL;
    out->is_yarn = type != NULL && strcmp(type, "yarn") == 0;
    return out->is_yarn ? read_yarn(&s, out) : QD_OK;
}

static bool same_rope(const struct rope_fields *a, const struct rope_fields *b)
{
    if (a->is_yarn != b->is_yarn) return false;
    return !a->is_yarn || (a->factor == b->factor && a->original == b->original &&
                           a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow &&
                           a->attention_factor == b->attention_factor && a->truncate == b->truncate);
}

/* rope_theta may stand at the top and in either block; all that are given must agree. */
static qd_status resolve_theta(const struct source *s, const struct rope_fields *scaling,
                               const struct rope_fields *parameters, double *theta)
{
    double candidates[3] = {0, parameters->theta, scaling->theta};
    if (member(s, "rope_theta") != NULL) {
        QD_TRY(read_number(s, "rope_theta", &candidates[0]));
        QD_TRY(check_theta(s, candidates[0]));
    }
    double found = 0;
    for (int i = 0; i < 3; i++) {
        if (candidates[i] == 0) continue;
        if (found != 0 && candidates[i] != found)
            return refuse(s, QD_ERR_INPUT, "rope_theta", "its spellings disagree");
        found = candidates[i];
    }
    *theta = found != 0 ? found : HF_ROPE_THETA;
    return QD_OK;
}

static qd_status apply_yarn(const struct source *s, struct rope_fields *rope, struct qd_model_config *out)
{
    int64_t top_level = 0;
    QD_TRY(read_int(s, "original_max_position_embeddings", 1, INT32_MAX, &top_level));
    if (top_level != 0 && rope->original != 0 && top_level != rope->original)
        return refuse(s, QD_ERR_INPUT, "original_max_position_embeddings", "its spellings disagree");
    if (rope->original == 0) rope->original = top_level != 0 ? top_level : out->max_position_embeddings;

    double context = floor(rope->factor * (double)rope->original);
    if (context > INT32_MAX) return refuse(s, QD_ERR_INPUT, "factor", "context beyond 2^31 - 1 positions");
    out->max_context = (int64_t)context;
    out->yarn.enabled = true;
    out->yarn.factor = rope->factor;
    out->yarn.original_max_position_embeddings = rope->original;
    out->yarn.beta_fast = rope->beta_fast;
    out->yarn.beta_slow = rope->beta_slow;
    out->yarn.attention_factor = rope->attention_factor;
    out->yarn.truncate = rope->truncate;
    return QD_OK;
}

static qd_status read_rope(const struct source *s, struct qd_model_config *out)
{
    struct rope_fields scaling, parameters;
    QD_TRY(check_partial_rotary(s));
    QD_TRY(read_rope_block(s, "rope_scaling", &scaling));
    QD_TRY(read_rope_block(s, "rope_parameters", &parameters));
    if (scaling.given && parameters.given && !same_rope(&scaling, &parameters))
        return refuse(s, QD_ERR_INPUT, "rope_parameters", "disagrees with rope_scaling");
    QD_TRY(resolve_theta(s, &scaling, &parameters, &out->rope_theta));
    out->max_context = out->max_position_embeddings;
    struct rope_fields *rope = scaling.given ? &scaling : &parameters;
    return rope->is_yarn ? apply_yarn(s, rope, out) : QD_OK;
}

static qd_status add_eos(const struct source *s, const cJSON *item, struct qd_model_config *out)
{
    const char *key = "eos_token_id";
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble))
        return refuse(s, QD_ERR_INPUT, key, "not an integer");
    if (!(item->valuedouble >= 0 && item->valuedouble < (double)out->vocab_size))
        return qd_fail(QD_ERR_INPUT, s->err, s->errlen, "%s: %s: %g is outside the vocabulary of %lld",
                       s->label, key, item->valuedouble, (long long)out->vocab_size);
    int32_t id = (int32_t)item->valuedouble;
    for (int i = 0; i < out->n_eos; i++)
        if (out->eos_ids[i] == id) return QD_OK;
    if (out->n_eos == QD_MAX_EOS) return refuse(s, QD_ERR_INPUT, key, "more than 16 ids");
    out->eos_ids[out->n_eos++] = id;
    return QD_OK;
}

/* Replaces the list by this file's, where it has one: an id or a list of ids. */
static qd_status read_eos(const struct source *s, struct qd_model_config *out)
{
    const cJSON *eos = member(s, "eos_token_id");
    if (eos == NULL || (cJSON_IsArray(eos) && eos->child == NULL)) return QD_OK;
    out->n_eos = 0;
    if (!cJSON_IsArray(eos)) return add_eos(s, eos, out);
    for (const cJSON *item = eos->child; item != NULL; item = item->next)
        QD_TRY(add_eos(s, item, out));
    return QD_OK;
}

static qd_status read_config(const struct source *s, struct qd_model_config *out)
{
    *out = (struct qd_model_config){0};
    if (!cJSON_IsObject(s->object))
        return qd_fail(QD_ERR_INPUT, s->err, s->errlen, "%s: not a JSON object", s->label);
    QD_TRY(check_architecture(s));
    QD_TRY(check_unsupported(s));
    QD_TRY(check_dtype(s));
    QD_TRY(read_shape(s, out));
    QD_TRY(check_windows(s, out->n_layers));
    QD_TRY(read_rope(s, out));
    return read_eos(s, out);
}

qd_status qd_model_config_parse(const char *text, size_t len, const char *path, struct qd_model_config *out,
                                char *err, size_t errlen)
{
    cJSON *root = NULL;
    char why[QD_ERR_LEN];
    qd_status status = qd_json_parse(text, len, NULL, &root, why, sizeof why);
    if (status != QD_OK) return qd_fail(status, err, errlen, "%s: %s", path, why);
    struct source s = {root, path, err, errlen};
    status = read_config(&s, out);
    cJSON_Delete(root);
    return status;
}

static qd_status read_generation_config(const char *path, struct qd_model_config *out, char *err,
                                        size_t errlen)
{
    cJSON *root = NULL;
    qd_status status = qd_json_read_file(path, MAX_CONFIG_BYTES, &root, err, errlen);
    if (status == QD_ERR_NOT_FOUND) return QD_OK;
    if (status != QD_OK) return status;
    struct source s = {root, path, err, errlen};
    status = cJSON_IsObject(root) ? read_eos(&s, out)
                                  : qd_fail(QD_ERR_INPUT, err, errlen, "%s: not a JSON object", path);
    cJSON_Delete(root);
    return status;
}

qd_status qd_model_config_read(const char *dir, struct qd_model_config *out, char *err, size_t errlen)
{
    char folder[QD_PATH_LEN], path[QD_PATH_LEN], *text = NULL;
    size_t len;
    QD_TRY(qd_model_dir_resolve(dir, folder, sizeof folder, err, errlen));
    QD_TRY(qd_model_path(folder, "config.json", path, sizeof path, err, errlen));
    QD_TRY(qd_file_read(path, MAX_CONFIG_BYTES, &text, &len, err, errlen));
    qd_status status = qd_model_config_parse(text, len, path, out, err, errlen);
    free(text);
    if (status != QD_OK) return status;
    qd_model_dir_name(dir, out->name, sizeof out->name);
    QD_TRY(qd_model_path(folder, "generation_config.json", path, sizeof path, err, errlen));
    return read_generation_config(path, out, err, errlen);
}

/* The specification in hf numerics against Hugging Face's own intermediates of layer 0. Inputs of every op
 * are Hugging Face's, so errors do not accumulate and almost all bits must agree; a sum of another order may
 * move a rounding by one bf16. */
#include <math.h>

#include "kernels/ref/ref.h"
#include "tests/support/compare.h"
#include "tests/support/memory.h"
#include "tests/support/steps.h"
#include "tests/support/test.h"
#include "tests/support/trace.h"

enum { T = 5 };

struct model {
    const char *path;
    int32_t hidden, ffn, n_heads, n_kv_heads, head_dim;
    double yarn_factor, original_context; /* factor 0: none */
};
static const struct model tied = {"tests/data/traces/tied-gqa2-hd64.json", 128, 384, 4, 2, 64, 0, 0};
static const struct model yarn = {"tests/data/traces/yarn4-hd128.json", 128, 256, 2, 1, 128, 4, 256};

static const float eps = 1e-6f;
static const double theta = 1e6;

/* Pair index that turns `turns` times over the original context. */
static double yarn_pair(const struct model *m, double turns)
{
    return m->head_dim * log(m->original_context / (turns * 2 * M_PI)) / (2 * log(theta));
}

/* Inverse frequencies by the definition (Peng et al. 2023): interpolated where a pair turns less than once in
 * the original context, kept where it turns more than 32 times, a ramp between. */
static struct qd_rope make_rope(const struct model *m, float *inv_freq)
{
    const double low = fmax(floor(yarn_pair(m, 32)), 0);
    const double high = fmin(ceil(yarn_pair(m, 1)), m->head_dim - 1);
    for (int32_t i = 0; i < m->head_dim / 2; i++) {
        const double plain = pow(theta, -2.0 * i / m->head_dim);
        const double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
        inv_freq[i] =
            (float)(m->yarn_factor > 0 ? plain / m->yarn_factor * ramp + plain * (1 - ramp) : plain);
    }
    return (struct qd_rope){inv_freq, m->yarn_factor > 0 ? (float)(0.1 * log(m->yarn_factor) + 1) : 1};
}

static void cos_and_sin(void **state)
{
    const struct model *m = *state;
    const size_t half = (size_t)m->head_dim / 2;
    cJSON *trace = trace_read(m->path);
    qd_bf16 *cos_want = trace_tensor(trace, "rope_cos", T * 2 * half);
    qd_bf16 *sin_want = trace_tensor(trace, "rope_sin", T * 2 * half);
    float inv_freq[64], c[64], s[64];
    const struct qd_rope rope = make_rope(m, inv_freq);
    for (int32_t t = 0; t < T; t++) {
        qd_ref_rope(&rope, m->head_dim, t, QD_NUMERICS_HF, c, s);
        for (size_t i = 0; i < half; i++) {
            assert_float_equal(c[i], qd_bf16_to_f32(cos_want[(size_t)t * 2 * half + i]), 0);
            assert_float_equal(s[i], qd_bf16_to_f32(sin_want[(size_t)t * 2 * half + i]), 0);
        }
    }
    free(cos_want);
    free(sin_want);
    cJSON_Delete(trace);
}

static void check_norm(const cJSON *trace, const char *in, const char *weight, const char *out, int32_t dim)
{
    const size_t n = (size_t)(T * dim);
    qd_bf16 *x = trace_tensor(trace, in, n), *w = trace_tensor(trace, weight, (size_t)dim);
    qd_bf16 *want = trace_tensor(trace, out, n), *got = malloc(n * sizeof *got);
    qd_ref_rmsnorm(
        &(struct qd_rmsnorm_args){.x = x, .weight = w, .n_rows = T, .dim = dim, .eps = eps, .out = got},
        QD_NUMERICS_HF);
    compare_same_bf16(out, got, want, n);
    free(x);
    free(w);
    free(want);
    free(got);
}

static void norms(void **state)
{
    const struct model *m = *state;
    cJSON *trace = trace_read(m->path);
    check_norm(trace, "embed", "weights/l0.input_layernorm.weight", "l0.input_norm", m->hidden);
    check_norm(trace, "l0.after_attention", "weights/l0.post_attention_layernorm.weight", "l0.post_norm",
               m->hidden);
    check_norm(trace, "before_final_norm", "weights/model.norm.weight", "final_norm", m->hidden);
    cJSON_Delete(trace);
}

static void projection(void **state)
{
    const struct model *m = *state;
    const int32_t n = m->n_kv_heads * m->head_dim;
    cJSON *trace = trace_read(m->path);
    qd_bf16 *x = trace_tensor(trace, "l0.input_norm", (size_t)(T * m->hidden));
    qd_bf16 *w = trace_tensor(trace, "weights/l0.k_proj.weight", (size_t)(n * m->hidden));
    qd_bf16 *want = trace_tensor(trace, "l0.k_proj", (size_t)(T * n)), *got = malloc((size_t)(T * n) * 2);
    qd_ref_gemm_nt(&(struct qd_gemm_nt_args){.a = x,
                                             .m = T,
                                             .lda = m->hidden,
                                             .w = {w, n, m->hidden, QD_LAYOUT_ROWS},
                                             .epilogue = QD_EPILOGUE_STORE,
                                             .out = got,
                                             .ldo = n},
                   QD_NUMERICS_HF);
    compare_same_bf16("k_proj", got, want, (size_t)(T * n));
    free(x);
    free(w);
    free(want);
    free(got);
    cJSON_Delete(trace);
}

static void gated_unit(void **state)
{
    const struct model *m = *state;
    const int32_t n = m->ffn;
    cJSON *trace = trace_read(m->path);
    qd_bf16 *gate = trace_tensor(trace, "l0.gate_proj", (size_t)(T * n));
    qd_bf16 *up = trace_tensor(trace, "l0.up_proj", (size_t)(T * n));
    qd_bf16 *want = trace_tensor(trace, "l0.silu_gate_times_up", (size_t)(T * n));
    qd_bf16 *gate_up = malloc((size_t)(T * 2 * n) * 2), *got = malloc((size_t)(T * n) * 2);
    for (int32_t t = 0; t < T; t++) {
        for (int32_t i = 0; i < n; i++) {
            qd_bf16 *group = gate_up + t * 2 * n + i / 8 * 16 + i % 8;
            group[0] = gate[t * n + i];
            group[8] = up[t * n + i];
        }
    }
    qd_ref_silu_mul(&(struct qd_silu_mul_args){gate_up, T, n, got}, QD_NUMERICS_HF);
    compare_same_bf16("silu_mul", got, want, (size_t)(T * n));
    free(gate);
    free(up);
    free(want);
    free(gate_up);
    free(got);
    cJSON_Delete(trace);
}

/* q, k and v of one token side by side, as the fused projection leaves them. */
static qd_bf16 *join_qkv(const struct model *m, const cJSON *trace)
{
    const size_t q_dim = (size_t)(m->n_heads * m->head_dim), kv_dim = (size_t)(m->n_kv_heads * m->head_dim);
    const size_t width = q_dim + 2 * kv_dim;
    qd_bf16 *q = trace_tensor(trace, "l0.q_proj", T * q_dim),
            *k = trace_tensor(trace, "l0.k_proj", T * kv_dim);
    qd_bf16 *v = trace_tensor(trace, "l0.v_proj", T * kv_dim), *qkv = malloc(T * width * sizeof *qkv);
    for (size_t t = 0; t < T; t++) {
        memcpy(qkv + t * width, q + t * q_dim, q_dim * sizeof *q);
        memcpy(qkv + t * width + q_dim, k + t * kv_dim, kv_dim * sizeof *k);
        memcpy(qkv + t * width + q_dim + kv_dim, v + t * kv_dim, kv_dim * sizeof *v);
    }
    free(q);
    free(k);
    free(v);
    return qkv;
}

/* The rotated keys as they lie in the pool. */
static void check_keys(const struct model *m, const cJSON *trace, const struct qd_kv_layer *kv,
                       const struct qd_step *step)
{
    const int32_t hd = m->head_dim, n_kv = m->n_kv_heads;
    qd_bf16 *want = trace_tensor(trace, "l0.k_rope", (size_t)(T * n_kv * hd));
    for (int32_t t = 0; t < T; t++) {
        const int64_t slot = qd_step_slot_mapping(step)[t];
        for (int32_t h = 0; h < n_kv; h++) {
            const int64_t row = ((slot / 16) * n_kv + h) * 16 + slot % 16;
            compare_same_bf16("k_rope", kv->data + row * hd, want + (t * n_kv + h) * hd, (size_t)hd);
        }
    }
    free(want);
}

static void attention(void **state)
{
    const struct model *m = *state;
    const int32_t hd = m->head_dim, q_dim = m->n_heads * hd;
    const struct chunk whole[] = {{0, 0, T}};
    struct page_deal deal = page_deal_init(1, T, 3);
    struct qd_step *step = new_step(&deal, whole, 1);
    cJSON *trace = trace_read(m->path);
    qd_bf16 *qkv = join_qkv(m, trace);
    qd_bf16 *q_weight = trace_tensor(trace, "weights/l0.q_norm.weight", (size_t)hd);
    qd_bf16 *k_weight = trace_tensor(trace, "weights/l0.k_norm.weight", (size_t)hd);
    qd_bf16 *q_want = trace_tensor(trace, "l0.q_rope", (size_t)(T * q_dim));
    qd_bf16 *want = trace_tensor(trace, "l0.attention", (size_t)(T * q_dim));
    const size_t pool = (size_t)(2 * deal.n_kv_blocks * m->n_kv_heads * 16 * hd);
    qd_bf16 *q = malloc((size_t)(T * q_dim) * 2), *got = malloc((size_t)(T * q_dim) * 2);
    const struct qd_kv_layer kv = {malloc(pool * 2), deal.n_kv_blocks, m->n_kv_heads, hd};
    float inv_freq[64];
    const struct qd_rope rope = make_rope(m, inv_freq);
    poison_bf16(kv.data, pool);

    qd_ref_qk_norm_rope_kv(&(struct qd_qk_norm_rope_kv_args){step, qd_partial_stored(qkv), q_weight, k_weight, eps, m->n_heads,
                                                             m->n_kv_heads, hd, kv, q},
                           &rope, QD_NUMERICS_HF);
    compare_same_bf16("q_rope", q, q_want, (size_t)(T * q_dim));
    check_keys(m, trace, &kv, step);
    qd_ref_attention(&(struct qd_attention_args){step, q, m->n_heads, m->n_kv_heads, hd, kv, got},
                     QD_NUMERICS_HF);
    compare_same_bf16("attention", got, want, (size_t)(T * q_dim));

    free(kv.data);
    free(q);
    free(got);
    free(want);
    free(q_want);
    free(k_weight);
    free(q_weight);
    free(qkv);
    cJSON_Delete(trace);
    free(step);
    page_deal_free(&deal);
}

static void residual_and_norm(void **state)
{
    const struct model *m = *state;
    const size_t n = (size_t)(T * m->hidden);
    cJSON *trace = trace_read(m->path);
    qd_bf16 *residual = trace_tensor(trace, "embed", n), *o = trace_tensor(trace, "l0.o_proj", n);
    qd_bf16 *weight = trace_tensor(trace, "weights/l0.post_attention_layernorm.weight", (size_t)m->hidden);
    qd_bf16 *residual_want = trace_tensor(trace, "l0.after_attention", n);
    qd_bf16 *want = trace_tensor(trace, "l0.post_norm", n), *got = malloc(n * sizeof *got);
    const void *parts[] = {o};
    qd_ref_reduce_add_rmsnorm(&(struct qd_reduce_add_rmsnorm_args){.residual = residual,
                                                                   .partial = {.data = o, .n_slices = 1},
                                                                   .weight = weight,
                                                                   .n_rows = T,
                                                                   .dim = m->hidden,
                                                                   .eps = eps,
                                                                   .out = got},
                              parts, 1, QD_NUMERICS_HF);
    compare_same_bf16("after_attention", residual, residual_want, n);
    compare_same_bf16("post_norm", got, want, n);
    free(residual);
    free(o);
    free(weight);
    free(residual_want);
    free(want);
    free(got);
    cJSON_Delete(trace);
}

#define BOTH(test)                                                                                           \
    {#test "_tied", test, NULL, NULL, (void *)(uintptr_t)&tied},                                             \
    {                                                                                                        \
#test "_yarn", test, NULL, NULL, (void *)(uintptr_t)&yarn                                            \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(cos_and_sin), BOTH(norms),     BOTH(projection),
        BOTH(gated_unit),  BOTH(attention), BOTH(residual_and_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The specification as a device: memory, slots, and that each op reaches its function. */
#include "kernels/ref/ref.h"
#include "tests/support/compare.h"
#include "tests/support/devices.h"
#include "tests/support/memory.h"
#include "tests/support/steps.h"
#include "tests/support/test.h"

static void one_rank_only(void **state)
{
    (void)state;
    const struct qd_model_shape shape = test_shape(2, 1, 16);
    char why[256] = "";
    assert_true(qd_ref_ops.supports(&shape, 1, QD_NUMERICS_HF, why, sizeof why));
    assert_false(qd_ref_ops.supports(&shape, 2, QD_NUMERICS_HF, why, sizeof why));
    ASSERT_CONTAINS(why, "one rank");
    const struct qd_bootstrap pair = {.world = 2};
    const struct qd_device_config config = {.shape = shape};
    void *ctx = NULL;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_ref_ops.open(&config, &pair, &ctx, err, sizeof err), QD_ERR_UNSUPPORTED);
    assert_null(ctx);
    ASSERT_CONTAINS(err, "one rank");
    qd_ref_ops.close(NULL);
}

static void memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    struct qd_device device = device_open(&qd_ref_ops, (struct setting){0}, test_shape(2, 1, 16));
    char err[QD_ERR_LEN] = "";
    static const size_t sizes[] = {0, 1, 63, 64, 65, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *data = NULL;
        ASSERT_OK(qd_device_alloc(device, sizes[i], &data, err, sizeof err), err);
        assert_int_equal((uintptr_t)data % 64, 0);
        for (size_t b = 0; b < sizes[i]; b++) assert_int_equal(((unsigned char *)data)[b], 0);
        memset(data, 1, sizes[i]);
    }
    void *none = NULL;
    assert_int_equal(qd_device_alloc(device, SIZE_MAX - 10, &none, err, sizeof err), QD_ERR_NO_MEMORY);
    assert_int_equal(device.ops->weight_bytes(3, 5, QD_LAYOUT_PACKED), 30);
    assert_true(device.ops->weight_bytes(INT64_MAX, 5, QD_LAYOUT_ROWS) == SIZE_MAX);
    device_close(&device);
}

static void sampled_ids_reach_the_next_embedding(void **state)
{
    (void)state;
    struct qd_device device = device_open(&qd_ref_ops, (struct setting){0}, test_shape(2, 1, 16));
    const struct qd_sampling sampling[] = {
        {.top_p = 1, .slot = 3}, {.top_p = 1, .slot = -1}, {.top_p = 1, .slot = 0}};
    struct qd_step *step = new_sampling_step(sampling, 3);
    const float logits[] = {0, 9, 0, 0, 8, 9, 0, 0, 1, 2, 7, 0};
    int32_t ids[3];
    assert_int_equal(qd_device_sample(device, &(struct qd_sample_args){step, logits, 4, 0, 4, 4, ids}),
                     QD_OK);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 1);
    assert_int_equal(ids[2], 2);

    const qd_bf16 table[] = {10, 11, 12, 13};
    const int32_t source[] = {-4, -1, 3};
    qd_bf16 out[3];
    assert_int_equal(
        qd_device_embed(device, &(struct qd_embed_args){{table, 4, 1, QD_LAYOUT_ROWS}, source, 3, out}),
        QD_OK);
    compare_same_bf16("embed", out, (const qd_bf16[]){11, 12, 13}, 3);
    free(step);
    device_close(&device);
}

/* Two tokens through norm, projection, attention and residual, on the device and by the functions. */
static void ops_reach_their_functions(void **state)
{
    (void)state;
    enum { T = 2, H = 24, HD = 16, QKV = (2 + 2) * HD };
    struct qd_device device =
        device_open(&qd_ref_ops, (struct setting){.numerics = QD_NUMERICS_HF}, test_shape(2, 1, HD));
    struct page_deal deal = page_deal_init(1, T, 1);
    const struct chunk chunk[] = {{0, 0, T}};
    struct qd_step *step = new_step(&deal, chunk, 1);
    qd_bf16 *x = new_random_bf16(T * H, 1, 1), *norm = new_norm_weight(H, 2),
            *w = new_random_bf16(QKV * H, 3, 0.3);
    float inv_freq[HD / 2];
    random_f32(inv_freq, HD / 2, 4, 1);
    const struct qd_rope rope = {inv_freq, 1};
    const struct qd_kv_layer kv[] = {device_kv(device, deal.n_kv_blocks, 1, HD),
                                     device_kv(device, deal.n_kv_blocks, 1, HD)};
    qd_bf16 normed[2][T * H], qkv[2][T * QKV], q[2][T * 2 * HD], out[2][T * 2 * HD];

    assert_int_equal(qd_device_plan(device, &(struct qd_plan_args){step, rope, 2, 1, HD}), QD_OK);
    for (int i = 0; i < 2; i++) {
        const struct qd_rmsnorm_args norm_args = {x, norm, NULL, T, H, 1e-6f, normed[i]};
        const struct qd_gemm_nt_args gemm = {normed[i],         T,      H,   device_weight(device, w, QKV, H),
                                             QD_EPILOGUE_STORE, qkv[i], QKV, NULL};
        const struct qd_qk_norm_rope_kv_args rope_args = {
            step, qd_partial_stored(qkv[i]), norm, norm, 1e-6f, 2, 1, HD, kv[i], q[i]};
        const struct qd_attention_args attention = {step, q[i], 2, 1, HD, kv[i], out[i]};
        if (i == 0) {
            qd_ref_rmsnorm(&norm_args, QD_NUMERICS_HF);
            qd_ref_gemm_nt(&gemm, QD_NUMERICS_HF);
            qd_ref_qk_norm_rope_kv(&rope_args, &rope, QD_NUMERICS_HF);
            qd_ref_attention(&attention, QD_NUMERICS_HF);
        } else {
            assert_int_equal(qd_device_rmsnorm(device, &norm_args), QD_OK);
            assert_int_equal(qd_device_gemm_nt(device, &gemm), QD_OK);
            assert_int_equal(qd_device_qk_norm_rope_kv(device, &rope_args), QD_OK);
            assert_int_equal(qd_device_attention(device, &attention), QD_OK);
        }
    }
    compare_same_bf16("rmsnorm", normed[1], normed[0], T * H);
    compare_same_bf16("gemm", qkv[1], qkv[0], T * QKV);
    compare_same_bf16("q", q[1], q[0], T * 2 * HD);
    compare_same_bf16("attention", out[1], out[0], T * 2 * HD);
    free(x);
    free(norm);
    free(w);
    free(step);
    page_deal_free(&deal);
    device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_only),
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(sampled_ids_reach_the_next_embedding),
        cmocka_unit_test(ops_reach_their_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

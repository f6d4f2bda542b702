/* The specification against values worked out by hand, and what separates hf from fused numerics. */
#include <math.h>

#include "kernels/ref/ref.h"
#include "tests/support/compare.h"
#include "tests/support/memory.h"
#include "tests/support/steps.h"
#include "tests/support/test.h"

#define BF(x) qd_bf16_from_f32((float)(x))

static void embed_takes_rows_and_slots(void **state)
{
    (void)state;
    const qd_bf16 table[] = {BF(0), BF(1), BF(10), BF(11), BF(20), BF(21)};
    const int32_t source[] = {2, -1, 0, -2}, sampled[] = {1, 2};
    const qd_bf16 want[] = {BF(20), BF(21), BF(10), BF(11), BF(0), BF(1), BF(20), BF(21)};
    qd_bf16 got[8];
    qd_ref_embed(&(struct qd_embed_args){{table, 3, 2, QD_LAYOUT_ROWS}, source, 4, got}, sampled);
    compare_same_bf16("embed", got, want, 8);
}

static void rmsnorm_of_known_rows(void **state)
{
    (void)state;
    /* mean square of (3, 4, 0, 0) is 6.25, with eps 0 the root 2.5 */
    const qd_bf16 x[] = {BF(9), BF(9), BF(9), BF(9), BF(3), BF(4), BF(0), BF(0)};
    const qd_bf16 weight[] = {BF(1), BF(0.5), BF(2), BF(2)}, want[] = {BF(1.2), BF(0.8), BF(0), BF(0)};
    const int32_t rows[] = {1};
    qd_bf16 got[4];
    for (int numerics = 0; numerics < 2; numerics++) {
        qd_ref_rmsnorm(&(struct qd_rmsnorm_args){x, weight, rows, 1, 4, 0, got}, (enum qd_numerics)numerics);
        compare_same_bf16("rmsnorm", got, want, 4);
    }
    /* A row of zeros is saved by eps. */
    const qd_bf16 zero[4] = {0};
    qd_ref_rmsnorm(&(struct qd_rmsnorm_args){zero, weight, NULL, 1, 4, 1e-6f, got}, QD_NUMERICS_HF);
    compare_same_bf16("rmsnorm of zeros", got, zero, 4);
    /* eps counts: mean square 1e-6 and eps 3e-6 make a root of 2e-3. */
    const qd_bf16 small[4] = {BF(1e-3), BF(1e-3), BF(1e-3), BF(1e-3)}, one[4] = {BF(1), BF(1), BF(1), BF(1)};
    qd_ref_rmsnorm(&(struct qd_rmsnorm_args){small, one, NULL, 1, 4, 3e-6f, got}, QD_NUMERICS_FUSED);
    assert_float_equal(qd_bf16_to_f32(got[0]), 0.5, 2e-3);
}

static void rmsnorm_rounds_twice_in_hf(void **state)
{
    (void)state;
    /* eps makes the root 1.5, so x / rms = 0.66667, and r() of that is 0.66796875. Times 1.4375: hf 0.960205
     * -> 0.9609375, fused 0.958333 -> 0.95703125. */
    const qd_bf16 x[] = {BF(1), BF(sqrt(3.5))}, weight[] = {BF(1.4375), BF(1)};
    const float eps = (float)(2.25 - (1.0 + pow((double)qd_bf16_to_f32(x[1]), 2)) / 2);
    qd_bf16 got[2];
    qd_ref_rmsnorm(&(struct qd_rmsnorm_args){x, weight, NULL, 1, 2, eps, got}, QD_NUMERICS_HF);
    assert_float_equal(qd_bf16_to_f32(got[0]), 0.9609375, 0);
    qd_ref_rmsnorm(&(struct qd_rmsnorm_args){x, weight, NULL, 1, 2, eps, got}, QD_NUMERICS_FUSED);
    assert_float_equal(qd_bf16_to_f32(got[0]), 0.95703125, 0);
}

static void gemm_of_small_integers(void **state)
{
    (void)state;
    /* Strides larger than the rows, on both sides. */
    const qd_bf16 a[] = {BF(1), BF(2), BF(3), BF(99), BF(-1), BF(0), BF(4), BF(99)};
    const qd_bf16 w[] = {BF(1), BF(1), BF(1), BF(2), BF(0), BF(-1)};
    qd_bf16 got[6];
    float wide[4];
    poison_bf16(got, 6);
    struct qd_gemm_nt_args args = {a, 2, 4, {w, 2, 3, QD_LAYOUT_ROWS}, QD_EPILOGUE_STORE, got, 3, NULL};
    qd_ref_gemm_nt(&args, QD_NUMERICS_FUSED);
    const qd_bf16 want[] = {BF(6), BF(-1), 0xffff, BF(3), BF(-6), 0xffff};
    compare_same_bf16("gemm", got, want, 6);

    args.epilogue = QD_EPILOGUE_STORE_F32, args.out = wide, args.ldo = 2;
    qd_ref_gemm_nt(&args, QD_NUMERICS_HF);
    compare_same_f32("gemm fp32", wide, (const float[]){6, -1, 3, -6}, 4);
}

static void logits_are_rounded_in_hf_only(void **state)
{
    (void)state;
    const qd_bf16 a[] = {BF(1), BF(1)}, w[] = {BF(256), BF(1.5)};
    float got;
    const struct qd_gemm_nt_args args = {a, 1, 2, {w, 1, 2, QD_LAYOUT_ROWS}, QD_EPILOGUE_STORE_F32, &got, 1, NULL};
    qd_ref_gemm_nt(&args, QD_NUMERICS_FUSED);
    assert_float_equal(got, 257.5, 0);
    qd_ref_gemm_nt(&args, QD_NUMERICS_HF);
    assert_float_equal(got, 258, 0); /* bf16 steps by 2 above 256 */
}

static void silu_mul_reads_groups_of_eight(void **state)
{
    (void)state;
    /* 11 columns: a group of 8 and one of 3. Gate i is i - 4, up i is i + 1. */
    enum { N = 11 };
    qd_bf16 gate_up[2 * N], got[N];
    for (int i = 0; i < N; i++) {
        const int begin = i / 8 * 8, group = begin == 0 ? 8 : 3, at = 2 * begin + i % 8;
        gate_up[at] = BF(i - 4);
        gate_up[at + group] = BF(i + 1);
    }
    for (int numerics = 0; numerics < 2; numerics++) {
        qd_ref_silu_mul(&(struct qd_silu_mul_args){gate_up, 1, N, got}, (enum qd_numerics)numerics);
        for (int i = 0; i < N; i++) {
            double silu = (i - 4) / (1 + exp(4 - i));
            if (numerics == QD_NUMERICS_HF) silu = (double)qd_bf16_round((float)silu);
            assert_float_equal(qd_bf16_to_f32(got[i]), qd_bf16_round((float)(silu * (i + 1))), 0);
        }
    }
}

static void silu_epilogue_equals_store_then_silu_in_hf(void **state)
{
    (void)state;
    enum { M = 3, K = 20, N = 26 };
    qd_bf16 *a = new_random_bf16(M * K, 1, 1), *w = new_random_bf16(N * K, 2, 1);
    qd_bf16 stored[M * N], want[M * N / 2], got[M * N / 2];
    struct qd_gemm_nt_args args = {a, M, K, {w, N, K, QD_LAYOUT_ROWS}, QD_EPILOGUE_STORE, stored, N, NULL};
    qd_ref_gemm_nt(&args, QD_NUMERICS_HF);
    qd_ref_silu_mul(&(struct qd_silu_mul_args){stored, M, N / 2, want}, QD_NUMERICS_HF);
    args.epilogue = QD_EPILOGUE_SILU_MUL, args.out = got, args.ldo = N / 2;
    qd_ref_gemm_nt(&args, QD_NUMERICS_HF);
    compare_same_bf16("silu epilogue", got, want, M * N / 2);
    free(a);
    free(w);
}

static void rope_turns_pairs(void **state)
{
    (void)state;
    /* Head of 4: pair (0, 2) turns by a quarter, pair (1, 3) stays. RMS of (1, 1, 1, 1) is 1. */
    const float inv_freq[] = {(float)(M_PI / 2), 0};
    const struct qd_rope rope = {inv_freq, 1};
    const qd_bf16 qkv[] = {BF(1), BF(1), BF(-1), BF(1), BF(1), BF(-1),
                           BF(1), BF(1), BF(5),  BF(6), BF(7), BF(8)};
    const qd_bf16 weight[] = {BF(1), BF(2), BF(3), BF(4)};
    const qd_bf16 q_want[] = {BF(3), BF(2), BF(1), BF(4)}, k_want[] = {BF(-3), BF(-2), BF(1), BF(4)};
    const struct chunk second[] = {{0, 1, 1}};
    struct page_deal deal = page_deal_init(1, 16, 1);
    struct qd_step *step = new_step(&deal, second, 1);
    const size_t pool = (size_t)(2 * deal.n_kv_blocks * 16 * 4);
    const struct qd_kv_layer kv = {malloc(pool * 2), deal.n_kv_blocks, 1, 4};
    qd_bf16 q[4];
    for (int numerics = 0; numerics < 2; numerics++) {
        poison_bf16(kv.data, pool);
        qd_ref_qk_norm_rope_kv(
            &(struct qd_qk_norm_rope_kv_args){step, qd_partial_stored(qkv), weight, weight, 0, 1, 1, 4, kv, q}, &rope,
            (enum qd_numerics)numerics);
        const int64_t slot = qd_step_slot_mapping(step)[0], v_at = deal.n_kv_blocks * 16;
        compare_same_bf16("q", q, q_want, 4);
        compare_same_bf16("k", kv.data + slot * 4, k_want, 4);
        compare_same_bf16("v", kv.data + (v_at + slot) * 4, qkv + 8, 4);
        size_t touched = 0;
        for (size_t i = 0; i < pool; i++) touched += kv.data[i] != 0xffff;
        assert_int_equal(touched, 8);
    }
    free(kv.data);
    free(step);
    page_deal_free(&deal);
}

static void rope_scaling_and_rounding(void **state)
{
    (void)state;
    const float inv_freq[] = {1, 0.25f};
    float c[2], s[2];
    qd_ref_rope(&(struct qd_rope){inv_freq, 1.5f}, 4, 3, QD_NUMERICS_FUSED, c, s);
    assert_float_equal(c[0], (float)(1.5 * cos(3)), 3e-7f);
    assert_float_equal(s[1], (float)(1.5 * sin(0.75)), 3e-7f);
    qd_ref_rope(&(struct qd_rope){inv_freq, 1.5f}, 4, 3, QD_NUMERICS_HF, c, s);
    assert_float_equal(c[0], qd_bf16_round((float)(1.5 * cos(3))), 0);
    assert_float_equal(s[1], qd_bf16_round((float)(1.5 * sin(0.75))), 0);
}

/* A pool of 1 kv head of 2 dims where key j is (j, 0) and value j is (1, j). */
static void fill_pool(const struct qd_kv_layer *kv, const int32_t *page, int32_t n)
{
    poison_bf16(kv->data, (size_t)(2 * kv->n_blocks * 16 * 2));
    for (int32_t j = 0; j < n; j++) {
        qd_bf16 *k = kv->data + (page[j / 16] * 16 + j % 16) * 2, *v = k + kv->n_blocks * 16 * 2;
        k[0] = BF(j), k[1] = BF(0);
        v[0] = BF(1), v[1] = BF(j);
    }
}

static void attention_is_causal_over_pages(void **state)
{
    (void)state;
    /* Queries of zero weigh all visible keys alike: the mean of 0 .. p is p / 2. A query of (a, 0) weighs key
     * j by exp(a j / sqrt 2). */
    const struct chunk chunk[] = {{0, 14, 4}};
    struct page_deal deal = page_deal_init(1, 32, 9);
    struct qd_step *step = new_step(&deal, chunk, 1);
    const struct qd_kv_layer kv = {malloc((size_t)(2 * deal.n_kv_blocks * 16 * 2 * 2)), deal.n_kv_blocks, 1,
                                   2};
    const float a = 0.5f;
    const qd_bf16 q[] = {0, 0, BF(a), 0, 0, 0, BF(a), 0, 0, 0, BF(a), 0, 0, 0, BF(a), 0};
    qd_bf16 got[16];
    fill_pool(&kv, deal.page, 18);
    for (int numerics = 0; numerics < 2; numerics++) {
        qd_ref_attention(&(struct qd_attention_args){step, q, 2, 1, 2, kv, got}, (enum qd_numerics)numerics);
        for (int t = 0; t < 4; t++) {
            double sum = 0, mean = 0;
            for (int j = 0; j < 15 + t; j++) {
                sum += exp((double)a * j / sqrt(2));
                mean += j * exp((double)a * j / sqrt(2));
            }
            assert_float_equal(qd_bf16_to_f32(got[4 * t]), 1, 8e-3);
            assert_float_equal(qd_bf16_to_f32(got[4 * t + 1]), (float)(14 + t) / 2, 4e-2f);
            assert_float_equal(qd_bf16_to_f32(got[4 * t + 3]), (float)(mean / sum), 8e-2f);
        }
    }
    free(kv.data);
    free(step);
    page_deal_free(&deal);
}

static void attention_rounds_probabilities_in_hf(void **state)
{
    (void)state;
    /* 61 equal keys: r(1/61) = 134/8192, and 61 of them make 0.9978, which is nearer to 0.99609375 than to 1.
     */
    const struct chunk chunk[] = {{0, 60, 1}};
    struct page_deal deal = page_deal_init(1, 64, 9);
    struct qd_step *step = new_step(&deal, chunk, 1);
    const struct qd_kv_layer kv = {malloc((size_t)(2 * deal.n_kv_blocks * 16 * 2 * 2)), deal.n_kv_blocks, 1,
                                   2};
    const qd_bf16 q[] = {0, 0};
    qd_bf16 got[2];
    fill_pool(&kv, deal.page, 61);
    qd_ref_attention(&(struct qd_attention_args){step, q, 1, 1, 2, kv, got}, QD_NUMERICS_FUSED);
    assert_float_equal(qd_bf16_to_f32(got[0]), 1, 0);
    qd_ref_attention(&(struct qd_attention_args){step, q, 1, 1, 2, kv, got}, QD_NUMERICS_HF);
    assert_float_equal(qd_bf16_to_f32(got[0]), 0.99609375f, 0);
    free(kv.data);
    free(step);
    page_deal_free(&deal);
}

static void reduce_rounds_the_sum_once(void **state)
{
    (void)state;
    /* 256 + 0.5 + 0.5 + 0.5 = 257.5, rounded to 258 (steps of 2), plus 2 makes 260. Rounding each addition to
     * bf16 would stay at 256. */
    const qd_bf16 weight[] = {BF(1), BF(1)};
    qd_bf16 residual[] = {BF(9), BF(9), BF(2), BF(3)}, got[2];
    const float two_rows[] = {0, 0, 256, 1, 0, 0, 0.5f, 1, 0, 0, 0.5f, 1, 0, 0, 0.5f, 1};
    const int32_t rows[] = {1};
    const void *parts[] = {two_rows};
    qd_ref_reduce_add_rmsnorm(
        &(struct qd_reduce_add_rmsnorm_args){
            residual, {two_rows, QD_PARTIAL_F32, 4, 4, false}, weight, rows, 1, 2, 0, got},
        parts, 1, QD_NUMERICS_HF);
    const qd_bf16 want[] = {BF(9), BF(9), BF(260), BF(7)};
    compare_same_bf16("residual", residual, want, 4);
    const double rms = sqrt((260.0 * 260 + 49) / 2);
    assert_float_equal(qd_bf16_to_f32(got[0]), qd_bf16_round((float)(260 / rms)), 0);
    assert_float_equal(qd_bf16_to_f32(got[1]), qd_bf16_round((float)(7 / rms)), 0);
}

static void reduce_rounds_the_sum_before_the_residual(void **state)
{
    (void)state;
    /* 1 + 2^-8 is a tie that rounds to 1, and 256 + 1 one that rounds to 256; 257.004 alone would make 258.
     */
    const float slices[] = {1, 0x1p-8f};
    const void *parts[] = {slices};
    const qd_bf16 weight[] = {BF(1)};
    qd_bf16 residual[] = {BF(256)}, got[1];
    qd_ref_reduce_add_rmsnorm(
        &(struct qd_reduce_add_rmsnorm_args){
            residual, {slices, QD_PARTIAL_F32, 2, 1, false}, weight, NULL, 1, 1, 0, got},
        parts, 1, QD_NUMERICS_FUSED);
    assert_float_equal(qd_bf16_to_f32(residual[0]), 256, 0);
}

static void reduce_sums_ranks(void **state)
{
    (void)state;
    const qd_bf16 part[3][2] = {{BF(1), BF(256)}, {BF(2), BF(1)}, {BF(3), BF(0.5)}},
                  weight[] = {BF(1), BF(1)};
    const void *parts[] = {part[0], part[1], part[2]};
    qd_bf16 residual[] = {BF(10), BF(0)}, got[2];
    qd_ref_reduce_add_rmsnorm(
        &(struct qd_reduce_add_rmsnorm_args){
            residual, {part[0], QD_PARTIAL_BF16, 1, 0, true}, weight, NULL, 1, 2, 0, got},
        parts, 3, QD_NUMERICS_FUSED);
    const qd_bf16 want[] = {BF(16), BF(258)};
    compare_same_bf16("residual", residual, want, 2);
}

static void reduce_rounds_each_rank_before_the_sum_of_ranks(void **state)
{
    (void)state;
    /* Each rank's 256 + 1 is a tie that rounds to 256; 257 + 257 would make 514. */
    const float slices[] = {256, 1};
    const void *parts[] = {slices, slices};
    const qd_bf16 weight[] = {BF(1)};
    qd_bf16 residual[] = {BF(0)}, got[1];
    qd_ref_reduce_add_rmsnorm(
        &(struct qd_reduce_add_rmsnorm_args){
            residual, {slices, QD_PARTIAL_F32, 2, 1, true}, weight, NULL, 1, 1, 0, got},
        parts, 2, QD_NUMERICS_FUSED);
    assert_float_equal(qd_bf16_to_f32(residual[0]), 512, 0);
}

static void heads_are_read_from_slices_as_if_stored(void **state)
{
    (void)state;
    enum { HD = 4, WIDTH = 3 * HD };
    const float inv_freq[] = {0.5f, 0.25f};
    const struct qd_rope rope = {inv_freq, 1};
    const struct chunk second[] = {{0, 1, 1}};
    struct page_deal deal = page_deal_init(1, 16, 1);
    struct qd_step *step = new_step(&deal, second, 1);
    const size_t pool = (size_t)(2 * deal.n_kv_blocks * 16 * HD);
    qd_bf16 stored[WIDTH], q[2][HD], *weight = new_norm_weight(HD, 1);
    float slices[2][WIDTH];
    random_f32(slices[0], 2 * WIDTH, 2, 1);
    for (int i = 0; i < WIDTH; i++) stored[i] = qd_bf16_from_f32(slices[0][i] + slices[1][i]);
    const struct qd_partial forms[2] = {qd_partial_stored(stored), {slices, QD_PARTIAL_F32, 2, WIDTH, false}};
    struct qd_kv_layer kv[2];
    for (int i = 0; i < 2; i++) {
        kv[i] = (struct qd_kv_layer){malloc(pool * 2), deal.n_kv_blocks, 1, HD};
        poison_bf16(kv[i].data, pool);
        qd_ref_qk_norm_rope_kv(
            &(struct qd_qk_norm_rope_kv_args){step, forms[i], weight, weight, 0, 1, 1, HD, kv[i], q[i]}, &rope,
            QD_NUMERICS_FUSED);
    }
    compare_same_bf16("q", q[1], q[0], HD);
    compare_same_bf16("pool", kv[1].data, kv[0].data, pool);
    free(kv[0].data);
    free(kv[1].data);
    free(weight);
    free(step);
    page_deal_free(&deal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_takes_rows_and_slots),
        cmocka_unit_test(rmsnorm_of_known_rows),
        cmocka_unit_test(rmsnorm_rounds_twice_in_hf),
        cmocka_unit_test(gemm_of_small_integers),
        cmocka_unit_test(logits_are_rounded_in_hf_only),
        cmocka_unit_test(reduce_rounds_each_rank_before_the_sum_of_ranks),
        cmocka_unit_test(heads_are_read_from_slices_as_if_stored),
        cmocka_unit_test(silu_mul_reads_groups_of_eight),
        cmocka_unit_test(silu_epilogue_equals_store_then_silu_in_hf),
        cmocka_unit_test(rope_turns_pairs),
        cmocka_unit_test(rope_scaling_and_rounding),
        cmocka_unit_test(attention_is_causal_over_pages),
        cmocka_unit_test(attention_rounds_probabilities_in_hf),
        cmocka_unit_test(reduce_rounds_the_sum_once),
        cmocka_unit_test(reduce_rounds_the_sum_before_the_residual),
        cmocka_unit_test(reduce_sums_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The self-test of ops: devices pass it, and every planted mistake is found, each by the case that should. */
#include <math.h>

#include "harness/ops/verify.h"
#include "kernels/ref/ref.h"
#include "tests/support/test.h"

struct tally {
    int n_passed, n_other;
    int n_of_op[QD_N_OPS];
    double worst[QD_N_OPS];
    char first[QD_ERR_LEN]; /* that did not pass */
};

static void count(void *user, const struct qd_op_case *c, const struct qd_op_result *result)
{
    struct tally *tally = user;
    tally->n_of_op[c->op]++;
    tally->worst[c->op] = fmax(tally->worst[c->op], result->error.worst);
    if (result->outcome == QD_OP_PASSED) {
        tally->n_passed++;
        assert_true(result->error.n_checked > 0);
        return;
    }
    char shape[128];
    qd_op_describe(c, shape, sizeof shape);
    if (tally->n_other++ == 0)
        snprintf(tally->first, sizeof tally->first, "%s %s, TP %d, numerics %d: %s: %.400s",
                 qd_op_name(c->op), shape, c->tp, (int)c->numerics, qd_op_outcome_name(result->outcome),
                 result->text);
}

static struct qd_op_options options_for(const struct qd_device_ops *ops)
{
    return (struct qd_op_options){.ops = ops, .cpu_isa = "auto", .n_threads = 2, .repeats = 1, .seed = 11};
}

static void device_passes(const struct qd_device_ops *ops, int max_tp)
{
    char err[QD_ERR_LEN] = "";
    struct tally tally = {0};
    struct qd_op_options options = options_for(ops);
    ASSERT_OK(qd_op_verify_all(&options, max_tp, count, &tally, err, sizeof err), err);
    for (int op = 0; op < QD_N_OPS; op++) {
        printf("%s: %d cases, worst %.3g of the tolerance\n", qd_op_name((enum qd_op)op), tally.n_of_op[op],
               tally.worst[op]);
        assert_true(tally.n_of_op[op] > 0);
    }
    if (tally.n_other > 0)
        fail_msg("%d of %d: %s", tally.n_other, tally.n_passed + tally.n_other, tally.first);
}

static void the_specification_passes(void **state)
{
    (void)state;
    device_passes(&qd_ref_ops, 1);
}

static void cpu_passes(void **state)
{
    (void)state;
    device_passes(qd_device_find("cpu"), 4);
}

static void emu_passes(void **state)
{
    (void)state;
    device_passes(qd_device_find("emu"), 2);
}

/* ---- planted mistakes: the specification as a device, with one member that is wrong ---- */

static qd_status wrong_embed(void *ctx, const struct qd_embed_args *args)
{
    QD_TRY(qd_ref_ops.embed(ctx, args));
    if (args->n_tokens > 1)
        memcpy(args->out, args->out + args->table.n_cols, sizeof(qd_bf16)); /* one element */
    return QD_OK;
}

static qd_status short_rmsnorm(void *ctx, const struct qd_rmsnorm_args *args)
{
    struct qd_rmsnorm_args fewer = *args; /* the last row is left out */
    fewer.n_rows--;
    return qd_ref_ops.rmsnorm(ctx, &fewer);
}

static qd_status large_eps_rmsnorm(void *ctx, const struct qd_rmsnorm_args *args)
{
    struct qd_rmsnorm_args other = *args; /* 1 % of the mean square */
    other.eps = 0.01f;
    return qd_ref_ops.rmsnorm(ctx, &other);
}

/* One term of the last sum is left out. */
static qd_status short_gemm(void *ctx, const struct qd_gemm_nt_args *args)
{
    QD_TRY(qd_ref_ops.gemm_nt(ctx, args));
    if (args->epilogue != QD_EPILOGUE_PARTIAL) return QD_OK;
    const qd_bf16 *a = args->a + (args->m - 1) * args->lda, *w = args->w.data;
    qd_bf16 *out = args->out;
    int64_t n = args->w.n_rows - 1, k = args->w.n_cols;
    double sum = 0;
    for (int64_t i = 0; i + 1 < k; i++)
        sum += (double)qd_bf16_to_f32(a[i]) * (double)qd_bf16_to_f32(w[n * k + i]);
    out[(args->m - 1) * args->ldo + n] = qd_bf16_from_f32((float)sum);
    return QD_OK;
}

static qd_status wide_gemm(void *ctx, const struct qd_gemm_nt_args *args)
{
    QD_TRY(qd_ref_ops.gemm_nt(ctx, args));
    ((qd_bf16 *)args->out)[args->m * args->ldo] = 0; /* the row behind the last */
    return QD_OK;
}

static qd_status untidy_gemm(void *ctx, const struct qd_gemm_nt_args *args)
{
    QD_TRY(qd_ref_ops.gemm_nt(ctx, args));
    if (args->epilogue == QD_EPILOGUE_SILU_MUL) ((qd_bf16 *)args->out)[args->w.n_rows / 2] = 0x3f80;
    return QD_OK;
}

/* Rounds the gate first, as hf does, in fused numerics. */
static qd_status rounding_silu_mul(void *ctx, const struct qd_silu_mul_args *args)
{
    (void)ctx;
    qd_ref_silu_mul(args, QD_NUMERICS_HF);
    return QD_OK;
}

static qd_status unnormed_rope(void *ctx, const struct qd_qk_norm_rope_kv_args *args)
{
    struct qd_qk_norm_rope_kv_args other = *args; /* k by q's weights, which only attention shows */
    other.k_norm_weight = args->q_norm_weight;
    return qd_ref_ops.qk_norm_rope_kv(ctx, &other);
}

static qd_status swapped_rope(void *ctx, const struct qd_qk_norm_rope_kv_args *args)
{
    struct qd_qk_norm_rope_kv_args other = *args; /* q by k's weights */
    other.q_norm_weight = args->k_norm_weight;
    return qd_ref_ops.qk_norm_rope_kv(ctx, &other);
}

static qd_status blind_attention(void *ctx, const struct qd_attention_args *args)
{
    const struct qd_step *step = args->step; /* every token sees one key less */
    for (int32_t t = 0; t < step->n_tokens; t++) qd_step_position(step)[t] -= qd_step_position(step)[t] > 0;
    return qd_ref_ops.attention(ctx, args);
}

static qd_status shifted_attention(void *ctx, const struct qd_attention_args *args)
{
    const struct qd_step *step = args->step; /* the first sequence reads its last page for its first */
    int32_t *table = qd_step_block_table(step);
    table[0] = table[qd_step_block_offset(step)[1] - 1];
    return qd_ref_ops.attention(ctx, args);
}

static qd_status forgetful_reduce(void *ctx, const struct qd_reduce_add_rmsnorm_args *args)
{
    qd_bf16 last = args->residual[args->dim - 1]; /* right norm, but the residual is not stored */
    QD_TRY(qd_ref_ops.reduce_add_rmsnorm(ctx, args));
    args->residual[args->dim - 1] = last;
    return QD_OK;
}

static qd_status overeager_reduce(void *ctx, const struct qd_reduce_add_rmsnorm_args *args)
{
    QD_TRY(qd_ref_ops.reduce_add_rmsnorm(ctx, args));
    if (args->rows != NULL) args->residual[args->dim] = 0; /* a row that was not asked for */
    return QD_OK;
}

static qd_status warm_sample(void *ctx, const struct qd_sample_args *args)
{
    for (int32_t r = 0; r < args->step->n_logit_rows; r++) /* forgets top-k */
        qd_step_sampling(args->step)[r].top_k = 0;
    return qd_ref_ops.sample(ctx, args);
}

static qd_status failing_sample(void *ctx, const struct qd_sample_args *args)
{
    (void)ctx, (void)args;
    return QD_ERR_TIMEOUT;
}

static qd_status halving_all_reduce(void *ctx, const struct qd_all_reduce_args *args)
{
    (void)ctx;
    args->data[args->n - 1] = qd_bf16_from_f32(qd_bf16_to_f32(args->data[args->n - 1]) / 2);
    return QD_OK;
}

static qd_status silent_all_gather(void *ctx, const struct qd_all_gather_args *args)
{
    (void)ctx, (void)args;
    return QD_OK;
}

/* What each mistake makes of each op: ops that are not named must still pass. */
static const struct mistake {
    const char *name;
    struct qd_device_ops patch; /* its members replace the specification's */
    enum qd_op found_by[5];
    int n_found_by;
    enum qd_op_outcome outcome;
} mistakes[] = {
    {"embed", {.embed = wrong_embed}, {QD_OP_EMBED}, 1, QD_OP_WRONG},
    {"a row less", {.rmsnorm = short_rmsnorm}, {QD_OP_RMSNORM}, 1, QD_OP_WRONG},
    {"another eps", {.rmsnorm = large_eps_rmsnorm}, {QD_OP_RMSNORM}, 1, QD_OP_WRONG},
    {"a term less", {.gemm_nt = short_gemm}, {QD_OP_QKV, QD_OP_O, QD_OP_DOWN}, 3, QD_OP_WRONG},
    {"a store behind the end", {.gemm_nt = wide_gemm}, {QD_OP_QKV, QD_OP_O, QD_OP_DOWN}, 3, QD_OP_FAILED},
    {"padding that is not zero", {.gemm_nt = untidy_gemm}, {QD_OP_GATE_UP}, 1, QD_OP_WRONG},
    {"a rounding too many", {.silu_mul = rounding_silu_mul}, {QD_OP_SILU_MUL}, 1, QD_OP_WRONG},
    {"k's weights",
     {.qk_norm_rope_kv = unnormed_rope},
     {QD_OP_ATTENTION_PREFILL, QD_OP_ATTENTION_DECODE},
     2,
     QD_OP_WRONG},
    {"q's weights", {.qk_norm_rope_kv = swapped_rope}, {QD_OP_QK_NORM_ROPE_KV}, 1, QD_OP_WRONG},
    {"a key less",
     {.attention = blind_attention},
     {QD_OP_ATTENTION_PREFILL, QD_OP_ATTENTION_DECODE, QD_OP_ATTENTION_MIXED},
     3,
     QD_OP_WRONG},
    {"a page for another",
     {.attention = shifted_attention},
     {QD_OP_ATTENTION_PREFILL, QD_OP_ATTENTION_DECODE, QD_OP_ATTENTION_MIXED},
     3,
     QD_OP_WRONG},
    {"no residual",
     {.reduce_add_rmsnorm = forgetful_reduce},
     {QD_OP_REDUCE_ADD_RMSNORM, QD_OP_FINAL_NORM},
     2,
     QD_OP_WRONG},
    {"a row too many", {.reduce_add_rmsnorm = overeager_reduce}, {QD_OP_FINAL_NORM}, 1, QD_OP_WRONG},
    {"no top-k", {.sample = warm_sample}, {QD_OP_SAMPLE}, 1, QD_OP_WRONG},
    {"an error", {.sample = failing_sample}, {QD_OP_SAMPLE}, 1, QD_OP_FAILED},
    {"half of a sum", {.all_reduce = halving_all_reduce}, {QD_OP_ALL_REDUCE}, 1, QD_OP_WRONG},
    {"nothing gathered", {.all_gather = silent_all_gather}, {QD_OP_ALL_GATHER}, 1, QD_OP_WRONG},
};

/* Members that a patch sets take the place of the specification's: all of one size, all function pointers. */
static struct qd_device_ops patched(const struct qd_device_ops *patch)
{
    struct qd_device_ops ops = qd_ref_ops;
#define TAKE(member)                                                                                         \
    if (patch->member != NULL) ops.member = patch->member
    TAKE(embed);
    TAKE(rmsnorm);
    TAKE(gemm_nt);
    TAKE(silu_mul);
    TAKE(qk_norm_rope_kv);
    TAKE(attention);
    TAKE(reduce_add_rmsnorm);
    TAKE(sample);
    TAKE(all_reduce);
    TAKE(all_gather);
#undef TAKE
    return ops;
}

static bool is_found_by(const struct mistake *m, enum qd_op op)
{
    for (int i = 0; i < m->n_found_by; i++)
        if (m->found_by[i] == op) return true;
    return false;
}

static void mistakes_are_found(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", shape_text[128];
    const struct qd_model_shape shape = {192, 200, 157, 1, 6, 2, 64};
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        const struct mistake *m = &mistakes[i];
        struct qd_device_ops ops = patched(&m->patch);
        struct qd_op_options options = options_for(&ops);
        for (int op = 0; op < QD_N_OPS; op++) {
            struct qd_op_result result;
            struct qd_op_case c = {
                .op = (enum qd_op)op, .shape = shape, .tp = 1, .n_tokens = 33, .context = 40};
            bool same_member = is_found_by(m, c.op);
            for (int j = 0; j < m->n_found_by && !same_member; j++)
                same_member = strcmp(qd_op_member(c.op), qd_op_member(m->found_by[j])) == 0;
            bool writes_pages = m->patch.qk_norm_rope_kv != NULL && qd_op_is_attention(c.op);
            if ((same_member || writes_pages) && !is_found_by(m, c.op)) continue; /* may or may not see it */
            ASSERT_OK(qd_op_verify(&options, &c, &result, err, sizeof err), err);
            qd_op_describe(&c, shape_text, sizeof shape_text);
            enum qd_op_outcome want = is_found_by(m, c.op) ? m->outcome : QD_OP_PASSED;
            if (result.outcome != want)
                fail_msg("%s: %s %s: %s, not %s: %s", m->name, qd_op_name(c.op), shape_text,
                         qd_op_outcome_name(result.outcome), qd_op_outcome_name(want), result.text);
            if (want == QD_OP_WRONG) assert_true(strlen(result.text) > 10);
        }
    }
}

/* The worst element is named with its place and both values. */
static void a_wrong_element_is_named(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops ops = patched(&(struct qd_device_ops){.all_reduce = halving_all_reduce});
    struct qd_op_options options = options_for(&ops);
    const struct qd_op_case c = {
        .op = QD_OP_ALL_REDUCE, .shape = {192, 200, 157, 1, 6, 2, 64}, .tp = 1, .n_tokens = 5};
    struct qd_op_result result;
    ASSERT_OK(qd_op_verify(&options, &c, &result, err, sizeof err), err);
    assert_int_equal(result.outcome, QD_OP_WRONG);
    assert_int_equal(result.error.row, 4);
    assert_int_equal(result.error.column, 191);
    assert_int_equal(result.error.n_bad, 1);
    assert_int_equal(result.error.n_checked, 5 * 192);
    assert_true(result.error.got == result.error.want / 2);
    assert_non_null(strstr(result.text, "data[4][191]"));
}

static void shapes_that_a_device_refuses_are_no_failures(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_op_result result;
    struct qd_op_options options = options_for(qd_device_find("emu"));
    struct qd_op_case c = {
        .op = QD_OP_RMSNORM, .shape = {100, 200, 157, 1, 6, 2, 64}, .tp = 1, .n_tokens = 5};
    ASSERT_OK(qd_op_verify(&options, &c, &result, err, sizeof err), err);
    assert_int_equal(result.outcome, QD_OP_REFUSED);
    assert_non_null(strstr(result.text, "hidden size 100"));
    options.ops = qd_device_find("null");
    ASSERT_OK(qd_op_verify(&options, &c, &result, err, sizeof err), err);
    assert_int_equal(result.outcome, QD_OP_REFUSED);
}

static qd_status no_gpu_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                             void **ctx, char *err, size_t errlen)
{
    (void)config, (void)bootstrap, (void)ctx;
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "no GPU is left");
}

/* Too few GPUs for the ranks is a refusal; none at all is the environment's. */
static void a_missing_gpu_is_no_wrong_op(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_op_result result;
    struct qd_device_ops ops = *qd_device_find("emu");
    ops.open = no_gpu_open;
    struct qd_op_options options = options_for(&ops);
    struct qd_op_case c = {
        .op = QD_OP_ALL_REDUCE, .shape = {192, 200, 157, 1, 6, 2, 64}, .tp = 2, .n_tokens = 5};
    ASSERT_OK(qd_op_verify(&options, &c, &result, err, sizeof err), err);
    assert_int_equal(result.outcome, QD_OP_REFUSED);
    assert_non_null(strstr(result.text, "no GPU is left"));
    c.tp = 1;
    assert_int_equal(qd_op_verify(&options, &c, &result, err, sizeof err), QD_ERR_ENVIRONMENT);
    assert_non_null(strstr(err, "no GPU is left"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_specification_passes),
        cmocka_unit_test(cpu_passes),
        cmocka_unit_test(emu_passes),
        cmocka_unit_test(mistakes_are_found),
        cmocka_unit_test(a_wrong_element_is_named),
        cmocka_unit_test(shapes_that_a_device_refuses_are_no_failures),
        cmocka_unit_test(a_missing_gpu_is_no_wrong_op),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

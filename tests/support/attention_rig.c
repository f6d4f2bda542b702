#include "tests/support/attention_rig.h"

#include "kernels/ref/ref.h"
#include "tests/support/memory.h"
#include "tests/support/test.h"

static const float eps = 1e-6f;

struct attention_rig attention_rig_init(const struct qd_device_ops *ops, struct setting setting,
                                        struct heads heads, int32_t n_seqs, int32_t max_len)
{
    const size_t hd = (size_t)heads.head_dim;
    struct attention_rig rig = {.heads = heads, .numerics = setting.numerics};
    rig.device = device_open(ops, setting, test_shape(heads.n_heads, heads.n_kv_heads, heads.head_dim));
    rig.deal = page_deal_init(n_seqs, max_len, 17);
    rig.kv = device_kv(rig.device, rig.deal.n_kv_blocks, heads.n_kv_heads, heads.head_dim);
    rig.ref_kv = rig.kv;
    const size_t pool = 2 * (size_t)rig.deal.n_kv_blocks * (size_t)heads.n_kv_heads * QD_KV_BLOCK_SIZE * hd;
    rig.ref_kv.data = malloc(pool * sizeof(qd_bf16));
    rig.inv_freq = malloc(hd / 2 * sizeof(float));
    assert_non_null(rig.ref_kv.data);
    assert_non_null(rig.inv_freq);
    poison_bf16(rig.ref_kv.data, pool);
    rig.q_weight = new_norm_weight(hd, 1);
    rig.k_weight = new_norm_weight(hd, 2);
    for (size_t i = 0; i < hd / 2; i++) rig.inv_freq[i] = 1.0f / (float)(1 + i * i);
    rig.rope = (struct qd_rope){rig.inv_freq, 1.25f};
    return rig;
}

void attention_rig_free(struct attention_rig *rig)
{
    device_close(&rig->device);
    page_deal_free(&rig->deal);
    free(rig->ref_kv.data);
    free(rig->q_weight);
    free(rig->k_weight);
    free(rig->inv_freq);
    *rig = (struct attention_rig){0};
}

size_t attention_rig_width(const struct attention_rig *rig)
{
    return (size_t)rig->heads.n_heads * (size_t)rig->heads.head_dim;
}

qd_bf16 *attention_rig_qkv(const struct attention_rig *rig, const struct chunk *chunks, int32_t n_chunks)
{
    const size_t width =
        (size_t)(rig->heads.n_heads + 2 * rig->heads.n_kv_heads) * (size_t)rig->heads.head_dim;
    qd_bf16 *qkv = malloc((size_t)count_tokens(chunks, n_chunks) * width * sizeof *qkv), *row = qkv;
    assert_non_null(qkv);
    for (int32_t i = 0; i < n_chunks; i++) {
        for (int32_t j = 0; j < chunks[i].q_len; j++, row += width) {
            const uint64_t position = (uint64_t)(chunks[i].prior + j);
            random_bf16(row, width, (uint64_t)chunks[i].seq * 100000 + position, 2);
        }
    }
    return qkv;
}

static struct qd_qk_norm_rope_kv_args store_args(const struct attention_rig *rig, const struct qd_step *step,
                                                 const qd_bf16 *qkv, struct qd_kv_layer kv, qd_bf16 *q)
{
    return (struct qd_qk_norm_rope_kv_args){step,
                                            qd_partial_stored(qkv),
                                            rig->q_weight,
                                            rig->k_weight,
                                            eps,
                                            rig->heads.n_heads,
                                            rig->heads.n_kv_heads,
                                            rig->heads.head_dim,
                                            kv,
                                            q};
}

static qd_bf16 *copy_out(const char *what, struct guarded *g)
{
    qd_bf16 *copy = malloc(g->bytes + 1);
    assert_non_null(copy);
    memcpy(copy, g->data, g->bytes);
    guarded_free(what, g);
    return copy;
}

void attention_rig_run(struct attention_rig *rig, const struct chunk *chunks, int32_t n_chunks, qd_bf16 **q,
                       qd_bf16 **out)
{
    const struct heads *h = &rig->heads;
    const size_t bytes = (size_t)count_tokens(chunks, n_chunks) * attention_rig_width(rig) * sizeof(qd_bf16);
    struct qd_step *step = new_step(&rig->deal, chunks, n_chunks);
    qd_bf16 *qkv = attention_rig_qkv(rig, chunks, n_chunks);
    struct guarded q_guard = guarded_alloc(bytes), out_guard = guarded_alloc(bytes);
    const struct qd_plan_args plan = {step, rig->rope, h->n_heads, h->n_kv_heads, h->head_dim};
    const struct qd_qk_norm_rope_kv_args store = store_args(rig, step, qkv, rig->kv, q_guard.data);
    const struct qd_attention_args attention = {step,        q_guard.data, h->n_heads,    h->n_kv_heads,
                                                h->head_dim, rig->kv,      out_guard.data};
    assert_int_equal(qd_device_plan(rig->device, &plan), QD_OK);
    assert_int_equal(qd_device_qk_norm_rope_kv(rig->device, &store), QD_OK);
    assert_int_equal(qd_device_attention(rig->device, &attention), QD_OK);
    *q = copy_out("q_out", &q_guard);
    *out = copy_out("attention", &out_guard);
    free(qkv);
    free(step);
}

void attention_rig_run_ref(struct attention_rig *rig, const struct chunk *chunks, int32_t n_chunks,
                           qd_bf16 **q, qd_bf16 **out)
{
    const struct heads *h = &rig->heads;
    const size_t bytes = (size_t)count_tokens(chunks, n_chunks) * attention_rig_width(rig) * sizeof(qd_bf16);
    struct qd_step *step = new_step(&rig->deal, chunks, n_chunks);
    qd_bf16 *qkv = attention_rig_qkv(rig, chunks, n_chunks);
    *q = malloc(bytes);
    assert_non_null(*q);
    const struct qd_qk_norm_rope_kv_args store = store_args(rig, step, qkv, rig->ref_kv, *q);
    qd_ref_qk_norm_rope_kv(&store, &rig->rope, rig->numerics);
    if (out != NULL) {
        *out = malloc(bytes);
        assert_non_null(*out);
        const struct qd_attention_args attention = {step,        *q,          h->n_heads, h->n_kv_heads,
                                                    h->head_dim, rig->ref_kv, *out};
        qd_ref_attention(&attention, rig->numerics);
    }
    free(qkv);
    free(step);
}

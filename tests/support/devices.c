#include "tests/support/devices.h"

#include "tests/support/memory.h"
#include "tests/support/test.h"

struct qd_model_shape test_shape(int32_t n_heads, int32_t n_kv_heads, int32_t head_dim)
{
    return (struct qd_model_shape){.hidden_dim = 1024,
                                   .ffn_dim = 1024,
                                   .vocab_size = 1031,
                                   .n_layers = 2,
                                   .n_heads = n_heads,
                                   .n_kv_heads = n_kv_heads,
                                   .head_dim = head_dim};
}

static qd_status alone_all_gather(void *ctx, int rank, const void *in, size_t bytes, void *out, char *err,
                                  size_t errlen)
{
    (void)ctx, (void)rank, (void)err, (void)errlen;
    memmove(out, in, bytes);
    return QD_OK;
}

static qd_status alone_barrier(void *ctx, int rank, char *err, size_t errlen)
{
    (void)ctx, (void)rank, (void)err, (void)errlen;
    return QD_OK;
}

static void alone_abort(void *ctx, int rank, const char *phase, const char *reason)
{
    (void)ctx, (void)rank;
    fail_msg("the device aborted in %s: %s", phase, reason);
}

struct qd_device device_open(const struct qd_device_ops *ops, struct setting setting,
                             struct qd_model_shape shape)
{
    const struct qd_bootstrap alone = {
        .world = 1, .all_gather = alone_all_gather, .barrier = alone_barrier, .abort = alone_abort};
    const struct qd_device_config config = {
        .n_ranks = 1,
        .n_threads = setting.n_threads,
        .cpu_isa = setting.isa,
        .numerics = setting.numerics,
        .shape = shape,
        .limits = {.max_tokens = 2048, .max_seqs = 128, .max_blocks = 4096, .max_logit_rows = 2048},
        .max_model_len = 2048};
    struct qd_device device = {.ops = ops};
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(ops->open(&config, &alone, &device.ctx, err, sizeof err), err);
    return device;
}

void device_close(struct qd_device *device)
{
    device->ops->close(device->ctx);
    *device = (struct qd_device){0};
}

bool has_isa(const char *isa)
{
    return strcmp(isa, "avx2") != 0 || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
}

void need_isa(const char *isa)
{
    if (!has_isa(isa)) SKIP("this processor has no AVX2 and FMA");
}

void need_isa_for_model(const char *isa)
{
    need_isa(isa);
    if (IS_SANITIZED && strcmp(isa, "portable") == 0 && has_isa("avx2"))
        SKIP("under a sanitizer whole models run with avx2 alone");
}

struct qd_weight device_weight(struct qd_device device, const qd_bf16 *rows, int64_t n, int64_t k)
{
    char err[QD_ERR_LEN] = "";
    void *data = NULL;
    ASSERT_OK(
        qd_device_alloc(device, device.ops->weight_bytes(n, k, QD_LAYOUT_PACKED), &data, err, sizeof err),
        err);
    memcpy(data, rows, (size_t)(n * k) * sizeof *rows);
    ASSERT_OK(device.ops->pack_weight(data, n, k, err, sizeof err), err);
    return (struct qd_weight){data, n, k, QD_LAYOUT_PACKED};
}

struct qd_kv_layer device_kv(struct qd_device device, int32_t n_kv_blocks, int32_t n_kv_heads,
                             int32_t head_dim)
{
    const size_t n =
        (size_t)2 * (size_t)n_kv_blocks * (size_t)n_kv_heads * QD_KV_BLOCK_SIZE * (size_t)head_dim;
    char err[QD_ERR_LEN] = "";
    void *data = NULL;
    ASSERT_OK(qd_device_alloc(device, n * sizeof(qd_bf16), &data, err, sizeof err), err);
    poison_bf16(data, n);
    return (struct qd_kv_layer){data, n_kv_blocks, n_kv_heads, head_dim};
}

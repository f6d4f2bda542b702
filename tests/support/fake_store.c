#include "tests/support/fake_store.h"

#include <assert.h>
#include <pthread.h>

#include "kernels/ref/ref.h"
#include "tests/support/test.h"

enum { MAX_STAGING = 256 };

struct store {
    unsigned char *data;
    size_t bytes;
    int n_lanes;
    struct qd_store_copy *waiting; /* [n_lanes] n_rows 0: none */
    struct qd_store_stats stats;
};

struct fake_stores fake_stores;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned char *data;
    size_t bytes;
} staging[MAX_STAGING];

void fake_stores_reset(int n_devices)
{
    fake_stores = (struct fake_stores){.n_devices = n_devices, .max_asked = -1};
    for (int i = 0; i < FAKE_MAX_DEVICES; i++)
        fake_stores.memory[i] = (struct qd_device_memory){
            .free_bytes = (size_t)80 << 30, .total_bytes = (size_t)80 << 30, .name = "Fake H100"};
}

static int gpu_of(int global_rank, int ranks_per_gpu)
{
    int gpu = global_rank / (ranks_per_gpu > 0 ? ranks_per_gpu : 1);
    assert(gpu < fake_stores.n_devices); /* a plan that deals out more is wrong */
    return gpu;
}

static qd_status device_of(int global_rank, int n_ranks, int ranks_per_gpu, int *device, char *err, size_t errlen)
{
    (void)n_ranks, (void)err, (void)errlen;
    *device = gpu_of(global_rank, ranks_per_gpu);
    return QD_OK;
}

static qd_status open_store(int device, size_t bytes, int n_lanes, void **out, void **data, char *err,
                            size_t errlen)
{
    (void)device, (void)err, (void)errlen;
    struct store *s = calloc(1, sizeof *s);
    assert_non_null(s);
    *s = (struct store){.data = calloc(1, bytes), .bytes = bytes, .n_lanes = n_lanes};
    s->waiting = calloc((size_t)n_lanes, sizeof *s->waiting);
    assert_true(s->data != NULL && s->waiting != NULL);
    fake_stores.n_open++;
    fake_stores.opened_bytes += bytes;
    *out = s;
    *data = s->data;
    return QD_OK;
}

static void close_store(void *store)
{
    struct store *s = store;
    if (s == NULL) return;
    fake_stores.n_open--;
    free(s->waiting);
    free(s->data);
    free(s);
}

static int64_t row_stride(int64_t n_cols, enum qd_weight_layout layout)
{
    (void)layout;
    return n_cols;
}

static qd_status alloc_staging(size_t bytes, void **out, char *err, size_t errlen)
{
    (void)err, (void)errlen;
    int i = 0;
    while (i < MAX_STAGING && staging[i].data != NULL) i++;
    assert_true(i < MAX_STAGING);
    *out = staging[i].data = malloc(bytes);
    assert_non_null(*out);
    staging[i].bytes = bytes;
    fake_stores.staging_bytes += bytes;
    if (fake_stores.staging_bytes > fake_stores.max_staging_bytes)
        fake_stores.max_staging_bytes = fake_stores.staging_bytes;
    return QD_OK;
}

static void free_staging(void *data)
{
    for (int i = 0; i < MAX_STAGING && data != NULL; i++) {
        if (staging[i].data != data) continue;
        memset(data, 0xff, staging[i].bytes); /* a copy that comes later brings NaN */
        fake_stores.staging_bytes -= staging[i].bytes;
        staging[i].data = NULL;
        free(data);
        return;
    }
}

static bool is_staging(const void *from, size_t bytes)
{
    const unsigned char *at = from;
    for (int i = 0; i < MAX_STAGING; i++)
        if (staging[i].data != NULL && at >= staging[i].data &&
            at + bytes <= staging[i].data + staging[i].bytes)
            return true;
    return false;
}

static qd_status start_copy(void *store, int lane, const struct qd_store_copy *copy, char *err, size_t errlen)
{
    struct store *s = store;
    pthread_mutex_lock(&lock);
    bool fails = ++fake_stores.n_copies == fake_stores.fail_copy;
    pthread_mutex_unlock(&lock);
    if (fails) return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "the fake link broke");
    size_t reach = (copy->n_rows - 1) * copy->from_stride + copy->row_bytes;
    if (lane < 0 || lane >= s->n_lanes || s->waiting[lane].n_rows > 0)
        return qd_fail(QD_ERR_INTERNAL, err, errlen, "lane %d is busy, or is none", lane);
    if (!is_staging(copy->from, reach) || copy->to_stride < copy->row_bytes ||
        copy->from_stride < copy->row_bytes)
        return qd_fail(QD_ERR_INTERNAL, err, errlen, "a copy from elsewhere, or of rows that overlap");
    s->waiting[lane] = *copy;
    return QD_OK;
}

static qd_status wait_lane(void *store, int lane, char *err, size_t errlen)
{
    (void)err, (void)errlen;
    struct store *s = store;
    struct qd_store_copy *c = &s->waiting[lane];
    for (size_t i = 0; i < c->n_rows; i++)
        memcpy((char *)c->to + i * c->to_stride, (const char *)c->from + i * c->from_stride, c->row_bytes);
    pthread_mutex_lock(&lock);
    s->stats.copied_bytes += c->n_rows * c->row_bytes;
    s->stats.copy_ns += c->n_rows > 0;
    pthread_mutex_unlock(&lock);
    c->n_rows = 0;
    return QD_OK;
}

static qd_status fill(void *store, const struct qd_store_fill *args, char *err, size_t errlen)
{
    (void)store, (void)err, (void)errlen;
    qd_ref_fill_uniform(args);
    return QD_OK;
}

static qd_status finish(void *store, struct qd_store_stats *stats, char *err, size_t errlen)
{
    struct store *s = store;
    for (int lane = 0; lane < s->n_lanes; lane++) QD_TRY(wait_lane(s, lane, err, errlen));
    *stats = s->stats;
    return QD_OK;
}

static const struct qd_store_ops store_ops = {
    .device_of = device_of,
    .open = open_store,
    .close = close_store,
    .row_stride = row_stride,
    .alloc_staging = alloc_staging,
    .free_staging = free_staging,
    .copy = start_copy,
    .wait = wait_lane,
    .fill = fill,
    .finish = finish,
};

static size_t weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout)
{
    return qd_ref_ops.weight_bytes(n_rows, n_cols, layout);
}

static qd_status memory(const struct qd_device_config *config, struct qd_device_memory *out, char *err,
                        size_t errlen)
{
    (void)err, (void)errlen;
    int gpu = gpu_of(config->first_rank, config->ranks_per_gpu);
    if (gpu > fake_stores.max_asked) fake_stores.max_asked = gpu;
    *out = fake_stores.memory[gpu];
    out->n_devices = fake_stores.n_devices;
    return QD_OK;
}

static void reserve(const struct qd_device_config *config, int tp, struct qd_device_reserve *out)
{
    out->graph_bytes = config->enforce_eager ? 0 : fake_stores.graph_bytes;
    out->collective_bytes = tp > 1 ? fake_stores.collective_bytes : 0;
}

static qd_status working_bytes(const struct qd_device_config *config, size_t *out, char *err, size_t errlen)
{
    (void)config, (void)err, (void)errlen;
    *out = fake_stores.working_bytes;
    return QD_OK;
}

static bool supports(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                     size_t why_len)
{
    (void)shape, (void)tp, (void)numerics, (void)why, (void)why_len;
    return true;
}

static qd_status alloc_host(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    (void)ctx, (void)out;
    return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no %zu bytes of the fake's", bytes);
}

const struct qd_device_ops fake_store_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "fake stores",
    .executes = true,
    .supports = supports,
    .memory = memory,
    .reserve = reserve,
    .working_bytes = working_bytes,
    .alloc_host = alloc_host, /* planned for, never called */
    .weight_bytes = weight_bytes,
    .store = &store_ops,
};

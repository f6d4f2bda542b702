/* gemm_nt on the CPU: out[M][N] = a[M][K] * w[N][K]^T, w packed in panels of 16 rows (kernels/cpu/cpu.h).
 *
 * Every output element is one chain acc = fma(a[m][k], w[n][k], acc) over rising k from 0, in every tile
 * below, so its bits depend neither on M nor on the number of threads. Threads split panels, and rows where
 * panels are few; never k.
 *
 * `a` is widened to fp32 once, in strips of up to 6 rows; weights are widened in registers as they stream by,
 * so that they cross the memory bus once, as bf16. The product of two bf16 is exact in fp32, so that fused or
 * not makes no difference to a sum.
 *
 * Measured on Zen 3 (2 cores, shared), shapes of Qwen3-0.6B: one thread, 1 and 2 rows at the probed read
 * bandwidth, 6 to 512 rows at 85-97 % of the FMA peak; two threads, 1 row at 84-92 % of the bandwidth, 12 to
 * 64 rows at 84-91 % of the peak.
 */
#include "kernels/cpu/kernels.h"

#include <stdatomic.h>

#include "kernels/base/size.h"

enum {
    PANEL = QD_CPU_PANEL,
    TILE_ROWS = VF_ACCUMULATORS / 2,
    /* up to here each member widens `a` for itself: cheaper than one more region */
    PRIVATE_ROWS = 16,
    /* fp32 values of `a` in work at a time, to stay in the last cache level whatever M is */
    A_BLOCK_FLOATS = 1 << 20,
    /* panels that a strip of `a` meets while it is in the first cache; well inside a second-level cache */
    W_BLOCK_BYTES = 192 << 10,
    /* so many that the last one to finish is late by a few per cent */
    ITEMS_PER_MEMBER = 8,
    /* How far ahead weights are asked for, per stream: measured, DRAM at full speed, with one stream and with
     * several. */
    PREFETCH_BYTES = 2048,
    FAR_PREFETCH_BYTES = 1024,
};

/* The shape of a tile is a constant of each call, which the body must see to keep its sums in registers. */
#define INLINE static inline __attribute__((always_inline))

/* CALL(n) with the constant n that equals `rows`, 1 .. TILE_ROWS. */
#define ROWS_CASE(n, CALL)                                                                                   \
    case n:                                                                                                  \
        if (n <= TILE_ROWS) CALL(n);                                                                         \
        break;
#define SWITCH_ROWS(rows, CALL)                                                                              \
    switch (rows) {                                                                                          \
        ROWS_CASE(1, CALL)                                                                                   \
        ROWS_CASE(2, CALL)                                                                                   \
        ROWS_CASE(3, CALL)                                                                                   \
        ROWS_CASE(4, CALL)                                                                                   \
        ROWS_CASE(5, CALL)                                                                                   \
        ROWS_CASE(6, CALL)                                                                                   \
    }
_Static_assert(TILE_ROWS <= 6, "SWITCH_ROWS has a case for every height of a strip");

/* One pass: rows [row0, row0 + n_rows) of the product. */
struct gemm {
    struct qd_cpu *cpu;
    const struct qd_gemm_nt_args *args;
    const qd_bf16 *w; /* panels */
    int64_t k, n_panels;
    int64_t row0, n_rows, n_strips;
    float *a; /* strips of all rows, shared by the members; NULL: each member makes its own */
    int64_t group, row_parts, n_items; /* panels and shares of the strips that make an item */
    _Atomic int64_t next;              /* item that nobody has taken */
    bool hf;
};

/* Where a tile lies: `row` counts within the pass; far panels are panel, panel + stride, ... */
struct place {
    int64_t row, panel, stride;
};

static float *scratch_floats(const struct qd_cpu *cpu, int member)
{
    return (float *)(void *)cpu->scratch[member];
}

/* Strips differ by at most one row, so that none is much shorter than the accumulators need. */
static int64_t strip_begin(const struct gemm *g, int64_t strip)
{
    return g->n_rows * strip / g->n_strips;
}

/* rows of bf16 -> [k][rows] fp32 */
INLINE void pack_strip(int rows, const qd_bf16 *in, int64_t lda, int64_t n_k, float *out)
{
    for (int64_t k = 0; k < n_k; k++)
        VF_UNROLL
        for (int r = 0; r < rows; r++) out[k * rows + r] = qd_bf16_to_f32(in[r * lda + k]);
}

/* Strips [begin, end) into a + first row * k. */
static void pack_strips(const struct gemm *g, int64_t begin, int64_t end, float *a)
{
    for (int64_t strip = begin; strip < end; strip++) {
        int64_t row = strip_begin(g, strip), lda = g->args->lda;
        const qd_bf16 *in = g->args->a + (g->row0 + row) * lda;
        float *out = a + row * g->k;
#define PACK(n) pack_strip(n, in, lda, g->k, out)
        SWITCH_ROWS(strip_begin(g, strip + 1) - row, PACK)
#undef PACK
    }
}

/* Gate and up of one row of a panel; the last panel may hold n < 8 of each, one after the other. */
static void finish_silu_mul(const struct gemm *g, qd_bf16 *out, int64_t n, vf gate, vf up)
{
    if (n < VF_LANES) {
        float x[PANEL + VF_LANES] = {0};
        vf_store(x, gate);
        vf_store(x + VF_LANES, up);
        up = vf_load(x + n);
    }
    vf product;
    if (g->hf)
        product = vf_mul(vf_round_bf16(vf_silu(vf_round_bf16(gate))), vf_round_bf16(up));
    else
        product = vf_mul(vf_silu(gate), up);
    if (n >= VF_LANES) {
        vf_store_bf16(out, product);
        return;
    }
    qd_bf16 tail[VF_LANES];
    vf_store_bf16(tail, product);
    memcpy(out, tail, (size_t)n * sizeof *out);
}

static void finish_bf16(qd_bf16 *out, int64_t n, vf low, vf high)
{
    qd_bf16 tail[PANEL], *to = n >= PANEL ? out : tail;
    vf_store_bf16(to, low);
    vf_store_bf16(to + VF_LANES, high);
    if (n < PANEL) memcpy(out, tail, (size_t)n * sizeof *out);
}

static void finish_f32(const struct gemm *g, float *out, int64_t n, vf low, vf high)
{
    float tail[PANEL], *to = n >= PANEL ? out : tail;
    vf_store(to, g->hf ? vf_round_bf16(low) : low);
    vf_store(to + VF_LANES, g->hf ? vf_round_bf16(high) : high);
    if (n < PANEL) memcpy(out, tail, (size_t)n * sizeof *out);
}

/* The epilogue of one row of one panel. */
static void finish(const struct gemm *g, int64_t row, int64_t panel, const float *sums)
{
    vf low = vf_load(sums), high = vf_load(sums + VF_LANES);
    const struct qd_gemm_nt_args *args = g->args;
    int64_t n = args->w.n_rows - panel * PANEL, at = (g->row0 + row) * args->ldo;
    switch (args->epilogue) {
    case QD_EPILOGUE_STORE:
    case QD_EPILOGUE_PARTIAL:
        finish_bf16((qd_bf16 *)args->out + at + panel * PANEL, n, low, high);
        break;
    case QD_EPILOGUE_STORE_F32:
        finish_f32(g, (float *)args->out + at + panel * PANEL, n, low, high);
        break;
    case QD_EPILOGUE_SILU_MUL:
        finish_silu_mul(g, (qd_bf16 *)args->out + at + panel * (PANEL / 2), n / 2, low, high);
        break;
    }
}

/* rows x (panels * 16) outputs from one strip; `ahead` bytes of weights are asked for early (0: none) */
INLINE void tile(const struct gemm *g, int rows, int panels, struct place at, const float *a, int64_t ahead)
{
    vf acc[TILE_ROWS][2];
    const qd_bf16 *w = g->w + at.panel * PANEL * g->k;
    int64_t n_k = g->k, step = at.stride * PANEL * n_k;
    VF_UNROLL
    for (int i = 0; i < rows * panels; i++) acc[i][0] = acc[i][1] = vf_zero();
    for (int64_t k = 0; k < n_k; k++, a += rows, w += PANEL)
        VF_UNROLL
        for (int p = 0; p < panels; p++) {
            vf low, high;
            __builtin_prefetch((const unsigned char *)(w + p * step) + ahead);
            vf_load_bf16_pairs(w + p * step, &low, &high);
            VF_UNROLL
            for (int r = 0; r < rows; r++) {
                vf x = vf_set1(a[r]);
                acc[r * panels + p][0] = vf_fma(x, low, acc[r * panels + p][0]);
                acc[r * panels + p][1] = vf_fma(x, high, acc[r * panels + p][1]);
            }
        }
    /* through memory, so that only unrolled loops index the accumulators and they stay in registers */
    float sums[TILE_ROWS][PANEL];
    VF_UNROLL
    for (int i = 0; i < rows * panels; i++) {
        vf_store(sums[i], acc[i][0]);
        vf_store(sums[i] + VF_LANES, acc[i][1]);
    }
    for (int i = 0; i < rows * panels; i++)
        finish(g, at.row + i / panels, at.panel + i % panels * at.stride, sums[i]);
}

/* One strip with one panel. */
static void strip_tile(const struct gemm *g, int64_t strip, int64_t panel, const float *a, int64_t ahead)
{
    struct place at = {strip_begin(g, strip), panel, 0};
    a += at.row * g->k;
#define TILE(n) tile(g, n, 1, at, a, ahead)
    SWITCH_ROWS(strip_begin(g, strip + 1) - at.row, TILE)
#undef TILE
}

/* One or two rows need several panels at a time: for chains enough to hide the latency of an FMA, and as
 * separate streams from DRAM. The shares of the members are fixed, so that each stream is long. */
static void multiply_few(const struct gemm *g, int member, int n_members, const float *a)
{
    enum { FAR_1 = VF_ACCUMULATORS / 3, FAR_2 = VF_ACCUMULATORS / 6 };
    int64_t panel, end, panels = g->n_rows == 1 ? FAR_1 : FAR_2;
    qd_team_split(g->n_panels, 1, member, n_members, &panel, &end);
    int64_t stride = (end - panel) / panels;
    for (int64_t i = 0; i < stride; i++) {
        struct place at = {0, panel + i, stride};
        if (g->n_rows == 1)
            tile(g, 1, FAR_1, at, a, FAR_PREFETCH_BYTES);
        else
            tile(g, 2, FAR_2, at, a, FAR_PREFETCH_BYTES);
    }
    for (panel += panels * stride; panel < end; panel++) strip_tile(g, 0, panel, a, PREFETCH_BYTES);
}

/* Item `item` of the pass: a group of panels by a share of the strips. */
static void multiply_item(const struct gemm *g, int64_t item, const float *a)
{
    int64_t panel = item / g->row_parts * g->group, part = item % g->row_parts;
    int64_t panel_end = panel + g->group < g->n_panels ? panel + g->group : g->n_panels;
    int64_t first = g->n_strips * part / g->row_parts, end = g->n_strips * (part + 1) / g->row_parts;
    for (int64_t strip = first; strip < end; strip++)
        for (int64_t p = panel; p < panel_end; p++)
            strip_tile(g, strip, p, a, strip == first ? PREFETCH_BYTES : 0);
}

/* A member's part of the pass. Members take items as they get to them: one that the system interrupts delays
 * the others by an item, not by its whole share. */
static void multiply(void *arg, int member, int n_members)
{
    struct gemm *g = arg;
    const float *a = g->a;
    if (a == NULL) {
        float *own = scratch_floats(g->cpu, member);
        pack_strips(g, 0, g->n_strips, own);
        a = own;
    }
    if (g->n_rows <= 2) {
        multiply_few(g, member, n_members, a);
        return;
    }
    for (int64_t item; (item = atomic_fetch_add_explicit(&g->next, 1, memory_order_relaxed)) < g->n_items;)
        multiply_item(g, item, a);
}

static void share_a(void *arg, int member, int n_members)
{
    const struct gemm *g = arg;
    int64_t begin, end;
    qd_team_split(g->n_strips, 1, member, n_members, &begin, &end);
    pack_strips(g, begin, end, g->a);
}

/* Items of panels that fit the cache, and several for each member; rows are split only where panels are too
 * few, because each share of the rows reads the weights again. */
static void choose_items(struct gemm *g, int n_members)
{
    int64_t wanted = (int64_t)n_members * ITEMS_PER_MEMBER;
    g->group = W_BLOCK_BYTES / (PANEL * (int64_t)sizeof(qd_bf16)) / g->k;
    if (g->group > g->n_panels / wanted) g->group = g->n_panels / wanted;
    if (g->group < 1) g->group = 1;
    int64_t groups = qd_div_up(g->n_panels, g->group);
    g->row_parts = groups < n_members ? qd_div_up(wanted, groups) : 1;
    if (g->row_parts > g->n_strips) g->row_parts = g->n_strips;
    g->n_items = groups * g->row_parts;
    atomic_store_explicit(&g->next, 0, memory_order_relaxed);
}

/* Rows of a pass: as many as the scratch holds of fp32 `a`, within A_BLOCK_FLOATS. */
static int64_t rows_per_pass(const struct qd_cpu *cpu, int64_t k)
{
    size_t floats = cpu->scratch_bytes / sizeof(float);
    if (floats > A_BLOCK_FLOATS) floats = A_BLOCK_FLOATS;
    return (int64_t)floats / k / TILE_ROWS * TILE_ROWS;
}

static qd_status check(const struct qd_gemm_nt_args *args)
{
    if (args->w.layout != QD_LAYOUT_PACKED) return QD_ERR_UNSUPPORTED;
    if (args->m < 0 || args->w.n_rows < 0 || args->w.n_cols < 1) return QD_ERR_ARGUMENT;
    if (args->epilogue == QD_EPILOGUE_SILU_MUL && args->w.n_rows % 2 != 0) return QD_ERR_ARGUMENT;
    return QD_OK;
}

/* Packed weights only; an empty shard (no rows) stores nothing. QD_ERR_TOO_LARGE when the scratch does not
 * hold one strip of `a`. */
qd_status QD_CPU_FN(qd_cpu_gemm_nt)(struct qd_cpu *cpu, const struct qd_gemm_nt_args *args)
{
    QD_TRY(check(args));
    struct gemm g = {.cpu = cpu, .args = args, .w = args->w.data, .k = args->w.n_cols};
    g.n_panels = qd_div_up(args->w.n_rows, PANEL);
    g.hf = cpu->config.numerics == QD_NUMERICS_HF;
    int64_t rows = rows_per_pass(cpu, g.k);
    if (rows == 0) return QD_ERR_TOO_LARGE;
    for (g.row0 = 0; g.row0 < args->m && g.n_panels > 0; g.row0 += rows) {
        g.n_rows = args->m - g.row0 < rows ? args->m - g.row0 : rows;
        g.n_strips = qd_div_up(g.n_rows, TILE_ROWS);
        g.a = NULL;
        choose_items(&g, qd_team_size(cpu->team));
        if (g.n_rows > PRIVATE_ROWS) {
            g.a = scratch_floats(cpu, 0);
            qd_team_run(cpu->team, share_a, &g);
        }
        qd_team_run(cpu->team, multiply, &g);
    }
    return QD_OK;
}

size_t QD_CPU_FN(qd_cpu_gemm_nt_scratch)(const struct qd_device_config *config)
{
    const struct qd_model_shape *shape = &config->shape;
    int64_t k = (int64_t)shape->n_heads * shape->head_dim;
    if (k < shape->hidden_dim) k = shape->hidden_dim;
    if (k < shape->ffn_dim) k = shape->ffn_dim;
    int64_t rows = config->limits.max_tokens;
    if (rows < config->limits.max_logit_rows) rows = config->limits.max_logit_rows;
    size_t floats = A_BLOCK_FLOATS;
    if (k < 1 || rows < 1) return 0;
    if (k < A_BLOCK_FLOATS && rows < A_BLOCK_FLOATS)
        floats = qd_round_up((size_t)rows, TILE_ROWS) * (size_t)k;
    return (floats < A_BLOCK_FLOATS ? floats : A_BLOCK_FLOATS) * sizeof(float);
}

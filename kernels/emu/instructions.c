/* Models of the PTX instructions, as the PTX ISA manual describes them; lane l = 4 * group + quad. */
#include "kernels/emu/block.h"

#include <math.h>
#include <string.h>

enum { MMA_M = 16, MMA_N = 8, MMA_K = 16, ROW_ELEMENTS = 8, ROW_BYTES = 16 };

/* A bf16 is the upper half of one. */
static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void whole_warp(const char *what, struct qd_emu_site site)
{
    const struct warp *w = current_thread()->warp;
    if (w->existing != QD_EMU_FULL_WARP) qd_emu_fail(site, "%s in a warp of lanes %08x", what, w->existing);
}

/* ---- mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 ---- */

struct mma {
    float *d;          /* [4] {[g][2q], [g][2q+1], [g+8][2q], [g+8][2q+1]}, in and out */
    const uint32_t *a; /* [4] {[g][2q..], [g+8][2q..], [g][2q+8..], [g+8][2q+8..]} */
    const uint32_t *b; /* [2] {[k=2q..][n=g], [k=2q+8..][n=g]} */
};

typedef float row_f32 __attribute__((vector_size(MMA_N * sizeof(float))));

struct mma_matrices {
    float a[MMA_M][MMA_K];
    row_f32 b[MMA_K], d[MMA_M];
};

static void gather(const struct warp *w, struct mma_matrices *m)
{
    for (int l = 0; l < QD_EMU_WARP_SIZE; l++) {
        const struct mma *from = w->args[l];
        int g = l / 4, c = l % 4 * 2;
        for (int i = 0; i < 4; i++) {
            m->a[g + i % 2 * 8][c + i / 2 * 8] = float_of(from->a[i] << 16);
            m->a[g + i % 2 * 8][c + i / 2 * 8 + 1] = float_of(from->a[i] & 0xffff0000u);
            m->d[g + i / 2 * 8][c + i % 2] = from->d[i];
        }
        for (int i = 0; i < 2; i++) {
            m->b[c + i * 8][g] = float_of(from->b[i] << 16);
            m->b[c + i * 8 + 1][g] = float_of(from->b[i] & 0xffff0000u);
        }
    }
}

static void scatter(const struct mma_matrices *m, const struct warp *w)
{
    for (int l = 0; l < QD_EMU_WARP_SIZE; l++) {
        const struct mma *to = w->args[l];
        for (int i = 0; i < 4; i++) to->d[i] = m->d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
    }
}

static void multiply_f32(struct mma_matrices *m)
{
    for (int i = 0; i < MMA_M; i++) {
        row_f32 sums = m->d[i];
        for (int k = 0; k < MMA_K; k++) sums += m->a[i][k] * m->b[k];
        m->d[i] = sums;
    }
}

static void multiply_f64(struct mma_matrices *m)
{
    for (int i = 0; i < MMA_M; i++) {
        double sums[MMA_N];
        for (int j = 0; j < MMA_N; j++) sums[j] = m->d[i][j];
        for (int k = 0; k < MMA_K; k++)
            for (int j = 0; j < MMA_N; j++) sums[j] += (double)m->a[i][k] * m->b[k][j];
        for (int j = 0; j < MMA_N; j++) m->d[i][j] = (float)sums[j];
    }
}

static void execute_mma(struct warp *w)
{
    struct run *run = qd_emu_worker->run;
    struct mma_matrices m;
    gather(w, &m);
    if (run->mode.mma_sum == QD_EMU_MMA_SUM_F64)
        multiply_f64(&m);
    else
        multiply_f32(&m);
    scatter(&m, w);
    run->counters.mma++;
}

void qd_emu_mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], struct qd_emu_site site)
{
    whole_warp("mma", site);
    struct mma registers = {d, a, b};
    qd_emu_collective(QD_EMU_FULL_WARP, "mma", &registers, execute_mma, site);
}

/* ---- ldmatrix.sync.aligned.m8n8.x{1,2,4}[.trans].shared.b16 ---- */

struct ldmatrix {
    uint32_t *registers;
    const uint16_t *row; /* NULL: the lane's address is not used */
    unsigned n_matrices;
    bool transposed;
};

static void execute_ldmatrix(struct warp *w)
{
    for (int l = 0; l < QD_EMU_WARP_SIZE; l++) {
        const struct ldmatrix *to = w->args[l];
        int g = l / 4, c = l % 4 * 2;
        for (unsigned i = 0; i < to->n_matrices; i++) {
            const struct ldmatrix *const *row = (const struct ldmatrix *const *)&w->args[8 * i];
            uint32_t low = to->transposed ? row[c]->row[g] : row[g]->row[c];
            uint32_t high = to->transposed ? row[c + 1]->row[g] : row[g]->row[c + 1];
            to->registers[i] = low | high << 16;
        }
    }
    uint32_t address[QD_EMU_WARP_SIZE] = {0};
    const unsigned n_rows = ROW_ELEMENTS * ((const struct ldmatrix *)w->args[0])->n_matrices;
    for (unsigned l = 0; l < n_rows; l++)
        address[l] = (uint32_t)(uintptr_t)((const struct ldmatrix *)w->args[l])->row;
    struct run *run = qd_emu_worker->run;
    qd_emu_count_shared(run, QD_EMU_FULL_WARP >> (QD_EMU_WARP_SIZE - n_rows), address, ROW_BYTES);
    run->counters.ldmatrix++;
}

void qd_emu_ldmatrix(uint32_t *registers, unsigned n_matrices, bool transposed, uint32_t row,
                     struct qd_emu_site site)
{
    whole_warp("ldmatrix", site);
    struct ldmatrix m = {.registers = registers, .n_matrices = n_matrices, .transposed = transposed};
    if (current_thread()->self.lane < n_matrices * ROW_ELEMENTS) {
        m.row = qd_emu_shared_pointer(row, ROW_BYTES, "ldmatrix", site);
        qd_emu_touch_read(m.row, ROW_BYTES);
    }
    qd_emu_collective(QD_EMU_FULL_WARP, "ldmatrix", &m, execute_ldmatrix, site);
}

/* ---- one thread's ---- */

float qd_emu_exp2_approx(float x)
{
    float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y; /* .ftz; NaN stays */
}

/* Nearest even; every NaN becomes 0x7fff, as on the GPU. */
static uint32_t bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

uint32_t qd_emu_pack_bf16(float low, float high)
{
    return bf16_of(low) | bf16_of(high) << 16;
}

uint4 qd_emu_load_weight_16(const void *p, struct qd_emu_site site)
{
    if ((uintptr_t)p % sizeof(uint4)) qd_emu_fail(site, "ld.global.nc.v4: %p is not 16-byte aligned", p);
    qd_emu_note_load(sizeof(uint4));
    qd_emu_touch_read(p, sizeof(uint4));
    return *(const uint4 *)p;
}

void qd_emu_store_release(uint32_t *p, uint32_t value)
{
    qd_emu_order_before(p);
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
    qd_emu_note_progress();
}

uint32_t qd_emu_load_acquire(const uint32_t *p, struct qd_emu_site site)
{
    qd_emu_spin(site);
    uint32_t value = __atomic_load_n(p, __ATOMIC_ACQUIRE);
    qd_emu_order_after((void *)(uintptr_t)p);
    return value;
}

/* ThreadSanitizer knows no fences; as any two may pair up, all of them order each other. */
static char fences;

void qd_emu_fence(void)
{
    qd_emu_order_after(&fences);
    qd_emu_order_before(&fences);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

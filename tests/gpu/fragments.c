/* Which element of a matrix is in which register of which lane, one element at a time, against tables that
 * are drawn here as the PTX manual draws them: nothing is computed from a lane's number.
 */
#include "tests/gpu/fragments.h"

#include "tests/gpu/runner.h"

/* The lane that holds each element of an 8x8 matrix of which lanes hold pairs along a row (mma: a, d;
 * ldmatrix), and pairs down a column (mma: b; ldmatrix with _trans). */
static const int LANE_OF_ROW_PAIRS[8][8] = {
    {0, 0, 1, 1, 2, 2, 3, 3},         {4, 4, 5, 5, 6, 6, 7, 7},         {8, 8, 9, 9, 10, 10, 11, 11},
    {12, 12, 13, 13, 14, 14, 15, 15}, {16, 16, 17, 17, 18, 18, 19, 19}, {20, 20, 21, 21, 22, 22, 23, 23},
    {24, 24, 25, 25, 26, 26, 27, 27}, {28, 28, 29, 29, 30, 30, 31, 31},
};
static const int LANE_OF_COLUMN_PAIRS[8][8] = {
    {0, 4, 8, 12, 16, 20, 24, 28},  {0, 4, 8, 12, 16, 20, 24, 28},  {1, 5, 9, 13, 17, 21, 25, 29},
    {1, 5, 9, 13, 17, 21, 25, 29},  {2, 6, 10, 14, 18, 22, 26, 30}, {2, 6, 10, 14, 18, 22, 26, 30},
    {3, 7, 11, 15, 19, 23, 27, 31}, {3, 7, 11, 15, 19, 23, 27, 31},
};
/* The first register of each 8x8 part of a (16x16), b (16x8) and d (16x8). */
static const int A_REGISTER[2][2] = {{0, 2}, {1, 3}}, B_REGISTER[2] = {0, 1}, D_REGISTER[2] = {0, 2};

enum { M = 16, N = 8, K = 16 };

/* Where an element is: half 1 is the upper one of a packed register. */
struct place {
    int lane, reg, half;
};

static struct place place_of_a(int m, int k)
{
    return (struct place){LANE_OF_ROW_PAIRS[m % 8][k % 8], A_REGISTER[m / 8][k / 8], k % 2};
}

static struct place place_of_b(int k, int n)
{
    return (struct place){LANE_OF_COLUMN_PAIRS[k % 8][n], B_REGISTER[k / 8], k % 2};
}

/* d is not packed: neighbours are in registers next to each other. */
static struct place place_of_d(int m, int n)
{
    return (struct place){LANE_OF_ROW_PAIRS[m % 8][n], D_REGISTER[m / 8] + n % 2, 0};
}

static void put(uint32_t *registers, int per_lane, struct place at, float value)
{
    registers[at.lane * per_lane + at.reg] |= (uint32_t)qd_bf16_from_f32(value) << (16 * at.half);
}

/* Small integers, exact as bf16 and in every sum. */
static float a_value(int m, int k)
{
    return (float)(1 + 16 * m + k);
}
static float b_value(int k, int n)
{
    return (float)(1 + 8 * k + n);
}
static float d_value(int m, int n)
{
    return (float)(1000 + 8 * m + n);
}

/* One matrix product a case. */
struct products {
    int n_cases;
    uint32_t *a, *b; /* [n_cases][32][4], [n_cases][32][2] */
    float *d;        /* [n_cases][32][4] */
};

static struct products new_products(int n_cases)
{
    const size_t lanes = (size_t)n_cases * FRAGMENT_LANES;
    struct products p = {n_cases, gpu_host_alloc(lanes * 16), gpu_host_alloc(lanes * 8),
                         gpu_host_alloc(lanes * 16)};
    memset(p.a, 0, lanes * 16);
    memset(p.b, 0, lanes * 8);
    for (int c = 0; c < n_cases; c++)
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                const struct place at = place_of_d(m, n);
                p.d[(c * FRAGMENT_LANES + at.lane) * 4 + at.reg] = d_value(m, n);
            }
    return p;
}

static uint32_t *a_of(const struct products *p, int c)
{
    return p->a + c * FRAGMENT_LANES * 4;
}

static uint32_t *b_of(const struct products *p, int c)
{
    return p->b + c * FRAGMENT_LANES * 2;
}

static void multiply(const struct products *p)
{
    const size_t lanes = (size_t)p->n_cases * FRAGMENT_LANES;
    const struct fragment_mma args = {p->n_cases, gpu_upload(p->a, lanes * 16), gpu_upload(p->b, lanes * 8),
                                      gpu_upload(p->d, lanes * 16)};
    GPU_LAUNCH(fragment_mma, &args);
    gpu_download(p->d, args.d, lanes * 16);
}

static void expect_d(const struct products *p, int c, int m, int n, float want)
{
    const struct place at = place_of_d(m, n);
    const float got = p->d[(c * FRAGMENT_LANES + at.lane) * 4 + at.reg];
    GPU_EXPECT(got == want, "case %d: d[%d][%d]: got %g, want %g", c, m, n, (double)got, (double)want);
}

/* a has a 1 at (m, k) only: row m of d gains row k of b. */
static void mma_places_every_element_of_a(void)
{
    const struct products p = new_products(M * K);
    for (int c = 0; c < p.n_cases; c++) {
        put(a_of(&p, c), 4, place_of_a(c / K, c % K), 1.0f);
        for (int k = 0; k < K; k++)
            for (int n = 0; n < N; n++) put(b_of(&p, c), 2, place_of_b(k, n), b_value(k, n));
    }
    multiply(&p);
    for (int c = 0; c < p.n_cases; c++)
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++)
                expect_d(&p, c, m, n, d_value(m, n) + (m == c / K ? b_value(c % K, n) : 0.0f));
}

/* b has a 1 at (k, n) only: column n of d gains column k of a. */
static void mma_places_every_element_of_b(void)
{
    const struct products p = new_products(K * N);
    for (int c = 0; c < p.n_cases; c++) {
        put(b_of(&p, c), 2, place_of_b(c / N, c % N), 1.0f);
        for (int m = 0; m < M; m++)
            for (int k = 0; k < K; k++) put(a_of(&p, c), 4, place_of_a(m, k), a_value(m, k));
    }
    multiply(&p);
    for (int c = 0; c < p.n_cases; c++)
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++)
                expect_d(&p, c, m, n, d_value(m, n) + (n == c % N ? a_value(m, c / N) : 0.0f));
}

/* The value at column `column` of row `row` of the tile in shared memory: all differ, none is 0. */
static uint16_t tile_value(int row, int column)
{
    return (uint16_t)(0x0101 * (1 + row) + 0x1000 * column);
}

/* Lanes name rows in an order without a system: lane 8i + r that of row r of matrix i. */
static const int32_t ROW_OF[FRAGMENT_LANES] = {19, 4,  27, 8, 0,  31, 12, 22, 5,  16, 29, 2,  25, 10, 7,  20,
                                               30, 13, 1,  9, 24, 17, 6,  28, 11, 3,  21, 26, 14, 18, 23, 15};

static void check_ldmatrix(enum fragment_load load, int n_matrices)
{
    const int(*lane_of)[8] = load == FRAGMENT_X4_TRANS ? LANE_OF_COLUMN_PAIRS : LANE_OF_ROW_PAIRS;
    uint16_t tile[FRAGMENT_LANES][8];
    uint32_t got[FRAGMENT_LANES][4];
    for (int row = 0; row < FRAGMENT_LANES; row++)
        for (int column = 0; column < 8; column++) tile[row][column] = tile_value(row, column);
    const struct fragment_ldmatrix args = {load, gpu_upload(tile, sizeof tile),
                                           gpu_upload(ROW_OF, sizeof ROW_OF), gpu_alloc(sizeof got)};
    GPU_LAUNCH(fragment_ldmatrix, &args);
    gpu_download(got, args.registers, sizeof got);
    for (int i = 0; i < n_matrices; i++)
        for (int row = 0; row < 8; row++)
            for (int column = 0; column < 8; column++) {
                const int half = load == FRAGMENT_X4_TRANS ? row % 2 : column % 2,
                          lane = lane_of[row][column];
                const uint16_t value = (uint16_t)(got[lane][i] >> (16 * half));
                const uint16_t want = tile_value(ROW_OF[8 * i + row], column);
                GPU_EXPECT(value == want, "matrix %d [%d][%d] in lane %d: got 0x%04x, want 0x%04x", i, row,
                           column, lane, value, want);
            }
}

static void ldmatrix_places_every_element(void)
{
    check_ldmatrix(FRAGMENT_X1, 1);
    check_ldmatrix(FRAGMENT_X2, 2);
    check_ldmatrix(FRAGMENT_X4, 4);
}

static void ldmatrix_trans_places_every_element(void)
{
    check_ldmatrix(FRAGMENT_X4_TRANS, 4);
}

/* The first argument is in the lower half; ties go to the even neighbour; nothing is flushed. */
static void pack_bf16_rounds_both_halves(void)
{
    static const struct {
        float low, high;
        uint32_t want;
    } cases[] = {
        {1.0f, -2.0f, 0xc0003f80u},
        {0.0f, -0.0f, 0x80000000u},
        {1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 0x3f823f80u},       /* ties */
        {1.0f + 0x1.02p-8f, 1.0f + 0x1.fep-9f, 0x3f803f81u}, /* just above and below one */
        {-1.0f - 0x1p-8f, -1.0f - 0x1.02p-8f, 0xbf81bf80u},  /* as above, negative */
        {0x1.ffp127f, 0x1.fep127f, 0x7f7f7f80u},             /* to infinity, the largest */
        {__builtin_inff(), -__builtin_inff(), 0xff807f80u},  /* as they are */
        {0x1p-133f, 0x1.8p-133f, 0x00020001u},               /* the smallest; a tie between 1 and 2 of it */
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    float low[COUNT], high[COUNT];
    uint32_t got[COUNT];
    for (int i = 0; i < COUNT; i++) {
        low[i] = cases[i].low;
        high[i] = cases[i].high;
    }
    const struct fragment_pack args = {COUNT, gpu_upload(low, sizeof low), gpu_upload(high, sizeof high),
                                       gpu_alloc(sizeof got)};
    GPU_LAUNCH(fragment_pack, &args);
    gpu_download(got, args.packed, sizeof got);
    for (int i = 0; i < COUNT; i++)
        GPU_EXPECT(got[i] == cases[i].want, "case %d: got 0x%08x, want 0x%08x", i, got[i], cases[i].want);
}

/* NaN keeps its place and becomes the one NaN there is. */
static void pack_bf16_keeps_nan(void)
{
    const float low[2] = {__builtin_nanf(""), 1.0f}, high[2] = {1.0f, -__builtin_nanf("")};
    uint32_t got[2];
    const struct fragment_pack args = {2, gpu_upload(low, sizeof low), gpu_upload(high, sizeof high),
                                       gpu_alloc(sizeof got)};
    GPU_LAUNCH(fragment_pack, &args);
    gpu_download(got, args.packed, sizeof got);
    GPU_EXPECT(got[0] == 0x3f807fffu && got[1] == 0x7fff3f80u, "got 0x%08x 0x%08x", got[0], got[1]);
}

/* src_bytes from the source, zeros after; the lane that reads is not the one that copied. */
static void cp_async_16_fills_with_zeros(void)
{
    static const uint32_t sizes[] = {0, 4, 8, 16};
    unsigned char from[FRAGMENT_LANES][16], got[FRAGMENT_LANES][16];
    uint32_t src_bytes[FRAGMENT_LANES];
    for (int lane = 0; lane < FRAGMENT_LANES; lane++) {
        src_bytes[lane] = sizes[lane % 4];
        for (int i = 0; i < 16; i++) from[lane][i] = (unsigned char)(1 + 7 * lane + i); /* 1 .. 233 */
    }
    const struct fragment_copy args = {gpu_upload(from, sizeof from), gpu_upload(src_bytes, sizeof src_bytes),
                                       gpu_alloc(sizeof got)};
    GPU_LAUNCH(fragment_copy, &args);
    gpu_download(got, args.arrived, sizeof got);
    for (int lane = 0; lane < FRAGMENT_LANES; lane++)
        for (uint32_t i = 0; i < 16; i++) {
            const unsigned char want = i < src_bytes[lane] ? from[lane][i] : 0;
            GPU_EXPECT(got[lane][i] == want, "lane %d of %u bytes, byte %u: got %d, want %d", lane,
                       src_bytes[lane], i, got[lane][i], want);
        }
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"mma_places_every_element_of_a", mma_places_every_element_of_a},
        {"mma_places_every_element_of_b", mma_places_every_element_of_b},
        {"ldmatrix_places_every_element", ldmatrix_places_every_element},
        {"ldmatrix_trans_places_every_element", ldmatrix_trans_places_every_element},
        {"pack_bf16_rounds_both_halves", pack_bf16_rounds_both_halves},
        {"pack_bf16_keeps_nan", pack_bf16_keeps_nan},
        {"cp_async_16_fills_with_zeros", cp_async_16_fills_with_zeros},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

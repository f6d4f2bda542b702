/* The planner of paged attention, host code only: every (token, head) once, parts disjoint and merged in
 * order, longest work first, and never more than the capacities promise, for random legal steps under random
 * limits. */
#include "kernels/cuda/attention.h"

#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "tests/gpu/runner.h"

enum {
    N_CASES = 800, /* the runner keeps what a test allocates to its end, 4096 pieces at most */
    MAX_TOKENS = 700,
    MAX_SEQS = 40,
    MAX_BLOCKS = 900,
    MIN_PART_KEYS = 128,
    GUARD_BYTES = 64,
};

/* Random numbers of one case, drawn in order. */
struct draws {
    uint64_t key, n;
};

/* In [low, high]. */
static int32_t draw(struct draws *d, int32_t low, int32_t high)
{
    return low + (int32_t)(qd_philox(d->key, 0, d->n++).word[0] % (uint32_t)(high - low + 1));
}

/* A step and what is to be expected of its plan. */
struct plan_case {
    struct qd_cuda_attention_config config;
    struct qd_step_limits step_limits;
    struct qd_cuda_attention_limits limits;
    int32_t n_seqs;
    int32_t q_len[MAX_SEQS], kv_len[MAX_SEQS];
    const struct qd_step *step;
    const struct qd_cuda_attention_plan *plan;
};

static int32_t pages_of(int32_t n_keys)
{
    return (int32_t)qd_div_up(n_keys, QD_KV_BLOCK_SIZE);
}

static void add_sequence(struct plan_case *c, int32_t q_len, int32_t kv_len)
{
    c->q_len[c->n_seqs] = q_len;
    c->kv_len[c->n_seqs++] = kv_len;
}

static int32_t sum_of(const int32_t *x, int32_t n)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

/* The arrays of a step that the planner reads. */
static void write_step(struct plan_case *c)
{
    struct qd_step *step = gpu_host_alloc(qd_step_capacity(&c->step_limits));
    int32_t n_blocks = 0;
    for (int32_t s = 0; s < c->n_seqs; s++) n_blocks += pages_of(c->kv_len[s]);
    GPU_EXPECT(qd_step_begin(step, &c->step_limits, sum_of(c->q_len, c->n_seqs), c->n_seqs, n_blocks, 0) ==
                   QD_OK,
               "the step exceeds its limits");
    qd_step_cu_seqlens_q(step)[0] = qd_step_block_offset(step)[0] = 0;
    for (int32_t s = 0; s < c->n_seqs; s++) {
        qd_step_cu_seqlens_q(step)[s + 1] = qd_step_cu_seqlens_q(step)[s] + c->q_len[s];
        qd_step_block_offset(step)[s + 1] = qd_step_block_offset(step)[s] + pages_of(c->kv_len[s]);
        qd_step_kv_len(step)[s] = c->kv_len[s];
    }
    c->step = step;
}

/* Plans the case in a buffer of just the promised size; the bytes behind it must stay. */
static void make_plan(struct plan_case *c)
{
    const size_t bytes = qd_cuda_attention_plan_bytes(&c->limits);
    unsigned char *buffer = gpu_host_alloc(bytes + GUARD_BYTES);
    char err[QD_ERR_LEN] = "";
    memset(buffer, 0xa5, bytes + GUARD_BYTES);
    struct qd_cuda_attention_plan *plan = (void *)buffer;
    write_step(c);
    GPU_EXPECT(qd_cuda_attention_plan(&c->config, &c->limits, c->step, plan, err, sizeof err) == QD_OK, "%s",
               err);
    for (size_t i = 0; i < GUARD_BYTES; i++)
        GPU_EXPECT(buffer[bytes + i] == 0xa5, "byte %zu behind the plan", i);
    GPU_EXPECT(plan->used_bytes <= bytes, "%llu bytes used of %zu", (unsigned long long)plan->used_bytes,
               bytes);
    c->plan = plan;
}

static const struct qd_cuda_prefill_item *prefill_of(const struct plan_case *c)
{
    return (const void *)((const char *)c->plan + c->plan->prefill);
}

static const struct qd_cuda_decode_item *decode_of(const struct plan_case *c)
{
    return (const void *)((const char *)c->plan + c->plan->decode);
}

static const struct qd_cuda_merge_item *merge_of(const struct plan_case *c)
{
    return (const void *)((const char *)c->plan + c->plan->merge);
}

static void plan_within_capacity(struct plan_case *c)
{
    c->limits = qd_cuda_attention_capacity(&c->config, &c->step_limits);
    make_plan(c);
}

static bool goes_to_decode(const struct plan_case *c, int32_t seq)
{
    return c->q_len[seq] == 1 && !c->config.batch_invariant;
}

/* Every row of a chunk belongs to one tile of each head. */
static void check_prefill(const struct plan_case *c)
{
    const int32_t n_heads = c->config.n_heads;
    int32_t *covered = gpu_host_alloc((size_t)(c->step->n_tokens * n_heads) * sizeof *covered);
    memset(covered, 0, (size_t)(c->step->n_tokens * n_heads) * sizeof *covered);
    int32_t last_keys = INT32_MAX;
    for (int32_t i = 0; i < c->plan->n_prefill; i++) {
        const struct qd_cuda_prefill_item *item = &prefill_of(c)[i];
        GPU_EXPECT(item->seq >= 0 && item->seq < c->n_seqs && !goes_to_decode(c, item->seq), "tile %d", i);
        GPU_EXPECT(item->head >= 0 && item->head < n_heads, "tile %d is of head %d", i, item->head);
        const int32_t q_len = c->q_len[item->seq];
        GPU_EXPECT(item->q_begin % 128 == 0 && item->q_begin < q_len, "tile %d begins at %d", i,
                   item->q_begin);
        const int32_t end = item->q_begin + 128 < q_len ? item->q_begin + 128 : q_len;
        const int32_t keys = c->kv_len[item->seq] - q_len + end;
        GPU_EXPECT(keys <= last_keys, "tile %d reads more keys than the one before it", i);
        last_keys = keys;
        for (int32_t q = item->q_begin; q < end; q++)
            covered[(qd_step_cu_seqlens_q(c->step)[item->seq] + q) * n_heads + item->head]++;
    }
    for (int32_t s = 0; s < c->n_seqs; s++)
        for (int32_t q = 0; q < c->q_len[s] * n_heads; q++)
            GPU_EXPECT(covered[qd_step_cu_seqlens_q(c->step)[s] * n_heads + q] == !goes_to_decode(c, s),
                       "row and head %d of sequence %d", q, s);
}

/* Every page of a decode belongs to one item of each KV head. covered: [seqs][Hkv][pages] */
static void check_decode(const struct plan_case *c)
{
    const int32_t n_kv_heads = c->config.n_kv_heads;
    const size_t bytes = (size_t)(c->n_seqs * n_kv_heads) * MAX_BLOCKS;
    unsigned char *covered = gpu_host_alloc(bytes);
    memset(covered, 0, bytes);
    int32_t last_keys = INT32_MAX;
    for (int32_t i = 0; i < c->plan->n_decode; i++) {
        const struct qd_cuda_decode_item *item = &decode_of(c)[i];
        GPU_EXPECT(item->seq >= 0 && item->seq < c->n_seqs && goes_to_decode(c, item->seq), "item %d", i);
        GPU_EXPECT(item->kv_head >= 0 && item->kv_head < n_kv_heads, "item %d is of KV head %d", i,
                   item->kv_head);
        const int32_t kv_len = c->kv_len[item->seq], keys = item->kv_end - item->kv_begin;
        GPU_EXPECT(item->kv_begin % QD_KV_BLOCK_SIZE == 0 && keys > 0, "item %d begins at %d", i,
                   item->kv_begin);
        GPU_EXPECT(item->kv_end == kv_len || item->kv_end % QD_KV_BLOCK_SIZE == 0, "item %d ends in a page",
                   i);
        GPU_EXPECT(item->kv_end == kv_len || (item->kv_end < kv_len && keys >= MIN_PART_KEYS),
                   "item %d ends at %d of %d", i, item->kv_end, kv_len);
        GPU_EXPECT(keys <= last_keys, "item %d is longer than the one before it", i);
        last_keys = keys;
        for (int32_t page = item->kv_begin / QD_KV_BLOCK_SIZE; page < pages_of(item->kv_end); page++)
            covered[(item->seq * n_kv_heads + item->kv_head) * MAX_BLOCKS + page]++;
    }
    for (int32_t s = 0; s < c->n_seqs; s++)
        for (int32_t h = 0; h < n_kv_heads; h++)
            for (int32_t page = 0; page < pages_of(c->kv_len[s]); page++)
                GPU_EXPECT(covered[(s * n_kv_heads + h) * MAX_BLOCKS + page] == goes_to_decode(c, s),
                           "page %d of sequence %d, KV head %d", page, s, h);
}

/* The item that writes a part; each part has one. */
static const struct qd_cuda_decode_item *writer_of(const struct plan_case *c, int32_t part)
{
    const struct qd_cuda_decode_item *writer = NULL;
    for (int32_t i = 0; i < c->plan->n_decode; i++) {
        if (decode_of(c)[i].part != part) continue;
        GPU_EXPECT(writer == NULL, "two items write part %d", part);
        writer = &decode_of(c)[i];
    }
    GPU_EXPECT(writer != NULL, "nobody writes part %d", part);
    return writer;
}

/* A merge reads the parts of its sequence and KV head in order of keys, from the first to the last; an item
 * without a part has all keys. */
static void check_merges(const struct plan_case *c)
{
    int32_t n_merged = 0, n_whole = 0, n_heads_of_decodes = 0;
    for (int32_t i = 0; i < c->plan->n_merge; i++) {
        const struct qd_cuda_merge_item *merge = &merge_of(c)[i];
        GPU_EXPECT(merge->n_parts > 1, "merge %d of %d parts", i, merge->n_parts);
        int32_t end = 0;
        for (int32_t j = 0; j < merge->n_parts; j++) {
            const struct qd_cuda_decode_item *item = writer_of(c, merge->part_begin + j);
            GPU_EXPECT(item->seq == merge->seq && item->kv_head == merge->kv_head,
                       "merge %d reads others' part", i);
            GPU_EXPECT(item->kv_begin == end, "part %d of merge %d begins at %d, not %d", j, i,
                       item->kv_begin, end);
            end = item->kv_end;
        }
        GPU_EXPECT(end == c->kv_len[merge->seq], "merge %d ends at %d", i, end);
        n_merged += merge->n_parts;
    }
    for (int32_t i = 0; i < c->plan->n_decode; i++) {
        const struct qd_cuda_decode_item *item = &decode_of(c)[i];
        if (item->part >= 0) continue;
        n_whole++;
        GPU_EXPECT(item->kv_begin == 0 && item->kv_end == c->kv_len[item->seq], "item %d has no part", i);
    }
    for (int32_t s = 0; s < c->n_seqs; s++) n_heads_of_decodes += goes_to_decode(c, s) * c->config.n_kv_heads;
    GPU_EXPECT(n_merged == c->plan->n_parts, "%d parts, %d of them merged", c->plan->n_parts, n_merged);
    GPU_EXPECT(n_whole + c->plan->n_merge == n_heads_of_decodes, "%d whole items and %d merges", n_whole,
               c->plan->n_merge);
}

/* Items if decodes were cut into parts of `keys`. */
static int64_t items_of(const struct plan_case *c, int32_t keys)
{
    int64_t n = 0;
    for (int32_t s = 0; s < c->n_seqs; s++)
        if (goes_to_decode(c, s)) n += qd_div_up(c->kv_len[s], keys) * c->config.n_kv_heads;
    return n;
}

/* Parts are the shortest whose items fit twice the SMs. */
static void check_part_length(const struct plan_case *c)
{
    const int64_t most = 2 * (int64_t)c->config.n_sms;
    int32_t longest = MIN_PART_KEYS, keys = MIN_PART_KEYS;
    for (int32_t s = 0; s < c->n_seqs; s++)
        if (goes_to_decode(c, s) && c->kv_len[s] > longest) longest = c->kv_len[s];
    while (keys < longest && items_of(c, keys) > most) keys += QD_KV_BLOCK_SIZE;
    for (int32_t i = 0; i < c->plan->n_decode; i++) {
        const struct qd_cuda_decode_item *item = &decode_of(c)[i];
        const int32_t left = c->kv_len[item->seq] - item->kv_begin;
        GPU_EXPECT(item->kv_end - item->kv_begin == (left < keys ? left : keys),
                   "item %d has %d keys, not %d", i, item->kv_end - item->kv_begin,
                   left < keys ? left : keys);
    }
}

static void check_plan(const struct plan_case *c)
{
    GPU_EXPECT(c->plan->n_prefill <= c->limits.max_prefill_items &&
                   c->plan->n_decode <= c->limits.max_decode_items &&
                   c->plan->n_merge <= c->limits.max_merge_items && c->plan->n_parts <= c->limits.max_parts,
               "more than the capacities");
    check_prefill(c);
    check_decode(c);
    check_merges(c);
    check_part_length(c);
}

/* Chunk lengths of one style, so that each bound of the capacities is approached by some case. */
static int32_t draw_q_len(struct draws *d, int32_t style, int32_t most)
{
    static const int32_t edges[] = {1, 2, 127, 128, 129, 256, 257};
    int32_t q_len = 1;
    if (style == 1) q_len = 2;
    if (style == 2) q_len = draw(d, 1, 2) == 1 ? 1 : draw(d, 1, 300);
    if (style == 3) q_len = edges[draw(d, 0, 6)];
    return q_len < most ? q_len : most;
}

static void draw_case(struct plan_case *c, uint64_t number)
{
    static const int n_sms[] = {1, 2, 8, 108, 132};
    struct draws d = {number, 0};
    c->config.n_kv_heads = draw(&d, 1, 8);
    c->config.n_heads = c->config.n_kv_heads * draw(&d, 1, 4);
    c->config.head_dim = 64;
    c->config.n_sms = n_sms[draw(&d, 0, 4)];
    c->config.batch_invariant = draw(&d, 0, 3) == 0;
    c->step_limits =
        (struct qd_step_limits){draw(&d, 1, MAX_TOKENS), draw(&d, 1, MAX_SEQS), draw(&d, 1, MAX_BLOCKS), 0};
    const int32_t style = draw(&d, 0, 3), most_pages = draw(&d, 1, MAX_BLOCKS);
    int32_t tokens = c->step_limits.max_tokens, blocks = c->step_limits.max_blocks;
    while (c->n_seqs < c->step_limits.max_seqs && tokens > 0 && blocks > 0) {
        const int32_t pages = draw(&d, 1, blocks < most_pages ? blocks : most_pages),
                      room = pages * QD_KV_BLOCK_SIZE;
        const int32_t q_len = draw_q_len(&d, style, tokens < room ? tokens : room);
        add_sequence(c, q_len, draw(&d, q_len, room));
        tokens -= q_len;
        blocks -= pages_of(c->kv_len[c->n_seqs - 1]);
    }
}

static void test_random_steps(void)
{
    int32_t n_split = 0, n_tiles = 0;
    for (uint64_t i = 0; i < N_CASES; i++) {
        struct plan_case c = {0};
        draw_case(&c, i);
        plan_within_capacity(&c);
        check_plan(&c);
        n_split += c.plan->n_merge > 0;
        n_tiles += c.plan->n_prefill > c.config.n_heads * c.n_seqs;
    }
    GPU_EXPECT(n_split > N_CASES / 20 && n_tiles > N_CASES / 20,
               "%d steps with split decodes, %d with several tiles", n_split, n_tiles);
}

static struct plan_case qwen3_8b(struct qd_step_limits limits)
{
    return (struct plan_case){
        .config = {.n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .n_sms = 132},
        .step_limits = limits,
    };
}

/* One sequence of 8192 keys on 132 SMs: 264 / 8 = 33 parts at most, so 16 pages each make 32. */
static void test_one_long_decode(void)
{
    struct plan_case c = qwen3_8b((struct qd_step_limits){16, 16, 600, 0});
    add_sequence(&c, 1, 8192);
    plan_within_capacity(&c);
    check_plan(&c);
    GPU_EXPECT(c.plan->n_decode == 256 && c.plan->n_merge == 8 && c.plan->n_parts == 256 &&
                   c.plan->n_prefill == 0,
               "%d items, %d merges, %d parts", c.plan->n_decode, c.plan->n_merge, c.plan->n_parts);
}

/* Capacities are bounds that steps reach, not guesses far above them. */
static void test_capacities_are_reached(void)
{
    struct plan_case decodes = qwen3_8b((struct qd_step_limits){40, 40, 40, 0});
    for (int32_t i = 0; i < 40; i++) add_sequence(&decodes, 1, 16);
    plan_within_capacity(&decodes);
    check_plan(&decodes);
    GPU_EXPECT(decodes.plan->n_decode == decodes.limits.max_decode_items, "%d items of %d",
               decodes.plan->n_decode, decodes.limits.max_decode_items);

    struct plan_case chunks = qwen3_8b((struct qd_step_limits){2 * 39 + 129, 40, 80, 0});
    for (int32_t i = 0; i < 39; i++) add_sequence(&chunks, 2, 16);
    add_sequence(&chunks, 129, 129);
    plan_within_capacity(&chunks);
    check_plan(&chunks);
    GPU_EXPECT(chunks.plan->n_prefill == chunks.limits.max_prefill_items, "%d tiles of %d",
               chunks.plan->n_prefill, chunks.limits.max_prefill_items);
}

static void test_batch_invariant(void)
{
    struct plan_case c = qwen3_8b((struct qd_step_limits){8, 8, 400, 0});
    c.config.batch_invariant = true;
    add_sequence(&c, 1, 5000);
    add_sequence(&c, 3, 300);
    plan_within_capacity(&c);
    check_plan(&c);
    GPU_EXPECT(c.limits.max_decode_items == 0 && c.limits.max_merge_items == 0 && c.limits.max_parts == 0 &&
                   c.plan->n_prefill == 2 * 32,
               "%d tiles, %d decode items", c.plan->n_prefill, c.plan->n_decode);
    const size_t bytes = qd_cuda_attention_parts_bytes(&c.config, &c.limits);
    GPU_EXPECT(bytes == 0, "%zu bytes of parts", bytes);
}

static void expect_full(struct plan_case *c, struct qd_cuda_attention_limits limits, const char *text)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cuda_attention_plan *plan = gpu_host_alloc(qd_cuda_attention_plan_bytes(&c->limits));
    const qd_status status = qd_cuda_attention_plan(&c->config, &limits, c->step, plan, err, sizeof err);
    GPU_EXPECT(status == QD_ERR_FULL && strstr(err, text) != NULL, "%d \"%s\", not \"%s\"", (int)status, err,
               text);
}

static void test_full(void)
{
    struct plan_case c = qwen3_8b((struct qd_step_limits){8, 8, 100, 0});
    add_sequence(&c, 1, 1000);
    add_sequence(&c, 2, 300);
    plan_within_capacity(&c);
    const struct qd_cuda_attention_limits exact = {c.plan->n_prefill, c.plan->n_decode, c.plan->n_merge,
                                                   c.plan->n_parts};
    c.limits = exact;
    make_plan(&c);
    check_plan(&c);
    struct qd_cuda_attention_limits less = exact;
    less.max_prefill_items--;
    expect_full(&c, less, "32 prefill items, but the limit is 31");
    less = exact;
    less.max_decode_items--;
    expect_full(&c, less, "64 decode items, but the limit is 63");
    less = exact;
    less.max_merge_items--;
    expect_full(&c, less, "8 merge items, but the limit is 7");
    less = exact;
    less.max_parts--;
    expect_full(&c, less, "64 parts, but the limit is 63");
}

/* Equal steps have equal plans, whatever the buffer held. */
static void test_pure(void)
{
    struct plan_case a = qwen3_8b((struct qd_step_limits){400, 8, 100, 0});
    add_sequence(&a, 1, 700);
    add_sequence(&a, 300, 320);
    add_sequence(&a, 1, 128);
    struct plan_case b = a;
    plan_within_capacity(&a);
    plan_within_capacity(&b);
    GPU_EXPECT(a.plan->used_bytes == b.plan->used_bytes, "sizes differ");
    const size_t arrays[][2] = {
        {0, sizeof *a.plan},
        {a.plan->prefill, (size_t)a.plan->n_prefill * sizeof(struct qd_cuda_prefill_item)},
        {a.plan->decode, (size_t)a.plan->n_decode * sizeof(struct qd_cuda_decode_item)},
        {a.plan->merge, (size_t)a.plan->n_merge * sizeof(struct qd_cuda_merge_item)}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        GPU_EXPECT(memcmp((const char *)a.plan + arrays[i][0], (const char *)b.plan + arrays[i][0],
                          arrays[i][1]) == 0,
                   "array %zu differs", i);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"random_steps", test_random_steps},
        {"one_long_decode", test_one_long_decode},
        {"capacities_are_reached", test_capacities_are_reached},
        {"batch_invariant", test_batch_invariant},
        {"full", test_full},
        {"pure", test_pure},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}

/* Sampling of one id per logit row over the vocabulary shards of all ranks (collective).
 *
 * Greedy rows: every rank finds the best of its shard, the 8-byte results are combined in rank order. Other
 * rows are dealt over ranks and team members; one member handles the whole row, gathered in id order, so
 * ranks and threads change nothing: w = e^((logit - max) / temperature) in fp32, sums in fp64; top-k and
 * top-p find their cut by radix select on the bits of the value (no sort); the draw is the first kept id,
 * rising, at which the running sum of w passes u * total, u from Philox keyed by (seed, output_index). Where
 * the top-p cut runs through equal logits the smaller ids stay.
 */
#include <float.h>
#include <math.h>

#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "kernels/cpu/kernels.h"

enum {
    CHUNK = 1024, /* logits whose maximum is taken at a time */
    RADIX_BITS = 11,
    N_BINS = 1 << RADIX_BITS,
};

/* The best of a shard's row; greedy rows exchange nothing else. */
struct best {
    float value;
    int32_t id;
};

/* What a rank shows the others. */
struct shard {
    const struct qd_sample_args *args;
    const struct best *best; /* [R], greedy rows filled in */
};

struct job {
    struct qd_cpu *cpu;
    const struct qd_sample_args *args;
    const struct shard *const *shards; /* [world] */
    struct best *best;                 /* [R] this rank's */
};

/* The tokens of a row that can still be drawn, in rising order of id. */
struct candidates {
    int64_t n;
    float *value; /* [n] logits, then weights; rounded up to whole vectors */
    int32_t *id;  /* [n] */
};

static size_t best_bytes(const struct qd_device_config *config)
{
    return qd_round_up((size_t)config->limits.max_logit_rows * sizeof(struct best), 64);
}

static size_t padded_vocab(const struct qd_device_config *config)
{
    return qd_round_up((size_t)config->shape.vocab_size, VF_LANES);
}

size_t QD_CPU_FN(qd_cpu_sample_scratch)(const struct qd_device_config *config)
{
    return best_bytes(config) + padded_vocab(config) * (sizeof(float) + sizeof(int32_t));
}

/* Largest of x[n], at least -inf; NaN never wins. */
static float largest(const float *x, int64_t n)
{
    vf max[4];
    for (int j = 0; j < 4; j++) max[j] = vf_set1(-INFINITY);
    int64_t i = 0;
    for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
        VF_UNROLL
        for (int j = 0; j < 4; j++) max[j] = vf_max(vf_load(x + i + j * VF_LANES), max[j]);
    }
    float best = vf_max_lane(vf_max(vf_max(max[0], max[1]), vf_max(max[2], max[3])));
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
}

/* The first of the largest logits of x[n], whose first id is `begin`. NaN counts as -inf. */
static struct best best_of(const float *x, int64_t n, int64_t begin)
{
    float value = -INFINITY;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i += CHUNK) {
        float chunk = largest(x + i, n - i < CHUNK ? n - i : CHUNK);
        if (chunk > value) {
            value = chunk;
            at = i;
        }
    }
    while (value > -INFINITY && x[at] != value) at++;
    return (struct best){value, n > 0 ? (int32_t)(begin + at) : INT32_MAX};
}

static void find_best(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    const struct qd_sample_args *args = job->args;
    const struct qd_sampling *sampling = qd_step_sampling(args->step);
    int64_t begin, end;
    qd_team_split(args->step->n_logit_rows, 1, member, n_members, &begin, &end);
    for (int64_t row = begin; row < end; row++)
        if (sampling[row].temperature == 0)
            job->best[row] = best_of(args->logits + row * args->ld, args->n_vocab, args->vocab_begin);
}

static int32_t combine_best(const struct job *job, int64_t row)
{
    struct best best = job->shards[0]->best[row];
    for (int rank = 1; rank < job->cpu->bootstrap.world; rank++) {
        struct best other = job->shards[rank]->best[row];
        if (other.value > best.value || (other.value == best.value && other.id < best.id)) best = other;
    }
    return best.id;
}

/* All shards of a row, NaN made -inf. */
static void gather(const struct job *job, int64_t row, struct candidates *c)
{
    c->n = 0;
    for (int rank = 0; rank < job->cpu->bootstrap.world; rank++) {
        const struct qd_sample_args *args = job->shards[rank]->args;
        const float *logits = args->logits + row * args->ld;
        for (int64_t i = 0; i < args->n_vocab; i++) {
            c->value[c->n + i] = isnan(logits[i]) ? -INFINITY : logits[i];
            c->id[c->n + i] = (int32_t)(args->vocab_begin + i);
        }
        c->n += args->n_vocab;
    }
}

/* Unsigned integers in the order of the floats. */
static uint32_t sort_key(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ ((bits >> 31) != 0 ? UINT32_MAX : UINT32_C(1) << 31);
}

static float from_sort_key(uint32_t key)
{
    uint32_t bits = key ^ ((key >> 31) != 0 ? UINT32_C(1) << 31 : UINT32_MAX);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Where a walk down the values stops. */
struct cut {
    float value;  /* the largest value such that it and all above weigh at least `target` */
    double above; /* weight of what is strictly above */
    double target;
};

/* Radix select from the top: 11, 11 and 10 bits of the key. An element weighs its value (by_mass) or 1; the
 * target is `share` of the whole weight or `count`. */
static struct cut find_cut(const struct candidates *c, bool by_mass, double share, double count)
{
    struct cut cut = {.target = count};
    uint32_t prefix = 0, mask = 0;
    for (int shift = 32 - RADIX_BITS;; shift = shift > RADIX_BITS ? shift - RADIX_BITS : 0) {
        double bins[N_BINS] = {0};
        for (int64_t i = 0; i < c->n; i++) {
            uint32_t key = sort_key(c->value[i]);
            if ((key & mask) == prefix) bins[(key & ~mask) >> shift] += by_mass ? (double)c->value[i] : 1.0;
        }
        if (by_mass && mask == 0) {
            for (int bin = 0; bin < N_BINS; bin++) cut.target += bins[bin];
            cut.target = fmax(cut.target * share, DBL_MIN); /* the first always stays */
        }
        uint32_t bin = ~mask >> shift;
        for (; bin > 0 && cut.above + bins[bin] < cut.target; bin--) cut.above += bins[bin];
        prefix |= bin << shift;
        mask = UINT32_MAX << shift;
        if (shift == 0) break;
    }
    cut.value = from_sort_key(prefix);
    return cut;
}

/* Keeps the k largest and all that equal the k-th. */
static void keep_top_k(struct candidates *c, int32_t k)
{
    const float cut = find_cut(c, false, 0, k).value;
    int64_t n = 0;
    for (int64_t i = 0; i < c->n; i++) {
        if (c->value[i] < cut) continue;
        c->value[n] = c->value[i];
        c->id[n++] = c->id[i];
    }
    c->n = n;
}

/* Logits to e^((logit - max) / temperature). An infinite maximum leaves nothing to the others. */
static void to_weights(struct candidates *c, float temperature)
{
    const float max = largest(c->value, c->n);
    if (isinf(max)) {
        for (int64_t i = 0; i < c->n; i++) c->value[i] = c->value[i] == max ? 1.0f : 0.0f;
        return;
    }
    for (int64_t i = c->n; i % VF_LANES != 0; i++) c->value[i] = -INFINITY;
    for (int64_t i = 0; i < c->n; i += VF_LANES) {
        vf x = vf_div(vf_sub(vf_load(c->value + i), vf_set1(max)), vf_set1(temperature));
        vf_store(c->value + i, vf_exp(x));
    }
}

/* Keeps a weight while those before it, in falling order, sum to less than top_p of all. */
static void keep_top_p(struct candidates *c, float top_p)
{
    const struct cut cut = find_cut(c, true, (double)top_p, 0);
    double before = cut.above;
    int64_t n = 0;
    for (int64_t i = 0; i < c->n; i++) {
        if (c->value[i] < cut.value) continue;
        if (c->value[i] == cut.value) {
            if (before >= cut.target) continue;
            before += (double)cut.value;
        }
        c->value[n] = c->value[i];
        c->id[n++] = c->id[i];
    }
    c->n = n;
}

static int32_t draw(const struct candidates *c, double uniform)
{
    double total = 0, sum = 0;
    for (int64_t i = 0; i < c->n; i++) total += (double)c->value[i];
    for (int64_t i = 0; i < c->n; i++) {
        sum += (double)c->value[i];
        if (sum > uniform * total) return c->id[i];
    }
    return c->id[c->n - 1];
}

static int32_t sample_row(const struct job *job, int64_t row, unsigned char *scratch)
{
    const struct qd_sampling *s = &qd_step_sampling(job->args->step)[row];
    struct candidates c = {.value = (float *)(void *)scratch};
    c.id = (int32_t *)(void *)(c.value + padded_vocab(&job->cpu->config));
    gather(job, row, &c);
    if (s->top_k > 0 && s->top_k < c.n) keep_top_k(&c, s->top_k);
    to_weights(&c, s->temperature);
    if (s->top_p < 1) keep_top_p(&c, s->top_p);
    return draw(&c, (double)qd_uniform_open(qd_philox(s->seed, 0, s->output_index).word[0]));
}

/* The k-th sampled row is the business of rank k % world. */
static void sample_rows(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    const struct qd_sampling *sampling = qd_step_sampling(job->args->step);
    const int world = job->cpu->bootstrap.world, rank = job->cpu->bootstrap.rank;
    unsigned char *scratch = job->cpu->scratch[member] + best_bytes(&job->cpu->config);
    int k = 0;
    for (int32_t row = 0; row < job->args->step->n_logit_rows; row++) {
        if (sampling[row].temperature == 0) continue;
        if (k % world == rank && k / world % n_members == member)
            job->args->ids[row] = sample_row(job, row, scratch);
        k++;
    }
}

/* Ids of the rows that other ranks sampled. Each writes only rows that nobody reads from it. */
static qd_status exchange_ids(const struct job *job)
{
    const void *all[QD_CPU_MAX_RANKS];
    QD_TRY(qd_cpu_comm_publish(job->cpu, job->args->ids, all));
    const struct qd_sampling *sampling = qd_step_sampling(job->args->step);
    const int world = job->cpu->bootstrap.world;
    int k = 0;
    for (int32_t row = 0; row < job->args->step->n_logit_rows; row++) {
        if (sampling[row].temperature == 0) continue;
        int owner = k++ % world;
        if (owner != job->cpu->bootstrap.rank) job->args->ids[row] = ((const int32_t *)all[owner])[row];
    }
    return QD_OK;
}

qd_status QD_CPU_FN(qd_cpu_sample)(struct qd_cpu *cpu, const struct qd_sample_args *args)
{
    const int32_t n_rows = args->step->n_logit_rows;
    const struct qd_sampling *sampling = qd_step_sampling(args->step);
    if (n_rows > cpu->config.limits.max_logit_rows || args->vocab_size > cpu->config.shape.vocab_size)
        return QD_ERR_TOO_LARGE;
    const void *all[QD_CPU_MAX_RANKS];
    struct job job = {.cpu = cpu, .args = args, .best = (struct best *)(void *)cpu->scratch[0]};
    int n_sampled = 0;
    for (int32_t row = 0; row < n_rows; row++) n_sampled += sampling[row].temperature != 0;

    if (n_sampled < n_rows) qd_team_run(cpu->team, find_best, &job);
    struct shard mine = {args, job.best};
    QD_TRY(qd_cpu_comm_publish(cpu, &mine, all));
    const struct shard *shards[QD_CPU_MAX_RANKS];
    for (int rank = 0; rank < cpu->bootstrap.world; rank++) shards[rank] = all[rank];
    job.shards = shards;
    for (int32_t row = 0; row < n_rows; row++)
        if (sampling[row].temperature == 0) args->ids[row] = combine_best(&job, row);
    if (n_sampled > 0) {
        qd_team_run(cpu->team, sample_rows, &job);
        QD_TRY(exchange_ids(&job));
    }
    for (int32_t row = 0; row < n_rows; row++)
        if (sampling[row].slot >= 0) cpu->sampled[sampling[row].slot] = args->ids[row];
    return qd_cpu_comm_barrier(cpu); /* `mine` and the logits may change when all have read them */
}

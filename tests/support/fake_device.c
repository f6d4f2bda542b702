#include "tests/support/fake_device.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rank_state {
    struct fake_device *device;
    int rank;
    int64_t n_steps;
    int32_t *token, *position; /* [n_kv_blocks * 16] what each place of the pool holds */
    int32_t *sequence;         /* [max sequence] scratch */
    int32_t *sampled;          /* [max_seqs] by slot */
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ (hash >> 29);
}

int32_t fake_next_id(const int32_t *tokens, int32_t n, uint64_t seed, uint64_t output_index,
                     int32_t vocab_size)
{
    uint64_t hash = mix(mix(1, seed), output_index);
    for (int32_t i = 0; i < n; i++) hash = mix(hash, (uint64_t)tokens[i]);
    return (int32_t)(hash % (uint64_t)vocab_size);
}

static qd_status device_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                             void **ctx, char *err, size_t errlen)
{
    (void)config, (void)bootstrap, (void)err, (void)errlen;
    *ctx = NULL;
    return QD_OK;
}

static void device_close(void *ctx)
{
    (void)ctx;
}

static const struct qd_device_ops fake_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "fake",
    .executes = true,
    .open = device_open,
    .close = device_close,
};

static void rank_close(void *state)
{
    struct rank_state *rank = state;
    if (rank == NULL) return;
    free(rank->token);
    free(rank->position);
    free(rank->sequence);
    free(rank->sampled);
    free(rank);
}

static qd_status rank_open(void *user, int rank, struct qd_device device, void **state, char *err,
                           size_t errlen)
{
    (void)device;
    struct fake_device *fake = user;
    size_t n_places = (size_t)fake->n_kv_blocks * QD_KV_BLOCK_SIZE;
    struct rank_state *s = calloc(1, sizeof *s);
    if (s == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory");
    s->device = fake;
    s->rank = rank;
    s->token = calloc(n_places, sizeof(int32_t));
    s->position = calloc(n_places, sizeof(int32_t));
    s->sequence = calloc(n_places, sizeof(int32_t));
    s->sampled = calloc((size_t)fake->limits.max_seqs, sizeof(int32_t));
    *state = s;
    return QD_OK;
}

/* Reads a sequence back through its block table; false when a place holds another position. */
static bool gather(struct rank_state *rank, const struct qd_step *step, int32_t seq)
{
    const int32_t *table = qd_step_block_table(step) + qd_step_block_offset(step)[seq];
    for (int32_t i = 0; i < qd_step_kv_len(step)[seq]; i++) {
        int32_t place = table[i / QD_KV_BLOCK_SIZE] * QD_KV_BLOCK_SIZE + i % QD_KV_BLOCK_SIZE;
        if (rank->position[place] != i) return false;
        rank->sequence[i] = rank->token[place];
    }
    return true;
}

static qd_status rank_step(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                           size_t errlen)
{
    struct rank_state *rank = state;
    struct fake_device *fake = rank->device;
    int64_t index = rank->n_steps++;
    if (rank->rank == 0 && index < FAKE_MAX_RECORDED) {
        fake->n_tokens[index] = step->n_tokens;
        fake->n_seqs[index] = step->n_seqs;
        atomic_store(&fake->n_steps, (int)index + 1);
    }
    if (fake->step_us > 0) usleep((useconds_t)fake->step_us);
    if (index == fake->fail_step) return qd_fail(QD_ERR_INTERNAL, err, errlen, "the fake caught fire");
    QD_TRY(qd_step_validate(step, step->used_bytes, fake->n_kv_blocks, fake->vocab_size,
                            fake->limits.max_seqs, err, errlen));
    for (int32_t t = 0; t < step->n_tokens; t++) {
        int32_t source = qd_step_token_source(step)[t];
        rank->token[qd_step_slot_mapping(step)[t]] = source >= 0 ? source : rank->sampled[-(source + 1)];
        rank->position[qd_step_slot_mapping(step)[t]] = qd_step_position(step)[t];
    }
    for (int32_t seq = 0, row = 0; seq < step->n_seqs; seq++) {
        if (!gather(rank, step, seq))
            return qd_fail(QD_ERR_INTERNAL, err, errlen, "sequence %d reads a place that is not its own",
                           seq);
        if (row == step->n_logit_rows ||
            qd_step_logit_row(step)[row] != qd_step_cu_seqlens_q(step)[seq + 1] - 1)
            continue;
        const struct qd_sampling *sampling = &qd_step_sampling(step)[row];
        rank->sampled[sampling->slot] = out->ids[row++] = index == fake->bad_step
                              ? fake->vocab_size
                              : fake_next_id(rank->sequence, qd_step_kv_len(step)[seq], sampling->seed,
                                             sampling->output_index, fake->vocab_size);
    }
    return QD_OK;
}

qd_status fake_group_open(struct fake_device *device, int replica, int tp, qd_group_t **out, char *err,
                          size_t errlen)
{
    atomic_init(&device->n_steps, 0);
    const struct qd_group_config config = {
        .ops = &fake_ops,
        .tp = tp,
        .device = {.replica = replica, .first_rank = replica * tp, .n_ranks = tp, .limits = device->limits},
        .vocab_size = device->vocab_size,
        .program = {.user = device, .rank_open = rank_open, .rank_step = rank_step, .rank_close = rank_close},
    };
    return qd_group_open(&config, out, err, errlen);
}

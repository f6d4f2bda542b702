#include "kernels/cpu/host/comm.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

/* One per rank: it writes its own and reads the others'.
 *
 * `published` alternates: a rank that writes one entry for the second time has passed the barrier of the
 * publication in between, so every rank has come there and has read the entry. The data that was pointed to
 * follows the same rule: it may change once the next publication has returned. */
struct qd_cpu_comm {
    _Alignas(64) const void *published[2]; /* this rank's pointer, by parity of n_published */
    unsigned n_published;
    struct qd_cpu_comm *ranks[]; /* [world] all of them */
};

qd_status qd_cpu_comm_open(struct qd_cpu *cpu, char *err, size_t errlen)
{
    struct qd_bootstrap *b = &cpu->bootstrap;
    if (b->world <= 1) return QD_OK;
    size_t bytes = qd_round_up(sizeof *cpu->comm + (size_t)b->world * sizeof cpu->comm->ranks[0], 64);
    struct qd_cpu_comm *comm = aligned_alloc(64, bytes);
    if (comm == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %d ranks", b->world);
    memset(comm, 0, bytes);
    cpu->comm = comm;
    return b->all_gather(b->ctx, b->rank, &comm, sizeof comm, comm->ranks, err, errlen);
}

void qd_cpu_comm_close(struct qd_cpu *cpu)
{
    free(cpu->comm);
    cpu->comm = NULL;
}

qd_status qd_cpu_comm_barrier(struct qd_cpu *cpu)
{
    if (cpu->comm == NULL) return QD_OK;
    return cpu->bootstrap.barrier(cpu->bootstrap.ctx, cpu->bootstrap.rank, NULL, 0);
}

qd_status qd_cpu_comm_publish(struct qd_cpu *cpu, const void *mine, const void **all)
{
    struct qd_cpu_comm *comm = cpu->comm;
    if (comm == NULL) {
        all[0] = mine;
        return QD_OK;
    }
    unsigned parity = comm->n_published++ % 2;
    comm->published[parity] = mine;
    QD_TRY(qd_cpu_comm_barrier(cpu));
    for (int r = 0; r < cpu->bootstrap.world; r++) all[r] = comm->ranks[r]->published[parity];
    return QD_OK;
}

qd_status qd_cpu_all_gather(struct qd_cpu *cpu, const struct qd_all_gather_args *args)
{
    const void *all[QD_CPU_MAX_RANKS];
    QD_TRY(qd_cpu_comm_publish(cpu, args->in, all));
    for (int r = 0; r < cpu->bootstrap.world && args->out != NULL; r++)
        memcpy((unsigned char *)args->out + (size_t)r * args->bytes, all[r], args->bytes);
    return qd_cpu_comm_barrier(cpu); /* the caller may change `in` at once */
}

qd_status qd_cpu_all_reduce(struct qd_cpu *cpu, const struct qd_all_reduce_args *args)
{
    const void *all[QD_CPU_MAX_RANKS];
    int world = cpu->bootstrap.world;
    QD_TRY(qd_cpu_comm_publish(cpu, args->data, all));
    /* Each rank reduces its part of the elements for everybody: nobody else reads or writes that part, so the
     * sums can replace the terms. */
    int64_t begin, end;
    qd_team_split(args->n, 32, cpu->bootstrap.rank, world, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float sum = 0.0f;
        for (int r = 0; r < world; r++) sum += qd_bf16_to_f32(((const qd_bf16 *)all[r])[i]);
        for (int r = 0; r < world; r++) ((qd_bf16 *)(uintptr_t)all[r])[i] = qd_bf16_from_f32(sum);
    }
    return qd_cpu_comm_barrier(cpu);
}

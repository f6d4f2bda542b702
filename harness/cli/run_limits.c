#include "harness/cli/run_limits.h"

#include <string.h>

#include "harness/cli/run_steps.h"

qd_status qd_run_limits_choose(struct qd_run_limits *limits, const struct qd_options *o, char *err,
                               size_t errlen)
{
    if (o->machine == NULL) return QD_OK;
    if (!qd_run_steps_wanted(o))
        return qd_fail(QD_ERR_INPUT, err, errlen, "--machine needs --ledger, which shows the floors");
    if (strcmp(o->machine, "this") != 0) return qd_op_machine_get(o->machine, &limits->machine, err, errlen);
    return o->probe ? QD_OK : qd_fail(QD_ERR_INPUT, err, errlen, "--machine this needs --probe");
}

qd_status qd_run_limits_probe(struct qd_run_limits *limits, const struct qd_options *o, char *err,
                              size_t errlen)
{
    if (!o->probe) return QD_OK;
    return qd_cpu_probe_cores(o->cpu_isa, (int)o->threads, &limits->probed, err, errlen);
}

/* Ranks of a replica run at the same time and share what was probed for the whole machine; other replicas may
 * rest, and a floor must not count on them. A profile is of one device, which is one rank. */
struct qd_ledger_limits qd_run_limits_of_rank(const struct qd_run_limits *limits, const struct qd_options *o)
{
    if (limits->machine.name[0] != '\0')
        return (struct qd_ledger_limits){.machine = limits->machine.name,
                                         .memory_gbps = limits->machine.memory_gbps,
                                         .gflops = limits->machine.bf16_gflops};
    if (!o->probe) return (struct qd_ledger_limits){0};
    return (struct qd_ledger_limits){
        .machine = "this",
        .memory_gbps = limits->probed.read_gbps / (double)o->tp,
        .gflops = limits->probed.fma_gflops / (double)o->tp,
    };
}

/* The program with a fault in its emulated GPUs: the launch number QD_FAULT_LAUNCH of the kernel
 * QD_FAULT_KERNEL fails as a kernel that stores beyond its memory does, in a process that has the word
 * QD_FAULT_WORD on its command line. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/emu/emu.h"

static const char *kernel;
static int failing_launch;
static _Atomic int n_launches;

static int fail_one(struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args, char *err,
                    size_t errlen)
{
    (void)arg_sizes, (void)n_args;
    if (strcmp(launch->name, kernel) != 0 || atomic_fetch_add(&n_launches, 1) + 1 != failing_launch) return 0;
    snprintf(err, errlen, "%s: a planted fault", kernel);
    return -1;
}

__attribute__((constructor)) static void plant(int argc, char **argv)
{
    const char *word = getenv("QD_FAULT_WORD"), *launch = getenv("QD_FAULT_LAUNCH");
    kernel = getenv("QD_FAULT_KERNEL");
    if (word == NULL || launch == NULL || kernel == NULL) return;
    failing_launch = atoi(launch);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], word) == 0) qd_emu_set_replace(fail_one);
}

#include "kernels/emu/block.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends to the run's error text. */
__attribute__((format(printf, 2, 3))) static void add(struct run *run, const char *format, ...)
{
    const size_t used = strlen(run->error);
    va_list args;
    va_start(args, format);
    vsnprintf(run->error + used, ERROR_BYTES - used, format, args);
    va_end(args);
}

static void fail_with(struct run *run, const struct thread *t, struct qd_emu_site site, const char *format,
                      va_list args)
{
    char what[ERROR_BYTES];
    if (run->failed) return;
    run->failed = true;
    vsnprintf(what, sizeof what, format, args);
    add(run, "kernel %s: ", run->launch->name);
    if (site.file) add(run, "%s:%d: ", site.file, site.line);
    add(run, "%s", what);
    if (t == NULL) return;
    const uint3 b = t->block->index, i = t->self.index;
    add(run, " [block (%u,%u,%u) thread (%u,%u,%u)]", b.x, b.y, b.z, i.x, i.y, i.z);
}

void qd_emu_run_fail(struct run *run, const struct thread *t, struct qd_emu_site site, const char *format,
                     ...)
{
    va_list args;
    va_start(args, format);
    fail_with(run, t, site, format, args);
    va_end(args);
}

void qd_emu_fail(struct qd_emu_site site, const char *format, ...)
{
    struct thread *t = current_thread();
    va_list args;
    va_start(args, format);
    fail_with(t->block->run, t, site, format, args);
    va_end(args);
    qd_emu_order_before(&qd_emu_worker->order_end);
    qd_emu_self = NULL;
    qd_emu_fiber_switch(&t->fiber, &qd_emu_worker->scheduler, 1);
    abort(); /* nobody switches back to a failed thread */
}

/* ---- who waits where ---- */

static bool same_wait(const struct thread *a, const struct thread *b)
{
    return !a->exited && a->waits_for == b->waits_for && a->site.line == b->site.line &&
           a->site.file == b->site.file && (a->waits_for != qd_emu_barrier_name || a->barrier == b->barrier);
}

static void report_block(struct run *run, const struct block *b)
{
    const uint3 at = b->index;
    unsigned n = 1;
    for (const struct thread *t = b->threads, *end = t + b->n_threads; t < end; t += n) {
        for (n = 1; t + n < end && same_wait(t + n, t);) n++;
        if (t->exited) continue;
        add(run, "; block (%u,%u,%u): %u threads from thread %u on wait for %s", at.x, at.y, at.z, n,
            t->self.linear, t->waits_for);
        if (t->waits_for == qd_emu_barrier_name) add(run, " %u", t->barrier);
        add(run, " at %s:%d", t->site.file ? t->site.file : "?", t->site.line);
    }
    if (b->n_alive < b->n_threads) add(run, "; %u threads have exited", b->n_threads - b->n_alive);
}

void qd_emu_report_stuck(struct run *run, const char *what)
{
    const struct worker *w = qd_emu_worker;
    qd_emu_run_fail(run, NULL, (struct qd_emu_site){0}, "%s with %u of %llu blocks resident", what,
                    w->n_resident, (unsigned long long)run->n_blocks);
    for (unsigned i = 0; i < w->n_resident; i++)
        if (w->blocks[i]->n_alive > 0) report_block(run, w->blocks[i]);
}

/* ---- faults ---- */

enum { ALT_STACK_BYTES = 64 * 1024 };

static __thread sigjmp_buf fault_return;
static __thread void *fault_address;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (qd_emu_self) {
        fault_address = info->si_addr;
        siglongjmp(fault_return, 1);
    }
    signal(number, SIG_DFL); /* not a CUDA thread's: happens again, and ends the process */
}

void qd_emu_catch_faults(struct run *run, void (*body)(struct run *run))
{
#if defined(QD_EMU_ASAN) || defined(QD_EMU_TSAN)
    body(run); /* sanitizers report faults themselves and better */
    return;
#endif
    char alt_stack[ALT_STACK_BYTES]; /* a fiber's own stack may be what ran out */
    stack_t alt = {.ss_sp = alt_stack, .ss_size = sizeof alt_stack}, old_alt;
    sigaltstack(&alt, &old_alt);
    /* The handler belongs to the process: each launch installs it, as others may have put theirs there. */
    const struct sigaction action = {.sa_sigaction = on_fault,
                                     .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    if (sigsetjmp(fault_return, 0) == 0) {
        body(run);
    } else {
        qd_emu_run_fail(run, current_thread(), current_thread()->self.access, "illegal memory access at %p",
                        fault_address);
        qd_emu_self = NULL;
    }
    sigaltstack(&old_alt, NULL);
}

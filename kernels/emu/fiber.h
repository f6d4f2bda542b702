/* A fiber: a stack and where its execution stands. Switching costs a dozen instructions; ucontext's system
 * call per switch would make a barrier 60 times slower. x86-64 only. */
#ifndef QD_KERNELS_EMU_FIBER_H
#define QD_KERNELS_EMU_FIBER_H

#include <stddef.h>

struct qd_emu_fiber {
    void *stack_pointer; /* while it does not run */
    char *stack;         /* lowest byte; of an OS thread's own stack known to AddressSanitizer only */
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
    void *tsan;       /* ThreadSanitizer's */
};

enum { QD_EMU_STACK_BYTES = 128 * 1024 };

/* Makes `fiber` run entry() on its stack when it is switched to first. `stagger` moves the top of the stack:
 * equal offsets in all stacks would share one set of each cache. entry never returns. */
void qd_emu_fiber_init(struct qd_emu_fiber *fiber, void (*entry)(void), unsigned stagger);

/* Leaves `from`, for good when `final`, and goes on in `to`. */
void qd_emu_fiber_switch(struct qd_emu_fiber *from, struct qd_emu_fiber *to, int final);

/* First thing in entry(); `origin` is the OS thread's fiber, which was left for the first fiber ever. */
void qd_emu_fiber_entered(struct qd_emu_fiber *origin);

#endif

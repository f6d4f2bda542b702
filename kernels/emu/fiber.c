#include "kernels/emu/block.h"

#ifndef __x86_64__
#error "kernels/emu/fiber.c needs x86-64: its context switch is written for it"
#endif

enum { STAGGER_STEP = 1088, STAGGER_RANGE = 16384, SAVED_REGISTERS = 6, STACK_TOP_ROOM = 64 };

/* Saves what a call must preserve on the old stack, and takes it from the new one. */
__attribute__((naked, noinline)) static void swap(__attribute__((unused)) void **save,
                                                  __attribute__((unused)) void *to)
{
    __asm__("pushq %rbp\n"
            "pushq %rbx\n"
            "pushq %r12\n"
            "pushq %r13\n"
            "pushq %r14\n"
            "pushq %r15\n"
            "movq %rsp, (%rdi)\n"
            "movq %rsi, %rsp\n"
            "popq %r15\n"
            "popq %r14\n"
            "popq %r13\n"
            "popq %r12\n"
            "popq %rbx\n"
            "popq %rbp\n"
            "ret\n");
}

void qd_emu_fiber_init(struct qd_emu_fiber *fiber, void (*entry)(void), unsigned stagger)
{
    size_t offset = (size_t)stagger * STAGGER_STEP % STAGGER_RANGE / 16 * 16;
    uintptr_t *top = (uintptr_t *)(void *)(fiber->stack + fiber->stack_bytes - STACK_TOP_ROOM - offset);
    qd_emu_show(fiber->stack, fiber->stack_bytes);
    *--top = 0; /* where entry would return to; also gives it the alignment of a call */
    *--top = (uintptr_t)entry;
    for (int i = 0; i < SAVED_REGISTERS; i++) *--top = 0;
    fiber->stack_pointer = top;
    fiber->fake_stack = NULL;
}

void qd_emu_fiber_switch(struct qd_emu_fiber *from, struct qd_emu_fiber *to, int final)
{
    (void) final;
#ifdef QD_EMU_ASAN
    __sanitizer_start_switch_fiber(final ? NULL : &from->fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef QD_EMU_TSAN
    __tsan_switch_to_fiber(to->tsan, QD_EMU_TSAN_NO_ORDER);
#endif
    swap(&from->stack_pointer, to->stack_pointer);
#ifdef QD_EMU_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

void qd_emu_fiber_entered(struct qd_emu_fiber *origin)
{
    (void)origin;
#ifdef QD_EMU_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &bytes);
    if (origin->stack == NULL) origin->stack = (char *)(uintptr_t)bottom, origin->stack_bytes = bytes;
#endif
}

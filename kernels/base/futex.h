/* Waiting for a 32-bit word to change: a bounded spin, then the kernel. The one primitive under thread teams,
 * barriers and groups; it never allocates and makes no system call but futex. Linux only.
 */
#ifndef QD_KERNELS_BASE_FUTEX_H
#define QD_KERNELS_BASE_FUTEX_H

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A word that threads wait on, and how many of them sleep in the kernel, so that a change nobody sleeps for
 * costs no system call. */
struct qd_futex {
    _Atomic uint32_t word;
    _Atomic uint32_t n_sleeping;
};

/* About 40 us on the machines of 2020: longer than the serial part between two parallel regions of a step,
 * shorter than what a scheduler tick would take. */
enum { QD_FUTEX_SPINS = 2000 };

static inline void qd_futex_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Returns once the word differs from `old`; what was written before the change is visible. */
static inline void qd_futex_wait_change(struct qd_futex *futex, uint32_t old, bool may_spin)
{
    for (int i = may_spin ? QD_FUTEX_SPINS : 0; i > 0; i--) {
        if (atomic_load_explicit(&futex->word, memory_order_acquire) != old) return;
        qd_futex_pause();
    }
    /* The sleeper announces itself before the kernel compares the word, the waker changes the word before it
     * looks for sleepers: in the single order of these operations one of the two sees the other. */
    atomic_fetch_add(&futex->n_sleeping, 1);
    while (atomic_load(&futex->word) == old)
        syscall(SYS_futex, &futex->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&futex->n_sleeping, 1);
}

/* Wakes everybody who waits; called after the word has changed by a sequentially consistent operation. */
static inline void qd_futex_wake_all(struct qd_futex *futex)
{
    if (atomic_load(&futex->n_sleeping) > 0)
        syscall(SYS_futex, &futex->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#endif

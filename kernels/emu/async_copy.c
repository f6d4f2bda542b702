#include "kernels/emu/block.h"

enum { COPY_BYTES = 16 };

/* Volatile, word by word: another fiber reads it, and ThreadSanitizer would report a call of memcpy. */
static void store_16(void *dst, uint64_t low, uint64_t high)
{
    ((volatile uint64_t *)dst)[0] = low;
    ((volatile uint64_t *)dst)[1] = high;
}

/* The copy's bytes arrive now: the source is read now, too. */
static void arrive(struct async_copy *c)
{
    if (c->dst == NULL) return;
    qd_emu_touch_read(c->src, c->src_bytes);
    qd_emu_touch_write(c->dst, COPY_BYTES);
    uint64_t words[2] = {0, 0};
    for (uint32_t i = 0; i < c->src_bytes; i++)
        words[i / 8] |= (uint64_t)((const unsigned char *)c->src)[i] << i % 8 * 8;
    store_16(c->dst, words[0], words[1]);
    c->dst = NULL;
}

static void random_arrivals(struct thread *t)
{
    if (t->block->run->mode.arrival != QD_EMU_ARRIVAL_RANDOM) return;
    for (unsigned i = 0; i < t->n_copies; i++)
        if (draw(t->block) % 4 == 0) arrive(&t->copies[i]);
}

void qd_emu_async_copy(uint32_t dst, const void *src, uint32_t src_bytes, struct qd_emu_site site)
{
    struct thread *t = current_thread();
    void *to = qd_emu_shared_pointer(dst, COPY_BYTES, "cp.async", site);
    if (src_bytes > COPY_BYTES) qd_emu_fail(site, "cp.async: %u source bytes", src_bytes);
    if ((uintptr_t)src % COPY_BYTES) qd_emu_fail(site, "cp.async: source %p is not 16-byte aligned", src);
    if (t->n_copies == MAX_COPIES)
        qd_emu_fail(site, "cp.async: more than %d copies on their way", MAX_COPIES);
    t->block->run->counters.async_copy_bytes += src_bytes;
    qd_emu_note_load(src_bytes);
    random_arrivals(t);
    qd_emu_touch_read(src, src_bytes);
    qd_emu_touch_write(to, COPY_BYTES);
    struct async_copy *c = &t->copies[t->n_copies++];
    *c = (struct async_copy){to, src, src_bytes, t->n_groups};
    if (t->block->run->mode.arrival == QD_EMU_ARRIVAL_EAGER)
        arrive(c);
    else
        store_16(to, ~UINT64_C(0), ~UINT64_C(0));
}

void qd_emu_async_commit(void)
{
    struct thread *t = current_thread();
    random_arrivals(t);
    t->n_groups++;
}

void qd_emu_async_wait(unsigned pending)
{
    struct thread *t = current_thread();
    unsigned n_left = 0;
    for (struct async_copy *c = t->copies; c < t->copies + t->n_copies; c++) {
        if (c->group + pending < t->n_groups)
            arrive(c);
        else
            t->copies[n_left++] = *c;
    }
    t->n_copies = n_left;
}

/* What a launch moves, and whether it stores where it has stored before. */
#include "kernels/emu/block.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/status.h"

enum { N_BANKS = 32, BANK_BYTES = 4 };

/* ---- global memory ---- */

/* What a launch may write once. */
static struct range {
    uintptr_t begin;
    size_t bytes;
    uint32_t *writer; /* [bytes] number of the launch that wrote the byte last */
} *ranges; /* [n_ranges] */
static size_t n_ranges;

void qd_emu_write_once(const void *p, size_t bytes)
{
    while (p == NULL && n_ranges > 0) free(ranges[--n_ranges].writer);
    if (p == NULL || bytes == 0) return;
    ranges = realloc(ranges, (n_ranges + 1) * sizeof *ranges);
    QD_ASSERT(ranges != NULL);
    struct range *r = &ranges[n_ranges++];
    *r = (struct range){(uintptr_t)p, bytes, calloc(bytes, sizeof *r->writer)};
    QD_ASSERT(r->writer != NULL);
}

void qd_emu_note_load(size_t bytes)
{
    current_thread()->block->run->counters.loaded_bytes += bytes;
}

void qd_emu_note_store(const void *p, size_t bytes, bool is_atomic, struct qd_emu_site site)
{
    struct run *run = current_thread()->block->run;
    run->counters.stored_bytes += bytes;
    for (const struct range *r = ranges; r < ranges + n_ranges && !is_atomic; r++) {
        const size_t at = (uintptr_t)p - r->begin;
        for (size_t i = at; i < r->bytes && i < at + bytes; i++) {
            if (r->writer[i] == run->number)
                qd_emu_fail(site, "a second store to %p, byte %zu of %zu that a launch may write once",
                            (void *)(r->begin + i), i, r->bytes);
            r->writer[i] = run->number;
        }
    }
}

/* ---- shared memory ---- */

/* One time that the lanes of a warp executed an access. */
struct shared_group {
    uint32_t lanes; /* that came; 0: counted */
    uint32_t address[QD_EMU_WARP_SIZE];
};

/* Each bank gives one word at a time, to as many lanes as want it. */
static unsigned wavefronts(uint32_t lanes, const uint32_t *address, unsigned bytes)
{
    uint32_t words[N_BANKS][QD_EMU_WARP_SIZE]; /* [bank][n_words] that differ */
    unsigned n_words[N_BANKS] = {0}, most = 0;
    for (; lanes; lanes &= lanes - 1) {
        const uint32_t at = address[__builtin_ctz(lanes)];
        for (uint32_t word = at / BANK_BYTES; word * BANK_BYTES < at + bytes; word++) {
            const unsigned bank = word % N_BANKS;
            unsigned i = 0;
            while (i < n_words[bank] && words[bank][i] != word) i++;
            if (i == n_words[bank]) words[bank][n_words[bank]++] = word;
            if (n_words[bank] > most) most = n_words[bank];
        }
    }
    return most;
}

/* Lanes go together whose words fill the banks once: all, half of them at 8 bytes, a quarter at 16. */
void qd_emu_count_shared(struct run *run, uint32_t lanes, const uint32_t *address, unsigned bytes)
{
    const unsigned together = bytes <= BANK_BYTES ? QD_EMU_WARP_SIZE : N_BANKS * BANK_BYTES / bytes;
    for (unsigned lane = 0; lane < QD_EMU_WARP_SIZE; lane += together) {
        const uint32_t part = lanes & ~0u >> (QD_EMU_WARP_SIZE - together) << lane;
        if (part == 0) continue;
        const unsigned n = wavefronts(part, address, bytes);
        run->counters.shared_wavefronts += n;
        run->counters.shared_conflicts += n - 1;
    }
}

static struct shared_access *find_access(struct warp *w, unsigned number)
{
    if (number >= w->n_accesses) {
        const unsigned n = 2 * (number + 1);
        w->accesses = realloc(w->accesses, n * sizeof *w->accesses);
        QD_ASSERT(w->accesses != NULL);
        memset(w->accesses + w->n_accesses, 0, (n - w->n_accesses) * sizeof *w->accesses);
        w->n_accesses = n;
    }
    return &w->accesses[number];
}

/* The group of this lane's next time. */
static struct shared_group *join_group(struct shared_access *a, unsigned lane)
{
    const uint32_t i = a->n_done[lane]++ - a->first;
    if (i == a->capacity) {
        a->capacity = 2 * i + 1;
        a->open = realloc(a->open, a->capacity * sizeof *a->open);
        QD_ASSERT(a->open != NULL);
    }
    if (i == a->n_open) a->open[a->n_open++].lanes = 0;
    a->open[i].lanes |= 1u << lane;
    return &a->open[i];
}

void qd_emu_note_shared(unsigned access, uint32_t address, unsigned bytes)
{
    const struct thread *t = current_thread();
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    struct shared_access *a = find_access(t->warp, access);
    struct shared_group *g = join_group(a, t->self.lane);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    a->bytes = bytes;
    g->address[t->self.lane] = address;
    if (t->warp->alive & ~g->lanes) return;
    qd_emu_count_shared(t->block->run, g->lanes, g->address, bytes);
    g->lanes = 0;
    if (++a->n_counted < a->n_open) return;
    a->first += a->n_open;
    a->n_open = a->n_counted = 0;
}

void qd_emu_accesses_end(struct block *b)
{
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    for (struct warp *w = b->warps; w < b->warps + b->n_warps; w++) {
        for (struct shared_access *a = w->accesses; a < w->accesses + w->n_accesses; a++) {
            for (const struct shared_group *g = a->open; g < a->open + a->n_open; g++)
                qd_emu_count_shared(b->run, g->lanes, g->address, a->bytes);
            free(a->open);
        }
        free(w->accesses);
        w->accesses = NULL;
        w->n_accesses = 0;
    }
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}

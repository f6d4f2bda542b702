#include "tests/support/memory.h"

#include "kernels/base/random.h"
#include "tests/support/test.h"

/* Under AddressSanitizer a read of the guard zones is seen too. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)   ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

enum { ALIGNMENT = 64, GUARD = 256, SENTINEL = 0xa5, POISON = 0xff };

struct guarded guarded_alloc(size_t bytes)
{
    struct guarded g = {.bytes = bytes};
    g.base = aligned_alloc(ALIGNMENT, (bytes + 2 * GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    assert_non_null(g.base);
    memset(g.base, SENTINEL, bytes + 2 * GUARD);
    g.data = g.base + GUARD;
    memset(g.data, POISON, bytes);
    ASAN_POISON_MEMORY_REGION(g.base, GUARD);
    ASAN_POISON_MEMORY_REGION(g.base + GUARD + bytes, GUARD);
    return g;
}

void guarded_check(const char *what, const struct guarded *g)
{
    ASAN_UNPOISON_MEMORY_REGION(g->base, GUARD);
    ASAN_UNPOISON_MEMORY_REGION(g->base + GUARD + g->bytes, GUARD);
    for (size_t i = 0; i < GUARD; i++) {
        if (g->base[GUARD - 1 - i] != SENTINEL)
            fail_msg("%s: wrote %zu bytes before the output", what, i + 1);
        if (g->base[GUARD + g->bytes + i] != SENTINEL)
            fail_msg("%s: wrote byte %zu behind the output of %zu", what, i, g->bytes);
    }
}

void guarded_free(const char *what, struct guarded *g)
{
    guarded_check(what, g);
    free(g->base);
    *g = (struct guarded){0};
}

static double uniform(uint64_t seed, uint64_t index)
{
    return 2.0 * (double)qd_uniform_open(qd_philox(seed, 0x7e57, index).word[0]) - 1.0;
}

void random_bf16(qd_bf16 *out, size_t n, uint64_t seed, double scale)
{
    for (size_t i = 0; i < n; i++) out[i] = qd_bf16_from_f32((float)(scale * uniform(seed, i)));
}

void random_f32(float *out, size_t n, uint64_t seed, double scale)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)(scale * uniform(seed, i));
}

qd_bf16 *new_random_bf16(size_t n, uint64_t seed, double scale)
{
    qd_bf16 *out = malloc(n * sizeof *out);
    assert_non_null(out);
    random_bf16(out, n, seed, scale);
    return out;
}

qd_bf16 *new_norm_weight(size_t n, uint64_t seed)
{
    qd_bf16 *out = new_random_bf16(n, seed, 0.5);
    for (size_t i = 0; i < n; i++) out[i] = qd_bf16_from_f32(1.0f + qd_bf16_to_f32(out[i]));
    return out;
}

uint32_t random_below(uint64_t seed, uint64_t index, uint32_t n)
{
    return (uint32_t)(((uint64_t)qd_philox(seed, 0x1d, index).word[0] * n) >> 32);
}

void poison_bf16(qd_bf16 *out, size_t n)
{
    memset(out, POISON, n * sizeof *out);
}

/* The chained hash of a KV page: of its tokens and of all before them. Two pages with the same hash hold the
 * same keys and values, whichever request computed them.
 *
 * 128 bits: at 10^9 distinct pages two of them agree with a probability below 10^-20. No defence against
 * prompts made to collide; vLLM takes SHA-256 for that.
 */
#ifndef QD_HARNESS_ENGINE_BLOCK_HASH_H
#define QD_HARNESS_ENGINE_BLOCK_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/step.h"

struct qd_block_hash {
    uint64_t word[2];
};

static inline bool qd_block_hash_equal(struct qd_block_hash a, struct qd_block_hash b)
{
    return a.word[0] == b.word[0] && a.word[1] == b.word[1];
}

/* The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection in which every bit reaches all.
 */
static inline uint64_t qd_block_hash_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The hash of QD_KV_BLOCK_SIZE tokens after the page with hash `parent` ({{0, 0}} for the first). */
static inline struct qd_block_hash qd_block_hash_next(struct qd_block_hash parent, const int32_t *tokens)
{
    struct qd_block_hash hash = parent;
    for (int i = 0; i < QD_KV_BLOCK_SIZE; i += 2) {
        uint64_t pair = (uint64_t)(uint32_t)tokens[i] | (uint64_t)(uint32_t)tokens[i + 1] << 32;
        hash.word[0] = qd_block_hash_mix((hash.word[0] ^ pair) + UINT64_C(0x9e3779b97f4a7c15));
        hash.word[1] = qd_block_hash_mix((hash.word[1] + pair) ^ UINT64_C(0xd1342543de82ef95));
    }
    return hash;
}

#endif

/* 64-bit FNV-1a (Fowler, Noll, Vo): a fingerprint of bytes, not a defence against anyone. */
#ifndef QD_KERNELS_BASE_HASH_H
#define QD_KERNELS_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define QD_HASH_START UINT64_C(0xcbf29ce484222325)

/* Continues `hash` (QD_HASH_START at first) over data[0..n_bytes). */
static inline uint64_t qd_hash(uint64_t hash, const void *data, size_t n_bytes)
{
    const unsigned char *bytes = (const unsigned char *)data;
    for (size_t i = 0; i < n_bytes; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#endif

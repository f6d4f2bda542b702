/* bfloat16 as a bit pattern: conversion to and from fp32, round to nearest, ties to even. */
#ifndef QD_KERNELS_BASE_BF16_H
#define QD_KERNELS_BASE_BF16_H

#include <stdint.h>
#include <string.h>

typedef uint16_t qd_bf16; /* upper half of an IEEE binary32 */

static inline float qd_bf16_to_f32(qd_bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest even; overflow becomes infinity; NaN stays NaN (made quiet). */
static inline qd_bf16 qd_bf16_from_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (qd_bf16)((bits >> 16) | 0x0040u);
    return (qd_bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* r(x): x rounded to bf16 and widened again. */
static inline float qd_bf16_round(float f)
{
    return qd_bf16_to_f32(qd_bf16_from_f32(f));
}

#endif

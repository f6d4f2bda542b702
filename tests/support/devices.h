/* Devices for tests: one rank, its weights, its KV pool. */
#ifndef QD_TESTS_SUPPORT_DEVICES_H
#define QD_TESTS_SUPPORT_DEVICES_H

#include "kernels/device.h"

/* What differs between two openings of a device in a test. */
struct setting {
    const char *isa; /* "portable", "avx2" */
    int n_threads;
    enum qd_numerics numerics;
};

/* A shape with room for every test that does not care: hidden 1024, ffn 1024, vocabulary 1031, 2 layers. */
struct qd_model_shape test_shape(int32_t n_heads, int32_t n_kv_heads, int32_t head_dim);

/* Opens one rank (tp 1) with limits of 2048 tokens, 128 sequences, kv_len up to 2048; fails the test when the
 * device refuses. Close with device_close. */
struct qd_device device_open(const struct qd_device_ops *ops, struct setting setting,
                             struct qd_model_shape shape);
void device_close(struct qd_device *device);

/* Entries of a cmocka table: one for each instruction set of the cpu device, its name as the state. */
#define EVERY_ISA(test)                                                                                      \
    {#test "_portable", test, NULL, NULL, "portable"},                                                       \
    {                                                                                                        \
#test "_avx2", test, NULL, NULL, "avx2"                                                              \
    }

/* Whether this processor can run the instruction set. */
bool has_isa(const char *isa);

/* Skips the running test, with the reason, where this processor cannot run the instruction set. */
void need_isa(const char *isa);

/* The same for tests of the whole model, which under a sanitizer run with one instruction set: skips the others. */
void need_isa_for_model(const char *isa);

/* rows [n][k] row-major, copied into the device and packed. */
struct qd_weight device_weight(struct qd_device device, const qd_bf16 *rows, int64_t n, int64_t k);

/* One layer's pool, every byte of it NaN. */
struct qd_kv_layer device_kv(struct qd_device device, int32_t n_kv_blocks, int32_t n_kv_heads,
                             int32_t head_dim);

#endif

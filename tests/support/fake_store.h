/* Devices with memory of their own that is the host's: they only arrange weights, in stores, and tell their
 * sizes. Copies happen as late as the contract allows, so that staging which is filled anew too early shows,
 * and only from staging. */
#ifndef QD_TESTS_SUPPORT_FAKE_STORE_H
#define QD_TESTS_SUPPORT_FAKE_STORE_H

#include "kernels/device.h"

enum { FAKE_MAX_DEVICES = 8 };

/* What happened since fake_stores_reset. */
struct fake_stores {
    int n_devices;                                       /* ranks are dealt over these: set by the test */
    struct qd_device_memory memory[FAKE_MAX_DEVICES];    /* of each; n_devices is filled in */
    size_t working_bytes, graph_bytes, collective_bytes; /* of a rank */
    int max_asked;                                       /* the highest rank whose memory was asked for */
    int fail_copy;                                       /* this copy fails, counted from 1; 0: none */
    int n_open, n_copies;                                /* stores; copies started */
    size_t opened_bytes;                                 /* of all stores */
    size_t staging_bytes, max_staging_bytes;             /* allocated now, and at most */
};
extern struct fake_stores fake_stores;
void fake_stores_reset(int n_devices); /* of 80 GiB, all free */

extern const struct qd_device_ops fake_store_ops;

#endif

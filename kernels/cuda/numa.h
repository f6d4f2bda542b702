/* Host threads and page-locked memory beside the GPU that they serve: what sysfs knows of a PCI device. */
#ifndef QD_KERNELS_CUDA_NUMA_H
#define QD_KERNELS_CUDA_NUMA_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Restricts the calling thread to those of its cores that lie on the NUMA node of PCI device `pci_id`
 * ("0000:3b:00.0"), so that memory it touches first lies there too; threads that it makes inherit that.
 * `root` stands before /sys: "" but in tests. False, and nothing changed, when sysfs names no node (one node,
 * a virtual machine) or none of the thread's cores is there. */
bool qd_cuda_numa_bind(const char *root, const char *pci_id);

#ifdef __cplusplus
}
#endif

#endif

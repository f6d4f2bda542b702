/* What differs between the emulator and a GPU: the runner's modes (runner.h). A mode is a number from 0. */
#ifndef QD_TESTS_GPU_RUNNER_MODES_H
#define QD_TESTS_GPU_RUNNER_MODES_H

#include <stddef.h>

namespace gpu_modes {

int count();
/* Before the test runs in this mode; what was declared or counted before is forgotten. */
void set(int mode);
/* Sums of products differ from those of the other modes: other bits are right there. */
bool has_other_sums(int mode);
/* What fills memory that nobody wrote. */
int poison_byte(int mode);
/* Whether a guard zone follows an allocation. */
bool has_guard_behind(int mode);
/* Forgets a kernel's failure, which every call would report from now on. */
void recover();
/* Loads every PTX module of a folder; false, with the reason on stderr, when one is refused or there is none.
 */
bool load_ptx(const char *folder);
/* Whether a kernel ran from source although all were to be interpreted. */
bool has_called_source();

} // namespace gpu_modes

#endif

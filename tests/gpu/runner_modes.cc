#include "tests/gpu/runner_modes.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/gpu/runner.h"
#ifdef QD_EMU
#include <dirent.h>

#include "kernels/emu/mode.h"

namespace {

enum { FIXED_MODES = 2, DEFAULT_SEEDS = 2, PTX_MODES = 2 };

/* The PTX front end runs the kernels: one fixed mode with latest arrival, one random and eager. */
bool is_ptx;

int n_seeds()
{
    const char *seeds = getenv("QD_GPU_SEEDS");
    return seeds != NULL ? atoi(seeds) : DEFAULT_SEEDS;
}

} // namespace

int gpu_modes::count()
{
    return is_ptx ? PTX_MODES : FIXED_MODES + n_seeds() + 1;
}

/* The last mode sums products in double. */
bool gpu_modes::has_other_sums(int mode)
{
    return !is_ptx && mode == count() - 1;
}

void gpu_modes::set(int number)
{
    static const enum qd_emu_arrival arrivals[] = {QD_EMU_ARRIVAL_LATEST, QD_EMU_ARRIVAL_EAGER,
                                                   QD_EMU_ARRIVAL_RANDOM};
    const bool is_random = is_ptx ? number > 0 : number >= FIXED_MODES && !has_other_sums(number);
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.schedule = is_random ? QD_EMU_SCHEDULE_RANDOM : QD_EMU_SCHEDULE_FIXED;
    mode.arrival = arrivals[is_random ? number % 3 : number % 2];
    mode.mma_sum = has_other_sums(number) ? QD_EMU_MMA_SUM_F64 : QD_EMU_MMA_SUM_F32;
    mode.seed = static_cast<uint64_t>(number);
    mode.shared_base_odd = number % 2 == 1;
    qd_emu_set_mode(&mode);
    qd_emu_write_once(NULL, 0);
    qd_emu_reset_counters();
}

int gpu_modes::poison_byte(int)
{
    return 0xff;
}

/* Without a guard zone the emulator's own end of the allocation shows reads, too. */
bool gpu_modes::has_guard_behind(int mode)
{
    return mode % 2 == 0;
}

void gpu_modes::recover()
{
    qd_emu_shutdown();
}

bool gpu_modes::load_ptx(const char *folder)
{
    char path[4096], err[QD_ERR_LEN];
    DIR *dir = opendir(folder);
    is_ptx = false;
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot == NULL || strcmp(dot, ".ptx") != 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (qd_emu_ptx_load(path, err, sizeof err) != 0) {
            fprintf(stderr, "%s\n", err);
            closedir(dir);
            return false;
        }
        is_ptx = true;
    }
    if (dir != NULL) closedir(dir);
    if (!is_ptx) fprintf(stderr, "%s: no PTX modules\n", folder);
    return is_ptx;
}

bool gpu_modes::has_called_source()
{
    const struct qd_emu_ptx_counts counts = qd_emu_ptx_read_counts();
    if (is_ptx)
        printf("launches: %llu of PTX, %llu of source\n", static_cast<unsigned long long>(counts.interpreted),
               static_cast<unsigned long long>(counts.called));
    return counts.called > 0;
}

void *gpu_write_once(void *p, size_t bytes)
{
    qd_emu_write_once(p, bytes);
    return p;
}

struct qd_emu_counters gpu_take_counters(void)
{
    if (!is_ptx) gpu_skip("only where PTX is interpreted is all counted: nvcc made none, or no --ptx");
    gpu_synchronize();
    const struct qd_emu_counters counters = qd_emu_read_counters();
    qd_emu_reset_counters();
    return counters;
}

#else

int gpu_modes::count()
{
    return 4;
}

void gpu_modes::set(int) {}

bool gpu_modes::has_other_sums(int)
{
    return false;
}

int gpu_modes::poison_byte(int mode)
{
    return mode % 2 == 0 ? 0xff : 0x7f;
}

bool gpu_modes::has_guard_behind(int)
{
    return true;
}

void gpu_modes::recover() {}

bool gpu_modes::load_ptx(const char *)
{
    fprintf(stderr, "--ptx is for the emulator\n");
    return false;
}

bool gpu_modes::has_called_source()
{
    return false;
}

void *gpu_write_once(void *p, size_t)
{
    return p;
}

struct qd_emu_counters gpu_take_counters(void)
{
    gpu_skip("a GPU does not count what the emulator counts");
}

#endif

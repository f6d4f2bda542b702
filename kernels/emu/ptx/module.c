/* Loaded modules, and which launches they take over. */
#include "kernels/emu/ptx/ptx.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/status.h"
#include "kernels/emu/ptx/internal.h"

static struct qd_ptx_module *modules;
static atomic_ullong n_interpreted, n_called;

/* ---- files ---- */

struct mapping {
    const char *data;
    size_t bytes;
};

static bool map_file(const char *path, struct mapping *m, char *err, size_t errlen)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        qd_fail(QD_ERR_IO, err, errlen, "%s: %s", path, strerror(errno));
        if (file >= 0) close(file);
        return false;
    }
    m->bytes = (size_t)status.st_size;
    m->data = m->bytes > 0 ? mmap(NULL, m->bytes, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    close(file);
    if (m->data != MAP_FAILED) return true;
    qd_fail(QD_ERR_IO, err, errlen, "%s: %s", path, m->bytes > 0 ? strerror(errno) : "is empty");
    return false;
}

static void unmap_file(const struct mapping *m)
{
    munmap((void *)(uintptr_t)m->data, m->bytes);
}

/* ---- the program's functions ---- */

/* How far the program was moved from the addresses in its file: of the first object, which is the program. */
static int note_base(struct dl_phdr_info *info, size_t bytes, void *base)
{
    (void)bytes;
    *(uintptr_t *)base = info->dlpi_addr;
    return 1;
}

static void match_symbol(struct qd_ptx_entry *entries, const char *name, const void *address)
{
    for (struct qd_ptx_entry *e = entries; e != NULL; e = e->next)
        if (strcmp(e->name, name) == 0) e->kernel = address;
}

/* Hidden functions are in the file's own symbol table only, so dladdr would not find them. */
static bool find_kernels(struct qd_ptx_module *module, char *err, size_t errlen)
{
    static const char program[] = "/proc/self/exe";
    struct mapping m;
    uintptr_t base = 0;
    bool found = false;
    if (!map_file(program, &m, err, errlen)) return false;
    dl_iterate_phdr(note_base, &base);
    const Elf64_Ehdr *header = (const void *)m.data;
    const Elf64_Shdr *sections = (const void *)(m.data + header->e_shoff);
    for (unsigned i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        const Elf64_Sym *symbols = (const void *)(m.data + sections[i].sh_offset);
        const char *names = m.data + sections[sections[i].sh_link].sh_offset;
        for (size_t s = 0; s < sections[i].sh_size / sizeof *symbols; s++)
            if (ELF64_ST_TYPE(symbols[s].st_info) == STT_FUNC)
                match_symbol(module->entries, names + symbols[s].st_name,
                             (const void *)(base + symbols[s].st_value));
        found = true;
    }
    unmap_file(&m);
    if (!found) qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "the program's symbols were stripped");
    return found;
}

/* ---- launches ---- */

/* The entry of a name, or of a kernel of the program; NULL when no module has it. */
static const struct qd_ptx_entry *find_entry(const char *name, const void *kernel)
{
    for (const struct qd_ptx_module *m = modules; m != NULL; m = m->next)
        for (const struct qd_ptx_entry *e = m->entries; e != NULL; e = e->next)
            if (name != NULL ? strcmp(e->name, name) == 0 : e->kernel == kernel) return e;
    return NULL;
}

/* Makes the launch one of the entry. 0, or -1 with a text when they do not fit. */
static int take_over(struct qd_emu_launch *launch, const struct qd_ptx_entry *e, const unsigned *arg_sizes,
                     unsigned n_args, char *err, size_t errlen)
{
    launch->call = qd_ptx_run_thread;
    launch->kernel = e;
    const unsigned n_threads = launch->block[0] * launch->block[1] * launch->block[2];
    if (e->max_threads > 0 && n_threads > e->max_threads) {
        qd_fail(QD_ERR_ARGUMENT, err, errlen,
                "kernel %s: a block of %u threads, compiled for at most %u (%s)", launch->name, n_threads,
                e->max_threads, e->name);
        return -1;
    }
    if (n_args != e->n_params) {
        qd_fail(QD_ERR_ARGUMENT, err, errlen, "kernel %s: %u arguments for %u parameters of %s", launch->name,
                n_args, e->n_params, e->name);
        return -1;
    }
    for (unsigned i = 0; i < n_args; i++) {
        if (arg_sizes[i] == e->params[i].bytes) continue;
        qd_fail(QD_ERR_ARGUMENT, err, errlen, "kernel %s: argument %u of %u bytes for a parameter of %u (%s)",
                launch->name, i, arg_sizes[i], e->params[i].bytes, e->name);
        return -1;
    }
    return 0;
}

static int replace_launch(struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args, char *err,
                          size_t errlen)
{
    const struct qd_ptx_entry *e = find_entry(NULL, launch->kernel);
    if (e == NULL) {
        n_called++;
        return 0;
    }
    n_interpreted++;
    return take_over(launch, e, arg_sizes, n_args, err, errlen);
}

int qd_emu_ptx_run(const struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args, char *err,
                   size_t errlen)
{
    struct qd_emu_launch interpreted = *launch;
    const struct qd_ptx_entry *e = find_entry(launch->name, NULL);
    if (e == NULL) {
        qd_fail(QD_ERR_NOT_FOUND, err, errlen, "no loaded module has an entry %s", launch->name);
        return -1;
    }
    if (take_over(&interpreted, e, arg_sizes, n_args, err, errlen) != 0) return -1;
    return qd_emu_run_grid(&interpreted, err, errlen);
}

struct qd_emu_ptx_counts qd_emu_ptx_read_counts(void)
{
    return (struct qd_emu_ptx_counts){n_interpreted, n_called};
}

/* ---- modules ---- */

static void destroy(struct qd_ptx_module *m)
{
    while (m->entries != NULL) {
        struct qd_ptx_entry *e = m->entries;
        m->entries = e->next;
        free(e->name);
        free(e->code);
        free(e->initial);
        free(e->bindings);
        free(e);
    }
    while (m->shared != NULL) {
        struct qd_ptx_shared *object = m->shared;
        m->shared = object->next;
        free(object->name);
        free(object);
    }
    free(m->path);
    free(m);
}

static bool check_names(const struct qd_ptx_module *m, char *err, size_t errlen)
{
    for (const struct qd_ptx_entry *e = m->entries; e != NULL; e = e->next) {
        const struct qd_ptx_entry *other = find_entry(e->name, NULL);
        if (other == NULL) continue;
        qd_fail(QD_ERR_INPUT, err, errlen, "%s: entry %s is in %s, too", m->path, e->name, other->file);
        return false;
    }
    return true;
}

int qd_emu_ptx_load(const char *path, char *err, size_t errlen)
{
    struct mapping text;
    if (!map_file(path, &text, err, errlen)) return -1;
    struct qd_ptx_module *m = calloc(1, sizeof *m);
    QD_ASSERT(m != NULL);
    m->path = qd_ptx_string((struct qd_ptx_text){path, strlen(path)});
    struct qd_ptx_loader loader = {
        .module = m, .at = text.data, .end = text.data + text.bytes, .err = err, .errlen = errlen};
    const bool done = qd_ptx_parse(&loader) && check_names(m, err, errlen) && find_kernels(m, err, errlen);
    unmap_file(&text);
    if (!done) {
        destroy(m);
        return -1;
    }
    m->next = modules;
    modules = m;
    qd_emu_set_replace(replace_launch);
    return 0;
}

void qd_emu_ptx_unload_all(void)
{
    qd_emu_set_replace(NULL);
    while (modules != NULL) {
        struct qd_ptx_module *m = modules;
        modules = m->next;
        destroy(m);
    }
    n_interpreted = n_called = 0;
}

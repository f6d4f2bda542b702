/* Loaded modules, and which launches they take over. */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/emu/ptx/internal.h"

static struct qd_ptx_module *modules;
static atomic_ullong n_interpreted, n_called;

/* ---- launches ---- */

/* NULL when no module has it. */
static const struct qd_ptx_entry *find_entry(const char *name)
{
    for (const struct qd_ptx_module *m = modules; m != NULL; m = m->next)
        for (const struct qd_ptx_entry *e = m->entries; e != NULL; e = e->next)
            if (strcmp(e->name, name) == 0) return e;
    return NULL;
}

/* The symbol of the kernel's address is the entry's name: the program exports its kernels (-rdynamic). */
int qd_emu_ptx_replace(struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args, char *err,
                       size_t errlen)
{
    Dl_info info = {.dli_sname = launch->name};
    const bool is_known =
        launch->kernel == NULL || (dladdr(launch->kernel, &info) != 0 && info.dli_saddr == launch->kernel);
    const struct qd_ptx_entry *e = is_known ? find_entry(info.dli_sname) : NULL;
    if (e == NULL) {
        n_called++;
        return 0;
    }
    n_interpreted++;
    launch->call = qd_ptx_run_thread;
    launch->kernel = e;
    const unsigned n_threads = launch->block.x * launch->block.y * launch->block.z;
    char why[QD_ERR_LEN] = "";
    if (e->max_threads > 0 && n_threads > e->max_threads)
        snprintf(why, sizeof why, "a block of %u threads, compiled for at most %u", n_threads,
                 e->max_threads);
    if (n_args != e->n_params)
        snprintf(why, sizeof why, "%u arguments for %u parameters", n_args, e->n_params);
    for (unsigned i = 0; i < n_args && *why == '\0'; i++)
        if (arg_sizes[i] != e->param_bytes[i])
            snprintf(why, sizeof why, "argument %u of %u bytes for a parameter of %u", i, arg_sizes[i],
                     e->param_bytes[i]);
    if (*why == '\0') return 0;
    qd_fail(QD_ERR_ARGUMENT, err, errlen, "kernel %s: %s (%s)", launch->name, why, e->name);
    return -1;
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
        free(e->code);
        free(e->starts);
        free(e);
    }
    while (m->shared != NULL) {
        struct qd_ptx_shared *object = m->shared;
        m->shared = object->next;
        free(object);
    }
    free(m->path);
    free(m->words);
    free(m);
}

/* The whole file, which has no NUL; NULL with a text. */
static char *read_file(const char *path, char *err, size_t errlen)
{
    char *text = NULL;
    size_t capacity = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL || getdelim(&text, &capacity, '\0', file) < 0) {
        qd_fail(QD_ERR_IO, err, errlen, "%s: %s", path,
                file == NULL || ferror(file) ? strerror(errno) : "is empty");
        free(text);
        text = NULL;
    }
    if (file != NULL) fclose(file);
    return text;
}

int qd_emu_ptx_load(const char *path, char *err, size_t errlen)
{
    char *text = read_file(path, err, errlen);
    if (text == NULL) return -1;
    struct qd_ptx_module *m = calloc(1, sizeof *m);
    QD_ASSERT(m != NULL);
    m->path = strdup(path);
    QD_ASSERT(m->path != NULL);
    const bool done = qd_ptx_parse(m, text, err, errlen);
    free(text);
    if (!done) {
        destroy(m);
        return -1;
    }
    m->next = modules;
    modules = m;
    qd_emu_set_replace(qd_emu_ptx_replace);
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

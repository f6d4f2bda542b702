/* qdyno: picks the command, parses its options, maps its outcome to an exit code. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/commands.h"
#include "harness/cli/stream.h"
#include "harness/cli/version.h"
#include "harness/result/run_result.h"
#include "kernels/device.h"

static const struct qd_command *const commands[] = {
    &qd_command_run,      &qd_command_sweep, &qd_command_report,   &qd_command_sched,
    &qd_command_generate, &qd_command_eval,  &qd_command_tokenize, &qd_command_kernels,
    &qd_command_doctor,
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out)
{
    fprintf(out, "usage: qdyno COMMAND [OPTION...]      qdyno COMMAND --help\n\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "\n  --version prints version, commit, result schema and devices\n"
                 "exit codes: 0 ok, 1 failed check, 2 usage or bad input, 3 environment, 5 partial results, "
                 "130 interrupted\n");
}

static void print_version(void)
{
    printf("qdyno %s, commit %s, result schema %d, devices:", qd_version(), qd_commit(),
           QD_RESULT_SCHEMA_VERSION);
    for (const struct qd_device_ops *const *device = qd_device_list(); *device != NULL; device++)
        printf(" %s", (*device)->name);
    const struct qd_device_ops *cuda;
    char why[QD_ERR_LEN];
    printf(qd_device_get("cuda", &cuda, why, sizeof why) == QD_OK ? " cuda\n" : "\n");
}

static int pick(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return QD_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return QD_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        print_version();
        return QD_EXIT_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i]->name) != 0) continue;
        struct qd_options options;
        char err[QD_ERR_LEN] = "";
        qd_status status = qd_options_parse(commands[i], argc - 1, argv + 1, &options, err, sizeof err);
        if (status == QD_ERR_ABORTED) return QD_EXIT_OK;
        if (status != QD_OK) return qd_command_fail(commands[i], status, err);
        return commands[i]->run(commands[i], &options);
    }
    fprintf(stderr, "qdyno: unknown command \"%s\" (see qdyno --help)\n", argv[1]);
    return QD_EXIT_USAGE;
}

/* What was printed but did not arrive (a full disk) turns success into an error. After a failed rank nothing
 * that is registered for the end runs: it could wait for what the rank, or its device, hangs in. */
int main(int argc, char **argv)
{
    int exit_code = pick(argc, argv);
    char err[QD_ERR_LEN];
    qd_status status = qd_stream_flush(stdout, err, sizeof err);
    if (exit_code == QD_EXIT_PARTIAL) _exit(exit_code);
    if (exit_code != QD_EXIT_OK || status == QD_OK) return exit_code;
    fprintf(stderr, "qdyno: %s\n", err);
    return qd_exit_code(status);
}

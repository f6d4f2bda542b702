#include "harness/cli/run_svg.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/result/files.h"
#include "models/utf8.h"

extern char **environ;

/* ---- gnuplot ---- */

/* Runs gnuplot (argv[0]) from one file into another; what it says goes to standard error. */
static qd_status run_gnuplot(char *const *argv, int in, int out, char *err, size_t errlen)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int state = 0, error = posix_spawn_file_actions_init(&actions);
    if (error != 0) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory to start gnuplot");
    error = posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    if (error == 0) error = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen,
                       "--ledger-svg: gnuplot cannot be started: %s (Debian package gnuplot-nox)",
                       strerror(error));
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return QD_OK;
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "--ledger-svg: gnuplot failed");
}

qd_status qd_run_svg_check(const char *path, char *err, size_t errlen)
{
    char *const argv[] = {"gnuplot", "--version", NULL};
    if (path == NULL) return QD_OK;
    QD_TRY(qd_file_check_writable(path, err, errlen));
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0) return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "/dev/null: %s", strerror(errno));
    qd_status st = run_gnuplot(argv, nothing, nothing, err, errlen);
    close(nothing);
    return st;
}

/* ---- its script ---- */

/* In quotes; gnuplot escapes what XML must not hold, but for control characters and ill-formed UTF-8. */
static void print_text(FILE *out, const char *text)
{
    size_t len = strlen(text), n;
    fputc('\'', out);
    for (size_t i = 0; i < len; i += n) {
        bool is_valid = qd_utf8_step(text + i, len - i, &n) == QD_UTF8_VALID;
        if (!is_valid || (unsigned char)text[i] < ' ' || text[i] == '\x7f')
            fputc('?', out);
        else if (text[i] == '\'')
            fputs("''", out);
        else
            fwrite(text + i, 1, n, out);
    }
    fputc('\'', out);
}

/* Where the bars begin and end: totals at 0, terms where the total or term above them ended. What is not
 * known has none. */
struct bars {
    struct qd_waterfall_line lines[QD_WATERFALL_LINES];
    double begin[QD_WATERFALL_LINES], end[QD_WATERFALL_LINES]; /* ms a step; NAN: none */
    double least, most;
};

static struct bars place_bars(const struct qd_ledger *ledger)
{
    struct bars b = {0};
    double at = 0;
    qd_waterfall_lines(&ledger->waterfall, b.lines);
    for (int i = 0; i < QD_WATERFALL_LINES; i++) {
        double ms = b.lines[i].ns / 1e6 / (double)ledger->n_steps;
        b.begin[i] = b.lines[i].sign == '+' ? at : 0;
        b.end[i] = b.begin[i] + ms;
        if (isnan(ms)) continue;
        at = b.end[i];
        b.least = fmin(b.least, at);
        b.most = fmax(b.most, at);
    }
    return b;
}

static void print_script(FILE *out, const char *title, const struct qd_ledger *ledger)
{
    struct bars b = place_bars(ledger);
    double wall_ns = ledger->waterfall.wall, room = 0.3 * (b.most - b.least); /* for the values beside bars */
    fputs("set terminal svg size 960,440 font 'sans-serif,13' noenhanced background rgb 'white'\n"
          "set encoding utf8\nunset key\nset grid xtics\nset xlabel 'ms a step'\nset title ",
          out);
    print_text(out, title);
    fprintf(out, "\nset yrange [%d.5:0.5]\nset xrange [%.9g:%.9g]\nset ytics (", QD_WATERFALL_LINES, b.least,
            b.most > b.least ? b.most + room : b.least + 1);
    for (int i = 0; i < QD_WATERFALL_LINES; i++)
        fprintf(out, "%s'%.1s%s%s' %d", i > 0 ? ", " : "", b.lines[i].sign == ' ' ? "" : &b.lines[i].sign,
                b.lines[i].sign == ' ' ? "" : " ", b.lines[i].name, i + 1);
    fputs(")\n", out);
    for (int i = 0; i < QD_WATERFALL_LINES; i++) {
        double ms = b.lines[i].ns / 1e6 / (double)ledger->n_steps;
        double right = isnan(ms) ? b.begin[i] : fmax(b.begin[i], b.end[i]);
        fprintf(out, "set label ");
        if (isnan(ms))
            fprintf(out, "'unknown'");
        else if (wall_ns > 0)
            fprintf(out, "'%.4f ms, %.1f %%'", ms, 100 * b.lines[i].ns / wall_ns);
        else
            fprintf(out, "'%.4f ms'", ms);
        fprintf(out, " at %.9g,%d offset 0.5,0\n", right, i + 1);
    }
    fputs("$bars << END\n", out);
    for (int i = 0; i < QD_WATERFALL_LINES; i++)
        if (!isnan(b.end[i]))
            fprintf(out, "%.9g %.9g %d %s\n", fmin(b.begin[i], b.end[i]), fmax(b.begin[i], b.end[i]), i + 1,
                    b.lines[i].sign == '+' ? "0xee8866" : "0x4477aa");
    fputs("END\nplot $bars using (($1+$2)/2):3:1:2:($3-0.35):($3+0.35):4 with boxxyerror fill solid "
          "linecolor rgb variable\n",
          out);
}

qd_status qd_run_svg_write(const char *path, const char *title, const struct qd_ledger *ledger, char *err,
                           size_t errlen)
{
    char *const argv[] = {"gnuplot", "--default-settings", NULL};
    struct qd_atomic_file file;
    if (ledger->n_steps == 0) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: there is no step to draw", path);
    FILE *script = tmpfile();
    if (script == NULL)
        return qd_fail(QD_ERR_IO, err, errlen, "%s: no temporary file: %s", path, strerror(errno));
    print_script(script, title, ledger);
    bool is_written = fflush(script) == 0 && !ferror(script);
    rewind(script);
    qd_status st = is_written ? qd_atomic_file_open(&file, path, err, errlen)
                              : qd_fail(QD_ERR_IO, err, errlen, "%s: its script cannot be written", path);
    if (st == QD_OK) {
        st = run_gnuplot(argv, fileno(script), fileno(file.stream), err, errlen);
        if (st == QD_OK)
            st = qd_atomic_file_commit(&file, err, errlen);
        else
            qd_atomic_file_discard(&file);
    }
    fclose(script);
    return st;
}

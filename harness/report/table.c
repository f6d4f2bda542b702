#include "harness/report/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void qd_table_init(struct qd_table *table, const char *align)
{
    *table = (struct qd_table){.n_columns = (int)strlen(align), .align = align, .ok = true};
}

/* A copy of `text` that cannot end a table cell. */
static char *escape(const char *text)
{
    char *copy = malloc(2 * strlen(text) + 1), *out = copy;
    if (copy == NULL) return NULL;
    for (; *text != '\0'; text++) {
        if (*text == '|') *out++ = '\\';
        *out++ = (unsigned char)*text < ' ' ? ' ' : *text;
    }
    *out = '\0';
    return copy;
}

static bool make_room(struct qd_table *table)
{
    if (table->n < table->room) return true;
    size_t room = table->room > 0 ? 2 * table->room : 64;
    char **grown = realloc(table->cells, room * sizeof *grown);
    if (grown == NULL) return false;
    table->cells = grown;
    table->room = room;
    return true;
}

void qd_table_add(struct qd_table *table, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    char *cell = n >= 0 ? escape(text) : NULL;
    if (n >= 0) free(text);
    table->ok = table->ok && cell != NULL && make_room(table);
    if (table->ok)
        table->cells[table->n++] = cell;
    else
        free(cell);
}

/* Characters, not bytes: continuation bytes of UTF-8 take no column. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

static int column_width(const struct qd_table *table, size_t column)
{
    int widest = 3; /* the shortest ruler GitHub takes */
    for (size_t i = column; i < table->n; i += (size_t)table->n_columns) {
        int width = width_of(table->cells[i]);
        if (width > widest) widest = width;
    }
    return widest;
}

static void print_ruler(const struct qd_table *table, const int *widths, FILE *out)
{
    fputc('|', out);
    for (int c = 0; c < table->n_columns; c++) {
        bool right = table->align[c] == 'r';
        fputc(right ? ' ' : ':', out);
        for (int i = 0; i < widths[c]; i++)
            fputc('-', out);
        fputs(right ? ":|" : " |", out);
    }
    fputc('\n', out);
}

static void print_row(const struct qd_table *table, size_t row, const int *widths, FILE *out)
{
    fputc('|', out);
    for (int c = 0; c < table->n_columns; c++) {
        const char *text = table->cells[row * (size_t)table->n_columns + (size_t)c];
        int pad = widths[c] - width_of(text);
        if (table->align[c] == 'r')
            fprintf(out, " %*s%s |", pad, "", text);
        else
            fprintf(out, " %s%*s |", text, pad, "");
    }
    fputc('\n', out);
}

static void release(struct qd_table *table)
{
    for (size_t i = 0; i < table->n; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct qd_table){0};
}

qd_status qd_table_print(struct qd_table *table, FILE *out)
{
    int *widths = malloc((size_t)table->n_columns * sizeof *widths);
    bool ok = table->ok && widths != NULL;
    if (ok) {
        QD_ASSERT(table->n % (size_t)table->n_columns == 0);
        for (int c = 0; c < table->n_columns; c++)
            widths[c] = column_width(table, (size_t)c);
        print_row(table, 0, widths, out);
        print_ruler(table, widths, out);
        for (size_t row = 1; row < table->n / (size_t)table->n_columns; row++)
            print_row(table, row, widths, out);
        fputc('\n', out);
    }
    free(widths);
    release(table);
    return ok ? QD_OK : QD_ERR_NO_MEMORY;
}

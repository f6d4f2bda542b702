#include "harness/result/csv.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Where the parser stands. Fields are terminated in place: unquoting only ever shortens. */
struct cursor {
    char *read, *write, *end;
    size_t line;
    const char *reason; /* NULL, or why the current field is wrong */
};

/* Reads a quoted field; `read` is behind the opening quote. */
static void read_quoted(struct cursor *c)
{
    for (;;) {
        if (c->read == c->end) {
            c->reason = "a quoted field does not end";
            return;
        }
        char ch = *c->read++;
        if (ch == '\n') c->line++;
        if (ch == '"') {
            if (c->read == c->end || *c->read != '"') return;
            c->read++;
        }
        *c->write++ = ch;
    }
}

static void read_plain(struct cursor *c)
{
    while (c->read < c->end && strchr(",\n\r", *c->read) == NULL) {
        if (*c->read == '"') {
            c->reason = "a quote inside an unquoted field";
            return;
        }
        *c->write++ = *c->read++;
    }
}

/* Reads one field and what ends it; *last is true at the end of the row. Returns the field. */
static char *read_field(struct cursor *c, bool *last)
{
    char *field = c->write;
    if (c->read < c->end && *c->read == '"') {
        c->read++;
        read_quoted(c);
    } else {
        read_plain(c);
    }
    if (c->reason != NULL) return field;
    char stop = '\n';
    if (c->read < c->end) {
        stop = *c->read++;
        if (stop == '\r') {
            if (c->read < c->end && *c->read == '\n') c->read++;
            stop = '\n';
        }
        if (stop != ',' && stop != '\n') c->reason = "text behind a quoted field";
    }
    *last = stop == '\n';
    /* The character that ended the field has been read, or text[len] is the room of one. */
    *c->write++ = '\0';
    return field;
}

/* Fields of all rows so far, growing. */
struct grid {
    char **fields;
    size_t *lines;
    size_t n_fields, fields_room, n_lines, lines_room;
};

static bool push_field(struct grid *g, char *field)
{
    if (g->n_fields == g->fields_room) {
        size_t room = g->fields_room > 0 ? 2 * g->fields_room : 256;
        char **grown = realloc(g->fields, room * sizeof *grown);
        if (grown == NULL) return false;
        g->fields = grown;
        g->fields_room = room;
    }
    g->fields[g->n_fields++] = field;
    return true;
}

static bool push_line(struct grid *g, size_t line)
{
    if (g->n_lines == g->lines_room) {
        size_t room = g->lines_room > 0 ? 2 * g->lines_room : 64;
        size_t *grown = realloc(g->lines, room * sizeof *grown);
        if (grown == NULL) return false;
        g->lines = grown;
        g->lines_room = room;
    }
    g->lines[g->n_lines++] = line;
    return true;
}

static bool skip_blank_lines(struct cursor *c)
{
    while (c->read < c->end && (*c->read == '\n' || *c->read == '\r')) {
        if (*c->read == '\n') c->line++;
        c->read++;
    }
    return c->read < c->end;
}

static qd_status read_row(struct cursor *c, const char *name, struct grid *g, size_t *n_columns, char *err,
                          size_t errlen)
{
    size_t line = c->line, width = 0;
    bool last = false;
    while (!last) {
        char *field = read_field(c, &last);
        if (c->reason != NULL) return qd_fail(QD_ERR_INPUT, err, errlen, "%s:%zu: %s", name, line, c->reason);
        if (!push_field(g, field)) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", name);
        if (++width > QD_CSV_MAX_COLUMNS)
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s:%zu: more than %d columns", name, line,
                           QD_CSV_MAX_COLUMNS);
    }
    c->line++;
    if (*n_columns == 0) *n_columns = width;
    if (width != *n_columns)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s:%zu: %zu fields where the header has %zu", name, line,
                       width, *n_columns);
    if (g->n_lines > QD_CSV_MAX_ROWS)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: more than %d rows", name, QD_CSV_MAX_ROWS);
    if (!push_line(g, line)) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", name);
    return QD_OK;
}

static qd_status check_header(const struct qd_csv *csv, char *err, size_t errlen)
{
    for (size_t i = 0; i < csv->n_columns; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(csv->fields[i], csv->fields[j]) == 0)
                return qd_fail(QD_ERR_INPUT, err, errlen, "%s:%zu: column '%s' is there twice", csv->name,
                               csv->lines[0], csv->fields[i]);
    return QD_OK;
}

static qd_status parse_rows(struct qd_csv *csv, size_t len, char *err, size_t errlen)
{
    struct cursor c = {.read = csv->text, .write = csv->text, .end = csv->text + len, .line = 1};
    if (len >= 3 && memcmp(csv->text, "\xEF\xBB\xBF", 3) == 0) c.read += 3;
    struct grid g = {0};
    qd_status st = QD_OK;
    while (st == QD_OK && skip_blank_lines(&c))
        st = read_row(&c, csv->name, &g, &csv->n_columns, err, errlen);
    csv->fields = g.fields;
    csv->lines = g.lines;
    csv->n_rows = g.n_lines > 0 ? g.n_lines - 1 : 0;
    if (st == QD_OK && g.n_lines == 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: is empty: not even a header", csv->name);
    return st == QD_OK ? check_header(csv, err, errlen) : st;
}

qd_status qd_csv_parse(const char *name, const char *text, size_t len, struct qd_csv *out, char *err,
                       size_t errlen)
{
    *out = (struct qd_csv){0};
    if (len > QD_CSV_MAX_BYTES)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: %zu bytes, more than %d", name, len,
                       QD_CSV_MAX_BYTES);
    if (len > 0 && memchr(text, 0, len) != NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: a byte 0: not a text file", name);
    out->name = strdup(name);
    out->text = malloc(len + 1);
    qd_status st = QD_ERR_NO_MEMORY;
    if (out->name != NULL && out->text != NULL) {
        if (len > 0) memcpy(out->text, text, len);
        out->text[len] = '\0';
        st = parse_rows(out, len, err, errlen);
    } else {
        qd_fail(st, err, errlen, "%s: out of memory", name);
    }
    if (st != QD_OK) qd_csv_free(out);
    return st;
}

void qd_csv_free(struct qd_csv *csv)
{
    free(csv->name);
    free(csv->text);
    free(csv->fields);
    free(csv->lines);
    *csv = (struct qd_csv){0};
}

int qd_csv_column(const struct qd_csv *csv, const char *name)
{
    for (size_t i = 0; i < csv->n_columns; i++)
        if (strcmp(csv->fields[i], name) == 0) return (int)i;
    return -1;
}

const char *qd_csv_field(const struct qd_csv *csv, size_t row, size_t column)
{
    return csv->fields[(row + 1) * csv->n_columns + column];
}

void qd_csv_print(FILE *out, const char *text)
{
    if (text == NULL) return;
    if (strpbrk(text, ",\"\r\n") == NULL) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

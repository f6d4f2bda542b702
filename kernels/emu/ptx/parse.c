/* The syntax of PTX as nvcc writes it: one declaration or statement after the other, no nested scopes. */
#include "kernels/emu/ptx/internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 16 };

/* ---- what the loader's parts share ---- */

bool qd_ptx_refuse(struct qd_ptx_loader *l, unsigned line, const char *format, ...)
{
    char text[QD_ERR_LEN];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qd_fail(QD_ERR_UNSUPPORTED, l->err, l->errlen, "%s:%u: %s", l->module->path, line, text);
    l->is_refused = true;
    return false;
}

void *qd_ptx_grow(void *array, size_t n, size_t item_bytes)
{
    if (n != 0 && (n < FIRST_CAPACITY || (n & (n - 1)) != 0)) return array;
    array = realloc(array, (n == 0 ? FIRST_CAPACITY : 2 * n) * item_bytes);
    QD_ASSERT(array != NULL);
    return array;
}

const struct qd_ptx_type *qd_ptx_find_type(const char *name)
{
    static const struct qd_ptx_type types[] = {
        {"u8", 1, false},  {"b8", 1, false},  {"u16", 2, false},  {"s16", 2, true},  {"b16", 2, false},
        {"u32", 4, false}, {"s32", 4, true},  {"b32", 4, false},  {"f32", 4, false}, {"u64", 8, false},
        {"s64", 8, true},  {"b64", 8, false}, {"pred", 1, false},
    };
    for (const struct qd_ptx_type *t = types; t < types + sizeof types / sizeof *types; t++)
        if (strcmp(name, t->name) == 0) return t;
    return NULL;
}

uint16_t qd_ptx_add_slot(struct qd_ptx_loader *l, enum qd_ptx_slot_kind kind, uint64_t value)
{
    struct qd_ptx_entry *e = l->entry;
    e->starts = qd_ptx_grow(e->starts, e->n_slots, sizeof *e->starts);
    e->starts[e->n_slots] = (struct qd_ptx_start){kind, value};
    return (uint16_t)e->n_slots++;
}

bool qd_ptx_to_integer(const char *text, uint64_t *value)
{
    const bool is_negative = *text == '-';
    char *end;
    if (!isdigit((unsigned char)text[is_negative])) return false;
    *value = strtoull(text + is_negative, &end, 0);
    if (is_negative) *value = 0 - *value;
    return *end == '\0';
}

/* ---- tokens: words, numbers, strings, and single characters ---- */

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || (c != '\0' && strchr("_$%.", c) != NULL);
}

/* Bytes of the token at `at`. L2::128B is one word, while a label ends before its colon. */
static size_t token_length(const char *at)
{
    size_t n = 1;
    if (*at == '"') {
        n += strcspn(at + 1, "\"\n");
        return n + (at[n] == '"');
    }
    if (*at != '-' && !is_word(*at)) return n;
    while (is_word(at[n]) || (at[n] == ':' && (at[n - 1] == ':' || at[n + 1] == ':'))) n++;
    return n;
}

/* Copies the text's tokens one by one into `words`; returns them, the last one being empty. */
static struct qd_ptx_token *split(const char *at, char *words)
{
    struct qd_ptx_token *tokens = NULL;
    size_t n = 0, length;
    for (unsigned line = 1;; at += length, words += length + 1) {
        while (isspace((unsigned char)*at) || strncmp(at, "//", 2) == 0) {
            if (*at == '\n') line++;
            at += *at == '/' ? strcspn(at, "\n") : 1;
        }
        tokens = qd_ptx_grow(tokens, n, sizeof *tokens);
        tokens[n++] = (struct qd_ptx_token){words, line};
        length = *at == '\0' ? 0 : token_length(at);
        memcpy(words, at, length);
        words[length] = '\0';
        if (length == 0) return tokens;
    }
}

/* What follows returns false at a token that does not belong there. */

static bool is(const struct qd_ptx_loader *l, const char *string)
{
    return strcmp(l->token->text, string) == 0;
}

/* Steps over the token when it is this one. */
static bool take(struct qd_ptx_loader *l, const char *string)
{
    const bool found = is(l, string);
    l->token += found;
    return found;
}

static bool take_word(struct qd_ptx_loader *l, const char **word)
{
    if (!is_word(*l->token->text)) return false;
    *word = l->token++->text;
    return true;
}

static bool take_number(struct qd_ptx_loader *l, uint64_t *value)
{
    const bool found = qd_ptx_to_integer(l->token->text, value);
    l->token += found;
    return found;
}

/* ---- declarations ---- */

/* [.align N] TYPE NAME [ [N] ]: a parameter or an object in shared memory, `bytes` in all; NAME[] has 0. */
static bool take_variable(struct qd_ptx_loader *l, const char **name, uint32_t *align, uint32_t *bytes)
{
    const char *word;
    uint64_t number = 0, n = 1;
    if (take(l, ".align") && !take_number(l, &number)) return false;
    const struct qd_ptx_type *type = take_word(l, &word) ? qd_ptx_find_type(word + 1) : NULL;
    if (type == NULL || !take_word(l, name)) return false;
    if (take(l, "[")) {
        if (!take_number(l, &n)) n = 0;
        if (!take(l, "]")) return false;
    }
    *align = number > 0 ? (uint32_t)number : type->bytes;
    *bytes = (uint32_t)n * type->bytes;
    return true;
}

static bool parse_shared(struct qd_ptx_loader *l)
{
    struct qd_ptx_shared object = {.next = l->module->shared};
    if (!take_variable(l, &object.name, &object.align, &object.bytes) || !take(l, ";")) return false;
    l->module->shared = qd_ptx_grow(NULL, 0, sizeof object);
    *l->module->shared = object;
    return true;
}

/* TYPE NAME<N>; for NAME0 .. NAME(N-1). Instructions say themselves how they take a register. */
static bool parse_registers(struct qd_ptx_loader *l)
{
    struct qd_ptx_registers r = {.first = l->entry->n_slots};
    const char *type;
    if (!take_word(l, &type) || !take_word(l, &r.prefix) || !take(l, "<") || !take_number(l, &r.n) ||
        !take(l, ">") || !take(l, ";"))
        return false;
    if (r.n > QD_PTX_MAX_SLOTS - r.first)
        return qd_ptx_refuse(l, l->token->line, "more than %d registers and constants", QD_PTX_MAX_SLOTS);
    for (size_t i = 0; i < r.n; i++) qd_ptx_add_slot(l, QD_PTX_SLOT_REGISTER, QD_EMU_POISON);
    l->registers = qd_ptx_grow(l->registers, l->n_registers, sizeof *l->registers);
    l->registers[l->n_registers++] = r;
    return true;
}

/* ---- statements ---- */

static bool parse_statement(struct qd_ptx_loader *l)
{
    struct qd_ptx_statement s = {.line = l->token->line};
    if (take(l, "@")) {
        s.wanted = !take(l, "!");
        if (!take_word(l, &s.guard)) return false;
    }
    if (!take_word(l, &s.opcode)) return false;
    if (s.guard == NULL && take(l, ":")) {
        l->labels = qd_ptx_grow(l->labels, l->n_labels, sizeof *l->labels);
        l->labels[l->n_labels++] = (struct qd_ptx_place){s.opcode, l->entry->n_code, s.line};
        return true;
    }
    s.tokens = l->token;
    while (!is(l, ";") && !is(l, "")) l->token++;
    return take(l, ";") && qd_ptx_decode(l, &s);
}

static bool resolve_branches(struct qd_ptx_loader *l)
{
    for (const struct qd_ptx_place *from = l->branches; from < l->branches + l->n_branches; from++) {
        const struct qd_ptx_place *to = l->labels, *end = l->labels + l->n_labels;
        while (to < end && strcmp(to->label, from->label) != 0) to++;
        if (to == end) return qd_ptx_refuse(l, from->line, "no label `%s`", from->label);
        l->entry->code[from->instruction].offset = (int32_t)to->instruction;
    }
    return true;
}

/* ---- entries ---- */

static bool parse_params(struct qd_ptx_loader *l)
{
    struct qd_ptx_entry *e = l->entry;
    if (!take(l, "(")) return false;
    if (take(l, ")")) return true;
    do {
        uint32_t align;
        const unsigned n = e->n_params++;
        if (n == QD_PTX_MAX_PARAMS || !take(l, ".param") ||
            !take_variable(l, &l->param_names[n], &align, &e->param_bytes[n]))
            return false;
    } while (take(l, ","));
    return take(l, ")");
}

/* What stands between parameters and body. */
static bool parse_limits(struct qd_ptx_loader *l)
{
    while (!take(l, "{")) {
        uint64_t product = 1, number;
        const bool is_threads = take(l, ".maxntid");
        if (!is_threads && !take(l, ".minnctapersm")) return false;
        do {
            if (!take_number(l, &number)) return false;
            product *= number;
        } while (take(l, ","));
        if (is_threads) l->entry->max_threads = (unsigned)product;
    }
    return true;
}

static bool parse_body(struct qd_ptx_loader *l)
{
    bool done = true;
    while (done && !take(l, "}")) {
        if (take(l, ".reg"))
            done = parse_registers(l);
        else if (take(l, ".shared"))
            done = parse_shared(l);
        else if (take(l, ".pragma"))
            l->token++, done = take(l, ";");
        else
            done = *l->token->text != '.' && parse_statement(l);
    }
    return done;
}

static bool parse_entry(struct qd_ptx_loader *l)
{
    struct qd_ptx_entry *e = calloc(1, sizeof *e);
    QD_ASSERT(e != NULL);
    e->next = l->module->entries;
    e->file = l->module->path;
    l->module->entries = l->entry = e;
    l->n_registers = l->n_labels = l->n_branches = 0;
    qd_ptx_add_slot(l, QD_PTX_SLOT_REGISTER, 0);
    if (!take_word(l, &e->name) || !parse_params(l) || !parse_limits(l) || !parse_body(l)) return false;
    /* A jump to the end lands on a return of its own. */
    static const struct qd_ptx_token nothing = {";", 0};
    const struct qd_ptx_statement end = {.line = l->token->line, .opcode = "ret", .tokens = &nothing};
    return qd_ptx_decode(l, &end) && resolve_branches(l);
}

static bool parse_declaration(struct qd_ptx_loader *l)
{
    const unsigned line = l->token->line;
    if (take(l, ".visible") || is(l, ".entry")) return take(l, ".entry") && parse_entry(l);
    if (take(l, ".extern") || is(l, ".shared")) return take(l, ".shared") && parse_shared(l);
    if (!is(l, ".version") && !is(l, ".target") && !is(l, ".address_size")) return false;
    while (l->token->line == line && !is(l, "")) l->token++;
    return true;
}

bool qd_ptx_parse(struct qd_ptx_module *module, const char *text, char *err, size_t errlen)
{
    module->words = malloc(2 * strlen(text) + 1); /* a token has a byte at least, and gets a NUL */
    QD_ASSERT(module->words != NULL);
    struct qd_ptx_token *tokens = split(text, module->words);
    struct qd_ptx_loader l = {.module = module, .token = tokens, .err = err, .errlen = errlen};
    bool done = true;
    while (done && !is(&l, "")) done = parse_declaration(&l);
    if (!done && !l.is_refused)
        qd_ptx_refuse(&l, l.token->line, "%s%s is not understood", is(&l, "") ? "the end" : "",
                      l.token->text);
    free(l.registers);
    free(l.labels);
    free(l.branches);
    free(tokens);
    return done;
}

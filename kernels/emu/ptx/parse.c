/* The syntax of PTX as nvcc writes it: one declaration or statement after the other, no nested scopes. */
#include "kernels/emu/ptx/internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 16, MAX_ALIGN = 16 /* of parameters and of dynamic shared memory */ };

/* ---- what the loader's parts share ---- */

bool qd_ptx_refuse(struct qd_ptx_loader *l, unsigned line, const char *format, ...)
{
    char text[QD_ERR_LEN];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qd_fail(QD_ERR_UNSUPPORTED, l->err, l->errlen, "%s:%u: %s", l->module->path, line, text);
    return false;
}

bool qd_ptx_same(struct qd_ptx_text text, const char *string)
{
    return qd_ptx_equal(text, (struct qd_ptx_text){string, strlen(string)});
}

bool qd_ptx_equal(struct qd_ptx_text a, struct qd_ptx_text b)
{
    return a.length == b.length && memcmp(a.at, b.at, a.length) == 0;
}

char *qd_ptx_string(struct qd_ptx_text text)
{
    char *copy = strndup(text.at, text.length);
    QD_ASSERT(copy != NULL);
    return copy;
}

void *qd_ptx_grow(void *array, size_t n, size_t item_bytes)
{
    if (n != 0 && (n < FIRST_CAPACITY || (n & (n - 1)) != 0)) return array;
    array = realloc(array, (n == 0 ? FIRST_CAPACITY : 2 * n) * item_bytes);
    QD_ASSERT(array != NULL);
    return array;
}

const struct qd_ptx_type *qd_ptx_find_type(struct qd_ptx_text name)
{
    static const struct qd_ptx_type types[] = {
        {"u8", QD_PTX_CLASS_INTEGER, 1, false},     {"b8", QD_PTX_CLASS_BITS, 1, false},
        {"u16", QD_PTX_CLASS_INTEGER, 2, false},    {"s16", QD_PTX_CLASS_INTEGER, 2, true},
        {"b16", QD_PTX_CLASS_BITS, 2, false},       {"u32", QD_PTX_CLASS_INTEGER, 4, false},
        {"s32", QD_PTX_CLASS_INTEGER, 4, true},     {"b32", QD_PTX_CLASS_BITS, 4, false},
        {"u64", QD_PTX_CLASS_INTEGER, 8, false},    {"s64", QD_PTX_CLASS_INTEGER, 8, true},
        {"b64", QD_PTX_CLASS_BITS, 8, false},       {"f32", QD_PTX_CLASS_FLOAT, 4, false},
        {"pred", QD_PTX_CLASS_PREDICATE, 1, false},
    };
    for (const struct qd_ptx_type *t = types; t < types + sizeof types / sizeof *types; t++)
        if (qd_ptx_same(name, t->name)) return t;
    return NULL;
}

bool qd_ptx_to_integer(struct qd_ptx_text text, uint64_t *value)
{
    const bool is_negative = text.length > 0 && *text.at == '-';
    char *end;
    if (text.length == is_negative || !isdigit((unsigned char)text.at[is_negative])) return false;
    *value = strtoull(text.at + is_negative, &end, 0);
    if (is_negative) *value = 0 - *value;
    return end == text.at + text.length;
}

/* ---- tokens: words, numbers, strings, and single characters ---- */

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || (c != '\0' && strchr("_$%.", c) != NULL);
}

/* Inside of a word: L2::128B is one, while a label ends before its colon. */
static bool continues_word(const char *at)
{
    return is_word(*at) || (*at == ':' && (at[-1] == ':' || at[1] == ':'));
}

static void next(struct qd_ptx_loader *l)
{
    while (isspace((unsigned char)*l->at) || strncmp(l->at, "//", 2) == 0) {
        if (*l->at == '\n') l->line++;
        l->at += *l->at == '/' ? strcspn(l->at, "\n") : 1;
    }
    l->token_line = l->line;
    const char *start = l->at;
    if (*start == '"') {
        l->at += 1 + strcspn(start + 1, "\"\n");
        if (*l->at == '"') l->at++;
    } else if (*start != '\0') {
        do l->at++;
        while ((*start == '-' || is_word(*start)) && continues_word(l->at));
    }
    l->token = (struct qd_ptx_text){start, (size_t)(l->at - start)};
}

static bool is(const struct qd_ptx_loader *l, const char *string)
{
    return qd_ptx_same(l->token, string);
}

/* Steps over the token when it is this one. */
static bool accept(struct qd_ptx_loader *l, const char *string)
{
    if (!is(l, string)) return false;
    next(l);
    return true;
}

static bool refuse_token(struct qd_ptx_loader *l, const char *wanted)
{
    if (l->token.length == 0) return qd_ptx_refuse(l, l->token_line, "%s expected at the end", wanted);
    return qd_ptx_refuse(l, l->token_line, "%s expected, not `%.*s`", wanted, (int)l->token.length,
                         l->token.at);
}

static bool refuse_declaration(struct qd_ptx_loader *l)
{
    return qd_ptx_refuse(l, l->token_line, "%.*s is not supported", (int)l->token.length, l->token.at);
}

static bool expect(struct qd_ptx_loader *l, const char *string)
{
    return accept(l, string) || refuse_token(l, string);
}

static bool take_word(struct qd_ptx_loader *l, struct qd_ptx_text *word)
{
    if (l->token.length == 0 || !is_word(*l->token.at)) return refuse_token(l, "a name");
    *word = l->token;
    next(l);
    return true;
}

static bool take_number(struct qd_ptx_loader *l, uint64_t *value)
{
    if (!qd_ptx_to_integer(l->token, value)) return refuse_token(l, "a number");
    next(l);
    return true;
}

/* ---- declarations ---- */

static bool take_type(struct qd_ptx_loader *l, const struct qd_ptx_type **type)
{
    *type = l->token.length > 1 && *l->token.at == '.'
                ? qd_ptx_find_type((struct qd_ptx_text){l->token.at + 1, l->token.length - 1})
                : NULL;
    if (*type == NULL) return refuse_token(l, "a type");
    next(l);
    return true;
}

/* [.align N] TYPE NAME [ [N] ]: a parameter or an object in shared memory, `bytes` in all; NAME[] has 0. */
static bool take_variable(struct qd_ptx_loader *l, struct qd_ptx_text *name, uint32_t *align, uint32_t *bytes)
{
    const struct qd_ptx_type *type;
    uint64_t number = 0, n = 1;
    if (accept(l, ".align") && !take_number(l, &number)) return false;
    if (!take_type(l, &type) || !take_word(l, name)) return false;
    *align = number > 0 ? (uint32_t)number : type->bytes;
    if (accept(l, "[")) {
        n = 0;
        if (!is(l, "]") && !take_number(l, &n)) return false;
        if (!expect(l, "]")) return false;
    }
    if (n > QD_EMU_MAX_SHARED_BYTES) return refuse_token(l, "a smaller array");
    *bytes = (uint32_t)n * type->bytes;
    return true;
}

static bool parse_shared(struct qd_ptx_loader *l, bool is_extern)
{
    struct qd_ptx_text name;
    uint32_t align, bytes;
    const unsigned line = l->token_line;
    if (!take_variable(l, &name, &align, &bytes) || !expect(l, ";")) return false;
    if ((bytes == 0) != is_extern)
        return qd_ptx_refuse(l, line, "shared memory is extern with [], or neither");
    if (is_extern && align > MAX_ALIGN)
        return qd_ptx_refuse(l, line, "dynamic shared memory aligned to %u bytes, at most %d are promised",
                             align, MAX_ALIGN);
    struct qd_ptx_shared *object = malloc(sizeof *object);
    QD_ASSERT(object != NULL);
    *object = (struct qd_ptx_shared){l->module->shared, qd_ptx_string(name), bytes, align};
    l->module->shared = object;
    return true;
}

/* TYPE NAME<N>; for NAME0 .. NAME(N-1). */
static bool parse_registers(struct qd_ptx_loader *l)
{
    struct qd_ptx_registers r = {.first = l->n_plans};
    uint64_t n;
    if (!take_type(l, &r.type) || !take_word(l, &r.prefix)) return false;
    if (!expect(l, "<") || !take_number(l, &n) || !expect(l, ">") || !expect(l, ";")) return false;
    if (n > UINT16_MAX - l->n_plans) return refuse_token(l, "fewer registers");
    r.n = n;
    for (size_t i = 0; i < n; i++) qd_ptx_add_plan(l, QD_PTX_PLAN_REGISTER, QD_EMU_POISON);
    l->registers = qd_ptx_grow(l->registers, l->n_registers, sizeof *l->registers);
    l->registers[l->n_registers++] = r;
    return true;
}

/* ---- statements ---- */

static bool parse_statement(struct qd_ptx_loader *l)
{
    struct qd_ptx_statement s = {.line = l->token_line};
    if (accept(l, "@")) {
        s.wanted = !accept(l, "!");
        if (!take_word(l, &s.guard)) return false;
    }
    if (!take_word(l, &s.opcode)) return false;
    if (s.guard.length == 0 && accept(l, ":")) {
        l->labels = qd_ptx_grow(l->labels, l->n_labels, sizeof *l->labels);
        l->labels[l->n_labels++] = (struct qd_ptx_place){s.opcode, l->entry->n_code, s.line};
        l->block++;
        return true;
    }
    for (; !is(l, ";"); next(l)) {
        if (l->token.length == 0 || s.n_tokens == QD_PTX_MAX_TOKENS) return refuse_token(l, ";");
        s.tokens[s.n_tokens++] = l->token;
    }
    next(l);
    return qd_ptx_decode(l, &s);
}

static bool resolve_branches(struct qd_ptx_loader *l)
{
    for (const struct qd_ptx_place *from = l->branches; from < l->branches + l->n_branches; from++) {
        const struct qd_ptx_place *to = l->labels, *end = l->labels + l->n_labels;
        while (to < end && !qd_ptx_equal(to->label, from->label)) to++;
        if (to == end)
            return qd_ptx_refuse(l, from->line, "no label `%.*s`", (int)from->label.length, from->label.at);
        l->entry->code[from->instruction].offset = (int32_t)to->instruction;
    }
    return true;
}

/* ---- entries ---- */

static bool parse_params(struct qd_ptx_loader *l)
{
    struct qd_ptx_entry *e = l->entry;
    if (!expect(l, "(")) return false;
    if (accept(l, ")")) return true;
    do {
        uint32_t align;
        if (e->n_params == QD_PTX_MAX_PARAMS) return refuse_token(l, "at most 64 parameters");
        if (!expect(l, ".param") ||
            !take_variable(l, &l->param_names[e->n_params], &align, &e->param_bytes[e->n_params]))
            return false;
        if (e->param_bytes[e->n_params++] == 0 || align > MAX_ALIGN)
            return refuse_token(l, "a parameter of known size, aligned to at most 16");
    } while (accept(l, ","));
    return expect(l, ")");
}

/* What stands between parameters and body. */
static bool parse_limits(struct qd_ptx_loader *l)
{
    while (!accept(l, "{")) {
        uint64_t product = 1, number;
        const bool is_threads = is(l, ".maxntid");
        if (!is_threads && !is(l, ".minnctapersm")) return refuse_token(l, "a limit of threads, or {");
        do {
            next(l);
            if (!take_number(l, &number)) return false;
            product *= number;
        } while (is(l, ","));
        if (is_threads) l->entry->max_threads = (unsigned)product;
    }
    return true;
}

static bool parse_body(struct qd_ptx_loader *l)
{
    while (!accept(l, "}")) {
        bool done;
        if (accept(l, ".reg")) {
            done = parse_registers(l);
        } else if (accept(l, ".shared")) {
            done = parse_shared(l, false);
        } else if (accept(l, ".pragma")) {
            next(l);
            done = expect(l, ";");
        } else {
            done = l->token.length > 0 && *l->token.at == '.' ? refuse_declaration(l) : parse_statement(l);
        }
        if (!done) return false;
    }
    return true;
}

static bool parse_entry(struct qd_ptx_loader *l)
{
    struct qd_ptx_text name;
    if (!take_word(l, &name)) return false;
    struct qd_ptx_entry *e = calloc(1, sizeof *e);
    QD_ASSERT(e != NULL);
    e->next = l->module->entries;
    e->name = qd_ptx_string(name);
    e->file = l->module->path;
    l->module->entries = l->entry = e;
    l->registers = NULL, l->labels = l->branches = NULL, l->plans = NULL;
    l->n_registers = l->n_labels = l->n_branches = l->n_plans = 0;
    l->block = 1;
    qd_ptx_add_plan(l, QD_PTX_PLAN_REGISTER, 0);
    /* A jump to the end lands on a return of its own. */
    const struct qd_ptx_statement end = {.line = l->token_line, .opcode = {"ret", 3}};
    const bool done = parse_params(l) && parse_limits(l) && parse_body(l) && qd_ptx_decode(l, &end) &&
                      resolve_branches(l) && qd_ptx_assign_slots(l);
    free(l->registers);
    free(l->labels);
    free(l->branches);
    free(l->plans);
    return done;
}

bool qd_ptx_parse(struct qd_ptx_loader *l)
{
    l->line = 1;
    next(l);
    bool done = true;
    while (done && l->token.length > 0) {
        const unsigned line = l->token_line;
        if (is(l, ".version") || is(l, ".target") || is(l, ".address_size")) {
            while (l->token.length > 0 && l->token_line == line) next(l);
        } else if (accept(l, ".visible")) {
            done = is(l, ".entry") || refuse_token(l, ".entry");
        } else if (accept(l, ".entry")) {
            done = parse_entry(l);
        } else if (accept(l, ".extern")) {
            done = expect(l, ".shared") && parse_shared(l, true);
        } else {
            done = accept(l, ".shared") ? parse_shared(l, false) : refuse_declaration(l);
        }
    }
    return done;
}

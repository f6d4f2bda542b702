/* The syntax of PTX as nvcc writes it: one declaration or statement after the other, no nested scopes. */
#include "kernels/emu/ptx/internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/status.h"

enum { FIRST_CAPACITY = 16, MAX_DYNAMIC_ALIGN = 16 };

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
    return strlen(string) == text.length && memcmp(text.at, string, text.length) == 0;
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

void qd_ptx_add_plan(struct qd_ptx_loader *l, enum qd_ptx_plan_kind kind, uint64_t value)
{
    l->plans = qd_ptx_grow(l->plans, l->n_plans, sizeof *l->plans);
    l->plans[l->n_plans++] = (struct qd_ptx_plan){kind, {.u64 = value}};
}

bool qd_ptx_find_type(struct qd_ptx_text name, struct qd_ptx_type *type)
{
    static const struct {
        const char *name;
        struct qd_ptx_type type;
    } types[] = {
        {"u8", {QD_PTX_CLASS_INTEGER, 1, false}},  {"s8", {QD_PTX_CLASS_INTEGER, 1, true}},
        {"b8", {QD_PTX_CLASS_BITS, 1, false}},     {"u16", {QD_PTX_CLASS_INTEGER, 2, false}},
        {"s16", {QD_PTX_CLASS_INTEGER, 2, true}},  {"b16", {QD_PTX_CLASS_BITS, 2, false}},
        {"u32", {QD_PTX_CLASS_INTEGER, 4, false}}, {"s32", {QD_PTX_CLASS_INTEGER, 4, true}},
        {"b32", {QD_PTX_CLASS_BITS, 4, false}},    {"u64", {QD_PTX_CLASS_INTEGER, 8, false}},
        {"s64", {QD_PTX_CLASS_INTEGER, 8, true}},  {"b64", {QD_PTX_CLASS_BITS, 8, false}},
        {"f32", {QD_PTX_CLASS_FLOAT, 4, false}},   {"pred", {QD_PTX_CLASS_PREDICATE, 1, false}},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!qd_ptx_same(name, types[i].name)) continue;
        *type = types[i].type;
        return true;
    }
    return false;
}

/* ---- tokens: words, numbers, strings, and single characters ---- */

static bool starts_word(char c)
{
    return isalnum((unsigned char)c) || (c != '\0' && strchr("_$%.", c) != NULL);
}

/* Inside of a word: L2::128B is one, while a label ends before its colon. */
static bool continues_word(const char *at, const char *end)
{
    if (*at != ':') return starts_word(*at);
    return at[-1] == ':' || (at + 1 < end && at[1] == ':');
}

static void skip_space(struct qd_ptx_loader *l)
{
    while (l->at < l->end) {
        if (*l->at == '\n') l->line++;
        if (isspace((unsigned char)*l->at)) {
            l->at++;
        } else if (l->end - l->at >= 2 && l->at[0] == '/' && l->at[1] == '/') {
            while (l->at < l->end && *l->at != '\n') l->at++;
        } else {
            return;
        }
    }
}

static void next(struct qd_ptx_loader *l)
{
    skip_space(l);
    l->token_line = l->line;
    l->token = (struct qd_ptx_text){l->at, 0};
    if (l->at == l->end) return;
    const char *start = l->at++;
    if (*start == '"') {
        while (l->at < l->end && *l->at != '"' && *l->at != '\n') l->at++;
        if (l->at < l->end && *l->at == '"') l->at++;
    } else if (*start == '-' || starts_word(*start)) {
        while (l->at < l->end && continues_word(l->at, l->end)) l->at++;
    }
    l->token.length = (size_t)(l->at - start);
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

static bool expect(struct qd_ptx_loader *l, const char *string)
{
    return accept(l, string) || refuse_token(l, string);
}

static bool take_word(struct qd_ptx_loader *l, struct qd_ptx_text *word)
{
    if (l->token.length == 0 || !starts_word(*l->token.at)) return refuse_token(l, "a name");
    *word = l->token;
    next(l);
    return true;
}

/* ---- numbers ---- */

static bool to_integer(struct qd_ptx_text text, uint64_t *value)
{
    char digits[32], *end;
    if (text.length == 0 || text.length >= sizeof digits) return false;
    memcpy(digits, text.at, text.length);
    digits[text.length] = '\0';
    bool is_negative = digits[0] == '-';
    if (!isdigit((unsigned char)digits[is_negative])) return false;
    *value = strtoull(digits + is_negative, &end, 0);
    if (is_negative) *value = 0 - *value;
    return *end == '\0';
}

/* 0f followed by the 8 hexadecimal digits of a float's bits. */
static bool to_float(struct qd_ptx_text text, uint64_t *bits)
{
    char digits[9], *end;
    if (text.length != 2 + 8 || text.at[0] != '0' || tolower((unsigned char)text.at[1]) != 'f') return false;
    memcpy(digits, text.at + 2, 8);
    digits[8] = '\0';
    *bits = strtoul(digits, &end, 16);
    return *end == '\0';
}

static bool take_number(struct qd_ptx_loader *l, uint64_t *value)
{
    if (!to_integer(l->token, value)) return refuse_token(l, "a number");
    next(l);
    return true;
}

static bool take_value(struct qd_ptx_loader *l, struct qd_ptx_value *value)
{
    value->kind = QD_PTX_NAME;
    value->text = l->token;
    if (to_float(l->token, &value->bits))
        value->kind = QD_PTX_FLOAT_VALUE;
    else if (to_integer(l->token, &value->bits))
        value->kind = QD_PTX_INTEGER_VALUE;
    else if (l->token.length == 0 || !starts_word(*l->token.at) || isdigit((unsigned char)*l->token.at))
        return refuse_token(l, "an operand");
    next(l);
    return true;
}

/* ---- declarations ---- */

static bool take_type(struct qd_ptx_loader *l, struct qd_ptx_type *type)
{
    struct qd_ptx_text name = {l->token.at + 1, l->token.length - 1};
    if (l->token.length < 2 || *l->token.at != '.' || !qd_ptx_find_type(name, type))
        return refuse_token(l, "a type");
    next(l);
    return true;
}

/* [.align N] TYPE NAME [ [N] ]: a parameter or an object in shared memory, `bytes` in all. `is_open`: NAME[].
 */
static bool take_variable(struct qd_ptx_loader *l, struct qd_ptx_text *name, uint32_t *align, uint32_t *bytes,
                          bool *is_open)
{
    struct qd_ptx_type type;
    uint64_t number = 0, n = 1;
    if (accept(l, ".align") && !take_number(l, &number)) return false;
    if (!take_type(l, &type) || !take_word(l, name)) return false;
    *align = number > 0 ? (uint32_t)number : type.bytes;
    *is_open = false;
    if (accept(l, "[")) {
        *is_open = is(l, "]");
        if (!*is_open && !take_number(l, &n)) return false;
        if (!expect(l, "]")) return false;
    }
    if (n > QD_EMU_MAX_SHARED_BYTES) return refuse_token(l, "a smaller array");
    *bytes = *is_open ? 0 : (uint32_t)n * type.bytes;
    return true;
}

static bool parse_shared(struct qd_ptx_loader *l, bool is_extern)
{
    struct qd_ptx_text name;
    uint32_t align, bytes;
    bool is_open;
    const unsigned line = l->token_line;
    if (!take_variable(l, &name, &align, &bytes, &is_open) || !expect(l, ";")) return false;
    if (is_open != is_extern) return qd_ptx_refuse(l, line, "shared memory is extern with [], or neither");
    if (is_extern && align > MAX_DYNAMIC_ALIGN)
        return qd_ptx_refuse(l, line, "dynamic shared memory aligned to %u bytes, at most %d are promised",
                             align, MAX_DYNAMIC_ALIGN);
    struct qd_ptx_shared *object = calloc(1, sizeof *object);
    QD_ASSERT(object != NULL);
    *object = (struct qd_ptx_shared){l->module->shared, qd_ptx_string(name), bytes, align};
    l->module->shared = object;
    return true;
}

/* TYPE NAME; or TYPE NAME<N>; for NAME0 .. NAME(N-1). */
static bool parse_registers(struct qd_ptx_loader *l)
{
    struct qd_ptx_registers r = {.first = l->n_plans};
    uint64_t n = 0;
    if (!take_type(l, &r.type) || !take_word(l, &r.prefix)) return false;
    if (accept(l, "<")) {
        if (!take_number(l, &n) || !expect(l, ">")) return false;
        if (n == 0 || n > UINT16_MAX) return refuse_token(l, "a number of registers up to 65535");
    }
    if (!expect(l, ";")) return false;
    r.n = n;
    for (size_t i = 0; i < (n > 0 ? n : 1); i++) qd_ptx_add_plan(l, QD_PTX_PLAN_REGISTER, QD_EMU_POISON);
    l->registers = qd_ptx_grow(l->registers, l->n_registers, sizeof *l->registers);
    l->registers[l->n_registers++] = r;
    return true;
}

/* ---- statements ---- */

static bool parse_operand(struct qd_ptx_loader *l, struct qd_ptx_operand *o)
{
    *o = (struct qd_ptx_operand){.shape = QD_PTX_PLAIN, .n_values = 1};
    if (accept(l, "[")) {
        uint64_t offset = 0;
        o->shape = QD_PTX_ADDRESS;
        if (!take_value(l, &o->values[0])) return false;
        if (accept(l, "+") && !take_number(l, &offset)) return false;
        o->offset = (int64_t)offset;
        return expect(l, "]");
    }
    if (accept(l, "{")) {
        o->shape = QD_PTX_VECTOR;
        for (o->n_values = 0;;) {
            if (o->n_values == QD_PTX_MAX_VECTOR) return refuse_token(l, "}");
            if (!take_value(l, &o->values[o->n_values++])) return false;
            if (!accept(l, ",")) return expect(l, "}");
        }
    }
    if (!take_value(l, &o->values[0])) return false;
    if (!accept(l, "|")) return true;
    o->shape = QD_PTX_PAIR;
    o->n_values = 2;
    return take_value(l, &o->values[1]);
}

static bool parse_operands(struct qd_ptx_loader *l, struct qd_ptx_statement *s)
{
    if (accept(l, ";")) return true;
    do {
        if (s->n_operands == QD_PTX_MAX_STATEMENT) return refuse_token(l, ";");
        if (!parse_operand(l, &s->operands[s->n_operands++])) return false;
    } while (accept(l, ","));
    return expect(l, ";");
}

static bool parse_statement(struct qd_ptx_loader *l)
{
    struct qd_ptx_statement s = {.line = l->token_line};
    if (accept(l, "@")) {
        s.is_guarded = true;
        s.wanted = !accept(l, "!");
        if (!take_word(l, &s.guard)) return false;
    }
    if (!take_word(l, &s.opcode)) return false;
    if (!s.is_guarded && accept(l, ":")) {
        l->labels = qd_ptx_grow(l->labels, l->n_labels, sizeof *l->labels);
        l->labels[l->n_labels++] = (struct qd_ptx_place){s.opcode, l->entry->n_code, s.line};
        return true;
    }
    return parse_operands(l, &s) && qd_ptx_decode(l, &s);
}

static bool resolve_branches(struct qd_ptx_loader *l)
{
    for (size_t i = 0; i < l->n_branches; i++) {
        const struct qd_ptx_place *from = &l->branches[i];
        size_t n = 0;
        while (n < l->n_labels && (l->labels[n].label.length != from->label.length ||
                                   memcmp(l->labels[n].label.at, from->label.at, from->label.length) != 0))
            n++;
        if (n == l->n_labels)
            return qd_ptx_refuse(l, from->line, "no label `%.*s`", (int)from->label.length, from->label.at);
        l->entry->code[from->instruction].offset = (int32_t)l->labels[n].instruction;
    }
    return true;
}

/* ---- entries ---- */

static bool parse_params(struct qd_ptx_loader *l)
{
    if (!expect(l, "(")) return false;
    if (accept(l, ")")) return true;
    do {
        uint32_t align;
        bool is_open;
        struct qd_ptx_entry *e = l->entry;
        if (!expect(l, ".param")) return false;
        if (e->n_params == QD_PTX_MAX_PARAMS) return refuse_token(l, "at most 64 parameters");
        if (!take_variable(l, &l->param_names[e->n_params], &align, &e->params[e->n_params].bytes, &is_open))
            return false;
        if (is_open || align > 16) return refuse_token(l, "a parameter of known size, aligned to at most 16");
        e->n_params++;
    } while (accept(l, ","));
    return expect(l, ")");
}

/* What stands between parameters and body. */
static bool parse_limits(struct qd_ptx_loader *l)
{
    while (!is(l, "{")) {
        uint64_t product = 1, number;
        const bool is_threads = is(l, ".maxntid");
        if (!is_threads && !is(l, ".minnctapersm")) return refuse_token(l, "a limit of threads, or {");
        next(l);
        do {
            if (!take_number(l, &number)) return false;
            product *= number;
        } while (accept(l, ","));
        if (is_threads) l->entry->max_threads = (unsigned)product;
    }
    return expect(l, "{");
}

static bool parse_body(struct qd_ptx_loader *l)
{
    while (!is(l, "}")) {
        bool done;
        if (accept(l, ".reg")) {
            done = parse_registers(l);
        } else if (accept(l, ".shared")) {
            done = parse_shared(l, false);
        } else if (accept(l, ".pragma")) {
            next(l);
            done = expect(l, ";");
        } else if (l->token.length > 0 && *l->token.at == '.') {
            done =
                qd_ptx_refuse(l, l->token_line, "%.*s is not supported", (int)l->token.length, l->token.at);
        } else {
            done = parse_statement(l);
        }
        if (!done) return false;
    }
    next(l);
    return true;
}

static void forget_entry(struct qd_ptx_loader *l)
{
    free(l->registers);
    free(l->labels);
    free(l->branches);
    free(l->plans);
    l->registers = NULL;
    l->labels = l->branches = NULL;
    l->plans = NULL;
    l->n_registers = l->n_labels = l->n_branches = l->n_plans = 0;
}

static bool parse_entry(struct qd_ptx_loader *l)
{
    struct qd_ptx_text name = {NULL, 0};
    if (!take_word(l, &name)) return false;
    struct qd_ptx_entry *e = calloc(1, sizeof *e);
    QD_ASSERT(e != NULL);
    e->next = l->module->entries;
    e->name = qd_ptx_string(name);
    e->file = l->module->path;
    l->module->entries = l->entry = e;
    qd_ptx_add_plan(l, QD_PTX_PLAN_NOTHING, 0);
    /* A jump to the end lands on a return of its own. */
    const struct qd_ptx_statement end = {.line = l->token_line, .opcode = {"ret", 3}};
    bool done = parse_params(l) && parse_limits(l) && parse_body(l) && qd_ptx_decode(l, &end) &&
                resolve_branches(l) && qd_ptx_assign_slots(l);
    forget_entry(l);
    return done;
}

bool qd_ptx_parse(struct qd_ptx_loader *l)
{
    l->line = 1;
    next(l);
    while (l->token.length > 0) {
        bool done;
        const unsigned line = l->token_line;
        if (is(l, ".version") || is(l, ".target") || is(l, ".address_size")) {
            while (l->token.length > 0 && l->token_line == line) next(l);
            done = true;
        } else if (accept(l, ".visible")) {
            done = is(l, ".entry") || refuse_token(l, ".entry");
        } else if (accept(l, ".entry")) {
            done = parse_entry(l);
        } else if (accept(l, ".extern")) {
            done = expect(l, ".shared") && parse_shared(l, true);
        } else if (accept(l, ".shared")) {
            done = parse_shared(l, false);
        } else {
            done = qd_ptx_refuse(l, line, "%.*s is not supported", (int)l->token.length, l->token.at);
        }
        if (!done) return false;
    }
    return true;
}

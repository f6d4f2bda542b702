/* From a statement to an instruction: finds the form of the instruction that the statement has, and a slot
 * for each operand. What it lets pass, the executor can run. */
#include "kernels/emu/ptx/internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- forms ---- */

struct form {
    const char *name;     /* the opcode; `_` may stand for `.` */
    const char *operands; /* see instructions.h */
    uint16_t op;
};

static const struct form forms[] = {
#define UNARY(name, r, a, value)         {#name, #r "=" #a, QD_PTX_OP_##name},
#define BINARY(name, r, a, b, value)     {#name, #r "=" #a "," #b, QD_PTX_OP_##name},
#define TERNARY(name, r, a, b, c, value) {#name, #r "=" #a "," #b "," #c, QD_PTX_OP_##name},
#define OTHER(op, name, operands)        {name, operands, QD_PTX_OP_##op},
    QD_PTX_UNARY(UNARY) QD_PTX_BINARY(BINARY) QD_PTX_TERNARY(TERNARY) QD_PTX_OTHER(OTHER) QD_PTX_ACCESS(OTHER)
#undef UNARY
#undef BINARY
#undef TERNARY
#undef OTHER
};
enum { N_FORMS = sizeof forms / sizeof *forms };

static bool is_named(const struct form *f, struct qd_ptx_text opcode)
{
    for (size_t i = 0; i < opcode.length; i++)
        if (f->name[i] != opcode.at[i] && !(f->name[i] == '_' && opcode.at[i] == '.')) return false;
    return f->name[opcode.length] == '\0';
}

/* A statement on its way to an instruction. */
struct matching {
    struct qd_ptx_loader *l;
    const struct qd_ptx_statement *s;
    const struct form *form;
    const struct qd_ptx_text *token; /* next */
    bool may_be_wider;               /* registers than their types */
    bool is_address;                 /* the next value is an address's base */
    bool is_refused;                 /* for good: no other form will do */
    struct qd_ptx_instruction i;
};

/* The token cannot be what the form wants there; false. */
static bool refuse(struct matching *m, struct qd_ptx_text token, const char *why)
{
    m->is_refused = true;
    return qd_ptx_refuse(m->l, m->s->line, "%.*s: `%.*s` %s", (int)m->s->opcode.length, m->s->opcode.at,
                         (int)token.length, token.at, why);
}

/* ---- values ---- */

/* The plan of a register, with its type; 0 when the name is none. */
static uint16_t find_register(const struct qd_ptx_loader *l, struct qd_ptx_text name,
                              const struct qd_ptx_type **type)
{
    struct qd_ptx_text prefix = name, digits = {name.at + name.length, 0};
    while (prefix.length > 0 && isdigit((unsigned char)prefix.at[prefix.length - 1]))
        prefix.length--, digits.at--, digits.length++;
    uint64_t index;
    if (!qd_ptx_to_integer(digits, &index)) return 0;
    for (const struct qd_ptx_registers *r = l->registers; r < l->registers + l->n_registers; r++) {
        if (!qd_ptx_equal(r->prefix, prefix) || index >= r->n) continue;
        *type = r->type;
        return (uint16_t)(r->first + index);
    }
    return 0;
}

/* What a name that is no register stands for; false when it is nothing. `bytes`: of its value. */
static bool find_binding(const struct qd_ptx_loader *l, struct qd_ptx_text name,
                         struct qd_ptx_binding *binding, unsigned *bytes)
{
    static const char *const specials[] = {QD_PTX_SPECIAL_NAMES};
    *binding = (struct qd_ptx_binding){.kind = QD_PTX_BOUND_SPECIAL};
    *bytes = sizeof(uint32_t);
    for (; binding->index < sizeof specials / sizeof *specials; binding->index++)
        if (qd_ptx_same(name, specials[binding->index])) return true;
    *binding = (struct qd_ptx_binding){.kind = QD_PTX_BOUND_SHARED, .shared = l->module->shared};
    for (; binding->shared != NULL; binding->shared = binding->shared->next)
        if (qd_ptx_same(name, binding->shared->name)) return true;
    binding->kind = QD_PTX_BOUND_PARAM;
    *bytes = sizeof(uint64_t);
    for (; binding->index < l->entry->n_params; binding->index++)
        if (qd_ptx_equal(name, l->param_names[binding->index])) return true;
    return false;
}

static uint16_t bind(struct qd_ptx_loader *l, struct qd_ptx_binding binding)
{
    struct qd_ptx_entry *e = l->entry;
    for (const struct qd_ptx_binding *b = e->bindings; b < e->bindings + e->n_bindings; b++)
        if (b->kind == binding.kind && b->index == binding.index && b->shared == binding.shared)
            return b->slot;
    binding.slot = qd_ptx_add_plan(l, QD_PTX_PLAN_BOUND, 0);
    e->bindings = qd_ptx_grow(e->bindings, e->n_bindings, sizeof *e->bindings);
    e->bindings[e->n_bindings++] = binding;
    return binding.slot;
}

/* Signed and unsigned are the same to a register, and bits are anything but a predicate. */
static bool is_compatible(const struct qd_ptx_type *declared, const struct qd_ptx_type *used,
                          bool may_be_wider)
{
    if (declared->bytes != used->bytes && !(may_be_wider && declared->bytes > used->bytes)) return false;
    if (declared->class == used->class) return true;
    return declared->class != QD_PTX_CLASS_PREDICATE && used->class != QD_PTX_CLASS_PREDICATE &&
           (declared->class == QD_PTX_CLASS_BITS || used->class == QD_PTX_CLASS_BITS);
}

static bool match_name(struct matching *m, struct qd_ptx_text name, const struct qd_ptx_type *type,
                       uint16_t *plan)
{
    const struct qd_ptx_type *declared;
    *plan = find_register(m->l, name, &declared);
    if (*plan != 0)
        return is_compatible(declared, type, m->may_be_wider && !m->is_address) ||
               refuse(m, name, "is a register of another type");
    struct qd_ptx_binding binding;
    unsigned bytes;
    if (!find_binding(m->l, name, &binding, &bytes)) return refuse(m, name, "is not declared");
    if (bytes != type->bytes || type->class == QD_PTX_CLASS_FLOAT) return refuse(m, name, "has another type");
    *plan = bind(m->l, binding);
    return true;
}

static uint16_t constant(struct qd_ptx_loader *l, uint64_t value)
{
    for (size_t i = l->n_plans; i-- > 0 && l->plans[i].kind != QD_PTX_PLAN_REGISTER;)
        if (l->plans[i].kind == QD_PTX_PLAN_CONSTANT && l->plans[i].value == value) return (uint16_t)i;
    return qd_ptx_add_plan(l, QD_PTX_PLAN_CONSTANT, value);
}

/* 0f followed by the 8 hexadecimal digits of a float's bits. */
static bool to_float(struct qd_ptx_text text, uint64_t *bits)
{
    if (text.length != 2 + 8 || text.at[0] != '0' || tolower((unsigned char)text.at[1]) != 'f') return false;
    char *end;
    *bits = strtoull(text.at + 2, &end, 16);
    return end == text.at + text.length;
}

static bool match_constant(struct matching *m, struct qd_ptx_text token, const struct qd_ptx_type *type,
                           uint16_t *plan)
{
    uint64_t bits;
    const bool is_float = to_float(token, &bits);
    if (!is_float && !qd_ptx_to_integer(token, &bits)) return false;
    if (is_float != (type->class == QD_PTX_CLASS_FLOAT))
        return refuse(m, token, "is a constant of another type");
    const unsigned unused = 64u - 8u * type->bytes;
    if (type->class == QD_PTX_CLASS_PREDICATE
            ? bits + 1 > 2 /* -1 is true, too */
            : bits << unused >> unused != bits && (uint64_t)((int64_t)(bits << unused) >> unused) != bits)
        return refuse(m, token, "is out of its type's range");
    *plan = constant(m->l, type->class == QD_PTX_CLASS_PREDICATE ? bits != 0 : bits);
    return true;
}

static bool match_value(struct matching *m, struct qd_ptx_text token, const struct qd_ptx_type *type)
{
    uint16_t plan = 0;
    if (token.length == 0) return false;
    if (isdigit((unsigned char)*token.at) || *token.at == '-') {
        if (!match_constant(m, token, type, &plan)) return false;
    } else if (strchr("{}[]|,+", *token.at) != NULL || !match_name(m, token, type, &plan)) {
        return false;
    }
    m->i.operand[m->i.n_operands++] = plan;
    if (m->is_address) {
        m->i.space = type->bytes == sizeof(uint32_t) ? QD_PTX_SHARED : QD_PTX_GLOBAL;
    } else {
        m->i.bytes = type->bytes;
        m->i.is_signed = type->is_signed;
        m->i.n_elements++;
    }
    return true;
}

/* ---- statements ---- */

/* What may follow an address's base. */
static bool match_offset(struct matching *m)
{
    uint64_t offset;
    if (!qd_ptx_same(*m->token, "+")) return true;
    if (!qd_ptx_to_integer(m->token[1], &offset)) return false;
    m->i.offset = (int32_t)offset;
    if ((uint64_t)(int64_t)m->i.offset != offset)
        return refuse(m, m->token[1], "is an offset beyond 32 bits");
    m->token += 2;
    return true;
}

static bool match_word(struct matching *m, struct qd_ptx_text word)
{
    const struct qd_ptx_text token = *m->token++;
    struct qd_ptx_loader *l = m->l;
    if (qd_ptx_same(word, "label")) {
        l->branches = qd_ptx_grow(l->branches, l->n_branches, sizeof *l->branches);
        l->branches[l->n_branches++] = (struct qd_ptx_place){token, l->entry->n_code, m->s->line};
        l->block++;
        return true;
    }
    if (!isdigit((unsigned char)*word.at)) return match_value(m, token, qd_ptx_find_type(word));
    return qd_ptx_equal(word, token) || refuse(m, token, "is a number that is not supported here");
}

/* The operands so far are written, unless they are an address. */
static bool end_written(struct matching *m)
{
    if (*m->form->operands != '[') m->i.n_written = m->i.n_operands;
    for (unsigned o = 0; o < m->i.n_written; o++)
        if (m->l->plans[m->i.operand[o]].kind != QD_PTX_PLAN_REGISTER)
            return refuse(m, *m->s->tokens, "cannot be written");
    if (strncmp(m->form->name, "cvt_", 4) == 0) m->may_be_wider = true;
    return true;
}

static bool match_operands(struct matching *m)
{
    for (const char *at = m->form->operands; *at != '\0';) {
        struct qd_ptx_text word = {at, 0};
        while (isalnum((unsigned char)at[word.length])) word.length++;
        if (word.length > 0) {
            if (!match_word(m, word)) return false;
            at += word.length;
            continue;
        }
        const char c = *at++;
        uint64_t number;
        if (c == '#') {
            if (!qd_ptx_to_integer(*m->token++, &number) || number > INT32_MAX) return false;
            m->i.offset = (int32_t)number;
            continue;
        }
        if (c == ']' && !match_offset(m)) return false;
        if (!qd_ptx_same(*m->token++, c == '=' ? "," : (char[]){c, '\0'})) return false;
        m->is_address = c == '[';
        if (c == '=' && !end_written(m)) return false;
    }
    return m->token == m->s->tokens + m->s->n_tokens;
}

/* Whether the statement has the form's operands; it is the form's instruction then. */
static bool match(struct matching *m)
{
    const struct qd_ptx_type *predicate = qd_ptx_find_type((struct qd_ptx_text){"pred", 4});
    m->i = (struct qd_ptx_instruction){.op = m->form->op, .line = m->s->line, .wanted = m->s->wanted};
    m->token = m->s->tokens;
    if (m->s->guard.length > 0 && !match_name(m, m->s->guard, predicate, &m->i.guard)) return false;
    m->may_be_wider = m->form->op == QD_PTX_OP_LOAD || m->form->op == QD_PTX_OP_STORE;
    if (!match_operands(m)) return false;
    if (strncmp(m->form->name, "ld.param.", 9) == 0) m->i.space = QD_PTX_PARAM;
    return true;
}

bool qd_ptx_decode(struct qd_ptx_loader *l, const struct qd_ptx_statement *s)
{
    struct qd_ptx_entry *e = l->entry;
    const char *why = "the instruction is not supported";
    if (l->n_plans > UINT16_MAX - QD_PTX_MAX_OPERANDS)
        return qd_ptx_refuse(l, s->line, "too many registers and constants");
    for (const struct form *f = forms; f < forms + N_FORMS; f++) {
        if (!is_named(f, s->opcode)) continue;
        struct matching m = {.l = l, .s = s, .form = f};
        if (match(&m)) {
            qd_ptx_note_uses(l, &m.i);
            e->code = qd_ptx_grow(e->code, e->n_code, sizeof *e->code);
            e->code[e->n_code++] = m.i;
            return true;
        }
        if (m.is_refused) return false;
        why = "not with such operands";
    }
    return qd_ptx_refuse(l, s->line, "%.*s: %s", (int)s->opcode.length, s->opcode.at, why);
}

/* From a statement to an instruction: finds the form of the instruction that has the statement's opcode and
 * kinds of operands, and a slot for each operand. What it lets pass, the executor can run. */
#include "kernels/emu/ptx/internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FORM = 64 };

/* ---- forms ---- */

struct form {
    const char *name;     /* the opcode; `_` may stand for `.` */
    const char *operands; /* see instructions.h */
    uint16_t op;
};

static const struct form forms[] = {
#define UNARY(name, r, a, value)           {#name, "=" #r " " #a, QD_PTX_OP_##name},
#define CONVERT(name, r, a, value)         {#name, "=" #r " " #a "+", QD_PTX_OP_##name},
#define BINARY(name, r, a, b, value)       {#name, "=" #r " " #a " " #b, QD_PTX_OP_##name},
#define TERNARY(name, r, a, b, c, value)   {#name, "=" #r " " #a " " #b " " #c, QD_PTX_OP_##name},
#define QUATERNARY(name, r, a, b, c, d, v) {#name, "=" #r " " #a " " #b " " #c " " #d, QD_PTX_OP_##name},
#define OTHER(op, name, operands)          {name, operands, QD_PTX_OP_##op},
    QD_PTX_UNARY(UNARY) QD_PTX_CONVERT(CONVERT) QD_PTX_BINARY(BINARY) QD_PTX_TERNARY(TERNARY)
        QD_PTX_QUATERNARY(QUATERNARY) QD_PTX_OTHER(OTHER)
#undef UNARY
#undef CONVERT
#undef BINARY
#undef TERNARY
#undef QUATERNARY
#undef OTHER
};
enum { N_FORMS = sizeof forms / sizeof *forms };

/* One operand of a form. */
struct item {
    enum { ITEM_TYPE, ITEM_LABEL, ITEM_NUMBER, ITEM_LITERAL } kind;
    enum qd_ptx_shape shape;
    bool is_written, may_be_wider;
    unsigned n; /* values */
    uint64_t literal;
    struct qd_ptx_type type;
};

/* Reads the form's next operand; false at its end. */
static bool next_item(const char **form, struct item *item)
{
    const char *at = *form;
    while (*at == ' ') at++;
    if (*at == '\0') return false;
    *item = (struct item){.shape = QD_PTX_PLAIN, .n = 1};
    if (*at == '=') item->is_written = true, at++;
    if (*at == '[') item->shape = QD_PTX_ADDRESS, at++;
    if (*at == '{') item->shape = QD_PTX_VECTOR, at++;
    struct qd_ptx_text word = {at, 0};
    while (isalnum((unsigned char)at[word.length])) word.length++;
    at += word.length;
    if (qd_ptx_same(word, "label"))
        item->kind = ITEM_LABEL;
    else if (*at == '#')
        item->kind = ITEM_NUMBER;
    else if (isdigit((unsigned char)*word.at))
        item->kind = ITEM_LITERAL, item->literal = strtoull(word.at, NULL, 10);
    else
        qd_ptx_find_type(word, &item->type);
    if (*at == '+') item->may_be_wider = true, at++;
    if (*at == '*') item->n = (unsigned)at[1] - '0';
    if (*at == '|') item->shape = QD_PTX_PAIR, item->n = 2;
    while (*at != ' ' && *at != '\0') at++;
    *form = at;
    return true;
}

static bool fits(const char *form, const struct qd_ptx_statement *s)
{
    struct item item;
    unsigned n = 0;
    for (; next_item(&form, &item); n++) {
        if (n == s->n_operands) return false;
        if (item.shape != s->operands[n].shape || item.n != s->operands[n].n_values) return false;
    }
    return n == s->n_operands;
}

static bool is_named(const struct form *f, struct qd_ptx_text opcode)
{
    for (size_t i = 0; i < opcode.length; i++)
        if (f->name[i] != opcode.at[i] && !(f->name[i] == '_' && opcode.at[i] == '.')) return false;
    return f->name[opcode.length] == '\0';
}

/* ---- values ---- */

static bool refuse_value(struct qd_ptx_loader *l, const struct qd_ptx_statement *s,
                         const struct qd_ptx_value *v, const char *why)
{
    return qd_ptx_refuse(l, s->line, "%.*s: `%.*s` %s", (int)s->opcode.length, s->opcode.at,
                         (int)v->text.length, v->text.at, why);
}

/* The declaration that covers the name, and the register's place in it. */
static const struct qd_ptx_registers *find_register(const struct qd_ptx_loader *l, struct qd_ptx_text name,
                                                    size_t *index)
{
    for (size_t i = 0; i < l->n_registers; i++) {
        const struct qd_ptx_registers *r = &l->registers[i];
        const size_t length = r->prefix.length;
        *index = 0;
        if (name.length < length || memcmp(name.at, r->prefix.at, length) != 0) continue;
        if (r->n == 0 && name.length == length) return r;
        if (r->n == 0 || name.length == length) continue;
        size_t at = length;
        for (; at < name.length && isdigit((unsigned char)name.at[at]) && *index < r->n; at++)
            *index = 10 * *index + (size_t)(name.at[at] - '0');
        if (at == name.length && *index < r->n) return r;
    }
    return NULL;
}

/* Signed and unsigned are the same to a register, and bits are anything but a predicate. */
static bool is_compatible(struct qd_ptx_type declared, const struct item *item)
{
    const struct qd_ptx_type used = item->type;
    if (declared.bytes != used.bytes && !(item->may_be_wider && declared.bytes > used.bytes)) return false;
    if (declared.class == used.class) return true;
    return declared.class != QD_PTX_CLASS_PREDICATE && used.class != QD_PTX_CLASS_PREDICATE &&
           (declared.class == QD_PTX_CLASS_BITS || used.class == QD_PTX_CLASS_BITS);
}

static uint16_t constant_slot(struct qd_ptx_loader *l, uint64_t value)
{
    for (size_t i = l->n_plans; i-- > 0 && l->plans[i].kind != QD_PTX_PLAN_REGISTER;)
        if (l->plans[i].kind == QD_PTX_PLAN_CONSTANT && l->plans[i].value.u64 == value) return (uint16_t)i;
    qd_ptx_add_plan(l, QD_PTX_PLAN_CONSTANT, value);
    return (uint16_t)(l->n_plans - 1);
}

static uint16_t bound_slot(struct qd_ptx_loader *l, struct qd_ptx_binding binding)
{
    struct qd_ptx_entry *e = l->entry;
    for (size_t i = 0; i < e->n_bindings; i++) {
        const struct qd_ptx_binding *b = &e->bindings[i];
        if (b->kind == binding.kind && b->index == binding.index && b->shared == binding.shared)
            return b->slot;
    }
    qd_ptx_add_plan(l, QD_PTX_PLAN_BOUND, 0);
    binding.slot = (uint16_t)(l->n_plans - 1);
    e->bindings = qd_ptx_grow(e->bindings, e->n_bindings, sizeof *e->bindings);
    e->bindings[e->n_bindings++] = binding;
    return binding.slot;
}

/* What a name that is no register stands for; false when it is nothing. `bytes`: of its value. */
static bool find_binding(const struct qd_ptx_loader *l, struct qd_ptx_text name,
                         struct qd_ptx_binding *binding, unsigned *bytes)
{
    static const char *const specials[] = {QD_PTX_SPECIAL_NAMES};
    *binding = (struct qd_ptx_binding){.kind = QD_PTX_BOUND_SPECIAL};
    *bytes = 4;
    for (; binding->index < sizeof specials / sizeof *specials; binding->index++)
        if (qd_ptx_same(name, specials[binding->index])) return true;
    binding->kind = QD_PTX_BOUND_SHARED;
    binding->index = 0;
    for (binding->shared = l->module->shared; binding->shared; binding->shared = binding->shared->next)
        if (qd_ptx_same(name, binding->shared->name)) return true;
    binding->kind = QD_PTX_BOUND_PARAM;
    *bytes = 8;
    for (; binding->index < l->entry->n_params; binding->index++) {
        const struct qd_ptx_text param = l->param_names[binding->index];
        if (param.length == name.length && memcmp(param.at, name.at, name.length) == 0) return true;
    }
    return false;
}

static bool name_slot(struct qd_ptx_loader *l, const struct qd_ptx_statement *s, const struct qd_ptx_value *v,
                      const struct item *item, uint16_t *slot)
{
    size_t index;
    const struct qd_ptx_registers *r = find_register(l, v->text, &index);
    if (r != NULL) {
        if (!is_compatible(r->type, item)) return refuse_value(l, s, v, "is a register of another type");
        *slot = (uint16_t)(r->first + index);
        return true;
    }
    struct qd_ptx_binding binding;
    unsigned bytes;
    if (!find_binding(l, v->text, &binding, &bytes)) return refuse_value(l, s, v, "is not declared");
    if (item->is_written) return refuse_value(l, s, v, "cannot be written");
    if (bytes != item->type.bytes || item->type.class == QD_PTX_CLASS_FLOAT)
        return refuse_value(l, s, v, "has another type");
    *slot = bound_slot(l, binding);
    return true;
}

static bool fits_type(uint64_t value, struct qd_ptx_type type)
{
    if (type.class == QD_PTX_CLASS_PREDICATE) return value + 1 <= 2; /* -1 is true, too */
    const unsigned unused = 64 - 8 * type.bytes;
    return value << unused >> unused == value || (uint64_t)((int64_t)(value << unused) >> unused) == value;
}

static bool value_slot(struct qd_ptx_loader *l, const struct qd_ptx_statement *s,
                       const struct qd_ptx_value *v, const struct item *item, uint16_t *slot)
{
    const enum qd_ptx_class class = item->type.class;
    if (v->kind == QD_PTX_NAME) return name_slot(l, s, v, item, slot);
    if (item->is_written || item->shape == QD_PTX_ADDRESS)
        return refuse_value(l, s, v, "stands where a register must");
    if ((v->kind == QD_PTX_FLOAT_VALUE) != (class == QD_PTX_CLASS_FLOAT))
        return refuse_value(l, s, v, "is a constant of another type");
    if (!fits_type(v->bits, item->type)) return refuse_value(l, s, v, "is out of its type's range");
    *slot = constant_slot(l, class == QD_PTX_CLASS_PREDICATE ? v->bits != 0 : v->bits);
    return true;
}

/* ---- operands ---- */

static bool number_operand(struct qd_ptx_loader *l, const struct qd_ptx_statement *s,
                           const struct qd_ptx_value *v, const struct item *item,
                           struct qd_ptx_instruction *i)
{
    if (v->kind != QD_PTX_INTEGER_VALUE) return refuse_value(l, s, v, "is not a number");
    if (item->kind == ITEM_LITERAL && v->bits != item->literal)
        return refuse_value(l, s, v, "is a number that is not supported here");
    if (v->bits > INT32_MAX) return refuse_value(l, s, v, "is too large");
    if (item->kind == ITEM_NUMBER) i->offset = (int32_t)v->bits;
    return true;
}

static void note_branch(struct qd_ptx_loader *l, const struct qd_ptx_statement *s,
                        const struct qd_ptx_value *v)
{
    l->branches = qd_ptx_grow(l->branches, l->n_branches, sizeof *l->branches);
    l->branches[l->n_branches++] = (struct qd_ptx_place){v->text, l->entry->n_code, s->line};
}

static bool decode_operand(struct qd_ptx_loader *l, const struct qd_ptx_statement *s,
                           const struct qd_ptx_operand *o, const struct item *item,
                           struct qd_ptx_instruction *i)
{
    if (item->kind == ITEM_LABEL) {
        note_branch(l, s, &o->values[0]);
        return true;
    }
    if (item->kind != ITEM_TYPE) return number_operand(l, s, &o->values[0], item, i);
    if (o->shape == QD_PTX_ADDRESS) {
        if (o->offset != (int32_t)o->offset)
            return refuse_value(l, s, &o->values[0], "has an offset beyond 32 bits");
        i->offset = (int32_t)o->offset;
        if (item->type.bytes == 4) i->space = QD_PTX_SHARED;
    }
    if (o->shape == QD_PTX_VECTOR) i->n_elements = (uint8_t)o->n_values;
    for (unsigned v = 0; v < o->n_values; v++) {
        struct item value = *item;
        if (o->shape == QD_PTX_PAIR && v == 1)
            value.type = (struct qd_ptx_type){QD_PTX_CLASS_PREDICATE, 1, 0};
        if (!value_slot(l, s, &o->values[v], &value, &i->operand[i->n_operands])) return false;
        i->n_operands++;
        i->n_written = (uint8_t)(i->n_written + item->is_written);
    }
    return true;
}

static bool decode_guard(struct qd_ptx_loader *l, const struct qd_ptx_statement *s,
                         struct qd_ptx_instruction *i)
{
    if (!s->is_guarded) return true;
    const struct qd_ptx_value v = {.kind = QD_PTX_NAME, .text = s->guard};
    const struct item predicate = {.type = {QD_PTX_CLASS_PREDICATE, 1, false}};
    i->wanted = s->wanted;
    return name_slot(l, s, &v, &predicate, &i->guard);
}

static bool append(struct qd_ptx_loader *l, const struct qd_ptx_statement *s, const char *form,
                   struct qd_ptx_instruction *i)
{
    struct item item;
    i->line = s->line;
    if (!decode_guard(l, s, i)) return false;
    for (const struct qd_ptx_operand *o = s->operands; next_item(&form, &item); o++)
        if (!decode_operand(l, s, o, &item, i)) return false;
    if (l->n_plans > UINT16_MAX) return qd_ptx_refuse(l, s->line, "too many registers and constants");
    struct qd_ptx_entry *e = l->entry;
    if (i->space == QD_PTX_SHARED) i->access = e->n_accesses++;
    e->code = qd_ptx_grow(e->code, e->n_code, sizeof *e->code);
    e->code[e->n_code++] = *i;
    return true;
}

/* ---- ld and st: modifiers in any sensible combination ---- */

static bool refuse_opcode(struct qd_ptx_loader *l, const struct qd_ptx_statement *s, const char *why)
{
    return qd_ptx_refuse(l, s->line, "%.*s: %s", (int)s->opcode.length, s->opcode.at, why);
}

/* What an access may say that changes nothing here. */
static bool is_hint(struct qd_ptx_text word)
{
    return qd_ptx_same(word, "volatile") || qd_ptx_same(word, "nc") || qd_ptx_same(word, "L1::no_allocate") ||
           qd_ptx_same(word, "L2::128B");
}

static bool read_modifier(struct qd_ptx_text word, struct qd_ptx_instruction *i, struct qd_ptx_type *type,
                          bool *has_space)
{
    static const char *const spaces[] = {"global", "shared", "param"};
    for (uint8_t space = 0; space < sizeof spaces / sizeof *spaces; space++) {
        if (!qd_ptx_same(word, spaces[space]) || *has_space) continue;
        i->space = space;
        *has_space = true;
        return true;
    }
    if (qd_ptx_same(word, "v2") || qd_ptx_same(word, "v4")) {
        i->n_elements = (uint8_t)(word.at[1] - '0');
        return true;
    }
    return is_hint(word) || (qd_ptx_find_type(word, type) && type->class != QD_PTX_CLASS_PREDICATE);
}

/* Parameters are loaded from their name or, in structures, from an address that was moved to a register. */
static bool check_param(struct qd_ptx_loader *l, const struct qd_ptx_statement *s,
                        const struct qd_ptx_instruction *i)
{
    struct qd_ptx_binding binding;
    unsigned bytes;
    const struct qd_ptx_operand *from = &s->operands[1];
    if (i->space != QD_PTX_PARAM || !find_binding(l, from->values[0].text, &binding, &bytes)) return true;
    const int64_t end = from->offset + i->n_elements * i->bytes;
    if (binding.kind == QD_PTX_BOUND_PARAM && from->offset >= 0 &&
        end <= (int64_t)l->entry->params[binding.index].bytes)
        return true;
    return refuse_opcode(l, s, "outside of the parameter");
}

static bool decode_access(struct qd_ptx_loader *l, const struct qd_ptx_statement *s, bool is_load)
{
    struct qd_ptx_instruction i = {.op = is_load ? QD_PTX_OP_LOAD : QD_PTX_OP_STORE, .n_elements = 1};
    struct qd_ptx_type type = {0};
    bool has_space = false;
    const char *at = s->opcode.at + 2, *end = s->opcode.at + s->opcode.length;
    struct qd_ptx_text word = {at, 0};
    for (; at < end; at = word.at + word.length) {
        word = (struct qd_ptx_text){at + 1, 0};
        while (word.at + word.length < end && word.at[word.length] != '.') word.length++;
        if (type.bytes != 0 || !read_modifier(word, &i, &type, &has_space))
            return qd_ptx_refuse(l, s->line, "%.*s: modifier .%.*s is not supported", (int)s->opcode.length,
                                 s->opcode.at, (int)word.length, word.at);
    }
    if (!has_space || type.bytes == 0) return refuse_opcode(l, s, "an access needs a space and a type");
    if (!is_load && i.space == QD_PTX_PARAM) return refuse_opcode(l, s, "parameters cannot be written");
    i.bytes = (uint8_t)type.bytes;
    i.is_signed = type.is_signed;
    char form[MAX_FORM], values[MAX_FORM];
    const char *base = i.space == QD_PTX_SHARED ? "[u32]" : "[u64]";
    if (i.n_elements == 1)
        snprintf(values, sizeof values, "%.*s+", (int)word.length, word.at);
    else
        snprintf(values, sizeof values, "{%.*s+*%d}", (int)word.length, word.at, i.n_elements);
    if (is_load)
        snprintf(form, sizeof form, "=%.*s %s", MAX_FORM / 2, values, base);
    else
        snprintf(form, sizeof form, "%s %.*s", base, MAX_FORM / 2, values);
    if (!fits(form, s)) return refuse_opcode(l, s, "not with such operands");
    return append(l, s, form, &i) && (!is_load || check_param(l, s, &i));
}

/* ---- ---- */

static bool has_root(struct qd_ptx_text opcode, const char *root)
{
    return opcode.length > 2 && memcmp(opcode.at, root, 3) == 0;
}

bool qd_ptx_decode(struct qd_ptx_loader *l, const struct qd_ptx_statement *s)
{
    bool is_known = false;
    for (const struct form *f = forms; f < forms + N_FORMS; f++) {
        if (!is_named(f, s->opcode)) continue;
        is_known = true;
        if (!fits(f->operands, s)) continue;
        struct qd_ptx_instruction i = {.op = f->op};
        return append(l, s, f->operands, &i);
    }
    if (is_known) return refuse_opcode(l, s, "not with such operands");
    const bool is_load = has_root(s->opcode, "ld.");
    if (is_load || has_root(s->opcode, "st.")) return decode_access(l, s, is_load);
    return refuse_opcode(l, s, "the instruction is not supported");
}

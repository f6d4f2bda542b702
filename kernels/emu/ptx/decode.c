/* From a statement to an instruction: finds the form of the instruction that the statement has, and a slot
 * for each operand. What it lets pass, the executor can run. */
#include "kernels/emu/ptx/internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_WORD = 8 }; /* of a form */

static bool is_same(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

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
    QD_PTX_UNARY(UNARY) QD_PTX_BINARY(BINARY) QD_PTX_TERNARY(TERNARY) QD_PTX_OTHER(OTHER)
        QD_PTX_ACCESS(OTHER)};
enum { N_FORMS = sizeof forms / sizeof *forms };

static bool is_named(const struct form *f, const char *opcode)
{
    const char *name = f->name;
    while (*name != '\0' && (*name == *opcode || (*name == '_' && *opcode == '.'))) name++, opcode++;
    return *name == *opcode;
}

/* A statement on its way to an instruction. What registers it may name is ptxas's business. */
struct matching {
    struct qd_ptx_loader *l;
    const struct qd_ptx_statement *s;
    const struct form *form;
    const struct qd_ptx_token *token; /* next */
    bool is_address;                  /* the next value is an address's base */
    unsigned n_operands;
    struct qd_ptx_instruction i;
};

/* The token cannot be what the form wants there; false. */
static bool refuse(struct matching *m, const char *token, const char *why)
{
    return qd_ptx_refuse(m->l, m->s->line, "%s: `%s` %s", m->s->opcode, token, why);
}

/* ---- values ---- */

/* The slot for it, which may be there. */
static uint16_t find_slot(struct qd_ptx_loader *l, enum qd_ptx_slot_kind kind, uint64_t value)
{
    const struct qd_ptx_start *starts = l->entry->starts;
    for (size_t i = l->entry->n_slots; i-- > 0 && starts[i].kind != QD_PTX_SLOT_REGISTER;)
        if (starts[i].kind == kind && starts[i].value == value) return (uint16_t)i;
    return qd_ptx_add_slot(l, kind, value);
}

/* The slot of what a name stands for; 0 when it is nothing. */
static uint16_t find_name(struct qd_ptx_loader *l, const char *name)
{
    static const char *const specials[] = {QD_PTX_SPECIAL_NAMES};
    for (const struct qd_ptx_registers *r = l->registers; r < l->registers + l->n_registers; r++) {
        const size_t length = strlen(r->prefix);
        uint64_t index;
        if (strncmp(name, r->prefix, length) == 0 && qd_ptx_to_integer(name + length, &index) && index < r->n)
            return (uint16_t)(r->first + index);
    }
    for (unsigned i = 0; i < sizeof specials / sizeof *specials; i++)
        if (is_same(name, specials[i])) return find_slot(l, QD_PTX_SLOT_SPECIAL, i);
    for (const struct qd_ptx_shared *object = l->module->shared; object != NULL; object = object->next)
        if (is_same(name, object->name)) return find_slot(l, QD_PTX_SLOT_SHARED, (uintptr_t)object);
    for (unsigned i = 0; i < l->entry->n_params; i++)
        if (is_same(name, l->param_names[i])) return find_slot(l, QD_PTX_SLOT_PARAM, i);
    return 0;
}

/* A number, or 0f followed by the 8 hexadecimal digits of a float's bits. */
static bool to_constant(const char *text, uint64_t *bits)
{
    char *end;
    if (strncasecmp(text, "0f", 2) != 0) return qd_ptx_to_integer(text, bits);
    *bits = strtoull(text + 2, &end, 16);
    return end == text + 2 + 8 && *end == '\0';
}

static bool match_value(struct matching *m, const char *token, const struct qd_ptx_type *type)
{
    uint64_t bits;
    uint16_t slot;
    if (strchr("{}[]|,+;", *token) != NULL) return false;
    if (to_constant(token, &bits))
        slot = find_slot(m->l, QD_PTX_SLOT_CONSTANT, is_same(type->name, "pred") ? bits != 0 : bits);
    else
        slot = find_name(m->l, token);
    if (slot == 0) return refuse(m, token, "is not declared");
    m->i.operand[m->n_operands++] = slot;
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
    if (!is_same(m->token->text, "+")) return true;
    if (!qd_ptx_to_integer(m->token[1].text, &offset)) return false;
    m->i.offset = (int32_t)offset;
    if ((uint64_t)m->i.offset != offset) return refuse(m, m->token[1].text, "is an offset beyond 32 bits");
    m->token += 2;
    return true;
}

/* A type, a number, or what a word of the form stands for. */
static bool match_word(struct matching *m, const char *word)
{
    const char *token = m->token++->text;
    struct qd_ptx_loader *l = m->l;
    uint64_t number;
    if (is_same(word, "label")) {
        l->branches = qd_ptx_grow(l->branches, l->n_branches, sizeof *l->branches);
        l->branches[l->n_branches++] = (struct qd_ptx_place){token, l->entry->n_code, m->s->line};
    } else if (is_same(word, "number")) {
        if (!qd_ptx_to_integer(token, &number) || number > INT32_MAX) return false;
        m->i.offset = (int32_t)number;
    } else if (isdigit((unsigned char)*word)) {
        return is_same(word, token) || refuse(m, token, "is a number that is not supported here");
    } else {
        return match_value(m, token, qd_ptx_find_type(word));
    }
    return true;
}

/* The operands so far are written, unless they are an address. */
static bool end_written(struct matching *m)
{
    for (unsigned o = 0; o < m->n_operands && *m->form->operands != '['; o++)
        if (m->l->entry->starts[m->i.operand[o]].kind != QD_PTX_SLOT_REGISTER)
            return refuse(m, m->s->tokens->text, "cannot be written");
    return true;
}

static bool match_operands(struct matching *m)
{
    for (const char *at = m->form->operands; *at != '\0';) {
        char part[MAX_WORD] = {*at++};
        if (isalnum((unsigned char)*part)) {
            for (unsigned n = 1; isalnum((unsigned char)*at); n++) part[n] = *at++;
            if (!match_word(m, part)) return false;
            continue;
        }
        if (*part == ']' && !match_offset(m)) return false;
        if (!is_same(m->token++->text, *part == '=' ? "," : part)) return false;
        m->is_address = *part == '[';
        if (*part == '=' && !end_written(m)) return false;
    }
    return is_same(m->token->text, ";");
}

/* Whether the statement has the form's operands; it is the form's instruction then. */
static bool match(struct matching *m)
{
    m->i = (struct qd_ptx_instruction){.op = m->form->op, .line = m->s->line, .wanted = m->s->wanted};
    m->token = m->s->tokens;
    if (m->s->guard != NULL) {
        m->i.guard = find_name(m->l, m->s->guard);
        if (m->i.guard == 0) return refuse(m, m->s->guard, "is not declared");
    }
    if (!match_operands(m)) return false;
    if (strncmp(m->form->name, "ld.param.", 9) == 0) m->i.space = QD_PTX_PARAM;
    return true;
}

bool qd_ptx_decode(struct qd_ptx_loader *l, const struct qd_ptx_statement *s)
{
    struct qd_ptx_entry *e = l->entry;
    const char *why = "the instruction is not supported";
    if (e->n_slots > QD_PTX_MAX_SLOTS)
        return qd_ptx_refuse(l, s->line, "more than %d registers and constants", QD_PTX_MAX_SLOTS);
    for (const struct form *f = forms; f < forms + N_FORMS; f++) {
        if (!is_named(f, s->opcode)) continue;
        struct matching m = {.l = l, .s = s, .form = f};
        if (match(&m)) {
            if (m.i.space == QD_PTX_SHARED) m.i.access = e->n_accesses++;
            e->code = qd_ptx_grow(e->code, e->n_code, sizeof *e->code);
            e->code[e->n_code++] = m.i;
            return true;
        }
        if (l->is_refused) return false; /* for good: no other form will do */
        why = "not with such operands";
    }
    return qd_ptx_refuse(l, s->line, "%s: %s", s->opcode, why);
}

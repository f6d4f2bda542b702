/* What the parts of the PTX front end know of each other: parse.c makes declarations and statements of a
 * text, decode.c an instruction of a statement; execute.c runs instructions, one CUDA thread at a time;
 * module.c has the loaded modules and knows which kernel is which entry. */
#ifndef QD_KERNELS_EMU_PTX_INTERNAL_H
#define QD_KERNELS_EMU_PTX_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/emu/emu.h"
#include "kernels/emu/mode.h"
#include "kernels/emu/ptx/instructions.h"

/* ---- what is executed ---- */

/* QD_PTX_OP_ and the name in instructions.h, which has no one list of the first two. */
enum qd_ptx_op {
    QD_PTX_OP_LOAD,
    QD_PTX_OP_STORE,
#define QD_PTX_ENUM(name, ...) QD_PTX_OP_##name,
    QD_PTX_UNARY(QD_PTX_ENUM) QD_PTX_BINARY(QD_PTX_ENUM) QD_PTX_TERNARY(QD_PTX_ENUM) QD_PTX_OTHER(QD_PTX_ENUM)
#undef QD_PTX_ENUM
};

enum {
    QD_PTX_MAX_OPERANDS = 14, /* mma's registers */
    QD_PTX_MAX_PARAMS = 64,
    QD_PTX_MAX_SLOTS = 12288, /* 96 KiB of a thread's stack */
};

/* A register, constant or address of a thread: read and written as the instruction's type. */
union qd_ptx_slot {
    uint64_t u64, b64;
    int64_t s64;
    uint32_t u32, b32;
    int32_t s32;
    uint16_t u16, b16;
    int16_t s16;
    uint8_t u8;
    float f32;
    uint8_t pred; /* 0 or 1 when written */
};

enum qd_ptx_space { QD_PTX_GLOBAL, QD_PTX_SHARED, QD_PTX_PARAM };

struct qd_ptx_instruction {
    uint16_t op;        /* enum qd_ptx_op */
    uint16_t guard;     /* slot of the predicate that decides whether it is executed; 0: always */
    bool wanted;        /* the predicate's value for that */
    uint8_t space;      /* enum qd_ptx_space, of a memory access */
    uint8_t bytes;      /* of one element of a memory access */
    uint8_t n_elements; /* of a memory access, or registers of ldmatrix */
    bool is_signed;     /* a load's elements */
    int32_t offset;     /* of an address in bytes; a branch's target; the number that a form names */
    uint32_t line;      /* in the file */
    uint16_t access;    /* number among the entry's instructions with an address of shared memory */
    uint16_t operand[QD_PTX_MAX_OPERANDS]; /* slots: first those written */
};

struct qd_ptx_shared {
    struct qd_ptx_shared *next; /* of the module */
    const char *name;
    uint32_t bytes, align; /* bytes 0: the launch's dynamic memory */
};

/* What a slot is for. */
enum qd_ptx_slot_kind {
    QD_PTX_SLOT_REGISTER,
    QD_PTX_SLOT_CONSTANT,
    QD_PTX_SLOT_SPECIAL, /* value: index in QD_PTX_SPECIAL_NAMES */
    QD_PTX_SLOT_PARAM,   /* value: index; the slot gets its address */
    QD_PTX_SLOT_SHARED,  /* value: a struct qd_ptx_shared; the slot gets its address */
};
struct qd_ptx_start {
    enum qd_ptx_slot_kind kind;
    uint64_t value; /* at a thread's start, unless it says otherwise above */
};
#define QD_PTX_SPECIAL_NAMES "%tid.x", "%ntid.x", "%nctaid.x", "%ctaid.x", "%ctaid.y"

struct qd_ptx_entry {
    struct qd_ptx_entry *next; /* of the module */
    const char *name;          /* mangled */
    const char *file;          /* the module's path */
    unsigned max_threads;      /* of a block; 0: not said */
    unsigned n_params;
    uint32_t param_bytes[QD_PTX_MAX_PARAMS];
    struct qd_ptx_instruction *code; /* [n_code], the last one returns */
    size_t n_code;
    uint16_t n_accesses;         /* of shared memory */
    struct qd_ptx_start *starts; /* [n_slots], of a thread's values; slot 0 is nobody's */
    size_t n_slots;
};

struct qd_ptx_module {
    struct qd_ptx_module *next;
    char *path;
    char *words; /* the file's tokens, where names point */
    struct qd_ptx_entry *entries;
    struct qd_ptx_shared *shared;
};

/* ---- loading ---- */

struct qd_ptx_token {
    const char *text; /* "" at the end of the file */
    unsigned line;
};

struct qd_ptx_statement {
    unsigned line;
    bool wanted;
    const char *guard; /* NULL: none */
    const char *opcode;
    const struct qd_ptx_token *tokens; /* of the operands, up to a ; */
};

struct qd_ptx_type {
    const char *name;
    uint8_t bytes;
    bool is_signed;
};

/* `.reg .b32 %r<9>` */
struct qd_ptx_registers {
    const char *prefix;
    size_t first; /* slot */
    uint64_t n;
};

struct qd_ptx_place { /* a label, or an instruction that names one */
    const char *label;
    size_t instruction;
    unsigned line;
};

struct qd_ptx_loader {
    struct qd_ptx_module *module;
    const struct qd_ptx_token *token; /* next */
    char *err;
    size_t errlen;
    bool is_refused; /* the reason is in err */

    /* Of the entry that is being loaded. */
    struct qd_ptx_entry *entry;
    const char *param_names[QD_PTX_MAX_PARAMS];
    struct qd_ptx_registers *registers;
    size_t n_registers;
    struct qd_ptx_place *labels, *branches;
    size_t n_labels, n_branches;
};

/* The number of a new slot of the entry's. */
uint16_t qd_ptx_add_slot(struct qd_ptx_loader *l, enum qd_ptx_slot_kind kind, uint64_t value);
/* Writes "FILE:LINE: text" into err; false. */
bool qd_ptx_refuse(struct qd_ptx_loader *l, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Room for one more item behind n: returns the array, which may have moved. */
void *qd_ptx_grow(void *array, size_t n, size_t item_bytes);
/* u8 .. b64, f32, pred; NULL when it is none of them. */
const struct qd_ptx_type *qd_ptx_find_type(const char *name);
/* Decimal, hexadecimal, negative; false when it is no number. */
bool qd_ptx_to_integer(const char *text, uint64_t *value);

/* parse.c: fills the module from the file's text; false with the reason in err. */
bool qd_ptx_parse(struct qd_ptx_module *module, const char *text, char *err, size_t errlen);
/* decode.c: appends the statement's instruction to the entry. */
bool qd_ptx_decode(struct qd_ptx_loader *l, const struct qd_ptx_statement *s);

/* ---- running ---- */

/* execute.c: struct qd_emu_launch's call; kernel is a struct qd_ptx_entry. */
void qd_ptx_run_thread(void *const *args, const void *kernel);

#endif

#include "harness/result/marks.h"

#include <stddef.h>
#include <string.h>

const char *qd_mark_text(uint32_t mark)
{
    switch (mark) {
#define QD_MARK_TEXT(name, bit, text)                                                                        \
    case name:                                                                                               \
        return text;
        QD_MARK_LIST(QD_MARK_TEXT)
#undef QD_MARK_TEXT
    }
    return NULL;
}

uint32_t qd_mark_find(const char *text)
{
    for (uint32_t mark = 1; mark < QD_MARK_UNKNOWN; mark <<= 1)
        if (strcmp(qd_mark_text(mark), text) == 0) return mark;
    return QD_MARK_UNKNOWN;
}

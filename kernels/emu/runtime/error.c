#include "kernels/emu/runtime/internal.h"

#include <stdarg.h>
#include <stdio.h>

/* `last` is what cudaGetLastError gives; the text stays with its error after that was read. */
static _Thread_local cudaError_t last, explained;
static _Thread_local char explanation[QD_ERR_LEN];

cudaError_t qd_emu_refuse(cudaError_t error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(explanation, sizeof explanation, format, arguments);
    va_end(arguments);
    last = explained = error;
    return error;
}

void qd_emu_forget_errors(void)
{
    last = explained = cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define ERROR_NAME(name, value, text)                                                                        \
    case name: return #name;
        QD_EMU_CUDA_ERRORS(ERROR_NAME)
#undef ERROR_NAME
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    if (error != cudaSuccess && error == explained) return explanation;
    switch (error) {
#define ERROR_TEXT(name, value, text)                                                                        \
    case name: return text;
        QD_EMU_CUDA_ERRORS(ERROR_TEXT)
#undef ERROR_TEXT
    }
    return "unrecognized error code";
}

cudaError_t cudaPeekAtLastError(void)
{
    return last;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

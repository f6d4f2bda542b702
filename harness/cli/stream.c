#include "harness/cli/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

qd_status qd_stream_read(FILE *in, size_t max_bytes, char **text, size_t *len, char *err, size_t errlen)
{
    char *buffer = NULL;
    size_t n = 0, room = 0;
    qd_status status = QD_OK;
    *text = NULL;
    *len = 0;
    do {
        if (room - n < 2) {
            room = room < 1 << 16 ? 1 << 16 : 2 * room;
            char *grown = realloc(buffer, room);
            if (grown == NULL) {
                status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu bytes of input", room);
                break;
            }
            buffer = grown;
        }
        n += fread(buffer + n, 1, room - n - 1, in);
        if (n > max_bytes)
            status = qd_fail(QD_ERR_TOO_LARGE, err, errlen, "input of more than %zu bytes", max_bytes);
        else if (ferror(in))
            status = qd_fail(QD_ERR_IO, err, errlen, "reading the input: %s", strerror(errno));
    } while (status == QD_OK && !feof(in));
    if (status != QD_OK) {
        free(buffer);
        return status;
    }
    buffer[n] = 0;
    *text = buffer;
    *len = n;
    return QD_OK;
}

qd_status qd_stream_flush(FILE *out, char *err, size_t errlen)
{
    if (fflush(out) == 0 && !ferror(out)) return QD_OK;
    return qd_fail(QD_ERR_IO, err, errlen, "writing the output: %s", strerror(errno));
}

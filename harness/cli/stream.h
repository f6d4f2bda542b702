/* Standard input and output of commands. */
#ifndef QD_HARNESS_CLI_STREAM_H
#define QD_HARNESS_CLI_STREAM_H

#include <stdio.h>

#include "kernels/base/status.h"

/* Reads a stream to its end; *text has a byte 0 beyond *len and is freed by the caller. QD_ERR_TOO_LARGE
 * above max_bytes, QD_ERR_IO, QD_ERR_NO_MEMORY. */
qd_status qd_stream_read(FILE *in, size_t max_bytes, char **text, size_t *len, char *err, size_t errlen);

/* Flushes; QD_ERR_IO when anything written to the stream since it was opened did not arrive. */
qd_status qd_stream_flush(FILE *out, char *err, size_t errlen);

#endif

#include "harness/workload/build.h"

struct reader {
    const struct qd_prompts_spec *spec;
    struct qd_workload *out;
};

static qd_status read_line(void *arg, const char *line, size_t len, bool *stop, char *err, size_t errlen)
{
    struct reader *reader = arg;
    struct qd_workload_request *request = qd_workload_append(reader->out);
    if (request == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    if (line[len - 1] == '\r') len--;
    request->max_tokens = (int32_t)reader->spec->output_len;
    *stop = reader->spec->n > 0 && reader->out->n == (size_t)reader->spec->n;
    return qd_workload_encode(reader->spec->tokenizer, "the prompt", line, len, request, err, errlen);
}

qd_status qd_workload_prompts(const struct qd_prompts_spec *spec, struct qd_workload *out, char *err,
                              size_t errlen)
{
    *out = (struct qd_workload){.ignore_eos = spec->ignore_eos};
    if (spec->output_len < 1 || spec->output_len > INT32_MAX)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "an output length of %lld", (long long)spec->output_len);
    struct reader reader = {spec, out};
    qd_status status = qd_workload_each_line_of_file(spec->path, read_line, &reader, err, errlen);
    return qd_workload_finish(spec->path, spec->n, status, out, err, errlen);
}

#include "tests/support/trace.h"

#include "tests/support/test.h"

cJSON *trace_read(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("cannot open %s", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long size = ftell(file);
    assert_true(size > 0);
    rewind(file);
    char *text = malloc((size_t)size);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    fclose(file);
    cJSON *json = cJSON_ParseWithLength(text, (size_t)size);
    if (json == NULL) fail_msg("%s is not JSON", path);
    free(text);
    return json;
}

qd_bf16 *trace_tensor(const cJSON *trace, const char *name, size_t n)
{
    const char *member = name;
    if (strncmp(name, "weights/", 8) == 0) {
        trace = cJSON_GetObjectItemCaseSensitive(trace, "weights");
        member += 8;
    }
    const cJSON *data =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(trace, member), "data");
    if ((size_t)cJSON_GetArraySize(data) != n)
        fail_msg("%s has %d elements, expected %zu", name, cJSON_GetArraySize(data), n);
    qd_bf16 *out = malloc(n * sizeof *out);
    assert_non_null(out);
    const cJSON *value;
    size_t i = 0;
    cJSON_ArrayForEach(value, data) out[i++] = qd_bf16_from_f32((float)value->valuedouble);
    return out;
}

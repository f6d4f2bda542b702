/* Reads JSON for the shell tests, with the strict reader of models/json.h:
 *   json [-l] FILE [PATH]     FILE -: standard input; -l: a value a line
 * PATH is keys and indices separated by '/'. Prints the value there: text and numbers as they are, of a list
 * or object how many members it has. Exit 1: no JSON, or nothing at PATH. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/stream.h"
#include "models/json.h"

enum { MAX_BYTES = 1 << 28 };

static const cJSON *find(const cJSON *value, const char *path)
{
    while (value != NULL && *path != '\0') {
        char key[128];
        size_t len = strcspn(path, "/");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        value = cJSON_IsArray(value) ? cJSON_GetArrayItem(value, atoi(key))
                                     : cJSON_GetObjectItemCaseSensitive(value, key);
        path += len + (path[len] == '/');
    }
    return value;
}

static int print(const char *text, size_t len, const char *path)
{
    char err[QD_ERR_LEN] = "";
    cJSON *tree;
    if (qd_json_parse(text, len, NULL, &tree, err, sizeof err) != QD_OK) {
        fprintf(stderr, "json: %s\n", err);
        return 1;
    }
    const cJSON *value = find(tree, path);
    if (value == NULL)
        fprintf(stderr, "json: nothing at \"%s\"\n", path);
    else if (cJSON_IsArray(value) || cJSON_IsObject(value))
        printf("%d\n", cJSON_GetArraySize(value));
    else if (cJSON_IsString(value))
        printf("%s\n", value->valuestring);
    else if (cJSON_IsNumber(value))
        printf("%.17g\n", value->valuedouble);
    else
        printf("%s\n", cJSON_IsNull(value) ? "null" : cJSON_IsTrue(value) ? "true" : "false");
    cJSON_Delete(tree);
    return value == NULL;
}

static int print_lines(const char *text, size_t len, const char *path)
{
    for (const char *end = text + len; text < end;) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((newline != NULL ? newline : end) - text);
        int failed = print(text, n, path);
        if (failed != 0) return failed;
        text += n + 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    bool lines = argc > 1 && strcmp(argv[1], "-l") == 0;
    int first = lines ? 2 : 1;
    if (argc <= first) return 1;
    FILE *in = strcmp(argv[first], "-") == 0 ? stdin : fopen(argv[first], "r");
    char err[QD_ERR_LEN] = "", *text;
    size_t len;
    if (in == NULL || qd_stream_read(in, MAX_BYTES, &text, &len, err, sizeof err) != QD_OK) {
        fprintf(stderr, "json: cannot read %s %s\n", argv[first], err);
        return 1;
    }
    const char *path = argc > first + 1 ? argv[first + 1] : "";
    int failed = lines ? print_lines(text, len, path) : print(text, len, path);
    free(text);
    return failed;
}

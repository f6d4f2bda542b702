/* Any bytes as JSON: parsed or refused with a reason; what is parsed prints and parses to the same again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "models/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Strings survive unquoting and quoting. */
static void check_string(const cJSON *string)
{
    char *text, *quoted;
    size_t len;
    QD_ASSERT(qd_json_text(string, &text, &len) == QD_OK);
    QD_ASSERT(qd_utf8_check(text, len) == len);
    quoted = qd_json_quote(text, len);
    QD_ASSERT(quoted != NULL);
    cJSON *again;
    char err[QD_ERR_LEN];
    QD_ASSERT(qd_json_parse(quoted, strlen(quoted), NULL, &again, err, sizeof err) == QD_OK);
    QD_ASSERT(strcmp(again->valuestring, string->valuestring) == 0);
    cJSON_Delete(again);
    free(quoted);
    free(text);
}

static void visit(const cJSON *value)
{
    if (cJSON_IsString(value)) check_string(value);
    if (!cJSON_IsArray(value) && !cJSON_IsObject(value)) return;
    for (const cJSON *child = value->child; child != NULL; child = child->next) visit(child);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[QD_ERR_LEN] = "";
    cJSON *root;
    qd_status status = qd_json_parse((const char *)data, size, NULL, &root, err, sizeof err);
    QD_ASSERT(status == QD_OK || err[0] != 0);
    if (status != QD_OK) return 0;
    visit(root);
    cJSON_Delete(root);
    return 0;
}

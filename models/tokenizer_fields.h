/* The small fields of a tokenizer.json: what is implemented is taken, anything else is refused by name. */
#ifndef QD_MODELS_TOKENIZER_FIELDS_H
#define QD_MODELS_TOKENIZER_FIELDS_H

#include <stdbool.h>

#include "models/added.h"
#include "models/json.h"

/* Names of the fields that are looked at, ended by NULL: at the top level (without "model") and in "model"
 * (without "vocab" and "merges"). Others change nothing. */
extern const char *const qd_tokenizer_top_fields[];
extern const char *const qd_tokenizer_model_fields[];

struct qd_tokenizer_settings {
    bool normalise;       /* to NFC */
    const cJSON *pattern; /* the regular expression that cuts words; a string inside `fields` */
};

/* Checks every field but added_tokens. QD_ERR_UNSUPPORTED names the field and its value, QD_ERR_INPUT a field
 * that is missing or of the wrong type. model NULL: missing. */
qd_status qd_tokenizer_read_settings(const cJSON *fields, const cJSON *model,
                                     struct qd_tokenizer_settings *out, char *err, size_t errlen);

/* Reads added_tokens, unsorted; a flag that is not implemented is refused with the token's name. */
qd_status qd_tokenizer_read_added(const cJSON *fields, struct qd_added *added, char *err, size_t errlen);

#endif

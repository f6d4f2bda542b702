/* What the tokenizer's tests share: the two tokenizers and lines of JSON. */
#ifndef QD_TESTS_SUPPORT_TOKENIZER_H
#define QD_TESTS_SUPPORT_TOKENIZER_H

#include "models/json.h"
#include "models/tokenizer.h"

#define TINY_MODEL      "models/tiny"
#define TINY_DATA       "tests/data/tokenizer/"
#define QWEN3_TOKENIZER SHARED_DATA "qwen3-tokenizer"
#define QWEN3_DATA      SHARED_DATA "goldens/tokenizer/"

/* Loads or fails the test. */
qd_tokenizer_t *load_tokenizer(const char *dir);

/* Calls visit for each line of a JSON-lines file, parsed; returns how many there were. */
int each_json_line(const char *path, void (*visit)(const cJSON *line, void *context), void *context);

/* The ids of a JSON array; the caller frees them. */
int32_t *ids_of(const cJSON *array, size_t *n);

/* Fails, printing both, unless the two lists are equal. */
void assert_same_ids(const int32_t *ids, size_t n, const int32_t *expected, size_t n_expected,
                     const char *what);

#endif

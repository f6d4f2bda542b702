/* What a loaded tokenizer is; known to tokenizer_load.c (which fills it), tokenizer.c and detokenize.c. */
#ifndef QD_MODELS_TOKENIZER_IMPL_H
#define QD_MODELS_TOKENIZER_IMPL_H

#include <stdatomic.h>

#include "models/added.h"
#include "models/bpe.h"
#include "models/pretokenize.h"
#include "models/tokenizer.h"
#include "models/vocab.h"

struct qd_tokenizer {
    struct qd_vocab vocab; /* base and added tokens; only base tokens can be found by their bytes */
    int32_t base_size;     /* largest id of the base vocabulary + 1 */
    struct qd_bpe bpe;
    struct qd_added added;
    bool *special;  /* [vocab.size] */
    bool normalise; /* to NFC */
    qd_splitter_t *splitter;
    /* [base_size] what byte-pair encoding makes of the bytes of a token: 0 not tried yet, TOKEN_IS_WORD the
     * token itself, TOKEN_IS_NO_WORD something else. Filled as words are met; every thread finds the same. */
    _Atomic unsigned char *word_state;
};

enum { TOKEN_IS_WORD = 1, TOKEN_IS_NO_WORD = 2 };

#endif
